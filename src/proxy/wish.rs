//! What of a request decides which endpoint it goes to: the key that is hashed, and the cookie of a sticky session.

use std::sync::Arc;

use http::header::SET_COOKIE;
use pingora::Result;
use pingora::http::{RequestHeader, ResponseHeader};

use super::context::Pinned;
use crate::exchange::{Exchange, Facts, cookies};
use crate::snapshot::Target;
use crate::upstream::{HashKey, Upstream, Wish};

/// How many cookies of a sticky session's name are looked at: each costs a signature.
const COOKIES: usize = 4;

/// What a request brings to the choice of an endpoint.
pub(super) fn of(pinned: &mut Pinned, request: &RequestHeader) -> Wish {
    match &pinned.route.target {
        Target::Upstream(upstream) => to(upstream, &pinned.route.name, &mut pinned.facts, request),
        _ => Wish::default(),
    }
}

/// What it brings to the choice of one of this upstream's.
pub(super) fn to(upstream: &Upstream, route: &Arc<str>, facts: &mut Facts, request: &RequestHeader) -> Wish {
    let choice = upstream.choice();
    let session = choice.sticky.as_ref().and_then(|sticky| {
        let mut values = cookies(&request.headers, sticky.name()).take(COOKIES);
        values.find_map(|value| sticky.read(std::str::from_utf8(value).ok()?))
    });
    if choice.keys.is_empty() {
        return Wish { key: HashKey::NONE, session };
    }
    let exchange = Exchange::new(request, route, facts);
    Wish { key: key(upstream, &exchange), session }
}

fn key(upstream: &Upstream, exchange: &Exchange<'_>) -> HashKey {
    let found = upstream.choice().keys.iter().find_map(|selector| exchange.select(selector));
    found.map_or_else(
        || {
            upstream.key_missing();
            HashKey::NONE
        },
        |found| HashKey::of(found.as_ref()),
    )
}

/// Has the client come back to the endpoint that answers, unless its cookie says so already.
pub(super) fn keep(pinned: &Pinned, head: &mut ResponseHeader) -> Result<()> {
    let Target::Upstream(upstream) = &pinned.route.target else { return Ok(()) };
    let (Some(sticky), Some(attempt)) = (&upstream.choice().sticky, &pinned.tries.current) else {
        return Ok(());
    };
    let endpoint = attempt.endpoint().address();
    if pinned.tries.wish.session == Some(sticky.tag(endpoint)) {
        return Ok(());
    }
    head.append_header(SET_COOKIE, sticky.set_cookie(endpoint, pinned.facts.client.https))?;
    Ok(())
}
