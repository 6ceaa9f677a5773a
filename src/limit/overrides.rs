//! Overrides for consumers and groups: whether there are such.

use crate::consumer::Consumers;
use crate::document::{ConfigError, Errors, join, suggest};

/// What is wrong with the names. Where no consumers are configured, a filter of the program's own says who clients are.
pub fn check_overrides<'n>(
    consumers: impl Iterator<Item = &'n String>,
    groups: impl Iterator<Item = &'n String>,
    all: &Consumers,
) -> Errors {
    let mut errors = Errors::default();
    if all.incomplete || all.entries().len() == 0 {
        return errors;
    }
    let names: Vec<&str> = all.entries().map(|entry| &*entry.consumer.name).collect();
    let mut group_names: Vec<&str> =
        all.entries().flat_map(|entry| entry.consumer.groups.iter().map(|group| &**group)).collect();
    group_names.sort_unstable();
    group_names.dedup();
    let mut check = |at: &str, name: &str, known: &[&str], message: String| {
        if known.contains(&name) {
            return;
        }
        let error = ConfigError::new(join(at, name), message);
        errors.push(match suggest(name, known) {
            Some(hint) => error.with_hint(hint),
            None => error,
        });
    };
    for name in consumers {
        check("overrides.consumers", name, &names, format!("there is no consumer `{name}`"));
    }
    for name in groups {
        check("overrides.groups", name, &group_names, format!("no consumer is in a group `{name}`"));
    }
    errors
}
