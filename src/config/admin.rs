//! `admin:`, the operator's HTTP API.

use std::net::SocketAddr;
use std::path::PathBuf;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::types::Secret;

/// The operator's HTTP API: health, metrics, status, reload, explain.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Admin {
    /// The address and port. Anything but loopback needs a token.
    pub address: SocketAddr,
    /// What callers send as `Authorization: Bearer …`; `/healthz` and `/readyz` need none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub token: Option<SecretSource>,
}

/// Where a secret comes from: the word itself, an environment variable, or a file.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(untagged)]
pub enum SecretSource {
    /// The word itself. Better kept out of files.
    Word(Secret),
    /// `{ env: NAME }`: the environment variable NAME.
    Env {
        /// The variable's name.
        env: String,
    },
    /// `{ file: PATH }`: the file's content, without trailing line ends.
    File {
        /// The file's path.
        file: PathBuf,
    },
}
