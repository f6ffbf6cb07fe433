//! `dead`: what a sink gave up on.

use super::args::{DeadList, Purge, Redrive, Selectors};
use super::episodes::{collect, more};
use super::failure::Failure;
use super::human::{self, ago, plural};
use super::output::{Output, Paint, Tone};
use super::source::{Fate, Source};
use super::table::{Column, Table};
use crate::admin::api::{Episode, Listing, Page, Selection, Standing};
use crate::clock;
use crate::queue::State;

pub(super) async fn list(args: &DeadList, source: &Source, out: &mut Output) -> Result<(), Failure> {
    let listing =
        Listing { state: Some(State::Dead), session: args.session.clone(), sink: args.sink.clone(), ..Listing::default() };
    let page = collect(source, listing, &args.page, |episode| letters(episode, args).next().is_some()).await?;
    if args.page.json {
        return out.json(&page);
    }
    out.write(&render(&page, args, clock::now_ms(), out.paint))
}

pub(super) async fn redrive(args: Redrive, source: &Source, out: &mut Output) -> Result<(), Failure> {
    let Redrive { selectors, rate } = args;
    let count = source.settle_dead(Fate::Redrive, Selection { rate, ..selectors.into() }).await?;
    let letters = plural(count, "dead letter");
    out.write(&match rate {
        Some(rate) if source.is_running() => format!(
            "{letters} to put back, {rate} a second, by the running offramp; `offramp status` shows how many are left, and a restart leaves \
             them dead\n"
        ),
        Some(_) => format!("{letters} put back at once: there is no running offramp that would take its time\n"),
        None => format!("{letters} put back, each at its original place in its lane\n"),
    })
}

pub(super) async fn purge(args: Purge, source: &Source, out: &mut Output) -> Result<(), Failure> {
    let count = source.settle_dead(Fate::Purge, args.selectors.into()).await?;
    out.write(&format!("{} removed for good\n", plural(count, "dead letter")))
}

impl From<Selectors> for Selection {
    fn from(s: Selectors) -> Self {
        Self { ids: s.ids, sink: s.sink, session: s.session, reason: s.reason, all: s.all, rate: None }
    }
}

/// The sinks that gave up on an episode, as far as they were asked for.
fn letters<'a>(episode: &'a Episode, args: &'a DeadList) -> impl Iterator<Item = (&'a String, &'a Standing)> {
    episode.sinks.iter().filter(|(name, standing)| {
        standing.state == State::Dead
            && args.sink.as_ref().is_none_or(|sink| sink == *name)
            && args.reason.as_ref().is_none_or(|reason| standing.reason.as_ref() == Some(reason))
    })
}

fn render(page: &Page, args: &DeadList, now: u64, paint: Paint) -> String {
    if page.episodes.is_empty() {
        return format!("no dead letters{}\n", more(page));
    }
    let mut table = Table::new(&[
        Column::Left("ID"),
        Column::Left("SESSION"),
        Column::Left("SINK"),
        Column::Left("REASON"),
        Column::Right("ATTEMPTS"),
        Column::Left("DIED"),
        Column::Left("LAST ERROR"),
    ]);
    for episode in &page.episodes {
        for (sink, standing) in letters(episode, args) {
            table.row(
                Tone::Plain,
                [
                    episode.id.to_string(),
                    human::shorten(&episode.session, 36),
                    sink.clone(),
                    standing.reason.clone().unwrap_or_default(),
                    standing.attempts.to_string(),
                    standing.history.last().map_or_else(|| "-".to_owned(), |last| ago(&last.at, now)),
                    human::shorten(standing.last_error.as_deref().unwrap_or_default(), 72),
                ],
            );
        }
    }
    let mut text = table.render(paint);
    if page.next_cursor.is_some() {
        text.push_str(&paint.paint(Tone::Faint, more(page).trim_start()));
        text.push('\n');
    }
    text
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;
    use crate::admin::api::testing::view;
    use crate::cli::args::{Cli, Command, Dead};

    fn args(line: &str) -> DeadList {
        match Cli::try_parse_from(format!("offramp dead list {line}").split_whitespace()).unwrap().command {
            Command::Dead(Dead::List(args)) => args,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn dead_letters_are_a_row_per_sink_that_gave_up() {
        let page = Page { episodes: vec![view().into()], next_cursor: None };
        assert_eq!(
            render(&page, &args(""), 1_767_225_607_000, Paint(false)),
            "\
ID                                    SESSION  SINK  REASON    ATTEMPTS  DIED       LAST ERROR
01980000-0000-7000-8000-000000000001  s1       log   rejected         1  5.0 s ago  disk on fire
"
        );
        let episode = Episode::from(view());
        assert!(letters(&episode, &args("--reason max_age")).next().is_none());
        assert!(letters(&episode, &args("--sink graphiti")).next().is_none(), "pending there, not dead");
        assert!(letters(&episode, &args("--sink log --reason rejected")).next().is_some());
    }
}
