//! Several episodes of one lane in one call.
//!
//! Only the sending is one. Each is counted before it and finished after it by itself: those that the sink took are followed one after the
//! other, in order; those that it did not take go back to the lane. A batch kills nobody, because nobody knows which of them the sink
//! didn't want: what was not taken, and is not the sink's own fault, has its attempt counted, and what was tried in vain
//! [goes alone](crate::queue::ClaimRequest::batch). So order and blame are those of single attempts.

use std::sync::Arc;

use tokio::time::Instant;

use super::attempt::{self, Ending, MARGIN, Made, Purpose, Work};
use super::read::{self, Read};
use super::runner::{Runner, Setup};
use crate::config;
use crate::episode::Episode;
use crate::queue::{Claim, Finish, Sent};
use crate::sink::{BatchError, Cause, Delivery, Receipt, SinkError};

/// What the episodes of one call may say together (bytes); one that says more goes alone.
const LARGEST: usize = 1 << 20;

/// Makes the attempt that these claims, of one lane and in its order, are for; finishes them all. `head` is what was read of the first.
pub async fn run(runner: Arc<Runner>, mut claims: Vec<Claim>, head: Read, purpose: Purpose) {
    let began = Instant::now();
    let behind = match (&head, claims.as_slice()) {
        (Ok(Some(head)), [_, behind @ ..]) if !behind.is_empty() => read(&runner, head, behind).await,
        _ => Vec::new(),
    };
    // Those for which there is no room, or of which one before them can't be read, have their turn after that.
    for behind in claims.drain(1 + behind.len()..) {
        runner.queue.finish(behind, Finish::Uncount, None);
    }
    match (claims.as_slice(), head) {
        (together @ [_, _, ..], Ok(Some(head))) => {
            let deliver = |(claim, episode): (&Claim, Episode)| Delivery { episode: Arc::new(episode), at: claim.at };
            let deliveries: Vec<_> = together.iter().zip(std::iter::once(head).chain(behind)).map(deliver).collect();
            send(&runner, together, deliveries, purpose, began).await;
        }
        (_, head) => attempt::run(runner, claims[0], head, purpose).await,
    }
}

/// Those behind the first that go with it: up to one that can't be read, and to the size of a call.
async fn read(runner: &Runner, head: &Episode, behind: &[Claim]) -> Vec<Episode> {
    let queue = runner.queue.clone();
    let places: Vec<_> = behind.iter().map(|claim| claim.seq).collect();
    let said = |episode: &Episode| episode.messages.iter().map(|message| message.content.len()).sum::<usize>();
    let mut size = said(head);
    let read = tokio::task::spawn_blocking(move || {
        let fits = |episode: &Episode| {
            size += said(episode);
            size <= LARGEST
        };
        places.into_iter().map_while(|seq| queue.read(seq).ok().flatten()).take_while(fits).collect()
    });
    tokio::time::timeout(read::LIMIT, read).await.ok().and_then(Result::ok).unwrap_or_default()
}

async fn send(runner: &Arc<Runner>, claims: &[Claim], deliveries: Vec<Delivery>, purpose: Purpose, began: Instant) {
    let setup = runner.setup();
    let Setup { config, sink } = &setup;
    let limit = config.timeout + MARGIN;
    let answer = tokio::time::timeout(limit, sink.deliver_batch(&deliveries))
        .await
        .unwrap_or_else(|_| Err(BatchError { taken: 0, receipt: Receipt::Delivered, error: attempt::no_answer(limit, true) }));
    let (taken, receipt, error) = match answer {
        Ok(receipt) => (claims.len(), receipt, None),
        Err(BatchError { taken, receipt, error }) => (taken.min(claims.len()), receipt, Some(error)),
    };
    let now = runner.queue.now();
    let (taken, not_taken) = claims.split_at(taken);
    if receipt == Receipt::Accepted {
        for claim in taken {
            runner.queue.accepted(*claim);
        }
    }
    // Before the others are followed, which may take long.
    if let Some(error) = error {
        failed(runner, config, not_taken, error, purpose, began).await;
    }
    let mut taken = taken.iter().zip(deliveries);
    for (claim, delivery) in taken.by_ref() {
        let captured_at = Some(delivery.episode.captured_at);
        let mut work = Work::new(runner.clone(), setup.clone(), *claim, delivery, purpose);
        let ending = match receipt {
            Receipt::Delivered => Ending::Delivered { sent: None, surely: true },
            Receipt::Accepted => work.follow(Sent::Accepted(now), now, false).await,
        };
        let made = Made { claim: *claim, purpose, attempts: work.attempts, captured_at, began };
        if !attempt::record(runner, config, made, ending).await {
            break;
        }
    }
    // Behind one that is not at its end yet: they are looked up after it.
    for (claim, _) in taken {
        runner.queue.finish(*claim, Finish::Hold { sent: Sent::Accepted(now) }, None);
    }
}

/// What was not taken. For the first it means what it would have meant if it had been alone, but that no batch makes a dead letter.
async fn failed(runner: &Runner, config: &config::Sink, claims: &[Claim], error: SinkError, purpose: Purpose, began: Instant) {
    let [first, behind @ ..] = claims else { return };
    let sent = if error.ambiguous { Sent::Began(runner.queue.now()) } else { Sent::No };
    let (outcome, finish) = match attempt::classify(runner, config, &error, sent, purpose, first.attempts, began).await {
        (_, Finish::Dead { .. }) => ("retry", Finish::Retry { delay: 0, sent }),
        other => other,
    };
    let finish_behind = match finish {
        Finish::Retry { sent: Sent::No, .. } if is_the_sinks(error.cause) => Finish::Uncount,
        Finish::Retry { sent, .. } => Finish::Retry { delay: 0, sent },
        other => other,
    };
    let took = began.elapsed();
    let message = format!("in one call with an earlier episode: {}", error.message);
    attempt::close(runner, *first, first.attempts, (outcome, finish), Some(error.clone()), took);
    for claim in behind {
        if finish_behind == Finish::Uncount {
            runner.queue.finish(*claim, finish_behind, None);
        } else {
            let error = SinkError { message: message.clone(), ..error.clone() };
            attempt::close(runner, *claim, claim.attempts, (outcome, finish_behind), Some(error), took);
        }
    }
}

/// Whether it can't be what was sent: nobody was there, or nobody had time.
fn is_the_sinks(cause: Cause) -> bool {
    matches!(cause, Cause::Connect | Cause::Status(429 | 503))
}
