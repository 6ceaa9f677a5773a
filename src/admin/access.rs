//! Who may use the API.

use http::header::{AUTHORIZATION, HOST, ORIGIN, WWW_AUTHENTICATE};
use http::{HeaderValue, Response, StatusCode};
use pingora::http::RequestHeader;

use super::views::problem;
use crate::types::{Host, Secret};

/// Lets a request pass, or says why not.
pub(super) fn check(token: Option<&Secret>, request: &RequestHeader) -> Result<(), Box<Response<Vec<u8>>>> {
    let header = |name| request.headers.get(name).and_then(|value: &HeaderValue| value.to_str().ok());
    let host = header(HOST).unwrap_or_default();
    let foreign =
        header(ORIGIN).is_some_and(|origin| origin.split_once("://").map(|(_, rest)| rest) != Some(host));
    if foreign {
        return Err(Box::new(problem(
            StatusCode::FORBIDDEN,
            "foreign_origin",
            "This API is not for other pages' scripts.",
        )));
    }
    if matches!(request.uri.path(), "/healthz" | "/readyz") {
        return Ok(());
    }
    match token {
        Some(token) => {
            let given = header(AUTHORIZATION).and_then(|value| value.split_once(' '));
            let given = given
                .filter(|(scheme, _)| scheme.eq_ignore_ascii_case("bearer"))
                .map(|(_, word)| word.trim());
            if given.is_some_and(|given| token.matches(given)) {
                return Ok(());
            }
            let mut refusal = problem(StatusCode::UNAUTHORIZED, "unauthorized", "This API needs its token.");
            refusal.headers_mut().insert(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
            Err(Box::new(refusal))
        }
        None if is_loopback(host) => Ok(()),
        None => Err(Box::new(problem(
            StatusCode::FORBIDDEN,
            "foreign_host",
            "This API answers to loopback names only.",
        ))),
    }
}

fn is_loopback(host: &str) -> bool {
    let Ok(host) = Host::parse(host) else { return false };
    let host = host.as_str().trim_start_matches('[').trim_end_matches(']');
    host == "localhost" || host.parse::<std::net::IpAddr>().is_ok_and(|ip| ip.is_loopback())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn status(token: Option<&str>, path: &str, headers: &[(&'static str, &str)]) -> u16 {
        let mut request = RequestHeader::build("GET", path.as_bytes(), None).unwrap();
        for (name, value) in headers {
            request.insert_header(*name, *value).unwrap();
        }
        let token = token.map(Secret::new);
        check(token.as_ref(), &request).map_or_else(|refusal| refusal.status().as_u16(), |()| 200)
    }

    #[test]
    fn without_a_token_only_loopback_names_are_answered() {
        for (host, expected) in
            [("127.0.0.1:9901", 200), ("localhost", 200), ("[::1]:1", 200), ("evil.test", 403), ("", 403)]
        {
            assert_eq!(status(None, "/status", &[("host", host)]), expected, "{host}");
        }
        assert_eq!(status(None, "/readyz", &[("host", "10.1.2.3:9901")]), 200);
    }

    #[test]
    fn with_a_token_only_its_bearer_is_answered() {
        let token = Some("0123456789abcdef");
        let authorization = |value| status(token, "/status", &[("host", "gw"), ("authorization", value)]);
        assert_eq!(authorization("Bearer 0123456789abcdef"), 200);
        assert_eq!(authorization("Bearer 0123456789abcdeg"), 401);
        assert_eq!(authorization("Basic 0123456789abcdef"), 401);
        assert_eq!(status(token, "/status", &[("host", "localhost")]), 401);
        assert_eq!(status(token, "/healthz", &[("host", "localhost")]), 200);
    }

    #[test]
    fn other_pages_are_refused() {
        let origin = |origin| status(None, "/status", &[("host", "localhost:9901"), ("origin", origin)]);
        assert_eq!(origin("http://localhost:9901"), 200);
        assert_eq!(origin("http://evil.test"), 403);
        assert_eq!(origin("null"), 403);
    }
}
