//! What holds for most, and what holds instead for some consumers and groups.

use std::collections::{BTreeMap, HashMap};

use crate::exchange::Exchange;

/// One value for everyone but some.
pub struct Variants<T> {
    /// The first is for everyone else.
    values: Vec<T>,
    consumers: HashMap<Box<str>, usize>,
    groups: HashMap<Box<str>, usize>,
}

impl<T> Variants<T> {
    /// This for everyone.
    pub fn of_all(value: T) -> Self {
        Self { values: vec![value], consumers: HashMap::new(), groups: HashMap::new() }
    }

    /// The same, but these for consumers and groups by name.
    pub fn but(value: T, consumers: BTreeMap<String, T>, groups: BTreeMap<String, T>) -> Self {
        let mut variants = Self::of_all(value);
        let mut add = |(name, value): (String, T)| {
            variants.values.push(value);
            (name.into_boxed_str(), variants.values.len() - 1)
        };
        let consumers = consumers.into_iter().map(&mut add).collect();
        let groups = groups.into_iter().map(&mut add).collect();
        Self { consumers, groups, ..variants }
    }

    /// What holds for a request: its consumer's own, or that of the first of the consumer's groups that has one.
    pub fn of(&self, exchange: &Exchange<'_>) -> usize {
        if self.values.len() == 1 {
            return 0;
        }
        let Some(consumer) = exchange.consumer() else { return 0 };
        let own = self.consumers.get(&*consumer.name);
        let of_group = || consumer.groups.iter().find_map(|group| self.groups.get(group));
        own.or_else(of_group).copied().unwrap_or(0)
    }

    /// A value by its place.
    pub fn get(&self, at: usize) -> Option<&T> {
        self.values.get(at)
    }

    /// All of them; the first is for everyone else.
    pub fn all(&self) -> &[T] {
        &self.values
    }

    /// Whether it matters who the client is.
    pub fn needs_identity(&self) -> bool {
        self.values.len() > 1
    }
}
