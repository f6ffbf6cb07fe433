//! `pause` and `resume`.

use super::failure::Failure;
use super::output::Output;
use super::source::Source;

pub(super) async fn set_paused(sink: &str, paused: bool, source: &Source, out: &mut Output) -> Result<(), Failure> {
    let Some(state) = source.set_paused(sink, paused).await? else {
        let status = source.status().await?;
        let names: Vec<&str> = status.sinks.iter().map(|s| s.name.as_str()).collect();
        return Err(Failure::Usage(format!("there is no sink \"{sink}\"; the sinks are: {}", names.join(", "))));
    };
    let what = match (paused, state.as_str()) {
        (true, _) => "paused, also over restarts; what is captured for it waits".to_owned(),
        (false, "running") => "running".to_owned(),
        (false, other) => format!("no longer paused, but {other}; `offramp status` says why"),
    };
    out.write(&format!("{sink}: {what}\n"))
}
