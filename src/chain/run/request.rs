//! The request hooks: those that answer at once, and those that wait.

use std::panic::AssertUnwindSafe;

use futures_util::FutureExt;

use super::{Chain, Slots, Verdict, guard, settled, waits_in_vain};
use crate::chain::{Flow, Phases};
use crate::exchange::{Exchange, Result};

/// By which hooks a filter sees the request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Hooks {
    /// [`Filter::request`](crate::chain::Filter::request).
    AtOnce,
    /// [`Filter::request_wait`](crate::chain::Filter::request_wait).
    Waiting,
    /// The second where the first says so.
    Both,
}

/// How far a request has come without waiting.
pub enum Progress {
    /// Through the chain, or to the filter that answered.
    Done(Option<Verdict>),
    /// To a filter that waits.
    Waits(Waits),
}

/// Where in a chain a request waits.
pub struct Waits {
    /// Among the links that see requests.
    position: usize,
    /// Among all.
    at: u16,
}

impl Hooks {
    /// Those that a filter has, if any.
    pub(super) fn of(phases: Phases) -> Option<Self> {
        match (phases.contains(Phases::REQUEST), phases.contains(Phases::REQUEST_WAIT)) {
            (true, false) => Some(Self::AtOnce),
            (false, true) => Some(Self::Waiting),
            (true, true) => Some(Self::Both),
            (false, false) => None,
        }
    }
}

impl Chain {
    /// Runs the request hooks in order, until one answers.
    pub async fn request(&self, slots: &mut Slots, exchange: &mut Exchange<'_>) -> Result<Option<Verdict>> {
        match self.request_at_once(slots, exchange)? {
            Progress::Done(verdict) => Ok(verdict),
            Progress::Waits(waits) => self.request_on(waits, slots, exchange).await,
        }
    }

    /// Runs the request hooks in order, until one answers or waits.
    pub fn request_at_once(&self, slots: &mut Slots, exchange: &mut Exchange<'_>) -> Result<Progress> {
        self.at_once(0, slots, exchange)
    }

    /// Runs the request hooks from the one on that waits, until one answers.
    pub async fn request_on(
        &self,
        mut waits: Waits,
        slots: &mut Slots,
        exchange: &mut Exchange<'_>,
    ) -> Result<Option<Verdict>> {
        loop {
            let Waits { position, at } = waits;
            if let Some((link, slot)) = self.at(slots, at, exchange)? {
                let hook = AssertUnwindSafe(link.filter.0.request_wait(slot, exchange)).catch_unwind();
                match settled(link, hook.await)? {
                    Flow::Continue => {}
                    Flow::Reply(reply) => return Ok(Some(Verdict { filter: link.name, reply })),
                    Flow::Wait => return Err(waits_in_vain(link)),
                }
            }
            waits = match self.at_once(position + 1, slots, exchange)? {
                Progress::Done(verdict) => return Ok(verdict),
                Progress::Waits(waits) => waits,
            };
        }
    }

    fn at_once(&self, from: usize, slots: &mut Slots, exchange: &mut Exchange<'_>) -> Result<Progress> {
        for (position, &(at, hooks)) in self.request.iter().enumerate().skip(from) {
            let Some((link, slot)) = self.at(slots, at, exchange)? else { continue };
            if hooks == Hooks::Waiting {
                return Ok(Progress::Waits(Waits { position, at }));
            }
            match guard(link, || link.filter.0.request(slot, exchange))? {
                Flow::Continue => {}
                Flow::Reply(reply) => {
                    return Ok(Progress::Done(Some(Verdict { filter: link.name, reply })));
                }
                Flow::Wait if hooks == Hooks::Both => return Ok(Progress::Waits(Waits { position, at })),
                Flow::Wait => return Err(waits_in_vain(link)),
            }
        }
        Ok(Progress::Done(None))
    }
}
