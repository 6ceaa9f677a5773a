//! Lists of filters become links.

use super::{Compiler, Links, unknown};
use crate::chain::Link;
use crate::config::FilterUse;
use crate::registry::Scope;

impl<'a> Compiler<'a> {
    /// The links of a list of filters that stands at `path`; `captures` are the route's path parameters.
    pub(super) fn links(&mut self, path: &str, written: &'a [FilterUse], captures: Option<&[&str]>) -> Links {
        let mut links = Vec::new();
        for (at, entry) in written.iter().enumerate() {
            let path = format!("{path}[{at}]");
            if entry.name == "use" {
                self.placed(&path, entry, captures, &mut links);
            } else {
                links.extend(self.link(&path, entry, captures));
            }
        }
        links
    }

    fn placed(&mut self, path: &str, entry: &'a FilterUse, captures: Option<&[&str]>, links: &mut Links) {
        let Some(name) = entry.chain() else {
            return self.error(format!("{path}.use"), "`use` wants the name of a chain");
        };
        let Some((name, written)) = self.config.chains.get_key_value(name) else {
            if self.unread(&crate::document::join("chains", name)) {
                return;
            }
            let known = self.config.chains.keys().map(String::as_str);
            return self.errors.push(unknown(format!("{path}.use"), "chain", name, known));
        };
        self.used.push(name);
        for (at, entry) in written.iter().enumerate() {
            let path = format!("{}[{at}]", crate::document::join("chains", name));
            if entry.name == "use" {
                self.error(path, "a chain cannot place another chain");
            } else {
                links.extend(self.link(&path, entry, captures));
            }
        }
    }

    fn link(&mut self, path: &str, entry: &FilterUse, captures: Option<&[&str]>) -> Option<Link> {
        let registry = self.inputs.registry;
        if let Some(link) = registry.instance(&entry.name) {
            return Some(link);
        }
        let Some(kind) = registry.kind(&entry.name) else {
            let known = registry.filter_names();
            self.errors.push(unknown(path.to_owned(), "filter", &entry.name, known));
            return None;
        };
        let scope = Scope { captures, state: self.inputs.state };
        let path = crate::document::join(path, kind.name);
        let filter = kind.build(&entry.config, &path, &scope, &mut self.errors)?;
        Some(Link { name: kind.name, stage: kind.stage, filter })
    }

    /// A chain that nothing places is read all the same: its mistakes would show on the day it is placed.
    pub(super) fn unplaced_chains(&mut self) {
        for (name, written) in &self.config.chains {
            if self.used.contains(&name.as_str()) {
                continue;
            }
            for (at, entry) in written.iter().enumerate() {
                let path = format!("{}[{at}]", crate::document::join("chains", name));
                if entry.name == "use" {
                    self.error(path, "a chain cannot place another chain");
                } else {
                    // Templates may name captures of a route that is yet to come.
                    self.known(&path, entry);
                }
            }
        }
    }

    fn known(&mut self, path: &str, entry: &FilterUse) {
        let registry = self.inputs.registry;
        if registry.kind(&entry.name).is_none() && registry.instance(&entry.name).is_none() {
            self.errors.push(unknown(path.to_owned(), "filter", &entry.name, registry.filter_names()));
        }
    }
}
