//! Lists of filters become links.

use super::{Compiler, Links, unknown};
use crate::chain::Link;
use crate::config::FilterUse;
use crate::registry::{Parameters, Scope};

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
        let scope = Scope { parameters, state: self.inputs.state, stores: &self.stores, owner };
        let path = crate::document::join(path, kind.name);
        let (stage, filter) = kind.build(&entry.config, &path, &scope, &mut self.errors)?;
        Some(Link { name: kind.name, stage, filter })
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
