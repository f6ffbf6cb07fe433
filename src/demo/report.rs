//! What the demo ends with: the table of before and after, the drain, the ledger, the proof; as text for people and as JSON.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::time::Duration;

use comfy_table::{CellAlignment, Table, presets};
use serde::Serialize;

use super::Options;
use super::load::Outcome;
use super::proof::{Claim, thousands};
use crate::queue::Ledger;

/// Everything that the demo found out. Serialized, it is what `--json` prints.
#[derive(Debug, Clone, Serialize)]
pub struct Report {
    /// Whether every claim holds.
    pub passed: bool,
    /// What was asked for.
    pub settings: Settings,
    /// The agent called directly, no graph writes.
    pub agent_alone: Phase,
    /// The agent writing each episode into the graph before it answers.
    pub inline_writes: Phase,
    /// Episodes of the inline phase that are in the graph.
    pub inline_episodes_stored: u64,
    /// The agent behind offramp.
    pub through_offramp: Phase,
    /// The time after the last answer.
    pub drain: Drain,
    /// What offramp counted.
    pub ledger: Account,
    /// The proof.
    pub proof: Vec<Claim>,
}

/// The options, times in milliseconds.
#[derive(Debug, Clone, Serialize)]
#[allow(missing_docs)] // each is the option of the same name
pub struct Settings {
    pub requests: u64,
    /// As asked for, or the number of sessions if that is smaller.
    pub concurrency: usize,
    pub sessions: usize,
    pub agent_delay_ms: u64,
    pub write_delay_ms: u64,
    pub write_parallelism: usize,
    pub workers: usize,
    pub inline_workers: usize,
    pub inline_timeout_ms: u64,
    pub sink_url: Option<String>,
}

impl Settings {
    pub(super) fn of(options: &Options) -> Self {
        Self {
            requests: options.requests,
            concurrency: options.concurrency.min(options.sessions),
            sessions: options.sessions,
            agent_delay_ms: crate::clock::as_ms(options.agent_delay),
            write_delay_ms: crate::clock::as_ms(options.write_delay),
            write_parallelism: options.write_parallelism,
            workers: options.workers,
            inline_workers: options.inline_workers,
            inline_timeout_ms: crate::clock::as_ms(options.inline_timeout),
            sink_url: options.sink_url.clone(),
        }
    }
}

/// One row of the table.
#[derive(Debug, Clone, Serialize)]
pub struct Phase {
    /// Requests that ended, failed ones included.
    pub requests: u64,
    /// Those that failed, by what the client saw.
    pub errors: BTreeMap<String, u64>,
    /// Their share.
    pub error_percent: f64,
    /// From the first request's beginning to the last one's end.
    pub seconds: f64,
    /// `requests` by `seconds`.
    pub requests_per_second: f64,
    /// Of all requests, failed ones included: who got an error has waited for it.
    pub latency_ms: Latency,
}

/// Milliseconds.
#[derive(Debug, Clone, Copy, Serialize)]
#[allow(missing_docs)] // the names say it
pub struct Latency {
    pub mean: f64,
    pub p50: f64,
    pub p95: f64,
    pub p99: f64,
    pub max: f64,
}

impl Phase {
    pub(super) fn of(outcome: &Outcome) -> Self {
        let seconds = outcome.elapsed.as_secs_f64();
        let quantile = |q| rounded(float(outcome.latency.value_at_quantile(q)) / 1000.0);
        Self {
            requests: outcome.finished,
            errors: outcome.errors.clone(),
            error_percent: rounded(100.0 * float(outcome.failed()) / float(outcome.finished.max(1))),
            seconds: rounded(seconds),
            requests_per_second: rounded(per_second(outcome.finished, seconds)),
            latency_ms: Latency {
                mean: rounded(outcome.latency.mean() / 1000.0),
                p50: quantile(0.50),
                p95: quantile(0.95),
                p99: quantile(0.99),
                max: quantile(1.0),
            },
        }
    }

    fn failed(&self) -> u64 {
        self.errors.values().sum()
    }

    /// `HTTP 504: 58, the connection broke: 2`
    fn error_list(&self) -> String {
        self.errors.iter().map(|(error, count)| format!("{error}: {}", thousands(*count))).collect::<Vec<_>>().join(", ")
    }
}

/// How the queue ran empty.
#[derive(Debug, Clone, Serialize)]
pub struct Drain {
    /// Deliveries after the last answer.
    pub delivered: u64,
    /// How long it took.
    pub seconds: f64,
    /// `delivered` by `seconds`.
    pub delivered_per_second: f64,
    /// Why the demo stopped waiting, if something was left.
    pub gave_up: Option<String>,
}

impl Drain {
    pub(super) fn new(delivered: u64, time: Duration, gave_up: Option<String>) -> Self {
        let seconds = time.as_secs_f64();
        Self { delivered, seconds: rounded(seconds), delivered_per_second: rounded(per_second(delivered, seconds)), gave_up }
    }
}

/// The ledger with its gap.
#[derive(Debug, Clone, Copy, Serialize)]
pub struct Account {
    /// The counters.
    #[serde(flatten)]
    pub ledger: Ledger,
    /// Captured minus the rest: 0.
    pub gap: i64,
}

impl From<Ledger> for Account {
    fn from(ledger: Ledger) -> Self {
        Self { ledger, gap: ledger.gap() }
    }
}

impl Report {
    /// For people. No line depends on the width of a terminal.
    pub fn text(&self, colour: bool) -> String {
        let mut text = format!("{}\n\n", self.table());
        // Writing to a string can't fail.
        let mut line = |line: String| {
            let _ = writeln!(text, "{line}");
        };
        self.notes().into_iter().for_each(&mut line);
        line(String::new());
        let drain = &self.drain;
        let (count, rate) = (thousands(drain.delivered), drain.delivered_per_second);
        line(format!("Drain   {count} episodes in {:.1} s, {rate:.1} a second", drain.seconds));
        if let Some(reason) = &drain.gave_up {
            line(format!("        gave up: {reason}"));
        }
        let Account { ledger, gap } = self.ledger;
        let [captured, delivered, dead, purged, expired, pending] =
            [ledger.captured, ledger.delivered, ledger.dead, ledger.purged, ledger.expired, ledger.pending].map(thousands);
        line(format!(
            "Ledger  captured {captured} = delivered {delivered} + dead {dead} + purged {purged} + expired {expired} + pending \
             {pending} (gap {gap})"
        ));
        line("Proof".to_owned());
        for claim in &self.proof {
            line(format!("  {} {}", tick(claim.holds, colour), claim.claim));
            claim.against.iter().for_each(|fault| line(format!("      {fault}")));
        }
        text
    }

    fn table(&self) -> Table {
        let mut table = Table::new();
        table.load_style(presets::UTF8_BORDERS_ONLY);
        table.set_header(["", "requests", "requests/s", "error %", "mean", "p50", "p95", "p99"]);
        let rows = [
            ("agent alone", &self.agent_alone),
            ("inline writes", &self.inline_writes),
            ("through offramp", &self.through_offramp),
        ];
        for (name, phase) in rows {
            let Latency { mean, p50, p95, p99, .. } = phase.latency_ms;
            let [mean, p50, p95, p99] = [mean, p50, p95, p99].map(latency);
            let rate = rate(phase.requests_per_second);
            let errors = format!("{:.1}", phase.error_percent);
            table.add_row([name.to_owned(), thousands(phase.requests), rate, errors, mean, p50, p95, p99]);
        }
        for column in table.column_iter_mut().skip(1) {
            column.set_cell_alignment(CellAlignment::Right);
        }
        table
    }

    /// What one must know to read the table.
    fn notes(&self) -> Vec<String> {
        let Settings { inline_workers, inline_timeout_ms, .. } = self.settings;
        let inline = &self.inline_writes;
        let mut notes = vec![format!(
            "Inline, the agent writes each episode before it answers: {inline_workers} at a time, each within {}.",
            duration(Duration::from_millis(inline_timeout_ms))
        )];
        let lost = inline.requests.saturating_sub(self.inline_episodes_stored);
        let mut fate = format!("Of its {} episodes {} are lost", thousands(inline.requests), thousands(lost));
        if inline.failed() > 0 {
            let _ = write!(fate, " ({})", inline.error_list());
        }
        notes.push(fate + ".");
        for (name, phase) in [("the agent alone", &self.agent_alone), ("offramp", &self.through_offramp)] {
            if phase.failed() > 0 {
                notes.push(format!("Errors with {name}: {}.", phase.error_list()));
            }
        }
        let added = self.through_offramp.latency_ms.p99 - self.agent_alone.latency_ms.p99;
        let longer = if added < 0.0 { "shorter" } else { "longer" };
        notes.push(format!("Through offramp the p99 is {:.1} ms {longer} than that of the agent alone.", added.abs()));
        notes
    }
}

fn tick(holds: bool, colour: bool) -> &'static str {
    match (holds, colour) {
        (true, false) => "✓",
        (true, true) => "\u{1b}[32m✓\u{1b}[0m",
        (false, false) => "✗",
        (false, true) => "\u{1b}[31m✗\u{1b}[0m",
    }
}

/// Milliseconds below a second, then seconds.
fn latency(ms: f64) -> String {
    if ms < 1000.0 { format!("{ms:.1} ms") } else { format!("{:.2} s", ms / 1000.0) }
}

/// Whole numbers from a hundred on.
fn rate(per_second: f64) -> String {
    if per_second < 100.0 {
        return format!("{per_second:.1}");
    }
    // Far below 2^52, and positive.
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
    thousands(per_second.round() as u64)
}

/// As it would be written on the command line: `250 ms`, `13 s`, `2.5 s`.
pub(super) fn duration(time: Duration) -> String {
    if time < Duration::from_secs(1) { format!("{} ms", time.as_millis()) } else { format!("{} s", time.as_secs_f64()) }
}

/// `part` by `whole`, which isn't 0.
pub(super) fn ratio(part: u64, whole: u64) -> f64 {
    float(part) / float(whole)
}

fn per_second(count: u64, seconds: f64) -> f64 {
    if seconds > 0.0 { float(count) / seconds } else { 0.0 }
}

/// Three digits after the point: what is measured here is no more exact than that.
fn rounded(value: f64) -> f64 {
    (value * 1000.0).round() / 1000.0
}

/// Counts and microseconds here are far below 2^52.
#[allow(clippy::cast_precision_loss)]
fn float(n: u64) -> f64 {
    n as f64
}

#[cfg(test)]
mod tests;
