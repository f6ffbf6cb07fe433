//! `import`: JSON Lines of an `export` into the queue.

use std::io::Write;
use std::os::fd::AsFd;
use std::path::Path;

use bytes::{Bytes, BytesMut};
use tokio::fs::File;
use tokio::io::AsyncReadExt;

use super::args;
use super::failure::Failure;
use super::human::{line, plural};
use super::output::Output;
use super::source::Source;
use super::transfer::progress;
use crate::admin::api::Imported;

/// Bytes read at a time.
const PIECE: usize = 256 << 10;

pub(super) async fn run(args: &args::Import, source: &Source, out: &mut Output) -> Result<(), Failure> {
    let path = args.file.as_path();
    let unreadable = |e: std::io::Error| Failure::Failed(format!("{} cannot be read: {e}", name(path)));
    let mut file = open(path).map_err(unreadable)?;
    let length = file.metadata().await.map_err(unreadable)?.len();
    let bar = progress(Some(length).filter(|length| *length > 0));
    let next = async || {
        let mut piece = BytesMut::with_capacity(PIECE);
        file.read_buf(&mut piece).await.map_err(unreadable)?;
        bar.inc(piece.len() as u64);
        Ok::<Bytes, Failure>(piece.freeze())
    };
    let imported = source.import(next).await;
    bar.finish_and_clear();
    report(path, &imported?, out)
}

fn report(path: &Path, done: &Imported, out: &mut Output) -> Result<(), Failure> {
    let faults = done.faults.iter().map(|fault| format!("{}:{}: {}\n", name(path), fault.line, line(&fault.message)));
    let unknown = done.unknown_sinks.iter().map(|(sink, count)| {
        let (count, sink) = (plural(*count, "episode"), line(sink));
        format!("sink {sink}: {count} went there as well, and no sink of that name is configured here\n")
    });
    let complaints: String = faults.chain(unknown).collect();
    // Standard error may be closed; the exit code still tells.
    let _ = std::io::stderr().write_all(complaints.as_bytes());
    out.write(&format!("{} imported, {} there already\n", plural(done.imported, "episode"), were(done.skipped)))?;
    if done.failed > 0 {
        return Err(Failure::Failed(format!("{} could not be imported", plural(done.failed, "line"))));
    }
    Ok(())
}

fn were(n: u64) -> String {
    format!("{} {}", super::human::count(n), if n == 1 { "was" } else { "were" })
}

fn open(path: &Path) -> std::io::Result<File> {
    let file =
        if path == Path::new("-") { std::io::stdin().as_fd().try_clone_to_owned()?.into() } else { std::fs::File::open(path)? };
    Ok(File::from_std(file))
}

fn name(path: &Path) -> String {
    if path == Path::new("-") { "standard input".to_owned() } else { path.display().to_string() }
}
