//! `episodes`: a listing in the order of capture.

use super::args::{self, PageArgs};
use super::failure::Failure;
use super::human::{self, ago};
use super::output::{Output, Paint, Tone};
use super::source::Source;
use super::table::{Column, Table};
use crate::admin::api::{Episode, Listing, Page, state_name};
use crate::clock;
use crate::queue::State;

pub(super) async fn run(args: &args::Episodes, source: &Source, out: &mut Output) -> Result<(), Failure> {
    let listing = Listing { state: args.state, session: args.session.clone(), sink: args.sink.clone(), ..Listing::default() };
    let page = collect(source, listing, &args.page, |_| true).await?;
    if args.page.json {
        return out.json(&page);
    }
    out.write(&render(&page, clock::now_ms(), out.paint))
}

/// Asks for page after page until there are enough that `keep` likes, or no more.
pub(super) async fn collect(
    source: &Source,
    mut listing: Listing,
    args: &PageArgs,
    keep: impl Fn(&Episode) -> bool,
) -> Result<Page, Failure> {
    listing.cursor.clone_from(&args.cursor);
    let mut all = Page::default();
    loop {
        // Never more than still fit: the cursor must point behind the last one shown.
        listing.limit = Some(args.limit_of_next_page(all.episodes.len()));
        let page = source.list(&listing).await?;
        all.episodes.extend(page.episodes.into_iter().filter(|e| keep(e)));
        all.next_cursor.clone_from(&page.next_cursor);
        if page.next_cursor.is_none() || args.limit_of_next_page(all.episodes.len()) == 0 {
            return Ok(all);
        }
        listing.cursor = page.next_cursor;
    }
}

fn render(page: &Page, now: u64, paint: Paint) -> String {
    if page.episodes.is_empty() {
        return format!("no episodes{}\n", more(page));
    }
    let mut table = Table::new(&[
        Column::Right("SEQ"),
        Column::Left("ID"),
        Column::Left("SESSION"),
        Column::Left("ROUTE"),
        Column::Left("CAPTURED"),
        Column::Left("STANDS"),
    ]);
    for e in &page.episodes {
        let stands: Vec<String> = e.sinks.iter().map(|(name, s)| format!("{name} {}", state_name(s.state))).collect();
        table.row(
            tone(e),
            [
                e.seq.to_string(),
                e.id.to_string(),
                human::shorten(&e.session, 36),
                format!("{}/{}", e.proxy, e.route),
                ago(&e.captured_at, now),
                stands.join(", "),
            ],
        );
    }
    let mut text = table.render(paint);
    if page.next_cursor.is_some() {
        text.push_str(&paint.paint(Tone::Faint, more(page).trim_start()));
        text.push('\n');
    }
    text
}

/// How to get the rest.
pub(super) fn more(page: &Page) -> String {
    page.next_cursor
        .as_ref()
        .map_or_else(String::new, |cursor| format!(" … there may be more: raise --limit, or go on with --cursor {cursor}"))
}

fn tone(e: &Episode) -> Tone {
    let any = |state| e.sinks.values().any(|s| s.state == state);
    if any(State::Dead) {
        Tone::Bad
    } else if e.sinks.values().any(|s| s.state == State::Pending && s.attempts > 0) {
        Tone::Warning
    } else {
        Tone::Plain
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::admin::api::testing::view;

    #[test]
    fn a_listing_is_a_row_per_episode() {
        let page = Page { episodes: vec![view().into()], next_cursor: None };
        assert_eq!(
            render(&page, 1_767_225_660_000, Paint(false)),
            "\
SEQ  ID                                    SESSION  ROUTE      CAPTURED   STANDS
 17  01980000-0000-7000-8000-000000000001  s1       agent/run  1 min ago  graphiti pending, log dead
"
        );
        let cut = Page { next_cursor: Some("18".into()), ..page };
        assert!(render(&cut, 0, Paint(false)).ends_with("\n… there may be more: raise --limit, or go on with --cursor 18\n"));
        assert_eq!(render(&Page::default(), 0, Paint(false)), "no episodes\n");
    }
}
