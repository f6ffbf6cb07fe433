//! An event, and what its framing knows of it.

/// How much of an event is here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stage {
    /// Its first line of data is complete. More lines may follow, or only the blank line that ends it: what makes the end of the
    /// stream is seen already.
    Line,
    /// All of it.
    Whole,
    /// The stream ended inside it.
    Rest,
}

/// An event as it came.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Event<'a> {
    /// Its `event` field; empty where it has none.
    pub name: &'a [u8],
    /// Its data; none where it is longer than the limit.
    pub data: Option<&'a [u8]>,
    /// How much of it is here.
    pub stage: Stage,
}
