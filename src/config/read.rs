//! From a document to the words, section by section and item by item, so that one mistake hides no other.

use std::collections::BTreeMap;

use serde::de::DeserializeOwned;

use super::unread::EVENTS;
use super::{Config, Telemetry, Unread};
use crate::document::{ConfigError, Document, Errors, Node, Value, decode, join, suggest};

/// What stands at the top of a document; `include` is gone by now.
const SECTIONS: [&str; 14] = [
    "version",
    "server",
    "listeners",
    "acme",
    "stores",
    "admin",
    "telemetry",
    "consumers",
    "upstreams",
    "defaults",
    "filters",
    "chains",
    "routes",
    "apis",
];

/// The parts of `telemetry`.
const TELEMETRY: [&str; 4] = ["log", "access_log", "metrics", "events"];

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
        unknown(root, "", &SECTIONS, &["include"], errors);
        Self {
            version: one(root, "version", errors).unwrap_or_default(),
            server: one(root, "server", errors).unwrap_or_default(),
            listeners: list(root, "listeners", errors),
            acme: map(root, "acme", errors),
            stores: map(root, "stores", errors),
            admin: one(root, "admin", errors),
            telemetry: telemetry(root, errors),
            consumers: list(root, "consumers", errors),
            upstreams: map(root, "upstreams", errors),
            defaults: one(root, "defaults", errors).unwrap_or_default(),
            filters: list(root, "filters", errors),
            chains: map(root, "chains", errors),
            routes: list(root, "routes", errors),
            apis: list(root, "apis", errors),
            unread: Unread::default(),
        }
    }
}

/// Tells every key of `node`, which stands at `path`, that is not in `known`; a hint may name those `elsewhere`, too.
fn unknown(node: &Node, path: &str, known: &[&str], elsewhere: &[&str], errors: &mut Errors) {
    for (key, _) in node.entries().iter().filter(|(key, _)| !known.contains(&&*key.text)) {
        let error =
            ConfigError::new(join(path, &key.text), format!("unknown key `{}`", key.text)).at(key.mark);
        errors.push(match suggest(&key.text, &[known, elsewhere].concat()) {
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

fn telemetry(root: &Node, errors: &mut Errors) -> Telemetry {
    let path = "telemetry";
    let Some(node) = section(root, path) else {
        return Telemetry::default();
    };
    if !matches!(node.value, Value::Map(_)) {
        return decode(node, path, errors).unwrap_or_default();
    }
    unknown(node, path, &TELEMETRY, &[], errors);
    Telemetry {
        log: part(node, path, "log", errors).unwrap_or_default(),
        access_log: part(node, path, "access_log", errors).unwrap_or_default(),
        metrics: part(node, path, "metrics", errors).unwrap_or_default(),
        events: section(node, "events").map(|node| items(node, EVENTS, errors)).unwrap_or_default(),
    }
}

/// A part of the section that stands at `path`.
fn part<T: DeserializeOwned>(section: &Node, path: &str, name: &str, errors: &mut Errors) -> Option<T> {
    section.get(name).and_then(|node| decode(node, &join(path, name), errors))
}

fn list<T: DeserializeOwned>(root: &Node, path: &str, errors: &mut Errors) -> Vec<T> {
    section(root, path).map(|node| items(node, path, errors)).unwrap_or_default()
}

/// The items of the list that stands at `path`.
fn items<T: DeserializeOwned>(node: &Node, path: &str, errors: &mut Errors) -> Vec<T> {
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
