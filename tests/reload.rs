//! SIGHUP: another configuration for an offramp that is at work.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use offramp::demo::graph::{Mode, Options};
use serde_json::{Value, json};

use crate::support::http;
use crate::support::offramp::{Offramp, configure};
use crate::support::wait_until;
use crate::support::world::{LIMIT, World, exchange};

const IN_FORCE: &str = "the configuration was read again, and is in force";

/// A second sink, and a route to it alone.
const NOTES: &str = "[[sink]]\nname = 'notes'\ntype = 'file'\npath = 'notes.jsonl'\n";
const NOTES_ROUTE: &str =
    "[[proxy.route]]\nname = 'note'\npath = '/api/v1/agent/other/run'\npreset = 'automagik'\nsinks = ['notes']\n";

/// Has it read this configuration; waits until it is in force.
fn reload(offramp: &Offramp, world: &World, text: &str) {
    let before = offramp.log().matches(IN_FORCE).count();
    configure(world.dir(), text);
    offramp.signal("HUP");
    let in_force = || offramp.log().matches(IN_FORCE).count() > before;
    assert!(wait_until(LIMIT, in_force), "{}", offramp.log());
}

/// One request on a connection that stays.
fn asked_on(connection: &mut TcpStream) {
    connection.write_all(b"HEAD /nothing HTTP/1.1\r\nhost: a\r\n\r\n").unwrap();
    let mut answer = Vec::new();
    while !answer.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        connection.read_exact(&mut byte).expect("the connection was closed");
        answer.push(byte[0]);
    }
    assert!(answer.starts_with(b"HTTP/1.1 404"), "{}", String::from_utf8_lossy(&answer));
}

fn note(offramp: &Offramp) -> u16 {
    let question = json!({ "message_content": "hi", "session_name": "s", "user_id": "u" });
    let path = "/api/v1/agent/other/run";
    http::request(offramp.proxy("agent"), "POST", path, Some(&question)).unwrap().status
}

fn sink<'a>(status: &'a Value, name: &str) -> Option<&'a Value> {
    status["sinks"].as_array().unwrap().iter().find(|sink| sink["name"] == name)
}

#[test]
fn inv1_inv5_inv8_under_load_sinks_routes_and_limits_change_and_nothing_is_dropped() {
    const REQUESTS: u64 = 900;
    const LATER: u64 = 40;
    let graph = Options { write_delay: Duration::from_millis(5), mode: Mode::Parallel(20) };
    let world = World::with(Duration::from_millis(50), graph);
    let settings = world
        .settings()
        // A connection that stays is one that may rest for as long as the rest of this takes.
        .set("proxy.header_read_timeout", "'10m'")
        .set("route.path", "'/api/v1/agent/sample/run'")
        .set("route.sinks", "['graphiti']")
        .set("sink.workers", "2")
        .set("sink.confirm", "{ mode = 'read_back', timeout = '20s', poll = '20ms' }");
    let with_notes = |settings: &crate::support::world::Settings| {
        settings.text().replacen("[queue]", &format!("{NOTES_ROUTE}[queue]"), 1) + NOTES
    };
    let mut offramp = world.start(&settings);
    let mut connection = TcpStream::connect(offramp.proxy("agent")).unwrap();
    connection.set_read_timeout(Some(LIMIT)).unwrap();
    asked_on(&mut connection);
    assert_eq!(note(&offramp), 200, "forwarded, and no episode");
    let (load, progress) = world.start_load(&offramp, "reload", REQUESTS, 20);
    let reached = |part: u64| assert!(wait_until(LIMIT, || progress.finished() >= REQUESTS * part / 5), "requests stand still");

    reached(1);
    let more = settings.clone().set("sink.workers", "20").set("proxy.max_in_flight", "50").set("sink.timeout", "'3s'");
    reload(&offramp, &world, &with_notes(&more));
    assert_eq!(sink(&offramp.status(), "graphiti").unwrap()["workers"], 20);
    for _ in 0..3 {
        assert_eq!(note(&offramp), 200);
    }
    asked_on(&mut connection);

    reached(2);
    configure(world.dir(), &with_notes(&more.clone().set("sink.workers", "'many'").set("sink.werkers", "3")));
    offramp.signal("HUP");
    assert!(wait_until(LIMIT, || offramp.log().contains("2 faults")), "{}", offramp.log());
    let log = offramp.log();
    assert!(log.contains("config.toml:") && log.contains("werkers") && log.contains("stays as it was"), "{log}");
    assert_eq!(sink(&offramp.status(), "graphiti").unwrap()["workers"], 20);
    let three = |status: &Value| sink(status, "notes").is_some_and(|sink| sink["delivered_total"] == 3 && sink["pending"] == 0);
    offramp.wait_for_status("the notes are written", LIMIT, three);

    reached(3);
    let other = more
        .set("route.name", "'talk'")
        .set("log.level", "'debug'")
        .set("proxy.listen", "'127.0.0.1:1'")
        .set("queue.path", "'elsewhere'")
        .set("sink.rate", "{ per_second = 1000, burst = 100 }");
    reload(&offramp, &world, &other.text());
    let log = offramp.log();
    assert!(log.contains("proxy agent: listen") && log.contains("queue.path") && log.contains("needs a restart"), "{log}");
    assert!(log.contains("no longer configured") && !world.dir().join("elsewhere").exists());
    assert_eq!(note(&offramp), 200, "forwarded, and no episode");
    asked_on(&mut connection);

    let outcome = world.runtime().block_on(load).unwrap();
    // However quick the first ones were, these are of the latest configuration.
    let later = world.load(&offramp, "later", LATER, 20);
    assert_eq!((outcome.failed(), later.failed()), (0, 0), "{:?} {:?}", outcome.errors, later.errors);
    let drained = |status: &Value| status["ledger"]["pending"] == 0;
    let mut status = offramp.wait_for_status("all is delivered", LIMIT, drained);
    assert_eq!((&status["ledger"]["captured"], &status["ledger"]["gap"]), (&(REQUESTS + LATER + 3).into(), &0.into()));
    for key in ["captured", "delivered"] {
        status["ledger"][key] = (status["ledger"][key].as_u64().unwrap() - 3).into(); // the notes, which are in no graph
    }
    world.assert_graph_holds(&[outcome.conversations, later.conversations].concat(), &status);
    world.assert_sent_once();
    let counted = |route| offramp.metric("offramp_http_requests_total", &[("route", route), ("code", "200")]).unwrap_or_default();
    assert!(counted("run") > 0.0 && counted("talk") > 0.0, "{} {}", counted("run"), counted("talk"));
    assert_eq!(offramp.metric("offramp_http_requests_total", &[("route", "note")]), Some(3.0));
    assert!(offramp.log().contains(r#""level":"DEBUG""#));
    asked_on(&mut connection);
    assert!(offramp.stop().success());
}

#[test]
fn inv8_what_waits_for_a_sink_that_goes_is_delivered_once_it_comes_back() {
    let world = World::new();
    let settings = world.settings();
    let mut offramp = world.start(&settings);
    world.stop_graph();
    for text in ["one", "two", "three"] {
        assert_eq!(exchange(&offramp, "s", text).status, 200);
    }
    let text = settings.text();
    let from = text.find("[[sink]]").unwrap();
    let to = from + text[from..].find("[admin]").unwrap();
    reload(&offramp, &world, &format!("{}{NOTES}{}", &text[..from], &text[to..]));
    assert_eq!(exchange(&offramp, "s", "four").status, 200);
    offramp.wait_for_status("it goes to the other one", LIMIT, |status| status["ledger"]["delivered"] == 1);
    world.resume_graph();
    assert_eq!(offramp.status()["ledger"]["pending"], 3);

    reload(&offramp, &world, &text);
    let status = offramp.wait_for_status("all is delivered", LIMIT, |status| status["ledger"]["delivered"] == 4);
    assert_eq!((&status["ledger"]["captured"], &status["ledger"]["gap"]), (&4.into(), &0.into()));
    assert_eq!(world.graph.stored().len(), 3);
    assert!(offramp.stop().success());
}

/// Asks on one connection of HTTP/2, several at a time, until told to stop, and counts the answers.
async fn ask_on_one_connection(proxy: SocketAddr, answered: Arc<AtomicUsize>, stop: Arc<AtomicBool>) {
    const AT_ONCE: usize = 20;
    let (client, connection) = h2::client::handshake(tokio::net::TcpStream::connect(proxy).await.unwrap()).await.unwrap();
    let connection = tokio::spawn(connection);
    let asking = (0..AT_ONCE).map(|n| {
        let (mut client, answered, stop) = (client.clone(), Arc::clone(&answered), Arc::clone(&stop));
        tokio::spawn(async move {
            while !stop.load(Ordering::Relaxed) {
                let question = json!({ "message_content": "hi", "session_name": format!("s{n}"), "user_id": "u" }).to_string();
                let request =
                    ::http::Request::post("http://a/api/v1/agent/sample/run").header("content-type", "application/json");
                client = client.ready().await.expect("the connection stays");
                let (response, mut upload) = client.send_request(request.body(()).unwrap(), false).unwrap();
                upload.send_data(question.into(), true).unwrap();
                let response = response.await.expect("the connection stays");
                assert_eq!(response.status(), 200);
                let (mut body, mut answer) = (response.into_body(), Vec::new());
                while let Some(data) = body.data().await {
                    let data = data.expect("the connection stays");
                    body.flow_control().release_capacity(data.len()).unwrap();
                    answer.extend_from_slice(&data);
                }
                assert_eq!(serde_json::from_slice::<Value>(&answer).unwrap()["success"], true);
                answered.fetch_add(1, Ordering::Relaxed);
            }
        })
    });
    for asking in asking.collect::<Vec<_>>() {
        asking.await.unwrap();
    }
    assert!(!connection.is_finished(), "the connection was closed");
    connection.abort();
}

#[test]
fn inv1_inv8_streams_of_one_connection_go_on_while_routes_and_limits_change() {
    let world = World::with(Duration::from_millis(20), Options { write_delay: Duration::ZERO, mode: Mode::Parallel(20) });
    let settings = world.settings().set("sink.workers", "20");
    let mut offramp = world.start(&settings);
    let (answered, stop) = (Arc::<AtomicUsize>::default(), Arc::<AtomicBool>::default());
    let talk = ask_on_one_connection(offramp.proxy("agent"), Arc::clone(&answered), Arc::clone(&stop));
    let talk = world.runtime().spawn(talk);
    let more = || {
        let before = answered.load(Ordering::Relaxed);
        assert!(wait_until(LIMIT, || talk.is_finished() || answered.load(Ordering::Relaxed) >= before + 60));
    };
    more();
    reload(&offramp, &world, &settings.clone().set("route.name", "'talk'").set("proxy.max_in_flight", "10").text());
    more();
    reload(&offramp, &world, &settings.clone().set("route.name", "'chat'").set("proxy.header_read_timeout", "'5s'").text());
    more();
    stop.store(true, Ordering::Relaxed);
    world.runtime().block_on(talk).unwrap();
    let answered = answered.load(Ordering::Relaxed);
    offramp.wait_for_delivery(answered, LIMIT);
    let counted = |route| offramp.metric("offramp_http_requests_total", &[("route", route), ("code", "200")]).unwrap_or_default();
    for route in ["run", "talk", "chat"] {
        assert!(counted(route) > 0.0, "{route}");
    }
    assert!(offramp.stop().success());
}
