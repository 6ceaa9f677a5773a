//! The first look at a request: one host, one path, one route.

use std::borrow::Cow;
use std::mem;
use std::sync::Arc;
use std::time::SystemTime;

use http::header::{ALLOW, EXPECT, HOST, MAX_FORWARDS, UPGRADE};
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, Uri};
use pingora::http::RequestHeader;
use pingora::{ErrorType, OrErr, Result};
use pingora_proxy::Session;

use super::claims;
use super::context::{Call, Context, Pinned, Tries};
use super::detour::{detour, proof};
use super::kept::Kept;
use super::versions;
use crate::consumer::Identity;
use crate::edge::{Arrival, Ends, Shedding};
use crate::exchange::{Answer, Client, Facts, Reason, Reply, RequestId, Rewrite, grpc, grpc_web, preflight};
use crate::guard::{BodyFraming, Head, Version};
use crate::route::{Captures, Found, Lookup, MethodSet};
use crate::snapshot::{HeadBounds, Live, Route, Snapshot, Target, Versions, Wanted};
use crate::types::{Host, NormalPath};

/// Pins the route of a request and starts its clocks. `proved` is what another machine says of the proof that it asks
/// for.
pub(super) fn arrive(
    live: &Live,
    shedding: &Shedding,
    proved: Option<Box<str>>,
    session: &mut Session,
    context: &mut Context,
) -> Result<()> {
    let snapshot = live.load();
    if context.arrival.is_none() {
        // The streams of an HTTP/2 connection bring theirs with the head. What held it goes, too: the engine copies heads.
        let mut extensions = mem::take(session.req_header_mut().extensions_mut());
        context.arrival = extensions.remove::<Arrival>().map(Box::new);
    }
    let arrival = context.arrival()?;
    let connection = &arrival.connection;
    let framing = arrival.head.framing;
    let listener = snapshot.listener(connection.listener());

    strip(session, &arrival.head);
    claims::remove_identity(session.req_header_mut());
    let (Ends { peer, local }, tls) = (connection.ends(), connection.tls());
    if tls.is_some() != listener.tls.is_some() {
        // TLS was turned on or off here since: what began before ends as soon as it can.
        session.as_downstream_mut().set_keepalive(None);
    }
    let headers = &session.req_header().headers;
    let client = Client::identify(peer, local, tls.is_some(), headers, &snapshot.trusted_proxies);
    let mut place = match canonical(session.req_header(), arrival.head.plain_name) {
        Ok(Place { host, .. }) if shedding.is_on() => {
            let host: Box<str> = host.into();
            // With its connection, and what that takes.
            session.as_downstream_mut().set_keepalive(None);
            let reply = Some(Box::new(Reply::refuse(Reason::OVERLOADED)));
            Placed { reply, ..Placed::nowhere(&snapshot, host) }
        }
        Ok(Place { host, target }) => {
            let host: Box<str> = host.into();
            if let Some(target) = target {
                session.req_header_mut().set_uri(target);
            }
            let request = session.req_header();
            let proofs = snapshot.proofs.as_deref().filter(|_| tls.is_none());
            let aside = proof(proofs, proved, request)
                .or_else(|| detour(&listener, tls.map(|tls| &**tls), &client, request, &host));
            match aside {
                Some(reply) => Placed { reply: Some(reply), ..Placed::nowhere(&snapshot, host) },
                None => find(&snapshot, request, host, connection.listener()),
            }
        }
        Err(reply) => Placed { reply: Some(reply), ..Placed::nowhere(&snapshot, Box::default()) },
    };
    if let Some(path) = place.path.take() {
        // One path for filters, limits, the log and the upstream.
        let query = session.req_header().uri.query();
        let target = upstream_uri(&path, query)?;
        session.req_header_mut().set_uri(target);
    }
    if let Some(left) = forwards_left(session.req_header()) {
        place.instead = place.instead.or_else(|| last_recipient(session.req_header(), left));
        session.req_header_mut().insert_header(MAX_FORWARDS, left.saturating_sub(1))?;
    }

    let request = session.req_header();
    let known_id =
        client.peer_trusted.then(|| request.headers.get(RequestId::HEADER).and_then(RequestId::accept));
    let route = place.route;
    let call = call(&arrival.head, &request.headers);
    let mut deadlines = route.bounds.deadlines;
    if let Some(patience) = call.and_then(|_| grpc::timeout(&request.headers)) {
        deadlines.total = Some(deadlines.total.map_or(patience, |total| total.min(patience)));
    }
    connection.begin(arrival.at, &deadlines);
    // Calls may be silent for as long as they like: their messages are events.
    let rate = if call.is_some() { 0 } else { listener.body_min_rate };
    connection.expect_body(rate, arrival.head.expect_continue);
    let too_large = matches!(framing, BodyFraming::Length(length) if length > route.bounds.request_body);
    let reply = match place.reply {
        None if too_large => Some(Box::new(Reply::refuse(Reason::BODY_TOO_LARGE))),
        None => {
            let excess = route.bounds.head.as_ref().and_then(|bounds| excess(request, bounds));
            excess.map(|reason| Box::new(Reply::refuse(reason)))
        }
        reply => reply,
    };
    let (started, may_have_body) = (arrival.at, arrival.has_body());
    let tls = tls.cloned();
    context.reply = reply;
    context.pinned = Some(Box::new(Pinned {
        slots: route.chain(listener.chain).slots(),
        chain: listener.chain,
        listener,
        log: snapshot.access_log(),
        facts: Facts {
            client,
            tls,
            identity: Identity::default(),
            host: place.host,
            captures: place.captures,
            request_id: known_id.flatten(),
            rewrite: Rewrite::default(),
            body_limit: route.bounds.request_body,
            may_have_body,
            form: None,
            started,
            arrived: SystemTime::now(),
            answer: Answer::Upstream,
            remarks: Vec::new(),
        },
        instead: place.instead,
        unasked: place.unasked,
        tries: Tries::default(),
        visitor: None,
        body_in: 0,
        early: None,
        kept: Kept::default(),
        replay: None,
        watch: None,
        watched: false,
        copy: None,
        call,
        grpc_status: None,
        response: None,
        _active: route.metrics.start(),
        route,
    }));
    Ok(())
}

/// What of a request head is more than its route takes. The path is counted as it is matched, not as it was spelled.
fn excess(request: &RequestHeader, bounds: &HeadBounds) -> Option<Reason> {
    let length = |(name, value): (&HeaderName, &HeaderValue)| (name.as_str().len() + value.len() + 4) as u64;
    let query = request.uri.query();
    let target = request.uri.path().len() + query.map_or(0, |query| query.len() + 1);
    let parameters = || query.into_iter().flat_map(|query| query.split('&')).filter(|pair| !pair.is_empty());
    if target as u64 > bounds.uri_bytes {
        Some(Reason::URI_TOO_LONG)
    } else if request.headers.len() as u64 > u64::from(bounds.headers) {
        Some(Reason::TOO_MANY_HEADERS)
    } else if request.headers.iter().map(length).sum::<u64>() > bounds.header_bytes {
        Some(Reason::HEADERS_TOO_LARGE)
    } else if parameters().nth(bounds.query_parameters as usize).is_some() {
        Some(Reason::TOO_MANY_PARAMETERS)
    } else {
        None
    }
}

/// gRPC needs HTTP/2; gRPC-Web takes any version, and always has a message.
fn call(head: &Head, headers: &HeaderMap) -> Option<Call> {
    if head.version == Version::Http2 && grpc::is_grpc(headers) {
        return Some(Call::Plain);
    }
    match head.framing {
        BodyFraming::None => None,
        _ => grpc_web::MediaType::of_request(headers).map(|_| Call::Web),
    }
}

/// Removes what the client's version or its other fields make meaningless, before anyone acts on it: an expectation
/// on HTTP/1.0, an upgrade that `Connection` does not name (RFC 9110, sections 10.1.1 and 7.8).
fn strip(session: &mut Session, head: &Head) {
    if head.hop_by_hop && !head.upgrade {
        session.req_header_mut().remove_header(&UPGRADE);
    }
    if !head.keep_alive {
        // The engine reads the first of several Connection fields.
        session.as_downstream_mut().set_keepalive(None);
    }
    if head.version == Version::Http10 {
        session.req_header_mut().remove_header(&EXPECT);
        // Interim answers are not for HTTP/1.0 (RFC 9110, section 15.2).
        session.as_downstream_mut().set_ignore_info_resp(true);
    }
}

/// Where a request asks to go, in canonical words.
struct Place<'a> {
    host: Cow<'a, str>,
    /// The canonical target, where the request's own is not.
    target: Option<Uri>,
}

/// Where a request goes.
struct Placed {
    route: Arc<Route>,
    host: Box<str>,
    captures: Captures,
    /// An answer before the chain.
    reply: Option<Box<Reply>>,
    /// An answer after the chain, in place of the route's target.
    instead: Option<Box<Reply>>,
    /// An answer in place of the route's target to a preflight that no filter has anything to do with.
    unasked: Option<Box<Reply>>,
    /// The path without its version, where nobody is to see that.
    path: Option<String>,
}

impl Placed {
    fn on(route: &Arc<Route>, host: Box<str>, captures: Captures) -> Self {
        Self {
            route: Arc::clone(route),
            host,
            captures,
            reply: None,
            instead: None,
            unasked: None,
            path: None,
        }
    }

    fn nowhere(snapshot: &Snapshot, host: Box<str>) -> Self {
        Self::on(&snapshot.unmatched, host, Captures::default())
    }
}

/// `plain_name` is how long the name in Host is, where the guard has seen it to be the canonical one.
fn canonical(request: &RequestHeader, plain_name: Option<usize>) -> Result<Place<'_>, Box<Reply>> {
    let refuse = |reason: Reason, detail: String| Box::new(Reply::refuse(reason).detail(detail));
    let host = match request.headers.get(HOST) {
        Some(host) => host.to_str().map_err(|_| Box::new(Reply::refuse(Reason::BAD_HOST)))?,
        None => "",
    };
    let host = match plain_name.and_then(|len| host.get(..len)) {
        Some(name) => Cow::Borrowed(name),
        None if host.is_empty() => Cow::Borrowed(""),
        None => Host::parse(host).map_err(|error| refuse(Reason::BAD_HOST, error.to_string()))?.into_cow(),
    };
    let raw = request.uri.path();
    if raw == "*" {
        return Ok(Place { host, target: None });
    }
    let path = NormalPath::parse(raw).map_err(|error| refuse(Reason::BAD_PATH, error.to_string()))?;
    if path.as_str() == raw {
        return Ok(Place { host, target: None });
    }
    let target = match request.uri.query() {
        Some(query) => format!("{}?{query}", path.as_str()),
        None => path.as_str().to_owned(),
    };
    let target = target.parse::<Uri>().map_err(|_| Box::new(Reply::refuse(Reason::BAD_PATH)))?;
    Ok(Place { host, target: Some(target) })
}

fn find(snapshot: &Snapshot, request: &RequestHeader, host: Box<str>, listener: usize) -> Placed {
    let path = request.uri.path();
    if path == "*" {
        // `OPTIONS *` asks the server itself, whatever it serves (RFC 9110, section 9.3.7).
        let reply = Some(Box::new(Reply::content(StatusCode::NO_CONTENT, "")));
        return Placed { reply, ..Placed::nowhere(snapshot, host) };
    }
    let lookup = Lookup {
        host: &host,
        path,
        method: &request.method,
        headers: &request.headers,
        query: request.uri.query(),
        listener,
    };
    match snapshot.find(&lookup) {
        Found::Route { target, captures } => {
            let unasked = unasked(snapshot, &lookup, target);
            let placed = match &target.target {
                Target::Versions(versions) => version(versions, target, request, host, captures),
                _ => Placed::on(target, host, captures),
            };
            Placed { unasked, ..placed }
        }
        Found::MethodNotAllowed { allow } => {
            let instead = Some(Box::new(not_allowed(&request.method, &allow)));
            Placed { instead, ..Placed::nowhere(snapshot, host) }
        }
        Found::NotFound => {
            let instead = Some(Box::new(Reply::refuse(Reason::ROUTE_NOT_FOUND)));
            Placed { instead, ..Placed::nowhere(snapshot, host) }
        }
    }
}

/// The answer to a request for a path whose routes take these methods only.
fn not_allowed(method: &Method, allow: &MethodSet) -> Reply {
    let allow = HeaderValue::from_str(&allow.to_string()).unwrap_or(HeaderValue::from_static(""));
    let reply = match *method {
        // Asking what may be asked is no mistake.
        Method::OPTIONS => Reply::content(StatusCode::NO_CONTENT, ""),
        _ => Reply::refuse(Reason::METHOD_NOT_ALLOWED),
    };
    reply.header(ALLOW, allow)
}

/// The answer to a preflight that came to a route because of the method that it asks about, for when it turns out that nobody
/// there answers preflights of its kind: the route itself does not take it.
#[inline]
fn unasked(snapshot: &Snapshot, lookup: &Lookup<'_>, route: &Arc<Route>) -> Option<Box<Reply>> {
    let asked = preflight(lookup.method, lookup.headers)?;
    let allow = match snapshot.find_itself(lookup) {
        Found::Route { target, .. } if Arc::ptr_eq(target, route) => return None,
        Found::MethodNotAllowed { allow } => allow,
        // Another takes it, whose filters it has not passed.
        Found::Route { .. } | Found::NotFound => {
            let asked = Method::from_bytes(asked.as_bytes()).ok();
            asked.into_iter().chain([Method::OPTIONS]).collect()
        }
    };
    Some(Box::new(not_allowed(lookup.method, &allow)))
}

/// The route of the version that is wanted.
fn version(
    versions: &Versions,
    api: &Arc<Route>,
    request: &RequestHeader,
    host: Box<str>,
    captures: Captures,
) -> Placed {
    match versions.wanted(request.uri.path(), &request.headers, request.uri.query()) {
        Wanted::Version(route, path) => {
            let instead = versions::ended(route);
            Placed { instead, path, ..Placed::on(route, host, captures) }
        }
        wanted => {
            let reason = match wanted {
                Wanted::Unknown => Reason::VERSION_UNKNOWN,
                _ => Reason::VERSION_MISSING,
            };
            Placed { instead: Some(versions::refused(reason, versions)), ..Placed::on(api, host, captures) }
        }
    }
}

/// How many may forward a request that asks for its way (RFC 9110, section 7.6.2).
fn forwards_left(request: &RequestHeader) -> Option<u64> {
    let asks = matches!(request.method, Method::OPTIONS | Method::TRACE);
    let left = asks.then(|| request.headers.get(MAX_FORWARDS)).flatten()?;
    left.to_str().ok().filter(|left| left.bytes().all(|byte| byte.is_ascii_digit()))?.parse().ok()
}

/// The answer of the last who may have such a request. What came is not reflected: it may hold what scripts must not see.
fn last_recipient(request: &RequestHeader, left: u64) -> Option<Box<Reply>> {
    let reply = match request.method {
        _ if left > 0 => return None,
        Method::TRACE => {
            Reply::refuse(Reason::METHOD_NOT_ALLOWED).header(ALLOW, HeaderValue::from_static("OPTIONS"))
        }
        _ => Reply::content(StatusCode::NO_CONTENT, ""),
    };
    Some(Box::new(reply))
}

/// The path and query that go upstream.
pub(super) fn upstream_uri(path: &str, query: Option<&str>) -> Result<Uri> {
    let target = match query {
        Some(query) => format!("{path}?{query}"),
        None => path.to_owned(),
    };
    target.parse::<Uri>().or_err(ErrorType::InternalError, "a rewritten path is not a URI")
}
