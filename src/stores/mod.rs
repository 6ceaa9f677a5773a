//! Stores that several machines share.
//!
//! 1. A store is a handle that is made without connecting. The first command connects; a connection that is lost is
//!    made anew by the next command.
//! 2. Every command has a deadline, the time to connect included. Connecting itself goes on in a task of its own, so
//!    that a deadline which is too short to connect within does not keep it from ever coming about.
//! 3. While a server cannot be reached commands fail at once, but for one try now and then.
//!    In a cluster a server that has not answered three times in a row is left alone, and tried in the background.
//! 4. A handle is adopted by what it means (URL, timeout, authorities, prefix): a reload does not connect anew.
//! 5. No message has a part of the URL but host and port, nor anything that was sent.

mod cluster;
mod error;
mod line;
mod node;
mod redis;
mod script;
mod sentinel;
mod server;
mod trust;

use std::collections::BTreeMap;
use std::sync::Arc;

pub use error::Error;
pub use redis::Redis;
pub use script::Script;
pub use server::{Server, Unusable};
pub use trust::{Advice, Trust};

/// The store in the gateway's own memory.
pub const MEMORY: &str = "memory";

/// What the names of keys begin with where nothing else is said.
pub const PREFIX: &str = "portcullis";

/// The stores of a configuration, by name.
#[derive(Default)]
pub struct Stores {
    known: BTreeMap<String, Option<Arc<Redis>>>,
    /// Whether there may be others, that could not be read.
    pub incomplete: bool,
}

/// Where something is kept.
#[derive(Debug, Clone)]
pub enum Place {
    /// In the gateway's own memory.
    Memory,
    /// At a server that machines share.
    Redis(Arc<Redis>),
    /// Somewhere: what is wrong with it is told elsewhere.
    Unknown,
}

impl Stores {
    /// The store of this name; `None` when there is none.
    pub fn place(&self, name: &str) -> Option<Place> {
        match self.known.get(name) {
            Some(Some(redis)) => Some(Place::Redis(Arc::clone(redis))),
            Some(None) => Some(Place::Unknown),
            None if name == MEMORY => Some(Place::Memory),
            None => self.incomplete.then_some(Place::Unknown),
        }
    }

    /// Their names, the gateway's own memory among them.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        std::iter::once(MEMORY).chain(self.known.keys().map(String::as_str))
    }

    /// Adds one; `None` where something is wrong with it.
    pub fn add(&mut self, name: impl Into<String>, store: Option<Arc<Redis>>) {
        self.known.insert(name.into(), store);
    }
}
