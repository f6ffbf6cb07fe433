//! `verify`.

use std::io::IsTerminal;
use std::sync::atomic::{AtomicU64, Ordering};

use indicatif::{ProgressBar, ProgressStyle};
use serde_json::json;

use super::args::Verify;
use super::failure::Failure;
use super::human::{self, count, plural};
use super::output::{Output, Tone};
use super::table::{Column, Table};
use crate::config;
use crate::queue::verify::{Progress, Verified, verify, write_off};
use crate::queue::{Census, QueueError};

/// Faults that are printed.
const SHOWN: usize = 50;

pub(super) fn run(args: &Verify, config: &config::Queue, out: &mut Output) -> Result<(), Failure> {
    if args.write_off {
        let gone = write_off(config).map_err(|e| failed(&e))?;
        return out.write(&format!("{} written off, counted as purged\n", plural(gone, "missing episode")));
    }
    let found = {
        let bar = Bar::new();
        verify(config, &|progress| bar.show(progress)).map_err(|e| failed(&e))?
    };
    if args.json {
        out.json(&document(&found))?;
    } else {
        out.write(&text(&found, config, out))?;
    }
    if found.is_sound() {
        return Ok(());
    }
    let faults = found.census.as_ref().map_or(0, |c| c.count) + found.damaged as u64;
    Err(Failure::Failed(format!("{} in {}", plural(faults, "fault"), config.path.display())))
}

fn failed(error: &QueueError) -> Failure {
    Failure::Failed(error.to_string())
}

/// On standard error, if somebody sees it.
struct Bar {
    bar: ProgressBar,
    bytes: AtomicU64,
}

impl Bar {
    fn new() -> Self {
        let bar = if std::io::stderr().is_terminal() { ProgressBar::new_spinner() } else { ProgressBar::hidden() };
        bar.set_style(ProgressStyle::default_spinner());
        Self { bar, bytes: AtomicU64::new(0) }
    }

    fn show(&self, progress: Progress) {
        let text = match progress {
            Progress::Bytes(more) => {
                format!("{} of the files read", human::size(self.bytes.fetch_add(more, Ordering::Relaxed) + more))
            }
            Progress::Records(n) if n % 1_000 == 0 => format!("{} records checked", count(n)),
            Progress::Records(_) => return,
        };
        self.bar.set_message(text);
        self.bar.tick();
    }
}

impl Drop for Bar {
    fn drop(&mut self) {
        self.bar.finish_and_clear();
    }
}

fn document(found: &Verified) -> serde_json::Value {
    json!({
        "sound": found.is_sound(),
        "store": found.store,
        "damage": { "count": found.damaged, "places": found.damage },
        "queue": found.census,
        "quarantine": found.quarantined,
    })
}

fn text(found: &Verified, config: &config::Queue, out: &Output) -> String {
    let mut text = String::new();
    let line = |tone, line: &str| out.paint.paint(tone, &human::line(line)) + "\n";
    match &found.census {
        Some(census) => text.push_str(&table(census, out)),
        None if found.damaged == 0 => {
            text.push_str(&line(Tone::Plain, &format!("there is nothing in {}", config.path.display())));
        }
        None => {}
    }
    let census = found.census.clone().unwrap_or_default();
    for fault in found.damage.iter().chain(&census.faults).take(SHOWN) {
        text.push_str(&line(Tone::Bad, &format!("fault: {fault}")));
    }
    let all = found.damaged as u64 + census.count;
    if all > SHOWN as u64 {
        text.push_str(&line(Tone::Bad, &format!("and {} more", count(all - SHOWN as u64))));
    }
    for advice in advice(found, &census) {
        text.push_str(&line(Tone::Warning, &advice));
    }
    for place in &found.quarantined {
        text.push_str(&line(Tone::Faint, &format!("set aside earlier, as it was found: {}", place.display())));
    }
    if all == 0 {
        text.push_str(&line(Tone::Good, "all is in order"));
    }
    text
}

fn table(census: &Census, out: &Output) -> String {
    let Census { records, bytes, unreadable, foreign, .. } = census;
    let head = format!(
        "{} of {}, {} unreadable, {} for another offramp",
        plural(*records, "record"),
        human::size(*bytes),
        count(*unreadable),
        count(*foreign)
    );
    let columns = ["PENDING", "DEAD", "QUARANTINED", "DELIVERED KEPT", "GAP"].map(Column::Right);
    let mut table = Table::new(&[&[Column::Left("SINK")], &columns[..]].concat());
    for sink in &census.sinks {
        let gap = sink.ledger.gap();
        let tone = if gap == 0 { Tone::Plain } else { Tone::Bad };
        let [pending, dead, quarantined, kept] = [sink.pending, sink.dead, sink.quarantined, sink.delivered_kept].map(count);
        table.row(tone, [sink.name.clone(), pending, dead, quarantined, kept, gap.to_string()]);
    }
    let tone = if unreadable + foreign > 0 { Tone::Bad } else { Tone::Plain };
    out.paint.paint(tone, &head) + "\n" + &table.render(out.paint)
}

/// What to do about it.
fn advice(found: &Verified, census: &Census) -> Vec<String> {
    let mut advice = Vec::new();
    if found.damaged > 0 {
        advice.push(format!(
            "the files in {} are damaged: check the disk; `offramp run` sets them aside in quarantine/ and goes on with what can be read",
            found.store.display()
        ));
    }
    if census.unreadable > 0 {
        advice.push(
            "an unreadable record that still waits becomes a dead letter; `offramp dead purge --reason unreadable --yes` gives those up"
                .to_owned(),
        );
    }
    if census.foreign > 0 {
        advice.push("what is for another offramp is kept: a later version, or this one with the key, can read it".to_owned());
    }
    if found.damaged == 0 && census.sinks.iter().any(|sink| sink.ledger.gap() != 0) {
        advice.push("what is missing is gone: `offramp verify --write-off` accepts that, and the gap is 0 again".to_owned());
    }
    advice
}
