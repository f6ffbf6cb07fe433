//! Reads of the disk: on the blocking pool, a few at a time, and never longer than a client waits.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Semaphore;

use super::problem::Problem;

/// Reads at one time. More would only fight over the disk that commits need.
const AT_ONCE: usize = 4;
/// Longest wait for a read, its turn included: less than a client waits, so that it gets to know why.
const TIMEOUT: Duration = Duration::from_secs(4);

/// The turnstile.
pub(super) struct Reads {
    turns: Arc<Semaphore>,
    timeout: Duration,
}

impl Default for Reads {
    fn default() -> Self {
        Self { turns: Arc::new(Semaphore::new(AT_ONCE)), timeout: TIMEOUT }
    }
}

impl Reads {
    /// Runs `read` off the async threads. A read that outlasts its time keeps its turn until it ends: a store that hangs ties up
    /// [`AT_ONCE`] threads and no more.
    pub(super) async fn run<T: Send + 'static>(&self, read: impl FnOnce() -> T + Send + 'static) -> Result<T, Problem> {
        self.run_within(self.timeout, read).await
    }

    /// As [`run`](Self::run), for those who wait longer.
    pub(super) async fn run_within<T: Send + 'static>(
        &self,
        timeout: Duration,
        read: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, Problem> {
        let turns = Arc::clone(&self.turns);
        let work = async move {
            // The semaphore is never closed; if it were, the read would simply go without a turn.
            let turn = turns.acquire_owned().await.ok();
            tokio::task::spawn_blocking(move || {
                let _turn = turn;
                read()
            })
            .await
        };
        match tokio::time::timeout(timeout, work).await {
            Ok(Ok(found)) => Ok(found),
            Ok(Err(panicked)) => {
                tracing::error!(error = %panicked, "a read of the queue panicked");
                Err(Problem::internal("the read failed; the log says why"))
            }
            Err(_) => Err(Problem::queue_unavailable(format!(
                "the queue's disk did not answer within {timeout:?}; try again, and look at /readyz"
            ))),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use super::*;

    #[tokio::test]
    async fn inv9_a_hanging_store_ties_up_a_bounded_number_of_threads() {
        let mut reads = Reads { timeout: Duration::from_millis(1), ..Reads::default() };
        let mut hung = Vec::new();
        for _ in 0..AT_ONCE {
            let (release, wait) = mpsc::channel::<()>();
            hung.push(release);
            assert!(reads.run(move || wait.recv().is_ok()).await.is_err());
        }
        assert_eq!(reads.turns.available_permits(), 0, "a caller that went away left its read running, and that keeps its turn");
        assert!(reads.run(|| ()).await.is_err(), "one more waits for its turn, in vain");
        drop(hung);
        drop(reads.turns.acquire_many(u32::try_from(AT_ONCE).unwrap()).await.unwrap());
        reads.timeout = TIMEOUT;
        assert!(reads.run(|| 7).await.is_ok_and(|n| n == 7));
    }
}
