//! `server:`, the process.

use std::path::PathBuf;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Serialize};

use crate::types::{ByteSize, Duration, MemoryMark, TrustedProxy};

/// The process: threads, shutdown, who is trusted.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Server {
    /// Worker threads: `auto` for the cores available (cgroup limits included), or a number. Read at start.
    pub threads: Threads,
    /// Whether idle workers take work from busy ones. Read at start.
    pub work_stealing: bool,
    /// The most that requests in flight get at shutdown or upgrade; it ends when they do.
    pub grace_period: Duration,
    /// How long to report unready before listeners close, for load balancers in front to notice.
    pub drain_delay: Duration,
    /// Idle upstream connections kept, in all; as many again for requests that are hedged. Read at start.
    pub upstream_keepalive: usize,
    /// The socket over which `portcullis upgrade` asks the running gateway to hand over to a new process. Made for its
    /// owner alone. Read at start.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub upgrade_socket: Option<PathBuf>,
    /// How long the new process may take to be ready at an upgrade. One that takes longer is ended, and the old one
    /// goes on.
    pub upgrade_timeout: Duration,
    /// Whose `X-Forwarded-*`, `Forwarded` and PROXY protocol are believed: addresses, ranges, and `unix` for whoever
    /// connects over a Unix socket. Nobody's by default.
    pub trusted_proxies: Vec<TrustedProxy>,
    /// The zone that this gateway is in, as `zone` of endpoints names it: endpoints in the same zone are preferred.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub zone: Option<String>,
    /// How much of request bodies is kept to send them again, in all. What does not fit is not kept, and its request not sent
    /// again once it was begun.
    pub retry_memory: ByteSize,
    /// Where new requests begin to be refused (503 `overloaded`), while the admin listener still answers. Off unless
    /// named.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub shed: Option<Shed>,
}

impl Default for Server {
    fn default() -> Self {
        Self {
            threads: Threads::Auto,
            work_stealing: true,
            grace_period: Duration::from_secs(30),
            drain_delay: Duration::default(),
            upstream_keepalive: 4096,
            upgrade_socket: None,
            upgrade_timeout: Duration::from_secs(60),
            trusted_proxies: Vec::new(),
            zone: None,
            retry_memory: ByteSize::kib(64 << 10),
            shed: None,
        }
    }
}

/// Marks above which new requests are refused.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Shed {
    /// Resident memory: a share of what the process may use (the limit of its control group, else the machine's memory),
    /// or a size.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub memory: Option<MemoryMark>,
    /// Client connections open on all listeners.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub connections: Option<usize>,
}

/// A number of worker threads.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum Threads {
    /// As many as there are cores available to this process.
    Auto,
    /// Exactly so many, 1 to 1024.
    Count(usize),
}

impl TryFrom<String> for Threads {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        match (text.as_str(), text.parse()) {
            ("auto", _) => Ok(Self::Auto),
            (_, Ok(count @ 1..=1024)) => Ok(Self::Count(count)),
            _ => Err(format!("`{text}` is not a number of threads: write `auto` or 1 to 1024")),
        }
    }
}

impl From<Threads> for String {
    fn from(threads: Threads) -> Self {
        match threads {
            Threads::Auto => "auto".into(),
            Threads::Count(count) => count.to_string(),
        }
    }
}

impl JsonSchema for Threads {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Threads".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "description": "`auto`, or a number from 1 to 1024.",
            "anyOf": [{ "const": "auto" }, { "type": "integer", "minimum": 1, "maximum": 1024 }],
        })
    }
}
