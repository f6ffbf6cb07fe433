//! The sinks that write Cypher, before the real databases: `ArcadeDB` over Bolt, `FalkorDB` over RESP. What they have written is read by
//! their vendors' own clients.

mod whole;

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;

use offramp::config::{self, Input};
use offramp::episode::{Digests, End, Episode, Message, Request};
use offramp::sink::{self, Cause, Delivery, Presence, Receipt, Sink};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::runtime::Runtime;
use uuid::Uuid;

use crate::support::certificates::certificates;
use crate::support::databases::{Database, PASSWORD};
use crate::support::relay::Relay;

/// What makes a sink of a test: its table in the configuration.
fn table(database: Database, address: SocketAddr, graph: &str, keys: &str) -> String {
    let port = address.port();
    match database {
        Database::ArcadeDb => format!(
            "[[sink]]\nname = \"graph\"\ntype = \"neo4j\"\nurl = \"bolt://127.0.0.1:{port}\"\nuser = \"root\"\n\
             password_file = \"password\"\ndatabase = \"{graph}\"\n{keys}\n"
        ),
        Database::FalkorDb => format!(
            "[[sink]]\nname = \"graph\"\ntype = \"falkordb\"\nurl = \"redis://127.0.0.1:{port}\"\npassword_file = \"password\"\n\
             graph = \"{graph}\"\n{keys}\n"
        ),
    }
}

/// A sink as a configuration makes it, and the directory where that lies.
fn open_table(table: &str, change: impl FnOnce(&Path)) -> (Arc<dyn Sink>, TempDir) {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("password"), PASSWORD).unwrap();
    change(dir.path());
    let proxy = "[[proxy]]\nname = \"p\"\nlisten = \"127.0.0.1:1\"\nupstream = \"http://127.0.0.1:2\"\n";
    let config = config::read(&format!("{proxy}{table}"), &dir.path().join("config.toml"), &Input::default()).unwrap();
    (sink::open(&config.sinks[0]).unwrap(), dir)
}

fn open(database: Database, address: SocketAddr, graph: &str, keys: &str) -> (Arc<dyn Sink>, TempDir) {
    open_table(&table(database, address, graph, keys), |_| {})
}

/// The n-th episode of a session, captured in the n-th millisecond.
fn episode(session: &str, n: u64) -> Delivery {
    let bytes = [session.as_bytes(), &[0; 10]].concat();
    let mut random = [0; 10];
    random.copy_from_slice(&bytes[..10]);
    let episode = Episode {
        id: uuid::Builder::from_unix_timestamp_millis(n, &random).into_uuid(),
        session: session.to_owned(),
        group: None,
        user: None,
        agent: Some("sample".to_owned()),
        proxy: "agent".to_owned(),
        route: "run".to_owned(),
        captured_at: n,
        completed_at: n + 1,
        end: End::Complete,
        messages: vec![Message::new("user", format!("question {n}")), Message::new("assistant", format!("answer {n}"))],
        metadata: json!({ "channel": "test", "nested": { "a b": [1, null, 1.5] } }).to_string(),
        request: Request { method: "POST".to_owned(), path: "/run".to_owned(), status: 200, traceparent: None },
        occurred_at: None,
        sha256: Digests::default(),
        original: None,
    };
    Delivery { episode: Arc::new(episode), at: n.cast_signed() }
}

/// The session is there, with these episodes and no others, each linked to the next one.
fn assert_chain(database: Database, graph: &str, session: &str, numbers: impl IntoIterator<Item = u64>) {
    let mut ids: Vec<Uuid> = numbers.into_iter().map(|n| episode(session, n).episode.id).collect();
    ids.sort_unstable();
    let of = format!("MATCH (s:Session {{id: '{session}'}})-[:HAS_EPISODE]->(e:Episode)");
    let answers = database.ask(
        graph,
        &[
            &format!("{of} RETURN e.id ORDER BY e.id"),
            &format!("{of} MATCH (e)-[:NEXT]->(n:Episode) RETURN e.id, n.id ORDER BY e.id"),
            &format!("MATCH (s:Session {{id: '{session}'}}) RETURN count(s)"),
        ],
    );
    let episodes: Vec<Vec<Value>> = ids.iter().map(|id| vec![json!(id)]).collect();
    let links: Vec<Vec<Value>> = ids.windows(2).map(|pair| vec![json!(pair[0]), json!(pair[1])]).collect();
    assert_eq!(answers, [episodes, links, vec![vec![json!(1)]]], "{database:?} {session}");
}

fn runtime() -> Runtime {
    tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap()
}

async fn deliver(sink: &Arc<dyn Sink>, delivery: &Delivery) {
    assert_eq!(sink.deliver(delivery).await.unwrap(), Receipt::Delivered);
}

#[test]
fn inv4_what_is_sent_twice_is_there_once_and_what_comes_late_is_put_where_it_belongs() {
    for database in Database::ALL {
        let _running = database.start();
        let (sink, _dir) = open(database, database.address(), "once", "");
        runtime().block_on(async {
            for (session, order) in [("a", &[1_u64, 1][..]), ("b", &[1, 2, 3]), ("c", &[1, 3, 2, 3]), ("d", &[5, 4, 3, 2, 1])] {
                assert_eq!(sink.look_up(&episode(session, 1)).await.unwrap(), Presence::Absent);
                for n in order {
                    deliver(&sink, &episode(session, *n)).await;
                }
                assert_eq!(sink.look_up(&episode(session, 1)).await.unwrap(), Presence::Present);
            }
        });
        for (session, numbers) in [("a", 1..=1), ("b", 1..=3), ("c", 1..=3), ("d", 1..=5)] {
            assert_chain(database, "once", session, numbers);
        }
        let fields = "e.content, e.at, e.time, e.agent, e.proxy, e.route, e.user, e.group, e.metadata";
        let id = episode("a", 1).episode.id;
        let rows = database.ask("once", &[&format!("MATCH (e:Episode {{id: '{id}'}}) RETURN {fields}")]).remove(0);
        let metadata = episode("a", 1).episode.metadata.clone();
        let written = json!([[
            "user: question 1\nassistant: answer 1",
            1,
            "1970-01-01T00:00:00.001Z",
            "sample",
            "agent",
            "run",
            null,
            "a",
            metadata
        ]]);
        assert_eq!(json!(rows), written, "{database:?}");
    }
}

#[test]
fn several_in_one_call_are_linked_as_if_each_had_come_alone() {
    for database in Database::ALL {
        let _running = database.start();
        let (sink, _dir) = open(database, database.address(), "many", "");
        assert!(sink.batches());
        let batch = |session: &str, numbers: &[u64]| numbers.iter().map(|n| episode(session, *n)).collect::<Vec<_>>();
        runtime().block_on(async {
            for (session, batches) in
                [("a", &[&[1_u64, 2, 3][..], &[4, 5]][..]), ("b", &[&[1, 5], &[2, 3, 4]]), ("c", &[&[1, 2, 3], &[2, 3, 4, 5]])]
            {
                for numbers in batches {
                    assert_eq!(sink.deliver_batch(&batch(session, numbers)).await.unwrap(), Receipt::Delivered);
                }
            }
            // Two sessions of one lane.
            let both = [batch("e", &[1]), batch("f", &[1]), batch("e", &[2]), batch("f", &[2])].concat();
            sink.deliver_batch(&both).await.unwrap();
        });
        for (session, last) in [("a", 5), ("b", 5), ("c", 5), ("e", 2), ("f", 2)] {
            assert_chain(database, "many", session, 1..=last);
        }
    }
}

#[test]
fn inv6_lanes_that_write_at_the_same_time_hinder_nobody_for_good() {
    for database in Database::ALL {
        let _running = database.start();
        let (sink, _dir) = open(database, database.address(), "crowd", "");
        let sessions: Vec<String> = (0..6).map(|n| format!("s{n}")).collect();
        runtime().block_on(async {
            let lanes = sessions.iter().map(|session| {
                let sink = sink.clone();
                let session = session.clone();
                tokio::spawn(async move {
                    for n in 1..=8 {
                        // As the drain does: what is worth another attempt gets one.
                        while let Err(error) = sink.deliver(&episode(&session, n)).await {
                            assert_eq!(error.cause, Cause::Status(503), "{error}");
                        }
                    }
                })
            });
            for lane in lanes.collect::<Vec<_>>() {
                lane.await.unwrap();
            }
        });
        for session in &sessions {
            assert_chain(database, "crowd", session, 1..=8);
        }
    }
}

#[test]
fn a_statement_of_ones_own_is_given_every_field() {
    let statement = "MERGE (m:Memory {id: $id}) SET m.channel = $metadata.channel, m.first = $messages[0].content, m.at = $at, m.nobody = $user";
    for database in Database::ALL {
        let _running = database.start();
        let (sink, _dir) = open(database, database.address(), "own", &format!("statement = '{statement}'"));
        assert!(!sink.batches());
        runtime().block_on(async {
            deliver(&sink, &episode("a", 1)).await;
            deliver(&sink, &episode("a", 1)).await;
            // It may write anywhere, so nobody knows.
            assert_eq!(sink.look_up(&episode("a", 1)).await.unwrap(), Presence::Unknown);
        });
        let rows = database.ask("own", &["MATCH (m:Memory) RETURN m.channel, m.first, m.at, m.nobody"]).remove(0);
        assert_eq!(json!(rows), json!([["test", "question 1", 1, null]]), "{database:?}");
    }
}

#[test]
fn tls_is_made_with_whom_the_authority_vouches_for_and_with_nobody_else() {
    for database in Database::ALL {
        let _running = database.start();
        let certified = tempfile::tempdir().unwrap();
        certificates(certified.path(), &["server"]);
        let stranger = tempfile::tempdir().unwrap();
        certificates(stranger.path(), &["server"]);
        runtime().block_on(async {
            let relay = Relay::start(database.address(), Some((certified.path(), "server"))).await;
            let port = relay.address.port();
            let with = |scheme: &str, ca: Option<&Path>| {
                let ca_file = ca.map_or_else(String::new, |ca| format!("ca_file = {:?}", ca.join("ca.pem")));
                let plain = table(database, relay.address, "ways", &ca_file);
                let url = plain.lines().find(|line| line.starts_with("url")).unwrap();
                open_table(&plain.replace(url, &format!("url = \"{scheme}://localhost:{port}\"")), |_| {})
            };
            let secure = if database == Database::ArcadeDb { "bolt+s" } else { "rediss" };
            let (sink, _dir) = with(secure, Some(certified.path()));
            deliver(&sink, &episode("tls", 1)).await;
            let (sink, _dir) = with(secure, Some(stranger.path()));
            let error = sink.deliver(&episode("tls", 2)).await.unwrap_err();
            assert_eq!((error.cause, error.ambiguous), (Cause::Connect, false), "{database:?}: {error}");
            if database == Database::ArcadeDb {
                let (sink, _dir) = with("bolt+ssc", None);
                deliver(&sink, &episode("tls", 3)).await;
            }
        });
    }
}

#[test]
fn a_connection_that_died_while_it_was_idle_is_found_dead_before_anything_is_sent() {
    for database in Database::ALL {
        let _running = database.start();
        runtime().block_on(async {
            let relay = Relay::start(database.address(), None).await;
            let (sink, _dir) = open(database, relay.address, "ways", "");
            deliver(&sink, &episode("cut", 1)).await;
            relay.cut();
            deliver(&sink, &episode("cut", 2)).await;
        });
        assert_chain(database, "ways", "cut", 1..=2);
    }
}

#[test]
fn bolt_is_spoken_as_old_servers_do_and_with_the_leader_of_a_cluster() {
    let _running = Database::ALL.map(Database::start);
    runtime().block_on(async {
        let relay = Relay::start(Database::ArcadeDb.address(), None).await;
        relay.pretend_old();
        let (sink, _dir) = open(Database::ArcadeDb, relay.address, "ways", "");
        deliver(&sink, &episode("old", 1)).await;

        // The table of this one tells its own address.
        let routed = table(Database::ArcadeDb, Database::ArcadeDb.address(), "ways", "").replace("bolt://", "neo4j://");
        let (sink, _dir) = open_table(&routed, |_| {});
        deliver(&sink, &episode("routed", 1)).await;

        // Another service at that port.
        let (sink, _dir) = open(Database::ArcadeDb, Database::FalkorDb.address(), "ways", "timeout = \"2s\"");
        let error = sink.deliver(&episode("old", 2)).await.unwrap_err();
        assert!(!error.ambiguous && matches!(error.cause, Cause::Connect | Cause::Timeout), "{error}");
    });
    assert_chain(Database::ArcadeDb, "ways", "old", 1..=1);
    assert_chain(Database::ArcadeDb, "ways", "routed", 1..=1);
}
