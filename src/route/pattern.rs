//! The paths that users write: segments with captures, or a regex.

use std::collections::HashSet;
use std::fmt;
use std::sync::Arc;

use regex::bytes::{Regex, RegexBuilder};

use super::captures::{Capture, Captures};
use crate::types::{NormalPath, PathError};

/// What a route wants of the path.
#[derive(Debug, Clone)]
pub enum PathSpec {
    /// Whole segments: exact, with captures, or a prefix.
    Pattern(PathPattern),
    /// Anything a regex can say.
    Regex(PathRegex),
}

impl PathSpec {
    /// The names of the captures, in their order.
    pub fn captures(&self) -> Vec<&str> {
        match self {
            Self::Pattern(pattern) => pattern.names().collect(),
            Self::Regex(regex) => regex.names().collect(),
        }
    }
}

/// A path pattern, by whole segments:
///
/// - `/orders` is exact, and so is `/orders/`, which is another path;
/// - `/orders/*` is the prefix: `/orders`, `/orders/` and all below;
/// - `/users/{id}` or `/users/:id` captures one segment, which is never empty;
/// - `/files/{rest*}` is a prefix that captures what is below, without the slash before it; perhaps nothing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PathPattern {
    pub(super) segments: Vec<Segment>,
    pub(super) tail: Option<Tail>,
}

/// One segment of a pattern. A trailing slash is an empty literal at the end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Segment {
    /// Canonical text.
    Literal(Box<str>),
    /// Any segment that is not empty, under this name.
    Capture(Box<str>),
}

/// Zero or more further segments.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Tail {
    Unnamed,
    Capture(Box<str>),
}

impl PathPattern {
    /// Parses a pattern. Literal segments are made canonical as those of requests are.
    ///
    /// # Errors
    /// A [`PatternError`] that tells the operator what to write instead.
    pub fn parse(text: &str) -> Result<Self, PatternError> {
        let rest = text.strip_prefix('/').ok_or(PatternError::NotAbsolute)?;
        let mut pattern = Self { segments: Vec::new(), tail: None };
        let mut pieces = rest.split('/').peekable();
        while let Some(piece) = pieces.next() {
            let last = pieces.peek().is_none();
            match Piece::parse(piece)? {
                Piece::Tail(_) if !last => return Err(PatternError::TailNotLast(piece.into())),
                Piece::Tail(tail) => pattern.tail = Some(tail),
                // `//` collapses, as in requests; at the end it is the trailing slash.
                Piece::Segment(Segment::Literal(text)) if text.is_empty() && !last => {}
                Piece::Segment(segment) => pattern.segments.push(segment),
            }
        }
        pattern.refuse_duplicate_names()?;
        Ok(pattern)
    }

    /// The names of the captures, in the order of the path.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        let segments = self.segments.iter().filter_map(|segment| match segment {
            Segment::Capture(name) => Some(&**name),
            Segment::Literal(_) => None,
        });
        let tail = self.tail.iter().filter_map(|tail| match tail {
            Tail::Capture(name) => Some(&**name),
            Tail::Unnamed => None,
        });
        segments.chain(tail)
    }

    /// The whole path, when nothing but one path matches.
    pub(super) fn as_exact(&self) -> Option<String> {
        let exact = self.tail.is_none() && self.names().next().is_none();
        exact.then(|| self.to_string())
    }

    fn refuse_duplicate_names(&self) -> Result<(), PatternError> {
        let mut seen = HashSet::new();
        match self.names().find(|name| !seen.insert(*name)) {
            Some(name) => Err(PatternError::DuplicateName(name.into())),
            None => Ok(()),
        }
    }
}

impl fmt::Display for PathPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for segment in &self.segments {
            match segment {
                Segment::Literal(text) => write!(f, "/{text}")?,
                Segment::Capture(name) => write!(f, "/{{{name}}}")?,
            }
        }
        match &self.tail {
            Some(Tail::Unnamed) => f.write_str("/*"),
            Some(Tail::Capture(name)) => write!(f, "/{{{name}*}}"),
            None => Ok(()),
        }
    }
}

/// A regex over the canonical path, in time linear in its length. It is not anchored, and it is ASCII, as the path
/// is: `\d` is `[0-9]`. Named groups are captures.
#[derive(Debug, Clone)]
pub struct PathRegex {
    regex: Regex,
    names: Arc<[Box<str>]>,
    /// The group of each name.
    groups: Box<[usize]>,
}

impl PathRegex {
    /// Compiles a regex.
    ///
    /// # Errors
    /// When the syntax is wrong or the compiled form would take too much memory. The text is for the operator.
    pub fn parse(source: &str) -> Result<Self, regex::Error> {
        let regex = compile_regex(RegexBuilder::new(source).unicode(false))?;
        let named =
            regex.capture_names().enumerate().filter_map(|(group, name)| Some((group, Box::from(name?))));
        let (groups, names): (Vec<usize>, Vec<Box<str>>) = named.unzip();
        Ok(Self { names: names.into(), groups: groups.into(), regex })
    }

    /// The text as written.
    pub fn as_str(&self) -> &str {
        self.regex.as_str()
    }

    /// The names of the captures, in the order of the regex.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.names.iter().map(|name| &**name)
    }

    pub(super) fn is_match(&self, path: &str) -> bool {
        self.regex.is_match(path.as_bytes())
    }

    /// The captures, none for a group that took no part; or nothing when the regex does not match.
    pub(super) fn captures(&self, path: &str) -> Option<Captures> {
        if self.names.is_empty() {
            return self.is_match(path).then(Captures::default);
        }
        let found = self.regex.captures(path.as_bytes())?;
        let values = self.groups.iter().enumerate().filter_map(|(name, &group)| {
            let value = found.get(group)?;
            Some(Capture::new(name, value.range()))
        });
        Some(Captures::new(&self.names, values))
    }
}

/// Compiles a regex within the bounds that hold for all that users write: 1 MiB compiled, 1 MiB of scratch memory
/// for each thread that matches.
///
/// # Errors
/// When the syntax is wrong or a bound is passed.
pub(super) fn compile_regex(builder: &mut RegexBuilder) -> Result<Regex, regex::Error> {
    const BYTES: usize = 1 << 20;
    builder.size_limit(BYTES).dfa_size_limit(BYTES).build()
}

/// Why a path pattern is refused. The text is for the operator.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PatternError {
    /// No `/` in front.
    NotAbsolute,
    /// `*` or `{name*}` before the last segment.
    TailNotLast(String),
    /// `*` inside of a segment.
    StarInSegment(String),
    /// `{` without `}`.
    UnclosedBrace(String),
    /// A capture with other text in its segment.
    CaptureNotWhole(String),
    /// `{}`, `{*}` or `:`.
    EmptyName(String),
    /// `{*name}`, as other routers write the tail.
    StarBeforeName(String),
    /// A name with other characters than letters, digits, `_` and `-`, or with a digit in front.
    InvalidName(String),
    /// Two captures of one name.
    DuplicateName(String),
    /// `.` or `..`.
    DotSegment(String),
    /// A literal segment that no canonical path has.
    Literal(String, PathError),
}

impl fmt::Display for PatternError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotAbsolute => f.write_str("a path must start with `/`"),
            Self::TailNotLast(tail) => write!(f, "`{tail}` must be the last segment"),
            Self::StarInSegment(segment) => write!(
                f,
                "`*` must be the whole last segment, but stands inside of `{segment}`; \
                 `path: {{ regex: ... }}` can say more"
            ),
            Self::UnclosedBrace(segment) => write!(f, "`{segment}` has a brace without its counterpart"),
            Self::CaptureNotWhole(segment) => {
                write!(f, "a capture must be a whole segment, but `{segment}` has more in it")
            }
            Self::EmptyName(segment) => write!(f, "the capture `{segment}` has no name"),
            Self::StarBeforeName(name) => {
                write!(f, "write `{{{name}*}}` for the tail, with the star after the name")
            }
            Self::InvalidName(name) => write!(
                f,
                "`{name}` cannot name a capture: use letters, digits, `_` and `-`, with a letter or `_` in front"
            ),
            Self::DuplicateName(name) => write!(f, "two captures are named `{name}`"),
            Self::DotSegment(segment) => {
                write!(f, "`{segment}` is removed from every request's path, so no path has it")
            }
            Self::Literal(segment, error) => write!(f, "no request matches `{segment}`: {error}"),
        }
    }
}

impl std::error::Error for PatternError {}

/// What stands between two slashes.
enum Piece {
    Segment(Segment),
    Tail(Tail),
}

impl Piece {
    fn parse(text: &str) -> Result<Self, PatternError> {
        if text == "*" {
            return Ok(Self::Tail(Tail::Unnamed));
        }
        if let Some(name) = text.strip_prefix(':') {
            return capture_name(name, text).map(|name| Self::Segment(Segment::Capture(name)));
        }
        if text.contains(['{', '}']) {
            return Self::braced(text);
        }
        if text.contains('*') {
            return Err(PatternError::StarInSegment(text.into()));
        }
        literal(text).map(|text| Self::Segment(Segment::Literal(text)))
    }

    fn braced(text: &str) -> Result<Self, PatternError> {
        if text.matches('{').count() != text.matches('}').count() {
            return Err(PatternError::UnclosedBrace(text.into()));
        }
        let inner = text
            .strip_prefix('{')
            .and_then(|rest| rest.strip_suffix('}'))
            .filter(|inner| !inner.contains(['{', '}']))
            .ok_or_else(|| PatternError::CaptureNotWhole(text.into()))?;
        if let Some(name) = inner.strip_suffix('*') {
            return capture_name(name, text).map(|name| Self::Tail(Tail::Capture(name)));
        }
        if let Some(name) = inner.strip_prefix('*') {
            return Err(PatternError::StarBeforeName(name.into()));
        }
        capture_name(inner, text).map(|name| Self::Segment(Segment::Capture(name)))
    }
}

fn capture_name(name: &str, segment: &str) -> Result<Box<str>, PatternError> {
    let in_front = |c: char| c.is_ascii_alphabetic() || c == '_';
    let inside = |c: char| in_front(c) || c.is_ascii_digit() || c == '-';
    if name.is_empty() {
        Err(PatternError::EmptyName(segment.into()))
    } else if name.starts_with(in_front) && name.chars().all(inside) {
        Ok(name.into())
    } else {
        Err(PatternError::InvalidName(name.into()))
    }
}

fn literal(text: &str) -> Result<Box<str>, PatternError> {
    if matches!(text, "." | "..") {
        return Err(PatternError::DotSegment(text.into()));
    }
    let path = format!("/{text}");
    let path = NormalPath::parse(&path).map_err(|error| PatternError::Literal(text.into(), error))?;
    Ok(path.as_str()[1..].into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_are_canonical() {
        for (text, canonical) in [
            ("/", "/"),
            ("/*", "/*"),
            ("/orders", "/orders"),
            ("/orders/", "/orders/"),
            ("//orders//x//", "/orders/x/"),
            ("/orders/*", "/orders/*"),
            ("/users/:id/posts/{post-id}", "/users/{id}/posts/{post-id}"),
            ("/files/{rest*}", "/files/{rest*}"),
            ("/a/{x}/*", "/a/{x}/*"),
            ("/%7euser/caf%c3%a9", "/~user/caf%C3%A9"),
            ("/v1/things:cancel", "/v1/things:cancel"),
        ] {
            assert_eq!(PathPattern::parse(text).unwrap().to_string(), canonical, "{text}");
        }
    }

    #[test]
    fn only_patterns_for_one_path_are_exact() {
        assert_eq!(PathPattern::parse("/a/b/").unwrap().as_exact().as_deref(), Some("/a/b/"));
        for text in ["/a/{b}", "/a/*", "/*", "/{a*}"] {
            assert_eq!(PathPattern::parse(text).unwrap().as_exact(), None, "{text}");
        }
    }

    #[test]
    fn names_are_in_the_order_of_the_path() {
        let pattern = PathPattern::parse("/{a}/x/:b/{c*}").unwrap();
        assert_eq!(pattern.names().collect::<Vec<_>>(), ["a", "b", "c"]);
        let regex = PathRegex::parse("^/(?P<y>a)/(b)/(?<x>c)").unwrap();
        assert_eq!(regex.names().collect::<Vec<_>>(), ["y", "x"]);
    }

    #[test]
    fn bad_patterns_tell_why() {
        for (text, part) in [
            ("", "must start with `/`"),
            ("orders", "must start with `/`"),
            ("https://a.test/x", "must start with `/`"),
            ("/a/*/b", "`*` must be the last segment"),
            ("/a/*/", "`*` must be the last segment"),
            ("/{rest*}/b", "`{rest*}` must be the last segment"),
            ("/a/*.jpg", "inside of `*.jpg`"),
            ("/a*", "inside of `a*`"),
            ("/**", "inside of `**`"),
            ("/{id", "without its counterpart"),
            ("/id}", "without its counterpart"),
            ("/{id}.json", "whole segment"),
            ("/v{n}", "whole segment"),
            ("/{a}{b}", "whole segment"),
            ("/{{a}}", "whole segment"),
            ("/}a{", "whole segment"),
            ("/{}", "`{}` has no name"),
            ("/:", "`:` has no name"),
            ("/{*}", "`{*}` has no name"),
            ("/{*rest}", "write `{rest*}`"),
            ("/{1a}", "`1a` cannot name"),
            ("/{a b}", "`a b` cannot name"),
            ("/:rest*", "`rest*` cannot name"),
            ("/{a**}", "`a*` cannot name"),
            ("/{a}/{a}", "two captures are named `a`"),
            ("/{a}/{a*}", "two captures are named `a`"),
            ("/a/./b", "`.` is removed"),
            ("/a/..", "`..` is removed"),
            ("/a/%2e%2e", "escaped dot"),
            ("/a?b=c", "contains `?`"),
            ("/a#b", "contains `?` or `#`"),
            ("/café", "must be percent-encoded"),
            ("/a b", "a space"),
            ("/a%2Fb", "escaped slash"),
            ("/a%zz", "invalid percent-escape"),
        ] {
            let message = PathPattern::parse(text).unwrap_err().to_string();
            assert!(message.contains(part), "{text}: {message}");
        }
    }

    #[test]
    fn regexes_are_bounded() {
        assert!(PathRegex::parse("(").unwrap_err().to_string().contains("unclosed group"));
        assert!(PathRegex::parse("((a{100}){100}){100}").unwrap_err().to_string().contains("size limit"));
        assert!(PathRegex::parse("(a)\\1").is_err());
    }

    #[test]
    fn regexes_are_not_anchored_and_capture_named_groups() {
        let regex = PathRegex::parse("/v(?<major>[0-9]+)(\\.(?<minor>[0-9]+))?/").unwrap();
        let found = regex.captures("/api/v12/x").unwrap();
        assert_eq!(found.get("/api/v12/x", "major"), Some("12"));
        assert_eq!(found.get("/api/v12/x", "minor"), None);
        assert!(regex.captures("/api/vx/").is_none());
        assert!(PathRegex::parse("^/v").unwrap().captures("/v1").unwrap().is_empty());
    }
}
