//! The command line: one file a command group.
//!
//! Output for people goes to standard output as aligned tables, diagnostics to standard error, `--json` is stable. A reader that
//! closes the pipe early (`offramp episodes | head`) ends the command quietly.

pub mod args;
mod check;
mod client;
mod dead;
pub mod demo;
mod drain;
mod episodes;
mod export;
mod failure;
mod human;
mod import;
mod output;
mod presets;
mod progress;
mod replay;
mod run;
mod shell;
mod show;
mod sink_test;
mod sinks;
mod source;
mod status;
mod story;
mod table;
mod transfer;
mod verify;

use std::io::Write;
use std::process::ExitCode;

use clap::Parser;
use tokio::runtime::{Builder, Runtime};

use crate::config::{self, Config, Faults};
use args::{AtSink, Cli, Command, Dead, Globals};
use failure::Failure;
use output::Output;
use source::Source;

/// Parses the arguments, does what they say, and gives the exit code: 0 done, 1 failed, 2 usage or configuration, 3 the running
/// offramp could not be reached.
pub fn main() -> ExitCode {
    // Ends with 2 on a usage error, with 0 on --help.
    let cli = Cli::parse();
    match cli.command {
        Command::Run => run::run(&cli.globals),
        Command::Check => check_config(&cli.globals),
        Command::Presets(args) => code_of(presets::run(&args, &mut Output::stdout())),
        Command::Completions(args) => code_of(shell::completions(&args, &mut Output::stdout())),
        Command::Man(args) => code_of(shell::man(&args, &mut Output::stdout())),
        Command::Demo(args) => match on_all_cores() {
            Ok(runtime) => runtime.block_on(demo::run(args)),
            Err(code) => code,
        },
        command => match or_tell(config::load(&cli.globals.input())) {
            Ok(config) => on_queue(command, &config),
            Err(code) => code,
        },
    }
}

/// A runtime with a thread per core, for what carries load.
fn on_all_cores() -> Result<Runtime, ExitCode> {
    raise_open_files();
    started(Builder::new_multi_thread().enable_all().thread_name("offramp").build())
}

/// A connection is two descriptors, and the usual soft limit is 1024: takes what the hard limit allows.
fn raise_open_files() {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let maximum = getrlimit(Resource::Nofile).maximum;
    // Not being allowed to leaves the limit as it is, and accepting pauses when it is reached.
    let _ = setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum });
}

fn started(runtime: std::io::Result<Runtime>) -> Result<Runtime, ExitCode> {
    runtime.map_err(|e| Failure::Failed(format!("the runtime could not be started: {e}")).report())
}

/// Runs a command that talks to the running offramp, or to its queue where none runs.
fn on_queue(command: Command, config: &Config) -> ExitCode {
    let runtime = match started(Builder::new_current_thread().enable_all().build()) {
        Ok(runtime) => runtime,
        Err(code) => return code,
    };
    code_of(runtime.block_on(dispatch(command, config, &mut Output::stdout())))
}

/// The exit code of a command that is done; where it failed, says why.
fn code_of(done: Result<(), Failure>) -> ExitCode {
    done.map_or_else(|failure| failure.report(), |()| ExitCode::SUCCESS)
}

async fn dispatch(command: Command, config: &Config, out: &mut Output) -> Result<(), Failure> {
    let command = match command {
        Command::Status(args) => return status::run(&args, config, out).await,
        Command::Sink(AtSink::Test(args)) => return sink_test::run(&args, config, out).await,
        Command::Verify(args) => return verify::run(&args, &config.queue, out),
        Command::Import(args) => return import::run(&args, &Source::open_or_create(config).await?, out).await,
        command => command,
    };
    let source = Source::open(config).await?;
    match command {
        Command::Export(args) => export::run(&args, &source, out).await,
        Command::Episodes(args) => episodes::run(&args, &source, out).await,
        Command::Show(args) => show::run(&args, &source, out).await,
        Command::Dead(Dead::List(args)) => dead::list(&args, &source, out).await,
        Command::Dead(Dead::Redrive(args)) => dead::redrive(args, &source, out).await,
        Command::Dead(Dead::Purge(args)) => dead::purge(args, &source, out).await,
        Command::Pause(args) => sinks::set_paused(&args.sink, true, &source, out).await,
        Command::Resume(args) => sinks::set_paused(&args.sink, false, &source, out).await,
        Command::Drain(args) => drain::run(&args, &source, out).await,
        Command::Replay(args) => replay::run(args, &source, out).await,
        Command::Purge(args) => sinks::purge(&args.sink, &source, out).await,
        // Dispatched before this source was needed.
        Command::Run
        | Command::Check
        | Command::Presets(_)
        | Command::Demo(_)
        | Command::Completions(_)
        | Command::Man(_)
        | Command::Sink(_)
        | Command::Status(_)
        | Command::Import(_)
        | Command::Verify(_) => Ok(()),
    }
}

/// The configuration that the options name. Where it is faulty, prints every fault and gives the exit code.
fn or_tell(loaded: Result<Config, Faults>) -> Result<Config, ExitCode> {
    loaded.map_err(|faults| {
        // As `check` shows them, a place at the start of each line. Standard error may be closed; the exit code still tells.
        let _ = writeln!(std::io::stderr(), "{faults}\n{}", faults.summary());
        ExitCode::from(Failure::Usage(String::new()).code())
    })
}

/// `check`: every fault, or what would run.
fn check_config(globals: &Globals) -> ExitCode {
    match check::check(&globals.input(), &mut std::io::stdout().lock()) {
        Ok(code) => ExitCode::from(code),
        Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => ExitCode::SUCCESS,
        Err(error) => Failure::Failed(format!("standard output takes nothing: {error}")).report(),
    }
}

#[cfg(test)]
mod tests;
