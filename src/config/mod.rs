//! The words users write: one serde struct a section, no behaviour.
//!
//! Doc comments here become the JSON Schema and the reference, so they speak to the person who writes the file.

mod acme;
mod admin;
mod api;
mod balance;
mod consumers;
mod discover;
mod filters;
mod forms;
mod health;
mod hedge;
mod limits;
mod listener;
mod mirror;
mod read;
mod resilience;
mod retry;
mod route;
mod server;
mod split;
mod stores;
mod telemetry;
mod tls;
mod unread;
mod upstream;

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

pub use acme::{Acme, AcmeChallenge, AcmeStore, ExternalAccount};
pub use admin::{Admin, SecretSource};
pub use api::{Api, ApiVersion, VersionFrom};
pub use balance::{Balance, ConsistentHash, CustomBalance, Ring, Selectors, Sticky};
pub use consumers::{ApiKey, ApiKeyWords, BasicLogin, Consumer};
pub use discover::{Discover, DnsNames, NameServer};
pub use filters::FilterUse;
pub use health::{ActiveHealth, BodyMatch, BodyRegex, GrpcCheck, HttpCheck, StatusRange, TcpCheck};
pub use hedge::{Hedge, HedgeAfter};
pub use limits::{AdaptiveConcurrency, Limits, Priority};
pub use listener::{Http2Limits, Listener, ListenerLimits, Protocol, ProxyProtocol};
pub use mirror::Mirror;
pub use resilience::{
    Breaker, BreakerScope, Health, PanicThreshold, PassiveHealth, RetryBudget, WhenNoneHealthy,
};
pub use retry::{Backoff, ExponentialBackoff, Retry, RetryOn};
pub use route::{
    Defaults, Matcher, Path, Redirect, Respond, Route, RouteLimits, Timeouts, WebSocketTimeouts,
};
pub use server::{Server, Shed, Threads};
pub use split::{Split, SplitRule, SplitTo};
pub use stores::{RedisStore, Store};
pub use telemetry::{AccessLog, EventSink, Metrics, ProcessLog, Sample, Telemetry, Webhook};
pub use tls::{
    CertificateFiles, CertificateSource, Ciphers, ClientAuth, ClientAuthMode, HostTls, Hsts, RedirectToHttps,
    Tls, TlsVersion,
};
pub use unread::Unread;
pub use upstream::{Endpoint, Upstream, UpstreamProtocol, UpstreamTimeouts, UpstreamTls};

/// A whole Portcullis configuration.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// The version of these words. Always 1.
    #[serde(default)]
    pub version: Version,
    /// The process: threads, shutdown, who is trusted.
    #[serde(default)]
    pub server: Server,
    /// Where clients connect.
    #[serde(default)]
    pub listeners: Vec<Listener>,
    /// Authorities that issue certificates by themselves, by name.
    #[serde(default)]
    pub acme: BTreeMap<String, Acme>,
    /// Stores that several machines share, by name.
    #[serde(default)]
    pub stores: BTreeMap<String, Store>,
    /// The operator's HTTP API. Off unless named.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub admin: Option<Admin>,
    /// Logs and metrics.
    #[serde(default)]
    pub telemetry: Telemetry,
    /// Who clients are, and what proves it.
    #[serde(default)]
    pub consumers: Vec<Consumer>,
    /// Where requests are sent, by name.
    #[serde(default)]
    pub upstreams: BTreeMap<String, Upstream>,
    /// What holds for every route that does not say otherwise.
    #[serde(default)]
    pub defaults: Defaults,
    /// Filters before those of every listener and route; they run on requests that match no route, too.
    #[serde(default)]
    pub filters: Vec<FilterUse>,
    /// Named lists of filters, placed with `- use: NAME`.
    #[serde(default)]
    pub chains: BTreeMap<String, Vec<FilterUse>>,
    /// Which request goes where. The most specific match wins, then file order.
    #[serde(default)]
    pub routes: Vec<Route>,
    /// APIs with versions: a route for each.
    #[serde(default)]
    pub apis: Vec<Api>,
    /// What could not be read and is left out above.
    #[serde(skip)]
    pub unread: Unread,
}

/// The version of the configuration's words.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(try_from = "u64", into = "u64")]
pub struct Version;

impl TryFrom<u64> for Version {
    type Error = String;

    fn try_from(version: u64) -> Result<Self, String> {
        match version {
            1 => Ok(Self),
            other => Err(format!("version {other} is not known: this release reads version 1")),
        }
    }
}

impl From<Version> for u64 {
    fn from(_: Version) -> Self {
        1
    }
}

impl JsonSchema for Version {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Version".into()
    }

    fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
        schemars::json_schema!({ "const": 1 })
    }
}
