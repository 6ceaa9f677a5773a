//! From a document to the words, section by section and item by item, so that one mistake hides no other.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde::de::DeserializeOwned;

use super::Config;
use crate::document::{ConfigError, Document, Errors, Node, Value, decode};

/// The sections, not yet read.
#[derive(Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Sections {
    version: Option<Node>,
    server: Option<Node>,
    listeners: Option<Node>,
    admin: Option<Node>,
    telemetry: Option<Node>,
    upstreams: Option<Node>,
    defaults: Option<Node>,
    filters: Option<Node>,
    chains: Option<Node>,
    routes: Option<Node>,
}

impl Config {
    /// Reads a document. What could not be read is left out and told in `errors`.
    pub fn read(document: &Document, errors: &mut Errors) -> Self {
        let mut found = Errors::default();
        let config = Self::sections(document, &mut found);
        let unread = found.sorted().into_iter().map(|error| error.path.clone()).collect();
        errors.extend(found);
        Self { unread, ..config }
    }

    fn sections(document: &Document, errors: &mut Errors) -> Self {
        let root = match &document.root.value {
            Value::Null => Sections::default(),
            _ => decode(&document.root, "", errors).unwrap_or_default(),
        };
        Self {
            version: one(root.version, "version", errors).unwrap_or_default(),
            server: one(root.server, "server", errors).unwrap_or_default(),
            listeners: list(root.listeners, "listeners", errors),
            admin: one(root.admin, "admin", errors),
            telemetry: one(root.telemetry, "telemetry", errors).unwrap_or_default(),
            upstreams: map(root.upstreams, "upstreams", errors),
            defaults: one(root.defaults, "defaults", errors).unwrap_or_default(),
            filters: list(root.filters, "filters", errors),
            chains: map(root.chains, "chains", errors),
            routes: list(root.routes, "routes", errors),
            unread: Vec::new(),
        }
    }
}

fn one<T: DeserializeOwned>(node: Option<Node>, path: &str, errors: &mut Errors) -> Option<T> {
    node.filter(|node| node.value != Value::Null).and_then(|node| decode(&node, path, errors))
}

fn list<T: DeserializeOwned>(node: Option<Node>, path: &str, errors: &mut Errors) -> Vec<T> {
    let Some(node) = node.filter(|node| node.value != Value::Null) else {
        return Vec::new();
    };
    if !matches!(node.value, Value::List(_)) {
        errors.push(ConfigError::new(path, "expected a list").at(node.mark));
    }
    let items = node.items().iter().enumerate();
    items.filter_map(|(at, item)| decode(item, &format!("{path}[{at}]"), errors)).collect()
}

fn map<T: DeserializeOwned>(node: Option<Node>, path: &str, errors: &mut Errors) -> BTreeMap<String, T> {
    let Some(node) = node.filter(|node| node.value != Value::Null) else {
        return BTreeMap::new();
    };
    if !matches!(node.value, Value::Map(_)) {
        errors.push(ConfigError::new(path, "expected a map").at(node.mark));
    }
    let entries = node.entries().iter();
    entries
        .filter_map(|(key, value)| {
            let path = crate::document::join(path, &key.text);
            Some((key.text.to_string(), decode(value, &path, errors)?))
        })
        .collect()
}
