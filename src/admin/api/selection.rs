//! Which dead letters to redrive or purge.

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::{Refused, known_sink};
use crate::queue::Select;

/// The body of `POST /api/v1/dead/redrive` and `/purge`. What is given narrows the selection; what isn't doesn't.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Selection {
    /// These episodes.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub ids: Vec<Uuid>,
    /// At this sink.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sink: Option<String>,
    /// Of this session.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub session: Option<String>,
    /// Dead for this reason.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// Every dead letter: needed where nothing else is given.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub all: bool,
    /// Letters a second, put back in the background: for a redrive alone.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rate: Option<f64>,
}

impl Selection {
    /// Whether nothing narrows it.
    pub fn is_empty(&self) -> bool {
        self.ids.is_empty() && self.sink.is_none() && self.session.is_none() && self.reason.is_none()
    }

    /// What to ask of the queue. `known` are the names of the sinks.
    pub fn select(self, known: &[String]) -> Result<Select, Refused> {
        if self.rate.is_some_and(|rate| !(rate.is_finite() && rate > 0.0)) {
            return Err(Refused("rate is a number of episodes a second, above 0".into()));
        }
        if self.is_empty() && !self.all {
            return Err(Refused("nothing is selected: give ids, sink, session or reason, or \"all\": true for every one".into()));
        }
        if !self.is_empty() && self.all {
            return Err(Refused(
                "\"all\" means every dead letter; leave it out where ids, sink, session or reason narrow it".into(),
            ));
        }
        if let Some(sink) = &self.sink {
            known_sink(sink, known)?;
        }
        Ok(Select { ids: self.ids, sink: self.sink, session: self.session, reason: self.reason })
    }
}

/// How many there were.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Count {
    /// Dead letters, one per episode and sink.
    pub count: u64,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_empty_selection_is_never_taken_for_all() {
        let known = ["graphiti".to_owned()];
        let select = |text: &str| serde_json::from_str::<Selection>(text).unwrap().select(&known);
        assert!(select("{}").unwrap_err().0.contains("\"all\": true"));
        assert!(select(r#"{"ids":[]}"#).is_err(), "a script whose list came out empty must not purge everything");
        assert!(select(r#"{"all":true}"#).is_ok());
        assert!(select(r#"{"all":true,"sink":"graphiti"}"#).is_err());
        assert!(select(r#"{"sink":"other"}"#).unwrap_err().0.contains("the sinks are: graphiti"));
        assert!(select(r#"{"all":true,"rate":0}"#).unwrap_err().0.contains("above 0"));
        assert!(select(r#"{"all":true,"rate":0.5}"#).is_ok());
        assert_eq!(select(r#"{"sink":"graphiti","reason":"max_age"}"#).unwrap().reason.as_deref(), Some("max_age"));
        assert!(serde_json::from_str::<Selection>(r#"{"sinks":"graphiti"}"#).is_err(), "a misspelt key must not widen it");
    }
}
