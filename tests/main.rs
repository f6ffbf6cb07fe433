//! The integration tests: each module drives the real binary, or the library, from outside.

mod real_graphiti;
mod support;
