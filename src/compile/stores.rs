//! `stores`, which machines share.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use super::listeners::secret;
use super::{Compiler, unknown};
use crate::config::{RedisStore, SecretSource, Store};
use crate::document::{ConfigError, join};
use crate::stores::{MEMORY, PREFIX, Place, Redis, Server, Stores, Unusable};
use crate::tls::authorities_text;

/// How long a store may take where nothing is said.
const TIMEOUT: Duration = Duration::from_secs(1);

impl Compiler<'_> {
    pub(super) fn stores(&mut self) -> Stores {
        let config = self.config;
        let unread = &config.unread;
        let mut stores = Stores::default();
        stores.incomplete = unread.touches("stores") || unread.section();
        for (name, Store::Redis(words)) in &config.stores {
            let path = join("stores", name);
            self.check_name(path.clone(), name);
            if name == MEMORY {
                let message = "`memory` is the gateway's own, which is always there";
                self.errors.push(ConfigError::new(&path, message).with_hint("call it something else"));
            }
            stores.add(name, self.redis(&join(&path, "redis"), words));
        }
        stores
    }

    fn redis(&mut self, path: &str, words: &RedisStore) -> Option<Arc<Redis>> {
        let timeout = words.timeout.map_or(TIMEOUT, |timeout| timeout.get());
        if timeout.is_zero() {
            self.error(join(path, "timeout"), "a timeout cannot be zero");
        }
        let prefix = words.prefix.as_deref().unwrap_or(PREFIX);
        if !is_prefix(prefix) {
            let message = "a prefix is made of up to 64 letters, digits, `-`, `_`, `.` and `:`";
            let error = ConfigError::new(join(path, "prefix"), message);
            self.errors.push(error.with_hint("write `prefix: portcullis-staging`"));
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
        let key = format!("{} {prefix}", server.key(timeout));
        Some(self.inputs.state.adopt(key, || Redis::new(server, timeout, prefix)))
    }

    /// The store that a word at `path` names.
    pub(super) fn store(&mut self, path: &str, name: &str) -> Option<Arc<Redis>> {
        match self.stores.place(name) {
            Some(Place::Redis(store)) => return Some(store),
            Some(Place::Memory) => {
                let message =
                    "what is in `memory` is gone when the gateway ends, and no other machine sees it";
                self.errors.push(ConfigError::new(path, message).with_hint("name a store under `stores`"));
            }
            Some(Place::Unknown) => {}
            None if self.config.unread.touches(&join("stores", name)) => {}
            None => {
                let known = self.config.stores.keys().map(String::as_str);
                self.errors.push(unknown(path.to_owned(), "store", name, known));
            }
        }
        None
    }
}

/// Braces would say which server of a cluster has a key.
fn is_prefix(text: &str) -> bool {
    let fits = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.:".contains(&byte);
    (1..=64).contains(&text.len()) && text.bytes().all(fits)
}

/// The files that a store is made of, for a watcher.
pub fn store_files(store: &Store) -> impl Iterator<Item = &Path> {
    let Store::Redis(words) = store;
    words.ca.iter().map(std::path::PathBuf::as_path)
}
