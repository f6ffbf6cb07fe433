//! How a value lies on disk: `version (1 byte) ‖ CRC-32 of the rest (4 bytes, big-endian) ‖ bincode`.
//!
//! bincode neither tells a struct's version nor minds a field that was added (old bytes fail or, worse, pass). Hence the version byte,
//! which counts for each kind of value by itself: a struct that was released is never changed; a new one gets the next version, and the old
//! one stays readable in [`former`](super::former). Reading upgrades: nothing is rewritten for the sake of its version.
//!
//! The checksum covers the bytes that bincode sees, so that it never decodes what a disk made up, and every version has it there: so a value
//! that a later offramp wrote is told from a damaged one. It does not cover the version: two that are both readable differ in more than one
//! bit, or in their structure. Decoding is limited to [`LIMIT`].

use bincode::Options;
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::seal::KeyId;

/// The longest value, in bytes: two bodies of `max_capture` and what surrounds them stay far below it.
pub const LIMIT: u64 = 256 << 20;

const HEAD: usize = 5;

/// A kind of value that lies on disk.
pub trait Stored: Serialize + DeserializeOwned {
    /// The version that is written.
    const VERSION: u8 = 1;

    /// Reads what an earlier version wrote.
    fn upgrade(former: &Former<'_>) -> Result<Self, CodecError> {
        Err(former.unknown())
    }
}

/// A value that another version than the present one wrote.
pub struct Former<'a> {
    /// Which one.
    pub version: u8,
    newest: u8,
    body: &'a [u8],
}

impl Former<'_> {
    /// The value, as that version's struct has it.
    pub fn read<T: DeserializeOwned>(&self) -> Result<T, CodecError> {
        options().deserialize(self.body).map_err(|e| CodecError::Structure(e.to_string()))
    }

    /// There was no such version yet.
    pub fn unknown(&self) -> CodecError {
        CodecError::Version { found: self.version, newest: self.newest }
    }
}

/// Why stored bytes are no value.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CodecError {
    /// Too short to have a head.
    #[error("cut off after {0} bytes")]
    Short(usize),
    /// Written by a later offramp, or not by offramp.
    #[error("format version {found}, this offramp reads up to version {newest}")]
    Version {
        /// What is there.
        found: u8,
        /// What is written now.
        newest: u8,
    },
    /// The checksum disagrees.
    #[error("the checksum does not match: the bytes were damaged")]
    Checksum,
    /// The checksum agrees, the structure doesn't.
    #[error("not a value of this kind: {0}")]
    Structure(String),
    /// Sealed with a key that isn't there.
    #[error("sealed with the key {0}, which queue.encryption_key_file does not have")]
    Key(KeyId),
    /// Sealed, and not as it is now or where it is now.
    #[error("the seal does not fit: the bytes were damaged, altered, or put where another value belongs")]
    Seal,
    /// It can't be sealed.
    #[error("the system gives no random bytes")]
    Random,
}

fn options() -> impl Options {
    bincode::DefaultOptions::new().with_limit(LIMIT).reject_trailing_bytes()
}

/// A value as bytes.
pub fn encode<T: Stored>(value: &T) -> Result<Vec<u8>, CodecError> {
    let mut out = vec![T::VERSION, 0, 0, 0, 0];
    options().serialize_into(&mut out, value).map_err(|e| CodecError::Structure(e.to_string()))?;
    let sum = crc32fast::hash(&out[HEAD..]).to_be_bytes();
    out[1..HEAD].copy_from_slice(&sum);
    Ok(out)
}

/// Bytes as a value.
pub fn decode<T: Stored>(bytes: &[u8]) -> Result<T, CodecError> {
    let Some((head, body)) = bytes.split_at_checked(HEAD) else {
        return Err(CodecError::Short(bytes.len()));
    };
    let former = Former { version: head[0], newest: T::VERSION, body };
    // First: damage must not pass for what a later offramp wrote.
    if head[1..] != crc32fast::hash(body).to_be_bytes() {
        return Err(CodecError::Checksum);
    }
    if !(1..=T::VERSION).contains(&former.version) {
        return Err(former.unknown());
    }
    if former.version == T::VERSION { former.read() } else { T::upgrade(&former) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    impl Stored for (u64, String, Vec<u8>) {}
    impl Stored for (u64, String) {}

    proptest! {
        #[test]
        fn what_is_encoded_is_decoded(value: (u64, String, Vec<u8>)) {
            prop_assert_eq!(decode::<(u64, String, Vec<u8>)>(&encode(&value).unwrap()).unwrap(), value);
        }

        #[test]
        fn damage_is_an_error_and_never_another_value(value: (u64, String), at: prop::sample::Index, bit in 0u8..8) {
            let mut bytes = encode(&value).unwrap();
            let at = at.index(bytes.len());
            bytes[at] ^= 1 << bit;
            prop_assert!(decode::<(u64, String)>(&bytes).is_err());
            prop_assert!(decode::<(u64, String)>(&bytes[..at]).is_err());
        }

        #[test]
        fn any_bytes_are_read_without_panic(bytes: Vec<u8>) {
            let _ = decode::<(u64, String, Vec<u8>)>(&bytes);
        }
    }

    #[derive(Debug, PartialEq, serde::Serialize, serde::Deserialize)]
    struct Now(u64, Option<u8>);

    impl Stored for Now {
        const VERSION: u8 = 2;

        fn upgrade(former: &Former<'_>) -> Result<Self, CodecError> {
            former.read().map(|n| Self(n, None))
        }
    }

    #[derive(serde::Serialize, serde::Deserialize)]
    struct Then(u64);

    impl Stored for Then {}

    #[test]
    fn what_an_earlier_version_wrote_is_read_and_what_a_later_one_wrote_is_not() {
        let old = encode(&Then(7)).unwrap();
        assert_eq!(decode::<Now>(&old), Ok(Now(7, None)));
        let new = encode(&Now(7, Some(1))).unwrap();
        assert_eq!(decode::<Now>(&new), Ok(Now(7, Some(1))));
        assert_eq!(decode::<Then>(&new).err(), Some(CodecError::Version { found: 2, newest: 1 }));
    }
}
