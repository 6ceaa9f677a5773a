//! The values that a path pattern captured.

use std::fmt;
use std::ops::Range;
use std::sync::Arc;

use smallvec::SmallVec;

use super::pattern::{PathPattern, Segment, Tail};

/// What a pattern captured of one path, as ranges into it: it can be kept beside the path.
///
/// Values are text of the canonical path, so still escaped.
#[derive(Clone, Default)]
pub struct Captures {
    names: Option<Arc<[Box<str>]>>,
    values: SmallVec<[Capture; 4]>,
}

impl Captures {
    pub(super) fn new(names: &Arc<[Box<str>]>, values: impl Iterator<Item = Capture>) -> Self {
        Self { names: Some(Arc::clone(names)), values: values.collect() }
    }

    /// The value captured as `name`. `path` must be the one that was matched; of another, the value means nothing.
    pub fn get<'p>(&self, path: &'p str, name: &str) -> Option<&'p str> {
        self.iter(path).find(|(known, _)| *known == name).map(|(_, value)| value)
    }

    /// Names and values, in the order of the pattern. `path` must be the one that was matched.
    pub fn iter<'p>(&self, path: &'p str) -> impl Iterator<Item = (&str, &'p str)> {
        self.values.iter().filter_map(move |value| {
            let name = self.names.as_ref()?.get(value.name as usize)?;
            Some((&**name, path.get(value.start as usize..value.end as usize)?))
        })
    }

    /// Whether nothing was captured.
    pub fn is_empty(&self) -> bool {
        self.values.is_empty()
    }
}

impl fmt::Debug for Captures {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names = self.names.as_deref().unwrap_or_default();
        let ranges = self.values.iter().map(|value| value.start..value.end);
        f.debug_map().entries(names.iter().zip(ranges)).finish()
    }
}

/// One value: the index of its name and its range in the path. Small, since every exchange carries them.
#[derive(Clone, Copy)]
pub(super) struct Capture {
    name: u32,
    start: u32,
    end: u32,
}

impl Capture {
    /// No path reaches 4 GiB: a request head is bounded long before.
    pub(super) fn new(name: usize, range: Range<usize>) -> Self {
        Self { name: name as u32, start: range.start as u32, end: range.end as u32 }
    }
}

/// Where the captures of a pattern are, known before any request.
pub(super) struct CapturePlan {
    names: Arc<[Box<str>]>,
    /// The segment of each name, ascending; the tail's is the first one it covers.
    segments: Box<[usize]>,
    /// Whether the last name is the tail's.
    tail: bool,
}

impl CapturePlan {
    /// The plan of a pattern; none when it captures nothing.
    pub(super) fn new(pattern: &PathPattern) -> Option<Self> {
        let tail = matches!(pattern.tail, Some(Tail::Capture(_)));
        let captures = pattern.segments.iter().enumerate();
        let captures = captures.filter(|(_, segment)| matches!(segment, Segment::Capture(_)));
        let segments = captures.map(|(index, _)| index).chain(tail.then_some(pattern.segments.len()));
        let plan =
            Self { names: pattern.names().map(Box::from).collect(), segments: segments.collect(), tail };
        (!plan.names.is_empty()).then_some(plan)
    }

    /// The captures of a path that the pattern matches.
    pub(super) fn captures(&self, path: &str) -> Captures {
        let mut starts = segment_starts(path).enumerate();
        let values = self.segments.iter().enumerate().map(|(name, &segment)| {
            let start = starts.find(|(index, _)| *index == segment).map_or(path.len(), |(_, start)| start);
            let is_tail = self.tail && name + 1 == self.names.len();
            let end = if is_tail { path.len() } else { segment_end(path, start) };
            Capture::new(name, start..end)
        });
        Captures::new(&self.names, values)
    }
}

fn segment_starts(path: &str) -> impl Iterator<Item = usize> {
    memchr::memchr_iter(b'/', path.as_bytes()).map(|slash| slash + 1)
}

fn segment_end(path: &str, start: usize) -> usize {
    memchr::memchr(b'/', &path.as_bytes()[start..]).map_or(path.len(), |len| start + len)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn captured(pattern: &str, path: &str) -> Vec<(String, String)> {
        let plan = CapturePlan::new(&PathPattern::parse(pattern).unwrap()).unwrap();
        let captures = plan.captures(path);
        captures.iter(path).map(|(name, value)| (name.to_owned(), value.to_owned())).collect()
    }

    #[test]
    fn values_are_cut_from_the_path() {
        for (pattern, path, values) in [
            ("/users/{id}", "/users/7", &[("id", "7")][..]),
            ("/{a}/x/{b}/", "/1/x/2%20/", &[("a", "1"), ("b", "2%20")]),
            ("/files/{rest*}", "/files/a/b/", &[("rest", "a/b/")]),
            ("/files/{rest*}", "/files/", &[("rest", "")]),
            ("/files/{rest*}", "/files", &[("rest", "")]),
            ("/{rest*}", "/", &[("rest", "")]),
            ("/{a}/{b*}", "/x", &[("a", "x"), ("b", "")]),
            ("/{a}/{b*}", "/x/y//z", &[("a", "x"), ("b", "y//z")]),
            ("/{a}/*", "/x/y/z", &[("a", "x")]),
        ] {
            let values: Vec<_> = values.iter().map(|(n, v)| ((*n).to_owned(), (*v).to_owned())).collect();
            assert_eq!(captured(pattern, path), values, "{pattern} {path}");
        }
    }

    #[test]
    fn they_outlive_everything_but_the_path() {
        let path = "/users/7".to_owned();
        let captures = {
            let plan = CapturePlan::new(&PathPattern::parse("/users/{id}").unwrap()).unwrap();
            plan.captures(&path)
        };
        assert_eq!(captures.get(&path, "id"), Some("7"));
        assert_eq!(captures.get(&path, "other"), None);
        assert_eq!(captures.get("/", "id"), None);
        assert_eq!(format!("{captures:?}"), "{\"id\": 7..8}");
    }
}
