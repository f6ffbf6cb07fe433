//! Logs: one line an event, to standard error or to a file.

use std::backtrace::Backtrace;
use std::fs::{File, OpenOptions};
use std::io::{self, IsTerminal};
use std::panic::PanicHookInfo;
use std::path::PathBuf;

use tracing::Subscriber;
use tracing_subscriber::fmt::MakeWriter;
use tracing_subscriber::{EnvFilter, reload};

use crate::config::{Log, LogFormat};

/// Why there can be no log.
#[derive(Debug, thiserror::Error)]
pub enum LogError {
    /// `log.file`
    #[error("log.file {} cannot be opened for appending: {source}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// The system's error.
        source: io::Error,
    },
    /// `log.level`
    #[error(
        "log.level \"{level}\" is not understood ({source}); allowed are error, warn, info, debug, trace, and offramp=debug,info"
    )]
    Level {
        /// As configured.
        level: String,
        /// What is wrong with it.
        source: tracing_subscriber::filter::ParseError,
    },
    /// Only the first call can win.
    #[error("a log has been set up before in this process")]
    Twice,
    /// There is nothing to set the level of.
    #[error("the log is gone")]
    Gone,
}

/// What of a log can be changed while it is written.
pub struct Level {
    set: Box<dyn Fn(EnvFilter) -> Result<(), reload::Error> + Send + Sync>,
}

impl Level {
    /// Lets pass what `level` says, from now on.
    pub fn set(&self, level: &str) -> Result<(), LogError> {
        (self.set)(filter(level)?).map_err(|_| LogError::Gone)
    }
}

/// Sends every event of this process where `[log]` says, and panics too.
pub fn init(config: &Log) -> Result<Level, LogError> {
    let level = if let Some(path) = &config.file {
        let file = append(path)?;
        install(subscriber(config, file, Looks { terminal: false, colour: false })?)?
    } else {
        let terminal = io::stderr().is_terminal();
        let colour = terminal && std::env::var_os("NO_COLOR").is_none_or(|v| v.is_empty());
        install(subscriber(config, io::stderr, Looks { terminal, colour })?)?
    };
    std::panic::set_hook(Box::new(on_panic));
    Ok(level)
}

/// Stronger than any level: below it, this part of HTTP/2 writes down a request's target that it can't read, with the query and what is
/// secret in it.
const QUIET: &str = "h2::server=info";

#[derive(Debug, Clone, Copy)]
struct Looks {
    terminal: bool,
    colour: bool,
}

type Any = Box<dyn Subscriber + Send + Sync>;

fn append(path: &std::path::Path) -> Result<File, LogError> {
    // Every event is one write, so lines of several processes don't mix, and a rotation by copy and truncate goes well.
    OpenOptions::new().create(true).append(true).open(path).map_err(|source| LogError::File { path: path.to_owned(), source })
}

fn subscriber<W>(config: &Log, writer: W, looks: Looks) -> Result<(Any, Level), LogError>
where
    W: for<'w> MakeWriter<'w> + Send + Sync + 'static,
{
    let builder = tracing_subscriber::fmt().with_env_filter(filter(&config.level)?).with_writer(writer).with_ansi(looks.colour);
    let text = match config.format {
        LogFormat::Auto => looks.terminal,
        LogFormat::Text => true,
        LogFormat::Json => false,
    };
    Ok(if text {
        let builder = builder.with_filter_reloading();
        let handle = builder.reload_handle();
        (Box::new(builder.finish()), Level { set: Box::new(move |filter| handle.reload(filter)) })
    } else {
        let builder = builder.json().flatten_event(true).with_filter_reloading();
        let handle = builder.reload_handle();
        (Box::new(builder.finish()), Level { set: Box::new(move |filter| handle.reload(filter)) })
    })
}

fn filter(level: &str) -> Result<EnvFilter, LogError> {
    let filter = EnvFilter::try_new(level).map_err(|source| LogError::Level { level: level.to_owned(), source })?;
    Ok(filter.add_directive(QUIET.parse().expect("a constant, which the tests parse too")))
}

fn install((subscriber, level): (Any, Level)) -> Result<Level, LogError> {
    tracing::subscriber::set_global_default(subscriber).map(|()| level).map_err(|_| LogError::Twice)
}

fn on_panic(info: &PanicHookInfo<'_>) {
    let payload = info.payload();
    let said = payload.downcast_ref::<&str>().copied().or_else(|| payload.downcast_ref::<String>().map(String::as_str));
    let said = without_text(said.unwrap_or("(no text)"));
    let location = info.location().map_or_else(|| "unknown".to_owned(), ToString::to_string);
    log_panic(said, &location, &Backtrace::force_capture().to_string());
}

/// What a panic said, without the text that was worked on: where one is cut in the wrong place, the standard library quotes it, and it
/// may be what a client sent.
pub fn without_text(said: &str) -> &str {
    let quotes = said.contains("byte index") || said.contains("when slicing");
    said.find('`').filter(|_| quotes).map_or(said, |at| said[..at].trim_end())
}

/// One line, whatever the panic said: the fields are quoted, so that a backtrace has no line breaks of its own.
fn log_panic(said: &str, location: &str, backtrace: &str) {
    let thread = std::thread::current();
    tracing::error!(panic = said, location, thread = thread.name().unwrap_or("unnamed"), backtrace, "a panic was caught");
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::*;

    fn config(level: &str, format: LogFormat) -> Log {
        Log { level: level.into(), format, file: None }
    }

    const PLAIN: Looks = Looks { terminal: false, colour: false };

    /// What a subscriber of this configuration writes to a file while `what` runs.
    fn logged(config: &Log, looks: Looks, what: impl FnOnce()) -> String {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("log");
        std::fs::write(&path, "before\n").unwrap();
        let (subscriber, _) = subscriber(config, append(&path).unwrap(), looks).unwrap();
        tracing::subscriber::with_default(subscriber, what);
        let text = std::fs::read_to_string(&path).unwrap();
        text.strip_prefix("before\n").expect("appended, not replaced").to_owned()
    }

    #[test]
    fn auto_is_text_on_a_terminal_and_json_elsewhere() {
        let log = config("info", LogFormat::Auto);
        let event = || tracing::info!(sink = "graphiti", "paused");
        let json: Value = serde_json::from_str(&logged(&log, PLAIN, event)).unwrap();
        assert_eq!((&json["message"], &json["sink"], &json["level"]), (&"paused".into(), &"graphiti".into(), &"INFO".into()));
        let text = logged(&log, Looks { terminal: true, colour: false }, event);
        assert!(text.ends_with("paused sink=\"graphiti\"\n") && !text.contains('\x1b'), "{text}");
    }

    #[test]
    fn levels_filter_and_a_wrong_one_says_what_is_allowed() {
        let events = || {
            tracing::debug!("low");
            tracing::warn!("high");
        };
        let text = logged(&config("warn", LogFormat::Text), PLAIN, events);
        assert!(text.contains("high") && !text.contains("low"));
        let wrong = subscriber(&config("offramp=loud", LogFormat::Auto), io::sink, PLAIN).err().unwrap();
        assert!(wrong.to_string().contains("\"offramp=loud\"") && wrong.to_string().contains("allowed are"));
    }

    #[test]
    fn inv10_another_level_holds_at_once_and_keeps_quiet_what_may_be_secret() {
        for format in [LogFormat::Text, LogFormat::Json] {
            let dir = tempfile::tempdir().unwrap();
            let path = dir.path().join("log");
            let (subscriber, level) = subscriber(&config("warn", format), append(&path).unwrap(), PLAIN).unwrap();
            let tell = |what| {
                tracing::debug!("{what}");
                tracing::debug!(target: "h2::server", "malformed path {what}");
            };
            tracing::subscriber::with_default(subscriber, || {
                tell("at first");
                level.set("debug").unwrap();
                tell("in between");
                assert!(level.set("offramp=loud").is_err());
                tell("still");
                level.set("error").unwrap();
                tell("at last");
            });
            let text = std::fs::read_to_string(&path).unwrap();
            assert_eq!(text.lines().count(), 2, "{text}");
            assert!(text.contains("in between") && text.contains("still") && !text.contains("malformed"), "{text}");
        }
    }

    #[test]
    fn inv10_what_was_worked_on_is_not_what_a_panic_says() {
        let panicked = |cut: fn(&str) -> &str| {
            let panic = std::panic::catch_unwind(|| cut("é is secret").to_owned()).unwrap_err();
            without_text(panic.downcast_ref::<String>().unwrap()).to_owned()
        };
        assert_eq!(panicked(|text| &text[1..]), "start byte index 1 is not a char boundary; it is inside 'é' (bytes 0..2) of");
        for said in [panicked(|text| &text[..100]), panicked(|text| &text[std::hint::black_box(6)..3])] {
            assert!(!said.contains("secret") && !said.is_empty(), "{said}");
        }
        assert_eq!(without_text("called `Option::unwrap()` on a `None` value"), "called `Option::unwrap()` on a `None` value");
    }

    #[test]
    fn inv10_a_target_that_can_not_be_read_is_not_logged_at_any_level() {
        for level in ["trace", "h2=trace", "h2::server=trace"] {
            let text = logged(&config(level, LogFormat::Text), PLAIN, || {
                tracing::debug!(target: "h2::server", "malformed path");
                tracing::info!(target: "h2::server", "anything else");
            });
            assert!(!text.contains("malformed"), "{level}: {text}");
        }
    }

    #[test]
    fn a_panic_is_one_line_with_its_place_and_backtrace() {
        for format in [LogFormat::Text, LogFormat::Json] {
            let text = logged(&config("error", format), PLAIN, || log_panic("two\nlines", "a.rs:1:2", "0: main\n1: start\n"));
            assert_eq!(text.lines().count(), 1, "{text}");
            assert!(text.contains("two\\nlines") && text.contains("a.rs:1:2") && text.contains("0: main\\n1: start"), "{text}");
        }
    }
}
