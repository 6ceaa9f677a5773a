//! Which variant of its route a request goes to.

use std::sync::Arc;

use http::header::{CACHE_CONTROL, SET_COOKIE};
use http::{HeaderMap, HeaderValue};
use pingora::Result;
use pingora::http::{RequestHeader, ResponseHeader};
use pingora_proxy::Session;
use uuid::Uuid;

use super::context::Pinned;
use super::versions;
use crate::exchange::Exchange;
use crate::snapshot::{Split, Target};
use crate::types::Selector;

/// How long a client stays with its variant.
const VISIT: &str = "Max-Age=2592000";

/// Puts a variant in the place of its route.
pub(super) fn choose(session: &Session, pinned: &mut Pinned) {
    let route = Arc::clone(&pinned.route);
    let Target::Split(split) = &route.target else { return };
    let request = session.req_header();
    let ruled = if split.rules.is_empty() {
        None
    } else {
        split.ruled(&Exchange::new(request, &route.name, &mut pinned.facts))
    };
    let chosen =
        ruled.or_else(|| by_key(split, request, pinned)).or_else(|| split.shares.by_lot(fastrand::f64()));
    if let Some(variant) = chosen.and_then(|at| split.variants.get(at)) {
        pinned.route = Arc::clone(variant);
    }
}

/// The variant that the request's key decides, or that of a visitor without one.
fn by_key(split: &Split, request: &RequestHeader, pinned: &mut Pinned) -> Option<usize> {
    let exchange = Exchange::new(request, &pinned.route.name, &mut pinned.facts);
    if let (Some(cookie), Some(first)) = (&split.visitor, split.keys.first())
        && exchange.select(first).is_none()
    {
        let id = Uuid::new_v4().simple().to_string();
        let secure = if exchange.client().https { "; Secure" } else { "" };
        let value = format!("{cookie}={id}; {VISIT}; Path=/; HttpOnly; SameSite=Lax{secure}");
        pinned.visitor = HeaderValue::try_from(value).ok().map(Box::new);
        return split.shares.by_key(id.as_bytes());
    }
    let found = split.keys.iter().find_map(|selector: &Selector| exchange.select(selector))?;
    split.shares.by_key(found.as_ref())
}

/// Tells the upstream which variant it is.
pub(super) fn tell_upstream(headers: &mut HeaderMap, pinned: &Pinned) {
    if let Some((name, value)) = pinned.route.variant.as_ref().and_then(|variant| variant.header.as_ref()) {
        headers.insert(name.clone(), value.clone());
    }
}

/// Tells the client which variant answered, and has it come back to that.
pub(super) fn tell_client(head: &mut ResponseHeader, pinned: &mut Pinned) -> Result<()> {
    if let Some((name, value)) = pinned.route.variant.as_ref().and_then(|variant| variant.header.as_ref()) {
        head.insert_header(name.clone(), value.clone())?;
    }
    versions::tell(head, pinned)?;
    match pinned.visitor.take() {
        Some(cookie) => {
            // The cookie is this visitor's alone.
            head.append_header(CACHE_CONTROL, HeaderValue::from_static("private"))?;
            head.append_header(SET_COOKIE, *cookie).map(drop)
        }
        None => Ok(()),
    }
}
