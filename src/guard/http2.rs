//! The strict reader of HTTP/2 request heads (RFC 9113 8). The library has taken the frames apart and refused what the
//! protocol forbids; what is left to judge is what an HTTP/1.1 head is judged by, so that both leave with one meaning.
//!
//! 1. One host: `:authority`, or Host where there is none. Both together name the same. It goes on as Host, and the
//!    target in origin form, as in HTTP/1.1.
//! 2. The target has the characters that HTTP/1.1 allows in it.
//! 3. Content-Length, Expect and the look-alikes of framing fields follow the rules of HTTP/1.1: the upstream may speak it.
//! 4. Values have no outer whitespace (RFC 9113 8.2.1); cookie crumbs are one field again (8.2.3), and count as one.

use super::{
    BodyFraming, Head, HeadLimits, Refusal, TargetForm, Version,
    authority::Authority,
    field::{self, Field},
    request_line,
    semantics::Semantics,
};
use http::header::{COOKIE, HOST};
use http::request::Parts;
use http::uri::PathAndQuery;
use http::{HeaderMap, HeaderValue, Method, Uri};

/// What a field counts beside its bytes (RFC 9113 6.5.2).
const FIELD_OVERHEAD: usize = 32;

/// Judges a head and brings it into the form of HTTP/1.1. `complete` says that no body follows.
///
/// # Errors
/// Why it has no one meaning, or is too large.
pub fn read(parts: &mut Parts, complete: bool, limits: &HeadLimits) -> Result<Head, Refusal> {
    if parts.method == Method::CONNECT {
        return Err(Refusal::ConnectNotAllowed);
    }
    if parts.method.as_str().len() > request_line::MAX_METHOD {
        return Err(Refusal::BadMethod);
    }
    if parts.method == Method::TRACE && !complete {
        return Err(Refusal::TraceWithBody);
    }
    let target = target(parts, limits)?;
    // Before they are counted: clients may cut the one field into as many as they like.
    join_cookies(&mut parts.headers)?;
    let headers = parts.headers.len();
    let semantics = fields(&parts.headers, limits)?;
    let plain_name = name_host(parts, &semantics)?;
    let target_form = if target == "*" { TargetForm::Asterisk } else { TargetForm::Origin };
    parts.uri = Uri::from(target);
    let framing = match semantics.framing() {
        BodyFraming::None if complete => BodyFraming::None,
        // Without a length the stream's end is the body's.
        BodyFraming::None => BodyFraming::Chunked,
        length => length,
    };
    Ok(Head {
        start: 0,
        len: 0,
        method: 0..0,
        target: 0..0,
        target_form,
        version: Version::Http2,
        headers,
        host: None,
        plain_name,
        framing,
        keep_alive: true,
        expect_continue: semantics.expect_continue(),
        upgrade: false,
        hop_by_hop: semantics.hop_by_hop(),
    })
}

fn target(parts: &Parts, limits: &HeadLimits) -> Result<PathAndQuery, Refusal> {
    if !matches!(parts.uri.scheme_str(), None | Some("http" | "https")) {
        return Err(Refusal::UnsupportedScheme);
    }
    let target = parts.uri.path_and_query().ok_or(Refusal::MissingTarget)?;
    let text = target.as_str().as_bytes();
    if text.len() > limits.uri_bytes {
        return Err(Refusal::TargetTooLong);
    }
    request_line::check_target_characters(text)?;
    match text {
        [b'/', ..] => Ok(target.clone()),
        b"*" if parts.method == Method::OPTIONS => Ok(target.clone()),
        b"*" => Err(Refusal::AsteriskTarget),
        _ => Err(Refusal::BadTargetForm),
    }
}

fn fields(headers: &HeaderMap, limits: &HeadLimits) -> Result<Semantics, Refusal> {
    if headers.len() > limits.headers {
        return Err(Refusal::TooManyHeaders);
    }
    let mut semantics = Semantics::default();
    let mut size = 0;
    for (name, value) in headers {
        let (name, value) = (name.as_str().as_bytes(), value.as_bytes());
        size += name.len() + value.len() + FIELD_OVERHEAD;
        field::check_name(name)?;
        if has_outer_whitespace(value) {
            return Err(Refusal::BadFieldValue);
        }
        semantics.take(&Field { name, value, value_at: 0..value.len() }, 0, Version::Http2)?;
    }
    if size > limits.header_bytes {
        return Err(Refusal::HeadersTooLarge);
    }
    Ok(semantics)
}

/// Puts the one host into the Host field; how long its name is, where that is the canonical one.
fn name_host(parts: &mut Parts, semantics: &Semantics) -> Result<Option<usize>, Refusal> {
    let Some(authority) = parts.uri.authority() else {
        return if semantics.host.is_some() { Ok(semantics.plain_name) } else { Err(Refusal::MissingHost) };
    };
    let named = Authority::parse(authority.as_str().as_bytes()).ok_or(Refusal::BadTargetAuthority)?;
    let plain_name = named.plain_name();
    match parts.headers.get(HOST) {
        Some(host) => {
            let default_port = if parts.uri.scheme_str() == Some("https") { 443 } else { 80 };
            let same =
                Authority::parse(host.as_bytes()).is_some_and(|host| host.same_as(named, default_port));
            if same { Ok(semantics.plain_name) } else { Err(Refusal::HostMismatch) }
        }
        None => {
            let host = HeaderValue::from_str(authority.as_str()).map_err(|_| Refusal::BadTargetAuthority)?;
            parts.headers.insert(HOST, host);
            Ok(plain_name)
        }
    }
}

fn join_cookies(headers: &mut HeaderMap) -> Result<(), Refusal> {
    let mut crumbs = headers.get_all(COOKIE).iter();
    let (Some(first), Some(_)) = (crumbs.next(), crumbs.next()) else { return Ok(()) };
    let mut whole = first.as_bytes().to_vec();
    if headers.get_all(COOKIE).iter().any(|crumb| has_outer_whitespace(crumb.as_bytes())) {
        return Err(Refusal::BadFieldValue);
    }
    for crumb in headers.get_all(COOKIE).iter().skip(1) {
        whole.extend_from_slice(b"; ");
        whole.extend_from_slice(crumb.as_bytes());
    }
    let whole = HeaderValue::from_bytes(&whole).map_err(|_| Refusal::BadFieldValue)?;
    headers.insert(COOKIE, whole);
    Ok(())
}

fn has_outer_whitespace(value: &[u8]) -> bool {
    [value.first(), value.last()].into_iter().flatten().any(|byte| field::is_ows(*byte))
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::Request;

    const LIMITS: HeadLimits = HeadLimits { header_bytes: 512, headers: 8, uri_bytes: 64 };

    fn parts(method: &str, uri: &str, fields: &[(&str, &str)]) -> Parts {
        let request = Request::builder().method(method).uri(uri).version(http::Version::HTTP_2);
        let request = fields.iter().fold(request, |request, (name, value)| request.header(*name, *value));
        request.body(()).unwrap().into_parts().0
    }

    fn refused(method: &str, uri: &str, fields: &[(&str, &str)]) -> Option<Refusal> {
        read(&mut parts(method, uri, fields), true, &LIMITS).err()
    }

    #[test]
    fn the_authority_becomes_the_host_and_the_target_its_origin_form() {
        let mut parts = parts("GET", "https://A.example:8443/x?y=1", &[("cookie", "a=1"), ("cookie", "b=2")]);
        let head = read(&mut parts, true, &LIMITS).unwrap();
        assert_eq!(parts.uri, "/x?y=1");
        assert_eq!(parts.headers[HOST], "A.example:8443");
        assert_eq!(parts.headers.get_all(COOKIE).iter().collect::<Vec<_>>(), ["a=1; b=2"]);
        assert_eq!((head.framing, head.plain_name, head.version), (BodyFraming::None, None, Version::Http2));
    }

    #[test]
    fn a_body_is_framed_by_its_length_or_by_the_stream() {
        let framing = |fields: &[(&str, &str)]| {
            read(&mut parts("POST", "http://a/", fields), false, &LIMITS).unwrap().framing
        };
        assert_eq!(framing(&[]), BodyFraming::Chunked);
        assert_eq!(framing(&[("content-length", "7")]), BodyFraming::Length(7));
    }

    #[test]
    fn cookies_count_as_one_field_and_with_their_bytes() {
        let crumbs = |count: usize, crumb| vec![("cookie", crumb); count];
        let mut one = parts("GET", "http://a/", &crumbs(100, "a=1"));
        assert_eq!(read(&mut one, true, &LIMITS).err(), Some(Refusal::HeadersTooLarge));
        let mut one = parts("GET", "http://a/", &crumbs(80, "a=1"));
        assert_eq!(read(&mut one, true, &LIMITS).unwrap().headers, 1);
        let large = "v".repeat(250);
        assert_eq!(refused("GET", "http://a/", &crumbs(2, &large)), Some(Refusal::HeadersTooLarge));
    }

    #[test]
    fn what_is_ambiguous_is_refused() {
        let long = format!("http://a/{}", "x".repeat(64));
        let many: Vec<_> = (0..9).map(|_| ("x", "y")).collect();
        let large = "v".repeat(512);
        for (method, uri, fields, refusal) in [
            ("CONNECT", "http://a/", &[][..], Refusal::ConnectNotAllowed),
            ("GET", "/", &[], Refusal::MissingHost),
            ("GET", "ftp://a/", &[], Refusal::UnsupportedScheme),
            ("GET", "http://u@a/", &[], Refusal::BadTargetAuthority),
            ("GET", "http://a/", &[("host", "b")], Refusal::HostMismatch),
            ("GET", "http://a/", &[("host", "a"), ("host", "a")], Refusal::RepeatedHost),
            ("GET", "http://a/", &[("host", "")], Refusal::EmptyHost),
            ("GET", "http://a/\"", &[], Refusal::BadTarget),
            ("GET", &long, &[], Refusal::TargetTooLong),
            ("GET", "http://a/", &many, Refusal::TooManyHeaders),
            ("GET", "http://a/", &[("x", &large)], Refusal::HeadersTooLarge),
            ("GET", "http://a/", &[("x", " y")], Refusal::BadFieldValue),
            ("GET", "http://a/", &[("cookie", "a=1"), ("cookie", "b=2 ")], Refusal::BadFieldValue),
            ("GET", "http://a/", &[("content_length", "1")], Refusal::LookalikeFieldName),
            ("GET", "http://a/", &[("content-length", "+1")], Refusal::BadContentLength),
            (
                "GET",
                "http://a/",
                &[("content-length", "1"), ("content-length", "1")],
                Refusal::RepeatedContentLength,
            ),
            ("GET", "http://a/", &[("expect", "more")], Refusal::ExpectationFailed),
        ] {
            assert_eq!(refused(method, uri, fields), Some(refusal), "{method} {uri} {fields:?}");
        }
        let mut trace = parts("TRACE", "http://a/", &[]);
        assert_eq!(read(&mut trace, false, &LIMITS).err(), Some(Refusal::TraceWithBody));
        assert_eq!(refused("GET", "https://a/", &[("host", "a:443")]), None);
    }
}
