//! Scripts that a server runs: sent once by their text, and from then on by its hash.

use std::time::Duration;

use aws_lc_rs::digest::{SHA1_FOR_LEGACY_USE_ONLY, digest};
use redis::{FromRedisValue, ToRedisArgs};
use tokio::time::Instant;

use super::error::Error;
use super::redis::Redis;

/// A script that a server runs as one step.
#[derive(Debug)]
pub struct Script {
    text: &'static str,
    hash: String,
}

impl Script {
    /// A script in Lua.
    pub fn new(text: &'static str) -> Self {
        let hash = digest(&SHA1_FOR_LEGACY_USE_ONLY, text.as_bytes());
        let hash = hash.as_ref().iter().map(|byte| format!("{byte:02x}")).collect();
        Self { text, hash }
    }
}

impl Redis {
    /// Runs a script over keys that are in one slot, within the store's timeout, even where the server has to be sent its
    /// text first.
    ///
    /// # Errors
    ///
    /// Why there is no answer that can be used.
    pub async fn run<T: FromRedisValue>(
        &self,
        script: &Script,
        keys: &[impl ToRedisArgs],
        arguments: &[impl ToRedisArgs],
    ) -> Result<T, Error> {
        let patience = self.timeout();
        let by = Instant::now() + patience;
        let command = |name: &str, script: &str| {
            let mut command = redis::cmd(name);
            command.arg(script).arg(keys.len()).arg(keys).arg(arguments);
            command
        };
        match self.ask_within(&command("EVALSHA", &script.hash), patience).await {
            Err(Error::Unscripted { .. }) => {
                let left: Duration = by.saturating_duration_since(Instant::now());
                self.ask_within(&command("EVAL", script.text), left).await
            }
            answer => answer,
        }
    }
}
