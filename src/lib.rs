//! offramp takes slow knowledge-graph writes off the request path of an AI agent service.
//!
//! # One episode's way through the house
//! ```text
//! client ─► server ─► stack ─► proxy::forward ─► upstream agent
//!                                 │ tee: frames are counted references, never copies
//!                                 ▼
//!         end of response ─► capture (match, reassemble, extract, redact) ─► Episode
//!                                 ▼
//!                      queue::commit  one writer, group commit, stable storage
//!                                 │ then, and not before, the response's last byte leaves
//!                                 ▼
//!                      drain  lanes ready by time; one attempt in flight per lane; workers per sink
//!                                 ▼
//!                      sink::deliver ─► confirmed? ─► receipt │ retry later │ dead letter
//! ```
//! The way is one-directional. Nothing downstream of the queue can slow, fail or even see a request; nothing upstream of
//! it knows what a sink is. The queue knows lanes and bytes, not HTTP and not Graphiti. Imports run downwards only:
//! `cli → run → {server, drain, admin} → {capture, sink} → queue → episode`; `config`, `clock` and `telemetry` are leaves that
//! everyone may read.
//!
//! # Invariants
//! Tests carry these numbers in their names (`inv2_…`).
//! 1. **Transparent.** What offramp doesn't understand it doesn't touch; the exceptions are hop-by-hop headers and `X-Forwarded-*`.
//! 2. **Durable before done.** A client that has the complete response has its episode on stable storage. The barrier holds
//!    only the last frame, and only for `commit_wait`.
//! 3. **Fail open.** No fault of queue, extraction or sink fails, truncates or delays (beyond `commit_wait`) a proxied request,
//!    unless the configuration asks for it.
//! 4. **At least once, and once in effect.** Every attempt carries the same id; where a sink can be asked, offramp asks before
//!    it sends again after an ambiguous end.
//! 5. **In order.** A lane's order is that in which its requests arrived. The attempt for n+1 starts only after n is delivered, dead
//!    or purged. A redriven episode goes back to its original place.
//! 6. **No poison.** What fails blocks nobody else. The attempt count is on disk before the attempt, so what kills the process
//!    still dies at `max_attempts`.
//! 7. **Delivered means it is there.** A 202 from a service that keeps work in memory is no delivery. `delivered` is what was
//!    read back.
//! 8. **Nothing vanishes.** The ledger balances at every instant and after every crash. What can't be read is quarantined and
//!    reported; deleted is only what was delivered, what an operator purged, or what expired by configuration.
//! 9. **Bounded.** Memory is flat in the length of the backlog; every buffer has a limit.
//! 10. **Quiet with secrets.** Credentials are in no record, log or metric that offramp writes. Admin is loopback or authenticated.

pub mod admin;
pub mod breaker;
pub mod capture;
pub mod cli;
pub mod clock;
pub mod config;
pub mod demo;
pub mod drain;
pub mod episode;
pub mod proxy;
pub mod queue;
pub mod run;
pub mod server;
pub mod sink;
pub mod socket;
pub mod stack;
pub mod systemd;
pub mod telemetry;
pub mod tls;
