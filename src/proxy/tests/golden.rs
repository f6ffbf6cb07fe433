//! The golden streams through the proxy: in pieces, cut anywhere, with a pause after each that lasts until the client has it. So nothing
//! may be held back, and whatever the pieces are, the episode is the same.

use super::*;
use crate::capture::golden::{Body, Ending, Exchange, cases, routes, shown};

const PIECES: usize = 8;

fn lines(headers: &HashMap<String, String>) -> String {
    let framing = ["content-length", "transfer-encoding", "host", "connection"];
    let own = headers.iter().filter(|(name, _)| !framing.contains(&name.as_str()));
    own.map(|(name, value)| format!("{name}: {value}\r\n")).collect::<Vec<_>>().concat()
}

/// Has the upstream answer in these pieces. Fails if one of them doesn't come before the next is sent.
async fn converse(running: &Running, agent: &Agent, exchange: &Exchange, cuts: &[usize]) {
    let Exchange { request, response, .. } = exchange;
    let (asked, answer) = (request.body.bytes(), response.body.bytes());
    let mut client = running.connect().await;
    let head = format!(
        "{} {} HTTP/1.1\r\nhost: a\r\n{}content-length: {}\r\n\r\n",
        request.method,
        request.target,
        lines(&request.headers),
        asked.len()
    );
    client.write_all(&[head.as_bytes(), &asked].concat()).await.unwrap();
    let mut upstream = agent.accept().await;
    read_head(&mut upstream).await.unwrap();
    upstream.read_exact(&mut vec![0; asked.len()]).await.unwrap();
    let head = format!("HTTP/1.1 {} OK\r\n{}transfer-encoding: chunked\r\n\r\n", response.status, lines(&response.headers));
    upstream.write_all(head.as_bytes()).await.unwrap();
    read_head(&mut client).await.unwrap();
    for ends in cuts.windows(2).filter(|ends| ends[0] < ends[1]) {
        let piece = &answer[ends[0]..ends[1]];
        let chunk = [format!("{:X}\r\n", piece.len()).as_bytes(), piece, b"\r\n"].concat();
        upstream.write_all(&chunk).await.unwrap();
        let mut came = vec![0; chunk.len()];
        client.read_exact(&mut came).await.unwrap();
        assert!(came == chunk, "as it was sent");
    }
    upstream.write_all(b"0\r\n\r\n").await.unwrap();
    client.read_exact(&mut [0; 5]).await.unwrap();
}

#[tokio::test]
async fn inv1_golden_streams_pass_piece_by_piece_and_become_their_episodes() {
    let mut random = fastrand::Rng::with_seed(4);
    let mut passed = 0;
    for (name, preset, case) in cases() {
        let [exchange] = case.exchanges.as_slice() else { continue };
        if !matches!((&exchange.response.body, exchange.ending), (Body::Lines(_), Ending::Complete)) {
            continue;
        }
        let agent = Agent::new().await;
        let recorder = Recorder::quick();
        let mut config = proxy_to(agent.at());
        config.routes = routes(&preset, &case);
        let running = start(config, recorder.clone()).await;
        let length = exchange.response.body.bytes().len();
        let mut cuts: Vec<_> = (0..PIECES).map(|_| random.usize(..=length)).chain([0, length]).collect();
        cuts.sort_unstable();
        let conversation = converse(&running, &agent, exchange, &cuts);
        let in_time = tokio::time::timeout(Duration::from_secs(30), conversation).await;
        assert!(in_time.is_ok(), "{name}: a piece is held back; cut at {cuts:?}");
        running.idle().await;
        let episodes = recorder.episodes.lock().unwrap().iter().map(|(episode, ..)| shown(episode)).collect::<Vec<_>>();
        assert_eq!(episodes, exchange.episode.iter().cloned().collect::<Vec<_>>(), "{name}, cut at {cuts:?}");
        passed += 1;
    }
    assert!(passed > 50, "{passed}");
}
