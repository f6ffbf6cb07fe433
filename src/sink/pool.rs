//! Connections that are kept open: one is taken for a call, and given back only if it ended well. Whatever goes wrong, also a call that is
//! dropped in the middle, leaves its connection to be closed.

use std::sync::{Mutex, PoisonError};

/// Open connections that nobody uses, the last used first. There are never more than attempts were in flight at one time.
pub struct Pool<C> {
    idle: Mutex<Vec<C>>,
}

impl<C> Default for Pool<C> {
    fn default() -> Self {
        Self { idle: Mutex::default() }
    }
}

impl<C> Pool<C> {
    /// One that is open, as far as is known.
    pub fn take(&self) -> Option<C> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner).pop()
    }

    /// Gives one back.
    pub fn put(&self, connection: C) {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner).push(connection);
    }
}
