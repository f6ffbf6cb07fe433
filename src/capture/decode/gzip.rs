//! gzip (RFC 1952): a head, deflated bytes and a checksum, any number of times.

use crc32fast::Hasher;
use flate2::Decompress;

use super::stage::{Damage, Step, inflated};

const HAS_CHECK: u8 = 2;
const HAS_EXTRA: u8 = 4;
const HAS_NAME: u8 = 8;
const HAS_COMMENT: u8 = 16;
const RESERVED: u8 = 0xe0;

/// gzip that is being undone. Of heads nothing is kept, however long they are.
pub(super) struct Gzip {
    at: At,
    flags: u8,
    inflate: Decompress,
    sum: Hasher,
    /// Of the member so far, modulo 2^32 as in its trailer.
    length: u32,
    trailer: [u8; 8],
}

/// What the next byte belongs to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum At {
    /// A member, the first or a further one: so many bytes of its head's fixed part were seen.
    Fixed(u8, Member),
    /// The low byte of the length of the extra field, and the high one.
    ExtraLow,
    ExtraHigh(u8),
    Extra(u16),
    Name,
    Comment,
    /// The head's own checksum: so many bytes of it were seen.
    Check(u8),
    Body,
    Trailer(u8),
    /// What stands behind the last member.
    Behind,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Member {
    First,
    Further,
}

impl Default for Gzip {
    fn default() -> Self {
        Self {
            at: At::Fixed(0, Member::First),
            flags: 0,
            inflate: Decompress::new(false),
            sum: Hasher::new(),
            length: 0,
            trailer: [0; 8],
        }
    }
}

impl Gzip {
    pub(super) fn step(&mut self, input: &[u8], output: &mut [u8]) -> Result<Step, Damage> {
        let mut read = 0;
        loop {
            while self.at != At::Body {
                let Some(&byte) = input.get(read) else { return Ok((read, 0)) };
                read += 1;
                self.at = self.after(byte)?;
            }
            let (taken, written, ended) = inflated(&mut self.inflate, &input[read..], output)?;
            read += taken;
            self.sum.update(&output[..written]);
            self.length = self.length.wrapping_add(u32::try_from(written).unwrap_or_default()); // a piece is short
            if ended {
                self.at = At::Trailer(0);
            }
            // An end that nothing was read or written for must not look like a want of input: the trailer is read at once.
            if !ended || written > 0 {
                return Ok((read, written));
            }
        }
    }

    pub(super) fn is_at_end(&self) -> bool {
        matches!(self.at, At::Fixed(0, Member::Further) | At::Behind)
    }

    /// What follows a byte that is not of the body.
    fn after(&mut self, byte: u8) -> Result<At, Damage> {
        Ok(match self.at {
            At::Fixed(seen, member) => {
                let fits = match seen {
                    0 => byte == 0x1f,
                    1 => byte == 0x8b,
                    2 => byte == 8,
                    3 => byte & RESERVED == 0,
                    _ => true,
                };
                match (fits, seen, member) {
                    // Padding, say: servers do that, and clients pass over it.
                    (false, _, Member::Further) => At::Behind,
                    (false, _, Member::First) => return Err(Damage),
                    (true, 9, _) => self.head_after(0),
                    (true, ..) => {
                        if seen == 3 {
                            self.flags = byte;
                        }
                        At::Fixed(seen + 1, member)
                    }
                }
            }
            At::ExtraLow => At::ExtraHigh(byte),
            At::ExtraHigh(low) => match u16::from_le_bytes([low, byte]) {
                0 => self.head_after(HAS_EXTRA),
                length => At::Extra(length),
            },
            At::Extra(1) => self.head_after(HAS_EXTRA),
            At::Extra(left) => At::Extra(left - 1),
            At::Name if byte == 0 => self.head_after(HAS_NAME),
            At::Comment if byte == 0 => self.head_after(HAS_COMMENT),
            At::Check(0) => At::Check(1),
            At::Check(_) => At::Body,
            At::Trailer(seen) => {
                self.trailer[usize::from(seen)] = byte;
                if seen < 7 { At::Trailer(seen + 1) } else { self.member_ended()? }
            }
            at @ (At::Name | At::Comment | At::Body | At::Behind) => at,
        })
    }

    /// What the head has after this part of it (0: the fixed one).
    fn head_after(&self, part: u8) -> At {
        let has = |flag: u8| self.flags & flag != 0;
        if part < HAS_EXTRA && has(HAS_EXTRA) {
            At::ExtraLow
        } else if part < HAS_NAME && has(HAS_NAME) {
            At::Name
        } else if part < HAS_COMMENT && has(HAS_COMMENT) {
            At::Comment
        } else if has(HAS_CHECK) {
            At::Check(0)
        } else {
            At::Body
        }
    }

    fn member_ended(&mut self) -> Result<At, Damage> {
        let [a, b, c, d, rest @ ..] = self.trailer;
        let sum = std::mem::take(&mut self.sum).finalize();
        if u32::from_le_bytes([a, b, c, d]) != sum || u32::from_le_bytes(rest) != self.length {
            return Err(Damage);
        }
        self.length = 0;
        self.inflate.reset(false);
        Ok(At::Fixed(0, Member::Further))
    }
}
