//! Crashes: SIGKILL at a random moment while a hundred clients talk and the drain runs, a restart in the same directory, and so on.
//!
//! `OFFRAMP_KILLS` is the number of kills: 4 by default, and `OFFRAMP_KILLS=200 cargo test --release kill9` for the long run. Each run
//! prints its seed, and `OFFRAMP_SEED` makes it that one's again: the moments of the kills, as far as they can be had twice.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use offramp::demo::client::Client;
use offramp::demo::graph::{Mode, Options};
use offramp::demo::load::{Conversation, Mark};
use tokio::net::TcpStream;

use crate::support::world::{LIMIT, World, faults, lasting_port};
use crate::support::{number, wait_until};

const CLIENTS: u64 = 100;

/// Of each conversation. So many that no conversation fails altogether.
const MESSAGES: u64 = 20;

/// A kill comes after this many answers of one life, at most.
const ANSWERS: u64 = 200;

/// What the clients share.
#[derive(Default)]
struct Talk {
    answered: AtomicU64,
    is_over: AtomicBool,
}

#[test]
fn inv2_inv4_inv5_inv8_after_each_kill_9_everything_answered_is_there_once_and_in_order() {
    let kills = number("OFFRAMP_KILLS").unwrap_or(4);
    let seed = number("OFFRAMP_SEED").unwrap_or_else(|| fastrand::u64(..));
    eprintln!("OFFRAMP_SEED={seed}");
    let mut rng = fastrand::Rng::with_seed(seed);

    let graph = Options { write_delay: Duration::from_millis(100), mode: Mode::Parallel(100) };
    let world = World::with(Duration::from_millis(100), graph);
    let port = lasting_port();
    let settings = world
        .settings()
        .set("proxy.listen", &format!("'127.0.0.1:{port}'"))
        .set("sink.workers", "100")
        .set("sink.timeout", "'5s'")
        .set("sink.confirm", "{ mode = 'read_back', timeout = '20s', poll = '50ms' }");
    let mut offramp = world.start(&settings);

    let target = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
    let talk = Arc::new(Talk::default());
    let clients: Vec<_> = (0..CLIENTS).map(|client| world.runtime().spawn(converse(target, client, Arc::clone(&talk)))).collect();
    let mut in_flight = 0;
    for kill in 1..=kills {
        let moment = talk.answered.load(Ordering::Relaxed) + rng.u64(0..=ANSWERS);
        assert!(wait_until(LIMIT, || talk.answered.load(Ordering::Relaxed) >= moment), "no answers after {kill} starts");
        in_flight += offramp.status()["queue"]["in_flight"].as_u64().unwrap();
        offramp.kill();
        let answered = talk.answered.load(Ordering::Relaxed);

        offramp = world.start(&settings);
        let status = offramp.status();
        assert_eq!(status["ledger"]["gap"], 0, "after kill {kill}: {status:#}");
        assert_eq!(offramp.metric("offramp_ledger_gap", &[]), Some(0.0));
        assert!(
            status["ledger"]["captured"].as_u64() >= Some(answered),
            "{answered} were answered before kill {kill}: {status:#}"
        );
    }
    assert!(in_flight > 0 || kills == 0, "no attempt was under way at any kill");

    talk.is_over.store(true, Ordering::Relaxed);
    let conversations: Vec<Conversation> =
        clients.into_iter().flat_map(|client| world.runtime().block_on(client).unwrap()).collect();
    let limit = LIMIT + Duration::from_secs(2 * kills); // while clients talk, the drain may fall behind
    let status = offramp.wait_for_status("drained", limit, |status| status["ledger"]["pending"] == 0);
    assert_eq!(status["ledger"]["gap"], 0);
    world.assert_graph_holds(&conversations, &status);
    world.assert_sent_once();
    assert!(offramp.stop().success());
    assert_eq!(faults(&world.dir().join("queue")), Vec::<String>::new());
}

/// Holds one conversation after the other, whatever happens: what fails is noted, and the next message waits until somebody listens again.
async fn converse(target: SocketAddr, client: u64, talk: Arc<Talk>) -> Vec<Conversation> {
    let mut asker = Client::new(target, LIMIT);
    let mut conversations = Vec::new();
    while !talk.is_over.load(Ordering::Relaxed) {
        let name = format!("kill-{client}-{}", conversations.len());
        let mut conversation = Conversation { name, ..Conversation::default() };
        for number in 1..=MESSAGES {
            if let Ok(reply) = asker.ask(&Mark { session: conversation.name.clone(), number }).await {
                talk.answered.fetch_add(1, Ordering::Relaxed);
                conversation.id = Some(reply.session_id);
                conversation.answered.push(number);
            } else {
                conversation.failed.push(number);
                while TcpStream::connect(target).await.is_err() {
                    tokio::time::sleep(Duration::from_millis(10)).await;
                }
            }
        }
        conversations.push(conversation);
    }
    conversations
}
