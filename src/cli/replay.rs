//! `replay`: episodes that are kept go to a sink again.

use std::time::Duration;

use super::args;
use super::failure::Failure;
use super::human::plural;
use super::output::Output;
use super::progress;
use super::source::{Begun, Source};
use crate::admin::api::{ReplayReport, Wanted};

/// How often it looks how far the replay is.
const LOOK: Duration = Duration::from_millis(200);
/// The bar counts in parts of this.
const WHOLE: u32 = 10_000;

pub(super) async fn run(args: args::Replay, source: &Source, out: &mut Output) -> Result<(), Failure> {
    let args::Replay { sink, session, since, no_wait, cancel } = args;
    if cancel {
        let replay = source.cancel_replay(&sink).await?;
        return out.write(&format!("{sink}: the replay is ended; {} put back by it stay\n", plural(replay.replayed, "episode")));
    }
    match source.begin_replay(&Wanted { sink: sink.clone(), session, since }).await? {
        Begun::Later => out.write(&format!("{sink}: the replay begins when offramp runs\n")),
        Begun::Now(_) if no_wait => out.write(&format!("{sink}: the replay has begun; `offramp status` shows how far it is\n")),
        Begun::Now(replay) => {
            let replay = follow(&sink, replay, source).await?;
            out.write(&ended(&replay))
        }
    }
}

/// Shows how far it is, until it has ended.
async fn follow(sink: &str, mut replay: ReplayReport, source: &Source) -> Result<ReplayReport, Failure> {
    let bar = progress::bar("{bar:40} {percent} % {msg}");
    bar.set_length(u64::from(WHOLE));
    while replay.state == "running" {
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "from 0 to 1, and a cast saturates")]
        bar.set_position((replay.progress * f64::from(WHOLE)) as u64);
        bar.set_message(format!("{} put back", plural(replay.replayed, "episode")));
        tokio::time::sleep(LOOK).await;
        let Some(now) = source.replay(sink).await? else {
            bar.finish_and_clear();
            return Err(Failure::Failed(format!("{sink}: offramp was started again meanwhile, and the replay has ended")));
        };
        replay = now;
    }
    bar.finish_and_clear();
    Ok(replay)
}

fn ended(replay: &ReplayReport) -> String {
    let ReplayReport { sink, replayed, skipped, .. } = replay;
    let skipped = match skipped {
        0 => String::new(),
        n => format!("; {} left out: unreadable, or without the request that this sink sends again", plural(*n, "episode")),
    };
    let episodes = plural(*replayed, "episode");
    if replay.state == "cancelled" {
        return format!("{sink}: the replay was ended by an operator after {episodes}{skipped}\n");
    }
    match replayed {
        0 => format!("{sink}: nothing to replay{skipped}\n"),
        _ => format!(
            "{sink}: {episodes} put back, each at its original place in its lane{skipped}; `offramp drain` waits for them\n"
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_end_of_a_replay_is_a_sentence() {
        let replay = |state: &str, replayed, skipped| ReplayReport {
            sink: "s".into(),
            session: None,
            since: None,
            state: state.into(),
            began_at: String::new(),
            progress: 1.0,
            replayed,
            skipped,
        };
        assert_eq!(
            ended(&replay("done", 2, 0)),
            "s: 2 episodes put back, each at its original place in its lane; `offramp drain` waits for them\n"
        );
        assert_eq!(ended(&replay("done", 0, 0)), "s: nothing to replay\n");
        assert!(ended(&replay("done", 1, 3)).contains("; 3 episodes left out: "));
        assert_eq!(ended(&replay("cancelled", 1, 0)), "s: the replay was ended by an operator after 1 episode\n");
    }
}
