//! Either side may disappear at any moment. Then the other is told at once, and nothing is left behind: no task, no connection, no
//! place in the line.

use std::panic::AssertUnwindSafe;
use std::task::Poll;
use std::time::Instant;

use super::peer::{Asked, Client, End, Framing, Http, Leave, Upstream, VERSIONS};
use super::*;

/// When it leaves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Moment {
    /// One waits in line for a place that another has.
    InLine,
    /// The request is sent, and the upstream thinks.
    BeforeHead,
    MidRequest,
    MidResponse,
    AfterLastByte,
}

const MOMENTS: [Moment; 5] = [Moment::InLine, Moment::BeforeHead, Moment::MidRequest, Moment::MidResponse, Moment::AfterLastByte];

#[derive(Debug, Clone, Copy)]
struct Case {
    moment: Moment,
    /// The request has no body.
    bare: bool,
    framing: Framing,
    client: Http,
    upstream: Http,
    leave: Leave,
}

/// Every case in which the side that leaves, of the version `of`, can leave so.
fn cases(of: impl Fn(&Case) -> Http) -> Vec<Case> {
    let mut cases = Vec::new();
    for (moment, bare) in MOMENTS.into_iter().flat_map(|moment| [(moment, false), (moment, true)]) {
        for framing in [Framing::Length, Framing::Stream] {
            for (client, upstream) in VERSIONS.into_iter().flat_map(|client| VERSIONS.map(|upstream| (client, upstream))) {
                for leave in [Leave::Close, Leave::Reset, Leave::Cancel] {
                    cases.push(Case { moment, bare, framing, client, upstream, leave });
                }
            }
        }
    }
    cases.retain(|case| match case.moment {
        // A stream that has ended can't be reset any more.
        Moment::AfterLastByte => case.leave != Leave::Cancel,
        Moment::MidRequest => !case.bare,
        _ => true,
    });
    cases.retain(|case| case.leave != Leave::Cancel || of(case) == Http::Two);
    cases
}

/// Far longer than any case takes.
const LIMIT: Duration = Duration::from_secs(10);

fn tasks() -> usize {
    tokio::runtime::Handle::current().metrics().num_alive_tasks()
}

/// A case that is over.
struct Left {
    running: Running,
    /// Tasks that there were before it.
    before: usize,
    /// How long it took until the other side knew.
    took: Duration,
}

/// Runs each case, in a runtime of its own, until the other side is told in time: a machine may be busy once, but not each time.
fn in_time<F: Future<Output = Left>>(cases: &[Case], run: impl Fn(Case) -> F) {
    let mut failed = Vec::new();
    for &case in cases {
        let once = || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async {
                let left = tokio::time::timeout(LIMIT, run(case)).await.unwrap_or_else(|_| panic!("{case:?} hangs"));
                settled(case, &left.running, left.before).await;
                left.took
            })
        };
        let quick = std::panic::catch_unwind(AssertUnwindSafe(|| (0..5).any(|_| once() < Duration::from_millis(100))));
        match quick {
            Ok(true) => {}
            Ok(false) => failed.push(format!("{case:?}: told too late")),
            Err(_) => failed.push(format!("{case:?}: see its panic")),
        }
    }
    assert!(failed.is_empty(), "of {} cases: {failed:#?}", cases.len());
}

/// Nothing is left of what a test did since there were `before` tasks.
async fn settled(case: Case, running: &Running, before: usize) {
    running.idle().await;
    let gauges = [&running.metrics.http_in_flight, &running.metrics.http_waiting];
    assert_eq!(gauges.map(|gauge| gauge.with_label_values(&["agent"]).get()), [0, 0]);
    // Connections that are kept for the next exchange are no leak: they go when they are old. Everything else in these tests would
    // stay for an hour.
    for _ in 0..100 {
        tokio::time::pause();
        for _ in 0..1000 {
            if tasks() == before {
                tokio::time::resume();
                return;
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        tokio::time::resume();
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("{case:?}: {} tasks, {before} before", tasks());
}

async fn world(case: Case, clients: Leave, upstreams: Leave) -> (Running, Upstream, Client, usize) {
    let upstream = Upstream::new(case.upstream, upstreams).await;
    let mut config = upstream.proxy();
    if case.moment == Moment::InLine {
        config.max_in_flight = 1;
    }
    let running = start(config, Recorder::quick()).await;
    // Let what was spawned begin.
    tokio::task::yield_now().await;
    let before = tasks();
    let client = Client::connect(running.at, case.client, clients).await;
    (running, upstream, client, before)
}

const UP: &[u8] = b"going up";
const DOWN: &[u8] = b"coming down";

/// Brings an exchange to the case's moment. In [`Moment::InLine`] it is another's exchange, and the client's waits behind it.
async fn until_moment(case: Case, running: &Running, upstream: &mut Upstream, client: &mut Client) -> (Asked, Option<Client>) {
    let other = if case.moment == Moment::InLine {
        let mut other = Client::connect(running.at, Http::One, Leave::Close).await;
        other.ask("GET", "/first", case.framing, 0).await;
        Some(other)
    } else {
        client.ask("POST", "/run/x", case.framing, if case.bare { 0 } else { 2 * UP.len() }).await;
        None
    };
    if other.is_none() && !case.bare {
        client.send(UP, false).await;
    }
    let mut asked = upstream.request().await;
    if case.moment == Moment::InLine {
        client.ask("POST", "/run/x", case.framing, 0).await;
        eventually(|| running.proxy.waiting() == 1).await;
        return (asked, other);
    }
    if !case.bare {
        assert_eq!(asked.read(UP.len()).await, UP);
        if case.moment == Moment::MidRequest {
            return (asked, None);
        }
        client.send(UP, true).await;
        assert_eq!(asked.rest().await, (UP.to_vec(), End::Clean));
    }
    if case.moment == Moment::BeforeHead {
        return (asked, None);
    }
    asked.answer(case.framing, 2 * DOWN.len()).await;
    asked.send(DOWN, false).await;
    if case.moment == Moment::AfterLastByte {
        asked.send(DOWN, true).await;
        assert_eq!(client.head().await.status(), 200);
        assert_eq!(client.rest().await, ([DOWN, DOWN].concat(), End::Clean));
    }
    (asked, None)
}

async fn client_leaves(case: Case) -> Left {
    let (running, mut upstream, mut client, before) = world(case, case.leave, Leave::Close).await;
    let (mut asked, other) = until_moment(case, &running, &mut upstream, &mut client).await;
    if case.moment == Moment::MidResponse {
        assert_eq!(client.head().await.status(), 200);
        assert_eq!(client.read(DOWN.len()).await, DOWN);
    }
    let left = Instant::now();
    client.leave();
    match case.moment {
        Moment::InLine => eventually(|| running.proxy.waiting() == 0).await,
        // There is nothing to tell.
        Moment::AfterLastByte => {}
        _ => asked.told().await,
    }
    let took = left.elapsed();
    if let Some(mut other) = other {
        asked.answer(case.framing, DOWN.len()).await;
        asked.send(DOWN, true).await;
        assert_eq!(other.head().await.status(), 200);
        assert_eq!(other.rest().await, (DOWN.to_vec(), End::Clean));
    }
    drop((asked, client));
    Left { running, before, took }
}

async fn upstream_leaves(case: Case) -> Left {
    let (running, mut upstream, mut client, before) = world(case, Leave::Close, case.leave).await;
    let (mut asked, other) = until_moment(case, &running, &mut upstream, &mut client).await;
    let causal = case.leave != Leave::Close || case.upstream == Http::Two;
    if case.moment == Moment::MidResponse && causal {
        // Who resets takes back what is still on its way.
        assert_eq!(client.head().await.status(), 200);
        assert_eq!(client.read(DOWN.len()).await, DOWN);
    }
    let left = Instant::now();
    asked.leave().await;
    match case.moment {
        Moment::InLine | Moment::AfterLastByte => {}
        Moment::BeforeHead | Moment::MidRequest => refused(&mut client).await,
        Moment::MidResponse if !causal => {
            assert_eq!(client.head().await.status(), 200);
            assert_eq!(client.rest().await, (DOWN.to_vec(), End::Broken));
        }
        Moment::MidResponse => assert_eq!(client.rest().await, (Vec::new(), End::Broken), "{case:?}"),
    }
    if let Some(mut other) = other {
        refused(&mut other).await;
    }
    let took = left.elapsed();
    if let Moment::InLine | Moment::AfterLastByte = case.moment {
        if case.moment == Moment::AfterLastByte {
            client.ask("GET", "/run/x", case.framing, 0).await;
        }
        asked = upstream.request().await;
        assert_eq!(asked.rest().await.1, End::Clean);
        asked.answer(case.framing, DOWN.len()).await;
        asked.send(DOWN, true).await;
        assert_eq!(client.head().await.status(), 200);
        assert_eq!(client.rest().await, (DOWN.to_vec(), End::Clean));
    }
    drop((asked, client));
    Left { running, before, took }
}

async fn refused(client: &mut Client) {
    let head = client.head().await;
    assert_eq!((head.status().as_u16(), &head.headers()["x-offramp-error"]), (502, &"upstream_protocol".parse().unwrap()));
    assert_eq!(client.rest().await.1, End::Clean);
}

#[test]
fn inv1_inv9_a_client_may_disappear_at_any_moment() {
    in_time(&cases(|case| case.client), client_leaves);
}

#[test]
fn inv1_inv9_an_upstream_may_disappear_at_any_moment() {
    in_time(&cases(|case| case.upstream), upstream_leaves);
}

/// A complete request over HTTP/1 whose client has closed its half, and whose upstream knows.
async fn half_closed(upstream: Http) -> (Running, Client, Asked) {
    let mut upstream = Upstream::new(upstream, Leave::Close).await;
    let running = start(upstream.proxy(), Recorder::quick()).await;
    let mut client = Client::connect(running.at, Http::One, Leave::Close).await;
    client.ask("POST", "/run/x", Framing::Length, UP.len()).await;
    client.send(UP, true).await;
    let mut asked = upstream.request().await;
    assert_eq!(asked.rest().await, (UP.to_vec(), End::Clean));
    client.close_half().await;
    asked.told().await;
    (running, client, asked)
}

#[tokio::test]
async fn inv1_a_client_that_closes_its_half_still_gets_its_answer() {
    for framing in [Framing::Length, Framing::Stream] {
        let (running, mut client, mut asked) = half_closed(Http::One).await;
        asked.answer(framing, 2 * DOWN.len()).await;
        asked.send(DOWN, false).await;
        assert_eq!(client.head().await.status(), 200);
        assert_eq!(client.read(DOWN.len()).await, DOWN);
        asked.send(DOWN, true).await;
        assert_eq!(client.rest().await, (DOWN.to_vec(), End::Clean));
        running.idle().await;
    }
}

#[tokio::test]
async fn inv1_a_client_may_close_its_half_with_its_last_byte() {
    for (framing, size) in [(Framing::Length, 5), (Framing::Stream, 5), (Framing::Length, 300_000), (Framing::Stream, 300_000)] {
        let mut upstream = Upstream::new(Http::One, Leave::Close).await;
        let running = start(upstream.proxy(), Recorder::quick()).await;
        let mut client = Client::connect(running.at, Http::One, Leave::Close).await;
        let body: &'static [u8] = vec![b'x'; size].leak();
        let mut asked = None;
        client.ask("POST", "/run/x", framing, size).await;
        let sending = async {
            // All of it at once where it fits into the buffers on the way, or as they become free.
            client.send(body, true).await;
            client.close_half().await;
        };
        tokio::join!(sending, async { asked = Some(upstream.request().await) });
        let mut asked = asked.unwrap();
        assert_eq!(asked.rest().await, (body.to_vec(), End::Clean));
        asked.answer(framing, DOWN.len()).await;
        asked.send(DOWN, true).await;
        assert_eq!(client.head().await.status(), 200);
        assert_eq!(client.rest().await, (DOWN.to_vec(), End::Clean));
        running.idle().await;
    }
}

#[tokio::test]
async fn inv1_a_client_that_closed_its_half_is_not_waited_for_for_ever() {
    let (running, mut client, _asked) = half_closed(Http::One).await;
    assert_eq!(running.proxy.in_flight(), 1);
    tokio::time::pause();
    let paused = tokio::time::Instant::now();
    running.idle().await;
    let waited = paused.elapsed();
    // Part of the 2 s may have passed before.
    assert!((Duration::from_secs(1)..Duration::from_secs(3)).contains(&waited), "{waited:?}");
    tokio::time::resume();
    assert_eq!(client.everything().await, b"");
}

#[tokio::test]
async fn a_request_that_went_down_with_a_shared_connection_is_repeated() {
    for refused in [true, false] {
        let mut upstream = Upstream::new(Http::Two, Leave::Close).await;
        let running = start(upstream.proxy(), Recorder::quick()).await;
        let mut client = Client::connect(running.at, Http::One, Leave::Close).await;
        for lost in [false, true] {
            client.ask("GET", "/run/x", Framing::Length, 0).await;
            let mut asked = upstream.request().await;
            if lost {
                if refused {
                    asked.refuse();
                } else {
                    asked.leave().await;
                }
                asked = upstream.request().await;
            }
            asked.answer(Framing::Length, DOWN.len()).await;
            asked.send(DOWN, true).await;
            assert_eq!(client.head().await.status(), 200);
            assert_eq!(client.rest().await, (DOWN.to_vec(), End::Clean));
        }
        running.idle().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn inv1_what_came_before_the_break_is_not_overtaken_by_it() {
    for http in VERSIONS {
        let mut upstream = Upstream::new(Http::One, Leave::Close).await;
        let running = start(upstream.proxy(), Recorder::quick()).await;
        for _ in 0..50 {
            let mut client = Client::connect(running.at, http, Leave::Close).await;
            client.ask("GET", "/x", Framing::Length, 0).await;
            let mut asked = upstream.request().await;
            asked.answer(Framing::Stream, 0).await;
            asked.send(DOWN, false).await;
            asked.leave().await;
            assert_eq!(client.head().await.status(), 200);
            assert_eq!(client.rest().await, (DOWN.to_vec(), End::Broken));
        }
        running.idle().await;
    }
}

#[tokio::test]
async fn inv1_a_slow_client_gets_all_that_came_before_the_break() {
    for version in ["1.1", "1.0"] {
        let agent = Agent::new().await;
        let running = start(proxy_to(agent.at()), Recorder::quick()).await;
        let mut client = running.connect().await;
        client.write_all(format!("GET /x HTTP/{version}\r\nhost: a\r\n\r\n").as_bytes()).await.unwrap();
        let mut upstream = agent.accept().await;
        read_head(&mut upstream).await.unwrap();
        upstream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 1000000000\r\n\r\n").await.unwrap();
        let down = fill(&mut upstream).await;
        drop(upstream);
        read_head(&mut client).await.unwrap();
        let (mut got, mut piece) = (0, vec![0; 1 << 16]);
        loop {
            // It ends before it is complete, which is break enough: no reset, which would take back what is on its way.
            let read = client.read(&mut piece).await.unwrap();
            if read == 0 {
                break;
            }
            got += read;
            // The slowness itself: the end comes to offramp while it has much of the rest.
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        assert_eq!(got, down, "{version}");
        running.idle().await;
    }
}

#[tokio::test]
async fn inv1_a_slow_client_of_http2_gets_all_that_came_before_the_break() {
    let agent = Agent::new().await;
    let running = start(proxy_to(agent.at()), Recorder::quick()).await;
    let socket = tokio::net::TcpSocket::new_v4().unwrap();
    socket.set_recv_buffer_size(1 << 16).unwrap();
    let socket = socket.connect(running.at).await.unwrap();
    let mut wide = h2::client::Builder::new();
    wide.initial_window_size(1 << 30).initial_connection_window_size(1 << 30);
    let (mut client, mut connection) = wide.handshake::<_, bytes::Bytes>(socket).await.unwrap();
    let (asked, _) = client.send_request(http::Request::get("http://a/x").body(()).unwrap(), true).unwrap();
    let mut upstream = tokio::select! {
        ended = &mut connection => panic!("{ended:?}"),
        upstream = agent.accept() => upstream,
    };
    read_head(&mut upstream).await.unwrap();
    upstream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 1000000000\r\n\r\n").await.unwrap();
    let down = fill(&mut upstream).await;
    drop(upstream);
    let reading = async {
        let mut body = asked.await.unwrap().into_body();
        let mut got = 0;
        loop {
            match body.data().await {
                Some(Ok(data)) => got += data.len(),
                Some(Err(error)) => return (got, error.is_reset()),
                None => panic!("it looks complete"),
            }
        }
    };
    let mut reading = std::pin::pin!(reading);
    let read = loop {
        tokio::select! {
            biased;
            read = &mut reading => break read,
            // One turn.
            () = std::future::poll_fn(|cx| { let _ = Pin::new(&mut connection).poll(cx); Poll::Ready(()) }) => {}
        }
        // The slowness itself: the end comes to offramp while it has much of the rest.
        tokio::time::sleep(Duration::from_millis(30)).await;
    };
    assert_eq!(read, (down, true));
    running.idle().await;
}
