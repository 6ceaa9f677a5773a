//! Attempts at an upstream: the choice of an endpoint, and what became of it.

use std::sync::Arc;
use std::time::{Duration, Instant};

use pingora::upstreams::peer::{HttpPeer, HttpUpstreamRequestPolicy};
use pingora::{Error, ErrorSource, ErrorType, Result};
use pingora_proxy::Session;

use super::context::{Attempt, Context};
use super::dial::Dialer;
use super::failure;
use crate::edge::{Arrival, Timer};
use crate::exchange::Reason;
use crate::snapshot::{Route, Target};
use crate::upstream::{Endpoint, HashKey, Protocol, Upstream};

/// Requests at once on one HTTP/2 connection to an endpoint, if the endpoint allows as many.
const STREAMS: usize = 100;
/// What an endpoint may send on one stream, and on all of a connection, before the client has taken it. Streams whose clients
/// take nothing leave room for the others.
const STREAM_WINDOW: u32 = 1 << 20;
const CONNECTION_WINDOW: u32 = STREAM_WINDOW * STREAMS as u32;

/// The next endpoint to try.
pub(super) fn next(context: &mut Context) -> Result<Box<HttpPeer>> {
    let now = Instant::now();
    let failed = context.reason.take();
    let (arrival, pinned) = context.parts()?;
    let Target::Upstream(upstream) = &pinned.route.target else {
        return context.fail(Reason::BUG);
    };
    let (left, timer) = pinned.left(arrival, now);
    if left.is_zero() {
        return context.fail(failure::of_the_clock(timer));
    }
    let Some(endpoint) = upstream.choose(&pinned.tries.tried, HashKey::NONE, now) else {
        return context.fail(failed.unwrap_or(Reason::NO_HEALTHY_UPSTREAM));
    };
    let peer = peer(upstream, &endpoint, arrival, &pinned.route, left);
    let tries = &mut pinned.tries;
    tries.tried.insert(endpoint.id());
    tries.count += 1;
    tries.first.get_or_insert(now);
    tries.last_endpoint = Some(endpoint.address());
    tries.current = Some(Attempt { permit: endpoint.begin(), begun: now, to_head: None });
    Ok(peer)
}

fn peer(
    upstream: &Upstream,
    endpoint: &Endpoint,
    arrival: &Arrival,
    route: &Route,
    left: Duration,
) -> Box<HttpPeer> {
    let mut peer = match upstream.tls() {
        None => Box::new(HttpPeer::new(endpoint.address(), false, String::new())),
        Some(tls) => tls.peer(endpoint.address()),
    };
    let timeouts = &route.bounds.upstream;
    let connect = timeouts.connect.min(left);
    peer.options.connection_timeout = Some(connect);
    peer.options.total_connection_timeout = Some(connect);
    peer.options.write_timeout = Some(timeouts.write);
    peer.options.idle_timeout = Some(timeouts.idle);
    let oldest = match upstream.protocol() {
        Protocol::Http2 => 2,
        Protocol::Auto if upstream.tls().is_some() => 1,
        Protocol::Auto | Protocol::Http1 => 0,
    };
    if arrival.head.upgrade {
        // A WebSocket begins in HTTP/1.1, on a connection that nobody has used.
        peer.group_key = !peer.group_key;
        peer.options.custom_l4 = Some(Arc::new(Dialer(Arc::clone(&arrival.connection))));
    } else if oldest > 0 {
        peer.options.set_http_version(2, oldest);
        peer.options.max_h2_streams = STREAMS;
        peer.options.h2_stream_window_size = Some(STREAM_WINDOW);
        peer.options.h2_connection_window_size = Some(CONNECTION_WINDOW);
    }
    let http2 = match upstream.protocol() {
        Protocol::Http1 => false,
        Protocol::Http2 => true,
        Protocol::Auto => endpoint.load().is_http2(),
    };
    if arrival.has_body() && !http2 {
        // While a body waits for room on its way up, nothing but the engine watches. It also counts the client's
        // pauses, which are allowed to be as long as `stream_idle`. Over HTTP/2 it would count all of the body's time, and
        // `write` bounds the wait for room.
        peer.options.read_timeout = Some(timeouts.read.max(route.bounds.deadlines.stream_idle));
    }
    if !arrival.head.hop_by_hop {
        // The guard has seen that there is nothing to strip.
        peer.options.http_upstream_request_policy = HttpUpstreamRequestPolicy::preserve();
    }
    peer
}

/// Whether the two sides did not come to speak TLS.
fn is_of_tls(error: &Error) -> bool {
    use ErrorType::{
        HandshakeError, InvalidCert, TLSHandshakeFailure, TLSHandshakeTimedout, TLSWantX509Lookup,
    };
    matches!(
        error.etype(),
        HandshakeError | InvalidCert | TLSHandshakeFailure | TLSHandshakeTimedout | TLSWantX509Lookup
    )
}

/// No connection was made, so nothing was sent: another endpoint may be tried, whatever the method.
pub(super) fn not_connected(context: &mut Context, mut error: Box<Error>) -> Box<Error> {
    let timed_out = matches!(error.etype(), ErrorType::ConnectTimedout);
    let clock = context.arrival().ok().and_then(|arrival| arrival.connection.left_for_head(Instant::now()));
    let late = clock.filter(|(left, _)| left.is_zero()).map(|(_, timer)| timer);
    context.reason = Some(match (timed_out, late) {
        (true, Some(timer)) => failure::of_the_clock(timer),
        (true, None) => Reason::UPSTREAM_CONNECT_TIMEOUT,
        (false, _) if is_of_tls(&error) => Reason::UPSTREAM_TLS_FAILED,
        (false, _) => Reason::UPSTREAM_CONNECT_FAILED,
    });
    let outcome = if timed_out { "connect_timeout" } else { "connect_failed" };
    if let Ok(pinned) = context.pinned() {
        if let Some(attempt) = pinned.tries.current.take() {
            log::debug!("upstream endpoint {}: {error}", attempt.endpoint().address());
            attempt.permit.failed();
            attempt.endpoint().metrics().record(outcome, None);
        }
        let more = match &pinned.route.target {
            Target::Upstream(upstream) => upstream.endpoints().len() > pinned.tries.tried.len(),
            _ => false,
        };
        error.set_retry(more && late.is_none());
    }
    error
}

/// The exchange with an endpoint broke. A pooled connection that the endpoint had closed in the meantime tells
/// nothing of the endpoint: an idempotent request whose body is still here goes again. What an endpoint has refused unseen
/// goes to it once more, then to the others.
pub(super) fn broken(
    session: &mut Session,
    context: &mut Context,
    mut error: Box<Error>,
    reused: bool,
) -> Box<Error> {
    if is_answered(context) {
        // What was left of the request is nobody's concern: the outcome is that of the answer.
        error.set_retry(false);
        return error;
    }
    // The engine knows of HTTP/2 streams that the server has not looked at (RFC 9113, section 8.7).
    let unseen = *error.etype() == ErrorType::H2Error && error.retry();
    let whole = !session.as_ref().retry_buffer_truncated() && !failure::has_begun(session);
    let replayable = session.req_header().method.is_idempotent() && whole;
    let silent =
        context.arrival().is_ok_and(|arrival| arrival.connection.fired() == Some(Timer::UpstreamRead));
    let by_upstream = silent || *error.esource() == ErrorSource::Upstream;
    let gone =
        matches!(error.etype(), ErrorType::ReadError | ErrorType::WriteError | ErrorType::ConnectionClosed);
    let stale = reused && gone && replayable;
    let retry = by_upstream && !silent && (stale || (unseen && whole));
    error.set_retry(retry);
    if by_upstream && unseen {
        // What is told when nobody else can be asked.
        context.reason = Some(Reason::NO_HEALTHY_UPSTREAM);
    }
    if let Ok(pinned) = context.pinned()
        && let Some(attempt) = pinned.tries.current.take()
    {
        if retry {
            let (tries, id) = (&mut pinned.tries, attempt.endpoint().id());
            if !unseen || !tries.refused.contains(id) {
                tries.tried.remove(id);
            }
            if unseen {
                tries.refused.insert(id);
            }
            attempt.endpoint().metrics().record("stale_connection", None);
        } else if by_upstream {
            attempt.permit.failed();
            let outcome = if silent { "read_timeout" } else { failure::upstream_outcome(&error) };
            attempt.endpoint().metrics().record(outcome, attempt.to_head);
        } else {
            attempt.endpoint().metrics().record("aborted", attempt.to_head);
        }
    }
    error
}

/// Whether the client has its whole answer, and only the rest of its request was missing.
pub(super) fn is_answered(context: &Context) -> bool {
    context.arrival().is_ok_and(|arrival| arrival.connection.is_answered())
}

/// The endpoint's response head is here.
pub(super) fn answered(context: &mut Context) -> Result<()> {
    let now = Instant::now();
    let (arrival, pinned) = context.parts()?;
    arrival.connection.responding(now);
    let tries = &mut pinned.tries;
    if let Some(attempt) = &mut tries.current {
        attempt.to_head = Some(now.duration_since(attempt.begun));
    }
    tries.to_head = tries.first.map(|first| now.duration_since(first));
    context.reason = None;
    Ok(())
}
