//! `maintenance`: closed for a while.
//!
//! 1. Everyone but who is on `allow` is answered 503 with `Retry-After`; calls of gRPC end as UNAVAILABLE.
//! 2. `until` is what clients are told, not a switch: work that takes longer must not let them in. It ends with `enabled`.
//! 3. Health checks of machines in front ask a path: let them by giving that path a route of its own.

use std::path::{Path, PathBuf};
use std::time::SystemTime;
use std::{fs, io};

use bytes::Bytes;
use http::HeaderValue;
use http::header::RETRY_AFTER;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::chain::{Filter, Flow, Phases, Stage};
use crate::document::{ConfigError, Errors};
use crate::exchange::{Exchange, Reason, Reply, Result};
use crate::registry::{FilterKind, Scope};
use crate::types::{Cidr, Duration, Moment};

/// Answers 503 while something is being worked on.
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// Whether it is so. Another file or the environment may turn it on and off.
    enabled: bool,
    /// When clients are told to come back.
    retry_after: Duration,
    /// When the work will be done: until then this is what clients are told, after it `retry_after` again. Nothing opens by
    /// itself.
    #[serde(skip_serializing_if = "Option::is_none")]
    until: Option<Moment>,
    /// What is going on, in a few words.
    #[serde(skip_serializing_if = "Option::is_none")]
    title: Option<String>,
    /// The same in a sentence.
    #[serde(skip_serializing_if = "Option::is_none")]
    detail: Option<String>,
    /// A file with the page (HTML, at most 1 MiB) that browsers show, in place of the gateway's own. It is watched.
    #[serde(skip_serializing_if = "Option::is_none")]
    page: Option<PathBuf>,
    /// Who gets in all the same.
    allow: Vec<Cidr>,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            enabled: true,
            retry_after: Duration::from_secs(60),
            until: None,
            title: None,
            detail: None,
            page: None,
            allow: Vec::new(),
        }
    }
}

/// Answers 503 while something is being worked on.
pub struct Maintenance {
    enabled: bool,
    retry_after: u64,
    until: Option<SystemTime>,
    allow: Vec<Cidr>,
    reply: Reply,
}

/// The largest page.
const PAGE: u64 = 1 << 20;

impl FilterKind for Maintenance {
    const NAME: &'static str = "maintenance";
    const STAGE: Stage = Stage::Admit;
    const EXAMPLE: &'static str =
        "{ until: 2026-12-01T04:00:00Z, detail: \"We are moving to larger rooms.\", allow: [10.0.0.0/8] }";
    type Config = Config;

    fn compile(config: Config, scope: &Scope<'_>) -> std::result::Result<Self, Errors> {
        let mut errors = Errors::default();
        let mut reply = Reply::refuse(Reason::MAINTENANCE);
        for (name, text) in [("title", &config.title), ("detail", &config.detail)] {
            if text.as_ref().is_some_and(|text| text.trim().is_empty()) {
                errors.push(ConfigError::new(name, "this says nothing: leave it out"));
            }
        }
        if let Some(title) = config.title {
            reply = reply.title(title);
        }
        if let Some(detail) = config.detail {
            reply = reply.detail(detail);
        }
        if let Some(file) = config.page.filter(|_| scope.files) {
            match page(&file) {
                Ok(html) => reply = reply.page(html),
                Err(error) => {
                    let message = format!("cannot read `{}`: {error}", file.display());
                    errors.push(ConfigError::new("page", message));
                }
            }
        }
        errors.or(Self {
            enabled: config.enabled,
            retry_after: config.retry_after.get().as_secs().max(1),
            until: config.until.as_ref().map(Moment::time),
            allow: config.allow,
            reply,
        })
    }

    fn files(config: &Config) -> Vec<PathBuf> {
        config.page.iter().cloned().collect()
    }
}

fn page(file: &Path) -> io::Result<Bytes> {
    let data = fs::metadata(file)?;
    if !data.is_file() || data.len() > PAGE {
        return Err(io::Error::other("it is not a file of at most 1 MiB"));
    }
    fs::read(file).map(Bytes::from)
}

impl Filter for Maintenance {
    type State = ();

    fn phases(&self) -> Phases {
        if self.enabled { Phases::REQUEST } else { Phases::NONE }
    }

    fn request(&self, (): &mut (), exchange: &mut Exchange<'_>) -> Result<Flow> {
        if !self.enabled {
            return Ok(Flow::Continue);
        }
        let gets_in = |ip| self.allow.iter().any(|range| range.contains(ip));
        if exchange.client_ip().is_some_and(gets_in) {
            return Ok(Flow::Continue);
        }
        let left = self.until.and_then(|until| until.duration_since(SystemTime::now()).ok());
        // Whoever comes back in time finds it open.
        let wait = left.map_or(self.retry_after, |left| left.as_secs() + 1);
        Ok(self.reply.clone().header(RETRY_AFTER, HeaderValue::from(wait)).into())
    }
}
