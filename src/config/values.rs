//! Readers of single values: from a field to a type, or to the end of a sentence that says what is allowed.

use std::path::PathBuf;
use std::time::Duration;

use super::Secret;
use super::encryption::{self, SealingKey};
use super::expand;
use super::read::{Field, Read, nearest};
use super::status::{RETRIES, RetryOn, STATUSES, StatusSet};
use super::tree::Value;
use super::units;

/// A path of the file system.
pub fn path(field: &Field<'_>) -> Read<PathBuf> {
    let path = field.text("a path")?;
    if path.is_empty() || path.contains('\0') { Err("allowed: a path, not empty".to_owned()) } else { Ok(PathBuf::from(path)) }
}

/// A path, or nothing for an empty text.
pub fn optional_path(field: &Field<'_>) -> Read<Option<PathBuf>> {
    if is_empty(field) { Ok(None) } else { path(field).map(Some) }
}

/// Whether the value is an empty text: how the file writes "none".
pub fn is_empty(field: &Field<'_>) -> bool {
    field.text("").is_ok_and(|text| text.is_empty())
}

/// The name of a proxy, route or sink. It is a label of metrics and a segment of keys, so it is plain.
pub fn name(field: &Field<'_>) -> Read<String> {
    const LONGEST: usize = 64;
    const ALLOWED: &str = "allowed: a name of letters, digits, _ and -, at most 64, at least one of them a letter";
    let name = field.text("a name in quotes")?;
    let plain = name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_' || b == b'-');
    // A name of digits alone could not be told from an index in `sink.0.workers`.
    let has_letter = name.bytes().any(|b| b.is_ascii_alphabetic());
    if plain && has_letter && name.len() <= LONGEST { Ok(name) } else { Err(ALLOWED.to_owned()) }
}

/// `true` or `false`.
pub fn boolean(field: &Field<'_>) -> Read<bool> {
    match *field.scalar()? {
        Value::Boolean(flag) => Ok(flag),
        _ => Err("allowed: true or false".to_owned()),
    }
}

/// A whole number from `min` to `max`.
pub fn integer<T>(min: T, max: T) -> impl Fn(&Field<'_>) -> Read<T>
where
    T: Copy + std::fmt::Display + TryFrom<i128> + PartialOrd,
{
    move |field| {
        let wrong = || format!("allowed: an integer from {min} to {max}");
        match *field.scalar()? {
            Value::Integer(number) => T::try_from(number).ok().filter(|n| *n >= min && *n <= max).ok_or_else(wrong),
            _ => Err(wrong()),
        }
    }
}

/// A number from 0 to 1.
pub fn share(field: &Field<'_>) -> Read<f64> {
    let number = match *field.scalar()? {
        Value::Float(number) => Some(number),
        Value::Integer(0) => Some(0.0),
        Value::Integer(1) => Some(1.0),
        _ => None,
    };
    number.filter(|n| (0.0..=1.0).contains(n)).ok_or_else(|| "allowed: a number from 0.0 to 1.0".to_owned())
}

/// A number from `min` to `max`.
pub fn number(min: f64, max: f64) -> impl Fn(&Field<'_>) -> Read<f64> {
    move |field| {
        let number = match *field.scalar()? {
            Value::Float(number) => Some(number),
            Value::Integer(number) => i32::try_from(number).ok().map(f64::from),
            _ => None,
        };
        number.filter(|n| (min..=max).contains(n)).ok_or_else(|| format!("allowed: a number from {min} to {max}"))
    }
}

/// A duration longer than zero.
pub fn duration(field: &Field<'_>) -> Read<Duration> {
    let found = duration_or_zero(field)?;
    if found.is_zero() { Err(format!("allowed: {}, longer than zero", units::DURATIONS)) } else { Ok(found) }
}

/// A duration.
pub fn duration_or_zero(field: &Field<'_>) -> Read<Duration> {
    let text = field.text(units::DURATIONS)?;
    units::duration(&text).ok_or_else(|| format!("allowed: {}", units::DURATIONS))
}

/// A size in bytes, from `min` to `max`.
pub fn size(min: u64, max: u64) -> impl Fn(&Field<'_>) -> Read<u64> {
    move |field| {
        let found = size_or_zero(field)?;
        if (min..=max).contains(&found) {
            Ok(found)
        } else {
            Err(format!("allowed: {}, from {} to {}", units::SIZES, units::show_size(min), units::show_size(max)))
        }
    }
}

/// A size in bytes.
pub fn size_or_zero(field: &Field<'_>) -> Read<u64> {
    let wrong = || format!("allowed: {}", units::SIZES);
    match &*field.scalar()? {
        Value::Integer(bytes) => u64::try_from(*bytes).map_err(|_| wrong()),
        Value::Text(text) => units::size(text).ok_or_else(wrong),
        _ => Err(wrong()),
    }
}

/// One of a few words, each of which means something.
pub fn choice<T: Clone + 'static>(options: &'static [(&'static str, T)]) -> impl Fn(&Field<'_>) -> Read<T> {
    choice_with(options, &[])
}

/// As [`choice`], with words that will mean something in a later version.
pub fn choice_with<T: Clone + 'static>(
    options: &'static [(&'static str, T)],
    planned: &'static [&'static str],
) -> impl Fn(&Field<'_>) -> Read<T> {
    move |field| {
        let allowed = options.iter().map(|(word, _)| format!("{word:?}")).collect::<Vec<_>>().join(" or ");
        let text = field.text(&allowed)?;
        if let Some((_, value)) = options.iter().find(|(word, _)| *word == text) {
            return Ok(value.clone());
        }
        if planned.contains(&text.as_str()) {
            return Err(format!("which is not in this version yet, allowed: {allowed}"));
        }
        match nearest(&text, options.iter().map(|(word, _)| *word)) {
            Some(near) if options.len() > 2 => Err(format!("did you mean {near:?}? allowed: {allowed}")),
            _ => Err(format!("allowed: {allowed}")),
        }
    }
}

/// A list, or a single value; each element that is wrong is a fault of its own.
pub fn list<'c, T>(read: impl Fn(&Field<'c>) -> Read<T>) -> impl Fn(&Field<'c>) -> Read<Vec<T>> {
    move |field| Ok(field.items().iter().filter_map(|item| read(item).map_err(|tail| item.fault(&tail)).ok()).collect())
}

/// Statuses: `["2xx", 404]`.
#[allow(clippy::unnecessary_wraps)] // It is a reader like the others; its faults are those of its elements.
pub fn statuses(field: &Field<'_>) -> Read<StatusSet> {
    let mut set = StatusSet::default();
    for item in field.items() {
        word_or_number(&item, STATUSES, |word| set.add(word));
    }
    Ok(set)
}

/// What is worth another attempt: `["connect", 429, "5xx"]`.
#[allow(clippy::unnecessary_wraps)] // As above.
pub fn retry_on(field: &Field<'_>) -> Read<RetryOn> {
    let mut set = RetryOn::default();
    for item in field.items() {
        word_or_number(&item, RETRIES, |word| set.add(word));
    }
    Ok(set)
}

fn word_or_number(item: &Field<'_>, allowed: &str, add: impl FnOnce(&str) -> bool) {
    let word = match &item.node.value {
        Value::Integer(number) => Ok(number.to_string()),
        _ => item.text(allowed),
    };
    match word {
        Ok(word) if add(&word) => {}
        Ok(_) => item.fault(&format!("allowed: {allowed}")),
        Err(tail) => item.fault(&tail),
    }
}

/// A file that is to be read later: where it is, or would be.
pub fn file(field: &Field<'_>) -> Read<PathBuf> {
    let path = path(field)?;
    Ok(expand::find(&path, field.cx().env, field.cx().dir))
}

/// Permission bits, in octal as `chmod` takes them.
pub fn mode(field: &Field<'_>) -> Read<u32> {
    const ALLOWED: &str = "permissions in quotes, in octal, such as \"0660\", up to \"0777\"";
    let text = field.text(ALLOWED)?;
    let digits = (3..=4).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_digit());
    let mode = u32::from_str_radix(&text, 8).ok().filter(|mode| digits && *mode <= 0o777);
    mode.ok_or_else(|| format!("allowed: {ALLOWED}"))
}

/// A user's id, by number or by name.
pub fn user(field: &Field<'_>) -> Read<u32> {
    id(field, "user", |name| uzers::get_user_by_name(name).map(|user| user.uid()))
}

/// A group's id, by number or by name.
pub fn group(field: &Field<'_>) -> Read<u32> {
    id(field, "group", |name| uzers::get_group_by_name(name).map(|group| group.gid()))
}

/// A number needs no entry in the system's list: in a container it often has none.
fn id(field: &Field<'_>, what: &str, look_up: impl Fn(&str) -> Option<u32>) -> Read<u32> {
    let allowed = format!("allowed: the name of a {what} of this system, or its number");
    match &*field.scalar()? {
        // The last number stands for "leave it as it is".
        Value::Integer(number) => u32::try_from(*number).ok().filter(|id| *id != u32::MAX).ok_or(allowed),
        Value::Text(name) if name.is_empty() => Err(allowed),
        Value::Text(name) => look_up(name).ok_or_else(|| format!("there is no such {what}, {allowed}")),
        _ => Err(allowed),
    }
}

/// The secret in the file that the key names; nothing for an empty text.
pub fn secret(field: &Field<'_>) -> Read<Option<Secret>> {
    let path = field.text("the path of a file")?;
    if path.is_empty() {
        return Ok(None);
    }
    expand::secret(&path, field.cx().env, field.cx().dir).map(Some)
}

/// The keys in the file that the key names; none for an empty text.
pub fn sealing_keys(field: &Field<'_>) -> Read<Vec<SealingKey>> {
    let path = field.text("the path of a file")?;
    if path.is_empty() {
        return Ok(Vec::new());
    }
    let (found, text) = expand::secrets(&path, field.cx().env, field.cx().dir, encryption::ALLOWED)?;
    encryption::keys(&text).map_err(|why| format!("but {} {why}, {}", found.display(), encryption::ALLOWED))
}
