//! `check`: reads the configuration as `run` would, and tells every fault, or what would run.
//!
//! Faults are what this command was asked for, so they go to standard output like the summary.

use std::io::{self, Write};

use crate::config::units::{show_duration, show_size};
use crate::config::{self, Action, Config, Durability, Input, Proxy, Route, Sink};
use crate::tls;

/// Writes one fault a line and their number, or a summary of what would run. The exit code: 0, or 2 for a configuration with faults.
pub fn check(input: &Input, out: &mut impl Write) -> io::Result<u8> {
    match config::load_with(input, tls::faults) {
        Ok(config) => {
            // `load` has found the file, so `locate` does.
            let file = input.locate().map(|path| path.display().to_string()).unwrap_or_default();
            writeln!(out, "{file} has no fault")?;
            summary(&config, out)?;
            Ok(0)
        }
        Err(faults) => {
            writeln!(out, "{faults}\n{}", faults.summary())?;
            Ok(2)
        }
    }
}

fn summary(config: &Config, out: &mut impl Write) -> io::Result<()> {
    for proxy in &config.proxies {
        let Proxy { name, listen, upstream, .. } = proxy;
        let tls = if proxy.tls.is_some() { " with TLS" } else { "" };
        writeln!(out, "proxy {name}: {listen}{tls} -> {upstream}")?;
        for route in &proxy.routes {
            writeln!(out, "  route {}: {}", route.name, line_of(route))?;
        }
    }
    for Sink { name, kind, workers, order_by, .. } in &config.sinks {
        let order = format!("{order_by:?}").to_lowercase();
        writeln!(out, "sink {name}: {kind}, {}, in order by {order}", count(*workers, "worker"))?;
    }
    let queue = &config.queue;
    let durability = match queue.durability {
        Durability::Sync => "synced before the last byte of a response".to_owned(),
        Durability::Interval(interval) => format!("synced every {}", show_duration(interval)),
    };
    let limits = format!("at most {} pending and {}", queue.max_episodes, show_size(queue.max_bytes));
    let sealed = if queue.encryption_keys.is_empty() { "" } else { ", records are sealed" };
    writeln!(out, "queue {}: {durability}, {limits}{sealed}", queue.path.display())?;
    let token = if config.admin.token.is_some() { "with a token" } else { "without a token" };
    writeln!(out, "admin {}: {token}", config.admin.listen)
}

fn line_of(route: &Route) -> String {
    let methods: Vec<_> = route.methods.iter().map(http::Method::as_str).collect();
    let methods = if methods.is_empty() { "any method".to_owned() } else { methods.join(", ") };
    let action = match route.action {
        Action::Capture => format!("captured for {}", route.sinks.join(", ")),
        Action::Offload => format!("offloaded to {}", route.sinks.join(", ")),
        Action::Pass => "passed".to_owned(),
    };
    format!("{methods} {} {action}", route.path)
}

fn count(n: usize, what: &str) -> String {
    if n == 1 { format!("1 {what}") } else { format!("{n} {what}s") }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn checked(text: &str) -> (u8, String) {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("config.toml");
        std::fs::write(&path, text).unwrap();
        let mut out = Vec::new();
        let code = check(&Input { path: Some(path.clone()), ..Input::default() }, &mut out).unwrap();
        (code, String::from_utf8(out).unwrap().replace(path.to_str().unwrap(), "config.toml"))
    }

    #[test]
    fn a_configuration_without_fault_is_summed_up() {
        let (code, out) = checked(include_str!("../../config.toml"));
        assert_eq!(code, 0);
        assert_eq!(
            out,
            "config.toml has no fault\n\
             proxy agent: 127.0.0.1:8880 -> http://127.0.0.1:8881\n\
             \x20 route run: POST /api/v1/agent/{agent}/run captured for graphiti\n\
             \x20 route chat: POST /v1/chat/completions captured for graphiti\n\
             sink graphiti: graphiti at http://127.0.0.1:8000, 5 workers, in order by group\n\
             queue offramp-data: synced before the last byte of a response, at most 1000000 pending and 4GiB\n\
             admin 127.0.0.1:9911: without a token\n"
        );
    }

    #[test]
    fn faults_are_told_one_a_line_and_counted() {
        let (code, out) = checked("[queue]\npath = 5\n");
        assert_eq!(code, 2);
        assert_eq!(
            out,
            "config.toml:1:1: there is no [[proxy]], allowed: at least one, with name, listen and upstream\n\
             config.toml:2:8: `path` is 5, allowed: a path\n\
             2 faults in config.toml\n"
        );
    }
}
