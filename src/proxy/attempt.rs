//! Attempts at an upstream: the choice of an endpoint, and what became of it.

use std::mem;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use http::header::{HeaderName, RETRY_AFTER};
use pingora::http::{RequestHeader, ResponseHeader};
use pingora::upstreams::peer::HttpPeer;
use pingora::{Error, ErrorSource, ErrorType, Result};
use pingora_proxy::Session;

use super::context::{Attempt, Context, Pinned};
use super::obstacle::Obstacle;
use super::{failure, peer, permit, queue, sockets};
use crate::edge::{Arrival, Timer};
use crate::exchange::{Reason, grpc};
use crate::snapshot::Target;
use crate::types::retry_after;
use crate::upstream::{End, Permit, RetryOn, RetryPolicy, Tried, Unavailable, Upstream};

/// Says that a request may be sent twice (draft-ietf-httpapi-idempotency-key-header).
const IDEMPOTENCY_KEY: HeaderName = HeaderName::from_static("idempotency-key");

/// How soon a connection that had been closed before breaks, and how many of those one request may meet.
pub(super) const SOON: Duration = Duration::from_secs(1);
const STALE: u32 = 4;

/// The next endpoint to try, after the pause that a retry has.
pub(super) async fn next(session: &mut Session, context: &mut Context) -> Result<Box<HttpPeer>> {
    match context.pinned()?.tries.ready.take() {
        Some((permit, now)) => begin(context, permit, now),
        None => Box::pin(again(session, context)).await,
    }
}

async fn again(session: &mut Session, context: &mut Context) -> Result<Box<HttpPeer>> {
    if let Some(pause) = context.pinned()?.tries.pause.take() {
        queue::or_client_leaves(session, tokio::time::sleep(pause)).await?;
    }
    let failed = context.reason.take();
    let now = Instant::now();
    let permit = match choose(context, now) {
        Ok(chosen) => permit::of(session, context, chosen, now).await,
        Err(obstacle) => Err(obstacle),
    };
    match permit {
        Ok((permit, now)) => begin(context, permit, now),
        Err(obstacle) => {
            let failed = context.reason.take().or(failed);
            obstacle.tell(context, failed)
        }
    }
}

/// The upstream of the exchange's route.
pub(super) fn upstream(context: &mut Context) -> Result<Arc<Upstream>> {
    match &context.pinned()?.route.target {
        Target::Upstream(upstream) => Ok(Arc::clone(upstream)),
        _ => context.fail(Reason::BUG),
    }
}

/// What is left of the exchange's time until the response head, and the clock that says so.
pub(super) fn left(context: &mut Context) -> Result<(Duration, Timer), Obstacle> {
    let (arrival, pinned) = context.parts()?;
    let (left, timer) = pinned.left(arrival, Instant::now());
    if left.is_zero() { Err(Obstacle::Fails(failure::of_the_clock(timer))) } else { Ok((left, timer)) }
}

/// Chooses an endpoint that was not tried yet, or says why there is none.
pub(super) fn choose(context: &mut Context, now: Instant) -> Result<Result<Permit, Unavailable>, Obstacle> {
    let (arrival, pinned) = context.parts()?;
    let Target::Upstream(upstream) = &pinned.route.target else {
        return Err(Obstacle::Fails(Reason::BUG));
    };
    let (left, timer) = pinned.left(arrival, now);
    if left.is_zero() {
        return Err(Obstacle::Fails(failure::of_the_clock(timer)));
    }
    let tries = &mut pinned.tries;
    if !mem::replace(&mut tries.counted, true) {
        upstream.asked(now);
    }
    let chosen = upstream.choose(&mut tries.tried, tries.wish, now);
    if !matches!(chosen, Err(Unavailable::NoneHealthy | Unavailable::CircuitOpen { .. }))
        || tries.retries == 0
        || tries.tried.is_empty()
    {
        return Ok(chosen);
    }
    // There is no other: one that failed before may have recovered in the pause.
    tries.tried = Tried::default();
    Ok(upstream.choose(&mut tries.tried, tries.wish, now))
}

/// Begins an attempt that there is leave for.
pub(super) fn begin(context: &mut Context, permit: Permit, now: Instant) -> Result<Box<HttpPeer>> {
    let (arrival, pinned) = context.parts()?;
    let Target::Upstream(upstream) = &pinned.route.target else {
        return context.fail(Reason::BUG);
    };
    let (left, _) = pinned.left(arrival, now);
    let deadlines = &pinned.route.bounds.deadlines;
    let left = deadlines.per_try.map_or(left, |per_try| left.min(per_try));
    let mut peer =
        peer::to(permit.endpoint(), upstream, arrival, &pinned.route, pinned.call.is_some(), (now, left));
    let tries = &mut pinned.tries;
    if let Some(most) = permit.endpoint().max_sockets() {
        sockets::count(&mut peer, permit.endpoint(), most, tries.looked, arrival.head.upgrade);
    }
    tries.tried.insert(permit.endpoint().id());
    tries.count += 1;
    tries.first.get_or_insert(now);
    tries.last_endpoint = Some(permit.endpoint().address());
    let permit = if tries.retries > 0 { permit.as_retry() } else { permit };
    tries.current = Some(Attempt { permit, begun: now, to_head: None, status: None });
    Ok(peer)
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

/// How an attempt that got no connection ended.
pub(super) fn end_of_connecting(error: &Error) -> End {
    match error.etype() {
        ErrorType::ConnectTimedout => End::ConnectTimeout,
        _ if is_of_tls(error) => End::TlsFailed,
        _ => End::ConnectFailed,
    }
}

/// No connection was made, so nothing was sent: the request goes to an endpoint that was not tried yet at no cost, whatever
/// its method; where there is none, it goes again like others.
pub(super) fn not_connected(session: &Session, context: &mut Context, mut error: Box<Error>) -> Box<Error> {
    if let Ok(pinned) = context.pinned()
        && let Some(pause) = sockets::pause(&error, pinned.tries.looked)
    {
        pinned.tries.look_again(pause);
        error.set_retry(true);
        return error;
    }
    let now = Instant::now();
    let end = end_of_connecting(&error);
    // The exchange's own haste is not the endpoint's fault.
    let hurried =
        end == End::ConnectTimeout && context.pinned.as_ref().is_some_and(|pinned| is_hurried(pinned, now));
    let clock = context.arrival().ok().and_then(|arrival| arrival.connection.left_for_head(now));
    let late = clock.filter(|(left, _)| left.is_zero() || hurried).map(|(_, timer)| timer);
    context.reason = Some(match (end, late) {
        (End::ConnectTimeout, Some(timer)) => failure::of_the_clock(timer),
        (End::ConnectTimeout, None) => Reason::UPSTREAM_CONNECT_TIMEOUT,
        (End::TlsFailed, _) => Reason::UPSTREAM_TLS_FAILED,
        _ => Reason::UPSTREAM_CONNECT_FAILED,
    });
    let retry = context.parts().is_ok_and(|(arrival, pinned)| {
        if let Some(attempt) = pinned.tries.current.take() {
            log::debug!("upstream endpoint {}: {error}", attempt.endpoint().address());
            attempt.settle(if hurried { End::Aborted } else { end }, now);
        }
        late.is_none()
            && (goes_elsewhere(pinned, now) || goes_again(session, arrival, pinned, end.cause(), None, now))
    });
    error.set_retry(retry);
    error
}

/// Whether the attempt under way had less time to be connected than its route gives it.
fn is_hurried(pinned: &Pinned, now: Instant) -> bool {
    let bounds = &pinned.route.bounds;
    let connect = bounds.upstream.connect;
    let due = bounds.deadlines.per_try.map_or(connect, |per_try| per_try.min(connect));
    // Clocks differ a little.
    pinned.tries.current.as_ref().is_some_and(|attempt| now.duration_since(attempt.begun) < due * 9 / 10)
}

/// Whether there is an endpoint that was not tried yet, and the route lets failed connections be made up for.
fn goes_elsewhere(pinned: &Pinned, now: Instant) -> bool {
    let policy = &pinned.route.bounds.retry;
    let Target::Upstream(upstream) = &pinned.route.target else { return false };
    // Once each, not once each time.
    let first = pinned.tries.retries == 0;
    first && policy.wants(RetryOn::ConnectFailure, 0, true) && upstream.has_other(&pinned.tries.tried, now)
}

/// Whether the request goes again, by its route's policy and its upstream's budget; notes the pause before it.
/// `asked_pause` is what the upstream wants to be left alone for.
fn goes_again(
    session: &Session,
    arrival: &Arrival,
    pinned: &mut Pinned,
    cause: Option<RetryOn>,
    asked_pause: Option<Duration>,
    now: Instant,
) -> bool {
    let policy = &pinned.route.bounds.retry;
    let Some(cause) = cause else { return false };
    let Target::Upstream(upstream) = &pinned.route.target else { return false };
    if !policy.wants(cause, pinned.tries.retries, may_repeat(policy, session.req_header())) {
        return false;
    }
    let pause = policy.backoff.pause(pinned.tries.retries + 1, fastrand::f64());
    let pause = asked_pause.map_or(pause, |asked| asked.max(pause));
    if pinned.left(arrival, now).0 <= pause || !upstream.may_retry(now) {
        return false;
    }
    pinned.tries.retries += 1;
    pinned.tries.pause = Some(pause);
    arrival.connection.rearm();
    true
}

/// Whether a request may be sent twice.
pub(super) fn may_repeat(policy: &RetryPolicy, request: &RequestHeader) -> bool {
    policy.methods.contains(&request.method) || request.headers.contains_key(IDEMPOTENCY_KEY)
}

/// The exchange with an endpoint broke. A pooled connection that the endpoint had closed in the meantime tells
/// nothing of the endpoint: an idempotent request whose body is still here goes again. So does what an endpoint has refused
/// unseen, to any of them, once; then to those not tried yet, within the upstream's budget. What else broke before its
/// answer began goes again by the route's policy.
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
    let pinned = context.pinned.as_ref();
    let whole = pinned.is_some_and(|pinned| pinned.kept.is_whole()) && !failure::has_begun(session);
    let had_its_time = pinned.is_some_and(|pinned| had_its_time(pinned));
    let end = context.arrival().map_or(End::Aborted, |arrival| match arrival.connection.fired() {
        Some(Timer::UpstreamRead) => End::ReadTimeout,
        Some(Timer::Request | Timer::Total) if had_its_time => End::ReadTimeout,
        Some(Timer::Try) => End::TryTimeout,
        _ if *error.esource() != ErrorSource::Upstream => End::Aborted,
        _ if unseen => End::Refused,
        _ => failure::upstream_end(&error),
    });
    let stale = end == End::Reset && reused && whole && session.req_header().method.is_idempotent();
    if end == End::Refused {
        // What is told when nobody else can be asked.
        context.reason = Some(Reason::NO_HEALTHY_UPSTREAM);
    }
    let now = Instant::now();
    let Context { arrival: Some(arrival), pinned: Some(pinned), reason, .. } = context else { return error };
    let mut go_on = |pinned: &mut Pinned| {
        let Some(attempt) = pinned.tries.current.take() else {
            // Its answer was one to try again after: that is settled.
            return pinned.tries.pause.is_some();
        };
        let tries = &mut pinned.tries;
        let stale = stale && now.duration_since(attempt.begun) < SOON && tries.stale < STALE;
        if !(stale || end == End::Refused && whole) {
            attempt.settle(end, now);
            let again = whole && goes_again(session, arrival, pinned, end.cause(), None, now);
            if again {
                *reason = failure::of_the_end(end);
            }
            return again;
        }
        tries.stale += u32::from(stale);
        arrival.connection.rearm();
        let again = !stale && mem::replace(&mut tries.refused, true);
        if !again {
            tries.tried.remove(attempt.endpoint().id());
        }
        attempt.settle(if stale { End::Stale } else { end }, now);
        !again || goes_on(pinned, now)
    };
    error.set_retry(go_on(pinned));
    error
}

/// Whether a request that was refused unseen more than once goes to another endpoint: an upstream that refuses all of them
/// is not to be asked as often as it has endpoints.
fn goes_on(pinned: &Pinned, now: Instant) -> bool {
    let Target::Upstream(upstream) = &pinned.route.target else { return false };
    upstream.has_other(&pinned.tries.tried, now) && upstream.may_retry(now)
}

/// Whether the attempt under way had so much time for its answer that it is the endpoint who took too long.
fn had_its_time(pinned: &Pinned) -> bool {
    let bounds = &pinned.route.bounds;
    let enough = bounds.upstream.read.min(bounds.deadlines.request / 2);
    let mut attempts = pinned.tries.current.iter();
    attempts.any(|attempt| attempt.status.is_none() && attempt.begun.elapsed() >= enough)
}

/// Whether the client has its whole answer, and only the rest of its request was missing.
pub(super) fn is_answered(context: &Context) -> bool {
    context.arrival().is_ok_and(|arrival| arrival.connection.is_answered())
}

/// The endpoint's response head is here. An answer to try again after ends the attempt.
pub(super) fn answered(session: &Session, head: &ResponseHeader, context: &mut Context) -> Result<()> {
    let now = Instant::now();
    let (arrival, pinned) = context.parts()?;
    if let Some(attempt) = &mut pinned.tries.current {
        attempt.to_head = Some(now.duration_since(attempt.begun));
        attempt.status = Some(head.status.as_u16());
    }
    if is_to_be_replaced(session, head, arrival, pinned, now) {
        let end = End::Answered(head.status.as_u16(), grpc::status(&head.headers));
        if let Some(attempt) = pinned.tries.current.take() {
            attempt.settle(end, now);
        }
        let mut error = Error::new(ErrorType::Custom("an answer to try again after")).into_up();
        error.set_retry(true);
        return Err(error);
    }
    arrival.connection.responding(now);
    let tries = &mut pinned.tries;
    if let Some(attempt) = tries.current.as_mut().filter(|attempt| attempt.permit.is_trial()) {
        // A half-open breaker has few places, and a body may take its time.
        attempt.judge(End::Answered(head.status.as_u16(), grpc::status(&head.headers)), now);
    }
    tries.to_head = tries.first.map(|first| now.duration_since(first));
    context.reason = None;
    Ok(())
}

fn is_to_be_replaced(
    session: &Session,
    head: &ResponseHeader,
    arrival: &Arrival,
    pinned: &mut Pinned,
    now: Instant,
) -> bool {
    let policy = &pinned.route.bounds.retry;
    let status = RetryOn::Status(head.status.as_u16());
    let of_a_call = pinned.call.and_then(|_| grpc::status(&head.headers)).map(RetryOn::Grpc);
    let causes = [Some(status), of_a_call].into_iter().flatten();
    let Some(cause) = causes.into_iter().find(|cause| policy.on.contains(*cause)) else { return false };
    if !pinned.kept.is_whole() {
        return false;
    }
    let wish = head.headers.get(RETRY_AFTER).and_then(|wish| wish.to_str().ok());
    let wish = wish.and_then(|wish| retry_after(wish, SystemTime::now()));
    if wish.is_some_and(|wish| wish > policy.max_retry_after) {
        return false;
    }
    goes_again(session, arrival, pinned, Some(cause), wish, now)
}
