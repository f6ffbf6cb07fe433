//! Standard output: colours only where somebody sees them, and a closed pipe is no error.

use std::io::{self, IsTerminal, Write};

use serde::Serialize;

use super::failure::Failure;

/// Where a command writes.
pub(super) struct Output {
    sink: Box<dyn Write>,
    /// Whether a terminal shows it.
    pub(super) terminal: bool,
    /// How it is coloured.
    pub(super) paint: Paint,
}

impl Output {
    /// The process's own.
    pub(super) fn stdout() -> Self {
        let terminal = io::stdout().is_terminal();
        let set = |name: &str| std::env::var_os(name).filter(|v| !v.is_empty());
        let colour = terminal && set("NO_COLOR").is_none() && set("TERM").is_none_or(|t| t != "dumb");
        Self { sink: Box::new(io::stdout()), terminal, paint: Paint(colour) }
    }

    /// Writes and flushes.
    pub(super) fn write(&mut self, text: &str) -> Result<(), Failure> {
        self.bytes(text.as_bytes())
    }

    /// Writes what is no text for sure, and flushes.
    pub(super) fn bytes(&mut self, bytes: &[u8]) -> Result<(), Failure> {
        self.sink.write_all(bytes).and_then(|()| self.sink.flush()).map_err(|e| match e.kind() {
            io::ErrorKind::BrokenPipe => Failure::Closed,
            _ => Failure::Failed(format!("the output cannot be written: {e}")),
        })
    }

    /// Writes a line of JSON: indented for a terminal, else one line for programs that read by line.
    pub(super) fn json(&mut self, value: &impl Serialize) -> Result<(), Failure> {
        let text = if self.terminal { serde_json::to_string_pretty(value) } else { serde_json::to_string(value) };
        let text = text.map_err(|e| Failure::Failed(format!("the answer cannot be written as JSON: {e}")))?;
        self.write(&(text + "\n"))
    }
}

/// What a piece of text means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Tone {
    /// As it should be.
    Plain,
    /// A heading.
    Heading,
    /// Finished well.
    Good,
    /// Wants a look.
    Warning,
    /// Wants a hand.
    Bad,
    /// Less important.
    Faint,
}

/// Puts colours on, or doesn't.
#[derive(Debug, Clone, Copy)]
pub(super) struct Paint(pub(super) bool);

impl Paint {
    /// The text in its tone.
    pub(super) fn paint(self, tone: Tone, text: &str) -> String {
        let code = match tone {
            Tone::Plain => return text.to_owned(),
            Tone::Heading => "1",
            Tone::Good => "32",
            Tone::Warning => "33",
            Tone::Bad => "31",
            Tone::Faint => "2",
        };
        if self.0 { format!("\x1b[{code}m{text}\x1b[0m") } else { text.to_owned() }
    }
}

#[cfg(test)]
pub(super) mod tests {
    use std::sync::{Arc, Mutex};

    use super::*;

    /// An output that a test can read.
    #[derive(Clone, Default)]
    pub(in crate::cli) struct Captured(Arc<Mutex<Vec<u8>>>);

    impl Captured {
        pub(in crate::cli) fn output(&self) -> Output {
            Output { sink: Box::new(self.clone()), terminal: false, paint: Paint(false) }
        }

        pub(in crate::cli) fn text(&self) -> String {
            String::from_utf8(self.0.lock().unwrap().clone()).unwrap()
        }
    }

    impl Write for Captured {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    struct ClosedPipe;

    impl Write for ClosedPipe {
        fn write(&mut self, _: &[u8]) -> io::Result<usize> {
            Err(io::ErrorKind::BrokenPipe.into())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn a_closed_pipe_ends_quietly() {
        let mut out = Output { sink: Box::new(ClosedPipe), terminal: false, paint: Paint(false) };
        let failure = out.write("x").unwrap_err();
        assert_eq!(failure.code(), 0);
    }

    #[test]
    fn colours_only_where_they_are_wanted() {
        assert_eq!(Paint(false).paint(Tone::Bad, "dead"), "dead");
        assert_eq!(Paint(true).paint(Tone::Bad, "dead"), "\x1b[31mdead\x1b[0m");
        assert_eq!(Paint(true).paint(Tone::Plain, "ok"), "ok");
    }
}
