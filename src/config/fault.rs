//! Faults of a configuration: each has a place and a sentence, and all of them are told at once.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Where a key or a value was written.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum Origin {
    /// Nowhere in particular: the configuration as a whole.
    #[default]
    Whole,
    /// In a file; line and column count from 1, the column in characters.
    File {
        /// As it was named.
        file: Arc<str>,
        /// Line.
        line: u32,
        /// Column.
        column: u32,
    },
    /// In an environment variable of this name.
    Environment(Arc<str>),
    /// In `--set` of this key.
    Set(Arc<str>),
}

impl Origin {
    /// File first (top to bottom), then the environment, then the command line.
    fn order(&self) -> (u8, u32, u32, &str) {
        match self {
            Self::Whole => (0, 0, 0, ""),
            Self::File { line, column, file } => (1, *line, *column, file),
            Self::Environment(name) => (2, 0, 0, name),
            Self::Set(key) => (3, 0, 0, key),
        }
    }
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Whole => f.write_str("configuration"),
            Self::File { file, line, column } => write!(f, "{file}:{line}:{column}"),
            Self::Environment(name) => write!(f, "environment {name}"),
            Self::Set(key) => write!(f, "--set {key}"),
        }
    }
}

/// One thing that is wrong. Prints as `file:line:col: what is wrong, what is allowed`, always one line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fault {
    /// Where.
    pub at: Origin,
    /// What is wrong, and what is allowed.
    pub message: String,
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.at, self.message)
    }
}

/// Everything that is wrong with a configuration, in the order of the file. Never empty.
///
/// Prints one fault a line, without a line end after the last.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Faults {
    file: Option<PathBuf>,
    faults: Vec<Fault>,
}

impl std::error::Error for Faults {}

impl Faults {
    /// Sorts by place; a sentence that is told twice for one place is kept once. `file` is the file that was read, if one was found.
    pub(crate) fn new(file: Option<&Path>, mut faults: Vec<Fault>) -> Self {
        faults.sort_by(|a, b| a.at.order().cmp(&b.at.order()));
        faults.dedup();
        Self { file: file.map(Path::to_path_buf), faults }
    }

    /// A single fault of the configuration as a whole.
    pub(crate) fn whole(file: Option<&Path>, message: String) -> Self {
        Self::new(file, vec![Fault { at: Origin::Whole, message }])
    }

    /// The faults.
    pub fn iter(&self) -> std::slice::Iter<'_, Fault> {
        self.faults.iter()
    }

    /// `10 faults in config.toml`.
    pub fn summary(&self) -> String {
        let count = self.faults.len();
        let faults = if count == 1 { "fault" } else { "faults" };
        match &self.file {
            Some(file) => format!("{count} {faults} in {}", file.display()),
            None => format!("{count} {faults}"),
        }
    }
}

impl<'a> IntoIterator for &'a Faults {
    type Item = &'a Fault;
    type IntoIter = std::slice::Iter<'a, Fault>;

    fn into_iter(self) -> Self::IntoIter {
        self.iter()
    }
}

impl fmt::Display for Faults {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, fault) in self.faults.iter().enumerate() {
            if i > 0 {
                f.write_str("\n")?;
            }
            fault.fmt(f)?;
        }
        Ok(())
    }
}
