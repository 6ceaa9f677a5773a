//! Hedged requests: one that waits long for its answer is sent to a second endpoint too, and the first of the two answers is
//! passed on.
//!
//! 1. Only what may be sent twice, has no body, and can neither become something else nor go on for hours: no upgrades, no calls.
//! 2. The first attempt is made as ever. Where its head is not there in time, a second is, at an endpoint that was not tried:
//!    once, out of the upstream's retry budget, and only where one has room now.
//! 3. What fails, or answers with a status that the route would try again after, loses while the other is under way. Alone, it
//!    ends as on the engine's way: passed on, told, or tried again, by the engine then.
//! 4. The loser is given up, or waited for though nobody will get its answer: [`outrun`] says when.

use std::future::poll_fn;
use std::sync::Arc;
use std::task::Poll;
use std::time::{Duration, Instant};

use http::StatusCode;
use pingora::http::{RequestHeader, ResponseHeader};
use pingora::protocols::http::HttpTask;
use pingora::upstreams::peer::HttpPeer;
use pingora::{Error, ErrorType, Result};
use pingora_proxy::Session;

use super::context::Context;
use super::lane::{self, Due, Held, Lane, Step};
use super::{Gateway, attempt, failure, outrun, relay, settle};
use crate::exchange::Reason;
use crate::snapshot::Target;
use crate::upstream::{End, Hedged, RetryOn};

/// How long the request's answer is waited for before a second endpoint is asked too; `None` when none ever is.
pub(super) fn delay(session: &Session, context: &mut Context) -> Result<Option<Duration>> {
    let (arrival, pinned) = context.parts()?;
    let bounds = &pinned.route.bounds;
    let (Some(after), Target::Upstream(upstream)) = (bounds.hedge, &pinned.route.target) else {
        return Ok(None);
    };
    let (head, request) = (&arrival.head, session.req_header());
    if arrival.has_body()
        || head.upgrade
        || head.expect_continue
        || pinned.call.is_some()
        || !bounds.retry.methods.contains(&request.method)
        || !lane::is_plain(request)
    {
        return Ok(None);
    }
    let now = Instant::now();
    let (left, _) = pinned.left(arrival, now);
    let most = bounds.deadlines.per_try.map_or(left, |per_try| left.min(per_try));
    Ok(upstream.hedge_after(after, now).filter(|delay| *delay < most))
}

/// Asks one endpoint, then perhaps another, and passes the first answer on. False when the request is to go the ordinary way
/// from here.
pub(super) async fn exchange(
    gateway: &Gateway,
    session: &mut Session,
    context: &mut Context,
    delay: Duration,
) -> Result<bool> {
    let peer = attempt::next(session, context).await?;
    let mut race = Race { gateway, delay, lanes: Vec::with_capacity(2), is_late: false };
    race.begin(context, peer, false)?;
    let error = match race.run(session, context).await {
        Ended::Failed(error) => error,
        Ended::Won(mut held, head) => {
            match relay::pass_on(gateway, session, context, &mut held, head).await {
                Ok(()) => {
                    held.release().await;
                    return Ok(true);
                }
                Err(error) => attempt::broken(session, context, error, held.reused),
            }
        }
    };
    if error.retry() { Ok(false) } else { Err(error) }
}

/// The attempts under way, at most two.
struct Race<'a> {
    gateway: &'a Gateway,
    delay: Duration,
    lanes: Vec<Lane>,
    is_late: bool,
}

/// What became of a race.
enum Ended {
    Won(Held, HttpTask),
    /// What the last attempt ended with, in the engine's terms.
    Failed(Box<Error>),
}

/// What happens while an answer is waited for.
enum Event {
    Step(usize, Step),
    Late,
    Gone(Box<Error>),
}

impl Race<'_> {
    async fn run(&mut self, session: &mut Session, context: &mut Context) -> Ended {
        let mut late = std::pin::pin!(tokio::time::sleep(self.delay));
        loop {
            let event = tokio::select! {
                biased;
                (at, step) = next(&mut self.lanes) => Event::Step(at, step),
                () = &mut late, if !self.is_late => Event::Late,
                gone = session.as_downstream_mut().read_body_or_idle(true) => Event::Gone(relay::left(gone.err())),
            };
            let (at, step) = match event {
                Event::Step(at, step) => (at, step),
                Event::Gone(error) => return self.fails(0, error, false, session, context),
                Event::Late => {
                    self.is_late = true;
                    if let Err(error) = self.hedge(context) {
                        return self.fails(0, error, false, session, context);
                    }
                    continue;
                }
            };
            match step {
                Step::Connected(Ok(held)) => match self.head(at, &held, session, context) {
                    Ok((head, due)) => self.lanes[at].work = Box::pin(lane::ask(held, head, None, due)),
                    Err(error) => return self.fails(at, error, held.reused, session, context),
                },
                Step::Answered(_, head)
                    if lane::is_interim(&head) && self.lanes.len() > 1 && !settles(&head, session) =>
                {
                    self.loses(at, End::Invalid, context);
                }
                Step::Answered(held, head) if lane::is_interim(&head) => {
                    if let Err(error) = relay::interim(self.gateway, session, context, head).await {
                        return self.fails(at, error, held.reused, session, context);
                    }
                    let due = self.lanes[at].due;
                    self.lanes[at].work = Box::pin(lane::ask_on(held, due));
                }
                Step::Answered(held, head) => match self.loses_by(&head, session, context) {
                    Some(end) => self.loses(at, end, context),
                    None => return self.wins(at, held, head, context),
                },
                Step::Connected(Err(error)) if self.lanes.len() == 1 => {
                    return self.has_no_connection(error, session, context);
                }
                Step::Connected(Err(error)) => {
                    log::debug!("one of two attempts: {error}");
                    self.loses(at, attempt::end_of_connecting(&error), context);
                }
                Step::Broken(error, reused) if self.lanes.len() == 1 => {
                    return self.fails(at, error, reused, session, context);
                }
                Step::Broken(error, reused) => {
                    log::debug!("one of two attempts: {error}");
                    let soon = self.lanes[at]
                        .attempt
                        .as_ref()
                        .is_some_and(|attempt| attempt.begun.elapsed() < attempt::SOON);
                    self.loses(at, end_of(&error, reused && soon), context);
                }
            }
        }
    }

    /// Begins the exchange's current attempt.
    fn begin(&mut self, context: &mut Context, peer: Box<HttpPeer>, second: bool) -> Result<()> {
        let attempt = context.pinned()?.tries.current.take();
        self.lanes.push(Lane::begin(Arc::clone(&self.gateway.outbound), peer, attempt, second));
        Ok(())
    }

    /// Begins a second attempt, if there is somebody to ask and leave to.
    fn hedge(&mut self, context: &mut Context) -> Result<()> {
        let upstream = attempt::upstream(context)?;
        let now = Instant::now();
        let tries = &mut context.pinned()?.tries;
        if !upstream.has_other(&tries.tried, now) {
            upstream.hedged(Hedged::Nobody);
            return Ok(());
        }
        let chosen = upstream.choose(&mut tries.tried, tries.wish, now).ok();
        // Where the endpoints have changed meanwhile, nobody was tried.
        let other = chosen.filter(|permit| Some(permit.endpoint().address()) != tries.last_endpoint);
        let Some(permit) = other else {
            upstream.hedged(Hedged::Nobody);
            return Ok(());
        };
        // Paid for only now that there is somebody who has room.
        if !upstream.may_hedge(now) {
            tries.tried.remove(permit.endpoint().id());
            upstream.hedged(Hedged::OverBudget);
            return Ok(());
        }
        let peer = attempt::begin(context, permit, now)?;
        self.begin(context, peer, true)
    }

    /// The request head for an attempt that has a connection, and until when its answer is waited for.
    fn head(
        &mut self,
        at: usize,
        held: &Held,
        session: &Session,
        context: &mut Context,
    ) -> Result<(Box<RequestHeader>, Due)> {
        let lane = &mut self.lanes[at];
        let begun = lane.attempt.as_ref().map(|attempt| attempt.begun);
        context.pinned()?.tries.current = lane.attempt.take();
        let head = held.head(session, context);
        let (arrival, pinned) = context.parts()?;
        lane.attempt = pinned.tries.current.take();
        // The wire has one clock for attempts: here each has its own.
        arrival.connection.rearm();
        let (bounds, now) = (&pinned.route.bounds, Instant::now());
        let read = Due { at: now + bounds.upstream.read, told: Reason::UPSTREAM_READ_TIMEOUT };
        let per_try = bounds.deadlines.per_try.zip(begun);
        let per_try = per_try.map(|(per_try, begun)| Due { at: begun + per_try, told: Reason::TRY_TIMEOUT });
        lane.due = per_try.filter(|per_try| per_try.at < read.at).unwrap_or(read);
        Ok((head?, lane.due))
    }

    /// What an attempt loses by that has this head, while another is under way.
    fn loses_by(&self, head: &HttpTask, session: &Session, context: &mut Context) -> Option<End> {
        let HttpTask::Header(head, _) = head else { return None };
        let status = head.status.as_u16();
        let policy = &context.pinned().ok()?.route.bounds.retry;
        match self.lanes.len() {
            1 => None,
            _ if policy.on.contains(RetryOn::Status(status)) => Some(End::Answered(status, None)),
            _ if head.status == StatusCode::SWITCHING_PROTOCOLS => Some(End::Invalid),
            _ => (!is_sound(head, session)).then_some(End::Invalid),
        }
    }

    /// An attempt ends so, and the other goes on.
    fn loses(&mut self, at: usize, end: End, context: &mut Context) {
        let mut lane = self.lanes.remove(at);
        count(&lane, Hedged::Lost, context);
        let now = Instant::now();
        if let Some(mut attempt) = lane.attempt.take() {
            if let End::Answered(..) = end {
                attempt.to_head = Some(now.duration_since(attempt.begun));
            }
            attempt.settle(end, now);
        }
    }

    /// An attempt's answer is passed on.
    fn wins(&mut self, at: usize, held: Held, head: HttpTask, context: &mut Context) -> Ended {
        let now = Instant::now();
        let mut lane = self.lanes.remove(at);
        count(&lane, Hedged::Won, context);
        for lane in self.lanes.drain(..) {
            count(&lane, Hedged::Lost, context);
            outrun::end(lane, self.delay, now);
        }
        if let Ok((arrival, pinned)) = context.parts() {
            // From the head on the wire's clock is the right one again.
            arrival.connection.asking(now, pinned.route.bounds.upstream.read, None);
            let tries = &mut pinned.tries;
            tries.current = lane.attempt.take();
            tries.last_endpoint = tries.current.as_ref().map(|attempt| attempt.endpoint().address());
        }
        Ended::Won(held, head)
    }

    /// The last attempt, or the exchange, failed.
    fn fails(
        &mut self,
        at: usize,
        error: Box<Error>,
        reused: bool,
        session: &mut Session,
        context: &mut Context,
    ) -> Ended {
        self.ends_with(at, context);
        Ended::Failed(attempt::broken(session, context, error, reused))
    }

    fn has_no_connection(&mut self, error: Box<Error>, session: &Session, context: &mut Context) -> Ended {
        self.ends_with(0, context);
        Ended::Failed(attempt::not_connected(session, context, error).into_up())
    }

    /// Makes this attempt the exchange's current one, and gives the other up.
    fn ends_with(&mut self, at: usize, context: &mut Context) {
        let now = Instant::now();
        for (place, mut lane) in self.lanes.drain(..).enumerate() {
            count(&lane, Hedged::Lost, context);
            match (lane.attempt.take(), context.pinned()) {
                (Some(attempt), Ok(pinned)) if place == at => {
                    pinned.tries.last_endpoint = Some(attempt.endpoint().address());
                    pinned.tries.current = Some(attempt);
                }
                (Some(attempt), _) => attempt.settle(End::Aborted, now),
                (None, _) => {}
            }
        }
    }
}

/// The next step of any attempt.
async fn next(lanes: &mut [Lane]) -> (usize, Step) {
    poll_fn(|cx| {
        let ready = |(at, lane): (usize, &mut Lane)| match lane.work.as_mut().poll(cx) {
            Poll::Ready(step) => Some((at, step)),
            Poll::Pending => None,
        };
        lanes.iter_mut().enumerate().find_map(ready).map_or(Poll::Pending, Poll::Ready)
    })
    .await
}

/// Whether a head could be passed on.
fn settles(head: &HttpTask, session: &Session) -> bool {
    match head {
        HttpTask::Header(head, _) => is_sound(head, session),
        _ => true,
    }
}

fn is_sound(head: &ResponseHeader, session: &Session) -> bool {
    settle::response(&mut head.clone(), session.req_header().version)
}

/// How an attempt whose connection broke ended, where nobody waits for it. `stale` is one that had been used before, and
/// broke at once.
pub(super) fn end_of(error: &Error, stale: bool) -> End {
    if *error.etype() == ErrorType::H2Error && error.retry() {
        return End::Refused;
    }
    match failure::upstream_end(error) {
        End::Reset if stale => End::Stale,
        end => end,
    }
}

/// Counts what became of a hedge, if this was one.
fn count(lane: &Lane, hedged: Hedged, context: &mut Context) {
    if lane.second
        && let Ok(upstream) = attempt::upstream(context)
    {
        upstream.hedged(hedged);
    }
}
