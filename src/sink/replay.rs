//! The original request, sent again: to the service that it was meant for, once that has time for it.
//!
//! The same method, path, query and body, the headers that the route keeps, and those that are configured here, which win: they are where
//! the operator's own credentials go. `Idempotency-Key` is the episode's id, unless the original had one; a service that knows it makes a
//! delivery exactly once in effect, any other at least once, for it can't be asked whether it has taken a request.

use futures_util::future::BoxFuture;
use http::header::HOST;
use http::{HeaderMap, HeaderName, HeaderValue, Method};
use reqwest::Url;

use super::http::Client;
use super::{Cause, Delivery, Follow, Presence, Receipt, Sink, SinkError};
use crate::config;
use crate::episode::Original;

const IDEMPOTENCY_KEY: HeaderName = HeaderName::from_static("idempotency-key");

/// The sink.
pub struct ReplaySink {
    client: Client,
    url: String,
    /// Headers that are set here.
    own: Vec<HeaderName>,
}

impl ReplaySink {
    pub(super) fn new(client: Client, url: &str, config: &config::Sink) -> Self {
        Self { client, url: url.to_owned(), own: config.headers.iter().map(|(name, _)| name.clone()).collect() }
    }

    async fn send(&self, delivery: &Delivery) -> Result<Receipt, SinkError> {
        let episode = &delivery.episode;
        let Some(original) = &episode.original else {
            return Err(unfit(
                "the episode has no request to send again: it was longer than the route's max_capture, broken off, or came by a route \
                 that did not go to this sink",
            ));
        };
        let method = Method::from_bytes(episode.request.method.as_bytes()).map_err(|_| unfit("its method is not valid"))?;
        let url = self.target(original)?;
        let mut headers = self.headers(original)?;
        if !headers.contains_key(IDEMPOTENCY_KEY) && !self.own.contains(&IDEMPOTENCY_KEY) {
            let id = HeaderValue::try_from(episode.id.to_string()).map_err(|_| unfit("its id is not valid"))?;
            headers.insert(IDEMPOTENCY_KEY, id);
        }
        self.client.send(method, url, headers, original.body.clone(), true).await?;
        Ok(Receipt::Delivered)
    }

    fn target(&self, original: &Original) -> Result<Url, SinkError> {
        let url = Url::parse(&format!("{}{}", self.url, original.target))
            .map_err(|e| unfit(&format!("its target is not valid: {e}")))?;
        // The client resolves these before it sends, and the service would get another path than the one that was asked for.
        let path = original.target.split('?').next().unwrap_or_default();
        let is_dots = |part: &str| matches!(part.to_ascii_lowercase().replace("%2e", ".").as_str(), "." | "..");
        if path.split('/').any(is_dots) {
            return Err(unfit("its path has . or .. in it, and can't be sent as it was"));
        }
        Ok(url)
    }

    fn headers(&self, original: &Original) -> Result<HeaderMap, SinkError> {
        let mut headers = HeaderMap::new();
        for (name, value) in &original.headers {
            let name = HeaderName::from_bytes(name.as_bytes()).map_err(|_| unfit("it has a header whose name is not valid"))?;
            let value = HeaderValue::from_bytes(value).map_err(|_| unfit("it has a header whose value is not valid"))?;
            if name != HOST && !self.own.contains(&name) {
                headers.append(name, value);
            }
        }
        Ok(headers)
    }
}

/// No attempt would end otherwise.
fn unfit(why: &str) -> SinkError {
    SinkError { cause: Cause::Unfit, message: why.to_owned(), retry_after: None, ambiguous: false }
}

impl Sink for ReplaySink {
    fn kind(&self) -> &'static str {
        "replay"
    }

    fn deliver<'a>(&'a self, delivery: &'a Delivery) -> BoxFuture<'a, Result<Receipt, SinkError>> {
        Box::pin(self.send(delivery))
    }

    fn look_up<'a>(&'a self, _: &'a Delivery) -> BoxFuture<'a, Result<Presence, SinkError>> {
        Box::pin(std::future::ready(Ok(Presence::Unknown)))
    }

    fn follow(&self) -> Option<Follow> {
        None
    }
}

#[cfg(test)]
mod tests;
