//! `presets`: what the presets are for, and what one of them says. Needs neither a configuration nor a running offramp.

use serde::Serialize;

use super::args;
use super::failure::Failure;
use super::output::{Output, Tone};
use super::table::{Column, Table};
use crate::config::presets;

/// One preset, in the JSON of the list.
#[derive(Serialize)]
struct Line {
    name: &'static str,
    about: &'static str,
}

/// One preset, by itself.
#[derive(Serialize)]
struct Whole {
    #[serde(flatten)]
    line: Line,
    toml: &'static str,
}

pub(super) fn run(args: &args::Presets, out: &mut Output) -> Result<(), Failure> {
    match &args.name {
        Some(name) => show(name, args.json, out),
        None => list(args.json, out),
    }
}

fn list(json: bool, out: &mut Output) -> Result<(), Failure> {
    let lines: Vec<Line> = names().into_iter().map(line).collect();
    if json {
        return out.json(&serde_json::json!({ "presets": lines }));
    }
    let mut table = Table::new(&[Column::Left("PRESET"), Column::Left("WHAT IT IS FOR")]);
    for Line { name, about } in lines {
        table.row(Tone::Plain, [name.to_owned(), about.to_owned()]);
    }
    out.write(&table.render(out.paint))
}

/// The TOML as it is: what a route, or a sink, could say itself.
fn show(name: &str, json: bool, out: &mut Output) -> Result<(), Failure> {
    let found = names().into_iter().find(|known| *known == name).and_then(|name| Some((name, presets::text(name)?)));
    let Some((name, toml)) = found else {
        let meant = presets::like(name).map_or_else(String::new, |near| format!("did you mean \"{near}\"? "));
        return Err(Failure::Usage(format!("there is no preset \"{name}\"; {meant}the presets are: {}", names().join(", "))));
    };
    if json { out.json(&Whole { line: line(name), toml }) } else { out.write(toml) }
}

fn line(name: &'static str) -> Line {
    // A test holds each preset to a first line that says what it is for.
    Line { name, about: presets::about(name).unwrap_or_default() }
}

fn names() -> Vec<&'static str> {
    presets::names().chain(presets::sinks()).collect()
}
