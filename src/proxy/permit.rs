//! Leave to make an attempt: at once where an endpoint has room, or after some waiting.

use std::time::Instant;

use pingora::Result;
use pingora_proxy::Session;

use super::context::Context;
use super::obstacle::Obstacle;
use super::{attempt, queue, wish};
use crate::exchange::{Reason, Reply};
use crate::upstream::{End, Outcome, Permit, Unavailable};

/// Has the permit for the first attempt before the engine comes for it: a client that is refused now, by the answer that
/// this gives, keeps its connection.
pub(super) async fn first(session: &mut Session, context: &mut Context) -> Result<Option<Reply>> {
    let pinned = context.pinned()?;
    pinned.tries.wish = wish::of(pinned, session.req_header());
    let now = Instant::now();
    let permit = match attempt::choose(context, now) {
        Ok(Ok(permit)) if !is_in_turn(&permit) => Ok((permit, now)),
        // What few requests need is boxed, so that the others do not carry the room for it.
        Ok(chosen) => Box::pin(of(session, context, chosen, now)).await,
        Err(obstacle) => Err(obstacle),
    };
    match permit {
        Ok(ready) => {
            context.pinned()?.tries.ready = Some(ready);
            Ok(None)
        }
        Err(obstacle) => {
            let failed = context.reason.take();
            obstacle.reply(context, failed).map(Some)
        }
    }
}

/// Whether the attempt waits until nobody else looks for a connection to its endpoint.
fn is_in_turn(permit: &Permit) -> bool {
    permit.endpoint().max_sockets().is_some()
}

/// Leave to make an attempt, and when it was given. Waits where those chosen are busy.
pub(super) async fn of(
    session: &mut Session,
    context: &mut Context,
    mut chosen: Result<Permit, Unavailable>,
    mut now: Instant,
) -> Result<(Permit, Instant), Obstacle> {
    loop {
        let mut permit = match chosen {
            Ok(permit) => permit,
            Err(Unavailable::Busy(endpoint)) => {
                let permit = queue::for_room(session, context, endpoint).await?;
                now = Instant::now();
                permit
            }
            Err(unavailable) => return Err(Obstacle::Nobody(unavailable)),
        };
        if !is_in_turn(&permit) {
            return Ok((permit, now));
        }
        let own = context.arrival()?.head.upgrade;
        if permit.endpoint().is_crowded(own) {
            if let Some(other) = elsewhere(context, &permit, now)? {
                chosen = other;
                continue;
            }
            queue::for_socket(session, context, &permit, own).await?;
        }
        let most = context.pinned()?.route.bounds.upstream.connect.min(attempt::left(context)?.0);
        let is_next = queue::for_turn(session, &mut permit, most).await?;
        now = Instant::now();
        if is_next && permit.endpoint().is_crowded(own) {
            // Another was faster.
            permit.connected();
            chosen = Ok(permit);
            continue;
        }
        if is_next {
            return Ok((permit, now));
        }
        // Those before it have not got one in all this time: others may be easier to come by.
        let outcome = Outcome { end: End::ConnectTimeout, to_head: None };
        permit.judge(outcome, now);
        context.reason = Some(Reason::UPSTREAM_CONNECT_TIMEOUT);
        context.pinned()?.tries.tried.insert(permit.endpoint().id());
        drop(permit);
        chosen = attempt::choose(context, now)?;
    }
}

/// Who else can be asked in place of an endpoint that can have no more connections, if anybody can.
fn elsewhere(
    context: &mut Context,
    permit: &Permit,
    now: Instant,
) -> Result<Option<Result<Permit, Unavailable>>, Obstacle> {
    let id = permit.endpoint().id();
    let upstream = attempt::upstream(context)?;
    let tried = &mut context.pinned()?.tries.tried;
    tried.insert(id);
    if !upstream.has_other(tried, now) {
        tried.remove(id);
        return Ok(None);
    }
    attempt::choose(context, now).map(Some)
}
