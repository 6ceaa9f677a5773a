//! Waiting: for an endpoint that has as many requests as it may have, and for the turn to look for a connection to it.
//!
//! A client that leaves meanwhile is noticed, unless some of its body is still to come: to look would be to read it. Its place
//! is then given back when its time is over.

use std::future::Future;
use std::sync::Arc;
use std::time::{Duration, Instant};

use pingora::{Error, ErrorType};
use pingora_proxy::Session;

use super::context::Context;
use super::obstacle::Obstacle;
use super::{attempt, failure};
use crate::upstream::{Endpoint, Permit, Refused, Unavailable};

/// Waits for this endpoint, or another, to have room.
pub(super) async fn for_room(
    session: &mut Session,
    context: &mut Context,
    mut endpoint: Arc<Endpoint>,
) -> Result<Permit, Obstacle> {
    let patience = endpoint.queue_timeout();
    let until = Instant::now() + patience;
    loop {
        let (left, timer) = attempt::left(context)?;
        let most = until.saturating_duration_since(Instant::now());
        let (arrival, pinned) = context.parts()?;
        // What ran for an attempt before does not run now.
        arrival.connection.rearm();
        let wait = endpoint.wait(pinned.route.bounds.priority, most.min(left));
        let slot = match or_client_leaves(session, wait).await? {
            Ok(slot) => slot,
            Err(Refused::TimedOut) if left <= most => {
                return Err(Obstacle::Fails(failure::of_the_clock(timer)));
            }
            Err(refused) => return Err(Obstacle::Busy(refused, patience)),
        };
        if let Some(permit) = attempt::upstream(context)?.begin(endpoint, slot, Instant::now()) {
            return Ok(permit);
        }
        // It went out of the choice in the meantime.
        endpoint = match attempt::choose(context, Instant::now())? {
            Ok(permit) => return Ok(permit),
            Err(Unavailable::Busy(endpoint)) => endpoint,
            Err(unavailable) => return Err(Obstacle::Nobody(unavailable)),
        };
    }
}

/// Waits until the attempt's endpoint may have another connection, as long as others wait for room.
pub(super) async fn for_socket(
    session: &mut Session,
    context: &mut Context,
    permit: &Permit,
    own: bool,
) -> Result<(), Obstacle> {
    let endpoint = permit.endpoint();
    let patience = endpoint.queue_timeout();
    if !endpoint.has_place_in_queue() {
        return Err(Obstacle::Busy(Refused::Full, patience));
    }
    let (left, timer) = attempt::left(context)?;
    context.arrival()?.connection.rearm();
    let wait = tokio::time::timeout(patience.min(left), endpoint.wait_for_socket(own));
    match or_client_leaves(session, wait).await? {
        Ok(()) => Ok(()),
        Err(_) if left <= patience => Err(Obstacle::Fails(failure::of_the_clock(timer))),
        Err(_) => Err(Obstacle::Busy(Refused::TimedOut, patience)),
    }
}

/// Waits until nobody else looks for a connection to the attempt's endpoint, for as long as it may take to get one. False when
/// others still do.
pub(super) async fn for_turn(
    session: &mut Session,
    permit: &mut Permit,
    most: Duration,
) -> Result<bool, Obstacle> {
    let turn = tokio::time::timeout(most, permit.wait_for_turn());
    Ok(or_client_leaves(session, turn).await?.is_ok())
}

/// What is waited for, unless the client leaves first or a clock of its exchange runs out.
pub(super) async fn or_client_leaves<T>(
    session: &mut Session,
    waited: impl Future<Output = T>,
) -> Result<T, Box<Error>> {
    let client = session.as_downstream_mut();
    if !client.is_body_done() {
        return Ok(waited.await);
    }
    tokio::select! {
        biased;
        done = waited => Ok(done),
        gone = client.read_body_or_idle(true) => {
            let closed = || Error::explain(ErrorType::ConnectionClosed, "the client left its queue");
            Err(gone.err().unwrap_or_else(closed).into_down())
        }
    }
}
