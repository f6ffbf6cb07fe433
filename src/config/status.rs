//! Sets of HTTP statuses as the file writes them: `"2xx"`, `404`, and for retries also `"connect"` and `"timeout"`.

/// What an element of a status set may be.
pub const STATUSES: &str = "a status from 100 to 599, or a class such as \"2xx\"";
/// What an element of `retry_on` may be.
pub const RETRIES: &str = "\"connect\", \"timeout\", a status from 100 to 599, or a class such as \"5xx\"";

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

    /// Adds what `item` names: `404` or `2xx`. `false`, and nothing added, if it names neither a status nor a class.
    pub fn add(&mut self, item: &str) -> bool {
        match item.as_bytes() {
            [class @ b'1'..=b'5', b'x', b'x'] => self.add_class(class - b'0'),
            [b'1'..=b'5', b'0'..=b'9', b'0'..=b'9'] => match item.parse() {
                Ok(code) => self.add_code(code),
                Err(_) => return false,
            },
            _ => return false,
        }
        true
    }

    /// Whether `status` is in the set.
    pub fn contains(&self, status: u16) -> bool {
        self.classes.get(usize::from(status / 100)).copied().unwrap_or(false) || self.codes.contains(&status)
    }
}

impl<'a> FromIterator<&'a str> for StatusSet {
    /// What names neither a status nor a class is left out.
    fn from_iter<I: IntoIterator<Item = &'a str>>(items: I) -> Self {
        let mut set = Self::default();
        for item in items {
            set.add(item);
        }
        set
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

impl RetryOn {
    /// Adds what `item` names: `connect`, `timeout`, `404` or `5xx`. `false`, and nothing added, if it names none of these.
    pub fn add(&mut self, item: &str) -> bool {
        match item {
            "connect" => self.connect = true,
            "timeout" => self.timeout = true,
            _ => return self.status.add(item),
        }
        true
    }
}

impl<'a> FromIterator<&'a str> for RetryOn {
    /// What names nothing is left out.
    fn from_iter<I: IntoIterator<Item = &'a str>>(items: I) -> Self {
        let mut set = Self::default();
        for item in items {
            set.add(item);
        }
        set
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn classes_and_codes() {
        let set = StatusSet::from_iter(["2xx", "404"]);
        assert!([200, 299, 404].iter().all(|s| set.contains(*s)));
        assert!([199, 300, 403, 500, 999, 0].iter().all(|s| !set.contains(*s)));
        let mut set = StatusSet::default();
        for wrong in ["", "6xx", "0xx", "2x", "2XX", "99", "600", "2000", "connect", "+20", "2xé"] {
            assert!(!set.add(wrong), "{wrong}");
        }
        assert_eq!(set, StatusSet::default());
    }

    #[test]
    fn retries_know_two_more_words() {
        let set = RetryOn::from_iter(["connect", "5xx", "429"]);
        assert!(set.connect && !set.timeout && set.status.contains(503) && set.status.contains(429) && !set.status.contains(400));
    }
}
