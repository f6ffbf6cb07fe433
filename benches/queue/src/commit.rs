//! N producers, each of which appends its next record when it has the answer to the last: the queue and a bare log in turns.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use offramp::episode::Episode;
use offramp::queue::{Lane, New, Queue, SinkId};
use tokio::runtime::{Builder, Runtime};
use uuid::Uuid;

use crate::args::Args;
use crate::log::{self, Log};
use crate::measure::{percentile, process_cpu, threads_cpu};

/// Single fdatasyncs a round.
const SYNCS: usize = 400;

/// What a run of some producers came to.
#[derive(Clone, Copy)]
struct Figures {
    per_second: f64,
    p50: f64,
    p99: f64,
    /// Microseconds of CPU a record: all of the process, the writer's thread, the producers' threads.
    cpu: f64,
    writer: f64,
    producers: f64,
}

/// A round: the disk by itself, the bare log, the queue.
struct Round {
    sync_p50: f64,
    sync_p99: f64,
    log: Figures,
    queue: Figures,
}

pub fn run(args: &Args) -> io::Result<()> {
    let (path, seconds, rounds): (PathBuf, f64, usize) = (args.get("path")?, args.get("seconds")?, args.get("rounds")?);
    let producers = crate::numbers(args, "producers")?;
    fs::create_dir_all(&path)?;
    let runtime = Builder::new_multi_thread().worker_threads(2).thread_name("producer").build()?;
    let mut measured: Vec<Vec<Round>> = producers.iter().map(|_| Vec::new()).collect();
    for _ in 0..rounds {
        for (n, into) in producers.iter().zip(&mut measured) {
            into.push(round(&runtime, &path, *n, Duration::from_secs_f64(seconds))?);
        }
    }
    println!(
        "medians of {rounds} rounds of {seconds} s; times in us; CPU in us a record: all, its writer's thread, its producers' threads"
    );
    for (n, rounds) in producers.iter().zip(&measured) {
        report(*n, rounds);
    }
    Ok(())
}

fn report(producers: usize, rounds: &[Round]) {
    let median = |of: &dyn Fn(&Round) -> f64| percentile(&mut rounds.iter().map(of).collect::<Vec<_>>(), 50);
    println!("\n{producers} waiting   fdatasync p50 {:.0} p99 {:.0}", median(&|r| r.sync_p50), median(&|r| r.sync_p99));
    let line = |name: &str, of: fn(&Round) -> Figures| {
        println!(
            "  {name:<6} {:>7.0}/s   ack p50 {:>5.0} p99 {:>5.0}   CPU {:>5.1} (writer {:.1}, producers {:.1})",
            median(&|r| of(r).per_second),
            median(&|r| of(r).p50),
            median(&|r| of(r).p99),
            median(&|r| of(r).cpu),
            median(&|r| of(r).writer),
            median(&|r| of(r).producers)
        );
    };
    line("log", |r| r.log);
    line("queue", |r| r.queue);
    println!(
        "  queue / log {:.2} records/s, {:.2} CPU; queue ack p50 {:.1} x fdatasync p50, p99 {:.1} x fdatasync p99",
        median(&|r| r.queue.per_second / r.log.per_second),
        median(&|r| r.queue.cpu / r.log.cpu),
        median(&|r| r.queue.p50 / r.sync_p50),
        median(&|r| r.queue.p99 / r.sync_p99)
    );
}

fn round(runtime: &Runtime, path: &Path, producers: usize, time: Duration) -> io::Result<Round> {
    let file = path.join("log");
    let mut syncs = log::syncs(&file, SYNCS)?;
    let (sync_p50, sync_p99) = (percentile(&mut syncs, 50), percentile(&mut syncs, 99));

    let log = Arc::new(Log::open(&file)?);
    let of_log = drive(runtime, time, "log-writer", (0..producers).map(|_| ToLog { log: log.clone(), record: vec![7; 2048] }))?;
    Arc::into_inner(log).map_or(Ok(()), Log::close)?;
    fs::remove_file(&file)?;

    let directory = path.join("queue");
    let queue = crate::open(&directory)?;
    let of_queue = drive(runtime, time, "queue-writer", (0..producers).map(|n| ToQueue::new(&queue, n)))?;
    queue.close();
    drop(queue);
    fs::remove_dir_all(&directory)?;
    Ok(Round { sync_p50, sync_p99, log: of_log, queue: of_queue })
}

/// What a producer appends to.
trait Target: Send + 'static {
    /// Appends one record and waits for the answer.
    fn append(&mut self) -> impl Future<Output = io::Result<()>> + Send;
}

struct ToLog {
    log: Arc<Log>,
    record: Vec<u8>,
}

impl Target for ToLog {
    async fn append(&mut self) -> io::Result<()> {
        self.log.append(&self.record).await.map_err(crate::other)
    }
}

/// A session with a lane of its own.
struct ToQueue {
    queue: Queue,
    lanes: [(SinkId, Lane); 1],
    episode: Episode,
}

impl ToQueue {
    fn new(queue: &Queue, n: usize) -> Self {
        let session = format!("session-{n}");
        Self { queue: queue.clone(), lanes: [crate::lane(queue, &session)], episode: crate::episode(&session) }
    }
}

impl Target for ToQueue {
    async fn append(&mut self) -> io::Result<()> {
        self.episode.id = Uuid::now_v7();
        let place = Some(self.queue.reserve()); // as capture does
        let answer = self.queue.append(&[New { place, ..New::of(&self.episode, &self.lanes) }]).map_err(crate::other)?;
        answer.await.map(drop).map_err(crate::other)
    }
}

/// Has all targets appended to for some time.
fn drive<T: Target>(runtime: &Runtime, time: Duration, writer: &str, targets: impl Iterator<Item = T>) -> io::Result<Figures> {
    let cpu = || Ok::<_, io::Error>([process_cpu(), threads_cpu(writer)?, threads_cpu("producer")?]);
    let (start, before) = (Instant::now(), cpu()?);
    let end = start + time;
    let producers: Vec<_> = targets.map(|target| runtime.spawn(produce(target, end))).collect();
    let mut times = Vec::new();
    for producer in producers {
        times.extend(runtime.block_on(producer).map_err(crate::other)??);
    }
    let (took, after) = (start.elapsed().as_secs_f64(), cpu()?);
    let records = f64::from(u32::try_from(times.len()).map_err(crate::other)?);
    let [cpu, writer, producers] = [0, 1, 2].map(|n| after[n].saturating_sub(before[n]).as_secs_f64() * 1e6 / records);
    let (p50, p99) = (percentile(&mut times, 50), percentile(&mut times, 99));
    Ok(Figures { per_second: records / took, p50, p99, cpu, writer, producers })
}

/// Microseconds that each answer took.
async fn produce(mut target: impl Target, end: Instant) -> io::Result<Vec<f64>> {
    let mut times = Vec::new();
    loop {
        let before = Instant::now();
        if before >= end {
            return Ok(times);
        }
        target.append().await?;
        times.push(before.elapsed().as_secs_f64() * 1e6);
    }
}
