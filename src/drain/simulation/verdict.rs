//! What must be true of a world that has come to its end, whatever happened in it.

use std::time::Duration;

use uuid::Uuid;

use super::service::{Answer, Call, Seen, Service};
use super::world::World;
use crate::queue::{Standing, State};
use crate::sink::Cause;

/// What isn't.
pub fn of(world: &World) -> Vec<String> {
    let mut faults = world.queue.check();
    let ledger = world.queue.stats().ledger;
    let expected = (world.episodes.len() * world.services.len()) as u64;
    if (ledger.gap(), ledger.captured, ledger.delivered + ledger.dead) != (0, expected, expected) {
        faults.push(format!("the ledger: {ledger:?}, and {expected} were appended"));
    }
    for service in &world.services {
        let seen = service.seen.lock().unwrap();
        faults.extend(seen.faults.iter().cloned());
        for id in &world.episodes {
            let view = world.queue.episode(*id).unwrap().expect("it is kept");
            let standing = view.sinks.iter().find(|s| s.sink == service.config.name).expect("it was addressed to it");
            faults.extend(one(world, service, &seen, *id, &view.episode.session, standing));
        }
        faults.extend(in_order(service, &seen));
        faults.extend(left_alone(service, &seen.calls, &seen.resumed));
        faults.extend(paced(service, &seen.calls));
    }
    faults
}

/// One episode at one sink.
fn one(world: &World, service: &Service, seen: &Seen, id: Uuid, session: &str, at: &Standing) -> Vec<String> {
    let (name, config) = (&service.config.name, &service.config);
    let mut faults = Vec::new();
    let copies = seen.stored.iter().filter(|(_, stored, _)| *stored == id).count();
    match (at.state, at.reason.as_deref()) {
        (State::Delivered, _) if copies == 0 => faults.push(format!("{name}: {id} is delivered and not there")),
        (State::Delivered, _) => {}
        (State::Dead, Some("rejected")) if session == "unfit" => {}
        (State::Dead, Some("max_attempts")) if at.attempts == config.retry.max_attempts => {}
        _ => faults.push(format!("{name}: {id} is {:?} for {:?} after {} attempts", at.state, at.reason, at.attempts)),
    }
    if session == "poison" && at.state != State::Dead {
        faults.push(format!("{name}: {id} can't be delivered and is"));
    }
    // One that tells when it is asked gets no second copy.
    if service.follow.is_none() && copies > 1 {
        faults.push(format!("{name}: {id} is there {copies} times"));
    }
    // A count on disk for each sending; a kill can come between the two. What isn't counted certainly had no effect.
    let sent: Vec<&Call> = seen.calls.iter().filter(|c| c.id == id && !c.look).collect();
    let maybe_free = sent.iter().filter(|c| matches!(c.answer, Answer::Failed(Cause::Connect | Cause::Status(401)))).count();
    let (attempts, crashes) = (at.attempts as usize, world.crashes as usize);
    if attempts + maybe_free < sent.len() || attempts > sent.len() + crashes {
        faults.push(format!("{name}: {id} was sent {} times ({maybe_free} may be free) and has {attempts} attempts", sent.len()));
    }
    faults
}

/// In each lane the first copies appear in the order of capture, with increasing times.
fn in_order(service: &Service, seen: &Seen) -> Vec<String> {
    let mut faults = Vec::new();
    for (session, lane) in &seen.lanes {
        let first = |id: &Uuid| seen.stored.iter().filter(|(_, stored, _)| stored == id).min_by_key(|(at, ..)| *at);
        let dead_too: Vec<_> = lane.iter().filter_map(first).collect();
        if !dead_too.is_sorted_by(|a, b| a.2 < b.2) {
            faults.push(format!("{}: the times of {session} do not increase", service.config.name));
        }
        // One that was given up on may appear later than what came after it.
        if service.follow.is_none() && !dead_too.is_sorted_by(|a, b| a.0 <= b.0) {
            faults.push(format!("{}: {session} is out of order", service.config.name));
        }
    }
    faults
}

/// After a wish nothing is sent for that time; after a 401 nothing until the probe.
fn left_alone(service: &Service, calls: &[Call], resumed: &[Duration]) -> Vec<String> {
    let (longest, open_for) = (service.config.retry.max, service.config.breaker.open_for);
    let refused = |c: &Call| c.answer == Answer::Failed(Cause::Status(401));
    let mut faults = Vec::new();
    for call in calls {
        // Of those in a row the first one begins the pause.
        let first = || !calls.iter().any(|c| refused(c) && c.life == call.life && c.ended < call.ended);
        let alone = match call.wish {
            Some(wish) => wish.min(longest),
            None if refused(call) && first() => open_for,
            None => continue,
        };
        let until = call.ended + alone;
        let early = calls
            .iter()
            .find(|c| !c.look && c.life == call.life && c.began > call.ended && c.began + Duration::from_millis(1) < until);
        let lifted = |c: &Call| call.wish.is_none() && resumed.iter().any(|at| (call.ended..=c.began).contains(at));
        if let Some(early) = early.filter(|c| !lifted(c)) {
            faults.push(format!("{}: to be left alone until {until:?} after {call:?}, and gets {early:?}", service.config.name));
        }
    }
    faults
}

/// No more within any time than the rate allows.
fn paced(service: &Service, calls: &[Call]) -> Vec<String> {
    let rate = service.config.rate;
    if rate.per_second <= 0.0 {
        return Vec::new();
    }
    let mut sent: Vec<_> = calls.iter().filter(|c| !c.look).map(|c| (c.life, c.began)).collect();
    sent.sort_unstable();
    for (at, (life, first)) in sent.iter().enumerate() {
        for (n, (_, last)) in sent[at..].iter().enumerate().take_while(|(_, (other, _))| other == life) {
            // A timer may be late by some milliseconds, and makes up for it.
            let over = (last.saturating_sub(*first) + Duration::from_millis(8)).as_secs_f64();
            if f64::from(u32::try_from(n + 1).unwrap()) > f64::from(rate.burst) + rate.per_second * over {
                return vec![format!("{}: {} are sent within {over} s", service.config.name, n + 1)];
            }
        }
    }
    Vec::new()
}
