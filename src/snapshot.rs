//! Everything a request needs, compiled and immutable, behind one swap.

mod mirror;
mod variants;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use arc_swap::ArcSwap;
use http::{Method, StatusCode};

use crate::acme::{Managed, Proofs};
use crate::chain::Chain;
use crate::consumer::Consumers;
use crate::exchange::{Reply, Template, preflight};
use crate::guard::HeadLimits;
use crate::handler::SharedHandler;
use crate::route::{Found, Lookup, Router};
use crate::telemetry::{AccessLog, RouteMetrics};
use crate::tls::{Certificate, Issued, ServerPolicy};
use crate::types::{MemoryMark, Trust};
use crate::upstream::{HedgeAfter, Priority, RetryPolicy, Upstream};
use crate::webhooks::Webhook;

pub use mirror::{Copies, Mirror};
pub use variants::{Lifecycle, Split, SplitRule, Variant, Versions, Wanted};

/// One compiled configuration.
pub struct Snapshot {
    /// How often the configuration has changed since the start, from 1.
    pub generation: u64,
    /// A fingerprint of the configuration's words, secrets masked.
    pub hash: String,
    /// The configuration as in force, secrets masked, as JSON.
    pub config: Box<str>,
    /// Which request goes where.
    pub router: Router<Arc<Route>>,
    /// Every route, in file order.
    pub routes: Box<[Arc<Route>]>,
    /// What answers requests that match no route.
    pub unmatched: Arc<Route>,
    /// Who clients can prove to be.
    pub consumers: Arc<Consumers>,
    /// All upstreams by name.
    pub upstreams: BTreeMap<Arc<str>, Arc<Upstream>>,
    /// The listeners, in file order.
    pub listeners: Box<[Arc<ListenerPolicy>]>,
    /// The certificates that are ordered, each once.
    pub acme: Box<[Managed]>,
    /// What proves our hosts to those who issue them, where any are ordered.
    pub proofs: Option<Arc<Proofs>>,
    /// Whose word on the client is believed.
    pub trusted_proxies: Trust,
    /// How much of request bodies is kept for retries, in bytes.
    pub retry_memory: u64,
    /// Where new requests begin to be refused.
    pub shed: Watermarks,
    /// Who is told what happens.
    pub webhooks: Arc<[Webhook]>,
    /// The access log.
    pub access_log: Arc<AccessLog>,
    /// How long requests in flight may go on at shutdown.
    pub grace_period: Duration,
    /// How long to be unready before listeners close.
    pub drain_delay: Duration,
    /// How long a new process may take to be ready.
    pub upgrade_timeout: Duration,
}

/// Where new requests begin to be refused.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Watermarks {
    /// Of resident memory.
    pub memory: Option<MemoryMark>,
    /// Of connections on all listeners.
    pub connections: Option<usize>,
}

/// What holds for the connections of one listener.
pub struct ListenerPolicy {
    /// Its name.
    pub name: Arc<str>,
    /// Whether HTTP/1.1 is spoken.
    pub http1: bool,
    /// Whether proxies in front say who the client is before its first byte.
    pub proxy_protocol: ProxyProtocol,
    /// Bounds on HTTP/2, where it is spoken.
    pub http2: Option<Http2Limits>,
    /// Bounds on a request head.
    pub head: HeadLimits,
    /// For a whole request head from its first byte.
    pub header_timeout: Duration,
    /// How fast a request body has to come, in bytes a second; 0 when it may take its time.
    pub body_min_rate: u64,
    /// For the next request.
    pub idle_timeout: Duration,
    /// For a connection; it ends with the request under way then.
    pub connection_lifetime: Option<Duration>,
    /// Connections at once.
    pub connections: usize,
    /// Connections at once from one address.
    pub connections_per_ip: usize,
    /// Requests before a connection is closed.
    pub requests_per_connection: u32,
    /// Which of a route's chains holds here.
    pub chain: usize,
    /// What is spoken with the clients, when it is TLS.
    pub tls: Option<Arc<ServerPolicy>>,
    /// Where all requests are sent, when they are.
    pub redirect_to_https: Option<RedirectToHttps>,
}

/// The same place by https.
#[derive(Debug, Clone, Copy)]
pub struct RedirectToHttps {
    /// The port there.
    pub port: u16,
    /// A status from 301 to 308.
    pub status: StatusCode,
}

/// Whether proxies in front say who the client is before its first byte.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ProxyProtocol {
    /// They do not.
    Off,
    /// They may.
    Optional,
    /// They must, and nobody else may connect.
    Required,
}

/// Bounds on one HTTP/2 connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Http2Limits {
    /// Requests at once.
    pub max_streams: u32,
    /// Bytes of a header list, as RFC 9113, section 6.5.2 counts them.
    pub max_header_list: u32,
}

/// One compiled route. An exchange holds on to it from its match to its log line.
pub struct Route {
    /// Its name.
    pub name: Arc<str>,
    /// What it matches, in short, for people.
    pub matches: Box<str>,
    /// One chain for each group of listeners that have the same filters.
    pub chains: Arc<[Arc<Chain>]>,
    /// Where its requests go.
    pub target: Target,
    /// Which of several it is, where there are several.
    pub variant: Option<Box<Variant>>,
    /// What answers say of its version, where it is one of an API's.
    pub lifecycle: Option<Box<Lifecycle>>,
    /// Where copies of its requests go, if any do.
    pub mirror: Option<Arc<Mirror>>,
    /// What its exchanges may take.
    pub bounds: Arc<Bounds>,
    /// Its metrics; what they keep is made at its first request.
    pub metrics: Arc<RouteMetrics>,
}

/// Where a route's requests go.
pub enum Target {
    /// To an upstream.
    Upstream(Arc<Upstream>),
    /// To one of several upstreams.
    Split(Box<Split>),
    /// To one of the versions of an API.
    Versions(Box<Versions>),
    /// Nowhere: this is the answer.
    Respond(Box<Reply>),
    /// Elsewhere.
    Redirect(Redirect),
    /// To a handler written in Rust.
    Handler(SharedHandler),
    /// No route matched.
    Nothing,
}

/// Another place to go.
pub struct Redirect {
    /// The place, made of literals and captures.
    pub to: Template,
    /// A status from 301 to 308.
    pub status: StatusCode,
}

/// What an exchange may take. Routes for which the same holds share it: the fewer places in memory a request visits,
/// the better.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Bounds {
    /// How long it may take.
    pub deadlines: Deadlines,
    /// How long to wait for its upstream.
    pub upstream: UpstreamTimeouts,
    /// Which attempts are made again.
    pub retry: RetryPolicy,
    /// When its requests are sent to a second endpoint too, if they are.
    pub hedge: Option<HedgeAfter>,
    /// How important it is to those who wait for an endpoint.
    pub priority: Priority,
    /// Whether endpoints are told until when they are waited for.
    pub announce: bool,
    /// The longest request body in bytes.
    pub request_body: u64,
    /// Bounds on a request head, beside the listener's; none on most routes.
    pub head: Option<HeadBounds>,
}

/// What a route takes of request heads.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct HeadBounds {
    /// Bytes of all header fields, four added for each.
    pub header_bytes: u64,
    /// Header fields.
    pub headers: u32,
    /// Bytes of path and query.
    pub uri_bytes: u64,
    /// Parameters of the query.
    pub query_parameters: u32,
}

/// How long an exchange may take.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Deadlines {
    /// From the complete request to the response head.
    pub request: Duration,
    /// From the beginning of one attempt to its response head.
    pub per_try: Option<Duration>,
    /// Between bytes of a body.
    pub stream_idle: Duration,
    /// The whole exchange.
    pub total: Option<Duration>,
    /// What a WebSocket may take, in place of the others.
    pub websocket: WebSocketLimits,
}

/// How long a WebSocket may last.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct WebSocketLimits {
    /// Without a byte in either direction.
    pub idle: Duration,
    /// In all.
    pub lifetime: Duration,
}

/// How long to wait for an upstream.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct UpstreamTimeouts {
    /// To be connected.
    pub connect: Duration,
    /// For the next bytes.
    pub read: Duration,
    /// For the next bytes to be taken.
    pub write: Duration,
    /// How long an idle connection is kept.
    pub idle: Duration,
    /// How old a connection is at most as a request begins on it.
    pub lifetime: Option<Duration>,
}

impl Snapshot {
    /// The policy of the listener with this index.
    pub fn listener(&self, index: usize) -> Arc<ListenerPolicy> {
        Arc::clone(&self.listeners[index.min(self.listeners.len() - 1)])
    }

    /// The route of a request. A preflight goes to that of the method it asks about, if this answers preflights; else
    /// it is an OPTIONS as any other.
    pub fn find(&self, request: &Lookup<'_>) -> Found<'_, Arc<Route>> {
        self.find_asked(request).unwrap_or_else(|| self.router.find(request))
    }

    /// The route of a request that asks for nothing but itself, preflight or not.
    pub fn find_itself(&self, request: &Lookup<'_>) -> Found<'_, Arc<Route>> {
        self.router.find(request)
    }

    fn find_asked(&self, request: &Lookup<'_>) -> Option<Found<'_, Arc<Route>>> {
        let asked = preflight(request.method, request.headers)?;
        let method = Method::from_bytes(asked.as_bytes()).ok()?;
        let found = self.router.find(&Lookup { method: &method, ..*request });
        let listener = self.listeners.get(request.listener)?;
        match &found {
            Found::Route { target, .. } if target.chain(listener.chain).takes_preflights() => Some(found),
            _ => None,
        }
    }

    /// Every certificate, with the listener that has it.
    pub fn certificates(&self) -> impl Iterator<Item = (&ListenerPolicy, Arc<Certificate>)> {
        self.listeners.iter().flat_map(|listener| {
            let all = listener.tls.iter().flat_map(|tls| tls.certificates().iter());
            all.map(move |certificate| (&**listener, certificate))
        })
    }

    /// The order behind a certificate that is issued while the gateway runs.
    pub fn managed(&self, issued: &Arc<Issued>) -> Option<&Managed> {
        self.acme.iter().find(|managed| Arc::ptr_eq(managed.progress.issued(), issued))
    }

    /// The access log.
    pub fn access_log(&self) -> Arc<AccessLog> {
        Arc::clone(&self.access_log)
    }
}

impl Route {
    /// Whether it is the variant of this name.
    pub fn is_variant(&self, name: &str) -> bool {
        self.variant.as_ref().is_some_and(|variant| *variant.name == *name)
    }

    /// The chain for requests from a listener whose policy names it.
    pub fn chain(&self, of_listener: usize) -> &Chain {
        &self.chains[of_listener.min(self.chains.len() - 1)]
    }
}

/// The configuration in force.
pub struct Live {
    snapshot: ArcSwap<Snapshot>,
    /// How many snapshots have been in force: cheaper to ask than the snapshot itself.
    swaps: AtomicU64,
}

impl Live {
    /// Starts with a first snapshot.
    pub fn new(first: Arc<Snapshot>) -> Self {
        Self { snapshot: ArcSwap::new(first), swaps: AtomicU64::new(0) }
    }

    /// The snapshot in force. Hold it for one request, not longer.
    pub fn load(&self) -> arc_swap::Guard<Arc<Snapshot>> {
        self.snapshot.load()
    }

    /// The snapshot in force, to keep.
    pub fn load_full(&self) -> Arc<Snapshot> {
        self.snapshot.load_full()
    }

    /// Puts a new snapshot in force and returns the old one.
    pub fn swap(&self, next: Arc<Snapshot>) -> Arc<Snapshot> {
        let before = self.snapshot.swap(next);
        self.swaps.fetch_add(1, Ordering::Release);
        before
    }

    /// Changes with every snapshot that is put in force, a moment after it. What was taken from a snapshot holds until then.
    pub fn swaps(&self) -> u64 {
        self.swaps.load(Ordering::Acquire)
    }
}
