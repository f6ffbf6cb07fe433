//! Episodes off the disk, for attempts that are to begin: several in one go, since it costs more to have a thread read one than to read it.

use std::time::Duration;

use futures_util::future::join_all;

use crate::episode::Episode;
use crate::queue::{Queue, ReadError, Seq};

/// How long the disk may take to hand out what is read in one go: one that does not answer must not cost a worker.
pub const LIMIT: Duration = Duration::from_secs(5);

/// Episodes that are read one after the other. On a slow disk a claim's attempts wait for so many reads and not for all of theirs.
const TOGETHER: usize = 8;

/// What a read came to; no episode: it is gone.
pub type Read = Result<Option<Episode>, ReadError>;

/// The episodes at these places.
pub async fn at(queue: &Queue, places: &[Seq]) -> Vec<Read> {
    let together = async |places: &[Seq]| {
        let read = tokio::time::timeout(LIMIT, queue.fetch(places.to_vec())).await;
        let read = read.unwrap_or_else(|late| Err(ReadError::Store(late.to_string())));
        read.unwrap_or_else(|error| vec![Err(error); places.len()])
    };
    join_all(places.chunks(TOGETHER).map(together)).await.into_iter().flatten().collect()
}
