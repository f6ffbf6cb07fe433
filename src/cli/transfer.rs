//! What `export` and `import` show while they run: a counter on standard error, where that is a terminal.

use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};

use crate::admin::api::UNREADABLE;

/// A counter of bytes; a bar, where it is known how many there are.
///
/// # Panics
/// Never: the templates are constants, and well-formed.
pub(super) fn progress(total: Option<u64>) -> ProgressBar {
    let style = |template| ProgressStyle::with_template(template).expect("a constant template that is well-formed");
    // Where standard error is no terminal, nothing is drawn.
    let bar = match total {
        Some(total) => ProgressBar::new(total).with_style(style("{bar:40} {bytes}/{total_bytes} {bytes_per_sec} {msg}")),
        None => ProgressBar::new_spinner().with_style(style("{spinner} {bytes} {bytes_per_sec} {msg}")),
    };
    bar.enable_steady_tick(Duration::from_millis(200));
    bar
}

/// Counts lines in pieces of any size.
#[derive(Default)]
pub(super) struct Lines {
    /// Episodes.
    pub(super) episodes: u64,
    /// Lines that stand for a record which can't be read.
    pub(super) unreadable: u64,
    /// How the present line begins.
    begins: Vec<u8>,
}

impl Lines {
    pub(super) fn see(&mut self, bytes: &[u8]) {
        for piece in bytes.split_inclusive(|b| *b == b'\n') {
            let missing = UNREADABLE.len() - self.begins.len();
            self.begins.extend_from_slice(&piece[..missing.min(piece.len())]);
            if piece.ends_with(b"\n") {
                let unreadable = self.begins == UNREADABLE.as_bytes();
                *(if unreadable { &mut self.unreadable } else { &mut self.episodes }) += 1;
                self.begins.clear();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_counted_however_they_are_cut() {
        let text = format!("{{\"id\":1}}\n{UNREADABLE}7}}\n{{}}\n\n{UNREADABLE}8}}\n").into_bytes();
        for size in 1..=text.len() {
            let mut lines = Lines::default();
            text.chunks(size).for_each(|piece| lines.see(piece));
            assert_eq!((lines.episodes, lines.unreadable), (3, 2), "in pieces of {size}");
        }
    }
}
