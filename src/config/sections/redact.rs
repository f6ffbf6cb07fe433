//! `route.redact`

use crate::config::Redact;
use crate::config::read::{Field, Read};

/// A list of JSONPaths and of regular expressions.
pub fn redact(field: &Field<'_>) -> Read<Vec<Redact>> {
    let _ = field;
    Ok(Vec::new())
}
