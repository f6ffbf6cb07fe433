//! What moves while the demo runs, on standard error: a bar on a terminal, a line every few seconds elsewhere.

use std::io::{IsTerminal, Write};
use std::time::Duration;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use tokio::time::Instant;

use super::proof::thousands;

const BETWEEN_LINES: Duration = Duration::from_secs(3);

/// How progress is shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Screen {
    /// Bars that move.
    Bars,
    /// Lines.
    Lines,
    /// Nothing.
    Silent,
}

impl Screen {
    /// Bars where standard error is a terminal, else lines.
    pub fn detect() -> Self {
        if std::io::stderr().is_terminal() { Self::Bars } else { Self::Lines }
    }

    /// Begins a stage of `total` steps.
    ///
    /// # Panics
    /// Never: the template is a constant, and well-formed.
    pub fn stage(self, title: &'static str, total: u64) -> Stage {
        let bar = (self == Self::Bars).then(|| {
            let template = "{prefix:>16} {bar:40} {human_pos:>7}/{human_len} {msg}";
            let style = ProgressStyle::with_template(template).expect("a constant template that is well-formed");
            let bar = ProgressBar::with_draw_target(Some(total), ProgressDrawTarget::stderr());
            bar.with_style(style.progress_chars("━╸─")).with_prefix(title)
        });
        Stage { screen: self, title, total, bar, next_line: Instant::now() + BETWEEN_LINES }
    }
}

/// One stage on the screen.
#[derive(Debug)]
pub struct Stage {
    screen: Screen,
    title: &'static str,
    total: u64,
    bar: Option<ProgressBar>,
    next_line: Instant,
}

impl Stage {
    /// Shows where the stage is.
    pub fn show(&mut self, position: u64, note: &str) {
        if let Some(bar) = &self.bar {
            bar.set_position(position);
            bar.set_message(note.to_owned());
        } else if Instant::now() >= self.next_line {
            self.line(position, note);
        }
    }

    /// Shows where the stage ended, and leaves it there.
    pub fn end(mut self, position: u64, note: &str) {
        if let Some(bar) = &self.bar {
            bar.set_position(position);
            bar.abandon_with_message(note.to_owned());
        } else {
            self.line(position, note);
        }
    }

    fn line(&mut self, position: u64, note: &str) {
        self.next_line = Instant::now() + BETWEEN_LINES;
        if self.screen == Screen::Lines {
            let line = format!("{}: {} of {} {note}", self.title, thousands(position), thousands(self.total));
            // Whoever closed it doesn't want to know; `eprintln!` would panic.
            let _ = writeln!(std::io::stderr(), "{}", line.trim_end());
        }
    }
}
