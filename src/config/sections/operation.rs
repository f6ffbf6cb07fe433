//! `[admin]`, `[alert]`, `[log]` and `[telemetry]`

use tracing_subscriber::EnvFilter;

use crate::config::address::admin_listen;
use crate::config::read::{Field, Header, Read, Section};
use crate::config::tree::Value;
use crate::config::values::{choice, is_empty, optional_path, secret};
use crate::config::{Admin, Listen, Log, LogFormat};

/// Reads `[admin]` out of the file.
pub fn admin(file: &mut Section<'_>) -> Admin {
    let mut s = file.table("admin", Header::Own("[admin]"));
    let admin = Admin {
        listen: s.get("listen", Listen::Tcp("127.0.0.1:9911".to_owned()), admin_listen),
        token: s.get("token_file", None, secret),
    };
    s.planned("ui", "allowed: false", |field| matches!(field.scalar().as_deref(), Ok(Value::Boolean(false))));
    s.finish();
    admin
}

/// Reads `[alert]`: nothing of it is in this version.
pub fn alert(file: &mut Section<'_>) {
    let mut s = file.table("alert", Header::Own("[alert]"));
    s.planned("url", "allowed: \"\"", is_empty);
    s.finish();
}

/// Reads `[log]` out of the file.
pub fn log(file: &mut Section<'_>) -> Log {
    let mut s = file.table("log", Header::Own("[log]"));
    let formats = choice(&[("auto", LogFormat::Auto), ("text", LogFormat::Text), ("json", LogFormat::Json)]);
    let log = Log {
        level: s.get("level", "info".to_owned(), level),
        format: s.get("format", LogFormat::Auto, formats),
        file: s.get("file", None, optional_path),
    };
    s.finish();
    log
}

/// Reads `[telemetry]`: nothing of it is in this version.
pub fn telemetry(file: &mut Section<'_>) {
    let mut s = file.table("telemetry", Header::Own("[telemetry]"));
    s.planned("otlp_endpoint", "allowed: \"\"", is_empty);
    s.finish();
}

fn level(field: &Field<'_>) -> Read<String> {
    const ALLOWED: &str = "off, error, warn, info, debug or trace, or a list such as info,offramp=debug";
    let text = field.text(ALLOWED)?;
    // A word that is no level would be taken for the name of a module, and turn everything else off without a word.
    let is_level =
        |word: &str| ["off", "error", "warn", "info", "debug", "trace"].contains(&word.trim().to_ascii_lowercase().as_str());
    let is_directive =
        |part: &str| is_level(part) || part.rsplit_once('=').is_some_and(|(target, word)| !target.is_empty() && is_level(word));
    if text.split(',').all(is_directive) && EnvFilter::try_new(&text).is_ok() {
        Ok(text)
    } else {
        Err(format!("allowed: {ALLOWED}"))
    }
}
