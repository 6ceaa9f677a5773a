//! What clients say in the name of a proxy.

use http::HeaderMap;
use http::header::HeaderName;
use smallvec::SmallVec;

use super::deadline;

const X_FORWARDED_FOR: &str = "x-forwarded-for";

/// What proxies begin the names of their words with.
const FORWARDED: &str = "x-forwarded-";

/// What we say of the client ourselves. An upstream that folds `_` and `-` together must not hear it from the
/// client in the other spelling.
pub(super) const OURS: [&str; 7] = [
    X_FORWARDED_FOR,
    "x-forwarded-host",
    "x-forwarded-proto",
    "x-forwarded-port",
    "x-real-ip",
    "x-request-id",
    deadline::NAME,
];

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
    let of_a_proxy = matches!(name, "x-real-ip" | deadline::NAME)
        || (name.len() > FORWARDED.len() && folded(FORWARDED, name));
    let ours = |known: &&str| known.len() == name.len() && folded(known, name);
    (!trusted && of_a_proxy) || (name.contains('_') && OURS.iter().any(ours))
}
