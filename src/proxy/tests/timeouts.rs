//! Limits of time, and errors of the upstream.

use super::*;

fn error_of(response: &str) -> (&str, &str) {
    let status = response.split(' ').nth(1).unwrap_or_default();
    let code = response.split("x-offramp-error: ").nth(1).and_then(|r| r.split("\r\n").next()).unwrap_or_default();
    (status, code)
}

#[tokio::test]
async fn an_upstream_that_cannot_be_reached_is_a_502() {
    let agent = Agent::new().await;
    let at = agent.at();
    drop(agent);
    let running = start(proxy_to(at), Recorder::quick()).await;
    assert_eq!(error_of(&running.get("/run/x").await), ("502", "upstream_connect"));
    let mut config = proxy_to(at);
    config.upstream = Upstream::Unix("/nonexistent/agent.sock".into());
    let running = start(config, Recorder::quick()).await;
    assert_eq!(error_of(&running.get("/run/x").await), ("502", "upstream_connect"));
}

#[tokio::test]
async fn an_upstream_that_speaks_no_http_is_a_502() {
    for answer in [
        &b"SSH-2.0-OpenSSH\r\n\r\n"[..],
        b"HTTP/1.1 101 Switching Protocols\r\nupgrade: x\r\n\r\n",
        b"HTTP/1.1 200 OK\r\ntransfer-encoding: gzip, chunked\r\n\r\n",
    ] {
        let agent = Agent::new().await;
        let at = agent.at();
        agent.always(answer);
        let running = start(proxy_to(at), Recorder::quick()).await;
        assert_eq!(error_of(&running.get("/x").await), ("502", "upstream_protocol"), "{}", text(answer));
        running.idle().await;
    }
}

#[tokio::test]
async fn no_response_in_time_is_a_504_and_ends_the_request_upstream() {
    let agent = Agent::new().await;
    let mut config = proxy_to(agent.at());
    config.response_timeout = Duration::from_millis(50);
    let running = start(config, Recorder::quick()).await;
    let asking = tokio::spawn(async move { running.get("/x").await });
    let mut upstream = agent.accept().await;
    read_head(&mut upstream).await.unwrap();
    assert_eq!(rest(&mut upstream).await, b"");
    assert_eq!(error_of(&asking.await.unwrap()), ("504", "upstream_timeout"));
}

#[tokio::test]
async fn an_upload_that_moves_does_not_run_into_the_response_timeout() {
    let agent = Agent::new().await;
    let mut config = proxy_to(agent.at());
    config.response_timeout = Duration::from_millis(100);
    let running = start(config, Recorder::quick()).await;
    let mut client = running.connect().await;
    client.write_all(b"POST /x HTTP/1.1\r\nhost: a\r\ncontent-length: 5\r\n\r\n").await.unwrap();
    let mut upstream = agent.accept().await;
    read_head(&mut upstream).await.unwrap();
    for byte in b"abcd" {
        // Together far longer than the time-out, which counts from the end of the upload.
        tokio::time::sleep(Duration::from_millis(60)).await;
        client.write_all(&[*byte]).await.unwrap();
        assert_eq!(upstream.read_u8().await.unwrap(), *byte);
    }
    client.write_all(b"e").await.unwrap();
    assert_eq!(error_of(&text(&read_head(&mut client).await.unwrap())), ("504", "upstream_timeout"));
}

#[tokio::test]
async fn an_upload_that_stands_still_is_given_up() {
    let agent = Agent::new().await;
    let mut config = proxy_to(agent.at());
    config.idle_timeout = Duration::from_millis(50);
    let running = start(config, Recorder::quick()).await;
    let mut client = running.connect().await;
    client.write_all(b"POST /run/x HTTP/1.1\r\nhost: a\r\ncontent-length: 5\r\n\r\nab").await.unwrap();
    let mut upstream = agent.accept().await;
    read_head(&mut upstream).await.unwrap();
    assert_eq!(rest(&mut upstream).await, b"ab");
    assert_eq!(error_of(&text(&read_head(&mut client).await.unwrap())), ("400", "bad_request"));
    running.idle().await;
}

#[tokio::test]
async fn a_response_that_stands_still_breaks_off() {
    let agent = Agent::new().await;
    let mut config = proxy_to(agent.at());
    config.idle_timeout = Duration::from_millis(50);
    let running = start(config, Recorder::quick()).await;
    let mut client = running.connect().await;
    client.write_all(b"GET /run/x HTTP/1.1\r\nhost: a\r\n\r\n").await.unwrap();
    let mut upstream = agent.accept().await;
    read_head(&mut upstream).await.unwrap();
    upstream.write_all(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2\r\nok\r\n").await.unwrap();
    read_head(&mut client).await.unwrap();
    assert_eq!(text(&rest(&mut client).await), "2\r\nok\r\n");
    assert_eq!(rest(&mut upstream).await, b"");
    running.idle().await;
}

#[tokio::test]
async fn a_client_that_stops_reading_is_given_up() {
    let agent = Agent::new().await;
    let mut config = proxy_to(agent.at());
    config.idle_timeout = Duration::from_millis(100);
    let running = start(config, Recorder::quick()).await;
    let mut client = running.connect().await;
    client.write_all(b"GET /run/x HTTP/1.1\r\nhost: a\r\n\r\n").await.unwrap();
    let mut upstream = agent.accept().await;
    read_head(&mut upstream).await.unwrap();
    upstream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 1000000000\r\n\r\n").await.unwrap();
    let block = vec![b'x'; 1 << 16];
    while upstream.write_all(&block).await.is_ok() {}
    running.idle().await;
    drop(client);
}

#[tokio::test]
async fn a_connection_that_the_upstream_closed_in_the_meantime_costs_no_request() {
    let agent = Agent::new().await;
    let running = start(proxy_to(agent.at()), Recorder::quick()).await;
    for _ in 0..3 {
        let mut client = running.connect().await;
        client.write_all(&post("/x", "ab")).await.unwrap();
        let mut upstream = agent.accept().await;
        read_until(&mut upstream, b"ab").await.unwrap();
        upstream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok").await.unwrap();
        assert!(text(&read_until(&mut client, b"ok").await.unwrap()).starts_with("HTTP/1.1 200 "));
        // Closed without a word, while it lies in the pool.
        drop(upstream);
        running.idle().await;
    }
}

#[tokio::test]
async fn inv1_a_response_that_breaks_off_does_not_look_complete_to_a_client_that_reads_to_the_end_of_the_connection() {
    for stands_still in [false, true] {
        let agent = Agent::new().await;
        let mut config = proxy_to(agent.at());
        config.idle_timeout = Duration::from_millis(50);
        let running = start(config, Recorder::quick()).await;
        let mut client = running.connect().await;
        client.write_all(b"GET /run/x HTTP/1.0\r\n\r\n").await.unwrap();
        let mut upstream = agent.accept().await;
        read_head(&mut upstream).await.unwrap();
        upstream.write_all(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2\r\nok\r\n").await.unwrap();
        read_until(&mut client, b"\r\n\r\nok").await.unwrap();
        if !stands_still {
            drop(upstream);
        }
        let error = client.read_u8().await.unwrap_err();
        assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset, "stands still: {stands_still}");
        running.idle().await;
    }
}

#[tokio::test]
async fn inv9_a_client_of_http_2_that_takes_nothing_of_a_response_is_given_up() {
    let agent = Agent::new().await;
    let mut config = proxy_to(agent.at());
    config.idle_timeout = Duration::from_millis(100);
    agent.always(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok");
    let running = start(config, Recorder::quick()).await;
    // Its window is shut; otherwise it is as lively as any.
    let socket = running.connect().await;
    let (mut sender, connection) =
        h2::client::Builder::new().initial_window_size(0).handshake::<_, bytes::Bytes>(socket).await.unwrap();
    let connection = tokio::spawn(connection);
    let request = http::Request::get("http://a/run/x").body(()).unwrap();
    let response = sender.send_request(request, true).unwrap().0.await.unwrap();
    assert_eq!((response.status().as_u16(), running.proxy.in_flight()), (200, 1));
    running.idle().await;
    // The whole connection is cut off.
    let _ = connection.await.unwrap();
    drop(response);
}
