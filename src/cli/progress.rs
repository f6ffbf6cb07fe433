//! What a command shows while it runs: a bar on standard error, where that is a terminal.

use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};

/// A bar whose length is told later.
///
/// # Panics
/// If the template is not well-formed: it is a constant.
pub(super) fn bar(template: &'static str) -> ProgressBar {
    let style = ProgressStyle::with_template(template).expect("a constant template that is well-formed");
    let bar = ProgressBar::new(0).with_style(style);
    bar.enable_steady_tick(Duration::from_millis(200));
    bar
}
