//! An upstream's response head, made fit for those who read it after us.
//!
//! The engine reads the body by rules of its own and frames it anew for the client, but passes on what the upstream said
//! of it. So the head must say what the engine did, in the one way that every reader takes alike.
//!
//! 1. Transfer-Encoding is one `chunked` of an HTTP/1.1 answer (RFC 9112, section 6.1). All else has no certain end: the
//!    engine, the client, and whatever is between them may each find another.
//! 2. Content-Length is one number without leading zeros, which some take for an octal number.
//! 3. An answer that never has a body has no field that frames one (RFC 9110, section 8.6; RFC 9112, section 6.1).
//! 4. What is between the upstream and us only goes (RFC 9110, section 7.6.1), but for a change of protocols: to one that
//!    the client asked for (section 7.8).
//! 5. `Trailer` goes where what it announces will not follow: the engine takes trailers from HTTP/2 to HTTP/2 only.
//! 6. The version is ours (RFC 9110, section 6.2): the upstream's says how it speaks to us. So are the spelling of names
//!    (section 5.1) and the reason phrase (RFC 9112, section 4), which no client may go by: the engine would keep the one in
//!    a second map, and every field that we add would have to go into both.

use http::header::{CONNECTION, CONTENT_LENGTH, TRAILER, TRANSFER_ENCODING, UPGRADE};
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode, Version};
use pingora::http::{RequestHeader, ResponseHeader};
use smallvec::SmallVec;

use crate::exchange::edit;

/// The fields that are between two hops, whatever `Connection` says.
const BETWEEN: [&str; 4] = ["connection", "keep-alive", "proxy-connection", "upgrade"];

/// Makes the head of an answer say one thing to a client of this version; whether it can be done.
pub(super) fn response(head: &mut ResponseHeader, client: Version) -> bool {
    let version = head.version;
    head.set_version(Version::HTTP_11);
    if head.has_case() {
        edit(head, |_| ());
    }
    is_settled(head, version) || mend(head, version, client)
}

/// Whether all fields can stay as they are, as in most answers. One look at each.
fn is_settled(head: &ResponseHeader, version: Version) -> bool {
    let bodiless = is_bodiless(head.status);
    let mut framings = 0;
    let mut frames = |well: bool| {
        framings += 1;
        well && framings == 1 && !bodiless
    };
    head.headers.iter().all(|(name, value)| match name.as_str().len() {
        7 => *name != TRAILER && !BETWEEN.contains(&name.as_str()),
        16 => !BETWEEN.contains(&name.as_str()),
        10 if *name == CONNECTION => matches!(value.as_bytes(), b"keep-alive" | b"close"),
        10 => !BETWEEN.contains(&name.as_str()),
        14 if *name == CONTENT_LENGTH => frames(is_plain_length(value.as_bytes())),
        17 if *name == TRANSFER_ENCODING => frames(is_chunked(value) && version == Version::HTTP_11),
        _ => true,
    })
}

fn mend(head: &mut ResponseHeader, version: Version, client: Version) -> bool {
    let mut codings = head.headers.get_all(TRANSFER_ENCODING).iter();
    if codings.next().is_some_and(|coding| !is_chunked(coding) || version != Version::HTTP_11)
        || codings.next().is_some()
    {
        return false;
    }
    if is_bodiless(head.status) {
        head.remove_header(&TRANSFER_ENCODING);
        head.remove_header(&CONTENT_LENGTH);
    }
    if head.status != StatusCode::SWITCHING_PROTOCOLS {
        remove_between(head);
    }
    if [version, client] != [Version::HTTP_2; 2] {
        head.remove_header(&TRAILER);
    }
    match one_length(&head.headers) {
        Some(length) => head.insert_header(CONTENT_LENGTH, length).is_ok(),
        None => true,
    }
}

/// Whether a 101 changes to protocols that the client asked for.
pub(super) fn is_as_asked(request: &RequestHeader, head: &ResponseHeader) -> bool {
    let mut chosen = protocols(&head.headers).peekable();
    chosen.peek().is_some()
        && chosen.all(|chosen| protocols(&request.headers).any(|asked| asked.eq_ignore_ascii_case(chosen)))
}

fn protocols(headers: &HeaderMap) -> impl Iterator<Item = &[u8]> {
    let values = headers.get_all(UPGRADE).iter().map(HeaderValue::as_bytes);
    let names = values.flat_map(|value| value.split(|byte| *byte == b',')).map(<[u8]>::trim_ascii);
    names.filter(|name| !name.is_empty())
}

fn is_bodiless(status: StatusCode) -> bool {
    status.is_informational() || status == StatusCode::NO_CONTENT
}

fn is_chunked(coding: &HeaderValue) -> bool {
    coding.as_bytes().eq_ignore_ascii_case(b"chunked")
}

fn is_plain_length(length: &[u8]) -> bool {
    !length.contains(&b',') && !is_padded(length)
}

fn is_padded(length: &[u8]) -> bool {
    matches!(length, [b'0', b'0'..=b'9', ..])
}

fn remove_between(head: &mut ResponseHeader) {
    let between = |name: &&HeaderName| BETWEEN.contains(&name.as_str());
    let found: SmallVec<[HeaderName; 4]> = head.headers.keys().filter(between).cloned().collect();
    for name in nominated(&head.headers).into_iter().chain(found) {
        // The engine itself still reads this one, and writes its own.
        if name != CONNECTION {
            head.remove_header(&name);
        }
    }
}

/// The fields that `Connection` names, except those that frame the message.
fn nominated(headers: &HeaderMap) -> Vec<HeaderName> {
    let options = headers.get_all(CONNECTION).iter().filter_map(|value| value.to_str().ok());
    options
        .flat_map(|options| options.split(','))
        .map(str::trim)
        .filter(|option| {
            let kept = ["close", "keep-alive", "content-length", "transfer-encoding"];
            !kept.iter().any(|kept| kept.eq_ignore_ascii_case(option))
        })
        .filter_map(|option| HeaderName::try_from(option).ok())
        .collect()
}

/// The length in plain decimal, where it is written otherwise. The engine has refused lengths that differ; of several
/// that agree one goes on (RFC 9112, section 6.3).
fn one_length(headers: &HeaderMap) -> Option<HeaderValue> {
    let mut lengths = headers.get_all(CONTENT_LENGTH).iter().map(HeaderValue::as_bytes);
    let first = lengths.next()?;
    if lengths.next().is_none() && is_plain_length(first) {
        return None;
    }
    let mut length = first.split(|byte| *byte == b',').next().unwrap_or_default().trim_ascii();
    while is_padded(length) {
        length = &length[1..];
    }
    HeaderValue::from_bytes(length).ok()
}
