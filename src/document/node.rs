//! The tree that configuration text becomes. Every value remembers where it was written.
//!
//! Lists, maps and keys are shared, so cloning a node is cheap whatever hangs below it.

use std::sync::Arc;

use super::path::{Step, steps};
use super::scalar;
use super::source::Mark;

/// A value and its place.
#[derive(Clone, Debug, PartialEq)]
pub struct Node {
    /// Where the value begins.
    pub mark: Mark,
    /// What it is.
    pub value: Value,
}

/// What a [`Node`] holds.
#[derive(Clone, Debug, PartialEq)]
pub enum Value {
    /// Nothing: an absent value, or a plain `~` or `null`.
    Null,
    /// Text. A plain one (not quoted) may yet turn out to be a number or a boolean.
    Scalar {
        /// The text, unescaped and with variables expanded.
        text: Box<str>,
        /// Whether it was written without quotes.
        plain: bool,
    },
    /// A list.
    List(Arc<[Node]>),
    /// A map in the order it was written; no key occurs twice.
    Map(Arc<[Entry]>),
}

/// A key and its value.
pub type Entry = (Key, Node);

/// A key of a map and its place.
#[derive(Clone, Debug, PartialEq)]
pub struct Key {
    /// The text of the key.
    pub text: Arc<str>,
    /// Where the key begins.
    pub mark: Mark,
}

impl Value {
    /// A scalar that was written without quotes; `~`, `null` and the empty text are [`Value::Null`].
    pub fn plain(text: impl Into<Box<str>> + AsRef<str>) -> Self {
        if scalar::is_null(text.as_ref()) {
            Self::Null
        } else {
            Self::Scalar { text: text.into(), plain: true }
        }
    }

    /// A scalar that is a string whatever it looks like.
    pub fn quoted(text: impl Into<Box<str>>) -> Self {
        Self::Scalar { text: text.into(), plain: false }
    }
}

impl Node {
    /// The value under `key`, if this is a map that has it.
    pub fn get(&self, key: &str) -> Option<&Node> {
        self.entry(key).map(|(_, value)| value)
    }

    /// The key and value under `key`, if this is a map that has it.
    pub fn entry(&self, key: &str) -> Option<&Entry> {
        self.entries().iter().find(|(k, _)| &*k.text == key)
    }

    /// The entries of a map; none for anything else.
    pub fn entries(&self) -> &[Entry] {
        match &self.value {
            Value::Map(entries) => entries,
            _ => &[],
        }
    }

    /// The items of a list; none for anything else.
    pub fn items(&self) -> &[Node] {
        match &self.value {
            Value::List(items) => items,
            _ => &[],
        }
    }

    /// The text of a scalar.
    pub fn text(&self) -> Option<&str> {
        match &self.value {
            Value::Scalar { text, .. } => Some(text),
            _ => None,
        }
    }

    /// The node at a document path such as `routes[3].path`, or its nearest ancestor that exists.
    pub fn nearest(&self, path: &str) -> &Node {
        let mut node = self;
        for step in steps(path) {
            let next = match step {
                Step::Key(key) => node.get(&key),
                Step::Index(index) => node.items().get(index),
            };
            match next {
                Some(next) => node = next,
                None => break,
            }
        }
        node
    }

    /// What this is, in users' words.
    pub fn kind(&self) -> &'static str {
        match &self.value {
            Value::Null => "nothing",
            Value::Scalar { .. } => "a single value",
            Value::List(_) => "a list",
            Value::Map(_) => "a map",
        }
    }
}
