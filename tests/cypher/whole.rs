//! From a request to the graph, with the real binary and a line to the database that breaks in between.

use std::time::Duration;

use serde_json::Value;
use serde_json::json;

use super::{PASSWORD, table};
use crate::support::databases::Database;
use crate::support::offramp::Offramp;
use crate::support::relay::Relay;
use crate::support::world::{World, exchange};

const LIMIT: Duration = Duration::from_secs(60);

#[test]
fn inv4_inv5_conversations_are_in_the_graph_once_and_in_order_whatever_the_line_did() {
    for database in Database::ALL {
        let _running = database.start();
        let world = World::new();
        std::fs::write(world.dir().join("password"), PASSWORD).unwrap();
        let relay = world.runtime().block_on(Relay::start(database.address(), None));
        let sink = table(
            database,
            relay.address,
            "whole",
            "timeout = \"1s\"\nretry = { max_attempts = 20, initial = '50ms', max = '500ms', jitter = 'full', max_age = '1h' }\n\
             breaker = { consecutive_failures = 5, open_for = '1s' }",
        );
        let config = format!(
            "[[proxy]]\nname = 'agent'\nlisten = '127.0.0.1:0'\nupstream = 'http://{}'\n\
             [[proxy.route]]\nname = 'run'\nmethod = 'POST'\npath = '/api/v1/agent/{{agent}}/run'\npreset = 'automagik'\n\
             [queue]\npath = 'queue'\nmin_free_disk = '1MiB'\n{sink}[admin]\nlisten = '127.0.0.1:0'\n[log]\nformat = 'json'\n",
            world.agent.address()
        );
        let mut offramp = Offramp::start(world.dir(), &config);
        let converse = |offramp: &Offramp, from: usize, to: usize| {
            for n in from..to {
                for session in ["it's", "😀"] {
                    assert_eq!(exchange(offramp, session, &format!("text {n}")).status, 200);
                }
            }
        };
        converse(&offramp, 0, 5);
        offramp.wait_for_delivery(10, LIMIT);
        // What is written from now on arrives, and nobody hears of it.
        relay.swallow(Some(b"HAS_EPISODE"));
        converse(&offramp, 5, 10);
        offramp
            .wait_for_status("attempts failed", LIMIT, |status| status["sinks"][0]["failed_attempts_total"].as_u64() > Some(1));
        offramp.kill();
        relay.swallow(None);
        let mut offramp = Offramp::start(world.dir(), &config);
        converse(&offramp, 10, 12);
        let status = offramp.wait_for_delivery(24, LIMIT);
        assert_eq!(status["ledger"]["dead"], 0);

        let chain = "MATCH (s:Session)-[:HAS_EPISODE]->(e:Episode) OPTIONAL MATCH (e)-[:NEXT]->(n:Episode) \
                     RETURN s.id, e.id, n.id, e.content ORDER BY s.id, e.id";
        let rows = database.ask("whole", &[chain]).remove(0);
        assert_eq!(rows.len(), 24, "{database:?}: each once, and linked to one other at most");
        for (n, row) in rows.iter().enumerate() {
            let number = n % 12;
            let next = if number == 11 { Value::Null } else { rows[n + 1][1].clone() };
            // The agent gives each session a name of its own.
            let want = json!([rows[n - number][0], row[1], next]);
            assert_eq!(json!(row[..3]), want, "{database:?}");
            assert!(row[3].as_str().unwrap().contains(&format!("text {number}\n")), "{row:?}");
        }
        assert!(offramp.stop().success());
    }
}
