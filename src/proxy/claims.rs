//! What clients say in the name of a proxy or of the gateway itself, and what the gateway says of them.

use http::HeaderMap;
use http::HeaderValue;
use http::header::HeaderName;
use pingora::http::RequestHeader;
use smallvec::SmallVec;

use super::{deadline, mirror};
use crate::consumer::Identity;

const X_FORWARDED_FOR: &str = "x-forwarded-for";

/// What proxies begin the names of their words with.
const FORWARDED: &str = "x-forwarded-";

/// What we say of the client ourselves. An upstream that folds `_` and `-` together must not hear it from the
/// client in the other spelling.
pub(super) const OURS: [&str; 8] = [
    X_FORWARDED_FOR,
    "x-forwarded-host",
    "x-forwarded-proto",
    "x-forwarded-port",
    "x-real-ip",
    "x-request-id",
    deadline::NAME,
    mirror::NAME,
];

/// What the names begin with that tell an upstream who the client has proved to be.
const CONSUMER: &str = "x-consumer-";
/// The name that says to an upstream that the client has proved nothing.
const ANONYMOUS: HeaderName = HeaderName::from_static("x-anonymous-consumer");
const CONSUMER_NAME: HeaderName = HeaderName::from_static("x-consumer-name");
const CONSUMER_GROUPS: HeaderName = HeaderName::from_static("x-consumer-groups");
const CONSUMER_USERNAME: HeaderName = HeaderName::from_static("x-consumer-username");

/// Removes what anyone, trusted proxies included, says of who the client has proved to be, before anybody sees it: nobody
/// but a filter knows. Some upstreams read any other sign as `-`, so all such spellings go.
pub(super) fn remove_identity(request: &mut RequestHeader) {
    let forged = |name: &&HeaderName| {
        let name = name.as_str().as_bytes();
        let same =
            |(known, byte): (u8, &u8)| known == *byte || (known == b'-' && !byte.is_ascii_alphanumeric());
        let begins = |known: &str| name.len() >= known.len() && known.bytes().zip(name).all(same);
        name.first() == Some(&b'x')
            && (begins(CONSUMER) || name.len() == ANONYMOUS.as_str().len() && begins(ANONYMOUS.as_str()))
    };
    let names: SmallVec<[HeaderName; 2]> = request.headers.keys().filter(forged).cloned().collect();
    for name in names {
        request.remove_header(&name);
    }
}

/// Tells an upstream who the client has proved to be.
pub(super) fn introduce(headers: &mut HeaderMap, identity: &Identity) {
    let Some(consumer) = &identity.consumer else { return };
    let username = identity.username.as_ref().and_then(|name| HeaderValue::from_bytes(name.as_bytes()).ok());
    for (name, value) in [
        (CONSUMER_NAME, consumer.name_header().cloned()),
        (CONSUMER_GROUPS, consumer.groups_header().cloned()),
        (CONSUMER_USERNAME, username),
        (ANONYMOUS, identity.anonymous.then_some(HeaderValue::from_static("true"))),
    ] {
        if let Some(value) = value {
            headers.insert(name, value);
        }
    }
}

/// Removes what a client says in the name of a proxy: from strangers all of it, from everyone the spellings with `_`
/// of what we say ourselves, and a `Forwarded` that nobody read. One look at each name: most requests have none.
pub(super) fn remove(headers: &mut HeaderMap, trusted: bool) {
    let claim = |name: &&HeaderName| match name.as_str().as_bytes() {
        b"forwarded" => !trusted || headers.contains_key(X_FORWARDED_FOR),
        [b'x', b'-' | b'_', ..] => is_claim(name.as_str(), trusted),
        _ => false,
    };
    let claims: SmallVec<[HeaderName; 2]> = headers.keys().filter(claim).cloned().collect();
    for name in claims {
        headers.remove(name);
    }
}

fn is_claim(name: &str, trusted: bool) -> bool {
    let folded = |known: &str, name: &str| {
        known.bytes().zip(name.bytes()).all(|(known, byte)| known == byte || (known == b'-' && byte == b'_'))
    };
    let of_a_proxy = matches!(name, "x-real-ip" | deadline::NAME | mirror::NAME)
        || (name.len() > FORWARDED.len() && folded(FORWARDED, name));
    let ours = |known: &&str| known.len() == name.len() && folded(known, name);
    (!trusted && of_a_proxy) || (name.contains('_') && OURS.iter().any(ours))
}
