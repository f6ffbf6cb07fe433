use super::*;

fn small() -> Options {
    Options {
        requests: 40,
        concurrency: 8,
        sessions: 8,
        agent_delay: Duration::from_millis(1),
        write_delay: Duration::from_millis(20),
        inline_timeout: Duration::from_secs(5),
        ..Options::default()
    }
}

#[tokio::test]
async fn inv5_inv7_inv8_the_demo_proves_its_claims_into_the_sample_and_into_a_graphiti_by_url() {
    let report = run(small(), Screen::Silent, std::future::pending()).await.unwrap();
    assert!(report.passed, "{}", report.text(false));
    assert_eq!((report.ledger.ledger.captured, report.through_offramp.requests), (40, 40));

    let elsewhere = Graph::start(graph::Options { write_delay: Duration::ZERO, mode: Mode::Strict }).await.unwrap();
    let options = Options { sink_url: Some(elsewhere.url() + "/"), ..small() };
    let report = run(options, Screen::Silent, std::future::pending()).await.unwrap();
    assert!(report.passed, "{}", report.text(false));
    assert_eq!(elsewhere.stored().len(), 40);
}

#[tokio::test]
async fn a_stop_in_the_middle_is_an_error() {
    let options = Options { agent_delay: Duration::from_secs(3600), ..small() };
    let stopped = run(options, Screen::Silent, tokio::time::sleep(Duration::from_millis(10))).await;
    assert!(matches!(stopped, Err(DemoError::Stopped)));
}

#[test]
fn the_introduction_says_when_sessions_limit_the_concurrency() {
    assert_eq!(Options::default().introduction().lines().count(), 1);
    let text = Options { sessions: 5, ..Options::default() }.introduction();
    assert!(text.contains("5 at a time") && text.contains("5 instead of 100"), "{text}");
}

#[tokio::test]
async fn a_graphiti_is_read_back_by_group_and_a_refusal_is_named() {
    let graph = Graph::start(graph::Options::default()).await.unwrap();
    let mark = load::Mark { session: "offramp-1".to_owned(), number: 1 };
    let message = graph::Message {
        content: mark.text(),
        uuid: None,
        name: "id-1".to_owned(),
        role_type: "user".to_owned(),
        role: None,
        timestamp: "2026-01-01T00:00:00.001Z".parse().unwrap(),
        source_description: String::new(),
    };
    graph.add_episode("g", message.clone()).await.unwrap();
    graph.add_episode("other", message).await.unwrap();
    let told = [load::Conversation { name: "offramp-1".to_owned(), id: Some("g".to_owned()), ..load::Conversation::default() }];

    let found = read::graphiti(&graph.url(), &told).await.unwrap();
    assert_eq!(found["g"], read::sample(&graph, 0)["g"]);
    assert_eq!((found.len(), load::Mark::find(&found["g"][0].content)), (1, Some(mark)));

    graph.faults().answer(graph::faults::Call::Episodes, graph::faults::Fault::Status(401), graph::faults::Times::Always);
    let error = read::graphiti(&graph.url(), &told).await.unwrap_err().to_string();
    assert!(error.contains("/episodes/g") && error.contains("401"), "{error}");
}
