//! What keeps a request from an upstream, and the telling of it.

use std::convert::Infallible;
use std::time::Duration;

use http::header::{HeaderValue, RETRY_AFTER};
use pingora::{Error, Result};

use super::context::Context;
use super::failure::{self, LAST_WORDS};
use crate::exchange::{Reason, Reply};
use crate::upstream::{Refused, Unavailable};

/// Why an attempt is not made.
pub(super) enum Obstacle {
    /// Nobody can be asked.
    Nobody(Unavailable),
    /// Nobody had room in time, where requests wait for so long.
    Busy(Refused, Duration),
    /// The exchange is over for this reason.
    Fails(Reason),
    /// The client left, or one of the exchange's clocks ran out.
    Broken(Box<Error>),
}

impl From<Box<Error>> for Obstacle {
    fn from(error: Box<Error>) -> Self {
        Self::Broken(error)
    }
}

impl Obstacle {
    /// No attempt is made: what failed last is told, or why none was made at all.
    pub(super) fn tell<T>(self, context: &mut Context, failed: Option<Reason>) -> Result<T> {
        match (self, failed) {
            (Self::Broken(error), _) => Err(error),
            (Self::Fails(reason), _) => context.fail(reason),
            (_, Some(failed)) => context.fail(failed),
            (Self::Nobody(Unavailable::CircuitOpen { retry_after }), _) => {
                refuse(context, Reason::CIRCUIT_OPEN, retry_after)
            }
            (Self::Nobody(_), _) => context.fail(Reason::NO_HEALTHY_UPSTREAM),
            (Self::Busy(Refused::Full, wait), _) => refuse(context, Reason::UPSTREAM_QUEUE_FULL, wait),
            (Self::Busy(Refused::TimedOut, wait), _) => refuse(context, Reason::UPSTREAM_QUEUE_TIMEOUT, wait),
        }
    }

    /// The same, as an answer to a request that is whole or not read yet. An error when the exchange has broken off.
    pub(super) fn reply(mut self, context: &mut Context, failed: Option<Reason>) -> Result<Reply> {
        // A wait ends when its exchange's time does, and so does whatever is read meanwhile: which is first is chance.
        if let (Self::Broken(_), Some(timer)) = (&self, context.arrival()?.connection.fired()) {
            self = Self::Fails(failure::of_the_clock(timer));
        }
        let fails = matches!(self, Self::Fails(_));
        let Err(error) = self.tell::<Infallible>(context, failed);
        let connection = &context.arrival()?.connection;
        if fails {
            if !connection.request_complete() {
                return Err(error);
            }
            // The clock that has run out must not end the reply to it.
            connection.last_words(LAST_WORDS);
        }
        match (context.reply.take(), context.reason.take()) {
            (Some(reply), _) => Ok(*reply),
            (None, Some(reason)) => Ok(Reply::refuse(reason)),
            (None, None) => Err(error),
        }
    }
}

/// Refuses the request for so long.
fn refuse<T>(context: &mut Context, reason: Reason, retry_after: Duration) -> Result<T> {
    // Whole seconds, and not too early.
    let seconds = retry_after.as_millis().div_ceil(1000).max(1);
    let seconds = HeaderValue::from(u64::try_from(seconds).unwrap_or(u64::MAX));
    context.reply = Some(Box::new(Reply::refuse(reason).header(RETRY_AFTER, seconds)));
    context.fail(reason)
}
