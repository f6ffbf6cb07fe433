//! The probe: an episode that says what it is.

use std::sync::Arc;

use uuid::Uuid;

use super::NAME;
use crate::clock;
use crate::episode::{Digests, End, Episode, Message, Request};
use crate::sink::Delivery;

/// Who is said to have spoken: some services take an episode only for a thread, a user or an agent that they have.
#[derive(Debug, Clone, Default)]
pub struct Names {
    /// Its session.
    pub session: Option<String>,
    /// Its user.
    pub user: Option<String>,
    /// Its agent.
    pub agent: Option<String>,
}

/// A new one, of now.
pub fn probe(sink: &str, names: &Names) -> Delivery {
    let name = |name: &Option<String>| name.clone().unwrap_or_else(|| NAME.to_owned());
    let now = clock::now_ms();
    let asked = format!(
        "This is a probe that `offramp sink test {sink}` has sent, to see whether what is said here is remembered. Nobody has said it, and it can be removed."
    );
    let episode = Episode {
        id: Uuid::now_v7(),
        session: name(&names.session),
        group: None,
        user: Some(name(&names.user)),
        agent: Some(name(&names.agent)),
        proxy: "offramp".to_owned(),
        route: "probe".to_owned(),
        captured_at: now,
        completed_at: now,
        end: End::Complete,
        messages: vec![Message::new("user", asked), Message::new("assistant", "This is the answer of the probe.")],
        metadata: serde_json::json!({ "offramp_probe": true, "sink": sink }).to_string(),
        request: Request { method: "POST".to_owned(), path: "/".to_owned(), status: 200, traceparent: None },
        occurred_at: None,
        sha256: Digests::default(),
        original: None,
    };
    Delivery { episode: Arc::new(episode), at: now.cast_signed() }
}
