//! What goes upstream, and what comes back.

use std::fmt::Write;
use std::mem;
use std::net::IpAddr;
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::header::{self, HOST, HeaderName, HeaderValue};
use http::request::{Parts, Request};
use http::{HeaderMap, Method, StatusCode, Version};
use pingora::http::{RequestHeader, ResponseHeader};
use pingora::{Error, ErrorType, OrErr, Result};
use pingora_proxy::Session;

use super::arrive::upstream_uri;
use super::context::{Context, Pinned};
use super::{claims, deadline, kept, mirror, split, wish};
use crate::edge::Connection;
use crate::exchange::{Client, Fault, Reason, RequestId, grpc};
use crate::snapshot::Target;
use crate::upstream::End;

const FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
const FORWARDED_HOST: HeaderName = HeaderName::from_static("x-forwarded-host");
const FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");
const FORWARDED_PORT: HeaderName = HeaderName::from_static("x-forwarded-port");

/// The least that is left of an attempt's time when its request is sent.
const MOMENT: Duration = Duration::from_millis(1);

/// Shapes the request head for the upstream.
///
/// Field names go in lower case: the engine can keep each name's spelling, but at the price of a second map.
pub(super) fn request(session: &Session, head: &mut RequestHeader, context: &mut Context) -> Result<()> {
    let (arrival, pinned) = context.parts()?;
    let connection = &arrival.connection;
    // The body comes anew with every attempt.
    pinned.body_in = 0;
    if arrival.has_body() {
        let (policy, http2) = (&pinned.route.bounds.retry, head.version == Version::HTTP_2);
        pinned.kept.up_to(kept::most(policy, session.req_header(), pinned.call, http2));
    }
    // The wire's own clock: the engine's costs every request a timer, and blames the upstream for a slow client.
    let bounds = &pinned.route.bounds;
    let now = Instant::now();
    let spent = pinned.tries.current.as_ref().map(|attempt| now.duration_since(attempt.begun));
    let left = |per_try: Duration| per_try.saturating_sub(spent.unwrap_or_default()).max(MOMENT);
    let per_try = bounds.deadlines.per_try.map(left);
    connection.asking(now, bounds.upstream.read, per_try);
    if let Some(attempt) = &mut pinned.tries.current {
        attempt.permit.connected();
        attempt.endpoint().standing().agreed(head.version == Version::HTTP_2);
    }
    let nothing = Request::new(()).into_parts().0;
    let mut parts = Parts::from(mem::replace(head, RequestHeader::from(nothing)));
    let rewrite = &pinned.facts.rewrite;
    if rewrite.path.is_some() || rewrite.query.is_some() {
        let uri = &session.req_header().uri;
        let path = rewrite.path.as_deref().unwrap_or(uri.path());
        parts.uri = upstream_uri(path, rewrite.query(uri.query()))?;
    }
    let headers = &mut parts.headers;
    headers.reserve(claims::OURS.len());
    claims::remove(headers, pinned.facts.client.peer_trusted);
    let host = headers.get(HOST).cloned();
    forwarded(headers, &pinned.facts.client, connection, host.as_ref())?;
    claims::introduce(headers, &pinned.facts.identity);
    if let Some(host) = &pinned.facts.rewrite.host {
        headers.insert(HOST, host.clone());
    } else if host.is_none() {
        // HTTP/1.1 wants the field even where there is nothing to say (RFC 9112, section 3.2).
        headers.insert(HOST, HeaderValue::from_static(""));
    }
    if bounds.announce {
        let (left, _) = pinned.left(arrival, now);
        deadline::announce(headers, per_try.map_or(left, |per_try| per_try.min(left)))?;
    }
    split::tell_upstream(headers, pinned);
    let (call, begun) = (pinned.call.is_some(), pinned.early.is_some());
    let (chain, slots, mut exchange) = pinned.run(session.req_header());
    headers.insert(RequestId::HEADER, exchange.request_id().header());
    if begun {
        // Met by us.
        headers.remove(header::EXPECT);
    }
    if parts.version == Version::HTTP_2 {
        if arrival.head.expect_continue {
            // Met by us.
            headers.remove(header::EXPECT);
        }
        for_http2(headers, session.req_header(), connection, call);
    }
    *head = RequestHeader::from(parts);
    if let Err(fault) = chain.upstream_request(slots, &mut exchange, head) {
        return faulty(context, &fault);
    }
    if arrival.has_body() {
        frame_request(head)?;
    }
    mirror::head(session, head, context)
}

/// Frames a body whose length a filter took away. HTTP/2 has frames of its own.
pub(super) fn frame_request(head: &mut RequestHeader) -> Result<()> {
    match head.version == Version::HTTP_2 || is_framed(&head.headers) {
        true => Ok(()),
        false => head.insert_header(header::TRANSFER_ENCODING, "chunked"),
    }
}

fn is_framed(headers: &HeaderMap) -> bool {
    [header::CONTENT_LENGTH, header::TRANSFER_ENCODING].iter().any(|name| headers.contains_key(name))
}

/// What only HTTP/2 carries: the wish for trailers, and what is left of a call's time. The request's id is another each time,
/// and has no place in the table that both sides compress by (RFC 7541, section 6.2.3).
fn for_http2(headers: &mut HeaderMap, request: &RequestHeader, connection: &Connection, call: bool) {
    if let Some(id) = headers.get_mut(RequestId::HEADER) {
        id.set_sensitive(true);
    }
    if request.headers.get(header::TE).is_some_and(|te| te.as_bytes().eq_ignore_ascii_case(b"trailers")) {
        headers.insert(header::TE, HeaderValue::from_static("trailers"));
    }
    if let Some(left) = call.then(|| connection.left_in_all(Instant::now())).flatten() {
        headers.insert(grpc::TIMEOUT, grpc::spell(left));
    }
}

/// Says who asked: what trusted proxies said, and the peer.
fn forwarded(
    headers: &mut HeaderMap,
    client: &Client,
    connection: &Connection,
    host: Option<&HeaderValue>,
) -> Result<()> {
    if client.peer_trusted {
        return forwarded_for_a_proxy(headers, client, host);
    }
    // Where a client has no address, nothing is said of it: what it said itself is gone.
    if let Some(ip) = connection.peer_ip() {
        headers.insert(FORWARDED_FOR, ip.clone());
    }
    forwarded_host(headers, host);
    headers.insert(FORWARDED_PROTO, proto(client));
    if let Some(port) = connection.local_port() {
        headers.insert(FORWARDED_PORT, port.clone());
    }
    Ok(())
}

/// The peer is a proxy that is believed: what it said is passed on, and the peer added to it.
fn forwarded_for_a_proxy(headers: &mut HeaderMap, client: &Client, host: Option<&HeaderValue>) -> Result<()> {
    let peer = client.peer.ip();
    let value =
        |list: String| HeaderValue::try_from(list).or_err(ErrorType::InternalError, "a list of proxies");
    if let Some(peer) = peer {
        let list = appended(list(headers, &FORWARDED_FOR), |list| write!(list, "{peer}"));
        headers.insert(FORWARDED_FOR, value(list)?);
    }
    if headers.contains_key(header::FORWARDED) {
        let proto = if client.https { "https" } else { "http" };
        let list = appended(self::list(headers, &header::FORWARDED), |list| match peer {
            Some(IpAddr::V4(v4)) => write!(list, "for={v4};proto={proto}"),
            Some(IpAddr::V6(v6)) => write!(list, "for=\"[{v6}]\";proto={proto}"),
            None => write!(list, "for=unknown;proto={proto}"),
        });
        headers.insert(header::FORWARDED, value(list)?);
    }
    if !headers.contains_key(FORWARDED_HOST) {
        forwarded_host(headers, host);
    }
    headers.insert(FORWARDED_PROTO, proto(client));
    if let Some(port) = client.port {
        headers.insert(FORWARDED_PORT, HeaderValue::from(port));
    }
    Ok(())
}

fn proto(client: &Client) -> HeaderValue {
    HeaderValue::from_static(if client.https { "https" } else { "http" })
}

fn forwarded_host(headers: &mut HeaderMap, host: Option<&HeaderValue>) {
    match host {
        Some(host) => drop(headers.insert(FORWARDED_HOST, host.clone())),
        None => drop(headers.remove(FORWARDED_HOST)),
    }
}

fn list(headers: &HeaderMap, name: &HeaderName) -> String {
    let values = headers.get_all(name).iter().filter_map(|value| value.to_str().ok());
    values.collect::<Vec<_>>().join(", ")
}

fn appended(mut list: String, element: impl FnOnce(&mut String) -> std::fmt::Result) -> String {
    if !list.is_empty() {
        list.push_str(", ");
    }
    // Writing to a string cannot fail.
    let _ = element(&mut list);
    list
}

/// Counts the request body and shows it to the chain. What ends it is the client's: the engine would go on waiting for an
/// HTTP/2 upstream's answer after any other error.
pub(super) fn request_body(
    session: &Session,
    body: &mut Option<Bytes>,
    end: bool,
    context: &mut Context,
) -> Result<()> {
    seen_request_body(session, body, end, context).map_err(|error| error.into_down())
}

fn seen_request_body(
    session: &Session,
    body: &mut Option<Bytes>,
    end: bool,
    context: &mut Context,
) -> Result<()> {
    let (arrival, pinned) = context.parts()?;
    if let Some(bytes) = body {
        let at = pinned.body_in;
        pinned.body_in += bytes.len() as u64;
        if arrival.connection.is_tunnel() {
            return Ok(());
        }
        if pinned.body_in > pinned.route.bounds.request_body {
            return context.fail(Reason::BODY_TOO_LARGE);
        }
        if let (Err(kept::Full), Target::Upstream(upstream)) =
            (pinned.kept.came(at, bytes, None), &pinned.route.target)
        {
            upstream.body_not_kept();
        }
    }
    if !pinned.chain().sees_request_body() {
        mirror::body(pinned, body.as_ref(), end);
        return Ok(());
    }
    let (chain, slots, mut exchange) = pinned.run(session.req_header());
    match chain.request_body(slots, &mut exchange, body, end) {
        Ok(None) => {
            // `None` before the end would be taken for the end.
            if body.is_none() && !end {
                *body = Some(Bytes::new());
            }
            mirror::body(pinned, body.as_ref(), end);
            Ok(())
        }
        Ok(Some(verdict)) => {
            pinned.judged(&verdict);
            context.reply = Some(verdict.reply);
            Err(Error::new(ErrorType::Custom("a filter answered")))
        }
        Err(fault) => faulty(context, &fault),
    }
}

/// Shapes the response head for the client.
pub(super) fn response(
    session: &mut Session,
    head: &mut ResponseHeader,
    context: &mut Context,
) -> Result<()> {
    if head.status.is_informational() && head.status != StatusCode::SWITCHING_PROTOCOLS {
        context.keepalive = context.keepalive.or(session.get_keepalive());
        if head.status == StatusCode::CONTINUE {
            context.arrival()?.connection.go_on(Instant::now());
        }
        return Ok(());
    }
    // The engine gives a connection up when it passes 100 on, since the body is still to come.
    if context.keepalive.is_some() && context.arrival()?.connection.request_complete() {
        session.as_downstream_mut().set_keepalive(context.keepalive);
    }
    let (arrival, pinned) = context.parts()?;
    if head.status == StatusCode::SWITCHING_PROTOCOLS {
        arrival.connection.tunnel(Instant::now(), &pinned.route.bounds.deadlines.websocket);
        judge_early(pinned);
    } else if pinned.call.is_some() {
        arrival.connection.telling();
    } else if is_events(&head.headers) {
        arrival.connection.telling();
        judge_early(pinned);
    }
    note_status(pinned, &head.headers);
    let (chain, slots, mut exchange) = pinned.run(session.req_header());
    if let Err(fault) = chain.response(slots, &mut exchange, head) {
        return faulty(context, &fault);
    }
    let shaped = chain.shapes_response();
    pinned.secure(head)?;
    split::tell_client(head, pinned)?;
    wish::keep(pinned, head)?;
    if session.req_header().version == Version::HTTP_10 {
        unchunk(session, head);
    } else if shaped {
        frame(session, head)?;
    }
    let pinned = context.pinned()?;
    if pinned.log.shows_response_headers() {
        pinned.response = Some(head.headers.clone());
    }
    Ok(())
}

/// What may go on for hours is judged by its beginning.
fn judge_early(pinned: &mut Pinned) {
    if let Some(attempt) = &mut pinned.tries.current
        && let Some(status) = attempt.status
    {
        attempt.judge(End::Answered(status, None), Instant::now());
    }
}

/// Whether a body is made of events, that come when they come.
fn is_events(headers: &HeaderMap) -> bool {
    const EVENTS: &[u8] = b"text/event-stream";
    let kind = headers.get(header::CONTENT_TYPE).map(HeaderValue::as_bytes).unwrap_or_default();
    kind.get(..EVENTS.len()).is_some_and(|kind| kind.eq_ignore_ascii_case(EVENTS))
}

/// Looks at what comes after a body, which the engine does not tell to be the body's end. What filters still have of the
/// body then takes the place of the trailers.
pub(super) fn response_trailers(
    session: &Session,
    trailers: &mut HeaderMap,
    context: &mut Context,
) -> Result<Option<Bytes>> {
    let pinned = context.pinned()?;
    note_status(pinned, trailers);
    let (chain, slots, mut exchange) = pinned.run(session.req_header());
    match chain.response_trailers(slots, &mut exchange, trailers) {
        Ok(rest) => Ok(rest.filter(|rest| !rest.is_empty())),
        Err(fault) => faulty(context, &fault),
    }
}

/// A call ends with its status: after the answer, or in place of it.
pub(super) fn note_status(pinned: &mut Pinned, fields: &HeaderMap) {
    if pinned.call.is_none() {
        return;
    }
    pinned.grpc_status = grpc::status(fields).or(pinned.grpc_status);
}

/// HTTP/1.0 knows no chunks: there a body without a length ends with the connection.
fn unchunk(session: &mut Session, head: &mut ResponseHeader) {
    head.remove_header(&header::TRANSFER_ENCODING);
    if !is_bodiless(session, head) && !head.headers.contains_key(header::CONTENT_LENGTH) {
        session.as_downstream_mut().set_keepalive(None);
    }
}

/// Frames a body whose length a filter took away, the engine having looked before the chain ran.
fn frame(session: &Session, head: &mut ResponseHeader) -> Result<()> {
    if is_framed(&head.headers) || is_bodiless(session, head) {
        return Ok(());
    }
    head.insert_header(header::TRANSFER_ENCODING, "chunked")
}

fn is_bodiless(session: &Session, head: &ResponseHeader) -> bool {
    head.status.is_informational()
        || matches!(head.status, StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED)
        || session.req_header().method == Method::HEAD
}

/// Shows the response body to the chain.
pub(super) fn response_body(
    session: &Session,
    body: &mut Option<Bytes>,
    end: bool,
    context: &mut Context,
) -> Result<()> {
    let (arrival, pinned) = context.parts()?;
    if !pinned.chain().sees_response_body() || arrival.connection.is_tunnel() {
        return Ok(());
    }
    let (chain, slots, mut exchange) = pinned.run(session.req_header());
    let seen = chain.response_body(slots, &mut exchange, body, end);
    seen.or_else(|fault| faulty(context, &fault))
}

fn faulty<T>(context: &mut Context, fault: &Fault) -> Result<T> {
    log::error!("{fault}");
    context.fail(Reason::BUG)
}
