//! From a document to the words, section by section and item by item, so that one mistake hides no other.

use std::collections::BTreeMap;

use serde::de::DeserializeOwned;

use super::{Config, Unread};
use crate::document::{ConfigError, Document, Errors, Node, Value, decode, join, suggest};

/// What stands at the top of a document; `include` is gone by now.
const SECTIONS: [&str; 10] = [
    "version",
    "server",
    "listeners",
    "admin",
    "telemetry",
    "upstreams",
    "defaults",
    "filters",
    "chains",
    "routes",
];

impl Config {
    /// Reads a document. What could not be read is left out and told in `errors`.
    pub fn read(document: &Document, errors: &mut Errors) -> Self {
        let mut found = Errors::default();
        let config = Self::sections(document, &mut found);
        let unread = Unread::new(&found, document);
        errors.extend(found);
        Self { unread, ..config }
    }

    fn sections(document: &Document, errors: &mut Errors) -> Self {
        let root = &document.root;
        unknown(root, errors);
        Self {
            version: one(root, "version", errors).unwrap_or_default(),
            server: one(root, "server", errors).unwrap_or_default(),
            listeners: list(root, "listeners", errors),
            admin: one(root, "admin", errors),
            telemetry: one(root, "telemetry", errors).unwrap_or_default(),
            upstreams: map(root, "upstreams", errors),
            defaults: one(root, "defaults", errors).unwrap_or_default(),
            filters: list(root, "filters", errors),
            chains: map(root, "chains", errors),
            routes: list(root, "routes", errors),
            unread: Unread::default(),
        }
    }
}

fn unknown(root: &Node, errors: &mut Errors) {
    for (key, _) in root.entries().iter().filter(|(key, _)| !SECTIONS.contains(&&*key.text)) {
        let words = [SECTIONS.as_slice(), &["include"]].concat();
        let error = ConfigError::new(join("", &key.text), format!("unknown key `{}`", key.text)).at(key.mark);
        errors.push(match suggest(&key.text, &words) {
            Some(hint) => error.with_hint(hint),
            None => error,
        });
    }
}

/// A section that says something.
fn section<'n>(root: &'n Node, name: &str) -> Option<&'n Node> {
    root.get(name).filter(|node| node.value != Value::Null)
}

fn one<T: DeserializeOwned>(root: &Node, path: &str, errors: &mut Errors) -> Option<T> {
    section(root, path).and_then(|node| decode(node, path, errors))
}

fn list<T: DeserializeOwned>(root: &Node, path: &str, errors: &mut Errors) -> Vec<T> {
    let Some(node) = section(root, path) else {
        return Vec::new();
    };
    if !matches!(node.value, Value::List(_)) {
        errors.push(ConfigError::new(path, format!("expected a list, found {}", node.kind())).at(node.mark));
    }
    let items = node.items().iter().enumerate();
    items.filter_map(|(at, item)| decode(item, &format!("{path}[{at}]"), errors)).collect()
}

fn map<T: DeserializeOwned>(root: &Node, path: &str, errors: &mut Errors) -> BTreeMap<String, T> {
    let Some(node) = section(root, path) else {
        return BTreeMap::new();
    };
    if !matches!(node.value, Value::Map(_)) {
        errors.push(ConfigError::new(path, format!("expected a map, found {}", node.kind())).at(node.mark));
    }
    let entries = node.entries().iter();
    entries
        .filter_map(|(key, value)| {
            let path = join(path, &key.text);
            Some((key.text.to_string(), decode(value, &path, errors)?))
        })
        .collect()
}
