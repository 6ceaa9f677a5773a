//! `admin:`, the operator's HTTP API.

use std::net::SocketAddr;
use std::path::PathBuf;

use schemars::JsonSchema;
use serde::{Deserialize, Deserializer, Serialize};

use super::forms::{ADDRESS, address, word_or_map};
use crate::types::Secret;

/// The operator's HTTP API: health, metrics, status, reload, explain.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Admin {
    /// The address and port. Anything but loopback needs a token.
    #[serde(deserialize_with = "address")]
    #[schemars(regex(pattern = ADDRESS))]
    pub address: SocketAddr,
    /// What callers send as `Authorization: Bearer …`; `/healthz` and `/readyz` need none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub token: Option<SecretSource>,
}

/// Where a secret comes from: the word itself, an environment variable, or a file.
#[derive(Debug, Clone, PartialEq, Serialize, JsonSchema)]
#[serde(untagged)]
pub enum SecretSource {
    /// The word itself. Better kept out of files.
    Word(Secret),
    /// `{ env: NAME }`: the environment variable NAME.
    #[schemars(extend("additionalProperties" = false))]
    Env {
        /// The variable's name.
        env: String,
    },
    /// `{ file: PATH }`: the file's content, without trailing line ends.
    #[schemars(extend("additionalProperties" = false))]
    File {
        /// The file's path.
        file: PathBuf,
    },
}

/// The forms of a secret that are maps.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Kept {
    env: Option<String>,
    file: Option<PathBuf>,
}

impl<'de> Deserialize<'de> for SecretSource {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let kept = |kept: Kept| match (kept.env, kept.file) {
            (Some(env), None) => Ok(Self::Env { env }),
            (None, Some(file)) => Ok(Self::File { file }),
            _ => Err("a secret is `{ env: NAME }` or `{ file: PATH }`".into()),
        };
        let expected = "a secret, `{ env: NAME }` or `{ file: PATH }`";
        word_or_map(deserializer, expected, |word| Ok(Self::Word(Secret::new(word))), kept)
    }
}
