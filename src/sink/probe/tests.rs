//! What a test says of backends that are right, and of those that are wrong in each of the ways.

use std::sync::Arc;

use axum::Router;
use axum::http::{Method, StatusCode};
use axum::routing::any;
use tokio::net::TcpListener;
use tokio::sync::Notify;

use super::*;

/// More than a test ever takes.
const LIMIT: Duration = Duration::from_secs(60);

/// A sink of these keys, as the configuration reads them.
fn sink(keys: &str) -> config::Sink {
    let proxy = "[[proxy]]\nname = \"a\"\nlisten = \"127.0.0.1:1\"\nupstream = \"http://h\"\n";
    let text = format!("{proxy}[[sink]]\nname = \"s\"\nconnect_timeout = \"60s\"\n{keys}\n");
    config::read(&text, std::path::Path::new("c.toml"), &config::Input::default()).unwrap().sinks.remove(0)
}

/// A service that answers everything with this; its URL.
async fn service(status: u16, body: &'static str) -> String {
    answering(move |_| (StatusCode::from_u16(status).unwrap(), body)).await
}

async fn answering(says: impl Fn(Method) -> (StatusCode, &'static str) + Clone + Send + Sync + 'static) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let answer = move |method: Method| std::future::ready(says(method));
    tokio::spawn(async move { axum::serve(listener, Router::new().fallback(any(answer))).await });
    url
}

async fn tested(keys: &str) -> Report {
    test(&sink(keys), &Names::default(), LIMIT).await
}

/// How each step went, in a letter each: dns, connect, tls, credentials, schema, delivery, confirmation.
fn letters(report: &Report) -> String {
    assert_eq!(report.steps.iter().map(|step| step.step).collect::<Vec<_>>(), What::ALL);
    let letter = |step: &Step| match step.result {
        Outcome::Ok => 'o',
        Outcome::Failed => 'F',
        Outcome::Skipped => '-',
    };
    assert_eq!(report.ok, report.failed().is_none());
    for step in &report.steps {
        assert!(!step.says.is_empty());
        assert!(step.result != Outcome::Failed || step.advice.is_some(), "{step:?}");
    }
    report.steps.iter().map(letter).collect()
}

#[tokio::test]
async fn each_fault_is_told_at_its_step_with_what_to_do() {
    let closed = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    let url = |url: &str| format!("type = \"graphiti\"\nurl = \"{url}\"");
    let report = tested(&url("http://nowhere.invalid")).await;
    assert_eq!(letters(&report), "F------", "{report:#?}");
    let report = tested(&url(&format!("http://{closed}"))).await;
    assert_eq!((letters(&report).as_str(), report.episode), ("oF-----", None), "{report:#?}");
    // It speaks no TLS.
    let plain = service(200, "").await;
    let report = tested(&url(&plain.replace("http:", "https:"))).await;
    assert_eq!(letters(&report), "ooF----", "{report:#?}");
    for (status, expected, advice) in [
        (401, "oo-F---", "headers = {"),
        (403, "oo-F---", "headers = {"),
        (307, "oo-oF--", "follows nobody"),
        (404, "oo-oF--", "MCP server"),
        (422, "oo-oF--", "dead letter"),
        (429, "oo-o-F-", "try it again"),
        (500, "oo-o-F-", "try it again"),
    ] {
        let report = tested(&url(&service(status, "says no").await)).await;
        assert_eq!(letters(&report), expected, "{status}: {report:#?}");
        let failed = report.failed().unwrap();
        assert!(failed.advice.as_ref().unwrap().contains(advice), "{failed:?}");
        assert!(failed.says.contains(&status.to_string()), "{failed:?}");
        assert_eq!((report.episode, report.found), (None, None), "{status}: nothing was left anywhere");
    }
    // Redis instead of Neo4j, say: it takes the connection, and answers something else.
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let _ = tokio::io::AsyncWriteExt::write_all(&mut stream, b"-ERR what?\r\n").await;
        }
    });
    let report = tested(&format!("type = \"neo4j\"\nurl = \"bolt://{address}\"\ntimeout = \"1s\"")).await;
    assert_eq!(letters(&report), "oo---F-", "{report:#?}");
}

#[tokio::test]
async fn inv7_what_was_accepted_and_is_never_seen_has_failed() {
    // 202 to everything, and no episode in what it shows.
    let looks = Arc::new(Notify::new());
    let url = answering({
        let looks = looks.clone();
        move |method| {
            if method == Method::GET {
                looks.notify_one();
            }
            (StatusCode::ACCEPTED, "[]")
        }
    })
    .await;
    let config = sink(&format!("type = \"graphiti\"\nurl = \"{url}\""));
    let names = Names::default();
    // From its first look on no time needs to pass.
    let (report, ()) = tokio::join!(test(&config, &names, LIMIT), async {
        looks.notified().await;
        tokio::time::pause();
    });
    tokio::time::resume();
    assert_eq!(letters(&report), "oo-oooF", "{report:#?}");
    let failed = report.failed().unwrap();
    assert!(
        failed.says.contains("not seen within 1m") && failed.advice.as_ref().unwrap().contains("worker is dead"),
        "{failed:?}"
    );
    assert!(report.episode.is_some() && report.found.unwrap().contains("/episodes/offramp-probe?last_n=10"));

    // Where a promise is all that is asked for, it is told as one.
    let keys = format!("type = \"graphiti\"\nurl = \"{}\"\nconfirm = {{ mode = \"accepted\" }}", service(202, "[]").await);
    let report = tested(&keys).await;
    assert_eq!(letters(&report), "oo-ooo-", "{report:#?}");
    assert!(report.steps[5].says.contains("a promise") && report.steps[6].says.contains("nothing proves"), "{report:#?}");
}

#[tokio::test]
async fn a_template_that_the_probe_does_not_fit_is_named_and_a_name_can_be_given() {
    let url = service(200, "").await;
    let keys = format!("type = \"http\"\nurl = \"{url}\"\npath = \"/{{{{ metadata.thread }}}}\"");
    let report = tested(&keys).await;
    assert_eq!(letters(&report), "oo--F--", "{report:#?}");
    assert!(report.failed().unwrap().says.contains("`path`"), "{report:#?}");

    let keys = format!("type = \"http\"\nurl = \"{url}\"\npath = \"/{{{{ session }}}}/{{{{ agent }}}}\"");
    let names = Names { session: Some("t-1".into()), ..Names::default() };
    let report = test(&sink(&keys), &names, LIMIT).await;
    assert_eq!((letters(&report).as_str(), report.session.as_str()), ("oo-ooo-", "t-1"), "{report:#?}");
}

#[tokio::test]
async fn a_sink_that_would_repeat_a_request_is_only_asked_who_is_there() {
    for (status, expected) in [(200, "oo-----"), (404, "oo-----"), (405, "oo-----"), (401, "oo-F---")] {
        let report = tested(&format!("type = \"replay\"\nurl = \"{}\"", service(status, "").await)).await;
        assert_eq!(letters(&report), expected, "{report:#?}");
        assert!(report.steps[5].says.contains("it would repeat a request") && report.episode.is_none(), "{report:#?}");
    }
}

#[tokio::test]
async fn a_file_gets_its_line_and_a_missing_directory_is_told() {
    let dir = tempfile::tempdir().unwrap();
    let keys = |path: &std::path::Path| format!("type = \"file\"\npath = {path:?}");
    let path = dir.path().join("e.jsonl");
    let report = tested(&keys(&path)).await;
    assert_eq!(letters(&report), "---oooo", "{report:#?}");
    let text = std::fs::read_to_string(&path).unwrap();
    let line: serde_json::Value = serde_json::from_str(text.lines().nth(1).unwrap()).unwrap();
    assert_eq!((&line["session"], &line["id"]), (&NAME.into(), &report.episode.unwrap().to_string().into()));
    assert!(text.contains("`offramp sink test s`") && text.contains("it can be removed"), "{text}");

    let report = tested(&keys(&dir.path().join("no/such/dir.jsonl"))).await;
    assert_eq!(letters(&report), "-----F-", "{report:#?}");
}

#[tokio::test]
async fn inv10_no_credential_is_told() {
    let url = service(401, "no such token s3cret").await;
    let report =
        tested(&format!("type = \"graphiti\"\nurl = \"{url}\"\nheaders = {{ authorization = \"Bearer s3cret\" }}")).await;
    let told = serde_json::to_string(&report).unwrap();
    assert!(told.contains("authorization is sent") && !told.contains("s3cret"), "{told}");
}

#[tokio::test]
async fn what_a_sink_warns_of_on_the_way_is_heard() {
    let (done, remarks) = remarks::heard(async {
        tokio::task::yield_now().await;
        tracing::warn!(constraint = "c", error = %"no right", "a constraint could not be made");
        tracing::info!("not this");
        7
    })
    .await;
    assert_eq!((done, remarks), (7, vec!["a constraint could not be made (constraint: \"c\") (error: no right)".to_owned()]));
}
