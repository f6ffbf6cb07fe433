"""What bytes look like in a comparison, and the bytes that both sides can make."""

import hashlib

LINE = b"The quick brown fox jumps over the lazy dog. 0123456789\n"
SHORT = 160


def digest(body: bytes) -> str:
    """Short bodies as they are, others as their length and hash."""
    if len(body) <= SHORT:
        return body.decode("latin-1")
    return f"{len(body)} bytes {hashlib.sha256(body).hexdigest()[:16]}"


def large(start: int, length: int) -> bytes:
    """A part of one endless text without a short period."""
    first, last = start // 8, (start + length) // 8 + 1
    return b"".join(b"%07x " % (number & 0xFFFFFFF) for number in range(first, last))[start % 8 :][:length]
