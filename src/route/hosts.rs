//! Which tables a host is looked up in.

use ahash::HashMap;
use memchr::memchr_iter;
use smallvec::SmallVec;

use super::tree::TableId;
use crate::types::HostPattern;

/// A name, in place when it is as short as most.
type Name = SmallVec<[u8; 24]>;

/// The table of every host pattern.
#[derive(Default)]
pub(super) struct Hosts {
    exact: HashMap<Name, TableId>,
    /// By what stands after `*.`.
    wildcard: HashMap<Name, TableId>,
    /// The most labels that a wildcard's suffix has: longer suffixes of a host need no probe.
    deepest: usize,
    any: Option<TableId>,
}

impl Hosts {
    /// Gives a pattern its table; no pattern stands for any host.
    pub fn insert(&mut self, pattern: Option<&HostPattern>, table: TableId) {
        match pattern {
            None => self.any = Some(table),
            Some(pattern) if pattern.is_wildcard() => {
                self.deepest = self.deepest.max(pattern.name().split('.').count());
                self.wildcard.insert(pattern.name().as_bytes().into(), table);
            }
            Some(pattern) => {
                self.exact.insert(pattern.name().as_bytes().into(), table);
            }
        }
    }

    /// The tables for a canonical host: its own, those of its suffixes from the longest on, the one for any.
    pub fn tables(&self, host: &str) -> impl Iterator<Item = TableId> {
        let exact = self.exact.get(host.as_bytes());
        let wildcards = self.suffixes(host).filter_map(|suffix| self.wildcard.get(suffix.as_bytes()));
        exact.into_iter().chain(wildcards).chain(&self.any).copied()
    }

    /// The suffixes after each dot that are short enough to be known, longest first.
    fn suffixes<'h>(&self, host: &'h str) -> impl Iterator<Item = &'h str> {
        let dots = || memchr_iter(b'.', host.as_bytes());
        let skipped =
            if self.deepest == 0 { usize::MAX } else { dots().count().saturating_sub(self.deepest) };
        dots().skip(skipped).map(|dot| &host[dot + 1..])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hosts(patterns: &[&str]) -> Hosts {
        let mut hosts = Hosts::default();
        for (table, pattern) in patterns.iter().enumerate() {
            let pattern = (*pattern != "any").then(|| HostPattern::parse(pattern).unwrap());
            hosts.insert(pattern.as_ref(), table as TableId);
        }
        hosts
    }

    #[test]
    fn exact_comes_before_longer_and_shorter_wildcards_and_any() {
        let hosts = hosts(&["any", "*.test", "*.b.test", "a.b.test", "*.a.b.test"]);
        for (host, tables) in [
            ("a.b.test", &[3, 2, 1, 0][..]),
            ("x.b.test", &[2, 1, 0]),
            ("y.x.b.test", &[2, 1, 0]),
            ("x.a.b.test", &[4, 2, 1, 0]),
            ("b.test", &[1, 0]),
            ("test", &[0]),
            ("xtest", &[0]),
            ("a.b.testing", &[0]),
            ("[::1]", &[0]),
            ("", &[0]),
        ] {
            assert_eq!(hosts.tables(host).collect::<Vec<_>>(), tables, "{host}");
        }
    }

    #[test]
    fn probes_are_bounded_by_what_is_configured() {
        let deep = "a.".repeat(100) + "b.test";
        assert_eq!(hosts(&["a.b.test"]).suffixes(&deep).count(), 0);
        assert_eq!(hosts(&["*.b.test"]).suffixes(&deep).collect::<Vec<_>>(), ["b.test", "test"]);
    }
}
