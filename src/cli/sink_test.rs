//! `sink test`: sends a probe to one sink, without the queue and whether offramp runs or not, and tells how each step went.

use super::args;
use super::failure::Failure;
use super::human;
use super::output::{Output, Tone};
use crate::config::Config;
use crate::sink::probe::{self, Names, Outcome, Report, Step};

pub(super) async fn run(args: &args::SinkTest, config: &Config, out: &mut Output) -> Result<(), Failure> {
    let Some(sink) = config.sinks.iter().find(|sink| sink.name == args.sink) else {
        let names: Vec<&str> = config.sinks.iter().map(|sink| sink.name.as_str()).collect();
        return Err(Failure::Usage(format!("there is no sink \"{}\"; the sinks are: {}", args.sink, names.join(", "))));
    };
    let names = Names { session: args.session.clone(), user: args.user.clone(), agent: args.agent.clone() };
    let report = probe::test(sink, &names, args.timeout).await;
    if args.json {
        out.json(&report)?;
    } else {
        let text = told(&report, out);
        out.write(&text)?;
    }
    match report.failed() {
        None => Ok(()),
        Some(Step { step, .. }) => Err(Failure::Failed(format!("sink {}: the test failed at {}", report.sink, step.name()))),
    }
}

fn told(report: &Report, out: &Output) -> String {
    let mut lines = vec![format!("{}: {}", report.sink, human::line(&report.target))];
    for Step { step, result, says, advice } in &report.steps {
        let (mark, tone) = match result {
            Outcome::Ok => ("ok", Tone::Good),
            Outcome::Failed => ("FAILED", Tone::Bad),
            Outcome::Skipped => ("-", Tone::Faint),
        };
        lines.push(out.paint.paint(tone, &format!("  {:<13} {mark:<7} {}", step.name(), human::line(says))));
        lines.extend(advice.as_ref().map(|advice| format!("  {:<21} to do: {}", "", human::line(advice))));
    }
    if let Some(id) = report.episode {
        let there = if report.ok { "the probe" } else { "the probe, if it is there," };
        lines.push(format!("{there} is episode {id} of session {}", human::line(&report.session)));
    }
    for (what, told) in [("found", &report.found), ("removed", &report.remove)] {
        lines.extend(told.as_ref().map(|told| format!("  {what:<8} {}", human::line(told))));
    }
    lines.join("\n") + "\n"
}
