//! Path patterns: `{name}` matches one segment, `{*rest}` the remainder.
//!
//! Segments are compared byte for byte, still percent-encoded: decoding a captured value is the business of whoever reads it. A
//! trailing slash counts: `/a` and `/a/` are two paths, and `/a/{*rest}` matches `/a/` but not `/a`.

/// What a pattern may look like.
pub const PATTERNS: &str = "a path such as /v1/agents/{name}/run or /v1/{*rest}";

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

/// What a pattern's names stand for in a path that it matches. Borrows from both, and is found by walking the path again: matching
/// costs no allocation at all.
#[derive(Debug, Clone, Copy)]
pub struct Params<'a> {
    pattern: &'a PathPattern,
    path: &'a str,
}

impl PathPattern {
    /// Reads a pattern; the error says what is wrong with it, without naming it.
    pub fn parse(text: &str) -> Result<Self, String> {
        let Some(rest) = text.strip_prefix('/') else { return Err("it must begin with /".to_owned()) };
        let mut pattern = Self { segments: Vec::new() };
        for part in rest.split('/') {
            if let Some(Segment::Rest(name)) = pattern.segments.last() {
                return Err(format!("nothing can follow {{*{name}}}"));
            }
            let segment = Segment::parse(part)?;
            if let Segment::Name(name) | Segment::Rest(name) = &segment
                && pattern.has(name)
            {
                return Err(format!("the name {name} stands in it twice"));
            }
            pattern.segments.push(segment);
        }
        Ok(pattern)
    }

    /// The pattern that matches `/` alone.
    pub(crate) fn root() -> Self {
        Self { segments: vec![Segment::Literal(String::new())] }
    }

    /// Whether the pattern has a `{name}` or `{*name}`.
    pub fn has(&self, name: &str) -> bool {
        self.names().any(|n| n == name)
    }

    /// The names, from left to right.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.segments.iter().filter_map(|segment| match segment {
            Segment::Name(name) | Segment::Rest(name) => Some(name.as_str()),
            Segment::Literal(_) => None,
        })
    }

    /// Matches a whole path (without its query). Never allocates.
    pub fn matches<'a>(&'a self, path: &'a str) -> Option<Params<'a>> {
        let mut rest = Some(path.strip_prefix('/')?);
        for segment in &self.segments {
            let (part, behind) = split(rest?);
            match segment {
                Segment::Literal(text) if text == part => {}
                Segment::Name(_) if !part.is_empty() => {}
                Segment::Rest(_) => return Some(Params { pattern: self, path }),
                Segment::Literal(_) | Segment::Name(_) => return None,
            }
            rest = behind;
        }
        rest.is_none().then_some(Params { pattern: self, path })
    }
}

/// The first segment, and what follows its slash, if there is one.
fn split(path: &str) -> (&str, Option<&str>) {
    path.split_once('/').map_or((path, None), |(part, behind)| (part, Some(behind)))
}

impl<'a> Params<'a> {
    /// What `name` stands for, still percent-encoded.
    pub fn get(&self, name: &str) -> Option<&'a str> {
        self.iter().find(|(n, _)| *n == name).map(|(_, value)| value)
    }

    /// Every name with what it stands for, from left to right.
    pub fn iter(&self) -> impl Iterator<Item = (&'a str, &'a str)> + use<'a> {
        let mut rest = self.path.strip_prefix('/');
        self.pattern.segments.iter().filter_map(move |segment| {
            let whole = rest?;
            let (part, behind) = split(whole);
            rest = behind;
            match segment {
                Segment::Literal(_) => None,
                Segment::Name(name) => Some((name.as_str(), part)),
                Segment::Rest(name) => Some((name.as_str(), whole)),
            }
        })
    }
}

impl Segment {
    fn parse(part: &str) -> Result<Self, String> {
        if let Some(inner) = part.strip_prefix('{').and_then(|p| p.strip_suffix('}')) {
            let (name, rest) = inner.strip_prefix('*').map_or((inner, false), |name| (name, true));
            if name.is_empty() || !name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_' || b == b'-') {
                return Err(format!("{{{inner}}} needs a name of letters, digits, _ and -"));
            }
            return Ok(if rest { Self::Rest(name.to_owned()) } else { Self::Name(name.to_owned()) });
        }
        match part.chars().find(|c| matches!(c, '{' | '}' | '?' | '#') || c.is_whitespace() || c.is_control()) {
            None => Ok(Self::Literal(part.to_owned())),
            Some('{' | '}') => Err(format!("{part} mixes text and {{}}, a name must be a whole segment")),
            Some('?' | '#') => Err("it ends before the query, there is no ? or # in it".to_owned()),
            Some(_) => Err("there is no blank in a path, write %20".to_owned()),
        }
    }
}

impl std::fmt::Display for PathPattern {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        for segment in &self.segments {
            match segment {
                Segment::Literal(text) => write!(f, "/{text}")?,
                Segment::Name(name) => write!(f, "/{{{name}}}")?,
                Segment::Rest(name) => write!(f, "/{{*{name}}}")?,
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn params(pattern: &str, path: &str) -> Option<Vec<(String, String)>> {
        let pattern = PathPattern::parse(pattern).unwrap();
        let params = pattern.matches(path)?;
        Some(params.iter().map(|(n, v)| (n.to_owned(), v.to_owned())).collect())
    }

    fn found(pairs: &[(&str, &str)]) -> Option<Vec<(String, String)>> {
        Some(pairs.iter().map(|(n, v)| ((*n).to_owned(), (*v).to_owned())).collect())
    }

    #[test]
    fn a_literal_matches_itself_and_a_trailing_slash_counts() {
        for (pattern, path, hit) in [
            ("/", "/", true),
            ("/", "", false),
            ("/", "//", false),
            ("/a/b", "/a/b", true),
            ("/a/b", "/a/b/", false),
            ("/a/b/", "/a/b/", true),
            ("/a/b", "/a", false),
            ("/a/b", "/A/b", false),
            ("/a%20b", "/a%20b", true),
            ("/a", "*", false),
            ("/a", "a", false),
        ] {
            assert_eq!(params(pattern, path), hit.then(Vec::new), "{pattern} {path}");
        }
    }

    #[test]
    fn a_name_is_exactly_one_segment() {
        let pattern = "/api/v1/agent/{agent}/run";
        assert_eq!(params(pattern, "/api/v1/agent/simple/run"), found(&[("agent", "simple")]));
        assert_eq!(params(pattern, "/api/v1/agent/a%2Fb/run"), found(&[("agent", "a%2Fb")]));
        for path in ["/api/v1/agent//run", "/api/v1/agent/a/b/run", "/api/v1/agent/a/run/", "/api/v1/agent/a"] {
            assert_eq!(params(pattern, path), None, "{path}");
        }
        assert_eq!(params("/{a}/{b}", "/1/2"), found(&[("a", "1"), ("b", "2")]));
    }

    #[test]
    fn the_rest_may_be_empty() {
        assert_eq!(params("/v1/{*rest}", "/v1/a/b"), found(&[("rest", "a/b")]));
        assert_eq!(params("/v1/{*rest}", "/v1/"), found(&[("rest", "")]));
        assert_eq!(params("/v1/{*rest}", "/v1//"), found(&[("rest", "/")]));
        assert_eq!(params("/v1/{*rest}", "/v1"), None);
        assert_eq!(params("/{*rest}", "/"), found(&[("rest", "")]));
        let pattern = PathPattern::parse("/{a}/{*b}").unwrap();
        assert_eq!(pattern.matches("/x/y/z").and_then(|p| p.get("b")), Some("y/z"));
        assert_eq!(pattern.matches("/x/y/z").and_then(|p| p.get("c")), None);
    }

    #[test]
    fn what_is_no_pattern_says_why() {
        for (text, why) in [
            ("", "begin with /"),
            ("v1", "begin with /"),
            ("/{}", "needs a name"),
            ("/{*}", "needs a name"),
            ("/{a b}", "needs a name"),
            ("/{a", "whole segment"),
            ("/a}", "whole segment"),
            ("/x{a}", "whole segment"),
            ("/{a}/{a}", "twice"),
            ("/{a}/{*a}", "twice"),
            ("/{*a}/b", "nothing can follow"),
            ("/{*a}/", "nothing can follow"),
            ("/a?b=c", "query"),
            ("/a b", "blank"),
        ] {
            let error = PathPattern::parse(text).unwrap_err();
            assert!(error.contains(why), "{text}: {error}");
        }
    }

    #[test]
    fn a_pattern_prints_as_it_was_written() {
        for text in ["/", "/a/", "/api/{agent}/run", "/{*rest}"] {
            assert_eq!(PathPattern::parse(text).unwrap().to_string(), text);
        }
    }
}
