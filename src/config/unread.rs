//! What of a document could not be read, so that what only follows from it is not reported, and what does not is
//! reported at its place.

use std::collections::{BTreeMap, BTreeSet};

use crate::document::{Document, Errors};

/// The one list that is read item by item and does not stand at the top.
pub(super) const EVENTS: &str = "telemetry.events";

/// What of a document is left out of the words.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Unread {
    /// Document paths of what is wrong.
    paths: Vec<String>,
    /// By list that is read item by item, the items that are left out.
    items: BTreeMap<String, BTreeSet<usize>>,
}

impl Unread {
    /// What these errors, found in reading, leave out.
    pub(super) fn new(errors: &Errors, document: &Document) -> Self {
        let paths: Vec<String> = errors.sorted().into_iter().map(|error| error.path.clone()).collect();
        let mut items: BTreeMap<String, BTreeSet<usize>> = BTreeMap::new();
        for (list, at, _) in paths.iter().filter_map(|path| item(path)) {
            if list == EVENTS || document.root.get(list).is_some() {
                items.entry(list.to_owned()).or_default().insert(at);
            }
        }
        Self { paths, items }
    }

    /// Counts what these errors, found in the text, are about as left out, too.
    pub fn note(&mut self, errors: &Errors) {
        self.paths.extend(errors.sorted().into_iter().map(|error| error.path.clone()));
    }

    /// Whether something at or below this document path is left out: a name may be missing without fault.
    pub fn touches(&self, path: &str) -> bool {
        let below = |known: &String| {
            known.strip_prefix(path).is_some_and(|rest| rest.is_empty() || rest.starts_with(['.', '[']))
        };
        self.paths.iter().any(below)
    }

    /// Whether a whole section is left out, perhaps for its misspelt name.
    pub fn section(&self) -> bool {
        self.paths.iter().any(|path| !path.contains(['.', '[']))
    }

    /// Errors about the words, their paths counted as in the document: where an item is left out, the next ones have
    /// moved up.
    pub fn as_written(&self, errors: Errors) -> Errors {
        let mut written = Errors::default();
        written.extend(errors.into_iter().map(|mut error| {
            if let Some((list, at, rest)) = item(&error.path)
                && let Some(left_out) = self.items.get(list)
            {
                let place = (0..).filter(|index| !left_out.contains(index)).nth(at).unwrap_or(at);
                error.path = format!("{list}[{place}]{rest}");
            }
            error
        }));
        written
    }
}

/// The list, index and rest of a path such as `routes[3].path`.
fn item(path: &str) -> Option<(&str, usize, &str)> {
    let (list, rest) = path.split_once('[')?;
    let (at, rest) = rest.split_once(']')?;
    Some((list, at.parse().ok()?, rest))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Config;
    use crate::document::{ConfigError, Environment};

    fn unread(text: &str) -> Unread {
        let document = Document::parse("c.yaml", text, &Environment::default()).unwrap();
        Config::read(&document, &mut Errors::default()).unread
    }

    #[test]
    fn items_behind_one_that_is_left_out_keep_their_place() {
        let unread =
            unread("routes: [{ name: a, path: / }, 1, { name: b, path: / }, {}, { name: c, path: / }]");
        let place = |path| unread.as_written(ConfigError::new(path, "wrong").into()).sorted()[0].path.clone();
        assert_eq!(place("routes[0]"), "routes[0]");
        assert_eq!(place("routes[1].path"), "routes[2].path");
        assert_eq!(place("routes[2].filters[0]"), "routes[4].filters[0]");
        assert_eq!(place("listeners[1]"), "listeners[1]");
        assert_eq!(place("upstreams.app.endpoints[1]"), "upstreams.app.endpoints[1]");
        let unread = self::unread("telemetry: { events: [1, { webhook: { url: a } }] }");
        let place = |path| unread.as_written(ConfigError::new(path, "wrong").into()).sorted()[0].path.clone();
        assert_eq!(place("telemetry.events[0].webhook.url"), "telemetry.events[1].webhook.url");
    }

    #[test]
    fn what_is_left_out_is_known_by_its_path() {
        let unread = unread("upstreams: { a: 1, ab: { endpoints: [] } }\nlistener: []\n");
        assert!(unread.touches("upstreams.a") && unread.touches("upstreams") && unread.section());
        assert!(!unread.touches("upstreams.ab") && !unread.touches("listeners"));
    }
}
