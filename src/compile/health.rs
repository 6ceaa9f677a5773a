//! The words for active health become questions.

use std::sync::Arc;

use http::Method;
use http::header::{
    CONNECTION, CONTENT_LENGTH, EXPECT, HOST, HeaderMap, HeaderName, HeaderValue, TE, TRANSFER_ENCODING,
    UPGRADE,
};
use http::uri::{Authority, PathAndQuery};
use regex::bytes::Regex;

use super::resilience::{Checks, LONGEST};
use super::routes::not_a_regex;
use super::{fingerprint, unknown};
use crate::config::{self, BodyMatch as BodyWords, HttpCheck, Upstream, UpstreamProtocol};
use crate::document::{ConfigError, Errors, join};
use crate::registry::Registry;
use crate::types::{Duration, NormalPath};
use crate::upstream::{
    ActiveHealth, BodyMatch, HttpExpected, HttpProbeRequest, Policy, Question, Thresholds,
};

/// The shortest interval.
const SHORTEST: Duration = Duration::from_millis(100);
/// What a connection says of itself.
const OF_THE_CONNECTION: [HeaderName; 6] =
    [CONNECTION, CONTENT_LENGTH, EXPECT, TE, TRANSFER_ENCODING, UPGRADE];

/// How the endpoints of an upstream are asked; `None` when something is wrong with it.
pub(super) fn active(
    path: &str,
    words: &config::ActiveHealth,
    upstream: &Upstream,
    registry: &Registry,
    errors: &mut Errors,
) -> Option<Arc<ActiveHealth>> {
    let checks = &mut Checks { errors };
    if words.interval < SHORTEST || words.interval > LONGEST {
        let message = format!("an interval is {SHORTEST} to {LONGEST}");
        checks.error(format!("{path}.interval"), message);
    }
    checks.time(path, "timeout", words.timeout, LONGEST);
    checks.count(path, "healthy_after", words.healthy_after);
    checks.count(path, "unhealthy_after", words.unhealthy_after);
    let question = match (&words.http, &words.tcp, &words.grpc, &words.custom) {
        (Some(http), None, None, None) => self::http(&format!("{path}.http"), http, checks),
        (None, Some(_), None, None) => Some(Question::Tcp),
        (None, None, Some(grpc), None) => {
            let http2 = match upstream.protocol {
                UpstreamProtocol::Http1 => false,
                UpstreamProtocol::Http2 => true,
                UpstreamProtocol::Auto => upstream.tls.is_some(),
            };
            if !http2 {
                let message = "gRPC needs HTTP/2, and the servers are not spoken to in it";
                let hint = "set `protocol: http2` for the upstream, or `auto` with `tls`";
                checks.errors.push(ConfigError::new(format!("{path}.grpc"), message).with_hint(hint));
            }
            let host = host(&format!("{path}.grpc.host"), grpc.host.as_deref(), checks);
            host.filter(|_| http2).map(|host| Question::Grpc { service: grpc.service.as_str().into(), host })
        }
        (None, None, None, Some(name)) => match registry.health_check(name) {
            Some(check) => Some(Question::Custom(name.as_str().into(), Arc::clone(check))),
            None => {
                let known = registry.health_checks();
                checks.errors.push(unknown(format!("{path}.custom"), "health check", name, known));
                None
            }
        },
        _ => {
            let message = "servers are asked in exactly one way: `http`, `tcp`, `grpc` or `custom`";
            let hint = "write `tcp: {}` to ask for a connection alone";
            checks.errors.push(ConfigError::new(path, message).with_hint(hint));
            None
        }
    };
    Some(Arc::new(ActiveHealth {
        policy: Policy {
            interval: words.interval.get(),
            timeout: words.timeout.get(),
            thresholds: Thresholds {
                healthy_after: words.healthy_after,
                unhealthy_after: words.unhealthy_after,
            },
        },
        question: question?,
        fingerprint: told_apart(words, upstream),
    }))
}

/// What an answer is an answer to: the question, and how it comes to the server.
fn told_apart(words: &config::ActiveHealth, upstream: &Upstream) -> Box<str> {
    let question = (&words.http, &words.tcp, &words.grpc, &words.custom);
    let text = serde_json::to_string(&(question, upstream.protocol, &upstream.tls));
    fingerprint(&text.unwrap_or_default()).into()
}

fn http(path: &str, words: &HttpCheck, checks: &mut Checks<'_>) -> Option<Question> {
    let target = target(&format!("{path}.path"), &words.path, checks);
    let method = match words.method.as_str() {
        "GET" => Some(Method::GET),
        "HEAD" => Some(Method::HEAD),
        "OPTIONS" => Some(Method::OPTIONS),
        other => {
            checks.error(format!("{path}.method"), format!("`{other}` is not GET, HEAD or OPTIONS"));
            None
        }
    };
    let host = host(&format!("{path}.host"), words.host.as_deref(), checks);
    let headers = headers(&format!("{path}.headers"), words, checks);
    if words.expect.is_empty() {
        checks.error(format!("{path}.expect"), "some status must be well".into());
    }
    let body = words.body.as_ref().map(|body| self::body(&format!("{path}.body"), body, checks));
    if body.is_some() && method == Some(Method::HEAD) {
        checks.error(format!("{path}.body"), "an answer to HEAD has no body".into());
    }
    Some(Question::Http {
        request: Box::new(HttpProbeRequest { method: method?, path: target?, host: host?, headers }),
        expected: HttpExpected {
            statuses: words.expect.iter().map(|range| range.from..=range.to).collect(),
            body: match body {
                Some(body) => Some(body?),
                None => None,
            },
        },
    })
}

/// The host that is asked for, if one is named; `None` when it is none.
fn host(at: &str, words: Option<&str>, checks: &mut Checks<'_>) -> Option<Option<Authority>> {
    let Some(words) = words else { return Some(None) };
    let host = words.parse::<Authority>().ok().filter(|host| !host.as_str().contains('@'));
    if host.is_none() {
        checks.error(at.to_owned(), format!("`{words}` is not a host, with a port or without"));
    }
    host.map(Some)
}

fn target(at: &str, words: &str, checks: &mut Checks<'_>) -> Option<PathAndQuery> {
    let path = words.split_once('?').map_or(words, |(path, _)| path);
    match NormalPath::parse(path) {
        Ok(normal) if normal.as_str() == path => {}
        Ok(normal) => {
            let message = format!("`{path}` is not in canonical form");
            let hint = format!("write `{}`", normal.as_str());
            checks.errors.push(ConfigError::new(at, message).with_hint(hint));
        }
        Err(error) => checks.error(at.to_owned(), format!("`{path}` is not a path: {error}")),
    }
    let target = words.parse().ok();
    if target.is_none() && path != words {
        checks.error(at.to_owned(), format!("`{words}` does not have a query as it can be sent"));
    }
    target
}

fn headers(path: &str, words: &HttpCheck, checks: &mut Checks<'_>) -> HeaderMap {
    let mut headers = HeaderMap::new();
    for (name, value) in &words.headers {
        let at = join(path, name);
        match (name.parse::<HeaderName>(), value.parse::<HeaderValue>()) {
            (Err(_), _) => checks.error(at, format!("`{name}` is not the name of a header")),
            (Ok(name), _) if name == HOST => checks.error(at, "this is said by `host`".into()),
            (Ok(name), _) if OF_THE_CONNECTION.contains(&name) => {
                checks.error(at, "this is said by the connection itself".into());
            }
            (Ok(_), Err(_)) => checks.error(at, "a header cannot have this value".into()),
            (Ok(name), Ok(value)) => drop(headers.insert(name, value)),
        }
    }
    headers
}

fn body(path: &str, words: &BodyWords, checks: &mut Checks<'_>) -> Option<BodyMatch> {
    match words {
        BodyWords::Contains(text) if text.is_empty() => {
            checks.error(path.to_owned(), "every body has an empty text in it".into());
            None
        }
        BodyWords::Contains(text) => Some(BodyMatch::Contains(text.as_bytes().into())),
        BodyWords::Regex(words) => match Regex::new(&words.regex) {
            Ok(regex) => Some(BodyMatch::Matches(regex)),
            Err(error) => {
                checks.error(format!("{path}.regex"), not_a_regex(&error));
                None
            }
        },
    }
}
