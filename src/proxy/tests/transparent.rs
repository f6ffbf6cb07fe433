//! Invariant 1: what is not understood is not touched.

use super::*;

fn header_lines(head: &[u8]) -> Vec<Vec<u8>> {
    let lines = head.split(|&b| b == b'\n').skip(1).map(|l| l.strip_suffix(b"\r").unwrap_or(l).to_vec());
    let mut lines: Vec<_> = lines.filter(|l| !l.is_empty()).collect();
    lines.sort();
    lines
}

#[tokio::test]
async fn inv1_a_head_arrives_as_it_was_sent_but_for_what_belongs_to_the_connection() {
    let agent = Agent::new().await;
    let running = start(proxy_to(agent.at()), Recorder::quick()).await;
    let mut client = running.connect().await;
    client
        .write_all(
            b"GET /other/a%2Fb?q=%20x&y HTTP/1.1\r\nHost: agent.example:8880\r\nConnection: keep-alive, X-Gone\r\nConnection: x-gone-too\r\n\
              X-Gone: 1\r\nx-gone-too: 2\r\nKeep-Alive: timeout=5\r\nProxy-Connection: keep-alive\r\nTE: gzip;q=0.5, Trailers\r\n\
              Upgrade: h2c\r\nProxy-Authorization: Basic eA==\r\nCookie: a=1\r\nCookie: b=2\r\nX-Bytes: caf\xe9\r\nX-Empty:\r\n\
              Authorization: Bearer t\r\nTrailer: x-sum\r\n\r\n",
        )
        .await
        .unwrap();
    let mut upstream = agent.accept().await;
    let head = read_head(&mut upstream).await.unwrap();
    assert!(head.starts_with(b"GET /other/a%2Fb?q=%20x&y HTTP/1.1\r\n"), "{}", text(&head));
    let expected: Vec<&[u8]> = vec![
        b"authorization: Bearer t",
        b"connection: te",
        b"cookie: a=1",
        b"cookie: b=2",
        b"host: agent.example:8880",
        b"te: trailers",
        b"trailer: x-sum",
        b"x-bytes: caf\xe9",
        b"x-empty: ",
    ];
    assert_eq!(header_lines(&head), expected);

    upstream
        .write_all(
            b"HTTP/1.1 299 Rather Fine\r\nSet-Cookie: a=1\r\nSet-Cookie: b=2\r\nX-Bytes: \xfc\r\nConnection: X-Hop\r\nX-Hop: 1\r\n\
              Keep-Alive: timeout=5\r\nContent-Length: 2\r\n\r\nok",
        )
        .await
        .unwrap();
    let head = read_head(&mut client).await.unwrap();
    assert!(head.starts_with(b"HTTP/1.1 299 Rather Fine\r\n"), "{}", text(&head));
    let expected: Vec<&[u8]> = vec![b"content-length: 2", b"set-cookie: a=1", b"set-cookie: b=2", b"x-bytes: \xfc"];
    assert_eq!(header_lines(&head), expected);
    assert_eq!(read_until(&mut client, b"ok").await.unwrap(), b"ok");
    running.idle().await;
}

#[tokio::test]
async fn inv1_trailers_go_both_ways() {
    let agent = Agent::new().await;
    let running = start(proxy_to(agent.at()), Recorder::quick()).await;
    let mut client = running.connect().await;
    client
        .write_all(
            b"POST /run/x HTTP/1.1\r\nhost: a\r\nte: trailers\r\nconnection: te\r\ntrailer: x-up\r\ntransfer-encoding: chunked\r\n\r\n\
              2\r\nhi\r\n0\r\nx-up: 1\r\n\r\n",
        )
        .await
        .unwrap();
    let mut upstream = agent.accept().await;
    read_head(&mut upstream).await.unwrap();
    assert_eq!(text(&read_until(&mut upstream, b"x-up: 1\r\n\r\n").await.unwrap()), "2\r\nhi\r\n0\r\nx-up: 1\r\n\r\n");
    upstream
        .write_all(b"HTTP/1.1 200 OK\r\ntrailer: x-down\r\ntransfer-encoding: chunked\r\n\r\n3\r\nyes\r\n0\r\nx-down: 2\r\n\r\n")
        .await
        .unwrap();
    read_head(&mut client).await.unwrap();
    assert_eq!(text(&read_until(&mut client, b"x-down: 2\r\n\r\n").await.unwrap()), "3\r\nyes\r\n0\r\nx-down: 2\r\n\r\n");
    running.idle().await;
}

#[tokio::test]
async fn inv1_both_directions_stream_at_the_same_time() {
    let agent = Agent::new().await;
    let running = start(proxy_to(agent.at()), Recorder::quick()).await;
    let mut client = running.connect().await;
    client.write_all(b"POST /run/x HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n3\r\nup1\r\n").await.unwrap();
    let mut upstream = agent.accept().await;
    read_until(&mut upstream, b"up1\r\n").await.unwrap();
    upstream.write_all(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5\r\ndown1\r\n").await.unwrap();
    read_until(&mut client, b"down1\r\n").await.unwrap();
    // Only now do both go on: each had to pass before the next was there.
    client.write_all(b"3\r\nup2\r\n0\r\n\r\n").await.unwrap();
    read_until(&mut upstream, b"up2\r\n0\r\n\r\n").await.unwrap();
    upstream.write_all(b"5\r\ndown2\r\n0\r\n\r\n").await.unwrap();
    assert_eq!(text(&read_until(&mut client, b"0\r\n\r\n").await.unwrap()), "5\r\ndown2\r\n0\r\n\r\n");
    running.idle().await;
}

#[tokio::test]
async fn inv1_a_get_may_have_a_body_of_unknown_length() {
    let agent = Agent::new().await;
    let running = start(proxy_to(agent.at()), Recorder::quick()).await;
    let mut client = running.connect().await;
    client.write_all(b"GET /x HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n2\r\nhi\r\n0\r\n\r\n").await.unwrap();
    let mut upstream = agent.accept().await;
    assert!(text(&read_head(&mut upstream).await.unwrap()).contains("transfer-encoding: chunked"));
    assert_eq!(text(&read_until(&mut upstream, b"0\r\n\r\n").await.unwrap()), "2\r\nhi\r\n0\r\n\r\n");
}

#[tokio::test]
async fn inv1_a_response_that_breaks_off_looks_broken_and_loses_nothing_that_came_before() {
    for (head, sent, seen) in [
        (&b"HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\n"[..], &b"partial"[..], "partial"),
        (b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n", b"7\r\npartial\r\n", "7\r\npartial\r\n"),
    ] {
        let agent = Agent::new().await;
        let running = start(proxy_to(agent.at()), Recorder::quick()).await;
        let mut client = running.connect().await;
        client.write_all(b"GET /run/x HTTP/1.1\r\nhost: a\r\n\r\n").await.unwrap();
        let mut upstream = agent.accept().await;
        read_head(&mut upstream).await.unwrap();
        upstream.write_all(&[head, sent].concat()).await.unwrap();
        drop(upstream);
        read_head(&mut client).await.unwrap();
        assert_eq!(text(&rest(&mut client).await), seen, "neither more nor a clean end");
        running.idle().await;
    }
}

#[tokio::test]
async fn inv1_a_client_that_leaves_is_gone_for_the_upstream_too() {
    for answer in [&b""[..], b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n3\r\nabc\r\n"] {
        let agent = Agent::new().await;
        let running = start(proxy_to(agent.at()), Recorder::quick()).await;
        let mut client = running.connect().await;
        client.write_all(b"GET /run/x HTTP/1.1\r\nhost: a\r\nx-input: hi\r\n\r\n").await.unwrap();
        let mut upstream = agent.accept().await;
        read_head(&mut upstream).await.unwrap();
        upstream.write_all(answer).await.unwrap();
        if !answer.is_empty() {
            read_until(&mut client, b"abc\r\n").await.unwrap();
        }
        drop(client);
        assert_eq!(rest(&mut upstream).await, b"", "the upstream sees the end while it works");
        running.idle().await;
        assert_eq!((running.outcome("cancelled"), running.outcomes()), (1, 1));
    }
}

#[tokio::test]
async fn inv1_responses_without_a_body_keep_their_heads() {
    for (method, answer, expected) in [
        ("HEAD", "HTTP/1.1 200 OK\r\ncontent-length: 1234\r\n\r\n", vec!["content-length: 1234"]),
        ("GET", "HTTP/1.1 204 No Content\r\nx-a: 1\r\n\r\n", vec!["x-a: 1"]),
        (
            "GET",
            "HTTP/1.1 304 Not Modified\r\ncontent-length: 1234\r\netag: \"x\"\r\n\r\n",
            vec!["content-length: 1234", "etag: \"x\""],
        ),
        ("POST", "HTTP/1.1 201 Created\r\ncontent-length: 0\r\n\r\n", vec!["content-length: 0"]),
    ] {
        let agent = Agent::new().await;
        let running = start(proxy_to(agent.at()), Recorder::quick()).await;
        let mut client = running.connect().await;
        // Twice on both connections: the first exchange must leave them usable.
        let mut upstream = None;
        for _ in 0..2 {
            client.write_all(format!("{method} /x HTTP/1.1\r\nhost: a\r\n\r\n").as_bytes()).await.unwrap();
            if upstream.is_none() {
                upstream = Some(agent.accept().await);
            }
            let upstream = upstream.as_mut().unwrap();
            read_head(upstream).await.unwrap();
            upstream.write_all(answer.as_bytes()).await.unwrap();
            let head = read_head(&mut client).await.unwrap();
            let lines: Vec<_> = header_lines(&head).iter().map(|l| text(l)).collect();
            assert_eq!(lines, expected, "{method}");
        }
        running.idle().await;
    }
}

#[tokio::test]
async fn an_http_1_0_client_is_spoken_to_as_it_can() {
    let agent = Agent::new().await;
    let running = start(proxy_to(agent.at()), Recorder::quick()).await;
    let mut client = running.connect().await;
    client.write_all(b"GET /x HTTP/1.0\r\n\r\n").await.unwrap();
    let mut upstream = agent.accept().await;
    let head = text(&read_head(&mut upstream).await.unwrap());
    assert!(head.starts_with("GET /x HTTP/1.1\r\n") && head.contains("host: upstream.example\r\n"), "{head}");
    upstream.write_all(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n").await.unwrap();
    assert_eq!(text(&rest(&mut client).await), "HTTP/1.0 200 OK\r\n\r\nok");
    running.idle().await;
}

#[tokio::test]
async fn the_client_and_its_host_are_told_to_the_upstream() {
    let agent = Agent::new().await;
    let mut config = proxy_to(agent.at());
    (config.forwarded, config.preserve_host) = (true, false);
    let running = start(config, Recorder::quick()).await;
    let mut client = running.connect().await;
    client
        .write_all(
            b"GET http://asked.example/p?q HTTP/1.1\r\nhost: ignored\r\nx-forwarded-for: 10.0.0.1\r\nx-forwarded-for: 10.0.0.2\r\n\
              x-forwarded-proto: https\r\n\r\n",
        )
        .await
        .unwrap();
    let mut upstream = agent.accept().await;
    let head = read_head(&mut upstream).await.unwrap();
    assert!(head.starts_with(b"GET /p?q HTTP/1.1\r\n"), "absolute-form becomes origin-form");
    let lines: Vec<_> = header_lines(&head).iter().map(|l| text(l)).collect();
    assert_eq!(
        lines,
        [
            "host: upstream.example",
            "x-forwarded-for: 10.0.0.1, 10.0.0.2, 127.0.0.1",
            "x-forwarded-host: asked.example",
            "x-forwarded-proto: https"
        ]
    );
}

#[tokio::test]
async fn a_body_is_asked_for_when_the_upstream_asks_for_it() {
    let agent = Agent::new().await;
    let running = start(proxy_to(agent.at()), Recorder::quick()).await;
    let mut client = running.connect().await;
    client.write_all(b"POST /x HTTP/1.1\r\nhost: a\r\nexpect: 100-continue\r\ncontent-length: 2\r\n\r\n").await.unwrap();
    let mut upstream = agent.accept().await;
    assert!(text(&read_head(&mut upstream).await.unwrap()).contains("expect: 100-continue"));
    assert!(is_silent(&mut client).await, "nothing is asked of the client before the upstream asks");
    upstream.write_all(b"HTTP/1.1 100 Continue\r\n\r\n").await.unwrap();
    assert_eq!(text(&read_head(&mut client).await.unwrap()), "HTTP/1.1 100 Continue\r\n\r\n");
    client.write_all(b"hi").await.unwrap();
    read_until(&mut upstream, b"hi").await.unwrap();
    upstream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n").await.unwrap();
    assert!(read_head(&mut client).await.unwrap().starts_with(b"HTTP/1.1 200 OK\r\n"));

    // Refused without being asked for: the client gets the refusal and never sends.
    let mut client = running.connect().await;
    client.write_all(b"POST /x HTTP/1.1\r\nhost: a\r\nexpect: 100-continue\r\ncontent-length: 2\r\n\r\n").await.unwrap();
    read_head(&mut upstream).await.unwrap();
    upstream.write_all(b"HTTP/1.1 417 Expectation Failed\r\ncontent-length: 0\r\n\r\n").await.unwrap();
    assert!(read_head(&mut client).await.unwrap().starts_with(b"HTTP/1.1 417 "));
    running.idle().await;
}

#[tokio::test]
async fn what_is_no_request_is_refused() {
    let agent = Agent::new().await;
    let at = agent.at();
    agent.always(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n");
    let running = start(proxy_to(at), Recorder::quick()).await;
    let big = format!("GET / HTTP/1.1\r\nhost: a\r\nx: {}\r\n\r\n", "y".repeat(1 << 20));
    for (request, status) in [
        ("nonsense\r\n\r\n", "400"),
        ("GET / HTTP/1.1\r\nconnection: close\r\n\r\n", "400"),
        ("GET / HTTP/1.1\r\nhost: a\r\nhost: b\r\nconnection: close\r\n\r\n", "400"),
        ("CONNECT a:1 HTTP/1.1\r\nhost: a:1\r\nconnection: close\r\n\r\n", "400"),
        ("POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: gzip, chunked\r\nconnection: close\r\n\r\n0\r\n\r\n", "400"),
        (big.as_str(), "431"),
    ] {
        let mut client = running.connect().await;
        let _ = client.write_all(request.as_bytes()).await;
        let answer = text(&rest(&mut client).await);
        assert!(answer.starts_with(&format!("HTTP/1.1 {status} ")), "{:?} got {answer:?}", &request[..40.min(request.len())]);
    }
}

#[tokio::test]
async fn inv1_an_upload_goes_on_while_the_client_reads_nothing() {
    const UP: usize = 1 << 20;
    let agent = Agent::new().await;
    let running = start(proxy_to(agent.at()), Recorder::quick()).await;
    let mut client = running.connect().await;
    client.write_all(format!("POST /x HTTP/1.1\r\nhost: a\r\ncontent-length: {}\r\n\r\n1", UP + 1).as_bytes()).await.unwrap();
    let mut upstream = agent.accept().await;
    read_until(&mut upstream, b"\r\n\r\n1").await.unwrap();
    upstream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 1000000000\r\n\r\n").await.unwrap();
    let down = fill(&mut upstream).await;
    let (mut from_client, to_upstream) = (vec![0; UP], vec![b'u'; UP]);
    let both = async { tokio::join!(client.write_all(&to_upstream), upstream.read_exact(&mut from_client)) };
    let (up, read) = tokio::time::timeout(Duration::from_secs(60), both).await.expect("the upload waits for the download");
    up.unwrap();
    read.unwrap();
    assert!(from_client == to_upstream);
    // What came before the break is not lost with it.
    drop(upstream);
    read_head(&mut client).await.unwrap();
    assert_eq!(rest(&mut client).await.len(), down);
    running.idle().await;
}
