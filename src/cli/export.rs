//! `export`: the queue as JSON Lines.

use std::fs::{File, OpenOptions};
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use indicatif::ProgressBar;

use super::args;
use super::failure::Failure;
use super::human::plural;
use super::output::Output;
use super::source::Source;
use super::transfer::{Lines, progress};

pub(super) async fn run(args: &args::Export, source: &Source, out: &mut Output) -> Result<(), Failure> {
    let mut file = args.output.as_deref().map(create).transpose()?;
    // Where the lines go to the terminal, they are what there is to see.
    let bar = if file.is_none() && out.terminal { ProgressBar::hidden() } else { progress(None) };
    let mut lines = Lines::default();
    let exported = source
        .export(args.state, |bytes| {
            lines.see(bytes);
            bar.inc(bytes.len() as u64);
            bar.set_message(plural(lines.episodes, "episode"));
            match &mut file {
                Some((file, path)) => file.write_all(bytes).map_err(|e| unwritable(path, &e)),
                None => out.bytes(bytes),
            }
        })
        .await;
    bar.finish_and_clear();
    exported?;
    if let Some((file, path)) = file {
        file.sync_all().map_err(|e| unwritable(path, &e))?;
        out.write(&format!("{} written to {}\n", plural(lines.episodes, "episode"), path.display()))?;
    }
    if lines.unreadable > 0 {
        return Err(Failure::Failed(format!(
            "{} could not be read; a line with its place stands for each, and the log says why",
            plural(lines.unreadable, "record")
        )));
    }
    Ok(())
}

/// What was said is in it: a new file is its owner's alone.
fn create(path: &Path) -> Result<(File, &Path), Failure> {
    let file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(path);
    Ok((file.map_err(|e| unwritable(path, &e))?, path))
}

fn unwritable(path: &Path, error: &std::io::Error) -> Failure {
    Failure::Failed(format!("{} cannot be written: {error}", path.display()))
}
