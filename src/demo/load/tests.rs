use super::super::agent::{self, Agent, Inline};
use super::super::graph::{Graph, Mode, Options};
use super::*;

fn load(target: SocketAddr) -> Load {
    Load {
        target,
        requests: 25,
        concurrency: 10,
        sessions: 4,
        prefix: "t",
        ramp: Duration::ZERO,
        begin_within: None,
        timeout: Duration::from_secs(60),
    }
}

#[test]
fn a_mark_is_found_however_its_text_is_wrapped() {
    let mark = Mark { session: "offramp-7".to_owned(), number: 12 };
    let wrapped = format!("(user): user: {}\nassistant: sample has read it.", mark.text());
    assert_eq!(Mark::find(&wrapped), Some(mark));
    assert_eq!(Mark::find("This is message of a friend"), None);
}

#[tokio::test]
async fn every_request_is_sent_once_with_its_number_and_sessions_keep_their_id() {
    let agent = Agent::start(agent::Options { delay: Duration::ZERO, inline: None }).await.unwrap();
    let load = load(agent.address());
    assert_eq!(load.clients(), 4, "a session has one request in flight");
    let progress = Arc::default();
    let outcome = load.run(&progress).await;

    assert_eq!((outcome.finished, outcome.failed(), outcome.latency.len()), (25, 0, 25));
    assert_eq!((progress.finished(), progress.failed()), (25, 0));
    let sent: Vec<_> = outcome.conversations.iter().map(|c| (c.name.as_str(), c.answered.clone())).collect();
    assert_eq!(sent[0], ("t-1", (1..=7).collect::<Vec<_>>()));
    assert_eq!(sent[1..], ["t-2", "t-3", "t-4"].map(|name| (name, (1..=6).collect::<Vec<_>>())));
    let ids: std::collections::HashSet<_> = outcome.conversations.iter().map(|c| c.id.clone().unwrap()).collect();
    assert_eq!(ids.len(), 4);
}

#[tokio::test]
async fn an_inline_write_that_takes_too_long_is_an_error_of_its_kind() {
    let graph = Graph::start(Options { write_delay: Duration::from_secs(3600), mode: Mode::Parallel(10) }).await.unwrap();
    let inline = Inline { graph: graph.clone(), workers: 2, timeout: Duration::from_millis(20) };
    let agent = Agent::start(agent::Options { delay: Duration::ZERO, inline: Some(inline) }).await.unwrap();
    let outcome = Load { requests: 4, ..load(agent.address()) }.run(&Arc::default()).await;
    assert_eq!(outcome.errors, BTreeMap::from([("HTTP 504".to_owned(), 4)]));
    assert!(outcome.latency.min() >= 20_000, "who got an error has waited for it");
    assert!(graph.stored().is_empty());

    graph.set_write_delay(Duration::ZERO);
    let outcome = load(agent.address()).run(&Arc::default()).await;
    assert_eq!((outcome.answered(), graph.stored().len()), (25, 25), "an answer comes after its write");
}

#[tokio::test]
async fn an_agent_that_is_not_there_is_an_error_too_and_each_client_tries_once_though_late() {
    let agent = Agent::start(agent::Options { delay: Duration::ZERO, inline: None }).await.unwrap();
    let address = agent.address();
    drop(agent);
    let outcome = Load { begin_within: Some(Duration::ZERO), ..load(address) }.run(&Arc::default()).await;
    assert_eq!((outcome.finished, outcome.failed()), (4, 4));
    assert!(outcome.errors.keys().all(|kind| kind.starts_with("no connection")), "{:?}", outcome.errors);
    assert!(outcome.conversations.iter().all(|c| c.failed == [1] && c.id.is_none()));
}
