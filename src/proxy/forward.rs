//! What goes upstream, and what comes back.

use std::fmt::Write;
use std::net::IpAddr;
use std::sync::Arc;

use bytes::Bytes;
use http::header::{self, HOST, HeaderName, HeaderValue};
use http::{HeaderMap, Method, StatusCode, Version};
use pingora::http::{RequestHeader, ResponseHeader};
use pingora::{Error, ErrorType, OrErr, Result};
use pingora_proxy::Session;

use super::arrive::upstream_uri;
use super::context::Context;
use crate::edge::Connection;
use crate::exchange::{Client, Fault, Reason};

// Names as text, not `HeaderName`s: the engine keeps the spelling of each, and copies that of a `HeaderName`.
const FORWARDED_FOR: &str = "x-forwarded-for";
const FORWARDED_HOST: &str = "x-forwarded-host";
const FORWARDED_PROTO: &str = "x-forwarded-proto";
const FORWARDED_PORT: &str = "x-forwarded-port";
const REAL_IP: HeaderName = HeaderName::from_static("x-real-ip");
const REQUEST_ID: &str = "x-request-id";

/// What we say of the client ourselves. An upstream that folds `_` and `-` together must not hear it from the
/// client in the other spelling.
const OURS: [&str; 7] = [
    "x-forwarded-for",
    "x-forwarded-host",
    "x-forwarded-proto",
    "x-forwarded-port",
    "x-real-ip",
    "x-request-id",
    "forwarded",
];

/// Shapes the request head for the upstream.
pub(super) fn request(session: &Session, head: &mut RequestHeader, context: &mut Context) -> Result<()> {
    let connection = Arc::clone(&context.arrival()?.connection);
    let pinned = context.pinned()?;
    remove_other_spellings(head);
    if let Some(path) = &pinned.facts.rewrite.path {
        head.set_uri(upstream_uri(path, session.req_header().uri.query())?);
    }
    forwarded(head, &pinned.facts.client, &connection)?;
    if let Some(host) = &pinned.facts.rewrite.host {
        head.insert_header(HOST, host.clone())?;
    } else if !head.headers.contains_key(HOST) {
        // HTTP/1.1 wants the field even where there is nothing to say (RFC 9112, section 3.2).
        head.insert_header(HOST, HeaderValue::from_static(""))?;
    }
    let (chain, slots, mut exchange) = pinned.run(session.req_header());
    head.insert_header(REQUEST_ID, exchange.request_id().header())?;
    let shaped = chain.upstream_request(slots, &mut exchange, head);
    shaped.or_else(|fault| faulty(context, &fault))
}

/// Says who asked: what trusted proxies said, and the peer.
fn forwarded(head: &mut RequestHeader, client: &Client, connection: &Connection) -> Result<()> {
    if client.peer_trusted {
        return forwarded_for_a_proxy(head, client);
    }
    for name in [&REAL_IP, &header::FORWARDED] {
        if head.headers.contains_key(name) {
            head.remove_header(name);
        }
    }
    head.insert_header(FORWARDED_FOR, connection.peer_ip().clone())?;
    forwarded_host(head)?;
    head.insert_header(FORWARDED_PROTO, proto(client))?;
    head.insert_header(FORWARDED_PORT, connection.local_port().clone())
}

/// The peer is a proxy that is believed: what it said is passed on, and the peer added to it.
fn forwarded_for_a_proxy(head: &mut RequestHeader, client: &Client) -> Result<()> {
    let peer = client.peer.ip().to_canonical();
    let before = list(&head.headers, &header::HeaderName::from_static(FORWARDED_FOR));
    head.insert_header(FORWARDED_FOR, appended(before, |list| write!(list, "{peer}")))?;
    if head.headers.contains_key(header::FORWARDED) {
        let proto = if client.https { "https" } else { "http" };
        let list = appended(list(&head.headers, &header::FORWARDED), |list| match peer {
            IpAddr::V4(v4) => write!(list, "for={v4};proto={proto}"),
            IpAddr::V6(v6) => write!(list, "for=\"[{v6}]\";proto={proto}"),
        });
        head.insert_header(header::FORWARDED, list)?;
    }
    if !head.headers.contains_key(FORWARDED_HOST) {
        forwarded_host(head)?;
    }
    head.insert_header(FORWARDED_PROTO, proto(client))?;
    head.insert_header(FORWARDED_PORT, HeaderValue::from(client.port))
}

fn proto(client: &Client) -> HeaderValue {
    HeaderValue::from_static(if client.https { "https" } else { "http" })
}

fn forwarded_host(head: &mut RequestHeader) -> Result<()> {
    match head.headers.get(HOST).cloned() {
        Some(host) => head.insert_header(FORWARDED_HOST, host)?,
        None => drop(head.remove_header(FORWARDED_HOST)),
    }
    Ok(())
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

fn remove_other_spellings(head: &mut RequestHeader) {
    let same = |ours: &str, name: &str| {
        ours.len() == name.len()
            && ours.bytes().zip(name.bytes()).all(|(o, n)| o == n || (o == b'-' && n == b'_'))
    };
    let folded =
        |name: &&HeaderName| name.as_str().contains('_') && OURS.iter().any(|ours| same(ours, name.as_str()));
    let found: Vec<HeaderName> = head.headers.keys().filter(folded).cloned().collect();
    for name in found {
        head.remove_header(&name);
    }
}

/// Counts the request body and shows it to the chain.
pub(super) fn request_body(
    session: &Session,
    body: &mut Option<Bytes>,
    end: bool,
    context: &mut Context,
) -> Result<()> {
    let pinned = context.pinned()?;
    if let Some(bytes) = body {
        pinned.body_in += bytes.len() as u64;
        if pinned.body_in > pinned.route.body_limit {
            return context.fail(Reason::BODY_TOO_LARGE);
        }
    }
    if !pinned.chain.sees_request_body() {
        return Ok(());
    }
    let (chain, slots, mut exchange) = pinned.run(session.req_header());
    match chain.request_body(slots, &mut exchange, body, end) {
        Ok(None) => {
            // `None` before the end would be taken for the end.
            if body.is_none() && !end {
                *body = Some(Bytes::new());
            }
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

/// Removes what is between the upstream and us only (RFC 9110, section 7.6.1).
pub(super) fn clean_response(head: &mut ResponseHeader) -> Result<()> {
    if head.status == StatusCode::SWITCHING_PROTOCOLS {
        return Ok(());
    }
    if head.headers.contains_key(header::CONNECTION) {
        let options = head.headers.get_all(header::CONNECTION).iter().filter_map(|value| value.to_str().ok());
        let nominated: Vec<HeaderName> = options
            .flat_map(|options| options.split(','))
            .filter_map(|option| HeaderName::try_from(option.trim()).ok())
            .filter(|name| {
                !matches!(name.as_str(), "close" | "keep-alive" | "content-length" | "transfer-encoding")
            })
            .collect();
        for name in nominated {
            head.remove_header(&name);
        }
    }
    for name in ["keep-alive", "proxy-connection", "upgrade"] {
        if head.headers.contains_key(name) {
            head.remove_header(name);
        }
    }
    one_length(head)
}

/// The engine has refused lengths that differ; of several that agree one goes on (RFC 9112, section 6.3).
fn one_length(head: &mut ResponseHeader) -> Result<()> {
    let mut lengths = head.headers.get_all(header::CONTENT_LENGTH).iter();
    let (Some(first), more) = (lengths.next(), lengths.next().is_some()) else {
        return Ok(());
    };
    let list = first.as_bytes().iter().position(|byte| *byte == b',');
    if !more && list.is_none() {
        return Ok(());
    }
    let first = first.as_bytes().get(..list.unwrap_or(first.len())).unwrap_or_default().trim_ascii();
    let length =
        HeaderValue::from_bytes(first).or_err(ErrorType::InvalidHTTPHeader, "a length that is none")?;
    head.insert_header(header::CONTENT_LENGTH, length)
}

/// Shapes the response head for the client.
pub(super) fn response(
    session: &mut Session,
    head: &mut ResponseHeader,
    context: &mut Context,
) -> Result<()> {
    if head.status.is_informational() && head.status != StatusCode::SWITCHING_PROTOCOLS {
        context.keepalive = context.keepalive.or(session.get_keepalive());
        return Ok(());
    }
    // The engine gives a connection up when it passes 100 on, since the body is still to come.
    if context.keepalive.is_some() && context.arrival()?.connection.request_complete() {
        session.as_downstream_mut().set_keepalive(context.keepalive);
    }
    let connection = &context.arrival()?.connection;
    connection.responding();
    if head.status == StatusCode::SWITCHING_PROTOCOLS {
        connection.tunnel();
    }
    let pinned = context.pinned()?;
    let (chain, slots, mut exchange) = pinned.run(session.req_header());
    if let Err(fault) = chain.response(slots, &mut exchange, head) {
        return faulty(context, &fault);
    }
    frame(session, head)?;
    let pinned = context.pinned()?;
    if pinned.log.shows_response_headers() {
        pinned.response = Some(head.headers.clone());
    }
    Ok(())
}

/// Frames a body whose length a filter took away, the engine having looked before the chain ran. HTTP/1.0 knows no
/// chunks: there it ends with the connection.
fn frame(session: &mut Session, head: &mut ResponseHeader) -> Result<()> {
    let bodiless = head.status.is_informational()
        || matches!(head.status, StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED)
        || session.req_header().method == Method::HEAD;
    let counted = head.headers.contains_key(header::CONTENT_LENGTH);
    if session.req_header().version == Version::HTTP_10 {
        head.remove_header(&header::TRANSFER_ENCODING);
        if !bodiless && !counted {
            session.as_downstream_mut().set_keepalive(None);
        }
        return Ok(());
    }
    if bodiless || counted || head.headers.contains_key(header::TRANSFER_ENCODING) {
        return Ok(());
    }
    head.insert_header(header::TRANSFER_ENCODING, "chunked")
}

/// Shows the response body to the chain.
pub(super) fn response_body(
    session: &Session,
    body: &mut Option<Bytes>,
    end: bool,
    context: &mut Context,
) -> Result<()> {
    let pinned = context.pinned()?;
    if !pinned.chain.sees_response_body() {
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
