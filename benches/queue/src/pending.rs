//! A long backlog: filled by one process, opened by another, so that the memory is that of a process that has just been started.

use std::io;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use offramp::queue::{ClaimRequest, Claims, Finish, New, Queue, SinkId};
use serde_json::json;
use tokio::runtime::Builder;
use uuid::Uuid;

use crate::args::Args;
use crate::measure::memory;

/// The parts that run in processes of their own.
pub const FILL: &str = "pending-fill";
pub const OPEN: &str = "pending-open";

/// Episodes appended at once; as many of these are under way as this.
const TOGETHER: usize = 32;

/// Episodes that are delivered after opening, to see what work does to the memory.
const DELIVERED: usize = 10_000;

pub fn run(args: &Args) -> io::Result<()> {
    let (path, lanes): (PathBuf, usize) = (args.get("path")?, args.get("lanes")?);
    std::fs::create_dir_all(&path)?;
    println!(
        "seconds until open and until the first claim; memory in MB: while filling (peak), open, after {DELIVERED} deliveries"
    );
    for count in crate::numbers(args, "counts")? {
        let directory = path.join("backlog");
        let part = |part: &str| -> io::Result<serde_json::Value> {
            let done = Command::new(std::env::current_exe()?)
                .arg(part)
                .arg("--path")
                .arg(&directory)
                .args(["--count", &count.to_string(), "--lanes", &lanes.to_string()])
                .stderr(Stdio::inherit())
                .output()?;
            if !done.status.success() {
                return Err(io::Error::other(format!("{part} failed")));
            }
            serde_json::from_slice(&done.stdout).map_err(io::Error::other)
        };
        let (filled, opened) = (part(FILL)?, part(OPEN)?);
        std::fs::remove_dir_all(&directory)?;
        let number = |value: &serde_json::Value| value.as_f64().unwrap_or(f64::NAN);
        println!(
            "{count:>9} pending   open {:.2} s, first claim {:.2} s   memory {:.0}, {:.0}, {:.0}   disk {:.0} MB",
            number(&opened["open"]),
            number(&opened["claim"]),
            number(&filled["memory"]),
            number(&opened["memory"]),
            number(&opened["worked"]),
            number(&filled["disk"])
        );
    }
    Ok(())
}

/// Appends `--count` episodes over `--lanes` sessions.
pub fn fill(args: &Args) -> io::Result<()> {
    let (path, count, lanes): (PathBuf, usize, usize) = (args.get("path")?, args.get("count")?, args.get("lanes")?);
    let queue = crate::open(&path)?;
    let sessions: Vec<String> = (0..lanes).map(|n| format!("session-{n}")).collect();
    let runtime = Builder::new_multi_thread().worker_threads(2).build()?;
    let mut under_way = std::collections::VecDeque::new();
    for first in (0..count).step_by(TOGETHER) {
        let sessions = (first..(first + TOGETHER).min(count)).map(|n| &sessions[n % lanes]);
        let brought: Vec<_> = sessions
            .map(|session| {
                let mut episode = crate::episode(session);
                episode.id = Uuid::now_v7();
                (episode, [crate::lane(&queue, session)])
            })
            .collect();
        let new: Vec<_> = brought.iter().map(|(episode, lanes)| New::of(episode, lanes)).collect();
        under_way.push_back(queue.append(&new).map_err(crate::other)?);
        if under_way.len() >= TOGETHER
            && let Some(oldest) = under_way.pop_front()
        {
            runtime.block_on(oldest).map_err(crate::other)?;
        }
    }
    for answer in under_way {
        runtime.block_on(answer).map_err(crate::other)?;
    }
    let (_, peak) = memory()?;
    queue.close();
    drop(queue);
    let store = std::fs::read_dir(path.join("store"))?;
    let disk = store.map(|entry| Ok(entry?.metadata()?.len())).sum::<io::Result<u64>>()?;
    println!("{}", json!({ "memory": peak, "disk": disk >> 20 }));
    Ok(())
}

/// Opens what [`fill`] left.
pub fn open(args: &Args) -> io::Result<()> {
    let path: PathBuf = args.get("path")?;
    let runtime = Builder::new_current_thread().build()?;
    let start = Instant::now();
    let queue = crate::open(&path)?;
    let open = start.elapsed();
    let sink = crate::lane(&queue, "").0;
    let mut claims = runtime.block_on(claim(&queue, sink, 1))?;
    let claimed = start.elapsed();
    let (memory_open, _) = memory()?;
    let mut delivered = 0;
    while !claims.claims.is_empty() && delivered < DELIVERED {
        delivered += claims.claims.len();
        for claim in std::mem::take(&mut claims.claims) {
            queue.read(claim.seq).map_err(io::Error::other)?.ok_or_else(|| io::Error::other("an episode is gone"))?;
            queue.finish(claim, Finish::Delivered { confirmed_in: None }, None);
        }
        claims = runtime.block_on(claim(&queue, sink, TOGETHER))?;
    }
    let (worked, _) = memory()?;
    let seconds = |time: Duration| time.as_secs_f64();
    println!("{}", json!({ "open": seconds(open), "claim": seconds(claimed), "memory": memory_open, "worked": worked }));
    Ok(())
}

async fn claim(queue: &Queue, sink: SinkId, max: usize) -> io::Result<Claims> {
    let day = 86_400_000;
    let request =
        ClaimRequest { max, ahead: 0, batch: 1, in_doubt: false, max_attempts: 10, max_age: u64::MAX, longest_delay: day };
    queue.claim(sink, request).await.map_err(crate::other)
}
