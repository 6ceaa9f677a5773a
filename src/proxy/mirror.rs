//! Copies of requests, for another upstream whose answers nobody gets.
//!
//! 1. A lot is drawn as the request arrives. What becomes of the copy is counted once, if the request goes upstream at all.
//! 2. The head is that of the first attempt, when the chain has shaped it. The body is what the chain made of it, kept within
//!    the memory of bodies for retries: a copy begins when it is whole.
//! 3. A copy is a task of its own. It waits for no room and is not sent again, but on a connection that had been closed; it
//!    ends with its time, or with the process.

use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;
use http::header::EXPECT;
use http::{HeaderName, HeaderValue, StatusCode};
use pingora::Result;
use pingora::http::{RequestHeader, ResponseHeader};
use pingora::protocols::http::HttpTask;
use pingora_proxy::Session;

use super::context::{Attempt, Context, Pinned};
use super::kept::{Full, Kept};
use super::lane::{Connector, Due, Held, Step};
use super::{Gateway, attempt, hedge, kept, lane, peer, wish};
use crate::exchange::{Reason, grpc};
use crate::snapshot::Mirror;
use crate::upstream::{End, Permit, Tried, Unavailable, Wish};

/// The field that tells a copy.
pub(super) const NAME: &str = "x-mirrored";
const FIELD: HeaderName = HeaderName::from_static(NAME);

/// The most of an answer that is read so that its connection can be used again.
const ANSWER: usize = 1 << 20;
/// How many connections that had been closed one copy may meet.
const STALE: u32 = 4;

/// What became of a copy, in the words of the metric.
mod result {
    pub(super) const SENT: &str = "sent";
    pub(super) const FAILED: &str = "failed";
    pub(super) const TIMED_OUT: &str = "timed_out";
    pub(super) const BUSY: &str = "dropped_busy";
    pub(super) const UNAVAILABLE: &str = "dropped_unavailable";
    pub(super) const TOO_LONG: &str = "dropped_body";
    pub(super) const NO_MEMORY: &str = "dropped_memory";
    pub(super) const UNFINISHED: &str = "dropped_unfinished";
}

/// What becomes a copy of a request.
pub(super) struct Copy {
    mirror: Arc<Mirror>,
    connector: Arc<Connector>,
    /// As the first attempt had it.
    head: Option<Box<RequestHeader>>,
    body: Option<Kept>,
    /// Bytes of the body that the attempt under way has had.
    at: u64,
    wish: Wish,
    is_call: bool,
}

/// Draws whether the request will be copied.
pub(super) fn begin(gateway: &Gateway, context: &mut Context) -> Result<()> {
    let (arrival, pinned) = context.parts()?;
    let Some(mirror) = &pinned.route.mirror else { return Ok(()) };
    if !pinned.goes_upstream() || arrival.head.upgrade || fastrand::f64() >= mirror.share {
        return Ok(());
    }
    let body = arrival.has_body().then(|| kept::aside(&gateway.live, &gateway.kept, mirror.max_body));
    pinned.copy = Some(Box::new(Copy {
        mirror: Arc::clone(mirror),
        connector: Arc::clone(&gateway.outbound),
        head: None,
        body,
        at: 0,
        wish: Wish::default(),
        is_call: pinned.call.is_some(),
    }));
    Ok(())
}

/// An attempt begins with this head.
pub(super) fn head(session: &Session, head: &RequestHeader, context: &mut Context) -> Result<()> {
    let pinned = context.pinned()?;
    let Some(copy) = &mut pinned.copy else { return Ok(()) };
    copy.at = 0;
    if copy.head.is_some() {
        return Ok(());
    }
    let mut own = Box::new(head.clone());
    // The body is here.
    own.remove_header(&EXPECT);
    own.insert_header(FIELD, HeaderValue::from_static("true"))?;
    copy.head = Some(own);
    copy.wish = wish::to(&copy.mirror.upstream, &pinned.route.name, &mut pinned.facts, session.req_header());
    if copy.body.is_none() {
        depart(pinned);
    }
    Ok(())
}

/// A piece of the body goes upstream.
pub(super) fn body(pinned: &mut Pinned, piece: Option<&Bytes>, end: bool) {
    let Some(copy) = &mut pinned.copy else { return };
    let Some(kept) = &mut copy.body else { return };
    if let Some(piece) = piece {
        let at = copy.at;
        copy.at += piece.len() as u64;
        let why = match kept.came(at, piece, Some(&pinned.kept)) {
            Err(Full) => Some(result::NO_MEMORY),
            Ok(()) => (!kept.is_whole()).then_some(result::TOO_LONG),
        };
        if let Some(why) = why {
            pinned.copy = None;
            return pinned.route.metrics.mirrored(why);
        }
    }
    if end {
        depart(pinned);
    }
}

/// The exchange is over.
pub(super) fn end(pinned: &mut Pinned) {
    if pinned.copy.take().is_some_and(|copy| copy.head.is_some()) {
        pinned.route.metrics.mirrored(result::UNFINISHED);
    }
}

fn depart(pinned: &mut Pinned) {
    let Some(copy) = pinned.copy.take() else { return };
    let metrics = Arc::clone(&pinned.route.metrics);
    let Some(place) = copy.mirror.place() else { return metrics.mirrored(result::BUSY) };
    tokio::spawn(async move {
        let result = copy.send().await;
        drop(place);
        metrics.mirrored(result);
    });
}

impl Copy {
    /// Sends it, and says what became of it.
    async fn send(mut self: Box<Self>) -> &'static str {
        let due = Instant::now() + self.mirror.timeout;
        let may_repeat = self.head.as_ref().is_some_and(|head| head.method.is_idempotent());
        for stale in 0.. {
            let now = Instant::now();
            let permit = match self.mirror.upstream.choose(&mut Tried::default(), self.wish, now) {
                Ok(permit) => permit,
                Err(Unavailable::Busy(_)) => return result::BUSY,
                Err(_) => return result::UNAVAILABLE,
            };
            match self.attempt(permit, now, due).await {
                (End::Stale, _) if may_repeat && stale < STALE => {}
                (_, result) => return result,
            }
        }
        result::FAILED
    }

    async fn attempt(&mut self, permit: Permit, begun: Instant, due: Instant) -> (End, &'static str) {
        let mut attempt = Attempt { permit, begun, to_head: None, status: None };
        let (end, result) = match self.exchange(&mut attempt, due).await {
            Ok(end) => (end, result::SENT),
            Err(ended) => ended,
        };
        attempt.settle(end, Instant::now());
        (end, result)
    }

    async fn exchange(&mut self, attempt: &mut Attempt, due: Instant) -> Result<End, (End, &'static str)> {
        let mirror = Arc::clone(&self.mirror);
        let connector = Arc::clone(&self.connector);
        let left = due.saturating_duration_since(attempt.begun);
        let time = (attempt.begun, left);
        let peer = peer::of_copy(attempt.endpoint(), &mirror.upstream, &mirror.timeouts, time);
        let held = lane::connect(connector, peer).await;
        let held = held.map_err(|error| match attempt::end_of_connecting(&error) {
            // That the copy had no more time is not the endpoint's fault.
            End::ConnectTimeout if left < mirror.timeouts.connect => (End::Aborted, result::TIMED_OUT),
            end => broken(end),
        })?;
        attempt.permit.connected();
        attempt.endpoint().standing().agreed(held.is_http2());
        let (mut held, head, is_whole) = self.ask(held, due).await?;
        // Nothing is sent anew from here on.
        self.body = None;
        if head.status == StatusCode::SWITCHING_PROTOCOLS {
            return Err(broken(End::Invalid));
        }
        attempt.to_head = Some(attempt.begun.elapsed());
        let answered = |status| End::Answered(head.status.as_u16(), status);
        let mut status = self.is_call.then(|| grpc::status(&head.headers)).flatten();
        if attempt.permit.is_trial() {
            attempt.judge(answered(status), Instant::now());
        }
        let rest = tokio::time::timeout_at(due.into(), rest(&mut held, is_whole));
        match rest.await {
            Ok(Ok(Rest::Whole(trailers))) => {
                held.release().await;
                if self.is_call {
                    status = trailers.or(status);
                }
            }
            Ok(Err(error)) => return Err(broken(hedge::end_of(&error, false))),
            Ok(Ok(Rest::TooLong)) | Err(_) => {}
        }
        Ok(answered(status))
    }

    /// The head of the answer, and whether that is all of it.
    async fn ask(
        &mut self,
        held: Held,
        due: Instant,
    ) -> Result<(Held, Box<ResponseHeader>, bool), (End, &'static str)> {
        let ours = (End::Aborted, result::FAILED);
        let head = self.head.as_ref().ok_or(ours)?;
        let head = held.copy(head, self.body.is_some()).map_err(|error| {
            log::debug!("a copy that cannot be sent: {error}");
            ours
        })?;
        let read =
            Due { at: Instant::now() + self.mirror.timeouts.read, told: Reason::UPSTREAM_READ_TIMEOUT };
        let due = if read.at < due { read } else { Due { at: due, told: Reason::TRY_TIMEOUT } };
        let pieces = self.body.as_mut().map(Kept::pieces);
        let asked = Instant::now();
        let mut step = lane::ask(held, head, pieces, due).await;
        loop {
            step = match step {
                Step::Answered(held, head) if lane::is_interim(&head) => lane::ask_on(held, due).await,
                Step::Answered(held, HttpTask::Header(head, end)) => return Ok((held, head, end)),
                Step::Answered(..) | Step::Connected(_) => return Err(broken(End::Invalid)),
                Step::Broken(error, reused) => {
                    log::debug!("a copy: {error}");
                    let stale = reused && asked.elapsed() < attempt::SOON;
                    return Err(broken(hedge::end_of(&error, stale)));
                }
            };
        }
    }
}

/// How far an answer was read after its head.
enum Rest {
    /// To its end, and the status of a call in its trailers.
    Whole(Option<u16>),
    TooLong,
}

async fn rest(held: &mut Held, mut is_whole: bool) -> Result<Rest> {
    let (mut bytes, mut status) = (0, None);
    while !is_whole {
        let task = held.next().await?;
        is_whole = task.is_end();
        match task {
            HttpTask::Body(piece, _) => bytes += piece.map_or(0, |piece| piece.len()),
            HttpTask::Trailer(Some(trailers)) => status = grpc::status(&trailers),
            _ => {}
        }
        if bytes > ANSWER {
            return Ok(Rest::TooLong);
        }
    }
    Ok(Rest::Whole(status))
}

/// What became of a copy whose attempt ended so, without an answer.
fn broken(end: End) -> (End, &'static str) {
    match end {
        End::ConnectTimeout | End::ReadTimeout | End::TryTimeout | End::WriteTimeout => {
            (end, result::TIMED_OUT)
        }
        end => (end, result::FAILED),
    }
}
