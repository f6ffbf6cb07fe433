//! How a command fails: the sentence and the exit code.

use std::process::ExitCode;

use crate::admin::api::Refused;
use crate::queue::ReadError;

/// Why a command did not do what it was asked to.
#[derive(Debug, thiserror::Error)]
pub(super) enum Failure {
    /// It could not be done.
    #[error("{0}")]
    Failed(String),
    /// It was asked wrongly.
    #[error("{0}")]
    Usage(String),
    /// The running offramp could not be reached.
    #[error("{0}")]
    Unreachable(String),
    /// Nobody reads the output any more: no fault of anybody's.
    #[error("the output was closed")]
    Closed,
}

impl Failure {
    /// 1 failed, 2 usage or configuration, 3 not reachable.
    pub(super) fn code(&self) -> u8 {
        match self {
            Self::Closed => 0,
            Self::Failed(_) => 1,
            Self::Usage(_) => 2,
            Self::Unreachable(_) => 3,
        }
    }

    /// Says it on standard error.
    pub(super) fn report(&self) -> ExitCode {
        if !matches!(self, Self::Closed) {
            // Standard error may be closed too; the exit code still tells.
            let _ = std::io::Write::write_fmt(&mut std::io::stderr(), format_args!("offramp: {self}\n"));
        }
        ExitCode::from(self.code())
    }
}

impl From<ReadError> for Failure {
    fn from(error: ReadError) -> Self {
        Self::Failed(error.to_string())
    }
}

impl From<Refused> for Failure {
    fn from(refused: Refused) -> Self {
        Self::Usage(refused.0)
    }
}
