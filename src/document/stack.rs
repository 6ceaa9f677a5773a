//! The lists and maps that a parse has begun and not yet ended.
//!
//! Their contents lie one behind the other in two vectors, so that each list and map is allocated once, at its end and
//! in its size.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use super::node::{Entry, Key, Node, Value};
use super::path::{push_index, push_key};
use super::source::Mark;

/// Maps up to this size are searched one by one for a key, larger ones through an index.
const SMALL_MAP: usize = 16;

/// What is open, outermost first, and the root once nothing is.
#[derive(Default)]
pub(super) struct Stack {
    open: Vec<Open>,
    items: Vec<Node>,
    entries: Vec<Entry>,
    root: Option<Node>,
}

struct Open {
    begun: Begun,
    /// The deepest nesting below.
    height: usize,
    content: Content,
}

/// What is known of a list or map when it begins.
pub(super) struct Begun {
    /// Where it begins.
    pub(super) mark: Mark,
    /// Its anchor's id, 0 for none.
    pub(super) anchor: usize,
    /// How many values came before it.
    pub(super) values_before: usize,
}

/// Contents from `start` on.
enum Content {
    List { start: usize, length: usize },
    Map { start: usize, pending: Option<Pending>, merged: Option<Node> },
}

/// A key that awaits its value.
pub(super) enum Pending {
    /// An ordinary key.
    Key(Key),
    /// `<<`
    Merge,
}

/// A list or map that has ended.
pub(super) struct Ended {
    pub(super) begun: Begun,
    pub(super) value: Value,
    /// How deep it nests, itself counted.
    pub(super) height: usize,
    /// Keys that occur again, each after its first occurrence.
    pub(super) duplicates: Vec<(Key, Key)>,
    /// The place of a `<<` that names something else than maps.
    pub(super) bad_merge: Option<Mark>,
}

impl Stack {
    /// How many lists and maps are open.
    pub(super) fn depth(&self) -> usize {
        self.open.len()
    }

    /// Whether a key is to come next.
    pub(super) fn awaits_key(&self) -> bool {
        matches!(self.open.last().map(|open| &open.content), Some(Content::Map { pending: None, .. }))
    }

    pub(super) fn begin_list(&mut self, begun: Begun) {
        let content = Content::List { start: self.items.len(), length: 0 };
        self.open.push(Open { begun, height: 0, content });
    }

    pub(super) fn begin_map(&mut self, begun: Begun) {
        let content = Content::Map { start: self.entries.len(), pending: None, merged: None };
        self.open.push(Open { begun, height: 0, content });
    }

    /// Takes the key of the next value; false if it is a second `<<`.
    pub(super) fn key(&mut self, key: Pending) -> bool {
        if let Some(Content::Map { pending, merged, .. }) = self.open.last_mut().map(|open| &mut open.content)
        {
            if matches!(key, Pending::Merge) && merged.is_some() {
                return false;
            }
            *pending = Some(key);
        }
        true
    }

    /// Puts a finished value where it belongs.
    pub(super) fn place(&mut self, node: Node, height: usize) {
        let Some(parent) = self.open.last_mut() else {
            self.root = Some(node);
            return;
        };
        parent.height = parent.height.max(height);
        match &mut parent.content {
            Content::List { length, .. } => {
                *length += 1;
                self.items.push(node);
            }
            Content::Map { pending, merged, .. } => match pending.take() {
                Some(Pending::Key(key)) => self.entries.push((key, node)),
                Some(Pending::Merge) => *merged = Some(node),
                None => {}
            },
        }
    }

    /// Ends the innermost list or map, which is then to be placed.
    pub(super) fn end(&mut self) -> Option<Ended> {
        let Open { begun, height, content } = self.open.pop()?;
        let (mut duplicates, mut bad_merge) = (Vec::new(), None);
        let value = match content {
            Content::List { start, .. } => Value::List(self.items.drain(start..).collect()),
            Content::Map { start, merged, .. } => {
                duplicates = find_duplicates(&self.entries[start..]);
                if let Some(merged) = merged
                    && !merge(&mut self.entries, start, &merged)
                {
                    bad_merge = Some(merged.mark);
                }
                if duplicates.is_empty() {
                    Value::Map(self.entries.drain(start..).collect())
                } else {
                    // They are reported; for what else is to be found, the first one counts.
                    let mut seen = HashSet::new();
                    let mut entries: Vec<Entry> = self.entries.drain(start..).collect();
                    entries.retain(|(key, _)| seen.insert(key.text.clone()));
                    Value::Map(entries.into())
                }
            }
        };
        Some(Ended { begun, value, height: height + 1, duplicates, bad_merge })
    }

    /// The path of the value that comes next.
    pub(super) fn path(&self) -> String {
        let mut path = String::new();
        for open in &self.open {
            match &open.content {
                Content::List { length, .. } => push_index(&mut path, *length),
                Content::Map { pending: Some(Pending::Key(key)), .. } => push_key(&mut path, &key.text),
                Content::Map { pending: Some(Pending::Merge), .. } => push_key(&mut path, "<<"),
                Content::Map { pending: None, .. } => {}
            }
        }
        path
    }

    /// The outermost value, if there was any.
    pub(super) fn into_root(self) -> Option<Node> {
        self.root
    }
}

fn find_duplicates(entries: &[Entry]) -> Vec<(Key, Key)> {
    let mut found = Vec::new();
    if entries.len() <= SMALL_MAP {
        for (i, (key, _)) in entries.iter().enumerate() {
            let first = entries[..i].iter().find(|(earlier, _)| earlier.text == key.text);
            found.extend(first.map(|(first, _)| (first.clone(), key.clone())));
        }
        return found;
    }
    let mut seen = HashMap::with_capacity(entries.len());
    for (key, _) in entries {
        let first = *seen.entry(&*key.text).or_insert(key);
        if !std::ptr::eq(first, key) {
            found.push((first.clone(), key.clone()));
        }
    }
    found
}

/// Adds what `<<` names to the map that begins at `start`, unless the key is taken; false if those are not maps.
fn merge(entries: &mut Vec<Entry>, start: usize, merged: &Node) -> bool {
    let maps = match &merged.value {
        Value::Map(_) => std::slice::from_ref(merged),
        Value::List(maps) if maps.iter().all(|map| matches!(map.value, Value::Map(_))) => maps,
        _ => return false,
    };
    let mut taken: HashSet<Arc<str>> = entries[start..].iter().map(|(key, _)| key.text.clone()).collect();
    for entry in maps.iter().flat_map(Node::entries) {
        if taken.insert(entry.0.text.clone()) {
            entries.push(entry.clone());
        }
    }
    true
}
