//! Path patterns: `{name}` matches one segment, `{*rest}` the remainder.

/// A parsed pattern.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PathPattern {
    segments: Vec<Segment>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Segment {
    Literal(String),
    Name(String),
    Rest(String),
}
