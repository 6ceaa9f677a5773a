//! The filters of one route, and the running of them.

use std::panic::{AssertUnwindSafe, catch_unwind};

use bytes::Bytes;
use futures_util::FutureExt;
use smallvec::SmallVec;

use super::erased::SharedFilter;
use super::filter::{Chunk, Flow, LogEntry, Slot};
use super::phases::{Phases, Stage};
use crate::exchange::{Exchange, Fault, Reply, RequestHeader, ResponseHeader, Result};

/// A filter in its place in a chain.
#[derive(Clone)]
pub struct Link {
    /// The filter's name: config key, metric label, docs page.
    pub name: &'static str,
    /// Where it belongs.
    pub stage: Stage,
    /// The filter.
    pub filter: SharedFilter,
}

/// Collects links in the order they are written and puts them in the order they run.
#[derive(Default)]
pub struct ChainBuilder(Vec<Link>);

impl ChainBuilder {
    /// Adds a link after those before it.
    pub fn push(&mut self, link: Link) {
        self.0.push(link);
    }

    /// The chain: by stage, then as written.
    pub fn build(mut self) -> Chain {
        self.0.sort_by_key(|link| link.stage);
        let joined = |phase: Phases| -> Box<[u16]> {
            let joins = |(at, link): (usize, &Link)| {
                link.filter.phases().contains(phase).then(|| u16::try_from(at).ok()).flatten()
            };
            self.0.iter().enumerate().filter_map(joins).collect()
        };
        let request = self.0.iter().enumerate().filter_map(|(at, link)| {
            let phases = link.filter.phases();
            let waits = phases.contains(Phases::REQUEST_WAIT);
            (waits || phases.contains(Phases::REQUEST)).then_some((u16::try_from(at).ok()?, waits))
        });
        Chain {
            request: request.collect(),
            upstream_request: joined(Phases::UPSTREAM_REQUEST),
            request_body: joined(Phases::REQUEST_BODY),
            response: joined(Phases::RESPONSE),
            response_body: joined(Phases::RESPONSE_BODY),
            log: joined(Phases::LOG),
            links: self.0.into_boxed_slice(),
        }
    }
}

/// The filters of one route in the order they run.
#[derive(Default)]
pub struct Chain {
    links: Box<[Link]>,
    /// Which links see the request, and whether they wait.
    request: Box<[(u16, bool)]>,
    upstream_request: Box<[u16]>,
    request_body: Box<[u16]>,
    response: Box<[u16]>,
    response_body: Box<[u16]>,
    log: Box<[u16]>,
}

/// The memories of a chain's filters for one exchange.
#[derive(Default)]
pub struct Slots(SmallVec<[Slot; 4]>);

/// A verdict of one filter on a request or its body.
pub struct Verdict {
    /// The filter that answered.
    pub filter: &'static str,
    /// Its answer.
    pub reply: Box<Reply>,
}

impl Chain {
    /// The filters, in the order they run.
    pub fn links(&self) -> &[Link] {
        &self.links
    }

    /// Fresh memories for one exchange.
    pub fn slots(&self) -> Slots {
        Slots(self.links.iter().map(|link| link.filter.0.slot()).collect())
    }

    /// Whether any filter waits for something before the request goes on.
    pub fn waits(&self) -> bool {
        self.request.iter().any(|(_, waits)| *waits)
    }

    /// Whether any filter looks at request bodies.
    pub fn sees_request_body(&self) -> bool {
        !self.request_body.is_empty()
    }

    /// Whether any filter shapes response heads.
    pub fn shapes_response(&self) -> bool {
        !self.response.is_empty()
    }

    /// Whether any filter looks at response bodies.
    pub fn sees_response_body(&self) -> bool {
        !self.response_body.is_empty()
    }

    /// Whether any filter adds to the access log.
    pub fn sees_log(&self) -> bool {
        !self.log.is_empty()
    }

    /// Runs the request hooks in order, until one answers. A chain in which none [waits](Self::waits) does so in
    /// [`request_at_once`](Self::request_at_once), for less.
    pub async fn request(&self, slots: &mut Slots, exchange: &mut Exchange<'_>) -> Result<Option<Verdict>> {
        for &(at, waits) in &self.request {
            let (link, slot) = self.at(slots, at)?;
            let flow = if waits {
                let hook = AssertUnwindSafe(link.filter.0.request_wait(slot, exchange)).catch_unwind();
                settled(link, hook.await)
            } else {
                guard(link, || link.filter.0.request(slot, exchange))
            };
            if let Flow::Reply(reply) = flow? {
                return Ok(Some(Verdict { filter: link.name, reply }));
            }
        }
        Ok(None)
    }

    /// Runs the request hooks that do not wait in order, until one answers.
    pub fn request_at_once(&self, slots: &mut Slots, exchange: &mut Exchange<'_>) -> Result<Option<Verdict>> {
        for &(at, _) in &self.request {
            let (link, slot) = self.at(slots, at)?;
            if let Flow::Reply(reply) = guard(link, || link.filter.0.request(slot, exchange))? {
                return Ok(Some(Verdict { filter: link.name, reply }));
            }
        }
        Ok(None)
    }

    /// Runs the upstream request hooks in order.
    pub fn upstream_request(
        &self,
        slots: &mut Slots,
        exchange: &mut Exchange<'_>,
        head: &mut RequestHeader,
    ) -> Result<()> {
        for &at in &self.upstream_request {
            let (link, slot) = self.at(slots, at)?;
            guard(link, || link.filter.0.upstream_request(slot, exchange, head))?;
        }
        Ok(())
    }

    /// Runs the request body hooks in order, until one answers.
    pub fn request_body(
        &self,
        slots: &mut Slots,
        exchange: &mut Exchange<'_>,
        data: &mut Option<Bytes>,
        end: bool,
    ) -> Result<Option<Verdict>> {
        for &at in &self.request_body {
            let (link, slot) = self.at(slots, at)?;
            let mut chunk = Chunk { data, end };
            match guard(link, || link.filter.0.request_body(slot, exchange, &mut chunk))? {
                Flow::Continue => {}
                Flow::Reply(reply) => return Ok(Some(Verdict { filter: link.name, reply })),
            }
        }
        Ok(None)
    }

    /// Runs the response hooks in reverse.
    pub fn response(
        &self,
        slots: &mut Slots,
        exchange: &mut Exchange<'_>,
        head: &mut ResponseHeader,
    ) -> Result<()> {
        for &at in self.response.iter().rev() {
            let (link, slot) = self.at(slots, at)?;
            guard(link, || link.filter.0.response(slot, exchange, head))?;
        }
        Ok(())
    }

    /// Runs the response body hooks in reverse.
    pub fn response_body(
        &self,
        slots: &mut Slots,
        exchange: &mut Exchange<'_>,
        data: &mut Option<Bytes>,
        end: bool,
    ) -> Result<()> {
        for &at in self.response_body.iter().rev() {
            let (link, slot) = self.at(slots, at)?;
            let mut chunk = Chunk { data, end };
            guard(link, || link.filter.0.response_body(slot, exchange, &mut chunk))?;
        }
        Ok(())
    }

    /// Runs the log hooks in reverse. A panic costs the filter's own fields only.
    pub fn log(&self, slots: &mut Slots, exchange: &mut Exchange<'_>, entry: &mut LogEntry) {
        for &at in self.log.iter().rev() {
            let done = self.at(slots, at).and_then(|(link, slot)| {
                guard(link, || {
                    link.filter.0.log(slot, exchange, entry);
                    Ok(())
                })
            });
            if let Err(fault) = done {
                log::error!("{fault}");
            }
        }
    }

    fn at<'c, 's>(&'c self, slots: &'s mut Slots, at: u16) -> Result<(&'c Link, &'s mut Slot)> {
        let at = usize::from(at);
        self.links
            .get(at)
            .zip(slots.0.get_mut(at))
            .ok_or_else(|| Fault::new("the slots are of another chain"))
    }
}

/// Calls a hook; a panic in it becomes a fault of this one request.
fn guard<T>(link: &Link, hook: impl FnOnce() -> Result<T>) -> Result<T> {
    settled(link, catch_unwind(AssertUnwindSafe(hook)))
}

/// What a hook came to; a fault says whose it is.
fn settled<T>(link: &Link, outcome: std::thread::Result<Result<T>>) -> Result<T> {
    match outcome {
        Ok(Ok(done)) => Ok(done),
        Ok(Err(fault)) => Err(Fault::new(format!("filter {}: {fault}", link.name))),
        Err(panic) => Err(Fault::panicked(&format!("filter {}", link.name), &*panic)),
    }
}
