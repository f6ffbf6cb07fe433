//! Takes a future's turns at once.
//!
//! In a client's connection hyper's server, the exchange and hyper's client hand each other messages, and each wakes the others: they
//! are one task, so the task wakes itself while it runs. Left to the scheduler that is another round through its queue, and another
//! thread woken to help with it, several times a request. So a wake-up that comes during a poll only leads to the next poll.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::task::{Context, Poll, Wake, Waker};

use futures_util::task::AtomicWaker;
use tokio::task::coop::has_budget_remaining;

/// Polls in a row at most: other tasks of this thread want their turn too.
const MOST: usize = 16;

/// Nobody polls: a wake-up is the task's.
const IDLE: u8 = 0;
/// Somebody polls.
const POLLING: u8 = 1;
/// Somebody polls, and is to poll once more.
const AGAIN: u8 = 2;

/// A future, polled again at once where it wakes itself.
pub struct Turns<F> {
    future: F,
    bell: Arc<Bell>,
    waker: Waker,
}

struct Bell {
    state: AtomicU8,
    task: AtomicWaker,
}

impl Wake for Bell {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        // The poll in progress sees it, wherever it is: it can end only from POLLING.
        if self.state.compare_exchange(POLLING, AGAIN, Ordering::AcqRel, Ordering::Acquire) == Err(IDLE) {
            self.task.wake();
        }
    }
}

impl<F> Turns<F> {
    /// Of a future.
    pub fn of(future: F) -> Self {
        let bell = Arc::new(Bell { state: AtomicU8::new(IDLE), task: AtomicWaker::new() });
        Self { future, waker: Waker::from(Arc::clone(&bell)), bell }
    }

    /// The future.
    pub fn get_mut(&mut self) -> &mut F {
        &mut self.future
    }
}

impl<F: Future + Unpin> Future for Turns<F> {
    type Output = F::Output;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<F::Output> {
        let this = &mut *self;
        this.bell.task.register(cx.waker());
        for _ in 0..MOST {
            this.bell.state.store(POLLING, Ordering::Release);
            if let Poll::Ready(done) = Pin::new(&mut this.future).poll(&mut Context::from_waker(&this.waker)) {
                return Poll::Ready(done);
            }
            if this.bell.state.compare_exchange(POLLING, IDLE, Ordering::AcqRel, Ordering::Acquire).is_ok() {
                return Poll::Pending;
            }
            // tokio has the task yield: its sockets say nothing any more until it has.
            if !has_budget_remaining() {
                break;
            }
        }
        this.bell.state.store(IDLE, Ordering::Release);
        cx.waker().wake_by_ref();
        Poll::Pending
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicUsize;

    use super::*;

    struct Counter(AtomicUsize);

    impl Wake for Counter {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::SeqCst);
        }
    }

    /// Wakes itself so many times, and is ready then.
    fn selfish(mut times: usize) -> impl Future<Output = ()> + Unpin {
        std::future::poll_fn(move |cx| {
            if times == 0 {
                return Poll::Ready(());
            }
            times -= 1;
            cx.waker().wake_by_ref();
            Poll::Pending
        })
    }

    #[test]
    fn a_future_that_wakes_itself_is_polled_again_at_once_but_not_for_ever() {
        let counter = Arc::new(Counter(AtomicUsize::new(0)));
        let waker = Waker::from(Arc::clone(&counter));
        let mut cx = Context::from_waker(&waker);
        assert!(Pin::new(&mut Turns::of(selfish(MOST - 1))).poll(&mut cx).is_ready());
        assert_eq!(counter.0.load(Ordering::SeqCst), 0);
        let mut endless = Turns::of(selfish(usize::MAX));
        assert!(Pin::new(&mut endless).poll(&mut cx).is_pending());
        assert_eq!(counter.0.load(Ordering::SeqCst), 1);
    }

    #[test]
    fn a_wake_up_between_two_polls_wakes_the_task() {
        let counter = Arc::new(Counter(AtomicUsize::new(0)));
        let waker = Waker::from(Arc::clone(&counter));
        let kept: Arc<AtomicWaker> = Arc::default();
        let keeps = Arc::clone(&kept);
        let mut waits = Turns::of(std::future::poll_fn(move |cx| {
            keeps.register(cx.waker());
            Poll::<()>::Pending
        }));
        assert!(Pin::new(&mut waits).poll(&mut Context::from_waker(&waker)).is_pending());
        assert_eq!(counter.0.load(Ordering::SeqCst), 0);
        kept.wake();
        assert_eq!(counter.0.load(Ordering::SeqCst), 1);
    }
}
