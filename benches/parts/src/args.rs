//! The command line: `--key value` and nothing else.

use std::collections::HashMap;
use std::io;
use std::str::FromStr;

/// What follows the part's name.
pub struct Args(HashMap<String, String>);

impl Args {
    /// Reads the words of the command line.
    pub fn parse(mut words: impl Iterator<Item = String>) -> io::Result<Self> {
        let mut read = HashMap::new();
        while let Some(word) = words.next() {
            let (Some(key), Some(value)) = (word.strip_prefix("--"), words.next()) else {
                return Err(io::Error::other(format!("`{word}` is not `--KEY VALUE`")));
            };
            read.insert(key.to_owned(), value);
        }
        Ok(Self(read))
    }

    /// A value that must be there.
    pub fn get<T: FromStr>(&self, key: &str) -> io::Result<T> {
        let value = self.0.get(key).ok_or_else(|| io::Error::other(format!("--{key} is missing")))?;
        value.parse().map_err(|_| io::Error::other(format!("--{key} {value}: not understood")))
    }
}
