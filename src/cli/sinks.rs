//! `pause`, `resume` and `purge`.

use super::failure::Failure;
use super::human::plural;
use super::output::Output;
use super::source::Source;

pub(super) async fn set_paused(sink: &str, paused: bool, source: &Source, out: &mut Output) -> Result<(), Failure> {
    let Some(state) = source.set_paused(sink, paused).await? else { return Err(unknown(sink, source).await?) };
    let what = match (paused, state.as_str()) {
        (true, _) => "paused, also over restarts; what is captured for it waits".to_owned(),
        (false, "running") => "running".to_owned(),
        (false, other) => format!("no longer paused, but {other}; `offramp status` says why"),
    };
    out.write(&format!("{sink}: {what}\n"))
}

/// Removes what is left of a sink that is no longer configured.
pub(super) async fn purge(sink: &str, source: &Source, out: &mut Output) -> Result<(), Failure> {
    let Some(count) = source.purge_sink(sink).await? else { return Err(unknown(sink, source).await?) };
    out.write(&format!("{sink}: {} removed for good\n", plural(count, "episode")))
}

async fn unknown(sink: &str, source: &Source) -> Result<Failure, Failure> {
    let status = source.status().await?;
    let names: Vec<&str> = status.sinks.iter().map(|s| s.name.as_str()).collect();
    Ok(Failure::Usage(format!("there is no sink \"{sink}\"; the sinks are: {}", names.join(", "))))
}
