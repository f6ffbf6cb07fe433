//! Bytes that wait for the rest of an event, never more than a limit.

/// Collects bytes. Its memory never exceeds the limit, not even while it grows.
#[derive(Debug)]
pub struct Buffer {
    bytes: Vec<u8>,
    max: usize,
    /// More came than it may hold: what it had is gone too, a part of an event is none.
    over: bool,
}

impl Buffer {
    /// An empty one, for at most `max` bytes.
    pub fn new(max: usize) -> Self {
        Self { bytes: Vec::new(), max, over: false }
    }

    /// Adds bytes, unless they are too many.
    pub fn push(&mut self, more: &[u8]) {
        let needed = self.bytes.len().saturating_add(more.len());
        if self.over || needed > self.max {
            self.over = true;
            self.bytes.clear();
            return;
        }
        if needed > self.bytes.capacity() {
            // Doubling, as `Vec` does by itself, but not beyond the limit.
            let wanted = self.bytes.capacity().saturating_mul(2).clamp(needed, self.max);
            self.bytes.reserve_exact(wanted - self.bytes.len());
        }
        self.bytes.extend_from_slice(more);
    }

    /// What was collected; none where it was too much.
    pub fn get(&self) -> Option<&[u8]> {
        (!self.over).then_some(&self.bytes)
    }

    /// Whether more came than it may hold.
    pub fn is_over(&self) -> bool {
        self.over
    }

    /// Begins anew; the memory stays for the next event.
    pub fn clear(&mut self) {
        self.bytes.clear();
        self.over = false;
    }

    /// Bytes of memory.
    #[cfg(test)]
    pub fn held(&self) -> usize {
        self.bytes.capacity()
    }
}
