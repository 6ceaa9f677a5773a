//! Leave to make an attempt: at once where an endpoint has room, or after some waiting.

use std::time::Instant;

use pingora::Result;
use pingora_proxy::Session;

use super::context::Context;
use super::obstacle::Obstacle;
use super::{attempt, queue, wish};
use crate::edge::Arrival;
use crate::exchange::{Reason, Reply};
use crate::upstream::{End, Outcome, Permit, Unavailable};

/// Has the permit for the first attempt before the engine comes for it: a client that is refused now, by the answer that
/// this gives, keeps its connection.
pub(super) async fn first(session: &mut Session, context: &mut Context) -> Result<Option<Reply>> {
    let pinned = context.pinned()?;
    pinned.tries.wish = wish::of(pinned, session.req_header());
    let now = Instant::now();
    let permit = match attempt::choose(context, now) {
        Ok(Ok(permit)) if !is_in_turn(&permit, context.arrival()?) => Ok((permit, now)),
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
fn is_in_turn(permit: &Permit, arrival: &Arrival) -> bool {
    permit.endpoint().max_sockets().is_some() && !arrival.head.upgrade
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
        if !is_in_turn(&permit, context.arrival()?) {
            return Ok((permit, now));
        }
        let most = context.pinned()?.route.bounds.upstream.connect.min(attempt::left(context)?.0);
        let is_next = queue::for_turn(session, &mut permit, most).await?;
        now = Instant::now();
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
