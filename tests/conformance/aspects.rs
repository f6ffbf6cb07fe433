//! What is asked of each backend.

use offramp::sink::SinkError;
use offramp::sink::probe::{self, Names, Outcome};

use super::*;
use crate::support::relay::Relay;

/// 0001-01-01
const FIRST: i64 = -62_135_596_800_000;

/// 2100-01-01
const FAR: i64 = 4_102_444_800_000;

/// An address where nobody listens for anything but what its answer is to be: `/404` is answered with 404.
async fn statuses() -> String {
    use axum::Router;
    use axum::extract::Path;
    use axum::http::StatusCode;
    use axum::routing::any;
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let answer = |Path((status, _)): Path<(u16, String)>| std::future::ready((StatusCode::from_u16(status).unwrap(), "no"));
    tokio::spawn(async move { axum::serve(listener, Router::new().route("/{status}/{*rest}", any(answer))).await });
    address
}

fn own(backend: &dyn Backend) -> String {
    backend.table(&backend.address().unwrap_or_default())
}

/// What a backend holds of these, in its order.
fn held(backend: &dyn Backend, session: &str, of: &[Delivery]) -> Vec<Held> {
    let is_one = |held: &Held| of.iter().any(|delivery| delivery.episode.id.to_string() == held.id);
    backend.holds(session).into_iter().filter(is_one).collect()
}

fn ids(held: &[Held]) -> Vec<String> {
    held.iter().map(|held| held.id.clone()).collect()
}

fn expected(deliveries: &[Delivery]) -> Vec<String> {
    deliveries.iter().map(|delivery| delivery.episode.id.to_string()).collect()
}

pub fn inv5_a_lane_is_there_in_its_order(backend: &dyn Backend, runtime: &Runtime) {
    let deliveries: Vec<Delivery> = (1..=6).map(|n| delivery("order", n)).collect();
    runtime.block_on(async {
        let (sink, _dir) = open(&own(backend));
        let (alone, together) = deliveries.split_at(3);
        for delivery in alone {
            deliver(&sink, delivery).await;
        }
        if !sink.batches() {
            for delivery in together {
                deliver(&sink, delivery).await;
            }
        } else if sink.deliver_batch(together).await.unwrap() == Receipt::Accepted {
            for delivery in together {
                seen(&sink, delivery).await;
            }
        }
    });
    assert_eq!(ids(&held(backend, "order", &deliveries)), expected(&deliveries));
}

pub fn inv4_what_is_sent_twice_is_there_once_or_is_seen(backend: &dyn Backend, runtime: &Runtime) {
    let twice = [delivery("twice", 1)];
    runtime.block_on(async {
        let (sink, _dir) = open(&own(backend));
        let before = sink.look_up(&twice[0]).await.unwrap();
        assert!(matches!(before, Presence::Absent | Presence::Unknown), "{before:?}");
        deliver(&sink, &twice[0]).await;
        // As a restarted offramp, that remembers nothing of the first.
        let (sink, _dir) = open(&own(backend));
        let looked = sink.look_up(&twice[0]).await.unwrap();
        assert!(looked == Presence::Present || (looked == Presence::Unknown && backend.takes_once()), "{looked:?}");
        if backend.takes_once() {
            deliver(&sink, &twice[0]).await;
        }
    });
    assert_eq!(ids(&held(backend, "twice", &twice)), expected(&twice));
}

pub fn inv4_an_answer_that_never_comes_leaves_a_doubt_that_a_look_settles(backend: &dyn Backend, runtime: &Runtime) {
    let Some(address) = backend.address() else { return };
    let all = [delivery("doubt", 1), delivery("doubt", 2)];
    runtime.block_on(async {
        let relay = Relay::start(address.parse().unwrap(), None).await;
        let (sink, _dir) = open(&format!("{}timeout = \"3s\"\n", backend.table(&relay.address.to_string())));
        deliver(&sink, &all[0]).await;

        relay.swallow(Some(backend.writes()));
        let error = sink.deliver(&all[1]).await.unwrap_err();
        assert_eq!((error.cause, error.ambiguous), (Cause::Timeout, true), "{error}");
        relay.swallow(None);
        // What can't be looked for is sent again, which is no second copy where each is taken once.
        if sink.look_up(&all[1]).await.unwrap() == Presence::Unknown {
            assert!(backend.takes_once());
            deliver(&sink, &all[1]).await;
        } else {
            seen(&sink, &all[1]).await;
        }

        // Nobody listens: nothing can have arrived.
        let nobody = relay.address;
        relay.stop().await;
        let (sink, _dir) = open(&backend.table(&nobody.to_string()));
        let error = sink.deliver(&all[1]).await.unwrap_err();
        assert_eq!((error.cause, error.ambiguous), (Cause::Connect, false), "{error}");
    });
    assert_eq!(ids(&held(backend, "doubt", &all)), expected(&all));
}

pub fn a_refusal_says_whose_fault_it_is(backend: &dyn Backend, runtime: &Runtime) {
    let refused = delivery("refused", 1);
    let statuses = runtime.block_on(statuses());
    for (table, cause) in backend.refusals(&statuses) {
        let (sink, _dir) = open(&table);
        let error: SinkError = runtime.block_on(sink.deliver(&refused)).unwrap_err();
        assert_eq!(error.cause, cause, "{table}: {error}");
        // A disk may have it all the same.
        assert_eq!(error.ambiguous, cause == Cause::Local, "{table}: {error}");
        assert!(!error.message.contains(PASSWORD), "{error}");
    }
    assert_eq!(held(backend, "refused", &[refused]), []);
}

pub fn inv4_texts_come_back_as_they_were(backend: &dyn Backend, runtime: &Runtime) {
    let (count, longest) = backend.texts();
    let deliveries = texts::hostile("texts", count, longest);
    runtime.block_on(async {
        let (sink, _dir) = open(&own(backend));
        let (alone, together) = deliveries.split_at(if sink.batches() { 10 } else { deliveries.len() });
        for delivery in alone {
            deliver(&sink, delivery).await;
        }
        for batch in together.chunks(40) {
            if sink.deliver_batch(batch).await.unwrap() == Receipt::Accepted {
                for delivery in batch {
                    seen(&sink, delivery).await;
                }
            }
        }
    });
    let found = held(backend, "texts", &deliveries);
    assert_eq!(ids(&found), expected(&deliveries));
    for (held, delivery) in found.iter().zip(&deliveries) {
        if let Some(text) = &held.content {
            assert_eq!(*text, backend.told(&content(delivery)));
        }
        if let Some((user, metadata)) = &held.more {
            let episode = &delivery.episode;
            let user_said = episode.user.clone().unwrap_or_default();
            assert_eq!((user, metadata), (&backend.told(&user_said), &backend.told(&episode.metadata)));
        }
    }
}

pub fn times_come_back_as_they_were(backend: &dyn Backend, runtime: &Runtime) {
    // Long before the first clock that counts from 1970, shortly before it, now, far ahead, and what no calendar has.
    let times = [FIRST, -14_182_940_000, -1, 0, offramp::clock::now_ms().cast_signed(), FAR, i64::MAX];
    let times = times.into_iter().filter(|at| *at <= backend.latest());
    let deliveries: Vec<Delivery> = (1..)
        .zip(times)
        .map(|(n, at)| {
            let mut delivery = delivery("times", n);
            delivery.at = at;
            // What lies ahead can only come from a clock, and not from what somebody tells.
            Arc::make_mut(&mut delivery.episode).occurred_at = Some(at).filter(|at| *at <= 0);
            delivery
        })
        .collect();
    runtime.block_on(async {
        let (sink, _dir) = open(&own(backend));
        for delivery in &deliveries {
            deliver(&sink, delivery).await;
        }
    });
    let found = held(backend, "times", &deliveries);
    assert_eq!(ids(&found), expected(&deliveries));
    for (held, delivery) in found.iter().zip(&deliveries) {
        if let Some(at) = &held.at {
            // What no calendar has is shown as it was sent.
            assert_eq!((at, offramp::clock::parse_event(at).unwrap_or(i64::MAX)), (&delivery.timestamp(), delivery.at));
        }
    }
}

pub fn a_probe_is_there_and_says_what_it_is(backend: &dyn Backend, runtime: &Runtime) {
    let (config, _dir) = configured(&own(backend));
    let report = runtime.block_on(probe::test(&config, &Names::default(), LIMIT));
    assert!(report.ok, "{report:#?}");
    assert!(report.steps.iter().all(|step| step.advice.is_none()), "{report:#?}");
    let Some(id) = report.episode else {
        assert!(
            report.steps.iter().any(|step| step.result == Outcome::Skipped && step.says.contains("it would repeat a request"))
        );
        return;
    };
    let found: Vec<Held> = backend.holds(probe::NAME).into_iter().filter(|held| held.id == id.to_string()).collect();
    assert_eq!(found.len(), 1, "{report:#?}");
    if let Some(text) = &found[0].content {
        assert!(text.contains("`offramp sink test sink`") && text.contains("it can be removed"), "{text}");
    }
}

/// A time that is none is refused, and one in the future is taken. Whether Graphiti's read shows that before its time depends on its database.
pub fn a_time_that_is_none_or_in_the_future_does_graphiti_no_harm(backend: &dyn Backend, runtime: &Runtime, refusal: u16) {
    let [mut never, mut later, now] = [delivery("later", 1), delivery("later", 2), delivery("later", 3)];
    (never.at, later.at) = (i64::MAX, FAR);
    runtime.block_on(async {
        let (sink, _dir) = open(&own(backend));
        let error = sink.deliver(&never).await.unwrap_err();
        assert_eq!((error.cause, error.ambiguous), (Cause::Status(refusal), false), "{error}");
        assert_eq!(sink.deliver(&later).await.unwrap(), Receipt::Accepted);
        // Its worker takes one after the other: once this one is there, the one before it is.
        deliver(&sink, &now).await;
    });
    let times: Vec<_> = backend.holds("later").into_iter().map(|held| (held.id, held.at.unwrap())).collect();
    let expected = [now, later].map(|delivery| (delivery.episode.id.to_string(), delivery.timestamp()));
    assert_eq!(times, expected, "in the order of their times");
}
