//! From a file, the environment and `--set` to one checked [`Config`], or to everything that is wrong with it.
//!
//! Defaults < file < environment < `--set`: the file becomes a tree whose values know their place, the overlays are put into that
//! tree, the sections are read out of it, and at last the rules between keys are checked.

use std::collections::BTreeMap;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use toml::Spanned;
use toml::de::{DeTable, DeValue, Error};

use super::fault::{Fault, Faults, Origin};
use super::overlay;
use super::read::{Context, Section};
use super::sections::{operation, proxy, queue, sink};
use super::tree::{Node, Table, Value};
use super::{Config, check};

/// What a configuration is made of. [`Input::of_process`] for the real one, `Default` for a test.
#[derive(Debug, Clone, Default)]
pub struct Input {
    /// `--config`.
    pub path: Option<PathBuf>,
    /// Each `--set KEY=VALUE`.
    pub sets: Vec<String>,
    /// The environment: `OFFRAMP_CONFIG`, overlays such as `OFFRAMP_QUEUE__PATH`, and what `${VAR}` stands for.
    pub env: BTreeMap<String, String>,
    /// Where to look for the file if nobody names it, first to last.
    pub places: Vec<PathBuf>,
}

impl Input {
    /// The input of this process: its environment, and the usual places.
    pub fn of_process(path: Option<PathBuf>, sets: Vec<String>) -> Self {
        // A value that isn't UTF-8 is told where it is used: as text with replacement characters it fits no key.
        let env = std::env::vars_os()
            .filter_map(|(name, value)| Some((name.into_string().ok()?, value.to_string_lossy().into_owned())));
        Self { path, sets, env: env.collect(), places: vec!["config.toml".into(), "/etc/offramp/config.toml".into()] }
    }

    /// The file to read: `--config`, else `$OFFRAMP_CONFIG`, else the first of the usual places that exists.
    pub fn locate(&self) -> Result<PathBuf, Faults> {
        let named = self.path.clone().or_else(|| self.env.get("OFFRAMP_CONFIG").filter(|p| !p.is_empty()).map(PathBuf::from));
        if let Some(path) = named.or_else(|| self.places.iter().find(|place| place.exists()).cloned()) {
            return Ok(path);
        }
        let places: Vec<_> = self.places.iter().map(|place| place.display().to_string()).collect();
        let message =
            format!("no file found, looked for {}; name one with --config PATH or OFFRAMP_CONFIG", places.join(" and "));
        Err(Faults::whole(None, message))
    }
}

/// Finds the file, reads it with everything that lies over it, and checks it.
pub fn load(input: &Input) -> Result<Config, Faults> {
    load_with(input, |_| Vec::new())
}

/// As [`load`], and has the files that `run` needs looked at: `look` says what is wrong with them, for each fault the path of a key
/// such as `proxy.0.tls.key_file` and a sentence. What it looks at may have other faults.
pub fn load_with(input: &Input, look: impl FnOnce(&Config) -> Vec<(String, String)>) -> Result<Config, Faults> {
    let path = input.locate()?;
    let bytes = std::fs::read(&path)
        .map_err(|error| Faults::whole(Some(&path), format!("{} cannot be read ({error})", path.display())))?;
    match String::from_utf8(bytes) {
        Ok(text) => read_with(&text, &path, input, look),
        Err(error) => {
            let valid = String::from_utf8_lossy(&error.as_bytes()[..error.utf8_error().valid_up_to()]);
            let at = place(&path.display().to_string().into(), &valid, valid.len());
            Err(Faults::new(
                Some(&path),
                vec![Fault { at, message: "this is not UTF-8, allowed: a TOML file in UTF-8".to_owned() }],
            ))
        }
    }
}

/// As [`load`], for a text that has been read already; `path` is what its faults call it, and where a relative `*_file` is looked for.
pub fn read(text: &str, path: &Path, input: &Input) -> Result<Config, Faults> {
    read_with(text, path, input, |_| Vec::new())
}

fn read_with(
    text: &str,
    path: &Path,
    input: &Input,
    look: impl FnOnce(&Config) -> Vec<(String, String)>,
) -> Result<Config, Faults> {
    let (config, faults) = read_all(text, path, input, |cx, config| {
        for (key, sentence) in look(config) {
            cx.fault(cx.at(&key), sentence);
        }
    });
    if faults.is_empty() { Ok(config) } else { Err(Faults::new(Some(path), faults)) }
}

/// Reads as far as it goes. `look` sees what was read before the faults are taken out of the context.
fn read_all(text: &str, path: &Path, input: &Input, look: impl FnOnce(&Context<'_>, &Config)) -> (Config, Vec<Fault>) {
    let file: Arc<str> = path.display().to_string().into();
    let at = |offset| place(&file, text, offset);
    let (table, errors) = DeTable::parse_recoverable(text);
    let damage = Damage::of(text, table.get_ref(), &errors);
    let mut tree = Table::from_toml(table.into_inner(), &at);

    let dir = path.parent().unwrap_or(Path::new(""));
    let cx = Context::new(&input.env, dir, !damage.is_empty());
    overlay::environment(&cx, &mut tree);
    overlay::sets(&cx, &mut tree, &input.sets);

    let mut root = Section::root(&cx, "", Node { value: Value::Table(tree), at: at(0), raw: None });
    let mut config = Config {
        proxies: root.tables("proxy", "[[proxy]]").into_iter().map(proxy::proxy).collect(),
        queue: queue::queue(&mut root),
        sinks: root.tables("sink", "[[sink]]").into_iter().map(sink::sink).collect(),
        admin: operation::admin(&mut root),
        log: operation::log(&mut root),
    };
    operation::alert(&mut root);
    operation::telemetry(&mut root);
    root.finish();
    check::check(&cx, &mut config);
    look(&cx, &config);

    let mut faults = cx.into_faults();
    // What the parser made of a broken line is a guess, and what is wrong with the guess is no news.
    faults.retain(|fault| !matches!(&fault.at, Origin::File { file: f, line, .. } if *f == file && damage.covers(*line)));
    faults.extend(damage.errors.iter().map(|(offset, message)| Fault { at: at(*offset), message: message.clone() }));
    (config, faults)
}

/// Line and column of a byte offset.
pub(super) fn place(file: &Arc<str>, text: &str, offset: usize) -> Origin {
    let before = &text[..floor(text, offset)];
    let line = before.matches('\n').count() + 1;
    let column = before.rsplit('\n').next().unwrap_or_default().trim_start_matches('\u{feff}').chars().count() + 1;
    Origin::File { file: Arc::clone(file), line: number(line), column: number(column) }
}

/// The character that an offset lies in, or the end.
fn floor(text: &str, offset: usize) -> usize {
    (0..=offset.min(text.len())).rev().find(|at| text.is_char_boundary(*at)).unwrap_or(0)
}

fn number(n: usize) -> u32 {
    u32::try_from(n).unwrap_or(u32::MAX)
}

/// Where the file is no TOML. One slip makes the parser stumble several times, so each damaged stretch is told once: by the first
/// error in it. A stretch is a line, or the whole of an array, inline table or text over several lines.
struct Damage {
    /// Byte offset and sentence.
    errors: Vec<(usize, String)>,
    /// First and last damaged line.
    lines: Vec<(u32, u32)>,
}

impl Damage {
    fn of(text: &str, table: &DeTable<'_>, errors: &[Error]) -> Self {
        let mut damage = Self { errors: Vec::new(), lines: Vec::new() };
        if errors.is_empty() {
            return damage;
        }
        let mut values = Vec::new();
        table.values().for_each(|value| inline_values(text, value, &mut values));
        let line = |offset: usize| number(text[..floor(text, offset)].matches('\n').count() + 1);
        let mut sorted: Vec<_> =
            errors.iter().map(|error| (error.span().map_or(0, |span| span.start), error.message())).collect();
        sorted.sort_by_key(|(offset, _)| *offset);
        // The value that the last error told stood in.
        let mut open: Option<Range<usize>> = None;
        for (offset, message) in sorted {
            let around = values.iter().find(|value| value.start <= offset && offset <= value.end);
            let lines =
                around.map_or((line(offset), line(offset)), |value| (line(value.start), line(value.end).max(line(offset))));
            if !damage.covers(line(offset)) {
                damage.errors.push((offset, sentence(message)));
                open = around.cloned();
            } else if message.starts_with("unclosed")
                && let (Some(last), Some(value)) = (damage.errors.last_mut(), around.filter(|value| open.as_ref() == Some(value)))
            {
                *last = (value.start, "this is not TOML: the bracket is never closed".to_owned());
            }
            damage.lines.push(lines);
        }
        damage
    }

    fn is_empty(&self) -> bool {
        self.errors.is_empty()
    }

    fn covers(&self, line: u32) -> bool {
        self.lines.iter().any(|(first, last)| (*first..=*last).contains(&line))
    }
}

/// The stretches of values that are written in place: everything but tables with a header.
fn inline_values(text: &str, value: &Spanned<DeValue<'_>>, out: &mut Vec<Range<usize>>) {
    let span = value.span();
    match value.get_ref() {
        DeValue::Table(table) if !text.get(span.start..).is_some_and(|t| t.starts_with('{')) => {
            table.values().for_each(|v| inline_values(text, v, out));
        }
        DeValue::Array(items) if items.iter().next().is_some_and(|first| first.span().start == span.start) => {
            items.iter().for_each(|v| inline_values(text, v, out));
        }
        _ => out.push(span),
    }
}

/// The parser's message, with what it expected where that helps.
fn sentence(message: &str) -> String {
    let message = message.trim_end_matches(", expected nothing").trim_end_matches(", expected literal string");
    let number =
        ["invalid float", "invalid integer", "invalid boolean", "invalid datetime"].iter().any(|m| message.starts_with(m));
    let hint = if number { "; text needs quotes" } else { "" };
    if message == "duplicate key" {
        return "this is given a second time, allowed: once".to_owned();
    }
    format!("this is not TOML: {message}{hint}")
}

#[cfg(test)]
mod tests;
