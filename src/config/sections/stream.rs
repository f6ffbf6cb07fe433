//! `[proxy.route.stream]`

use crate::config::Stream;
use crate::config::read::Section;

/// Reads the table out of a route, or out of a preset.
pub fn stream(parent: &mut Section<'_>) -> Option<Stream> {
    let _ = parent;
    None
}
