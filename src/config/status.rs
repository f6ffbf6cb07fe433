//! Sets of HTTP statuses as the file writes them: `"2xx"`, `404`, and for retries also `"connect"` and `"timeout"`.

/// A set of statuses.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct StatusSet {
    classes: [bool; 6],
    codes: Vec<u16>,
}

impl StatusSet {
    /// Adds `Nxx`, for N from 1 to 5.
    pub fn add_class(&mut self, class: u8) {
        if let Some(slot) = self.classes.get_mut(usize::from(class)) {
            *slot = true;
        }
    }

    /// Adds one status.
    pub fn add_code(&mut self, code: u16) {
        self.codes.push(code);
    }

    /// Whether `status` is in the set.
    pub fn contains(&self, status: u16) -> bool {
        self.classes.get(usize::from(status / 100)).copied().unwrap_or(false) || self.codes.contains(&status)
    }
}

/// `retry_on`: what is worth another attempt.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RetryOn {
    /// No connection could be made.
    pub connect: bool,
    /// No answer in time, or the connection broke before the answer.
    pub timeout: bool,
    /// These answers.
    pub status: StatusSet,
}
