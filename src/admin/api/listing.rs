//! The question that `GET /api/v1/episodes` answers, as a query string in both directions.

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};

use super::{Refused, known_sink};
use crate::queue::{Filter, State};

/// Episodes on a page, unless asked otherwise.
pub const DEFAULT_LIMIT: usize = 100;
/// Episodes on a page, at most.
pub const MAX_LIMIT: usize = 1000;

const STATES: [(&str, State); 6] = [
    ("pending", State::Pending),
    ("in_flight", State::InFlight),
    ("delivered", State::Delivered),
    ("dead", State::Dead),
    ("purged", State::Purged),
    ("expired", State::Expired),
];

/// RFC 3986's unreserved characters stay as they are.
const VALUE: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'_').remove(b'.').remove(b'~');

/// `state`, `session`, `sink`, `limit` and `cursor`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Listing {
    /// Only episodes that stand so at one of their sinks (at `sink`, if given).
    pub state: Option<State>,
    /// Only this session.
    pub session: Option<String>,
    /// Only episodes of this sink.
    pub sink: Option<String>,
    /// At most so many: 1 to [`MAX_LIMIT`]; none = [`DEFAULT_LIMIT`].
    pub limit: Option<usize>,
    /// A page's `next_cursor`.
    pub cursor: Option<String>,
}

impl Listing {
    /// Reads decoded `key=value` pairs.
    pub fn from_pairs<'a>(pairs: impl IntoIterator<Item = (&'a str, &'a str)>) -> Result<Self, Refused> {
        let mut listing = Self::default();
        for (key, value) in pairs {
            match key {
                "state" => listing.state = Some(parse_state(value).map_err(Refused)?),
                "session" => listing.session = Some(value.to_owned()),
                "sink" => listing.sink = Some(value.to_owned()),
                "limit" => listing.limit = Some(parse_limit(value).map_err(Refused)?),
                "cursor" => listing.cursor = Some(value.to_owned()),
                other => {
                    return Err(Refused(format!(
                        "unknown query parameter \"{other}\"; allowed are state, session, sink, limit and cursor"
                    )));
                }
            }
        }
        Ok(listing)
    }

    /// The query string, without its `?`; empty for an empty question.
    pub fn to_query(&self) -> String {
        let mut pairs = Vec::new();
        let mut add = |key: &str, value: &str| pairs.push(format!("{key}={}", utf8_percent_encode(value, VALUE)));
        if let Some(state) = self.state {
            add("state", state_name(state));
        }
        if let Some(session) = &self.session {
            add("session", session);
        }
        if let Some(sink) = &self.sink {
            add("sink", sink);
        }
        if let Some(limit) = self.limit {
            add("limit", &limit.to_string());
        }
        if let Some(cursor) = &self.cursor {
            add("cursor", cursor);
        }
        pairs.join("&")
    }

    /// What to ask the queue. `known` are the names of the sinks.
    pub fn filter(&self, known: &[String]) -> Result<Filter, Refused> {
        if let Some(sink) = &self.sink {
            known_sink(sink, known)?;
        }
        let after = match self.cursor.as_deref().map(str::parse) {
            None => None,
            Some(Ok(seq)) => Some(seq),
            Some(Err(_)) => return Err(Refused("the cursor is none that a listing gave out (use a page's next_cursor)".into())),
        };
        Ok(Filter {
            state: self.state,
            session: self.session.clone(),
            sink: self.sink.clone(),
            limit: self.limit.unwrap_or(DEFAULT_LIMIT),
            after,
        })
    }
}

/// The name that JSON, queries and tables use.
pub fn state_name(state: State) -> &'static str {
    // Each state is in the table; the fallback only keeps this function total.
    STATES.iter().find(|(_, s)| *s == state).map_or("pending", |(name, _)| name)
}

/// A state by its name, or a sentence that lists them.
pub fn parse_state(text: &str) -> Result<State, String> {
    STATES.iter().find(|(name, _)| *name == text).map(|(_, state)| *state).ok_or_else(|| {
        let names: Vec<_> = STATES.iter().map(|(name, _)| *name).collect();
        format!("unknown state \"{text}\"; allowed are {}", names.join(", "))
    })
}

fn parse_limit(text: &str) -> Result<usize, String> {
    text.parse()
        .ok()
        .filter(|n| (1..=MAX_LIMIT).contains(n))
        .ok_or_else(|| format!("limit \"{text}\" is no number from 1 to {MAX_LIMIT}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_question_survives_its_query_string() {
        let listing = Listing {
            state: Some(State::InFlight),
            session: Some("user 1&sink=x/ü".into()),
            sink: Some("graphiti".into()),
            limit: Some(7),
            cursor: Some("18".into()),
        };
        let query = listing.to_query();
        assert_eq!(query, "state=in_flight&session=user%201%26sink%3Dx%2F%C3%BC&sink=graphiti&limit=7&cursor=18");
        let decoded: Vec<(String, String)> = query
            .split('&')
            .filter_map(|p| p.split_once('='))
            .map(|(k, v)| (k.to_owned(), percent_encoding::percent_decode_str(v).decode_utf8().unwrap().into_owned()))
            .collect();
        assert_eq!(Listing::from_pairs(decoded.iter().map(|(k, v)| (k.as_str(), v.as_str()))).unwrap(), listing);
    }

    #[test]
    fn every_state_has_a_name_of_its_own_that_json_uses_too() {
        for (name, state) in STATES {
            assert_eq!(state_name(state), name);
            assert_eq!(parse_state(name), Ok(state));
            assert_eq!(serde_json::to_value(state).unwrap(), name);
        }
    }

    #[test]
    fn a_refusal_says_what_is_allowed() {
        let refused = |key, value| Listing::from_pairs([(key, value)]).unwrap_err().0;
        assert_eq!(
            refused("state", "lost"),
            "unknown state \"lost\"; allowed are pending, in_flight, delivered, dead, purged, expired"
        );
        for limit in ["0", "1001", "-1", "many"] {
            assert_eq!(refused("limit", limit), format!("limit \"{limit}\" is no number from 1 to 1000"));
        }
        assert!(refused("stat", "dead").contains("allowed are state, session, sink, limit and cursor"));

        let known = ["graphiti".to_owned(), "log".to_owned()];
        let at = |sink: &str| Listing { sink: Some(sink.into()), ..Listing::default() }.filter(&known);
        assert_eq!(at("graphit").unwrap_err().0, "there is no sink \"graphit\"; the sinks are: graphiti, log");
        assert_eq!(at("log").unwrap().limit, DEFAULT_LIMIT);
        assert!(Listing { cursor: Some("x".into()), ..Listing::default() }.filter(&known).is_err());
    }
}
