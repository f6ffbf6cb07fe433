//! The tee: keeps counted references to the first bytes of a body that passes, and holds back the last of them until what was
//! captured is on stable storage.
//!
//! No channel, no lock, no task: the tee is a field of the body that it watches, and a frame that it keeps is the frame that
//! goes on, counted once more.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use prometheus::IntCounter;
use sha2::{Digest, Sha256};
use tokio::time::{Instant, Sleep};

use crate::capture::reassembly::Reassembly;
use crate::capture::{Kept, Release};

/// A bounded copy of one direction, or what a stream says.
#[derive(Debug)]
pub struct Tee {
    kept: Kept,
    max: usize,
    digest: Sha256,
    /// Of a stream no copy is kept.
    stream: Option<Box<Reassembly>>,
}

impl Tee {
    /// Keeps at most `max` bytes.
    pub fn new(max: usize) -> Self {
        Self { kept: Kept::default(), max, digest: Sha256::new(), stream: None }
    }

    /// Puts a stream together instead of keeping it.
    pub fn reassemble(&mut self, stream: Option<Box<Reassembly>>) {
        self.stream = stream;
    }

    /// Sees a frame pass; whether it holds a stream's end marker.
    pub fn pass(&mut self, data: &Bytes) -> bool {
        self.kept.total += data.len() as u64;
        self.digest.update(data);
        if let Some(stream) = &mut self.stream {
            return stream.pass(data);
        }
        let room = self.max - self.kept.len;
        if room > 0 && !data.is_empty() {
            let part = data.slice(..data.len().min(room));
            self.kept.len += part.len();
            self.kept.frames.push(part);
        }
        false
    }

    /// What was kept; `ended` says whether the body came to its end.
    pub fn finish(self, ended: bool) -> Kept {
        let stream = self.stream.map(|stream| stream.finish());
        Kept { ended, sha256: self.digest.finalize().into(), stream, ..self.kept }
    }
}

/// The last-byte barrier: ready once what it waits for has happened, or once `commit_wait` is over.
pub struct Barrier {
    release: Release,
    wait: Duration,
    /// Counts a last byte that left before its commit.
    late: IntCounter,
    since: Option<Instant>,
    timer: Option<Pin<Box<Sleep>>>,
}

impl Barrier {
    /// Waits for `release`, at most for `wait`.
    pub fn new(release: Release, wait: Duration, late: IntCounter) -> Self {
        Self { release, wait, late, since: None, timer: None }
    }

    /// How long it has held so far.
    pub fn held(&self) -> Duration {
        self.since.map_or(Duration::ZERO, |since| since.elapsed())
    }
}

impl Future for Barrier {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        if self.release.as_mut().poll(cx).is_ready() {
            return Poll::Ready(());
        }
        let since = *self.since.get_or_insert_with(Instant::now);
        let until = since + self.wait;
        let timer = self.timer.get_or_insert_with(|| Box::pin(tokio::time::sleep_until(until)));
        if timer.as_mut().poll(cx).is_pending() {
            return Poll::Pending;
        }
        self.late.inc();
        Poll::Ready(())
    }
}
