//! Requests that come by another way: over another connection, by https, or for a proof that a host is ours.

use http::header::{CONTENT_TYPE, LOCATION};
use http::{HeaderValue, Method, StatusCode};
use pingora::http::RequestHeader;

use crate::acme::{Challenges, WELL_KNOWN};
use crate::exchange::{Client, Reason, Reply};
use crate::snapshot::{ListenerPolicy, RedirectToHttps};
use crate::tls::Session;

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

/// The answer to an authority that asks, in the clear, for a proof which is under way.
pub(super) fn proof(challenges: Option<&Challenges>, request: &RequestHeader) -> Option<Box<Reply>> {
    let challenges = challenges?;
    let token = request.uri.path().strip_prefix(WELL_KNOWN)?;
    let asks = matches!(request.method, Method::GET | Method::HEAD);
    let authorization = challenges.http(token).filter(|_| asks)?;
    let reply = Reply::content(StatusCode::OK, String::from(authorization));
    Some(Box::new(reply.header(CONTENT_TYPE, HeaderValue::from_static("application/octet-stream"))))
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
