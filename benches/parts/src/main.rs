//! The parts that `benches/compare.py` puts together: an upstream, the clients, and two proxies to compare with.
//!
//! They are written to cost little, so that the processor is left to the proxy that is measured: HTTP is read and written by hand,
//! with as much of it as these parts need among themselves and no more.

mod args;
mod bare;
mod graph;
mod http;
mod load;
mod relay;
mod upstream;

use std::io;
use std::process::ExitCode;

use args::Args;

const USAGE: &str = "usage: bench-parts PART [--KEY VALUE]...
  upstream  --listen ADDRESS                                      what all proxies forward to
  bare      --listen ADDRESS --upstream ADDRESS                   hyper's server and hyper-util's client, nothing else
  relay     --listen ADDRESS --upstream ADDRESS                   copies bytes and knows no HTTP
  graph     --listen ADDRESS --write-us US --count N              takes as long for each write; tells how long N of them took
  closed    --to ADDRESS --path P --connections N --seconds S     as many requests as it takes
  open      --to ADDRESS --path P --connections N --seconds S --rate R   so many requests a second
  events    --to ADDRESS --connections N --count N --gap-us US    event streams; a gap of 0: flat out
  transfer  --to ADDRESS --connections N --count N --bytes N --direction up|down
  idle      --to ADDRESS --connections N --together N   one request each, so many at a time; holds them until standard input ends
The clients print their result as a line of JSON.";

fn main() -> ExitCode {
    let mut words = std::env::args().skip(1);
    let part = words.next().unwrap_or_default();
    match Args::parse(words).and_then(|args| run(&part, &args)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("bench-parts {part}: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run(part: &str, args: &Args) -> io::Result<()> {
    match part {
        "upstream" => upstream::run(args),
        "bare" => bare::run(args),
        "relay" => relay::run(args),
        "graph" => graph::run(args),
        "closed" => load::closed::run(args),
        "open" => load::open::run(args),
        "events" => load::events::run(args),
        "transfer" => load::transfer::run(args),
        "idle" => load::idle::run(args),
        _ => Err(io::Error::other(USAGE)),
    }
}
