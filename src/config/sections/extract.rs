//! `[proxy.route.extract]`

use crate::config::pattern::PathPattern;
use crate::config::read::{Field, Header, Read, Section};
use crate::config::source::{SOURCES, Source};
use crate::config::values::list;
use crate::config::{Chain, Extract};

/// What a route, or its preset, says about `extract`: a field that isn't given differs from one that is given as empty.
#[derive(Debug, Clone, Default)]
pub struct Given {
    session: Option<Vec<Source>>,
    group: Option<Vec<Source>>,
    user: Option<Vec<Source>>,
    agent: Option<Vec<Source>>,
    input: Option<Vec<Source>>,
    output: Option<Vec<Source>>,
    metadata: Vec<(String, Vec<Source>)>,
    time: Option<Vec<Source>>,
    chain: Option<Chain>,
}

impl Given {
    /// Reads the table out of a route, or out of a preset.
    pub fn read(parent: &mut Section<'_>, path: Option<&PathPattern>) -> Self {
        let mut s = parent.table("extract", Header::Own("[proxy.route.extract]"));
        let mut metadata = s.table("metadata", Header::Inline);
        let entries = metadata.rest().into_iter();
        let metadata = entries.filter_map(|(key, field)| Some((key, list(source(path))(&field).ok()?))).collect();
        let given = Self {
            session: s.maybe("session", sources(path)),
            group: s.maybe("group", sources(path)),
            user: s.maybe("user", sources(path)),
            agent: s.maybe("agent", sources(path)),
            input: s.maybe("input", sources(path)),
            output: s.maybe("output", sources(path)),
            metadata,
            time: s.maybe("time", sources(path)),
            chain: chain(&mut s, path),
        };
        s.finish();
        given
    }

    /// Whether it says where to find anything that was said.
    pub fn has_text(&self) -> bool {
        self.input.is_some() || self.output.is_some()
    }

    /// Keeps only the sources that `keep` says yes to.
    pub fn retain(&mut self, keep: impl Fn(&Source) -> bool) {
        let Self { session, group, user, agent, input, output, metadata, time, chain } = self;
        let fields = [session, group, user, agent, input, output, time].into_iter().flatten();
        let chain = chain.iter_mut().flat_map(|chain| [&mut chain.previous, &mut chain.id]);
        let lists = fields.chain(metadata.iter_mut().map(|(_, sources)| sources)).chain(chain);
        lists.for_each(|sources| sources.retain(&keep));
    }

    /// The route's own fields, and the preset's where the route gives none; metadata key by key.
    pub fn over(self, preset: Self) -> Extract {
        let either = |own: Option<Vec<Source>>, preset: Option<Vec<Source>>| own.or(preset).unwrap_or_default();
        let mut metadata = self.metadata;
        for (key, sources) in preset.metadata {
            if !metadata.iter().any(|(own, _)| *own == key) {
                metadata.push((key, sources));
            }
        }
        Extract {
            session: either(self.session, preset.session),
            group: either(self.group, preset.group),
            user: either(self.user, preset.user),
            agent: either(self.agent, preset.agent),
            input: either(self.input, preset.input),
            output: either(self.output, preset.output),
            metadata,
            time: either(self.time, preset.time),
            chain: self.chain.or(preset.chain),
        }
    }
}

fn chain(s: &mut Section<'_>, path: Option<&PathPattern>) -> Option<Chain> {
    let mut chain = s.maybe_table("chain", Header::Inline)?;
    let previous = chain.require("previous", SOURCES, sources(path));
    let id = chain.require("id", SOURCES, sources(path));
    chain.finish();
    Some(Chain { previous: previous?, id: id? })
}

/// A list of sources, or a single one, for a route with this path.
pub fn sources<'c>(path: Option<&PathPattern>) -> impl Fn(&Field<'c>) -> Read<Vec<Source>> {
    list(source(path))
}

fn source<'c>(path: Option<&PathPattern>) -> impl Fn(&Field<'c>) -> Read<Source> {
    move |field| {
        let source = Source::parse(&field.text(SOURCES)?)?;
        if let (Source::ReqPath(name), Some(path)) = (&source, path)
            && !path.has(name)
        {
            let names: Vec<_> = path.names().map(|name| format!("req.path:{name}")).collect();
            let allowed = if names.is_empty() { "a path with that name in it".to_owned() } else { names.join(" or ") };
            return Err(format!("but the route's path {path} has no {{{name}}}, allowed: {allowed}"));
        }
        Ok(source)
    }
}
