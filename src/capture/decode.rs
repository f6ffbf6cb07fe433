//! `Content-Encoding` undone, for the record only: what passes is never touched.
//!
//! gzip (of any number of members), deflate (as the standard means it, in zlib's format, and bare, as some servers send it), br and
//! zstd, and lists of them, undone from the right. A [`Decoder`] is pushed: each piece yields all that can be had so far, so an event that
//! its sender flushed is there at once. Bytes behind the end of an encoding are passed over.
//!
//! # Bounded
//! A body is written by strangers, and a few bytes can stand for gigabytes. So there is a limit for what comes out, and decoding
//! stops there: neither memory nor time is spent on the rest. What one encoding of a list hands to the next has that limit too, with
//! room for what can't be compressed. Windows are at most 16 MiB (br, RFC 7932) and 8 MiB (zstd, RFC 9659), and of these only what is
//! written to is ever really there.
//!
//! A fault of a library's, should there be one, is a body that can't be read.

mod gzip;
mod stage;

use std::panic::{AssertUnwindSafe, catch_unwind};

use bytes::Bytes;
use http::{HeaderMap, header};

use stage::Stage;

/// Encodings of one body, at most. More than two have not been seen.
const MOST_STAGES: usize = 4;
/// Bytes that come out of an encoding at a time.
const PIECE: usize = 16 * 1024;
/// Of a stream: bytes that may come out for each one that goes in. Text of events, repeating itself, comes to half of that.
const STREAM_RATIO: usize = 64;

/// Undoes encodings, as bytes pass.
#[derive(Debug)]
pub struct Decoder {
    /// In the order in which they are undone.
    links: Vec<Link>,
    limit: usize,
    /// What is added to the limit for each byte that goes in.
    ratio: usize,
    /// Something went in.
    begun: bool,
    stopped: Option<Stop>,
}

/// One encoding, and what has come out of it.
#[derive(Debug)]
struct Link {
    stage: Stage,
    piece: Vec<u8>,
    produced: usize,
}

/// Why nothing more is decoded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stop {
    Limit,
    Damage,
}

/// Why bytes can't be decoded.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    /// An encoding that isn't known.
    #[error("content-encoding {0:?} can't be read")]
    Unknown(String),
    /// Encodings upon encodings.
    #[error("more than {MOST_STAGES} content-encodings are not read")]
    TooMany,
    /// The bytes are no such encoding, or ask for a larger window than it may have.
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
    /// For the encodings that a message's head names; none where there are none but `identity`. At most `limit` bytes come out.
    pub fn of(headers: &HeaderMap, limit: usize) -> Result<Option<Self>, DecodeError> {
        let names = headers.get_all(header::CONTENT_ENCODING).iter().flat_map(|line| line.as_bytes().split(|&b| b == b','));
        let names = names.map(<[u8]>::trim_ascii).filter(|name| !name.is_empty() && !name.eq_ignore_ascii_case(b"identity"));
        let mut links = Vec::new();
        for name in names {
            // What it is called could be anything, and this is for people to read.
            let unknown = || DecodeError::Unknown(name.iter().take(32).map(|&b| char::from(b)).collect());
            links.push(Link { stage: Stage::named(name).ok_or_else(unknown)?, piece: Vec::new(), produced: 0 });
            if links.len() > MOST_STAGES {
                return Err(DecodeError::TooMany);
            }
        }
        links.reverse();
        Ok((!links.is_empty()).then_some(Self { links, limit, ratio: 0, begun: false, stopped: None }))
    }

    /// The same for a stream, which may be longer than all that is ever kept of it: to the limit come 64 bytes for each one that goes
    /// in, so that the work is bounded by the bytes that pass.
    pub fn of_stream(headers: &HeaderMap, limit: usize) -> Result<Option<Self>, DecodeError> {
        Ok(Self::of(headers, limit)?.map(|decoder| Self { ratio: STREAM_RATIO, ..decoder }))
    }

    /// Decodes what came, and hands it on in pieces of a few KiB. Beyond the limit it does nothing; see [`is_cut`](Self::is_cut).
    pub fn feed(&mut self, data: &[u8], mut take: impl FnMut(&[u8])) -> Result<(), DecodeError> {
        match self.stopped {
            Some(Stop::Limit) => return Ok(()),
            Some(Stop::Damage) => return Err(DecodeError::Damaged),
            None if data.is_empty() => return Ok(()),
            None => self.begun = true,
        }
        self.limit = self.limit.saturating_add(data.len().saturating_mul(self.ratio));
        // Should one of the libraries panic, its state is not used again.
        let pumped = catch_unwind(AssertUnwindSafe(|| pump(&mut self.links, data, self.limit, &mut take)));
        match pumped {
            Ok(Ok(())) => Ok(()),
            Ok(Err(Stop::Limit)) => {
                self.stop(Stop::Limit);
                Ok(())
            }
            Ok(Err(Stop::Damage)) | Err(_) => {
                self.stop(Stop::Damage);
                Err(DecodeError::Damaged)
            }
        }
    }

    /// Whether something is missing, should nothing more come: there was more than the limit, or the encoding hasn't come to its end.
    pub fn is_cut(&self) -> bool {
        self.stopped.is_some() || (self.begun && !self.links.iter().all(|link| link.stage.is_at_end()))
    }

    fn stop(&mut self, why: Stop) {
        self.stopped = Some(why);
        self.links.clear(); // windows and all
    }
}

/// Whether a message says that it is encoded.
pub fn is_encoded(headers: &HeaderMap) -> bool {
    headers.contains_key(header::CONTENT_ENCODING)
}

/// Decodes a body that is here: at most `limit` bytes of it.
pub fn decode(headers: &HeaderMap, frames: &[Bytes], limit: usize) -> Result<Decoded, DecodeError> {
    let Some(mut decoder) = Decoder::of(headers, limit)? else {
        let mut bytes = match frames {
            [one] => one.clone(),
            many => many.concat().into(),
        };
        let cut = bytes.len() > limit;
        bytes.truncate(limit);
        return Ok(Decoded { bytes, cut });
    };
    let mut bytes = Vec::new();
    for frame in frames {
        decoder.feed(frame, |piece| bytes.extend_from_slice(piece))?;
    }
    Ok(Decoded { bytes: bytes.into(), cut: decoder.is_cut() })
}

/// Pushes bytes through the first of these encodings, and what comes out through the others.
fn pump(links: &mut [Link], mut data: &[u8], limit: usize, take: &mut dyn FnMut(&[u8])) -> Result<(), Stop> {
    let Some((link, rest)) = links.split_first_mut() else {
        take(data);
        return Ok(());
    };
    link.piece.resize(PIECE, 0);
    // What is still compressed is hardly longer than what it becomes.
    let limit_here = if rest.is_empty() { limit } else { limit.saturating_add(limit / 8).saturating_add(PIECE) };
    loop {
        let (read, written) = link.stage.step(data, &mut link.piece).map_err(|_| Stop::Damage)?;
        data = &data[read..];
        let room = limit_here - link.produced;
        let within = written.min(room);
        link.produced += within;
        if within > 0 {
            pump(rest, &link.piece[..within], limit, take)?;
        }
        if written > room {
            return Err(Stop::Limit);
        }
        // Not before: a stage may hold back what its own window had no room for, with all of its input read.
        if (read, written) == (0, 0) {
            return Ok(());
        }
    }
}

#[cfg(test)]
mod tests;
