//! What a filter sees of one request and its response: no Pingora session, no configuration.

mod body;
mod edit;
mod fault;
mod forwarded;
pub mod grpc;
pub mod grpc_web;
mod hide;
mod preflight;
mod reason;
mod reply;
mod request_id;
mod reserved;
mod select;
mod template;
mod vary;

use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Instant, SystemTime};

use bytes::Bytes;
use http::{HeaderName, HeaderValue, Method};

pub use body::{DIGESTS, reframe};
pub use edit::edit;
pub use fault::{Fault, Result};
pub use forwarded::Client;
pub use hide::hide_field;
pub use preflight::preflight;
pub use reason::Reason;
pub use reply::Reply;
pub use request_id::RequestId;
pub use reserved::is_reserved;
pub use select::{Selected, cookie_names, cookies};
pub use template::Template;
pub use vary::vary;

/// The head of a request; its path is the canonical one.
pub use pingora::http::RequestHeader;
/// The head of a response.
pub use pingora::http::ResponseHeader;

use crate::consumer::{Consumer, Identity};
use crate::route::Captures;
pub use crate::route::{query_values, replace_query_values};
use crate::tls::Session;
use crate::types::Peer;

/// One request on its way, as a filter sees it.
///
/// The path is canonical: the same bytes serve matching, filters and the upstream.
pub struct Exchange<'a> {
    request: &'a RequestHeader,
    route: &'a str,
    facts: &'a mut Facts,
    /// Set by a hook's default body: the hook is not implemented.
    untouched: bool,
}

impl<'a> Exchange<'a> {
    /// A view of `request` on the route of this name, with what is known of it.
    pub fn new(request: &'a RequestHeader, route: &'a str, facts: &'a mut Facts) -> Self {
        Self { request, route, facts, untouched: false }
    }

    /// The request's method.
    pub fn method(&self) -> &Method {
        &self.request.method
    }

    /// The canonical path the client asked for; a rewrite does not change it.
    pub fn path(&self) -> &str {
        self.request.uri.path()
    }

    /// The raw query, without its `?`.
    pub fn query(&self) -> Option<&str> {
        self.request.uri.query()
    }

    /// The first value of a request header.
    pub fn header(&self, name: &HeaderName) -> Option<&HeaderValue> {
        self.request.headers.get(name)
    }

    /// The client's request head: its target canonical, fields that mean nothing on its connection removed.
    pub fn request(&self) -> &RequestHeader {
        self.request
    }

    /// The client's address: the peer's, or what a trusted proxy says of it. `None` when it came over a Unix socket and
    /// nobody says.
    pub fn client_ip(&self) -> Option<IpAddr> {
        self.facts.client.ip
    }

    /// Who the client is and how it came.
    pub fn client(&self) -> &Client {
        &self.facts.client
    }

    /// How the connection is encrypted, and whose certificate the client has; `None` in the clear.
    pub fn tls(&self) -> Option<&Session> {
        self.facts.tls.as_deref()
    }

    /// The consumer that the client has proved to be.
    pub fn consumer(&self) -> Option<&Arc<Consumer>> {
        self.facts.identity.consumer.as_ref()
    }

    /// Whether the client has proved nothing, and its consumer stands for all such clients.
    pub fn is_anonymous(&self) -> bool {
        self.facts.identity.anonymous
    }

    /// The name that the client came with and has the password of.
    pub fn username(&self) -> Option<&str> {
        self.facts.identity.username.as_deref()
    }

    /// Says who the client is. Only a filter that has verified it may.
    pub fn identify(&mut self, identity: Identity) {
        self.facts.identity = identity;
    }

    /// Says which consumer the client has proved to be, unless it has proved to be another one: `false` then. Only a filter
    /// that has verified it may.
    pub fn agree(&mut self, consumer: &Arc<Consumer>) -> bool {
        let identity = &mut self.facts.identity;
        let agrees = identity.anonymous || identity.consumer.as_ref().is_none_or(|known| known == consumer);
        if agrees {
            identity.consumer = Some(Arc::clone(consumer));
            identity.anonymous = false;
        }
        agrees
    }

    /// Takes a client that has proved nothing for this consumer.
    pub fn assume(&mut self, consumer: &Arc<Consumer>) {
        if self.facts.identity.consumer.is_none() {
            self.identify(Identity { consumer: Some(Arc::clone(consumer)), anonymous: true, username: None });
        }
    }

    /// Notes the name whose password the client has. Only a filter that has verified it may.
    pub fn set_username(&mut self, username: &str) {
        self.facts.identity.username = Some(username.into());
    }

    /// The host asked for: lower case, without port; empty when an HTTP/1.0 client named none.
    pub fn host(&self) -> &str {
        &self.facts.host
    }

    /// A captured path parameter, canonical and still percent-encoded.
    pub fn capture<'p>(&'p self, name: &str) -> Option<&'p str> {
        self.facts.captures.get(self.path(), name)
    }

    /// The captured path parameters and their names.
    pub fn captures(&self) -> impl Iterator<Item = (&str, &str)> {
        self.facts.captures.iter(self.path())
    }

    /// The route's name.
    pub fn route(&self) -> &str {
        self.route
    }

    /// The id of this request. It is made when first asked for.
    pub fn request_id(&mut self) -> &RequestId {
        let arrived = self.facts.arrived;
        self.facts.request_id.get_or_insert_with(|| RequestId::generate(arrived))
    }

    /// Takes a client's own id for this request.
    pub fn set_request_id(&mut self, id: RequestId) {
        self.facts.request_id = Some(id);
    }

    /// Forgets an id that came with this request: it gets one of our own when asked.
    pub fn forget_request_id(&mut self) {
        self.facts.request_id = None;
    }

    /// Sends this path (canonical, starting with `/`) upstream instead of the client's. The query stays.
    pub fn rewrite_path(&mut self, path: String) {
        self.facts.rewrite.path = Some(path);
    }

    /// The path that will go upstream: the client's, or as rewritten so far.
    pub fn upstream_path(&self) -> &str {
        self.facts.rewrite.path.as_deref().unwrap_or_else(|| self.path())
    }

    /// Sends this query upstream instead of the client's: without its `?`, and nothing when it is empty.
    pub fn rewrite_query(&mut self, query: String) {
        self.facts.rewrite.query = Some(query);
    }

    /// The query that will go upstream: the client's, or as rewritten so far.
    pub fn upstream_query(&self) -> Option<&str> {
        self.facts.rewrite.query(self.query())
    }

    /// Sends this `Host` upstream instead of the client's.
    pub fn rewrite_host(&mut self, host: HeaderValue) {
        self.facts.rewrite.host = Some(host);
    }

    /// The most bytes that the route takes as a request body, however it is encoded.
    pub fn body_limit(&self) -> u64 {
        self.facts.body_limit
    }

    /// Whether a body may come with the request.
    pub fn may_have_body(&self) -> bool {
        self.facts.may_have_body
    }

    /// The form that came as the body, if a filter goes by its fields and it could be read.
    pub(crate) fn form(&self) -> Option<&str> {
        std::str::from_utf8(self.facts.form.as_deref()?).ok()
    }

    /// Whose answer the response hooks see.
    pub fn answer(&self) -> Answer {
        self.facts.answer
    }

    /// Counts what a filter would have decided, or could not do: a word from the filter's code.
    pub fn remark(&mut self, filter: &'static str, verdict: &'static str) {
        self.facts.remarks.push((filter, verdict));
    }

    /// When the request's head was complete.
    pub fn started(&self) -> Instant {
        self.facts.started
    }

    /// Notes that a hook has its default body only.
    pub(crate) fn untouched(&mut self) {
        self.untouched = true;
    }

    /// Whether a hook with its default body ran since last asked.
    pub(crate) fn take_untouched(&mut self) -> bool {
        std::mem::take(&mut self.untouched)
    }
}

/// What is known of an exchange beside its heads. It lives as long as the exchange.
pub struct Facts {
    /// Who the client is and how it came.
    pub client: Client,
    /// How the connection is encrypted; `None` in the clear.
    pub tls: Option<Arc<Session>>,
    /// Who the client is, as far as that was verified.
    pub identity: Identity,
    /// The host asked for: lower case, without port.
    pub host: Box<str>,
    /// Captured path parameters.
    pub captures: Captures,
    /// The id of this request, once someone asked.
    pub request_id: Option<RequestId>,
    /// What goes upstream in place of what the client sent.
    pub rewrite: Rewrite,
    /// The most bytes of a request body.
    pub body_limit: u64,
    /// Whether a body may come.
    pub may_have_body: bool,
    /// The form that is the body, where a filter goes by its fields.
    pub form: Option<Bytes>,
    /// When the request's head was complete.
    pub started: Instant,
    /// When that was by the wall clock.
    pub arrived: SystemTime,
    /// Whose answer goes to the client.
    pub answer: Answer,
    /// What filters have to be counted for: their names, and a word each.
    pub remarks: Vec<(&'static str, &'static str)>,
}

impl Facts {
    /// What is known of a request that nobody has sent: its host.
    pub fn of_head(host: &str) -> Self {
        let nobody = Peer::Unix;
        Self {
            client: Client { ip: None, peer: nobody, peer_trusted: false, https: false, port: None },
            tls: None,
            identity: Identity::default(),
            host: host.into(),
            captures: Captures::default(),
            request_id: None,
            rewrite: Rewrite::default(),
            remarks: Vec::new(),
            body_limit: 0,
            may_have_body: true,
            form: None,
            started: Instant::now(),
            arrived: SystemTime::now(),
            answer: Answer::Upstream,
        }
    }
}

/// Whose answer goes to the client.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Answer {
    /// The upstream's, or none yet.
    #[default]
    Upstream,
    /// The gateway's own, with a reason if it is a refusal.
    Own(Option<Reason>),
}

/// What goes upstream in place of what the client sent.
#[derive(Default)]
pub struct Rewrite {
    /// The path.
    pub path: Option<String>,
    /// The query; empty where none is to be sent.
    pub query: Option<String>,
    /// The `Host`.
    pub host: Option<HeaderValue>,
}

impl Rewrite {
    /// The query to send where the client sent this one.
    pub fn query<'q>(&'q self, of_client: Option<&'q str>) -> Option<&'q str> {
        match self.query.as_deref() {
            Some(query) => Some(query).filter(|query| !query.is_empty()),
            None => of_client,
        }
    }
}
