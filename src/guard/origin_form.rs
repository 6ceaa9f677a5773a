//! An absolute-form request line as the origin form that a server behind a gateway expects (RFC 9112, section 3.2).
//!
//! 1. What the target's authority and Host say is one, as the guard has seen; Host stays as it is.
//! 2. An HTTP/1.0 request without Host gets the one that its target names.

use super::Head;
use bytes::BytesMut;

/// The request in `bytes`, from its method on, with its absolute-form target in origin form. The ranges of `head` mean
/// nothing in it.
pub fn in_origin_form(head: &Head, bytes: &[u8]) -> BytesMut {
    let target = &bytes[head.target.clone()];
    let (authority, path) = split(target);
    let after_target = &bytes[head.target.end..];
    let line_end = after_target.iter().position(|&b| b == b'\n').map_or(after_target.len(), |at| at + 1);
    let (version, rest) = after_target.split_at(line_end);

    let mut origin_form = BytesMut::with_capacity(bytes.len());
    origin_form.extend_from_slice(&bytes[head.start..head.target.start]);
    match path {
        [b'/', ..] => {}
        // `OPTIONS http://host` asks the server as a whole (RFC 9112, section 3.2.4).
        [] if &bytes[head.method.clone()] == b"OPTIONS" => origin_form.extend_from_slice(b"*"),
        _ => origin_form.extend_from_slice(b"/"),
    }
    origin_form.extend_from_slice(path);
    origin_form.extend_from_slice(version);
    let host_is_of_the_target = head.host.as_ref().is_some_and(|host| host.end <= head.target.end);
    if host_is_of_the_target {
        for part in [b"Host: ", authority, b"\r\n"] {
            origin_form.extend_from_slice(part);
        }
    }
    origin_form.extend_from_slice(rest);
    origin_form
}

/// Authority, and path with query, of an absolute-form target.
fn split(target: &[u8]) -> (&[u8], &[u8]) {
    let start = target.windows(3).position(|part| part == b"://").map_or(0, |at| at + 3);
    let after_scheme = &target[start..];
    let end = after_scheme.iter().position(|b| matches!(b, b'/' | b'?')).unwrap_or(after_scheme.len());
    after_scheme.split_at(end)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::guard::{HeadLimits, Progress};

    fn rewritten(request: &str) -> String {
        let limits = HeadLimits { header_bytes: 4096, headers: 10, uri_bytes: 1024 };
        let Progress::Done(head) = Head::parse(request.as_bytes(), &limits) else { panic!("{request:?}") };
        String::from_utf8(in_origin_form(&head, request.as_bytes()).to_vec()).unwrap()
    }

    #[test]
    fn the_authority_leaves_the_target() {
        for (target, origin_form) in [
            ("http://a/x?y=http://b/", "/x?y=http://b/"),
            ("HTTPS://a:443", "/"),
            ("http://a?b", "/?b"),
            ("http://a/", "/"),
        ] {
            let host = if target.contains(":443") { "a:443" } else { "a" };
            let rest = format!("HTTP/1.1\r\nHost: {host}\r\nContent-Length: 1\r\n\r\nb");
            assert_eq!(rewritten(&format!("GET {target} {rest}")), format!("GET {origin_form} {rest}"));
        }
        let rest = "HTTP/1.1\r\nHost: a\r\n\r\n";
        assert_eq!(rewritten(&format!("OPTIONS http://a {rest}")), format!("OPTIONS * {rest}"));
        assert_eq!(rewritten(&format!("\r\nGET http://a/b {rest}")), format!("GET /b {rest}"));
    }

    #[test]
    fn http10_without_host_gets_the_targets() {
        assert_eq!(
            rewritten("GET http://a.test:81/x HTTP/1.0\r\nA: b\r\n\r\n"),
            "GET /x HTTP/1.0\r\nHost: a.test:81\r\nA: b\r\n\r\n"
        );
        let with_host = "GET http://a/x HTTP/1.0\r\nHost: a:80\r\n\r\n";
        assert_eq!(rewritten(with_host), "GET /x HTTP/1.0\r\nHost: a:80\r\n\r\n");
    }
}
