//! The gateway's own answers.

use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Instant;

use bytes::{Bytes, BytesMut};
use futures_util::FutureExt;
use http::header::{ACCEPT, CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_TYPE, LOCATION, TRANSFER_ENCODING};
use http::{HeaderMap, HeaderValue, Method, StatusCode};
use pingora::Result;
use pingora::http::{RequestHeader, ResponseHeader};
use pingora_proxy::Session;

use super::context::{Call, Context, Pinned};
use super::{failure, forward, queue, split};
use crate::chain::{Chain, Progress, Slots, Verdict, Waits};
use crate::exchange::{Answer, Exchange, Fault, Reason, Reply, RequestId, edit, grpc};
use crate::handler::SharedHandler;
use crate::snapshot::{Redirect, Target};

/// What the chain says of a request.
pub(super) enum Asked {
    /// The answer of the filter that gave one.
    Done(Option<Reply>),
    /// A filter waits.
    Waits(Waits),
}

/// Runs the chain as far as no filter waits.
pub(super) fn of_the_chain(session: &Session, context: &mut Context) -> Result<Asked> {
    let pinned = context.pinned()?;
    let (chain, slots, mut exchange) = pinned.run(session.req_header());
    Ok(match chain.request_at_once(slots, &mut exchange) {
        Ok(Progress::Waits(waits)) => Asked::Waits(waits),
        Ok(Progress::Done(verdict)) => Asked::Done(of_the_verdict(Ok(verdict), pinned)),
        Err(fault) => Asked::Done(Some(bug(&fault))),
    })
}

/// Runs the chain from the filter on that waits, within the time that the exchange has, as long as the client waits for it;
/// the answer of the filter, or the clock, that gave one.
pub(super) async fn of_the_waiting_chain(
    session: &mut Session,
    context: &mut Context,
    waits: Waits,
) -> Result<Option<Reply>> {
    let (arrival, pinned) = context.parts()?;
    let (left, timer) = pinned.left(arrival, Instant::now());
    // The session is needed to see whether the client leaves.
    let head = session.req_header().clone();
    let (chain, slots, mut exchange) = pinned.run(&head);
    let verdict = tokio::time::timeout(left, chain.request_on(waits, slots, &mut exchange));
    match queue::or_client_leaves(session, verdict).await? {
        Ok(verdict) => Ok(of_the_verdict(verdict, pinned)),
        Err(_) => Ok(Some(Reply::refuse(failure::of_the_clock(timer)))),
    }
}

fn of_the_verdict(verdict: Result<Option<Verdict>, Fault>, pinned: &mut Pinned) -> Option<Reply> {
    match verdict {
        Ok(None) => {
            if let Some(unasked) = pinned.unasked.take()
                && !pinned.chain().took_preflight(&pinned.slots)
            {
                pinned.instead = pinned.instead.take().or(Some(unasked));
            }
            None
        }
        Ok(Some(verdict)) => {
            pinned.judged(&verdict);
            Some(*verdict.reply)
        }
        Err(fault) => Some(bug(&fault)),
    }
}

/// The answer to a request that goes to no upstream.
pub(super) async fn of_the_target(session: &mut Session, context: &mut Context) -> Result<Reply> {
    let pinned = context.pinned()?;
    if let Some(reply) = pinned.instead.take() {
        return Ok(*reply);
    }
    let route = Arc::clone(&pinned.route);
    match &route.target {
        Target::Respond(reply) => Ok(Reply::clone(reply)),
        Target::Redirect(redirect) => {
            let (_, _, exchange) = pinned.run(session.req_header());
            Ok(redirected(redirect, &exchange))
        }
        Target::Handler(handler) => handled(handler, session, context).await,
        Target::Nothing | Target::Upstream(_) | Target::Split(_) | Target::Versions(_) => {
            Ok(bug(&Fault::new("a request came to nothing")))
        }
    }
}

/// What a filter or handler could not do is told to the log, not to the client.
pub(super) fn bug(fault: &Fault) -> Reply {
    log::error!("{fault}");
    Reply::refuse(Reason::BUG)
}

fn redirected(redirect: &Redirect, exchange: &Exchange<'_>) -> Reply {
    let mut to = redirect.to.fill(exchange);
    if let Some(query) = exchange.query().filter(|_| !to.contains('?')) {
        let fragment = to.find('#').unwrap_or(to.len());
        to.insert_str(fragment, &format!("?{query}"));
    }
    match HeaderValue::try_from(to) {
        Ok(to) => Reply::content(redirect.status, "").header(LOCATION, to),
        Err(_) => bug(&Fault::new("a redirect led to what a header cannot carry")),
    }
}

async fn handled(handler: &SharedHandler, session: &mut Session, context: &mut Context) -> Result<Reply> {
    if context.arrival()?.connection.is_body_held() {
        go_on(session, context).await?;
    }
    let body = match whole_body(session, context).await? {
        Ok(body) => body,
        Err(reply) => return Ok(*reply),
    };
    let (arrival, pinned) = context.parts()?;
    let (left, timer) = pinned.left(arrival, Instant::now());
    let (_, _, mut exchange) = pinned.run(session.req_header());
    let answer = AssertUnwindSafe(handler.handle(&mut exchange, body)).catch_unwind();
    let outcome = tokio::time::timeout(left, answer).await;
    let whose = || format!("the handler of route {}", pinned.route.name);
    Ok(match outcome {
        Ok(Ok(Ok(reply))) => reply,
        Ok(Ok(Err(fault))) => bug(&Fault::new(format!("{}: {fault}", whose()))),
        Ok(Err(panic)) => bug(&Fault::panicked(&whose(), &*panic)),
        Err(_) => Reply::refuse(failure::of_the_clock(timer)),
    })
}

/// Tells the client to send the body that it holds back.
pub(super) async fn go_on(session: &mut Session, context: &Context) -> Result<()> {
    let downstream = session.as_downstream_mut();
    let keep = downstream.get_keepalive();
    downstream.write_continue_response().await.map_err(|error| error.into_down())?;
    // The engine gives the connection up when it sees any response head before the end of the request.
    downstream.set_keepalive(keep);
    context.arrival()?.connection.go_on(Instant::now());
    Ok(())
}

/// The request body through the chain, or the answer when it does not get that far.
async fn whole_body(session: &mut Session, context: &mut Context) -> Result<Result<Bytes, Box<Reply>>> {
    let mut whole = BytesMut::new();
    let mut early = context.pinned()?.early.take().filter(|early| !early.is_empty());
    loop {
        let mut piece = match early.take() {
            Some(early) => Some(early),
            None => session.as_downstream_mut().read_request_body().await?,
        };
        let end = piece.is_none();
        let pinned = context.pinned()?;
        pinned.body_in += piece.as_ref().map_or(0, Bytes::len) as u64;
        if pinned.body_in > pinned.route.bounds.request_body {
            return Ok(Err(Box::new(Reply::refuse(Reason::BODY_TOO_LARGE))));
        }
        if pinned.chain().sees_request_body() {
            let (chain, slots, mut exchange) = pinned.run(session.req_header());
            match chain.request_body(slots, &mut exchange, &mut piece, end) {
                Ok(None) => {}
                Ok(Some(verdict)) => {
                    pinned.judged(&verdict);
                    return Ok(Err(verdict.reply));
                }
                Err(fault) => return Ok(Err(Box::new(bug(&fault)))),
            }
        }
        whole.extend_from_slice(piece.as_deref().unwrap_or_default());
        if end {
            return Ok(Ok(whole.freeze()));
        }
    }
}

/// Answers a request that no upstream has seen.
pub(super) async fn answer(session: &mut Session, context: &mut Context, reply: Reply) -> Result<()> {
    if context.arrival()?.connection.request_complete() {
        // The engine closes a connection with an unread body. When all of it is here, it is read without waiting.
        while let Ok(Some(_)) = session.as_downstream_mut().read_request_body().await {}
    }
    send(session, context, reply).await
}

/// Sends an answer of the gateway's own, through the response hooks of the chain.
pub(super) async fn send(session: &mut Session, context: &mut Context, reply: Reply) -> Result<()> {
    context.reason = reply.reason();
    if reply.status().as_u16() >= 400
        && context.pinned.as_ref().is_some_and(|pinned| pinned.call == Some(Call::Plain))
    {
        return send_as_grpc(session, context, reply).await;
    }
    let (head, body) = render(session, context, reply)?;
    let silent = body.is_empty() || session.req_header().method == Method::HEAD;
    write_head(session, context, head).await?;
    let downstream = session.as_downstream_mut();
    if silent {
        return downstream.finish_body().await;
    }
    downstream.write_response_body(body, true).await
}

async fn write_head(session: &mut Session, context: &mut Context, head: ResponseHeader) -> Result<()> {
    if let Some(pinned) = context.pinned.as_deref_mut().filter(|pinned| pinned.log.shows_response_headers()) {
        pinned.response = Some(head.headers.clone());
    }
    context.arrival()?.connection.responding(Instant::now());
    session.as_downstream_mut().write_response_header(Box::new(head)).await
}

/// Ends a gRPC call that no upstream has answered: its callers look for a status after the answer.
async fn send_as_grpc(session: &mut Session, context: &mut Context, reply: Reply) -> Result<()> {
    let (status, reason) = (reply.status(), reply.reason());
    let (mut head, _) = render(session, context, reply)?;
    head.set_status(StatusCode::OK)?;
    // What is said of a body that is not sent.
    for name in [TRANSFER_ENCODING, CONTENT_LENGTH, CONTENT_ENCODING] {
        head.remove_header(&name);
    }
    head.insert_header(CONTENT_TYPE, "application/grpc")?;
    // A filter may have had a status of its own.
    let own = head.remove_header(&grpc::STATUS);
    write_head(session, context, head).await?;
    let mut trailers = HeaderMap::from_iter(grpc::refusal(status, reason));
    own.into_iter().for_each(|own| drop(trailers.insert(grpc::STATUS, own)));
    end_with(session, context, trailers).await
}

/// Sends the status that ends a gRPC call.
pub(super) async fn end_call(
    session: &mut Session,
    context: &mut Context,
    status: StatusCode,
    reason: Option<Reason>,
) -> Result<()> {
    end_with(session, context, HeaderMap::from_iter(grpc::refusal(status, reason))).await
}

async fn end_with(session: &mut Session, context: &mut Context, trailers: HeaderMap) -> Result<()> {
    forward::note_status(context.pinned()?, &trailers);
    session.as_downstream_mut().write_response_trailers(trailers).await
}

/// Ends a gRPC-Web call whose answer has begun, if a filter puts the status into the body. If none does, the answer breaks
/// off.
pub(super) async fn end_call_in_body(
    session: &mut Session,
    context: &mut Context,
    status: StatusCode,
    reason: Option<Reason>,
) -> Result<()> {
    let ending = HeaderMap::from_iter(grpc::refusal(status, reason));
    let pinned = context.pinned()?;
    let (chain, slots, mut exchange) = pinned.run(session.req_header());
    let mut trailers = ending.clone();
    match chain.response_trailers(slots, &mut exchange, &mut trailers) {
        Ok(Some(rest)) if trailers.is_empty() => {
            forward::note_status(pinned, &ending);
            session.as_downstream_mut().write_response_body(rest, true).await
        }
        Ok(_) => Ok(()),
        Err(fault) => {
            log::error!("{fault}");
            Ok(())
        }
    }
}

/// The head and the body to send, shaped by the chain.
fn render(session: &Session, context: &mut Context, reply: Reply) -> Result<(ResponseHeader, Bytes)> {
    let request = session.req_header();
    let Some(pinned) = context.pinned.as_deref_mut() else {
        return message(request, reply, None);
    };
    pinned.facts.answer = Answer::Own(reply.reason());
    let (chain, slots, mut exchange) = pinned.run(request);
    let id = exchange.request_id().clone();
    let (mut head, body) = message(request, reply, Some(&id))?;
    let body = match shaped(chain, slots, &mut exchange, &mut head, body) {
        Ok(body) => body,
        Err(fault) => {
            context.reason = Some(Reason::BUG);
            let (mended, body) = message(request, bug(&fault), Some(&id))?;
            head = mended;
            body
        }
    };
    pinned.secure(&mut head)?;
    split::tell_client(&mut head, pinned)?;
    forward::note_status(pinned, &head.headers);
    Ok((head, body))
}

/// A reply as a message whose length is known. Of an answer that never has a body nothing is left to frame.
fn message(request: &RequestHeader, reply: Reply, id: Option<&RequestId>) -> Result<(ResponseHeader, Bytes)> {
    let status = reply.status();
    let (headers, mut body) = reply.render(request.headers.get(ACCEPT), id);
    let mut head = ResponseHeader::build_no_case(status, Some(0))?;
    edit(&mut head, |fields| {
        *fields = headers;
        // A handler's own: the length is the only framing.
        fields.remove(TRANSFER_ENCODING);
        if is_bodiless(status) {
            body.clear();
        } else {
            fields.insert(CONTENT_LENGTH, body.len().into());
        }
    });
    Ok((head, body))
}

fn is_bodiless(status: StatusCode) -> bool {
    matches!(status, StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED)
}

/// Shows a message to the response hooks; what became of its body.
fn shaped(
    chain: &Chain,
    slots: &mut Slots,
    exchange: &mut Exchange<'_>,
    head: &mut ResponseHeader,
    body: Bytes,
) -> Result<Bytes, Fault> {
    chain.response(slots, exchange, head)?;
    head.remove_header(&TRANSFER_ENCODING);
    if is_bodiless(head.status) || exchange.method() == Method::HEAD {
        return Ok(body);
    }
    let mut piece = (!body.is_empty()).then_some(body);
    chain.response_body(slots, exchange, &mut piece, true)?;
    let body = piece.unwrap_or_default();
    head.insert_header(CONTENT_LENGTH, body.len())?;
    Ok(body)
}
