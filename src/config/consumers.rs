//! `consumers:`, who clients are.

use std::path::PathBuf;

use schemars::JsonSchema;
use serde::{Deserialize, Deserializer, Serialize};

use super::SecretSource;
use super::forms::word_or_map;
use crate::types::{Moment, Secret};

/// A client that has a name here, and what proves that a request is its own.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Consumer {
    /// Its name: in logs, metrics, limits, and for upstreams in `X-Consumer-Name`.
    pub name: String,
    /// The groups it is in, for upstreams in `X-Consumer-Groups`.
    #[serde(default)]
    pub groups: Vec<String>,
    /// Its keys for the filter `api_key`. Several, so that a new one can be given out before the old one goes.
    #[serde(default)]
    pub api_keys: Vec<ApiKey>,
    /// Its names and passwords for the filter `basic`.
    #[serde(default)]
    pub basic: Vec<BasicLogin>,
}

/// A key: the word itself, or more that is said of it.
#[derive(Debug, Clone, PartialEq, Serialize, JsonSchema)]
#[serde(untagged)]
pub enum ApiKey {
    /// The key itself. Better kept out of files.
    Word(Secret),
    /// Where it is kept or what its hash is, and until when it holds.
    Words(Box<ApiKeyWords>),
}

/// A key with what is said of it: one of `sha256`, `key`, `env` and `file`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ApiKeyWords {
    /// The key's SHA-256 in 64 hexadecimal digits, as `printf %s KEY | sha256sum` prints it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sha256: Option<Secret>,
    /// The key itself. Better kept out of files.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key: Option<Secret>,
    /// The environment variable that holds the key.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub env: Option<String>,
    /// The file that holds the key; line ends behind it do not count. The file is watched.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub file: Option<PathBuf>,
    /// From when on it is refused.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires: Option<Moment>,
    /// What it is called in `GET /consumers`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
}

impl<'de> Deserialize<'de> for ApiKey {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let words = |words: ApiKeyWords| {
            let ApiKeyWords { sha256, key, env, file, .. } = &words;
            let sources = [sha256.is_some(), key.is_some(), env.is_some(), file.is_some()];
            match sources.into_iter().filter(|there| *there).count() {
                1 => Ok(Self::Words(Box::new(words))),
                _ => Err("a key has one of `sha256`, `key`, `env` and `file`".into()),
            }
        };
        let expected = "a key, or a map with one of `sha256`, `key`, `env` and `file`";
        word_or_map(deserializer, expected, |word| Ok(Self::Word(Secret::new(word))), words)
    }
}

/// A name and its password: one of `password_hash` and `password`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct BasicLogin {
    /// The name that the client comes with.
    pub username: String,
    /// The password's hash: Argon2id (`$argon2id$…`) or bcrypt (`$2b$…`). No password of more than 72 bytes matches one of
    /// bcrypt, which does not look further.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub password_hash: Option<SecretSource>,
    /// The password itself, for machines: it is kept as a quick hash.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub password: Option<SecretSource>,
    /// From when on it is refused.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires: Option<Moment>,
}
