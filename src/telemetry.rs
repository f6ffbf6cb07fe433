//! What operators see: logs and metrics. A leaf: everyone may read it.

pub mod log;
pub mod metrics;
