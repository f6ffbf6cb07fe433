//! What a command shows while it runs: a bar on standard error, where that is a terminal.

use indicatif::{ProgressBar, ProgressStyle};

/// A bar that is drawn once its length is told: without one it would look full.
///
/// # Panics
/// If the template is not well-formed: it is a constant.
pub(super) fn bar(template: &'static str) -> ProgressBar {
    let style = ProgressStyle::with_template(template).expect("a constant template that is well-formed");
    ProgressBar::new(0).with_style(style)
}
