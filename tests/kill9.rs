//! Crashes: SIGKILL at a random moment of the load or of the drain, a restart, and the drain to empty.
//!
//! `OFFRAMP_KILLS` is the number of rounds: 3 by default, and `OFFRAMP_KILLS=20 cargo test --release kill9` for the long run (a minute and
//! a half). Each prints its seed, and `OFFRAMP_SEED` makes it the first one's again: the moment of the kill, as far as it can be had twice.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use offramp::config;
use offramp::demo::client::Client;
use offramp::demo::graph::{Mode, Options};
use offramp::demo::load::{Conversation, Mark};
use offramp::queue::Queue;
use offramp::telemetry::metrics::Metrics;
use tokio::net::TcpStream;

use crate::support::wait_until;
use crate::support::world::{LIMIT, World, lasting_port};

const SESSIONS: u64 = 30;
const MESSAGES: u64 = 10;
const REQUESTS: u64 = SESSIONS * MESSAGES;

#[test]
fn inv2_inv4_inv5_inv8_after_kill_9_everything_answered_is_there_once_and_in_order() {
    let number = |name: &str| std::env::var(name).ok().map(|text| text.parse::<u64>().unwrap());
    let mut given = number("OFFRAMP_SEED");
    for _ in 0..number("OFFRAMP_KILLS").unwrap_or(3) {
        kill(given.take().unwrap_or_else(|| fastrand::u64(..)));
    }
}

fn kill(seed: u64) {
    // Counted in answers and written episodes, so that the moment is spread over the load and the drain alike on any machine.
    let moment = fastrand::Rng::with_seed(seed).u64(1..2 * REQUESTS - 1);
    eprintln!("OFFRAMP_SEED={seed}: killed after {moment} of {} answers and writes", 2 * REQUESTS);

    let graph = Options { write_delay: Duration::from_millis(300), mode: Mode::Parallel(30) };
    let world = World::with(Duration::from_millis(100), graph);
    let port = lasting_port();
    let settings = world
        .settings()
        .set("proxy.listen", &format!("'127.0.0.1:{port}'"))
        // The promise holds for a last byte that waited for its commit, and a noisy disk must not make an exception here.
        .set("queue.commit_wait", "'30s'")
        .set("sink.workers", "30")
        .set("sink.timeout", "'5s'")
        .set("sink.confirm", "{ mode = 'read_back', timeout = '20s', poll = '50ms' }");
    let offramp = world.start(&settings);

    let target = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
    let ended = Arc::new(AtomicU64::new(0));
    let clients: Vec<_> =
        (0..SESSIONS).map(|session| world.runtime().spawn(talk(target, format!("kill-{session}"), Arc::clone(&ended)))).collect();
    let progress = || ended.load(Ordering::Relaxed) + world.graph.stored().len() as u64;
    assert!(wait_until(LIMIT, || progress() >= moment), "after {} of {moment}", progress());
    offramp.kill();

    let mut offramp = world.start(&settings);
    let conversations: Vec<Conversation> = clients.into_iter().map(|client| world.runtime().block_on(client).unwrap()).collect();
    let status = offramp.wait_for_status("drained", LIMIT, |status| status["ledger"]["pending"] == 0);
    assert_eq!(status["ledger"]["gap"], 0);
    world.assert_graph_holds(&conversations, &status);
    assert!(offramp.stop().success());
    assert_eq!(faults(&world.dir().join("queue")), Vec::<String>::new());
}

/// Holds one conversation to its end, whatever happens: what fails is noted, and the next message waits until somebody listens again.
async fn talk(target: SocketAddr, session: String, ended: Arc<AtomicU64>) -> Conversation {
    let mut client = Client::new(target, LIMIT);
    let mut conversation = Conversation { name: session, ..Conversation::default() };
    for number in 1..=MESSAGES {
        if let Ok(reply) = client.ask(&Mark { session: conversation.name.clone(), number }).await {
            conversation.id = Some(reply.session_id);
            conversation.answered.push(number);
        } else {
            conversation.failed.push(number);
            while TcpStream::connect(target).await.is_err() {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        }
        ended.fetch_add(1, Ordering::Relaxed);
    }
    conversation
}

/// What the check of a queue that nobody uses finds.
fn faults(path: &Path) -> Vec<String> {
    let config = config::Queue {
        path: path.to_owned(),
        durability: config::Durability::Sync,
        commit_wait: Duration::from_secs(1),
        max_episodes: 1_000_000,
        max_bytes: 1 << 30,
        min_free_disk: 0,
        on_full: config::OnFull::Pass,
        keep_delivered: Duration::from_secs(3600),
        keep_dead: Duration::from_secs(3600),
        encryption_keys: Vec::new(),
    };
    Queue::open(&config, &[], &Metrics::new()).unwrap().check()
}
