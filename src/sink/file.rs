//! JSON Lines: one episode a line, synced before it counts as delivered.
//!
//! The file belongs to offramp: a last line without its end, which a crash can leave, is cut off when the file is opened; its episode was
//! not delivered and comes again. Before an episode in doubt is written again, its id is looked for in the last 64 MiB, so it is
//! there once.

use std::fs::{File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use futures_util::future::BoxFuture;
use tokio::sync::Mutex;

use super::{BatchError, Cause, Delivery, Follow, Presence, Receipt, Sink, SinkError};

/// How far back (bytes) an episode in doubt is looked for: more than all workers can have written in one attempt each.
const TAIL: u64 = 64 << 20;

/// The sink.
pub struct FileSink {
    path: PathBuf,
    /// Opened with the first use, and again after an error.
    file: Arc<Mutex<Option<File>>>,
}

impl FileSink {
    pub(super) fn new(path: PathBuf) -> Self {
        Self { path, file: Arc::default() }
    }

    /// One write and one sync, whatever their number.
    async fn append(&self, deliveries: &[Delivery]) -> Result<Receipt, SinkError> {
        let mut lines = String::new();
        for delivery in deliveries {
            lines.push_str(&delivery.episode.to_json().to_string());
            lines.push('\n');
        }
        self.with("writing to", move |file| {
            file.write_all(lines.as_bytes())?;
            file.sync_data()
        })
        .await?;
        Ok(Receipt::Delivered)
    }

    /// Runs `work` on the open file, off the async threads.
    async fn with<T: Send + 'static>(
        &self,
        what: &'static str,
        work: impl FnOnce(&mut File) -> io::Result<T> + Send + 'static,
    ) -> Result<T, SinkError> {
        let path = self.path.clone();
        // Waited for here: a disk that hangs must take one thread, and not one for each that waits.
        let mut slot = self.file.clone().lock_owned().await;
        let done = tokio::task::spawn_blocking(move || {
            let mut file = match slot.take() {
                Some(file) => file,
                None => open(&path)?,
            };
            let value = work(&mut file)?; // on an error the file is opened anew, and a torn line cut off
            *slot = Some(file);
            Ok(value)
        });
        let result = done.await.unwrap_or_else(|panic| Err(io::Error::other(panic)));
        result.map_err(|error| SinkError {
            cause: Cause::Local,
            message: format!("{what} {} failed: {error}", self.path.display()),
            retry_after: None,
            ambiguous: true, // it may be in the file and not on the disk
        })
    }
}

fn open(path: &Path) -> io::Result<File> {
    let mut file = OpenOptions::new().read(true).append(true).create(true).open(path)?;
    let whole = end_of_last_line(&mut file)?;
    if whole < file.metadata()?.len() {
        file.set_len(whole)?;
    }
    if let Some(dir) = path.parent().filter(|d| !d.as_os_str().is_empty()) {
        File::open(dir)?.sync_all()?; // the file's name must be as durable as its lines
    }
    Ok(file)
}

/// The length of the file up to its last end of line.
fn end_of_last_line(file: &mut File) -> io::Result<u64> {
    let mut end = file.seek(SeekFrom::End(0))?;
    let mut block = [0; 4096];
    while end > 0 {
        let from = end.saturating_sub(block.len() as u64);
        // At most a block's length, which fits.
        #[allow(clippy::cast_possible_truncation)]
        let block = &mut block[..(end - from) as usize];
        file.seek(SeekFrom::Start(from))?;
        file.read_exact(block)?;
        if let Some(at) = block.iter().rposition(|b| *b == b'\n') {
            return Ok(from + at as u64 + 1);
        }
        end = from;
    }
    Ok(0)
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
            let found = self.with("reading", move |file| {
                let from = file.metadata()?.len().saturating_sub(TAIL);
                file.seek(SeekFrom::Start(from))?;
                let mut tail = Vec::new();
                file.take(TAIL).read_to_end(&mut tail)?;
                Ok(tail.split(|b| *b == b'\n').any(|line| line.starts_with(needle.as_bytes())))
            });
            Ok(if found.await? { Presence::Present } else { Presence::Absent })
        })
    }

    fn follow(&self) -> Option<Follow> {
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::queue::tests::episode as sample_episode;

    #[tokio::test]
    async fn inv4_a_line_is_found_again_and_a_torn_one_is_cut_off() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("episodes.jsonl");
        let (a, b) = (sample_episode("s", 1), sample_episode("s", 2));
        let delivery = |e: &crate::episode::Episode| Delivery { episode: Arc::new(e.clone()), at: 0 };
        let sink = FileSink::new(path.clone());
        assert_eq!(sink.look_up(&delivery(&a)).await.unwrap(), Presence::Absent);
        assert_eq!(sink.deliver(&delivery(&a)).await.unwrap(), Receipt::Delivered);
        assert_eq!(sink.look_up(&delivery(&a)).await.unwrap(), Presence::Present);
        assert_eq!(sink.look_up(&delivery(&b)).await.unwrap(), Presence::Absent);

        // A crash in the middle of a line.
        OpenOptions::new().append(true).open(&path).unwrap().write_all(&[b'x'; 10_000]).unwrap();
        let sink = FileSink::new(path.clone());
        sink.deliver(&delivery(&b)).await.unwrap();
        let text = std::fs::read_to_string(&path).unwrap();
        let ids: Vec<_> = text.lines().map(|l| serde_json::from_str::<serde_json::Value>(l).unwrap()["id"].clone()).collect();
        assert_eq!(ids, [a.id.to_string(), b.id.to_string()]);
    }

    #[tokio::test]
    async fn inv5_several_are_written_at_once_in_their_order() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("episodes.jsonl");
        let deliveries = [3, 1, 2].map(|n| Delivery { episode: Arc::new(sample_episode("s", n)), at: 0 });
        let sink = FileSink::new(path.clone());
        assert_eq!(sink.deliver_batch(&deliveries).await.unwrap(), Receipt::Delivered);
        assert_eq!(sink.look_up(&deliveries[1]).await.unwrap(), Presence::Present);
        let lines: Vec<_> = deliveries.iter().map(|d| d.episode.to_json().to_string()).collect();
        assert_eq!(std::fs::read_to_string(&path).unwrap().lines().collect::<Vec<_>>(), lines);
    }

    #[tokio::test]
    async fn a_file_that_cannot_be_opened_is_this_machines_fault() {
        let dir = tempfile::tempdir().unwrap();
        let sink = FileSink::new(dir.path().join("no/such/dir.jsonl"));
        let delivery = Delivery { episode: Arc::new(sample_episode("s", 1)), at: 0 };
        let error = sink.deliver(&delivery).await.unwrap_err();
        assert_eq!(error.cause, Cause::Local);
        assert!(error.message.contains("no/such/dir.jsonl"));
    }
}
