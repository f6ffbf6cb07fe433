//! Invariants 2 and 3: the last byte waits for the commit, and for nothing else.

use super::*;

/// A request to a captured route whose upstream answers with `answer`.
async fn asked(recorder: &Arc<Recorder>, answer: &[u8]) -> (Running, TcpStream) {
    let agent = Agent::new().await;
    let running = start(proxy_to(agent.at()), recorder.clone()).await;
    let mut client = running.connect().await;
    client.write_all(&post("/run/x", r#"{"message":"hi"}"#)).await.unwrap();
    let mut upstream = agent.accept().await;
    read_until(&mut upstream, b"}").await.unwrap();
    upstream.write_all(answer).await.unwrap();
    // The upstream stays open and says no more.
    tokio::spawn(async move { rest(&mut upstream).await });
    (running, client)
}

#[tokio::test]
async fn inv2_the_last_byte_is_held_until_the_commit() {
    for (answer, before, after) in [
        (&b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{}"[..], "HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n", "{}"),
        (
            b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\n\r\n",
            "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2\r\n{}\r\n",
            "0\r\n\r\n",
        ),
        (b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n", "", "HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n"),
        (b"HTTP/1.1 204 No Content\r\n\r\n", "", "HTTP/1.1 204 No Content\r\n\r\n"),
    ] {
        let recorder = Recorder::slow();
        let (running, mut client) = asked(&recorder, answer).await;
        let episodes = recorder.appended(1).await;
        assert_eq!(episodes[0].messages[0].content, "hi");
        assert_eq!(text(&read_until(&mut client, before.as_bytes()).await.unwrap()), before);
        assert!(is_silent(&mut client).await, "the rest waits: {before:?}");
        recorder.commit(Ok(()));
        assert_eq!(text(&read_until(&mut client, after.as_bytes()).await.unwrap()), after);
        running.idle().await;
        assert_eq!((running.outcome("queued"), running.outcomes()), (1, 1));
        assert_eq!(running.metrics.queue_commit_late.get(), 0);
    }
}

#[tokio::test]
async fn inv2_a_commit_that_takes_too_long_is_not_waited_for() {
    for answer in [&b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{}"[..], b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n"] {
        let recorder = Recorder::slow();
        *recorder.wait.lock().unwrap() = Duration::from_millis(20);
        let (running, mut client) = asked(&recorder, answer).await;
        assert_eq!(read_until(&mut client, answer).await.unwrap(), answer);
        assert_eq!(running.metrics.queue_commit_late.get(), 1);
        running.idle().await;
        assert_eq!((running.outcome("queued"), running.outcomes()), (1, 1));
    }
}

#[tokio::test]
async fn inv3_no_fault_of_the_queue_touches_a_response() {
    let answer = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{}";
    for (fault, outcome) in [("full", "queue_full"), ("failed", "failed"), ("commit fails", "failed"), ("panics", "failed")] {
        let recorder = Recorder::slow();
        match fault {
            "full" => *recorder.refuse.lock().unwrap() = Some(AppendError::Full),
            "failed" => *recorder.refuse.lock().unwrap() = Some(AppendError::Failed),
            "commit fails" => recorder.commit(Err(AppendError::Failed)),
            _ => recorder.panics.store(true, Ordering::SeqCst),
        }
        let (running, mut client) = asked(&recorder, answer).await;
        assert_eq!(read_until(&mut client, answer).await.unwrap(), answer, "{fault}");
        running.idle().await;
        assert_eq!((running.outcome(outcome), running.outcomes()), (1, 1), "{fault}");
    }
}

#[tokio::test]
async fn a_full_queue_refuses_before_the_upstream_is_called_if_told_so() {
    let agent = Agent::new().await;
    let recorder = Recorder::quick();
    recorder.full.store(true, Ordering::SeqCst);
    let running = start_with(proxy_to(agent.at()), recorder.clone(), OnFull::Reject).await;
    let refused = running.get("/run/x").await;
    assert!(refused.starts_with("HTTP/1.1 503 ") && refused.contains("x-offramp-error: queue_full"), "{refused}");
    assert_eq!((running.outcome("queue_full"), running.outcomes()), (1, 1));
    recorder.full.store(false, Ordering::SeqCst);
    agent.always(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n");
    assert!(running.get("/run/x").await.starts_with("HTTP/1.1 200 OK"));
}

#[tokio::test]
async fn inv2_a_client_that_has_closed_its_half_gets_the_last_byte_after_the_commit_too() {
    let (recorder, agent) = (Recorder::slow(), Agent::new().await);
    let running = start(proxy_to(agent.at()), recorder.clone()).await;
    let mut client = running.connect().await;
    client.write_all(&post("/run/x", r#"{"message":"hi"}"#)).await.unwrap();
    client.shutdown().await.unwrap();
    let mut upstream = agent.accept().await;
    read_until(&mut upstream, b"\"hi\"}").await.unwrap();
    assert_eq!(rest(&mut upstream).await, b"", "the upstream is told");
    upstream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 17\r\n\r\n{\"message\":\"yes\"}").await.unwrap();
    recorder.appended(1).await;
    assert!(read_head(&mut client).await.is_some());
    assert!(is_silent(&mut client).await);
    recorder.commit(Ok(()));
    assert_eq!(text(&rest(&mut client).await), "{\"message\":\"yes\"}");
    running.idle().await;
}
