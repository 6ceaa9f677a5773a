//! Lists of filters become links.

use std::path::PathBuf;

use super::{Compiler, Links, unknown};
use crate::chain::Link;
use crate::config::{Config, FilterUse};
use crate::registry::{Parameters, Registry, Scope};

/// Where a list of filters is placed.
#[derive(Clone, Copy)]
pub(super) struct Ground<'g> {
    /// Whose filters they are: `global`, `listener web` or `route orders`.
    pub(super) owner: &'g str,
    /// The path parameters that a template may name.
    pub(super) parameters: Parameters<'g>,
}

impl<'a> Compiler<'a> {
    /// The links of a list of filters that stands at `path`.
    pub(super) fn links(&mut self, path: &str, written: &'a [FilterUse], ground: Ground<'_>) -> Links {
        let mut links = Vec::new();
        for (at, entry) in written.iter().enumerate() {
            let path = format!("{path}[{at}]");
            if entry.name == "use" {
                self.placed(&path, entry, ground, &mut links);
            } else {
                links.extend(self.link(&path, entry, ground));
            }
        }
        links
    }

    fn placed(&mut self, path: &str, entry: &'a FilterUse, ground: Ground<'_>, links: &mut Links) {
        let Some(name) = entry.chain() else {
            return self.error(format!("{path}.use"), "`use` wants the name of a chain");
        };
        let Some((name, written)) = self.config.chains.get_key_value(name) else {
            if self.config.unread.touches(&crate::document::join("chains", name)) {
                return;
            }
            let known = self.config.chains.keys().map(String::as_str);
            return self.errors.push(unknown(format!("{path}.use"), "chain", name, known));
        };
        self.used.push(name);
        self.chain(name, written, ground, links);
    }

    /// The filters of a named chain.
    fn chain(&mut self, name: &str, written: &'a [FilterUse], ground: Ground<'_>, links: &mut Links) {
        for (at, entry) in written.iter().enumerate() {
            let path = format!("{}[{at}]", crate::document::join("chains", name));
            if entry.name == "use" {
                self.error(path, "a chain cannot place another chain");
            } else {
                links.extend(self.link(&path, entry, ground));
            }
        }
    }

    fn link(&mut self, path: &str, entry: &FilterUse, ground: Ground<'_>) -> Option<Link> {
        let registry = self.inputs.registry;
        if let Some(link) = registry.instance(&entry.name) {
            return Some(link);
        }
        let Some(kind) = registry.kind(&entry.name) else {
            let known = registry.filter_names();
            self.errors.push(unknown(path.to_owned(), "filter", &entry.name, known));
            return None;
        };
        let Ground { owner, parameters } = ground;
        let (state, stores, consumers) = (self.inputs.state, &self.stores, &self.consumers);
        let files = self.inputs.certificates;
        let scope = Scope { parameters, state, stores, consumers, owner, files };
        let path = crate::document::join(path, kind.name);
        let filter = kind.build(&entry.config, &path, &scope, &mut self.errors)?;
        Some(Link { name: kind.name, stage: kind.stage, filter })
    }

    /// A chain that nothing places is read all the same: its mistakes would show on the day it is placed.
    pub(super) fn unplaced_chains(&mut self) {
        for (name, written) in &self.config.chains {
            if !self.used.contains(&name.as_str()) {
                let nowhere = Ground { owner: "nobody", parameters: Parameters::Any };
                self.chain(name, written, nowhere, &mut Links::new());
            }
        }
    }
}

/// The files that filters are made of, for a watcher.
pub fn filter_files<'c>(config: &'c Config, registry: &'c Registry) -> impl Iterator<Item = PathBuf> + 'c {
    let of_listeners = config.listeners.iter().flat_map(|listener| &listener.filters);
    let of_routes = config.routes.iter().flat_map(|route| &route.filters);
    let all =
        config.filters.iter().chain(of_listeners).chain(config.chains.values().flatten()).chain(of_routes);
    all.filter_map(|entry| Some(registry.kind(&entry.name)?.files(&entry.config))).flatten()
}
