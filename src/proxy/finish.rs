//! The end of an exchange: counters, and the access log line.

use std::time::{Duration, Instant};

use http::Version;
use http::header::{HOST, REFERER, USER_AGENT};
use pingora_proxy::Session;

use super::context::{Context, Pinned};
use super::{failure, mirror, versions};
use crate::chain::LogEntry;
use crate::edge::Connection;
use crate::exchange::{Reason, replace_query_values};
use crate::snapshot::Target;
use crate::telemetry::{Address, Record};
use crate::types::MASK;
use crate::upstream::End;

/// What the log says when the client was gone before its answer, after nginx.
const CLIENT_CLOSED: u16 = 499;

pub(super) fn finish(session: &mut Session, context: &mut Context) {
    let reason = context.reason;
    let Context { arrival: Some(arrival), pinned: Some(pinned), .. } = context else {
        return;
    };
    let duration = arrival.at.elapsed();
    let written = session.response_written().map(|head| head.status.as_u16());
    let status = match (written, reason) {
        (Some(status), _) if status >= 200 || status == 101 => status,
        (_, Some(Reason::CLIENT_CLOSED)) => CLIENT_CLOSED,
        _ => 0,
    };
    count(session, pinned, status, reason, duration);
    // A WebSocket ends without an error, whoever ended it.
    let ended = if status == 101 { arrival.connection.fired().map(failure::of_the_clock) } else { None };
    let reason = reason.or(ended);
    if pinned.log.wants(status, duration, fastrand::f64) {
        log(session, &arrival.connection, pinned, status, reason, duration);
    }
}

fn count(session: &Session, pinned: &mut Pinned, status: u16, reason: Option<Reason>, duration: Duration) {
    let metrics = &pinned.route.metrics;
    metrics.record(&session.req_header().method, status, duration);
    if let Some(variant) = &pinned.route.variant {
        variant.metrics.record(status);
        versions::count(pinned);
    }
    if let Some(reason) = reason {
        metrics.reply(reason.code());
    }
    if let Some(consumer) = &pinned.facts.identity.consumer {
        consumer.count();
    }
    pinned.chain().in_doubt(&pinned.slots).for_each(|filter| metrics.condition_error(filter));
    for (filter, verdict) in pinned.facts.remarks.drain(..) {
        metrics.verdict(filter, verdict);
    }
    mirror::end(pinned);
    if let Some(attempt) = pinned.tries.current.take() {
        let end = attempt.status.map_or(End::Aborted, |status| End::Answered(status, pinned.grpc_status));
        attempt.settle(end, Instant::now());
    }
}

fn log(
    session: &Session,
    connection: &Connection,
    pinned: &mut Pinned,
    status: u16,
    reason: Option<Reason>,
    duration: Duration,
) {
    let request = session.req_header();
    let mut entry = LogEntry::default();
    if pinned.chain().sees_log() {
        let (chain, slots, mut exchange) = pinned.run(request);
        chain.log(slots, &mut exchange, &mut entry);
    }
    for name in pinned.log.hidden_queries() {
        // Whatever route it took, and whether or not a filter looked for a credential there.
        let query = entry.query().or(request.uri.query()).unwrap_or_default();
        if let Some(masked) = replace_query_values(query, name, Some(MASK)) {
            entry.show_query(masked);
        }
    }
    let (_, _, mut exchange) = pinned.run(request);
    let id = exchange.request_id().clone();
    let header = |name| request.headers.get(name).map(http::HeaderValue::as_bytes);
    let upstream = match &pinned.route.target {
        Target::Upstream(upstream) => Some(&**upstream.name()),
        _ => None,
    };
    let client = &pinned.facts.client;
    let client_ip = match client.peer_trusted {
        true => client.ip.map(Address::Ip),
        false => connection.peer_ip().map(|ip| Address::Text(ip.as_bytes())),
    };
    pinned.log.write(&Record {
        time: pinned.facts.arrived,
        request_id: id.as_str(),
        client_ip,
        listener: &pinned.listener.name,
        route: (!matches!(pinned.route.target, Target::Nothing)).then_some(&pinned.route.name),
        method: request.method.as_str(),
        host: header(HOST),
        path: request.uri.path().as_bytes(),
        query: entry.query().or(request.uri.query()).map(str::as_bytes),
        protocol: match request.version {
            Version::HTTP_10 => "HTTP/1.0",
            Version::HTTP_2 => "HTTP/2.0",
            _ => "HTTP/1.1",
        },
        status,
        grpc_status: pinned.grpc_status,
        reason: reason.map(Reason::code),
        duration,
        variant: pinned.route.variant.as_ref().map(|variant| &*variant.name),
        upstream,
        endpoint: pinned.tries.last_endpoint,
        upstream_duration: pinned.tries.to_head,
        tries: pinned.tries.count,
        bytes_in: session.as_downstream().body_bytes_read() as u64,
        bytes_out: session.as_downstream().body_bytes_sent() as u64,
        user_agent: header(USER_AGENT),
        referer: header(REFERER),
        consumer: pinned.facts.identity.consumer.as_deref().map(|consumer| &*consumer.name),
        tls: pinned.facts.tls.as_ref().map(|tls| tls.record()),
        request_headers: Some(&request.headers),
        response_headers: pinned.response.as_ref(),
        fields: entry.fields(),
    });
}
