//! (being written)

use std::process::ExitCode;

use super::args::Globals;

pub(super) fn run(globals: &Globals) -> ExitCode {
    let _ = globals;
    ExitCode::FAILURE
}
