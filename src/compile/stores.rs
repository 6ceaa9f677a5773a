//! `stores`, which machines share.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use super::listeners::secret;
use super::{Compiler, unknown};
use crate::config::{RedisStore, SecretSource, Store};
use crate::document::{ConfigError, join};
use crate::stores::{Redis, Server, Unusable};
use crate::tls::authorities_text;

/// The store in the gateway's own memory.
const MEMORY: &str = "memory";
/// How long a store may take where nothing is said.
const TIMEOUT: Duration = Duration::from_secs(1);

/// The stores by name; `None` for one that something is wrong with.
pub(super) type Stores = BTreeMap<String, Option<Arc<Redis>>>;

impl Compiler<'_> {
    pub(super) fn stores(&mut self) -> Stores {
        let config = self.config;
        let compile = |(name, Store::Redis(words)): (&String, &Store)| {
            let path = join("stores", name);
            self.check_name(path.clone(), name);
            if name == MEMORY {
                let message = "`memory` is the gateway's own, which is always there";
                self.errors.push(ConfigError::new(&path, message).with_hint("call it something else"));
            }
            (name.clone(), self.redis(&join(&path, "redis"), words))
        };
        config.stores.iter().map(compile).collect()
    }

    fn redis(&mut self, path: &str, words: &RedisStore) -> Option<Arc<Redis>> {
        let timeout = words.timeout.map_or(TIMEOUT, |timeout| timeout.get());
        if timeout.is_zero() {
            self.error(join(path, "timeout"), "a timeout cannot be zero");
        }
        let text = words.ca.as_ref().filter(|_| self.inputs.certificates).map(|ca| authorities_text(ca));
        let ca = match text {
            Some(read) => Some(self.usable(join(path, "ca"), read)?),
            None => None,
        };
        if !self.inputs.certificates && !matches!(words.url, SecretSource::Word(_)) {
            // Nothing may be read that could be told.
            return None;
        }
        let url = secret(&words.url, self.inputs.environment);
        let url = url.map_err(|message| self.error(join(path, "url"), message)).ok()?;
        let server = Server::new(&url, ca.as_deref());
        let unusable = |Unusable { message, hint, of_ca }| {
            let part = if of_ca { "ca" } else { "url" };
            self.errors.push(ConfigError::new(join(path, part), message).with_hint(hint));
        };
        let server = server.map_err(unusable).ok()?;
        Some(self.inputs.state.adopt(server.key(timeout), || Redis::new(server, timeout)))
    }

    /// The store that a word at `path` names.
    pub(super) fn store(&mut self, path: &str, name: &str) -> Option<Arc<Redis>> {
        if let Some(store) = self.stores.get(name) {
            return store.clone();
        }
        let unread = &self.config.unread;
        if name == MEMORY {
            let message = "what is in `memory` is gone when the gateway ends, and no other machine sees it";
            self.errors.push(ConfigError::new(path, message).with_hint("name a store under `stores`"));
        } else if !unread.touches(&join("stores", name)) && !unread.touches("stores") && !unread.section() {
            let known = self.config.stores.keys().map(String::as_str);
            let error = unknown(path.to_owned(), "store", name, known);
            self.errors.push(error);
        }
        None
    }
}

/// The files that a store is made of, for a watcher.
pub fn store_files(store: &Store) -> impl Iterator<Item = &Path> {
    let Store::Redis(words) = store;
    words.ca.iter().map(std::path::PathBuf::as_path)
}
