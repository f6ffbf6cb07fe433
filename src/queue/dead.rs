//! Dead letters, many at once: put back or removed, all of a selection, in slices, so that a million of them are neither one batch nor one
//! list.

use std::collections::VecDeque;
use std::time::Duration;

use super::shared::{Op, Reply};
use super::{AppendError, Queue, Select, Seq, SinkId, inspect};

/// Letters a second that are put back one by one; beyond that several at a time.
const SINGLY: f64 = 100.0;

/// Some dead letters of a sink.
type Slice = Vec<(SinkId, Seq)>;

/// Those of a selection, a slice after the other.
struct Letters {
    queue: Queue,
    select: Select,
    /// Sinks that are not at their end.
    sinks: VecDeque<SinkId>,
    after: Option<Seq>,
}

impl Letters {
    fn of(queue: &Queue, select: Select) -> Self {
        let named = queue.inner.shared.sinks.all().into_iter().filter(|s| select.sink.as_ref().is_none_or(|n| *n == s.name));
        Self { queue: queue.clone(), sinks: named.map(|s| s.id).collect(), select, after: None }
    }

    /// The next ones, maybe none of many that were looked at; none at the end.
    async fn next(&mut self) -> Result<Option<Slice>, AppendError> {
        let Some(&sink) = self.sinks.front() else { return Ok(None) };
        let (queue, select, after) = (self.queue.clone(), self.select.clone(), self.after);
        let read = move || inspect::select(&queue.inner.shared, &queue.names(), sink, &select, after);
        let slice = tokio::task::spawn_blocking(read).await.map_err(|_| AppendError::Failed)?;
        let (chosen, next) = slice.map_err(|error| {
            tracing::error!(%error, "the dead letters can't be read");
            AppendError::Failed
        })?;
        if next.is_none() {
            self.sinks.pop_front();
        }
        self.after = next;
        Ok(Some(chosen))
    }
}

impl Queue {
    /// Puts dead letters back, each at its original place in its lane; how many there were.
    pub async fn redrive(&self, select: Select) -> Result<u64, AppendError> {
        self.settle(select, Op::Redrive).await
    }

    /// The same, so many a second, and no more than `most`: those that there were when somebody counted. Dropping the future leaves the rest
    /// as they are.
    pub async fn redrive_at(&self, select: Select, rate: f64, most: u64) -> Result<u64, AppendError> {
        let (at_once, pause) = pace(rate);
        let (mut letters, mut count) = (Letters::of(self, select), 0);
        while let Some(slice) = letters.next().await? {
            for some in slice.chunks(at_once) {
                let left = usize::try_from(most - count).unwrap_or(usize::MAX);
                let some = some[..some.len().min(left)].to_vec();
                count += self.ask(|reply| Op::Redrive(some, reply))?.await?;
                if count >= most {
                    return Ok(count);
                }
                tokio::time::sleep(pause).await;
            }
        }
        Ok(count)
    }

    /// Removes dead letters for good; how many there were.
    pub async fn purge(&self, select: Select) -> Result<u64, AppendError> {
        self.settle(select, Op::Purge).await
    }

    /// How many dead letters there are.
    pub async fn count_dead(&self, select: Select) -> Result<u64, AppendError> {
        let (mut letters, mut count) = (Letters::of(self, select), 0);
        while let Some(slice) = letters.next().await? {
            count += slice.len() as u64;
        }
        Ok(count)
    }

    async fn settle(&self, select: Select, op: fn(Slice, Reply<u64>) -> Op) -> Result<u64, AppendError> {
        let (mut letters, mut count) = (Letters::of(self, select), 0);
        while let Some(slice) = letters.next().await? {
            count += self.ask(|reply| op(slice, reply))?.await?;
        }
        Ok(count)
    }
}

/// How many at once, and how long to wait then, for a rate above 0.
fn pace(rate: f64) -> (usize, Duration) {
    let at_once = (rate / SINGLY).ceil().max(1.0);
    // A rate that nobody means waits for a year, or takes all at once.
    let pause = Duration::try_from_secs_f64(at_once / rate).unwrap_or(Duration::from_secs(31_536_000));
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "whole, at least 1, and a cast saturates")]
    (at_once as usize, pause)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pace_is_the_rate_that_was_asked_for() {
        assert_eq!(pace(2.0), (1, Duration::from_millis(500)));
        assert_eq!(pace(0.1), (1, Duration::from_secs(10)));
        assert_eq!(pace(1_000.0), (10, Duration::from_millis(10)));
        assert!(pace(1e-300).1 > Duration::from_secs(86_400) && pace(1e300).0 > 1_000_000);
    }
}
