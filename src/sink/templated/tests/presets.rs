//! Each preset against answers that its service really gives, good and bad.

use super::*;

fn preset(name: &str) -> String {
    format!("preset = \"{name}\"")
}

#[test]
fn every_preset_reads_without_fault_and_says_what_it_is_for() {
    for name in config::presets::sinks() {
        let sink = configured("http://h", &preset(name)).unwrap_or_else(|faults| panic!("{name}: {faults}"));
        assert!(matches!(sink.kind, config::SinkKind::Http(_)), "{name}");
        assert!(config::presets::about(name).is_some_and(|about| about.starts_with("Sink: ") && about.ends_with('.')), "{name}");
    }
}

#[test]
fn keys_that_are_given_win_over_the_presets() {
    let keys = "preset = \"lightrag\"\nretry_on = [500]\ndelivered_if = \"status == 418\"\n\
                confirm = { poll = \"7s\" }\nheaders = { x-api-key = \"k\" }";
    let sink = configured("http://h", keys).unwrap();
    let config::SinkKind::Http(service) = &sink.kind else { panic!("{sink:?}") };
    assert!(sink.retry_on.status.contains(500) && !sink.retry_on.status.contains(409) && !sink.retry_on.connect);
    assert!(format!("{:?}", service.delivered_if).contains("418"));
    let proof = service.confirm.as_ref().unwrap();
    assert_eq!(proof.poll, Duration::from_secs(7));
    assert!(proof.request.path.source().contains("track_status"), "what isn't given within a table is the preset's");
}

/// A document as `LightRAG` shows it.
fn document(id: &str, status: &str, more: &str) -> String {
    format!(r#"{{"file_path":"offramp-{id}","status":"{status}","error_msg":"no credit","metadata":{{{more}}}}}"#)
}

fn documents(list: &[String]) -> Option<(u16, &'static str, String)> {
    answer(200, &format!(r#"{{"documents":[{}]}}"#, list.join(",")))
}

const TAKEN: &str = r#"{"status":"success","track_id":"insert_1"}"#;

fn contains(status: &str) -> Option<(u16, &'static str, String)> {
    answer(409, &format!(r#"{{"detail":"Document storage already contains 'offramp-{ID}' (Status: {status}). Delete it."}}"#))
}

#[tokio::test]
async fn inv7_lightrag_is_followed_by_its_track_until_it_has_processed_the_text() {
    let script = vec![
        answer(200, TAKEN),
        documents(&[]), // it answers before it has entered the text
        documents(&[document(ID, "processing", "")]),
        documents(&[document(ID, "failed", "")]),
        documents(&[document(ID, "processed", "")]),
    ];
    let (url, played) = service(script).await;
    let sink = sink(&url, &preset("lightrag"));
    let delivery = delivery();
    assert_eq!(sink.deliver(&delivery).await.unwrap(), Receipt::Accepted);
    for expected in [
        Presence::Absent,
        Presence::Absent,
        Presence::Failed("LightRAG could not process it: no credit".to_owned()),
        Presence::Present,
    ] {
        assert_eq!(sink.look_up(&delivery).await.unwrap(), expected);
    }
    let requests = all(played).await;
    assert!(requests[0].starts_with("POST /documents/text HTTP/1.1\r\n"), "{}", requests[0]);
    let text = format!("{AT}, s:1\nuser: say \"hi\" <b>\ndeveloper: hello\n{{{{ id }}}}");
    assert_eq!(body(&requests[0]), json!({ "text": text, "file_source": format!("offramp-{ID}") }));
    assert!(requests[1].starts_with("GET /documents/track_status/insert_1 HTTP/1.1\r\n"), "{}", requests[1]);
}

#[tokio::test]
async fn inv4_lightrag_is_asked_for_its_newest_documents_where_the_track_is_not_known() {
    let other = document("another", "processed", "");
    let copy = document(ID, "failed", r#""is_duplicate":true,"duplicate_kind":"filename""#);
    let script = vec![
        documents(std::slice::from_ref(&other)),
        documents(&[other.clone(), copy.clone(), document(ID, "processing", "")]),
        documents(&[other, copy, document(ID, "processed", "")]),
        contains("processing"),
        answer(200, "{}"),
        documents(&[document(ID, "processed", "")]),
        contains("processed"),
    ];
    let (url, played) = service(script).await;
    let sink = sink(&url, &preset("lightrag"));
    let delivery = delivery();
    for expected in [Presence::Absent, Presence::Absent, Presence::Present] {
        assert_eq!(sink.look_up(&delivery).await.unwrap(), expected);
    }
    // It has the text already, and the answer to the second copy names no track.
    assert_eq!(sink.deliver(&delivery).await.unwrap(), Receipt::Accepted);
    assert_eq!(sink.look_up(&delivery).await.unwrap(), Presence::Present);
    assert_eq!(sink.deliver(&delivery).await.unwrap(), Receipt::Delivered, "older than the newest 200, it is there all the same");
    let requests = all(played).await;
    for n in [0, 5] {
        assert!(requests[n].starts_with("POST /documents/paginated HTTP/1.1\r\n"), "{}", requests[n]);
        assert_eq!(body(&requests[n])["page_size"], 200);
    }
}

#[tokio::test]
async fn lightrag_is_asked_to_try_again_what_it_failed_on() {
    let (url, played) = service(vec![contains("failed"), answer(200, "{}"), contains("failed"), answer(503, "fenced")]).await;
    let sink = sink(&url, &preset("lightrag"));
    assert_eq!(sink.deliver(&delivery()).await.unwrap(), Receipt::Accepted);
    let error = sink.deliver(&delivery()).await.unwrap_err();
    assert_eq!(error.message, "answered 503 Service Unavailable: fenced");
    assert!(all(played).await[1].starts_with("POST /documents/reprocess_failed HTTP/1.1\r\n"));
}

#[tokio::test]
async fn lightrag_that_scans_is_tried_again_later() {
    let config = configured("http://h", &preset("lightrag")).unwrap();
    assert!(config.retry_on.status.contains(409));
    let (_, result) = deliver(vec![answer(409, r#"{"detail":"A scan is in progress."}"#)], &preset("lightrag")).await;
    assert_eq!(result.unwrap_err().cause, Cause::Status(409));
}

#[tokio::test]
async fn inv4_mem0_is_searched_for_what_is_in_doubt() {
    let memories = |id: &str| {
        let bare = r#"{"id":"1","memory":"likes tea"},{"id":"2","metadata":null}"#;
        answer(200, &format!(r#"{{"results":[{bare},{{"id":"3","metadata":{{"offramp_id":"{id}"}}}}]}}"#))
    };
    let script = vec![answer(200, r#"{"results":[]}"#), None, memories("other"), answer(200, r#"{"results":[]}"#), memories(ID)];
    let (url, played) = service(script).await;
    let sink = sink(&url, &preset("mem0"));
    let delivery = delivery();
    assert_eq!(sink.deliver(&delivery).await.unwrap(), Receipt::Delivered);
    assert!(sink.deliver(&delivery).await.unwrap_err().ambiguous);
    assert!(sink.settle() > Duration::ZERO && sink.follow().is_none());
    for expected in [Presence::Absent, Presence::Absent, Presence::Present] {
        assert_eq!(sink.look_up(&delivery).await.unwrap(), expected);
    }
    let requests = all(played).await;
    assert!(requests[0].starts_with("POST /memories HTTP/1.1\r\n"), "{}", requests[0]);
    let messages =
        json!([{ "role": "user", "content": "say \"hi\" <b>" }, { "role": "developer", "content": "hello\n{{ id }}" }]);
    let metadata = json!({ "offramp_id": ID, "offramp_at": AT });
    assert_eq!(body(&requests[0]), json!({ "messages": messages, "user_id": "u/1", "run_id": "s:1", "metadata": metadata }));
    assert!(requests[2].starts_with("GET /memories?run_id=s%3A1&top_k=1000 HTTP/1.1\r\n"), "{}", requests[2]);
}

#[tokio::test]
async fn inv4_zep_gets_the_same_key_with_each_attempt_and_shows_the_message() {
    let items = |id: &str| answer(200, &format!(r#"{{"items":[{{"content":"x"}},{{"metadata":{{"offramp_id":"{id}"}}}}]}}"#));
    let script = vec![None, answer(409, "under way"), answer(202, r#"{"messages":[]}"#), items("other"), items(ID)];
    let (url, played) = service(script).await;
    let sink = sink(&url, &preset("zep"));
    let delivery = delivery();
    assert!(sink.deliver(&delivery).await.unwrap_err().ambiguous);
    assert_eq!(sink.deliver(&delivery).await.unwrap_err().cause, Cause::Status(409));
    assert_eq!(sink.deliver(&delivery).await.unwrap(), Receipt::Accepted);
    assert_eq!(sink.look_up(&delivery).await.unwrap(), Presence::Absent);
    assert_eq!(sink.look_up(&delivery).await.unwrap(), Presence::Present);
    let requests = all(played).await;
    for request in &requests[..3] {
        assert!(request.starts_with("POST /api/v4/threads/s%3A1/messages HTTP/1.1\r\n"), "{request}");
        assert!(request.contains(&format!("idempotency-key: {ID}\r\n")), "{request}");
        assert_eq!(body(request), body(&requests[0]), "another body under the same key is refused");
    }
    let message = |role: &str, content: &str| json!({ "role": role, "content": content, "reference_time": AT, "metadata": { "offramp_id": ID } });
    let messages = [message("user", "say \"hi\" <b>"), message("user", "hello\n{{ id }}")];
    assert_eq!(body(&requests[0]), json!({ "messages": messages }));
    assert!(!requests[3].contains("idempotency-key"), "{}", requests[3]);
    let config = configured("http://h", &preset("zep")).unwrap();
    assert!(!config.pause_on.contains(404) && config.retry_on.status.contains(409), "a thread that isn't there stops no other");
}

#[tokio::test]
async fn cognee_gets_a_form_with_the_text_as_a_file() {
    let (got, result) = deliver(vec![answer(200, r#"{"status":"completed"}"#)], &preset("cognee")).await;
    assert_eq!(result.unwrap(), Receipt::Delivered);
    assert!(got.contains(&format!("content-type: multipart/form-data; boundary=offramp-{ID}\r\n")), "{got}");
    let form = got.split_once("\r\n\r\n").unwrap().1;
    let parts: Vec<&str> = form.split(&format!("--offramp-{ID}")).collect();
    let dataset = group_id("s:1");
    assert_eq!(parts.len(), 4, "{form}");
    assert_eq!(parts[1], format!("\r\nContent-Disposition: form-data; name=\"datasetName\"\r\n\r\n{dataset}\r\n"));
    let head = format!("\r\nContent-Disposition: form-data; name=\"data\"; filename=\"offramp-{ID}.txt\"\r\n");
    let text = format!("{AT}, s:1\nuser: say \"hi\" <b>\ndeveloper: hello\n{{{{ id }}}}");
    assert_eq!(parts[2], format!("{head}Content-Type: text/plain; charset=utf-8\r\n\r\n{text}\r\n"));
    assert_eq!(parts[3], "--");
    let config = configured("http://h", &preset("cognee")).unwrap();
    assert!(config.retry_on.status.contains(409) && config.timeout == Duration::from_secs(600));
    let (_, result) = deliver(vec![answer(409, r#"{"status":"errored"}"#)], &preset("cognee")).await;
    assert_eq!(result.unwrap_err().cause, Cause::Status(409), "a run that failed");
    let sink = sink("http://127.0.0.1:1", &preset("cognee"));
    assert_eq!(sink.look_up(&delivery()).await.unwrap(), Presence::Unknown);
}

#[tokio::test]
async fn inv4_letta_is_searched_for_what_is_in_doubt() {
    let passages = |id: &str| answer(200, &format!(r#"[{{"id":"passage-1","text":"x","tags":["offramp","{id}"]}}]"#));
    let script = vec![passages(ID), None, passages("other"), answer(200, "[]"), passages(ID)];
    let (url, played) = service(script).await;
    let sink = sink(&url, &preset("letta"));
    let delivery = delivery();
    assert_eq!(sink.deliver(&delivery).await.unwrap(), Receipt::Delivered);
    assert!(sink.deliver(&delivery).await.unwrap_err().ambiguous);
    for expected in [Presence::Absent, Presence::Absent, Presence::Present] {
        assert_eq!(sink.look_up(&delivery).await.unwrap(), expected);
    }
    let requests = all(played).await;
    assert!(requests[0].starts_with("POST /v1/agents/agent-1/archival-memory HTTP/1.1\r\n"), "{}", requests[0]);
    let text = "user: say \"hi\" <b>\ndeveloper: hello\n{{ id }}";
    assert_eq!(body(&requests[0]), json!({ "text": text, "tags": ["offramp", ID], "created_at": AT }));
    assert!(requests[2].starts_with("GET /v1/agents/agent-1/archival-memory?ascending=false&limit=50 "), "{}", requests[2]);

    let nobody = Delivery { episode: Arc::new(Episode { agent: None, ..turn() }), at: 0 };
    let error = sink.deliver(&nobody).await.unwrap_err();
    assert_eq!(error.cause, Cause::Unfit, "{error}");
}
