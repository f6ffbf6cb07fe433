//! Invariant 1: however a response is cut up on its way, the client gets the same bytes, and each of them when it was sent.

use proptest::prelude::*;

use super::peer::{Client, End, Framing, Http, Leave, Upstream};
use super::*;

/// What an upstream sends: each byte, and whether it is one of the body's.
type Wire = Vec<(u8, bool)>;

fn wire(body: &[u8], framing: Option<Framing>, chunk: usize) -> Wire {
    let frame = |bytes: &str| bytes.bytes().map(|b| (b, false)).collect::<Wire>();
    let data = |bytes: &[u8]| bytes.iter().map(|&b| (b, true)).collect::<Wire>();
    match framing {
        None => [frame("HTTP/1.1 200 OK\r\n\r\n"), data(body)].concat(),
        Some(Framing::Length) => {
            [frame(&format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n", body.len())), data(body)].concat()
        }
        Some(Framing::Stream) => {
            let chunks = body.chunks(chunk).flat_map(|c| [frame(&format!("{:x}\r\n", c.len())), data(c), frame("\r\n")].concat());
            [frame("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n"), chunks.collect(), frame("0\r\n\r\n")].concat()
        }
    }
}

/// A response, and how it travels.
#[derive(Debug, Clone)]
struct Journey {
    client: Http,
    upstream: Http,
    /// None: until the connection closes, which only HTTP/1 knows.
    framing: Option<Framing>,
    chunk: usize,
    cuts: Vec<prop::sample::Index>,
    captured: bool,
}

fn journeys() -> impl Strategy<Value = Journey> {
    let http = || prop_oneof![Just(Http::One), Just(Http::Two)];
    let framing = prop_oneof![Just(None), Just(Some(Framing::Length)), Just(Some(Framing::Stream))];
    let cuts = prop::collection::vec(any::<prop::sample::Index>(), 0..8);
    (http(), http(), framing, 1_usize..4000, cuts, any::<bool>()).prop_map(
        |(client, upstream, framing, chunk, cuts, captured)| {
            let framing = if upstream == Http::Two { framing.or(Some(Framing::Stream)) } else { framing };
            Journey { client, upstream, framing, chunk, cuts, captured }
        },
    )
}

/// Sends a body. At each cut the upstream waits until the client has seen every byte so far: nothing may be held back for what
/// comes later. (The last byte of what is captured waits for its commit, which comes at once here.)
async fn send(journey: &Journey, body: &[u8]) -> (Vec<u8>, Option<Episode>) {
    let mut upstream = Upstream::new(journey.upstream, Leave::Close).await;
    let recorder = Recorder::quick();
    let running = start(upstream.proxy(), recorder.clone()).await;
    let mut client = Client::connect(running.at, journey.client, Leave::Close).await;
    client.ask("POST", if journey.captured { "/run/x" } else { "/x" }, Framing::Length, 0).await;
    let mut asked = upstream.request().await;
    let wire = match journey.upstream {
        Http::One => wire(body, journey.framing, journey.chunk),
        Http::Two => {
            asked.answer(journey.framing.unwrap_or(Framing::Stream), body.len()).await;
            body.iter().map(|&b| (b, true)).collect()
        }
    };
    let mut cuts: Vec<_> = journey.cuts.iter().map(|cut| cut.index(wire.len())).collect();
    cuts.sort_unstable();
    let (mut sent, mut seen) = (0, None);
    for cut in cuts.into_iter().chain([wire.len()]) {
        let part: Vec<_> = wire[sent..cut].iter().map(|&(b, _)| b).collect();
        asked.send_raw(part, cut == wire.len()).await;
        sent = cut;
        let head_is_there = journey.upstream == Http::Two || text(&bytes(&wire[..cut])).contains("\r\n\r\n");
        if head_is_there && seen.is_none() {
            assert_eq!(client.head().await.status(), 200);
            seen = Some(Vec::new());
        }
        if let Some(seen) = &mut seen {
            let visible = wire[..cut].iter().filter(|(_, of_body)| *of_body).count();
            seen.extend(client.read(visible - seen.len()).await);
        }
    }
    if journey.framing.is_none() {
        asked.leave().await;
    }
    assert_eq!(client.rest().await, (Vec::new(), End::Clean));
    running.idle().await;
    let episode = if journey.captured { recorder.appended(1).await.pop() } else { None };
    (seen.unwrap_or_default(), episode)
}

fn bytes(wire: &[(u8, bool)]) -> Vec<u8> {
    wire.iter().map(|&(b, _)| b).collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]

    /// The client gets the same bytes, none of them later than the upstream's pauses, and the tee the same text.
    #[test]
    fn inv1_bytes_stay_the_same_and_none_is_held_back_wherever_they_are_split(
        message in "[ -!#-\\[\\]-~\u{80}-\u{7ff}]{1,3000}",
        journey in journeys(),
    ) {
        let body = serde_json::json!({ "message": message }).to_string().into_bytes();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let limit = Duration::from_secs(10);
        let (seen, episode) = runtime.block_on(async { tokio::time::timeout(limit, send(&journey, &body)).await.expect("a byte is held back") });
        prop_assert_eq!(seen, body);
        if let Some(episode) = episode {
            prop_assert_eq!(&episode.messages[0].content, &message);
        }
    }
}
