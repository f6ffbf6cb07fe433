//! Who may come in: the bearer token, and no web page of another origin.

use axum::extract::{Request, State};
use axum::http::{HeaderMap, Method, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use sha2::{Digest, Sha256};

use super::Shared;
use super::problem::Problem;
use crate::config::Secret;

/// Probes know no token, and learn nothing but whether offramp is up.
const OPEN: [&str; 2] = ["/livez", "/readyz"];

pub(super) async fn guard(State(shared): State<Shared>, request: Request, next: Next) -> Response {
    if let Some(token) = &shared.settings().token {
        let open = OPEN.contains(&request.uri().path());
        if !open && !bears(request.headers(), token) {
            return Problem::unauthorized().into_response();
        }
    }
    // A loopback address needs no token, but the operator's browser can reach it too: without this, any page that it shows could
    // pause a sink or purge dead letters with a plain form.
    let reads = matches!(*request.method(), Method::GET | Method::HEAD | Method::OPTIONS);
    if !reads && foreign(request.headers()) {
        return Problem::foreign_origin().into_response();
    }
    next.run(request).await
}

fn bears(headers: &HeaderMap, token: &Secret) -> bool {
    let given = headers.get(header::AUTHORIZATION).and_then(|value| {
        let (scheme, given) = value.as_bytes().split_at_checked("Bearer ".len())?;
        scheme.eq_ignore_ascii_case(b"Bearer ").then(|| given.trim_ascii())
    });
    given.is_some_and(|given| same(given, token.0.as_bytes()))
}

/// Compares digests, every byte of them: the time tells neither where the two differ nor how long the secret is.
fn same(a: &[u8], b: &[u8]) -> bool {
    let pairs = Sha256::digest(a).into_iter().zip(Sha256::digest(b));
    pairs.fold(0_u8, |difference, (a, b)| std::hint::black_box(difference | (a ^ b))) == 0
}

/// Whether a browser says that this comes from a page which was not served from here.
fn foreign(headers: &HeaderMap) -> bool {
    let Some(origin) = headers.get(header::ORIGIN) else { return false };
    let authority = origin.to_str().ok().and_then(|o| o.split_once("://")).map(|(_, authority)| authority);
    let host = headers.get(header::HOST).and_then(|h| h.to_str().ok());
    authority.is_none() || authority != host
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn inv10_only_the_whole_token_opens_the_door() {
        let token = Secret("s3cret".into());
        let with = |value: &'static str| {
            let mut headers = HeaderMap::new();
            headers.insert(header::AUTHORIZATION, value.parse().unwrap());
            bears(&headers, &token)
        };
        assert!(with("Bearer s3cret") && with("bearer s3cret"));
        for wrong in ["Bearer", "Bearer ", "Bearer s3cre", "Bearer s3crets", "s3cret", "Basic s3cret", "Bearer S3CRET"] {
            assert!(!with(wrong), "{wrong}");
        }
        assert!(!bears(&HeaderMap::new(), &token));
    }
}
