//! Refusals as a service of `FastAPI` words them: the same status, the same JSON.

use http::StatusCode;
use serde_json::{Value, json};

use super::check::Wrong;

/// What it says of a body that is no JSON: 422 with the place, 400 for one that is no text at all.
pub fn malformed(body: &[u8]) -> (StatusCode, String) {
    if body.is_empty() {
        return unprocessable(&[error("missing", &["body".into()], "Field required", &Value::Null, None)]);
    }
    let body = body.strip_prefix(b"\xef\xbb\xbf").unwrap_or(body);
    let Ok(text) = std::str::from_utf8(body) else { return unreadable() };
    match Scanner::new(text).document() {
        Err(Stop { says, at }) if !says.is_empty() => {
            let place = ["body".into(), at.into()];
            unprocessable(&[error("json_invalid", &place, "JSON decode error", &json!({}), Some(&json!({ "error": says })))])
        }
        // Python reads more than JSON (NaN, lone surrogates, deeper nesting); here it is refused as what can't be read.
        _ => unreadable(),
    }
}

/// What it says of a body that isn't announced as JSON: it is taken for text.
pub fn foreign(body: &[u8]) -> (StatusCode, String) {
    let says = "Input should be a valid dictionary or object to extract fields from";
    let text = String::from_utf8_lossy(body).into_owned();
    unprocessable(&[error("model_attributes_type", &["body".into()], says, &text.into(), None)])
}

/// What it says of JSON that isn't what it should be.
pub fn invalid(wrong: &[Wrong]) -> (StatusCode, String) {
    let errors: Vec<_> = wrong
        .iter()
        .map(|wrong| {
            let place: Vec<Value> = std::iter::once("body".into()).chain(wrong.place.iter().cloned()).collect();
            error(wrong.kind, &place, &wrong.says, &wrong.input, wrong.context.as_ref())
        })
        .collect();
    unprocessable(&errors)
}

fn unreadable() -> (StatusCode, String) {
    (StatusCode::BAD_REQUEST, json!({ "detail": "There was an error parsing the body" }).to_string())
}

fn unprocessable(errors: &[Value]) -> (StatusCode, String) {
    (StatusCode::UNPROCESSABLE_ENTITY, json!({ "detail": errors }).to_string())
}

fn error(kind: &str, place: &[Value], says: &str, input: &Value, context: Option<&Value>) -> Value {
    let mut error = json!({ "type": kind, "loc": place, "msg": says, "input": input });
    if let Some(context) = context {
        error["ctx"] = context.clone();
    }
    error
}

/// Where Python's reader of JSON stops (in characters), and what it says there; nothing where it isn't the text that is at fault.
struct Stop {
    says: &'static str,
    at: usize,
}

/// Walks through a text as Python's reader does, only to find where it stops. Recursion is bounded: what is nested deeper is no fault
/// that has a place.
struct Scanner {
    text: Vec<char>,
}

const DEEPEST: usize = 200;

impl Scanner {
    fn new(text: &str) -> Self {
        Self { text: text.chars().collect() }
    }

    fn document(&self) -> Result<(), Stop> {
        let end = self.value(self.blank(0), 0)?;
        let end = self.blank(end);
        if end < self.text.len() { stop("Extra data", end) } else { Ok(()) }
    }

    fn blank(&self, at: usize) -> usize {
        let blank = |c: &&char| matches!(c, ' ' | '\t' | '\n' | '\r');
        at + self.text.iter().skip(at).take_while(blank).count()
    }

    fn is(&self, at: usize, c: char) -> bool {
        self.text.get(at) == Some(&c)
    }

    fn value(&self, at: usize, depth: usize) -> Result<usize, Stop> {
        if depth > DEEPEST {
            return stop("", at);
        }
        for word in ["null", "true", "false", "NaN", "Infinity", "-Infinity"] {
            if self.text[at.min(self.text.len())..].starts_with(&word.chars().collect::<Vec<_>>()) {
                return Ok(at + word.len());
            }
        }
        match self.text.get(at) {
            Some('"') => self.string(at),
            Some('{') => self.object(at + 1, depth),
            Some('[') => self.array(at + 1, depth),
            _ => self.number(at),
        }
    }

    fn object(&self, at: usize, depth: usize) -> Result<usize, Stop> {
        let mut at = self.blank(at);
        if self.is(at, '}') {
            return Ok(at + 1);
        }
        loop {
            if !self.is(at, '"') {
                return stop("Expecting property name enclosed in double quotes", at);
            }
            at = self.blank(self.string(at)?);
            if !self.is(at, ':') {
                return stop("Expecting ':' delimiter", at);
            }
            at = self.blank(self.value(self.blank(at + 1), depth + 1)?);
            if self.is(at, '}') {
                return Ok(at + 1);
            }
            if !self.is(at, ',') {
                return stop("Expecting ',' delimiter", at);
            }
            at = self.blank(at + 1);
        }
    }

    fn array(&self, at: usize, depth: usize) -> Result<usize, Stop> {
        let mut at = self.blank(at);
        if self.is(at, ']') {
            return Ok(at + 1);
        }
        loop {
            at = self.blank(self.value(at, depth + 1)?);
            if self.is(at, ']') {
                return Ok(at + 1);
            }
            if !self.is(at, ',') {
                return stop("Expecting ',' delimiter", at);
            }
            at = self.blank(at + 1);
        }
    }

    fn string(&self, begin: usize) -> Result<usize, Stop> {
        let mut at = begin + 1;
        loop {
            match self.text.get(at) {
                None => return stop("Unterminated string starting at", begin),
                Some('"') => return Ok(at + 1),
                Some('\\') => at = self.escape(begin, at)?,
                Some('\0'..='\x1f') => return stop("Invalid control character at", at),
                Some(_) => at += 1,
            }
        }
    }

    fn escape(&self, begin: usize, at: usize) -> Result<usize, Stop> {
        match self.text.get(at + 1) {
            None => stop("Unterminated string starting at", begin),
            Some('u') => {
                // Four digits, and something behind them: the text does not end here.
                let digits = self.text.get(at + 2..at + 7);
                if digits.is_some_and(|digits| digits[..4].iter().all(char::is_ascii_hexdigit)) {
                    return Ok(at + 6);
                }
                stop("Invalid \\uXXXX escape", at + 1)
            }
            Some('"' | '\\' | '/' | 'b' | 'f' | 'n' | 'r' | 't') => Ok(at + 2),
            Some(_) => stop("Invalid \\escape", at),
        }
    }

    fn number(&self, begin: usize) -> Result<usize, Stop> {
        let digits = |at: usize| self.text.iter().skip(at).take_while(|c| c.is_ascii_digit()).count();
        let whole = begin + usize::from(self.is(begin, '-'));
        let mut at = match digits(whole) {
            0 => return stop("Expecting value", begin),
            _ if self.is(whole, '0') => whole + 1,
            n => whole + n,
        };
        if self.is(at, '.') && digits(at + 1) > 0 {
            at += 1 + digits(at + 1);
        }
        if self.is(at, 'e') || self.is(at, 'E') {
            let sign = usize::from(self.is(at + 1, '-') || self.is(at + 1, '+'));
            match digits(at + 1 + sign) {
                0 => {}
                n => at += 1 + sign + n,
            }
        }
        Ok(at)
    }
}

fn stop<T>(says: &'static str, at: usize) -> Result<T, Stop> {
    Err(Stop { says, at })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What Python 3.11 says of each.
    #[test]
    fn a_body_that_is_no_json_is_told_as_python_tells_it() {
        for (body, at, says) in [
            ("{", 1, "Expecting property name enclosed in double quotes"),
            ("{\"a\"", 4, "Expecting ':' delimiter"),
            ("{\"a\":", 5, "Expecting value"),
            ("{\"a\":1", 6, "Expecting ',' delimiter"),
            ("{\"a\":1 \"b\":2}", 7, "Expecting ',' delimiter"),
            ("{a:1}", 1, "Expecting property name enclosed in double quotes"),
            ("[1", 2, "Expecting ',' delimiter"),
            ("[1,", 3, "Expecting value"),
            ("\"abc", 0, "Unterminated string starting at"),
            ("\"\\", 0, "Unterminated string starting at"),
            ("\"\\x\"", 1, "Invalid \\escape"),
            ("\"\\u12\"", 2, "Invalid \\uXXXX escape"),
            ("\"\\u12g4\"    ", 2, "Invalid \\uXXXX escape"),
            ("\"a\tb\"", 2, "Invalid control character at"),
            ("{} x", 3, "Extra data"),
            ("nul", 0, "Expecting value"),
            ("-", 0, "Expecting value"),
            ("1.", 1, "Extra data"),
            ("01", 1, "Extra data"),
            ("{\"é\":", 5, "Expecting value"),
            ("  ", 2, "Expecting value"),
        ] {
            let (status, told) = malformed(body.as_bytes());
            assert_eq!(status, 422, "{body}");
            let told: Value = serde_json::from_str(&told).unwrap();
            let expected = json!({"detail": [{"type": "json_invalid", "loc": ["body", at], "msg": "JSON decode error", "input": {},
                "ctx": {"error": says}}]});
            assert_eq!(told, expected, "{body}");
        }
        assert_eq!(malformed(b"\xff{}"), (StatusCode::BAD_REQUEST, r#"{"detail":"There was an error parsing the body"}"#.into()));
    }

    #[test]
    fn inv9_no_nesting_is_too_deep_for_the_stack() {
        let deep = "[".repeat(1_000_000);
        assert_eq!(malformed(deep.as_bytes()).0, 400);
    }
}
