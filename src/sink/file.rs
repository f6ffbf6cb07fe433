//! JSON Lines: one episode a line, synced before it counts as delivered.
//!
//! The file belongs to offramp: a last line without its end, which a crash can leave, is cut off; its episode was not delivered and comes again.
//! Before an episode in doubt is written again, its id is looked for in the last 64 MiB, so it is there once. What else there is to know of
//! the file is in `file/journal.rs`.

mod journal;

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use futures_util::future::BoxFuture;
use tokio::sync::Mutex;

use self::journal::Journal;
use super::{BatchError, Cause, Delivery, Follow, Presence, Receipt, Sink, SinkError};

/// The sink.
pub struct FileSink {
    path: PathBuf,
    journal: Arc<Mutex<Journal>>,
}

impl FileSink {
    pub(super) fn new(path: &Path, max_bytes: u64, keep: u32) -> Self {
        Self { path: path.to_owned(), journal: Arc::new(Mutex::new(Journal::new(path.to_owned(), max_bytes, keep))) }
    }

    /// One write and one sync, whatever their number.
    async fn append(&self, deliveries: &[Delivery]) -> Result<Receipt, SinkError> {
        let mut lines = String::new();
        for delivery in deliveries {
            lines.push_str(&delivery.episode.to_json().to_string());
            lines.push('\n');
        }
        self.with("writing to", move |journal| journal.append(&lines)).await?;
        Ok(Receipt::Delivered)
    }

    /// Works on the file, off the async threads.
    async fn with<T: Send + 'static>(
        &self,
        what: &'static str,
        work: impl FnOnce(&mut Journal) -> io::Result<T> + Send + 'static,
    ) -> Result<T, SinkError> {
        // Waited for here: a disk that hangs must take one thread, and not one for each that waits.
        let mut journal = self.journal.clone().lock_owned().await;
        let done = tokio::task::spawn_blocking(move || work(&mut journal));
        let result = done.await.unwrap_or_else(|panic| Err(io::Error::other(panic)));
        result.map_err(|error| SinkError {
            cause: Cause::Local,
            message: format!("{what} {} failed: {error}", self.path.display()),
            retry_after: None,
            ambiguous: true, // it may be in the file and not on the disk
        })
    }
}

impl Sink for FileSink {
    fn kind(&self) -> &'static str {
        "file"
    }

    fn deliver<'a>(&'a self, delivery: &'a Delivery) -> BoxFuture<'a, Result<Receipt, SinkError>> {
        Box::pin(self.append(std::slice::from_ref(delivery)))
    }

    fn deliver_batch<'a>(&'a self, deliveries: &'a [Delivery]) -> BoxFuture<'a, Result<Receipt, BatchError>> {
        // Of those that a failed write may have left, each is looked for before it is written again.
        let failed = |error| BatchError { taken: 0, receipt: Receipt::Delivered, error };
        Box::pin(async move { self.append(deliveries).await.map_err(failed) })
    }

    fn batches(&self) -> bool {
        true
    }

    fn look_up<'a>(&'a self, delivery: &'a Delivery) -> BoxFuture<'a, Result<Presence, SinkError>> {
        Box::pin(async move {
            let needle = format!("{{\"id\":\"{}\"", delivery.episode.id);
            let found = self.with("reading", move |journal| journal.finds(&needle));
            Ok(if found.await? { Presence::Present } else { Presence::Absent })
        })
    }

    fn follow(&self) -> Option<Follow> {
        None
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;
    use crate::queue::tests::episode as sample_episode;

    #[tokio::test]
    async fn inv4_a_line_is_found_again_and_a_torn_one_is_cut_off() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("episodes.jsonl");
        let (a, b) = (sample_episode("s", 1), sample_episode("s", 2));
        let delivery = |e: &crate::episode::Episode| Delivery { episode: Arc::new(e.clone()), at: 0 };
        let sink = FileSink::new(&path, 0, 1);
        assert_eq!(sink.look_up(&delivery(&a)).await.unwrap(), Presence::Absent);
        assert_eq!(sink.deliver(&delivery(&a)).await.unwrap(), Receipt::Delivered);
        assert_eq!(sink.look_up(&delivery(&a)).await.unwrap(), Presence::Present);
        assert_eq!(sink.look_up(&delivery(&b)).await.unwrap(), Presence::Absent);

        // A crash in the middle of a line.
        std::fs::OpenOptions::new().append(true).open(&path).unwrap().write_all(&[b'x'; 10_000]).unwrap();
        let sink = FileSink::new(&path, 0, 1);
        sink.deliver(&delivery(&b)).await.unwrap();
        let text = std::fs::read_to_string(&path).unwrap();
        let ids: Vec<_> =
            text.lines().skip(1).map(|l| serde_json::from_str::<serde_json::Value>(l).unwrap()["id"].clone()).collect();
        assert_eq!(ids, [a.id.to_string(), b.id.to_string()]);
    }
}
