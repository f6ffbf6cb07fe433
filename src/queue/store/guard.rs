//! The thread on which the engine is called, and how long it may take.
//!
//! A disk can stop answering: it is frozen for a snapshot, its network is gone. And an engine may not come back from a call although the disk
//! answers. Neither must hold the writer, which has to tell everyone that waits. So it hands each call over to a thread of its own, `queue-disk`,
//! and waits for a while. Nothing else is called after one that is overdue, until it is known what became of it: see [`heal`](super::heal).

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, Sender, TryRecvError};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use super::StoreError;

/// How long a call may take.
const LIMIT: Duration = Duration::from_secs(5);

/// Threads that may be left behind with a call that never returned: each has an engine and its memory.
const LEFT: usize = 4;

type Job = Box<dyn FnOnce() + Send>;

/// Calls the engine. One caller at a time.
pub struct Guard {
    /// Milliseconds.
    limit: AtomicU64,
    /// None: calls are made where they are asked for, for tests without threads.
    desk: Option<Mutex<Desk>>,
}

#[derive(Default)]
struct Desk {
    /// To the thread, once there is one.
    jobs: Option<Sender<Job>>,
    /// Whether the call that took too long has returned.
    overdue: Option<Box<dyn Fn() -> bool + Send>>,
    left: usize,
}

/// A call on its way.
pub struct Call<T>(Receiver<Result<T, StoreError>>);

impl<T> Call<T> {
    /// What it came to; none if it is still on its way after `limit`.
    pub fn wait(&self, limit: Duration) -> Option<Result<T, StoreError>> {
        match self.0.recv_timeout(limit) {
            Ok(result) => Some(result),
            Err(RecvTimeoutError::Timeout) => None,
            Err(RecvTimeoutError::Disconnected) => Some(Err(StoreError::Damaged("the storage engine panicked".into()))),
        }
    }

    fn returned(&self) -> bool {
        !matches!(self.0.try_recv(), Err(TryRecvError::Empty))
    }
}

impl Guard {
    /// With a thread.
    pub fn new() -> Self {
        Self { desk: Some(Mutex::default()), ..Self::inline() }
    }

    /// Without one: what a call takes it takes.
    pub fn inline() -> Self {
        Self { limit: AtomicU64::new(crate::clock::as_ms(LIMIT)), desk: None }
    }

    #[cfg(test)]
    pub fn set_limit(&self, limit: Duration) {
        self.limit.store(crate::clock::as_ms(limit), Ordering::Relaxed);
    }

    /// How long a call may take.
    pub fn limit(&self) -> Duration {
        Duration::from_millis(self.limit.load(Ordering::Relaxed))
    }

    /// Makes a call. [`StoreError::Stuck`] if it takes too long, and at once as long as an earlier one is not [settled](Self::settled).
    pub fn run<T: Send + 'static>(&self, job: impl FnOnce() -> Result<T, StoreError> + Send + 'static) -> Result<T, StoreError> {
        let Some(mut desk) = self.desk() else { return job() };
        if desk.overdue.is_some() {
            return Err(StoreError::Stuck);
        }
        let call = desk.hand_over(job)?;
        call.wait(self.limit()).unwrap_or_else(|| {
            tracing::error!(limit = ?self.limit(), "a call to the storage engine does not return");
            desk.overdue = Some(Box::new(move || call.returned()));
            Err(StoreError::Stuck)
        })
    }

    /// Begins something on a thread that ends with it: what may take long, and what may never return.
    pub fn beside<T: Send + 'static>(
        &self,
        job: impl FnOnce() -> Result<T, StoreError> + Send + 'static,
    ) -> Result<Call<T>, StoreError> {
        let (job, call) = pair(job);
        if self.desk.is_some() {
            spawn("queue-beside", job)?;
        } else {
            job();
        }
        Ok(call)
    }

    /// Whether a call is overdue, or was and nobody has asked yet whether it is [settled](Self::settled).
    pub fn is_stuck(&self) -> bool {
        self.desk().is_some_and(|desk| desk.overdue.is_some())
    }

    /// Whether no call is overdue any more. After it calls are made again.
    pub fn settled(&self) -> bool {
        let Some(mut desk) = self.desk() else { return true };
        if desk.overdue.as_ref().is_some_and(|returned| returned()) {
            desk.overdue = None;
        }
        desk.overdue.is_none()
    }

    /// Whether [`leave`](Self::leave) is still allowed.
    pub fn may_leave(&self) -> bool {
        self.desk().is_some_and(|desk| desk.left < LEFT)
    }

    /// Leaves the thread behind, with the call from which it doesn't return. After it calls are made again, on another one.
    pub fn leave(&self) {
        if let Some(mut desk) = self.desk() {
            *desk = Desk { left: desk.left + 1, ..Desk::default() };
        }
    }

    fn desk(&self) -> Option<MutexGuard<'_, Desk>> {
        self.desk.as_ref().map(|desk| desk.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Desk {
    fn hand_over<T: Send + 'static>(
        &mut self,
        job: impl FnOnce() -> Result<T, StoreError> + Send + 'static,
    ) -> Result<Call<T>, StoreError> {
        let (job, call) = pair(job);
        let mut job: Job = Box::new(job);
        if let Some(jobs) = &self.jobs {
            match jobs.send(job) {
                Ok(()) => return Ok(call),
                Err(unsent) => job = unsent.0, // the thread has panicked
            }
        }
        let (jobs, queue) = mpsc::channel::<Job>();
        spawn("queue-disk", move || {
            job();
            for job in queue {
                job();
            }
        })?;
        self.jobs = Some(jobs);
        Ok(call)
    }
}

/// A job and where its result arrives.
fn pair<T: Send + 'static>(
    job: impl FnOnce() -> Result<T, StoreError> + Send + 'static,
) -> (impl FnOnce() + Send + 'static, Call<T>) {
    let (answer, result) = mpsc::channel();
    // If nobody waits any more, so be it.
    (move || drop(answer.send(job())), Call(result))
}

fn spawn(name: &str, job: impl FnOnce() + Send + 'static) -> Result<(), StoreError> {
    std::thread::Builder::new().name(name.into()).spawn(job).map(drop).map_err(StoreError::io("starting a thread"))
}
