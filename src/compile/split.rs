//! `routes.*.split`: a route becomes one for each variant.

use std::collections::{BTreeSet, HashSet};
use std::sync::Arc;

use http::{HeaderName, HeaderValue};

use super::chains::Ground;
use super::routes::{Chains, sendable};
use super::{Compiler, unknown};
use crate::condition::Place;
use crate::config::{Route as Words, Split as SplitWords, SplitRule as RuleWords};
use crate::document::{ConfigError, join};
use crate::registry::Parameters;
use crate::snapshot::{Lifecycle, Split, SplitRule, Target, Variant};
use crate::split::Shares;
use crate::types::Selector;

/// The heaviest a variant may be.
const HEAVIEST: u32 = 1_000_000;

impl<'a> Compiler<'a> {
    pub(super) fn split(
        &mut self,
        path: &str,
        words: &'a Words,
        split: &'a SplitWords,
        captures: &[&str],
        chains: &Chains,
    ) -> Option<Target> {
        let names: Vec<&str> = split.to.iter().map(|to| to.name()).collect();
        self.check_variants(path, split, &names);
        let header = split.header.as_ref().and_then(|name| {
            let name = sendable(name);
            self.parsed(format!("{path}.header"), name)
        });
        let visitor = self.visitor(path, split);
        let rules = split.rules.iter().enumerate();
        let rules: Vec<_> = rules
            .map(|(at, rule)| self.split_rule(&format!("{path}.rules[{at}]"), rule, &names, captures))
            .collect();
        let vary = vary(split);
        let mut variants = Vec::with_capacity(split.to.len());
        for (at, to) in split.to.iter().enumerate() {
            let upstream = self.upstream(format!("{path}.to[{at}].upstream"), &to.upstream)?;
            let mut route = self.route(words, Arc::clone(chains), Target::Upstream(upstream));
            route.lifecycle = Some(Box::new(Lifecycle { vary: vary.clone(), ..Lifecycle::default() }));
            route.variant = Some(Box::new(self.variant(words, to.name(), header.as_ref())));
            variants.push(Arc::new(route));
        }
        Some(Target::Split(Box::new(Split {
            variants: variants.into(),
            shares: Shares::new(&words.name, split.to.iter().map(|to| (to.name(), to.weight))),
            rules: rules.into_iter().collect::<Option<_>>()?,
            keys: split.key.as_ref().map(|key| key.0.clone().into()).unwrap_or_default(),
            visitor,
        })))
    }

    fn variant(&self, words: &Words, name: &str, header: Option<&HeaderName>) -> Variant {
        let value = HeaderValue::try_from(name).ok();
        Variant {
            name: name.into(),
            header: header.cloned().zip(value),
            metrics: self.inputs.metrics.variant(&words.name, name),
        }
    }

    fn check_variants(&mut self, path: &str, split: &SplitWords, names: &[&str]) {
        if split.to.is_empty() {
            self.error(format!("{path}.to"), "a split needs variants to choose from");
        } else if split.to.iter().all(|to| to.weight == 0) {
            self.error(
                format!("{path}.to"),
                "no variant has any weight: requests without a rule would go nowhere",
            );
        }
        let mut seen = HashSet::new();
        for (at, to) in split.to.iter().enumerate() {
            let path = format!("{path}.to[{at}]");
            self.check_name(format!("{path}.name"), to.name());
            if !seen.insert(names.get(at)) {
                let error = ConfigError::new(&path, format!("another variant is called `{}`", to.name()));
                self.errors.push(error.with_hint("give one of them a `name` of its own"));
            }
            if to.weight > HEAVIEST {
                self.error(format!("{path}.weight"), format!("a weight is 0 to {HEAVIEST}"));
            }
        }
    }

    /// The cookie that clients are given.
    fn visitor(&mut self, path: &str, split: &SplitWords) -> Option<Box<str>> {
        if !split.sticky {
            return None;
        }
        match split.key.as_ref().and_then(|key| key.0.first()) {
            Some(Selector::Cookie(name)) => Some(name.clone()),
            _ => {
                let error =
                    ConfigError::new(format!("{path}.sticky"), "there is no cookie to give to clients");
                self.errors.push(error.with_hint("let `key` begin with one: `key: \"cookie:visitor\"`"));
                None
            }
        }
    }

    fn split_rule(
        &mut self,
        path: &str,
        words: &RuleWords,
        names: &[&str],
        captures: &[&str],
    ) -> Option<SplitRule> {
        let names_nothing = words.headers.is_empty() && words.cookies.is_empty() && words.query.is_empty();
        if names_nothing && words.when.is_none() {
            self.error(path, "a rule needs `headers`, `cookies`, `query` or `when`");
        }
        let mut cookies = Vec::new();
        for (name, matcher) in &words.cookies {
            let path = join(&format!("{path}.cookies"), name);
            if HeaderName::try_from(name).is_err() {
                self.error(path.clone(), format!("`{name}` is not the name of a cookie"));
            }
            cookies.push((name.as_str().into(), self.value_match(path, matcher)?));
        }
        let when = words.when.as_deref().map(|when| {
            let ground = Ground { owner: "", parameters: Parameters::Of(captures) };
            self.condition(&format!("{path}.when"), when, Place::Request, ground)
        });
        let to = names.iter().position(|name| *name == words.to);
        if to.is_none() {
            self.errors.push(unknown(format!("{path}.to"), "variant", &words.to, names.iter().copied()));
        }
        Some(SplitRule {
            headers: self.header_conditions(path, &words.headers).into(),
            cookies: cookies.into(),
            query: self.query_conditions(path, &words.query).into(),
            when: match when {
                Some(read) => Some(read?),
                None => None,
            },
            to: to?,
        })
    }
}

/// The fields that a split looks at: answers vary by them.
fn vary(split: &SplitWords) -> Box<[HeaderValue]> {
    let of_rules = split.rules.iter().flat_map(|rule| {
        let cookie = (!rule.cookies.is_empty()).then_some("cookie");
        rule.headers.keys().map(String::as_str).chain(cookie)
    });
    let keys = split.key.iter().flat_map(|key| &key.0);
    let of_keys = keys.filter_map(|selector| match selector {
        Selector::Header(name) => Some(name.as_str()),
        Selector::Cookie(_) => Some("cookie"),
        _ => None,
    });
    let fields: BTreeSet<String> = of_rules.chain(of_keys).map(str::to_ascii_lowercase).collect();
    fields.iter().filter_map(|field| HeaderValue::try_from(field).ok()).collect()
}
