//! The file of `queue.encryption_key_file`: a key a line. The first seals, all open, so that a key is changed by putting a new one first.

use std::fmt;

use base64::Engine as _;
use base64::alphabet::STANDARD;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use zeroize::Zeroizing;

/// Bytes of a key.
pub const LENGTH: usize = 32;

/// What a fault says the file may be.
pub(super) const ALLOWED: &str =
    "allowed: a file with a key a line, each 32 random bytes in base64, such as `openssl rand -base64 32` prints";

/// Some tools leave the `=` out.
const BASE64: GeneralPurpose =
    GeneralPurpose::new(&STANDARD, GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent));

/// A key that records are sealed with. `Debug` does not show it, and dropping it wipes it.
#[derive(Clone, PartialEq, Eq)]
pub struct SealingKey(Zeroizing<[u8; LENGTH]>);

impl SealingKey {
    /// Of these bytes.
    pub fn new(bytes: [u8; LENGTH]) -> Self {
        Self(Zeroizing::new(bytes))
    }

    /// The key itself.
    pub fn bytes(&self) -> &[u8; LENGTH] {
        &self.0
    }
}

impl fmt::Debug for SealingKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("(secret)")
    }
}

/// The keys of a file, in its order; at least one. What is wrong is told by the line's number: the line may be most of a key.
pub(super) fn keys(text: &str) -> Result<Vec<SealingKey>, String> {
    let mut keys: Vec<(usize, SealingKey)> = Vec::new();
    for (n, line) in (1..).zip(text.lines()) {
        let line = line.trim();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let key = key(line).map_err(|why| format!("has a line, number {n}, that {why}"))?;
        if let Some((first, _)) = keys.iter().find(|(_, known)| *known == key) {
            return Err(format!("has the key of line {first} once more in line {n}"));
        }
        keys.push((n, key));
    }
    if keys.is_empty() {
        return Err("has no key in it".to_owned());
    }
    Ok(keys.into_iter().map(|(_, key)| key).collect())
}

fn key(line: &str) -> Result<SealingKey, String> {
    let bytes = Zeroizing::new(BASE64.decode(line).map_err(|_| "is not base64".to_owned())?);
    match <[u8; LENGTH]>::try_from(bytes.as_slice()) {
        Ok(key) => Ok(SealingKey::new(key)),
        Err(_) => Err(format!("is base64 of {} bytes", bytes.len())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ONE: &str = "AQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQE=";
    const TWO: &str = "AgICAgICAgICAgICAgICAgICAgICAgICAgICAgICAgI=";

    #[test]
    fn a_file_has_a_key_a_line_with_comments_between() {
        let text = format!("# of May\n{TWO}\n\n  # of January\r\n {}\r\n", ONE.trim_end_matches('='));
        let keys = keys(&text).unwrap();
        assert_eq!(keys, [SealingKey::new([2; 32]), SealingKey::new([1; 32])]);
    }

    #[test]
    fn inv10_what_is_wrong_with_a_file_is_said_without_its_text() {
        for (text, why) in [
            (String::new(), "has no key in it"),
            ("# none\n\n".to_owned(), "has no key in it"),
            (format!("{ONE}\nca%ary\n"), "has a line, number 2, that is not base64"),
            (format!("\n{}\n", &ONE[..40]), "has a line, number 2, that is base64 of 30 bytes"),
            (format!("{ONE}\n{TWO}\n#\n{ONE}"), "has the key of line 1 once more in line 4"),
            (format!("{ONE} # of May"), "has a line, number 1, that is not base64"),
        ] {
            assert_eq!(keys(&text), Err(why.to_owned()));
        }
        assert_eq!(format!("{:?}", keys(ONE).unwrap()), "[(secret)]");
    }
}
