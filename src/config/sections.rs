//! The sections of the file, one module each: every key with its type and its default.

mod breaker;
pub mod extract;
pub mod offload;
pub mod operation;
pub mod proxy;
pub mod queue;
mod redact;
pub mod route;
pub mod sink;
pub mod stream;
