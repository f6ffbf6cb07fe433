//! `run`: proxy and drain until told to stop.

use std::process::ExitCode;
use std::time::Duration;

use tokio::signal::unix::{Signal, SignalKind, signal};

use super::args::Globals;
use super::failure::Failure;
use super::{on_all_cores, or_tell};
use crate::config::{self, Config, Input};
use crate::run::Offramp;
use crate::systemd;
use crate::telemetry::log::{self, Level};
use crate::tls;

/// Longest wait for blocking work that a forced stop leaves behind.
const LEAVE: Duration = Duration::from_millis(100);

pub(super) fn run(globals: &Globals) -> ExitCode {
    let config = match or_tell(config::load_with(&globals.input(), tls::faults)) {
        Ok(config) => config,
        Err(code) => return code,
    };
    let level = match log::init(&config.log) {
        Ok(level) => level,
        Err(e) => return Failure::Usage(e.to_string()).report(),
    };
    let runtime = match on_all_cores() {
        Ok(runtime) => runtime,
        Err(code) => return code,
    };
    let elsewhere = config.log.file.is_some();
    let ended = runtime.block_on(until_told(config, &globals.input(), &level));
    runtime.shutdown_timeout(LEAVE);
    match ended {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            tracing::error!("{failure}");
            // Whoever started it looks at the terminal first.
            if elsewhere { failure.report() } else { ExitCode::from(failure.code()) }
        }
    }
}

async fn until_told(config: Config, input: &Input, level: &Level) -> Result<(), Failure> {
    // Before anything starts: a signal that comes early must not be lost, nor kill a queue that is being opened.
    let mut signals = Signals::new().map_err(|e| Failure::Failed(format!("signals cannot be received: {e}")))?;
    let offramp = Offramp::start(config).await.map_err(|e| Failure::Failed(e.to_string()))?;
    let _watchdog = tokio::spawn(systemd::watchdog()); // until the runtime ends
    let reloading = async || {
        systemd::reloading();
        reload(&offramp, input, level).await;
        systemd::ready("serving");
    };
    let first = signals.next(reloading).await;
    tracing::info!(signal = first, "stopping: what is in flight is finished and committed; a second signal forces");
    let too_late = async || tracing::warn!("SIGHUP changes nothing any more: offramp is stopping");
    tokio::select! {
        closed = offramp.shutdown() => {
            if !closed {
                let sentence = "stopped without the queue, whose disk does not answer; what was committed is safe, and is resumed at the next start";
                return Err(Failure::Failed(sentence.to_owned()));
            }
            tracing::info!("stopped");
            Ok(())
        }
        second = signals.next(too_late) => Err(Failure::Failed(format!(
            "forced to stop by a second signal ({second}); what was committed is safe, attempts that were under way begin again"
        ))),
    }
}

/// Reads the configuration as `run` did, and has it put in force. A faulty one changes nothing.
async fn reload(offramp: &Offramp, input: &Input, level: &Level) {
    tracing::info!("SIGHUP: the configuration is read again");
    let input = input.clone();
    let config = match tokio::task::spawn_blocking(move || config::load_with(&input, tls::faults)).await {
        Ok(Ok(config)) => config,
        Ok(Err(faults)) => {
            for fault in &faults {
                tracing::error!("{fault}");
            }
            return tracing::error!("the configuration is faulty, and stays as it was: {}", faults.summary());
        }
        Err(error) => return tracing::error!(%error, "the configuration can't be read, and stays as it was"),
    };
    let wanted = config.log.level.clone();
    if let Err(error) = offramp.reload(config).await {
        return tracing::error!(%error, "the configuration stays as it was");
    }
    tracing::info!("the configuration was read again, and is in force"); // by the former level: who asks for less sees it still
    if let Err(error) = level.set(&wanted) {
        tracing::error!(%error, "log.level stays as it was");
    }
}

/// The signals that mean something; each other one does what the system does with it.
struct Signals {
    terminate: Signal,
    interrupt: Signal,
    hangup: Signal,
}

impl Signals {
    fn new() -> std::io::Result<Self> {
        Ok(Self {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
            hangup: signal(SignalKind::hangup())?,
        })
    }

    /// The next signal to stop; what `reload` does is done for each SIGHUP before it.
    async fn next(&mut self, reload: impl AsyncFn()) -> &'static str {
        loop {
            tokio::select! {
                _ = self.terminate.recv() => return "SIGTERM",
                _ = self.interrupt.recv() => return "SIGINT",
                _ = self.hangup.recv() => tokio::select! {
                    () = reload() => {}
                    // A disk that hangs must not keep anybody from stopping.
                    _ = self.terminate.recv() => return "SIGTERM",
                    _ = self.interrupt.recv() => return "SIGINT",
                },
            }
        }
    }
}
