//! `stores:`, what several machines share.

use std::path::PathBuf;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize, Serializer};

use super::SecretSource;
use crate::types::Duration;

/// A store that several machines share.
#[derive(Debug, Clone, PartialEq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Store {
    /// A Redis server.
    Redis(RedisStore),
}

impl Serialize for Store {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let Self::Redis(words) = self;
        serializer.collect_map([("redis", words)])
    }
}

/// A Redis server, or one that speaks like it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct RedisStore {
    /// Where it is: `redis://HOST:PORT`, with TLS `rediss://USER:PASSWORD@HOST:PORT/DATABASE`, or as sentinels say
    /// `redis+sentinel://HOST:PORT,HOST:PORT/NAME`, or a cluster `redis+cluster://HOST:PORT,HOST:PORT`; with TLS these begin
    /// with `rediss+`. Never shown.
    pub url: SecretSource,
    /// How long a client may have to wait for it. 1s unless named. What the gateway does in the background takes at
    /// least 1s.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timeout: Option<Duration>,
    /// The PEM file of the authorities that may have issued its certificate, where it is not one that the system
    /// trusts. The file is watched.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ca: Option<PathBuf>,
    /// What the names of all keys there begin with, before a colon. `portcullis` unless named: another one keeps apart what
    /// must not share counts and certificates on one server, such as two environments.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub prefix: Option<String>,
}
