//! Requests that come by another way: over another connection, by https, or for a proof that a host is ours.

use futures_util::future::BoxFuture;
use http::header::{CONTENT_TYPE, HOST, LOCATION};
use http::{HeaderValue, Method, StatusCode};
use pingora::http::RequestHeader;

use super::context::Context;
use crate::acme::{Proofs, WELL_KNOWN};
use crate::edge::{Arrival, Shedding};
use crate::exchange::{Client, Reason, Reply};
use crate::snapshot::{ListenerPolicy, Live, RedirectToHttps};
use crate::tls::Session;
use crate::types::Host;

/// The answer to a request that has come by a way which is not its own.
pub(super) fn detour(
    listener: &ListenerPolicy,
    tls: Option<&Session>,
    client: &Client,
    request: &RequestHeader,
    host: &str,
) -> Option<Box<Reply>> {
    let policy = listener.tls.as_deref();
    let misdirected = match tls {
        Some(tls) => !tls.serves(host, policy),
        // The connection is older than the policy.
        None => policy.is_some_and(|policy| policy.host(host).client_auth == Some(true)),
    };
    if misdirected {
        return Some(Box::new(Reply::refuse(Reason::MISDIRECTED_REQUEST)));
    }
    let redirect = listener.redirect_to_https.filter(|_| !client.https)?;
    Some(Box::new(by_https(redirect, host, request)))
}

/// What another machine has to say to an authority that asks, in the clear, for a proof which is not under way here.
/// `None` at once for every other request.
pub(super) fn asked_elsewhere(
    live: &Live,
    shedding: &Shedding,
    request: &RequestHeader,
    context: &Context,
) -> Option<BoxFuture<'static, Option<Box<str>>>> {
    let token = token(request)?;
    let arrival = context.arrival.as_deref().or_else(|| request.extensions.get::<Arrival>())?;
    if arrival.connection.tls().is_some() || shedding.is_on() {
        return None;
    }
    let proofs = live.load().proofs.clone().filter(|proofs| proofs.is_elsewhere(token))?;
    let host = Host::parse(request.headers.get(HOST)?.to_str().ok()?).ok()?.into_cow().into_owned();
    let token = token.to_owned();
    Some(Box::pin(async move { proofs.http_elsewhere(&host, &token).await }))
}

/// The answer to an authority that asks, in the clear, for a proof which is under way: here, or `elsewhere`.
pub(super) fn proof(
    proofs: Option<&Proofs>,
    elsewhere: Option<Box<str>>,
    request: &RequestHeader,
) -> Option<Box<Reply>> {
    let token = token(request)?;
    let authorization = proofs?.here().http(token).or(elsewhere)?;
    let reply = Reply::content(StatusCode::OK, String::from(authorization));
    Some(Box::new(reply.header(CONTENT_TYPE, HeaderValue::from_static("application/octet-stream"))))
}

fn token(request: &RequestHeader) -> Option<&str> {
    let token = request.uri.path().strip_prefix(WELL_KNOWN)?;
    matches!(request.method, Method::GET | Method::HEAD).then_some(token)
}

/// The same place by https. Without a host there is no such place.
fn by_https(redirect: RedirectToHttps, host: &str, request: &RequestHeader) -> Reply {
    let port = if redirect.port == 443 { String::new() } else { format!(":{}", redirect.port) };
    let path = match request.uri.path() {
        "*" => "/",
        path => path,
    };
    let query = request.uri.query().map_or(String::new(), |query| format!("?{query}"));
    match HeaderValue::try_from(format!("https://{host}{port}{path}{query}")) {
        Ok(place) if !host.is_empty() => Reply::content(redirect.status, "").header(LOCATION, place),
        _ => Reply::refuse(Reason::BAD_HOST).detail("this request can be sent by https only, with a host"),
    }
}
