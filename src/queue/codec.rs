//! How a value lies on disk: `version (1 byte) ‖ CRC-32 of the rest (4 bytes, big-endian) ‖ bincode`.
//!
//! bincode neither tells a struct's version nor minds a field that was added (old bytes fail or, worse, pass). Hence the version byte: a
//! struct of [`rows`](super::rows) is never changed once released; a new one gets a new version, and the old one stays readable here.
//! The checksum covers the bytes that bincode sees, so that it never decodes what a disk made up. Decoding is limited to [`LIMIT`].

use bincode::Options;
use serde::Serialize;
use serde::de::DeserializeOwned;

/// The version that is written.
pub const VERSION: u8 = 1;

/// The longest value, in bytes: two bodies of `max_capture` and what surrounds them stay far below it.
pub const LIMIT: u64 = 256 << 20;

const HEAD: usize = 5;

/// Why stored bytes are no value.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CodecError {
    /// Too short to have a head.
    #[error("cut off after {0} bytes")]
    Short(usize),
    /// Written by a later offramp, or not by offramp.
    #[error("format version {0}, this offramp reads version {VERSION}")]
    Version(u8),
    /// The checksum disagrees.
    #[error("the checksum does not match: the bytes were damaged")]
    Checksum,
    /// The checksum agrees, the structure doesn't.
    #[error("not a value of this kind: {0}")]
    Structure(String),
}

fn options() -> impl Options {
    bincode::DefaultOptions::new().with_limit(LIMIT).reject_trailing_bytes()
}

/// A value as bytes.
pub fn encode<T: Serialize>(value: &T) -> Result<Vec<u8>, CodecError> {
    let mut out = vec![VERSION, 0, 0, 0, 0];
    options().serialize_into(&mut out, value).map_err(|e| CodecError::Structure(e.to_string()))?;
    let sum = crc32fast::hash(&out[HEAD..]).to_be_bytes();
    out[1..HEAD].copy_from_slice(&sum);
    Ok(out)
}

/// Bytes as a value.
pub fn decode<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, CodecError> {
    let (Some(head), Some(rest)) = (bytes.get(..HEAD), bytes.get(HEAD..)) else {
        return Err(CodecError::Short(bytes.len()));
    };
    if head[0] != VERSION {
        return Err(CodecError::Version(head[0]));
    }
    if head[1..] != crc32fast::hash(rest).to_be_bytes() {
        return Err(CodecError::Checksum);
    }
    options().deserialize(rest).map_err(|e| CodecError::Structure(e.to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

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
}
