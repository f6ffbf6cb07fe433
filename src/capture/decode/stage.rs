//! One encoding, pushed: bytes in, bytes out, as far as both reach.

use std::fmt;

use brotli_decompressor::{BrotliDecompressStream, BrotliResult, BrotliState, StandardAlloc};
use flate2::{Decompress, FlushDecompress, Status};
use zstd_safe::{DCtx, DParameter, InBuffer, OutBuffer};

use super::gzip::Gzip;

/// Largest window of zstd as a content encoding, as a power of two (RFC 9659).
const ZSTD_WINDOW: u32 = 23;

/// What was read and what was written.
pub(super) type Step = (usize, usize);

/// The bytes are not what they should be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Damage;

/// An encoding that is being undone.
pub(super) enum Stage {
    Gzip(Box<Gzip>),
    Deflate(Deflate),
    Brotli { state: Box<Brotli>, ended: bool },
    Zstd { context: Box<DCtx<'static>>, ended: bool },
}

pub(super) type Brotli = BrotliState<StandardAlloc, StandardAlloc, StandardAlloc>;

impl fmt::Debug for Stage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Gzip(_) => "gzip",
            Self::Deflate(_) => "deflate",
            Self::Brotli { .. } => "br",
            Self::Zstd { .. } => "zstd",
        })
    }
}

impl Stage {
    /// By its name in `Content-Encoding`.
    pub(super) fn named(name: &[u8]) -> Option<Self> {
        match name.to_ascii_lowercase().as_slice() {
            b"gzip" | b"x-gzip" => Some(Self::Gzip(Box::default())),
            b"deflate" => Some(Self::Deflate(Deflate::Unknown(None))),
            b"br" => {
                let alloc = StandardAlloc::default;
                // Strict: without the windows of a gigabyte that br itself knows, and the content encoding doesn't.
                Some(Self::Brotli { state: Box::new(BrotliState::new_strict(alloc(), alloc(), alloc())), ended: false })
            }
            b"zstd" => {
                let mut context = Box::new(DCtx::try_create()?);
                context.set_parameter(DParameter::WindowLogMax(ZSTD_WINDOW)).ok()?;
                Some(Self::Zstd { context, ended: false })
            }
            _ => None,
        }
    }

    /// Decodes from `input` into `output`, until one of them is used up. Behind the end everything is read, and nothing written.
    pub(super) fn step(&mut self, input: &[u8], output: &mut [u8]) -> Result<Step, Damage> {
        match self {
            Self::Gzip(gzip) => gzip.step(input, output),
            Self::Deflate(deflate) => deflate.step(input, output),
            Self::Brotli { ended: true, .. } => Ok((input.len(), 0)),
            Self::Brotli { state, ended } => {
                let (mut left, mut room) = (input.len(), output.len());
                let (mut read, mut written, mut total) = (0, 0, 0);
                let result =
                    BrotliDecompressStream(&mut left, &mut read, input, &mut room, &mut written, output, &mut total, state);
                match result {
                    BrotliResult::ResultFailure => return Err(Damage),
                    BrotliResult::ResultSuccess => *ended = true,
                    BrotliResult::NeedsMoreInput | BrotliResult::NeedsMoreOutput => {}
                }
                Ok((read, written))
            }
            Self::Zstd { context, ended } => {
                let (mut from, mut to) = (InBuffer::around(input), OutBuffer::around(output));
                let more = context.decompress_stream(&mut to, &mut from).map_err(|_| Damage)?;
                let step = (from.pos(), to.pos());
                // A frame may follow: it has ended as long as nothing of another one was read.
                if step != (0, 0) {
                    *ended = more == 0;
                }
                Ok(step)
            }
        }
    }

    /// Whether the encoding could end here.
    pub(super) fn is_at_end(&self) -> bool {
        match self {
            Self::Gzip(gzip) => gzip.is_at_end(),
            Self::Deflate(deflate) => matches!(deflate, Deflate::Ended),
            Self::Brotli { ended, .. } | Self::Zstd { ended, .. } => *ended,
        }
    }
}

/// Deflate: in zlib's format, as it should be, or bare.
pub(super) enum Deflate {
    /// Two bytes tell; this is the first of them.
    Unknown(Option<u8>),
    Known(Decompress),
    Ended,
}

impl Deflate {
    fn step(&mut self, input: &[u8], output: &mut [u8]) -> Result<Step, Damage> {
        match self {
            Self::Ended => Ok((input.len(), 0)),
            Self::Known(inflate) => {
                let (read, written, ended) = inflated(inflate, input, output)?;
                if ended {
                    *self = Self::Ended;
                }
                Ok((read, written))
            }
            Self::Unknown(first) => match (*first, input) {
                (_, []) => Ok((0, 0)),
                (None, [only]) => {
                    *first = Some(*only);
                    Ok((1, 0))
                }
                (None, [a, b, ..]) => {
                    *self = Self::Known(Decompress::new(is_zlib(*a, *b)));
                    self.step(input, output)
                }
                (Some(a), [b, ..]) => {
                    let mut inflate = Decompress::new(is_zlib(a, *b));
                    // One byte can't be all of anything: it is taken, and nothing comes of it yet.
                    inflated(&mut inflate, &[a], output)?;
                    *self = Self::Known(inflate);
                    self.step(input, output)
                }
            },
        }
    }
}

/// Whether these are the first two bytes of zlib's format (RFC 1950), without a dictionary. Bare deflate begins with them only if an
/// encoder leaves something in the bits that it should leave empty.
fn is_zlib(first: u8, second: u8) -> bool {
    first & 0x0f == 8 && first >> 4 <= 7 && second & 0x20 == 0 && u16::from_be_bytes([first, second]).is_multiple_of(31)
}

/// Inflates; what was read, what was written, and whether this was the end.
pub(super) fn inflated(inflate: &mut Decompress, input: &[u8], output: &mut [u8]) -> Result<(usize, usize, bool), Damage> {
    let (before_in, before_out) = (inflate.total_in(), inflate.total_out());
    let status = inflate.decompress(input, output, FlushDecompress::None).map_err(|_| Damage)?;
    // Neither is more than the length of a buffer.
    let moved = |now: u64, before: u64| usize::try_from(now - before).unwrap_or_default();
    Ok((moved(inflate.total_in(), before_in), moved(inflate.total_out(), before_out), status == Status::StreamEnd))
}
