//! What sinks that speak HTTP have in common: the client, and what its errors mean.

use http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use reqwest::{Method, Response, Url};

use super::{Cause, SinkError, wish};
use crate::config;
use crate::config::credentials::is_credential;

/// Bytes of a refusal that are kept.
const KEPT: usize = 1024;

/// Bytes of an answer that are read.
pub const READ: usize = 16 << 20;

/// An HTTP client with the sink's time-outs and headers.
pub struct Client {
    http: reqwest::Client,
    /// What must not be told, should the service repeat it in what it refuses.
    secrets: Vec<String>,
}

impl Client {
    pub fn new(config: &config::Sink) -> Result<Self, reqwest::Error> {
        // Chosen once for the process; a second sink finds it chosen.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let http = reqwest::Client::builder()
            .connect_timeout(config.connect_timeout)
            .timeout(config.timeout)
            .default_headers(config.headers.iter().cloned().collect())
            .redirect(reqwest::redirect::Policy::none()) // a redirected POST is a misconfiguration, and may lose its body
            .user_agent(concat!("offramp/", env!("CARGO_PKG_VERSION")))
            .pool_max_idle_per_host(config.workers)
            .no_proxy()
            .build()?;
        Ok(Self { http, secrets: secrets(&config.headers) })
    }

    /// Sends JSON; the answer's head, if it is a success.
    pub async fn post(&self, url: &str, body: &serde_json::Value) -> Result<Response, SinkError> {
        let request = self.http.request(Method::POST, url).json(body);
        self.accept(request.send().await.map_err(|e| broken(&e, true))?).await
    }

    /// Sends a request as it is; the answer's head, if it is a success. `changes`: whether the request would change something.
    pub async fn send(
        &self,
        method: Method,
        url: Url,
        headers: HeaderMap,
        body: Vec<u8>,
        changes: bool,
    ) -> Result<Response, SinkError> {
        let request = self.http.request(method, url).headers(headers);
        let request = if body.is_empty() { request } else { request.body(body) };
        self.accept(request.send().await.map_err(|e| broken(&e, changes))?).await
    }

    /// Sends a request as it is; the whole answer, whatever it says. `changes`: whether the request would change something. If it does,
    /// the status is what counts, and a body that breaks off is none.
    pub async fn ask(
        &self,
        method: Method,
        url: Url,
        headers: HeaderMap,
        body: Vec<u8>,
        changes: bool,
    ) -> Result<Answer, SinkError> {
        let request = self.http.request(method, url).headers(headers);
        let request = if body.is_empty() { request } else { request.body(body) };
        let response = request.send().await.map_err(|e| broken(&e, changes))?;
        let (status, headers) = (response.status(), response.headers().clone());
        let body = match read(response, READ).await {
            Ok((body, _)) => body,
            Err(_) if changes => Vec::new(),
            Err(error) => return Err(broken(&error, false)),
        };
        Ok(Answer { status, headers, body })
    }

    /// What an answer means that is no success.
    pub fn refused(&self, answer: &Answer) -> SinkError {
        let longest = self.secrets.iter().map(String::len).max().unwrap_or(0);
        let body = &answer.body[..answer.body.len().min(KEPT + longest)];
        let says = self.without_secrets(String::from_utf8_lossy(body).trim());
        refused(answer.status, &answer.headers, &says)
    }

    /// Gets JSON. Never ambiguous: it changes nothing.
    pub async fn get<T: serde::de::DeserializeOwned>(&self, url: &str) -> Result<T, SinkError> {
        let response = self.http.request(Method::GET, url).send().await.map_err(|e| broken(&e, false))?;
        let (body, whole) = read(self.accept(response).await?, READ).await.map_err(|e| broken(&e, false))?;
        let text = if whole { String::new() } else { format!(" (cut at {READ} bytes)") };
        serde_json::from_slice(&body).map_err(|e| SinkError {
            cause: Cause::Timeout,
            message: self.without_secrets(&format!("the answer to GET {url} is not what was expected{text}: {e}")),
            retry_after: None,
            ambiguous: false,
        })
    }

    /// A success as it is; anything else as an error with the first bytes of what it says.
    async fn accept(&self, response: Response) -> Result<Response, SinkError> {
        let status = response.status();
        if status.is_success() {
            return Ok(response);
        }
        let headers = response.headers().clone();
        // So much more that a secret which is cut by the limit is still known as one.
        let longest = self.secrets.iter().map(String::len).max().unwrap_or(0);
        let says = match read(response, KEPT + longest).await {
            Ok((body, _)) => self.without_secrets(String::from_utf8_lossy(&body).trim()),
            Err(_) => String::new(), // the status says enough
        };
        Err(refused(status, &headers, &says))
    }

    /// A text without the sink's credentials, should the service repeat them.
    pub fn without_secrets(&self, text: &str) -> String {
        self.secrets.iter().fold(text.to_owned(), |text, secret| text.replace(secret, "[redacted]"))
    }
}

/// A whole answer.
pub struct Answer {
    pub status: StatusCode,
    pub headers: HeaderMap,
    pub body: Vec<u8>,
}

/// The values of those headers that are credentials, and what follows the scheme in them (`Bearer …`).
fn secrets(headers: &[(HeaderName, HeaderValue)]) -> Vec<String> {
    let values = headers.iter().filter(|(name, _)| is_credential(name.as_str())).filter_map(|(_, value)| value.to_str().ok());
    let mut secrets: Vec<_> = values
        .flat_map(|value| [Some(value), value.rsplit_once(' ').map(|(_, token)| token)])
        .flatten()
        .map(ToOwned::to_owned)
        .collect();
    secrets.retain(|secret| !secret.trim().is_empty());
    secrets
}

/// The error of an answer that is no success, with the beginning of what it says.
fn refused(status: StatusCode, headers: &HeaderMap, says: &str) -> SinkError {
    let says = says.char_indices().take_while(|(at, c)| at + c.len_utf8() <= KEPT).map(|(_, c)| c).collect::<String>();
    let message = if says.is_empty() { format!("answered {status}") } else { format!("answered {status}: {says}") };
    SinkError {
        cause: Cause::Status(status.as_u16()),
        message,
        retry_after: wish::of(status, headers, jiff::Timestamp::now()),
        ambiguous: false,
    }
}

/// A body up to a limit, and whether that was all.
async fn read(mut response: Response, limit: usize) -> Result<(Vec<u8>, bool), reqwest::Error> {
    let mut body = Vec::new();
    while let Some(chunk) = response.chunk().await? {
        body.extend_from_slice(&chunk);
        if body.len() > limit {
            body.truncate(limit);
            return Ok((body, false));
        }
    }
    Ok((body, true))
}

/// What the client's error means. `changes`: whether the request would have changed something.
pub fn broken(error: &reqwest::Error, changes: bool) -> SinkError {
    let connect = error.is_connect();
    let mut message = error.to_string();
    let mut source = std::error::Error::source(error);
    while let Some(cause) = source {
        let cause_text = cause.to_string();
        if !message.contains(&cause_text) {
            message = format!("{message}: {cause_text}");
        }
        source = cause.source();
    }
    SinkError {
        cause: if connect { Cause::Connect } else { Cause::Timeout },
        message,
        retry_after: None,
        ambiguous: changes && !connect,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn inv10_what_a_service_repeats_of_the_credentials_is_not_told() {
        let header = |name, value| (HeaderName::from_static(name), HeaderValue::from_static(value));
        let headers = [header("authorization", "Bearer s3cret"), header("x-api-key", "k3y"), header("x-tenant", "acme")];
        let _ = rustls::crypto::ring::default_provider().install_default();
        let client = Client { http: reqwest::Client::new(), secrets: secrets(&headers) };
        let says = "no such token s3cret (Bearer s3cret), key k3y of acme";
        assert_eq!(client.without_secrets(says), "no such token [redacted] ([redacted]), key [redacted] of acme");
    }
}
