//! Lists of filters become links.

use std::collections::BTreeSet;
use std::path::PathBuf;

use super::{Compiler, Links, unknown};
use crate::chain::{Link, Phases, Stage};
use crate::condition::{Condition, Place, When};
use crate::config::{Config, FilterUse};
use crate::document::{ConfigError, join};
use crate::registry::{Built, Parameters, Registry, Scope};
use crate::types::MASK;

/// Where a list of filters is placed.
#[derive(Clone, Copy)]
pub(super) struct Ground<'g> {
    /// Whose filters they are: `global`, `listener web` or `route orders`.
    pub(super) owner: &'g str,
    /// The path parameters that a template may name.
    pub(super) parameters: Parameters<'g>,
}

/// A filter, and what its place in the chain depends on.
struct Made {
    link: Link,
    /// Where filters of its kind belong, whatever their settings.
    of_kind: Stage,
    /// Whether it looks at who the client has proved to be.
    needs_identity: bool,
}

/// A condition that is written somewhere.
type Written<'w> = (String, &'w str);

impl<'a> Compiler<'a> {
    /// The links of a list of filters that stands at `path`.
    pub(super) fn links(&mut self, path: &str, written: &'a [FilterUse], ground: Ground<'_>) -> Links {
        let mut links = Vec::new();
        for (at, entry) in written.iter().enumerate() {
            let path = format!("{path}[{at}]");
            if entry.name == "use" {
                self.placed(&path, entry, ground, &mut links);
            } else {
                links.extend(self.link(&path, entry, ground, None));
            }
        }
        links
    }

    fn placed(&mut self, path: &str, entry: &'a FilterUse, ground: Ground<'_>, links: &mut Links) {
        let Some(name) = entry.chain() else {
            return self.error(format!("{path}.use"), "`use` wants the name of a chain");
        };
        let Some((name, written)) = self.config.chains.get_key_value(name) else {
            if self.config.unread.touches(&join("chains", name)) {
                return;
            }
            let known = self.config.chains.keys().map(String::as_str);
            return self.errors.push(unknown(format!("{path}.use"), "chain", name, known));
        };
        if entry.stage.is_some() {
            self.error(format!("{path}.stage"), "`stage` moves a filter: write it beside one in the chain");
        }
        self.used.push(name);
        let when = entry.when.as_deref().map(|when| (format!("{path}.when"), when));
        self.chain(name, written, ground, when, links);
    }

    /// The filters of a named chain.
    fn chain(
        &mut self,
        name: &str,
        written: &'a [FilterUse],
        ground: Ground<'_>,
        when: Option<Written<'_>>,
        links: &mut Links,
    ) {
        for (at, entry) in written.iter().enumerate() {
            let path = format!("{}[{at}]", join("chains", name));
            if entry.name == "use" {
                self.error(path, "a chain cannot place another chain");
            } else {
                links.extend(self.link(&path, entry, ground, when.clone()));
            }
        }
    }

    /// A filter, where its own condition and that of the chain it is in hold.
    fn link(
        &mut self,
        path: &str,
        entry: &FilterUse,
        ground: Ground<'_>,
        outer: Option<Written<'_>>,
    ) -> Option<Link> {
        let own = entry.when.as_deref().map(|when| (format!("{path}.when"), when));
        let conditions: Vec<Written<'_>> = [outer, own].into_iter().flatten().collect();
        let when: Vec<&str> = conditions.iter().map(|(_, text)| *text).collect();
        let made = self.filter(path, entry, ground, &when);
        // Of a filter that cannot be made, it is not known when it acts.
        let early =
            made.as_ref().is_some_and(|made| made.link.filter.phases().touches(Phases::BEFORE_RESPONSE));
        let place = if early { Place::Request } else { Place::Response };
        let conditions: Vec<Option<Condition>> =
            conditions.into_iter().map(|(path, text)| self.condition(&path, text, place, ground)).collect();
        let written = self.stage(path, entry);
        let Made { mut link, of_kind, needs_identity } = made?;
        let conditions: Vec<Condition> = conditions.into_iter().collect::<Option<_>>()?;
        let asked = conditions.iter().any(Condition::needs_identity);
        // What acts on the response alone finds it known, wherever it stands.
        let on_request = link.filter.phases().touches(Phases::REQUEST | Phases::REQUEST_WAIT);
        let at = written.unwrap_or(link.stage);
        let names_clients = link.stage == Stage::Authenticate;
        let too_early = at < Stage::Authenticate || at == Stage::Authenticate && !names_clients;
        link.stage = match written {
            _ if !(on_request && too_early && (asked || needs_identity)) => at,
            None if of_kind == Stage::Limit => Stage::Limit,
            None => Stage::Authorize,
            Some(at) => {
                let what = if asked { "its condition" } else { "it" };
                let message = format!("{what} asks who the client is, which is not known yet in `{at}`");
                let later = if of_kind == Stage::Limit { Stage::Limit } else { Stage::Authorize };
                let hint = format!("without `stage` it comes in `{later}`");
                self.errors.push(ConfigError::new(format!("{path}.stage"), message).with_hint(hint));
                return None;
            }
        };
        link.when = When::all(conditions);
        Some(link)
    }

    pub(super) fn condition(
        &mut self,
        path: &str,
        text: &str,
        place: Place,
        ground: Ground<'_>,
    ) -> Option<Condition> {
        match Condition::parse(text, place) {
            Ok(condition) => {
                let Ground { owner, parameters } = ground;
                let (registry, state) = (self.inputs.registry, self.inputs.state);
                let (stores, consumers, metrics) = (&self.stores, &self.consumers, self.inputs.metrics);
                let (when, files) = (&[], false);
                let scope =
                    Scope { registry, parameters, state, metrics, stores, consumers, owner, when, files };
                let unknown: Vec<String> = scope.unknown_parameters(condition.parameters()).collect();
                unknown.into_iter().for_each(|sentence| self.error(path, sentence));
                let secret = condition.may_tell(&self.credentials);
                Some(if secret { condition.shown_as(MASK) } else { condition })
            }
            Err(errors) => {
                self.errors.extend(errors.below(path));
                None
            }
        }
    }

    fn stage(&mut self, path: &str, entry: &FilterUse) -> Option<Stage> {
        let name = entry.stage.as_deref()?;
        let found = Stage::ALL.into_iter().find(|stage| stage.name() == name);
        if found.is_none() {
            let known = Stage::ALL.iter().map(|stage| stage.name());
            self.errors.push(unknown(format!("{path}.stage"), "stage", name, known));
        }
        found
    }

    fn filter(&mut self, path: &str, entry: &FilterUse, ground: Ground<'_>, when: &[&str]) -> Option<Made> {
        let registry = self.inputs.registry;
        if let Some(link) = registry.instance(&entry.name) {
            let of_kind = link.stage;
            return Some(Made { link, of_kind, needs_identity: false });
        }
        let Some(kind) = registry.kind(&entry.name) else {
            let known = registry.filter_names();
            self.errors.push(unknown(path.to_owned(), "filter", &entry.name, known));
            return None;
        };
        let Ground { owner, parameters } = ground;
        let (state, stores, consumers) = (self.inputs.state, &self.stores, &self.consumers);
        let files = self.inputs.certificates;
        let metrics = self.inputs.metrics;
        let scope = Scope { registry, parameters, state, metrics, stores, consumers, owner, when, files };
        let path = join(path, kind.name);
        let Built { filter, stage, needs_identity } =
            kind.build(&entry.config, &path, &scope, &mut self.errors)?;
        Some(Made { link: Link::new(kind.name, stage, filter), of_kind: kind.stage, needs_identity })
    }

    /// A chain that nothing places is read all the same: its mistakes would show on the day it is placed.
    pub(super) fn unplaced_chains(&mut self) {
        for (name, written) in &self.config.chains {
            if !self.used.contains(&name.as_str()) {
                let nowhere = Ground { owner: "nobody", parameters: Parameters::Any };
                self.chain(name, written, nowhere, None, &mut Links::new());
            }
        }
    }
}

/// The files that filters are made of, for a watcher.
pub fn filter_files<'c>(config: &'c Config, registry: &'c Registry) -> impl Iterator<Item = PathBuf> + 'c {
    every_filter(config)
        .filter_map(|entry| Some(registry.kind(&entry.name)?.files(&entry.config, registry)))
        .flatten()
}

/// The query parameters that carry credentials for any filter.
pub(super) fn secret_queries(config: &Config, registry: &Registry) -> BTreeSet<String> {
    every_filter(config)
        .filter_map(|entry| Some(registry.kind(&entry.name)?.secret_queries(&entry.config, registry)))
        .flatten()
        .collect()
}

fn every_filter(config: &Config) -> impl Iterator<Item = &FilterUse> {
    let of_listeners = config.listeners.iter().flat_map(|listener| &listener.filters);
    let of_routes = config.routes.iter().flat_map(|route| &route.filters);
    let of_apis = config.apis.iter().flat_map(|api| &api.filters);
    let of_chains = config.chains.values().flatten();
    config.filters.iter().chain(of_listeners).chain(of_chains).chain(of_routes).chain(of_apis)
}
