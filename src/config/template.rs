//! Templates over an episode, in the language of Jinja: what a sink of `type = "http"` sends, and what it reads out of answers.
//!
//! A template is compiled when the configuration is read. What can be known then is a fault then: its syntax, names that nothing has,
//! filters that don't exist. What is left for later is what an episode lacks: that is an error of rendering, never a panic.
//!
//! In what is sent, a name that is missing is an error: a request with a hole in it would be worse than none. In what is read out of
//! an answer, what is missing is just not there: answers are as long as their services like.

use std::fmt;
use std::sync::Arc;

use minijinja::{AutoEscape, Environment, Error, ErrorKind, Output, State, UndefinedBehavior, Value};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};

use super::read::nearest;

/// What names can stand for anything in a request.
pub const EPISODE: [&str; 18] = [
    "id",
    "session",
    "group",
    "group_id",
    "user",
    "agent",
    "proxy",
    "route",
    "captured_at",
    "completed_at",
    "occurred_at",
    "end",
    "messages",
    "metadata",
    "request",
    "sha256",
    "at",
    "transcript",
];

/// What a template that asks for an episode can name besides: the answer that accepted it.
pub const ASKING: [&str; 1] = ["answer"];

/// What can be named of an answer.
pub const ANSWER: [&str; 3] = ["status", "answer", "text"];

/// The name of the one template in each environment.
const NAME: &str = "template";

/// What stays as it is in a path or a query: RFC 3986, unreserved.
const ESCAPED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');

/// What a template makes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Makes {
    /// Text as it is; null is written `none`.
    Text,
    /// What an answer says: null is nothing.
    Reason,
    /// One line of a head: null is an error.
    Line,
    /// A path and a query: whatever is put in is percent-encoded, unless it is marked `|safe`; null is an error.
    Path,
}

/// A compiled template.
#[derive(Clone)]
pub struct Template {
    source: Arc<str>,
    env: Arc<Environment<'static>>,
}

/// A compiled condition: an expression.
#[derive(Clone)]
pub struct Condition {
    source: Arc<str>,
    template: Template,
}

/// What is compiled from the same text, for the same key, is the same.
impl PartialEq for Template {
    fn eq(&self, other: &Self) -> bool {
        self.source == other.source
    }
}

impl PartialEq for Condition {
    fn eq(&self, other: &Self) -> bool {
        self.source == other.source
    }
}

impl Template {
    /// Compiles what is sent. `names` is what it may name. The error says what is wrong, and in which line.
    pub fn request(source: &str, makes: Makes, names: &[&[&str]]) -> Result<Self, String> {
        Self::compile(source, makes, UndefinedBehavior::SemiStrict, names)
    }

    /// Compiles what is read out of an answer.
    pub fn reading(source: &str, names: &[&[&str]]) -> Result<Self, String> {
        Self::compile(source, Makes::Reason, UndefinedBehavior::Chainable, names)
    }

    fn compile(source: &str, makes: Makes, missing: UndefinedBehavior, names: &[&[&str]]) -> Result<Self, String> {
        let mut env = Environment::new();
        env.set_undefined_behavior(missing);
        env.add_filter("having", having);
        if makes != Makes::Text {
            env.set_auto_escape_callback(|_| AutoEscape::None);
            env.set_formatter(move |out, state, value| write(out, state, value, makes));
        }
        env.add_template_owned(NAME, source.to_owned()).map_err(|e| told(&e))?;
        let template = Self { source: source.into(), env: Arc::new(env) };
        template.known(names)?;
        template.tried()?;
        Ok(template)
    }

    /// Tells a name that nothing has.
    fn known(&self, names: &[&[&str]]) -> Result<(), String> {
        let Ok(template) = self.env.get_template(NAME) else { return Ok(()) }; // it was added
        let globals: Vec<&str> = self.env.globals().map(|(name, _)| name).collect();
        let names = || names.iter().copied().flatten().copied();
        let mut unknown: Vec<_> = template.undeclared_variables(false).into_iter().collect();
        unknown.retain(|name| !globals.contains(&name.as_str()) && !names().any(|known| known == name));
        unknown.sort_unstable();
        let Some(name) = unknown.first() else { return Ok(()) };
        let meant = nearest(name, names()).map_or_else(String::new, |near| format!("did you mean `{near}`? "));
        Err(format!("nothing is named `{name}` here, {meant}allowed: {}", names().collect::<Vec<_>>().join(", ")))
    }

    /// Tells filters, tests and functions that don't exist: they are looked up when they are used, so it is tried on nothing at all.
    fn tried(&self) -> Result<(), String> {
        let mut env = (*self.env).clone();
        env.set_undefined_behavior(UndefinedBehavior::Chainable);
        let Ok(template) = env.get_template(NAME) else { return Ok(()) }; // it was added
        match template.render(()) {
            Err(e) if matches!(e.kind(), ErrorKind::UnknownFilter | ErrorKind::UnknownTest | ErrorKind::UnknownFunction) => {
                Err(told(&e))
            }
            _ => Ok(()),
        }
    }

    /// Renders it; the error says what is missing, and in which line.
    pub fn render(&self, over: &Value) -> Result<String, String> {
        self.env.get_template(NAME).and_then(|template| template.render(over)).map_err(|e| told(&e))
    }

    /// Whether it names this.
    pub fn names(&self, name: &str) -> bool {
        self.env.get_template(NAME).is_ok_and(|template| template.undeclared_variables(false).contains(name))
    }

    /// What was written.
    pub fn source(&self) -> &str {
        &self.source
    }
}

impl Condition {
    /// Compiles an expression over an answer, such as `status == 409 and "exists" in text`.
    pub fn new(source: &str, names: &[&[&str]]) -> Result<Self, String> {
        // By itself first: below, one that ends early and goes on as a template would be taken for one as well.
        Environment::new().compile_expression(source).map_err(|e| told(&e))?;
        let template = Template::reading(&format!("{{% if {source} %}}yes{{% endif %}}"), names)?;
        Ok(Self { source: source.into(), template })
    }

    /// Whether it holds.
    pub fn holds(&self, over: &Value) -> Result<bool, String> {
        Ok(!self.template.render(over)?.is_empty())
    }
}

/// Whether a text has anything in it that makes it more than a text.
pub fn is_template(text: &str) -> bool {
    ["{{", "{%", "{#"].iter().any(|mark| text.contains(mark))
}

/// `list | having("meta.id", id)`: the elements that have this value at this path. What is no list has no elements, and what has no such
/// path has no such value.
fn having(list: &Value, path: &str, wanted: &Value) -> Vec<Value> {
    let at = |element: &Value| path.split('.').try_fold(element.clone(), |value, part| value.get_attr(part).ok());
    list.try_iter().map(|elements| elements.filter(|element| at(element).as_ref() == Some(wanted)).collect()).unwrap_or_default()
}

/// Writes a value as what is made of it needs it.
fn write(out: &mut Output, state: &mut State, value: &Value, makes: Makes) -> Result<(), Error> {
    if value.is_none() {
        return match makes {
            Makes::Reason => Ok(()),
            _ => Err(Error::new(ErrorKind::InvalidOperation, "null has no place here")),
        };
    }
    if makes == Makes::Path && !value.is_safe() {
        let encoded = utf8_percent_encode(&value.to_string(), ESCAPED).to_string();
        return minijinja::escape_formatter(out, state, &Value::from(encoded));
    }
    minijinja::escape_formatter(out, state, value)
}

/// `unknown filter: filter foo is unknown in its line 2`.
fn told(error: &Error) -> String {
    let mut text = error.kind().to_string();
    if let Some(detail) = error.detail() {
        text = format!("{text}: {detail}");
    }
    match error.line() {
        Some(line) if line > 1 => format!("{text}, in its line {line}"),
        _ => text,
    }
}

impl fmt::Debug for Template {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Template").field(&self.source).finish()
    }
}

impl fmt::Debug for Condition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Condition").field(&self.source).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use minijinja::context;
    use minijinja::value::Serde;

    fn request(source: &str, makes: Makes) -> Result<Template, String> {
        Template::request(source, makes, &[&EPISODE])
    }

    #[test]
    fn what_is_wrong_with_a_template_is_known_before_there_is_an_episode() {
        for (source, why) in [
            ("{{ id", "syntax error"),
            ("one\n{% if id %}", "in its line 2"),
            ("{{ sesion }}", "nothing is named `sesion` here, did you mean `session`?"),
            ("{{ answer }}", "nothing is named `answer` here"),
            ("{{ id | tojsn }}", "unknown filter"),
            ("{% if id is uppr %}{% endif %}", "unknown test"),
            ("{{ fetch(id) }}", "nothing is named `fetch` here"),
        ] {
            let told = request(source, Makes::Text).unwrap_err();
            assert!(told.contains(why), "{source}: {told}");
        }
        for source in
            ["{{ id }}", "{% for m in messages %}{{ m.content }}{% endfor %}", "{% for n in range(3) %}{{ n }}{% endfor %}"]
        {
            assert!(request(source, Makes::Text).is_ok(), "{source}");
        }
        assert!(Condition::new("status == 409 and 'x' in text", &[&ANSWER]).is_ok());
        for source in ["status ==", "true %}{% if true", "stats == 409"] {
            assert!(Condition::new(source, &[&ANSWER]).is_err(), "{source}");
        }
    }

    #[test]
    fn what_is_missing_is_an_error_in_a_request_and_nothing_in_an_answer() {
        let render = |source, makes| request(source, makes).unwrap().render(&context! { id => 1, user => () });
        assert_eq!(render("{{ id }}", Makes::Text), Ok("1".to_owned()));
        assert!(render("{{ agent }}", Makes::Text).unwrap_err().contains("undefined"));
        assert!(render("{{ metadata.thread }}", Makes::Text).is_err());
        assert_eq!(render("{{ agent or id }}", Makes::Text), Ok("1".to_owned()));
        assert_eq!(render("{{ agent | default('x') }}", Makes::Text), Ok("x".to_owned()));
        assert_eq!(render("{{ user | tojson }}", Makes::Text), Ok("null".to_owned()));
        assert!(render("/{{ user }}", Makes::Path).unwrap_err().contains("null"));
        assert!(render("{{ user }}", Makes::Line).unwrap_err().contains("null"));

        let holds = |source: &str, over: Value| Condition::new(source, &[&ANSWER]).unwrap().holds(&over);
        let there = "answer.documents | having('meta.id', 7)";
        let answer = |json: &str| context! { answer => Serde(serde_json::from_str::<serde_json::Value>(json).unwrap()) };
        assert_eq!(holds(there, answer(r#"{"documents":[{"meta":null},{},{"meta":{"id":7}}]}"#)), Ok(true));
        assert_eq!(holds(there, answer(r#"{"documents":[{"meta":{"id":8}}]}"#)), Ok(false));
        assert_eq!(holds(there, answer(r#"{"documents":[{"meta":{"id":"7"}},7,null]}"#)), Ok(false));
        assert_eq!(holds(there, answer(r#"{"documents":7}"#)), Ok(false));
        assert_eq!(holds(there, answer("{}")), Ok(false));
        assert_eq!(holds(there, context! {}), Ok(false));
    }

    #[test]
    fn what_is_put_into_a_path_stays_within_its_part() {
        let path = request("/threads/{{ session }}?q={{ user }}&{{ id | safe }}", Makes::Path).unwrap();
        let over = context! { session => "a/../b?x#y %ä", user => "1&2=3", id => "k=v" };
        assert_eq!(path.render(&over).unwrap(), "/threads/a%2F..%2Fb%3Fx%23y%20%25%C3%A4?q=1%262%3D3&k=v");
    }
}
