//! `listeners:`, where clients connect.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{FilterUse, RedirectToHttps, Tls};
use crate::types::{ByteRate, ByteSize, Duration, ListenAddress};

/// A place where clients connect.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Listener {
    /// Its name: the metric label, and what a route's `listeners` names.
    pub name: String,
    /// The address and port, `0.0.0.0:8080` or `[::]:8443`; port 0 takes any free port. Or a Unix socket,
    /// `unix:/run/portcullis/web.sock`: its file is made for everyone, so that the folder says who may connect.
    pub address: ListenAddress,
    /// The protocols spoken. On a plaintext listener an HTTP/2 client begins with its preface (prior knowledge).
    #[serde(default = "protocols")]
    pub protocols: Vec<Protocol>,
    /// Whether proxies in front say who the client is before its first byte (PROXY protocol, versions 1 and 2). Only
    /// `server.trusted_proxies` are listened to: with `required` nobody else may connect.
    #[serde(default)]
    pub proxy_protocol: ProxyProtocol,
    /// TLS with the clients. Plaintext unless named.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tls: Option<Tls>,
    /// Answers every request with a redirect to the same place by https. Where a trusted proxy says that the client
    /// came by https already, the request goes its way.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub redirect_to_https: Option<RedirectToHttps>,
    /// Filters before every route's, on this listener.
    #[serde(default)]
    pub filters: Vec<FilterUse>,
    /// Bounds on what one client may take.
    #[serde(default)]
    pub limits: ListenerLimits,
}

impl Listener {
    /// A listener with nothing said of it but where it is.
    pub fn new(name: String, address: ListenAddress) -> Self {
        let limits = ListenerLimits::default();
        Self {
            name,
            address,
            protocols: protocols(),
            proxy_protocol: ProxyProtocol::default(),
            tls: None,
            redirect_to_https: None,
            filters: Vec::new(),
            limits,
        }
    }
}

/// A version of HTTP that a listener speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Protocol {
    /// HTTP/1.1, and HTTP/1.0.
    Http1,
    /// HTTP/2.
    Http2,
}

/// Whether a PROXY protocol header comes first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum ProxyProtocol {
    /// None is looked for.
    #[default]
    Off,
    /// A trusted proxy may send one.
    Optional,
    /// Every connection begins with one, sent by a trusted proxy; others are closed.
    Required,
}

fn protocols() -> Vec<Protocol> {
    vec![Protocol::Http1, Protocol::Http2]
}

/// Bounds on one HTTP/2 connection.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Http2Limits {
    /// Requests at once on one connection.
    pub max_streams: u32,
    /// The size of a request's header list as HTTP/2 counts it (each field's bytes and 32 more); 431 above. At most
    /// 1MiB. `header_bytes` holds as well.
    pub max_header_list: ByteSize,
}

impl Default for Http2Limits {
    fn default() -> Self {
        Self { max_streams: 100, max_header_list: ByteSize::kib(64) }
    }
}

/// Bounds on connections and request heads.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct ListenerLimits {
    /// Connections open at once, in all; further ones are closed unread.
    pub connections: usize,
    /// Connections open at once from one address (an IPv6 /64 counts as one); further ones are closed unread. Not
    /// counted for `server.trusted_proxies`.
    pub connections_per_ip: usize,
    /// The size of a whole request head; 431 above. At most 512KiB.
    pub header_bytes: ByteSize,
    /// The number of header fields; 431 above. At most 255.
    pub headers: usize,
    /// The length of the request target; 414 above. Never more than `header_bytes`.
    pub uri_bytes: ByteSize,
    /// The time for a whole request head, from its first byte; 408 after. And for a whole TLS handshake.
    pub header_timeout: Duration,
    /// How fast a request body has to come; 408 below. The first 10 seconds of waiting are free, and so is the time in
    /// which the gateway itself does not read; gRPC calls are exempt. `0B/s` for none.
    pub body_min_rate: ByteRate,
    /// How long a connection may stay open without a request.
    pub idle_timeout: Duration,
    /// How long a connection may stay open in all: it is closed after the request under way. No end by default.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub connection_lifetime: Option<Duration>,
    /// Requests served on one connection before it is closed.
    pub requests_per_connection: u32,
    /// Bounds on HTTP/2 connections.
    pub http2: Http2Limits,
}

impl Default for ListenerLimits {
    fn default() -> Self {
        Self {
            connections: 50_000,
            connections_per_ip: 1_000,
            header_bytes: ByteSize::kib(64),
            headers: 100,
            uri_bytes: ByteSize::kib(16),
            header_timeout: Duration::from_secs(10),
            body_min_rate: ByteRate::per_second(256),
            idle_timeout: Duration::from_secs(75),
            connection_lifetime: None,
            requests_per_connection: 10_000,
            http2: Http2Limits::default(),
        }
    }
}
