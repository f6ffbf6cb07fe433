//! Whether a body is what the service behind it would take, and if not, what is wrong where: in the order and in the words of
//! `pydantic`, from the fields that a preset names.

use serde_json::{Value, json};

use crate::capture::time::{self, NoTime};
use crate::config::offload::{Field, Kind};

/// Faults told at most: each repeats a part of the body.
pub const MOST: usize = 100;

/// Words and numbers that `pydantic` takes for a boolean.
const BOOLEANS: [&str; 12] = ["0", "off", "f", "false", "n", "no", "1", "on", "t", "true", "y", "yes"];

/// One thing that is wrong.
#[derive(Debug, Clone, PartialEq)]
pub struct Wrong {
    /// Its name.
    pub kind: &'static str,
    /// Keys and indices, from the body inwards.
    pub place: Vec<Value>,
    /// What is wrong, in words.
    pub says: String,
    /// What stands there; of what is missing, what it is missing in.
    pub input: Value,
    /// What the words are made of.
    pub context: Option<Value>,
}

impl Wrong {
    /// Where it is, as a path: `$.messages[0].role`.
    pub fn path(&self) -> String {
        self.place.iter().fold("$".to_owned(), |path, step| match step {
            Value::String(key) => format!("{path}.{key}"),
            index => format!("{path}[{index}]"),
        })
    }
}

/// Everything that is wrong with a body, up to [`MOST`].
pub fn check(fields: &[Field], body: &Value) -> Vec<Wrong> {
    let mut check = Check { place: Vec::new(), wrong: Vec::new() };
    if !fields.is_empty() {
        check.object(fields, body);
    }
    check.wrong
}

struct Check {
    place: Vec<Value>,
    wrong: Vec<Wrong>,
}

impl Check {
    fn tell(&mut self, kind: &'static str, says: impl Into<String>, input: &Value, context: Option<Value>) {
        if self.wrong.len() < MOST {
            self.wrong.push(Wrong { kind, place: self.place.clone(), says: says.into(), input: input.clone(), context });
        }
    }

    fn within(&mut self, step: Value, look: impl FnOnce(&mut Self)) {
        self.place.push(step);
        look(self);
        self.place.pop();
    }

    fn object(&mut self, fields: &[Field], value: &Value) {
        let Value::Object(members) = value else {
            let says = "Input should be a valid dictionary or object to extract fields from";
            return self.tell("model_attributes_type", says, value, None);
        };
        for field in fields {
            self.within(field.name.as_str().into(), |check| match members.get(&field.name) {
                None if field.required => check.tell("missing", "Field required", value, None),
                None => {}
                Some(Value::Null) if field.nullable => {}
                Some(found) => check.field(field, found),
            });
        }
    }

    fn field(&mut self, field: &Field, value: &Value) {
        match (field.kind, value) {
            (Kind::Text, _) if !field.one_of.is_empty() => self.one_of(&field.one_of, value),
            (Kind::Text, Value::String(text)) => self.text(field, text, value),
            (Kind::Text, _) => self.tell("string_type", "Input should be a valid string", value, None),
            (Kind::Array, Value::Array(items)) => {
                if !field.fields.is_empty() {
                    for (index, item) in items.iter().enumerate() {
                        self.within(index.into(), |check| check.object(&field.fields, item));
                    }
                }
            }
            (Kind::Array, _) => self.tell("list_type", "Input should be a valid list", value, None),
            (Kind::Object, _) if !field.fields.is_empty() => self.object(&field.fields, value),
            (Kind::Object, Value::Object(_)) => {}
            (Kind::Object, _) => self.tell("dict_type", "Input should be a valid dictionary", value, None),
            (Kind::Boolean, _) => self.boolean(value),
            (Kind::Timestamp, _) => self.timestamp(value),
        }
    }

    fn one_of(&mut self, options: &[String], value: &Value) {
        if value.as_str().is_some_and(|text| options.iter().any(|option| option == text)) {
            return;
        }
        let quoted: Vec<_> = options.iter().map(|option| format!("'{option}'")).collect();
        let expected = match quoted.as_slice() {
            [others @ .., last] if !others.is_empty() => format!("{} or {last}", others.join(", ")),
            one => one.concat(),
        };
        self.tell("literal_error", format!("Input should be {expected}"), value, Some(json!({ "expected": expected })));
    }

    fn text(&mut self, field: &Field, text: &str, value: &Value) {
        let least = field.min_length;
        if text.chars().count() < least {
            let plural = if least == 1 { "" } else { "s" };
            let says = format!("String should have at least {least} character{plural}");
            self.tell("string_too_short", says, value, Some(json!({ "min_length": least })));
        } else if let Some(says) = &field.blank
            && text.trim().is_empty()
        {
            self.tell("value_error", format!("Value error, {says}"), value, Some(json!({ "error": {} })));
        }
    }

    fn boolean(&mut self, value: &Value) {
        let known = match value {
            Value::Bool(_) => true,
            Value::String(text) => BOOLEANS.iter().any(|word| text.eq_ignore_ascii_case(word)),
            // As JSON prints it: 1.0 is taken and 1.5 is no boolean at all.
            Value::Number(number) if number.is_f64() => match number.to_string().as_str() {
                "0.0" | "-0.0" | "1.0" => true,
                _ => return self.tell("bool_type", "Input should be a valid boolean", value, None),
            },
            Value::Number(number) => matches!(number.as_i64(), Some(0 | 1)),
            _ => return self.tell("bool_type", "Input should be a valid boolean", value, None),
        };
        if !known {
            self.tell("bool_parsing", "Input should be a valid boolean, unable to interpret input", value, None);
        }
    }

    fn timestamp(&mut self, value: &Value) {
        let (kind, says, why) = match time::parse(value) {
            Ok(_) => return,
            Err(NoTime::Kind) => return self.tell("datetime_type", "Input should be a valid datetime", value, None),
            Err(NoTime::Number(why)) => ("datetime_parsing", "Input should be a valid datetime", why),
            Err(NoTime::Text(why)) => ("datetime_from_date_parsing", "Input should be a valid datetime or date", why),
        };
        self.tell(kind, format!("{says}, {why}"), value, Some(json!({ "error": why })));
    }
}
