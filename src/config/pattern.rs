//! Path patterns: `{name}` matches one segment, `{*rest}` the remainder.

/// A parsed pattern.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PathPattern {
    segments: Vec<Segment>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Segment {
    Literal(String),
    Name(String),
    Rest(String),
}

/// What the names of a pattern stand for in one path.
#[derive(Debug, Clone, Copy)]
pub struct Params<'p> {
    pattern: &'p PathPattern,
    path: &'p str,
}

impl PathPattern {
    /// Parses `/a/{name}/{*rest}`.
    pub fn parse(text: &str) -> Result<Self, String> {
        let Some(text) = text.strip_prefix('/') else { return Err("a path starts with \"/\"".to_owned()) };
        let segments = text
            .split('/')
            .map(|s| match s.strip_prefix('{').and_then(|s| s.strip_suffix('}')) {
                Some(name) => match name.strip_prefix('*') {
                    Some(rest) => Segment::Rest(rest.to_owned()),
                    None => Segment::Name(name.to_owned()),
                },
                None => Segment::Literal(s.to_owned()),
            })
            .collect();
        Ok(Self { segments })
    }

    /// Matches the whole path; does not allocate.
    pub fn matches<'p>(&'p self, path: &'p str) -> Option<Params<'p>> {
        let params = Params { pattern: self, path };
        params.walk(|_, _| false).then_some(params)
    }
}

impl<'p> Params<'p> {
    /// The text that `{name}` or `{*name}` matched, as it stands in the path (percent-encoded).
    pub fn get(&self, name: &str) -> Option<&'p str> {
        let mut found = None;
        self.walk(|n, text| {
            if n == name {
                found = Some(text);
            }
            n == name
        });
        found
    }

    /// Goes along path and pattern until `stop` says so; whether they agreed as far as it went.
    fn walk(&self, mut stop: impl FnMut(&str, &'p str) -> bool) -> bool {
        let Some(mut rest) = self.path.strip_prefix('/').map(Some) else { return false };
        for segment in &self.pattern.segments {
            let Some(left) = rest else { return false };
            if let Segment::Rest(name) = segment {
                stop(name, left);
                return true;
            }
            let (here, next) = match left.split_once('/') {
                Some((here, next)) => (here, Some(next)),
                None => (left, None),
            };
            match segment {
                Segment::Literal(text) if text == here => {}
                Segment::Name(name) if !here.is_empty() => {
                    if stop(name, here) {
                        return true;
                    }
                }
                _ => return false,
            }
            rest = next;
        }
        rest.is_none()
    }
}
