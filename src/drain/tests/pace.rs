//! How much goes out, and how soon.

use std::collections::VecDeque;
use std::sync::atomic::AtomicU32;

use super::*;

#[tokio::test(start_paused = true)]
async fn the_drain_takes_what_the_backend_needs_and_no_more() {
    // The seed case: 13 s a write. N·t/W = 100 · 13 / 10 = 130 s.
    let graph = Graph::new(None, |_, _| Act::Take(secs(13)));
    let bench = Bench::new(sink_config(10), &graph);
    let began = Instant::now();
    bench.fill(20, 100).await;
    bench.until_empty().await;
    assert!(began.elapsed().as_secs_f64() <= 1.05 * 130.0, "{:?}", began.elapsed());
    graph.assert_once_and_in_order(100);
}

/// When each delivery began, in seconds.
type Begun = Arc<Mutex<Vec<f64>>>;

/// A graph that notes when deliveries begin.
fn noting(begun: &Begun, mut act: impl FnMut(usize) -> Act + Send + 'static) -> Arc<Graph> {
    let (begun, start) = (begun.clone(), Instant::now());
    Graph::new(None, move |_, n| {
        begun.lock().unwrap().push(start.elapsed().as_secs_f64());
        act(n)
    })
}

#[tokio::test(start_paused = true)]
async fn a_rate_is_kept_to_and_made_full_use_of() {
    let begun = Begun::default();
    let graph = noting(&begun, |_| Act::Take(Duration::from_millis(70)));
    let rate = config::Rate { per_second: 8.0, burst: 4 };
    let bench = Bench::new(config::Sink { rate, ..sink_config(10) }, &graph);
    let start = Instant::now();
    bench.fill(40, 164).await;
    bench.until_empty().await;
    let took = start.elapsed().as_secs_f64();
    assert!((20.0..21.0).contains(&took), "4 at once, 160 at 8 a second: {took}");
    let begun = begun.lock().unwrap();
    for (at, first) in begun.iter().enumerate() {
        for (n, last) in begun[at..].iter().enumerate() {
            #[allow(clippy::cast_precision_loss)]
            let n = (n + 1) as f64;
            assert!(n <= 4.0 + 8.0 * (last - first + 0.007), "{n} from {first} to {last}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn what_an_attempt_sends_again_counts_for_the_rate_and_looking_does_not() {
    // Each is in doubt once: 20 sendings for 10 episodes, and hundreds of looks.
    let begun = Begun::default();
    let (seen, note, start) = (Mutex::new(std::collections::HashSet::new()), begun.clone(), Instant::now());
    let graph = Graph::new(None, move |d, _| {
        note.lock().unwrap().push(start.elapsed().as_secs_f64());
        if seen.lock().unwrap().insert(d.episode.id) { Act::Lose } else { Act::Take(Duration::ZERO) }
    });
    let rate = config::Rate { per_second: 0.1, burst: 1 };
    let config = config::Sink { rate, breaker: Breaker::in_a_row(0, secs(60)), ..sink_config(5) };
    let bench = Bench::new(config, &graph);
    bench.fill(10, 10).await;
    bench.until_empty().await;
    let begun = begun.lock().unwrap();
    assert_eq!(begun.len(), 20);
    assert!(begun.windows(2).all(|w| w[1] - w[0] > 9.9), "{begun:?}");
    assert!(begun[19] < 10.0 * 19.0 + 1.0, "{begun:?}");
    graph.assert_once_and_in_order(10);
}

/// What a service that takes so many a second does with what comes.
struct Limited {
    per_second: Arc<AtomicU32>,
    by: By,
    start: Instant,
    taken: VecDeque<Instant>,
    tokens: f64,
    at: Instant,
}

#[derive(Debug, Clone, Copy)]
enum By {
    /// Each second of its clock.
    Second,
    /// A bucket that holds half a second's worth.
    Bucket,
}

impl Limited {
    fn new(per_second: &Arc<AtomicU32>, by: By) -> Self {
        let now = Instant::now();
        Self { per_second: per_second.clone(), by, start: now, taken: VecDeque::new(), tokens: 0.0, at: now }
    }

    fn takes(&mut self) -> bool {
        let (now, limit) = (Instant::now(), self.per_second.load(Ordering::Relaxed));
        let since = now - self.start;
        let window = match self.by {
            By::Second => now - Duration::from_nanos(u64::from(since.subsec_nanos())),
            By::Bucket => {
                let gained = (now - self.at).as_secs_f64() * f64::from(limit);
                (self.at, self.tokens) = (now, (self.tokens + gained).min(f64::from(limit) / 2.0));
                let takes = self.tokens >= 1.0;
                self.tokens -= f64::from(u8::from(takes));
                return takes;
            }
        };
        while self.taken.front().is_some_and(|at| *at < window) {
            self.taken.pop_front();
        }
        let takes = self.taken.len() < limit as usize;
        if takes {
            self.taken.push_back(now);
        }
        takes
    }
}

#[tokio::test(start_paused = true)]
async fn an_adaptive_sink_finds_the_pace_of_a_service_and_finds_out_when_it_has_grown() {
    for by in [By::Second, By::Bucket] {
        // 429 beyond 30 writes a second; t = 100 ms, so three at once are just enough; `workers` is far more.
        let per_second = Arc::new(AtomicU32::new(30));
        let refused = Arc::new(AtomicUsize::new(0));
        let (mut limited, count) = (Limited::new(&per_second, by), refused.clone());
        let graph = Graph::new(None, move |_, _| {
            if limited.takes() {
                return Act::Take(Duration::from_millis(100));
            }
            count.fetch_add(1, Ordering::Relaxed);
            Act::Fail(Cause::Status(429), None)
        });
        let bench = Bench::new(config::Sink { adaptive: true, ..sink_config(100) }, &graph);
        let measure = async |seconds: u64| {
            let counts = || [bench.count().delivered, refused.load(Ordering::Relaxed) as u64];
            let before = counts();
            tokio::time::sleep(secs(seconds)).await;
            let after = counts();
            #[allow(clippy::cast_precision_loss)]
            let [taken, no] = [0, 1].map(|n| (after[n] - before[n]) as f64);
            #[allow(clippy::cast_precision_loss)]
            let (rate, share) = (taken / seconds as f64, no / (taken + no));
            println!("{by:?}: {rate:.1}/s, {:.1} % refused", share * 100.0);
            (rate, share)
        };
        for n in 1..=9_000 {
            bench.append(n % 400, n).await;
        }
        let _warm_up = measure(20).await;
        let (rate, share) = measure(30).await;
        assert!(rate > 0.9 * 30.0 && share < 0.05, "{by:?}: {rate} a second, {share} refused");
        per_second.store(200, Ordering::Relaxed);
        let _finds_out = measure(45).await;
        let (rate, share) = measure(10).await;
        assert!(rate > 0.9 * 200.0 && share < 0.05, "{by:?}: {rate} a second, {share} refused");
    }
}
