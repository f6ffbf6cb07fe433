//! Which headers and parameters are credentials, by their names: no record, log or metric has their values (invariant 10).

use percent_encoding::percent_decode_str;

/// Names that are credentials by themselves.
const NAMES: [&str; 13] = [
    "authorization",
    "proxy_authorization",
    "cookie",
    "set_cookie",
    "x_api_key",
    "key",
    "apikey",
    "auth",
    "x_auth",
    "jwt",
    "sig",
    "pwd",
    "passwd",
];

/// What no other name has in it.
const PARTS: [&str; 6] = ["token", "secret", "password", "authorization", "credential", "signature"];

/// Whether a header or a query parameter of this name is a credential. Upper and lower case are the same, and so are `-`, `_` and
/// `camelCase`: it is a credential if it ends with `_key` or `apikey`, has one of `token`, `secret`, `password`, `authorization`,
/// `credential` and `signature` in it, or is one of a few names such as `cookie` and `key`. An idempotency key is none.
pub fn is_credential(name: &str) -> bool {
    let name = plain(name);
    if name == "idempotency_key" || name.ends_with("_idempotency_key") {
        return false;
    }
    NAMES.contains(&name.as_str())
        || name.ends_with("_key")
        || name.ends_with("apikey")
        || PARTS.iter().any(|part| name.contains(part))
}

/// A query without the parameters that are [credentials](is_credential); the others as they were, byte for byte.
pub fn without_credentials(query: &str) -> String {
    let kept: Vec<_> = query.split('&').filter(|pair| !is_parameter_of_credentials(pair)).collect();
    kept.join("&")
}

fn is_parameter_of_credentials(pair: &str) -> bool {
    let name = pair.split_once('=').map_or(pair, |(name, _)| name);
    is_credential(&percent_decode_str(name).decode_utf8_lossy())
}

/// `accessKey`, `Access-Key`, `access_key`: all the last of them.
fn plain(name: &str) -> String {
    let mut plain = String::with_capacity(name.len() + 4);
    let mut after_small = false;
    for c in name.chars() {
        if c.is_ascii_uppercase() && after_small {
            plain.push('_');
        }
        after_small = c.is_ascii_lowercase() || c.is_ascii_digit();
        plain.push(if matches!(c, '-' | '.' | ' ' | '+') { '_' } else { c.to_ascii_lowercase() });
    }
    plain
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn inv10_credentials_are_known_by_their_names() {
        for name in [
            "Authorization",
            "proxy-authorization",
            "Cookie",
            "SET-COOKIE",
            "x-api-key",
            "X_API_KEY",
            "api-key",
            "apikey",
            "apiKey",
            "x-goog-api-key",
            "x-functions-key",
            "Ocp-Apim-Subscription-Key",
            "accessKey",
            "key",
            "token",
            "access_token",
            "x-auth-token",
            "X-Forwarded-Access-Token",
            "client_secret",
            "clientSecret",
            "Password",
            "new-password",
            "x-amz-security-token",
            "X-Amz-Signature",
            "X-Amz-Credential",
            "x-forwarded-authorization",
            "sig",
            "auth",
        ] {
            assert!(is_credential(name), "{name}");
        }
        for name in [
            "",
            "x-session-id",
            "idempotency-key",
            "X-Idempotency-Key",
            "idempotencyKey",
            "monkey",
            "keyboard",
            "author",
            "user",
            "q",
            "x-openwebui-chat-id",
            "traceparent",
            "content-type",
            "location",
            "sigma",
        ] {
            assert!(!is_credential(name), "{name}");
        }
    }

    #[test]
    fn a_query_keeps_what_is_no_credential_as_it_was() {
        for (query, kept) in [
            ("", ""),
            ("a=1&b=%20+x", "a=1&b=%20+x"),
            ("a=1&&flag&=x", "a=1&&flag&=x"),
            ("x-api-key=s&a=1", "a=1"),
            ("a=1&x%2Dapi%2Dkey=s&b=2", "a=1&b=2"),
            ("Token=s", ""),
            ("token", ""),
            ("a=token&b=key=c", "a=token&b=key=c"),
            ("access+key=1", ""),
        ] {
            assert_eq!(without_credentials(query), kept, "{query}");
        }
    }
}
