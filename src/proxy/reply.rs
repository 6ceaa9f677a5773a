//! The gateway's own answers.

use std::panic::AssertUnwindSafe;

use bytes::{Bytes, BytesMut};
use futures_util::FutureExt;
use http::header::{ACCEPT, CONTENT_LENGTH, LOCATION, TRANSFER_ENCODING};
use http::{HeaderValue, Method, StatusCode};
use pingora::Result;
use pingora::http::ResponseHeader;
use pingora_proxy::Session;

use super::context::Context;
use super::failure;
use crate::edge::Timer;
use crate::exchange::{Exchange, Fault, Reason, Reply};
use crate::handler::SharedHandler;
use crate::snapshot::{Redirect, Target};

/// Runs the chain; the answer, unless an upstream is to give it.
pub(super) async fn of_the_gateway(session: &mut Session, context: &mut Context) -> Result<Option<Reply>> {
    let clock = context.arrival()?.connection.left_for_head(std::time::Instant::now());
    let pinned = context.pinned()?;
    let (left, timer) = clock.unwrap_or((pinned.route.deadlines.request, Timer::Request));
    let (chain, slots, mut exchange) = pinned.run(session.req_header());
    let verdict = if chain.waits() {
        match tokio::time::timeout(left, chain.request(slots, &mut exchange)).await {
            Ok(verdict) => verdict,
            Err(_) => return Ok(Some(Reply::refuse(failure::of_the_clock(timer)))),
        }
    } else {
        chain.request(slots, &mut exchange).await
    };
    match verdict {
        Err(fault) => return Ok(Some(bug(&fault))),
        Ok(Some(verdict)) => {
            pinned.judged(&verdict);
            return Ok(Some(*verdict.reply));
        }
        Ok(None) => {}
    }
    let route = std::sync::Arc::clone(&pinned.route);
    match &route.target {
        Target::Upstream(_) => Ok(None),
        Target::Respond(reply) => Ok(Some(Reply::clone(reply))),
        Target::Redirect(redirect) => {
            let (_, _, exchange) = pinned.run(session.req_header());
            Ok(Some(redirected(redirect, &exchange)))
        }
        Target::Handler(handler) => handled(handler, session, context).await.map(Some),
        Target::Nothing => Ok(pinned.unmatched.take().map(|reply| *reply)),
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
    if context.arrival()?.head.expect_continue {
        let downstream = session.as_downstream_mut();
        let keep = downstream.get_keepalive();
        downstream.write_continue_response().await?;
        // The engine gives the connection up when it sees any response head before the end of the request.
        downstream.set_keepalive(keep);
    }
    let body = match whole_body(session, context).await? {
        Ok(body) => body,
        Err(reply) => return Ok(*reply),
    };
    let left = context.arrival()?.connection.left_for_head(std::time::Instant::now());
    let pinned = context.pinned()?;
    let (left, timer) = left.unwrap_or((pinned.route.deadlines.request, Timer::Request));
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

/// The request body through the chain, or the answer when it does not get that far.
async fn whole_body(session: &mut Session, context: &mut Context) -> Result<Result<Bytes, Box<Reply>>> {
    let mut whole = BytesMut::new();
    loop {
        let mut piece = session.as_downstream_mut().read_request_body().await?;
        let end = piece.is_none();
        let pinned = context.pinned()?;
        pinned.body_in += piece.as_ref().map_or(0, Bytes::len) as u64;
        if pinned.body_in > pinned.route.body_limit {
            return Ok(Err(Box::new(Reply::refuse(Reason::BODY_TOO_LARGE))));
        }
        if pinned.chain.sees_request_body() {
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
    let status = reply.status();
    context.reason = reply.reason();
    let (mut head, body) = render(session, context, reply)?;
    // A handler's own: the length below is the only framing.
    head.remove_header(&TRANSFER_ENCODING);
    let bodiless = matches!(status, StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED);
    if !bodiless {
        head.insert_header(CONTENT_LENGTH, body.len())?;
    }
    let silent = bodiless || body.is_empty() || session.req_header().method == Method::HEAD;
    if let Some(pinned) = context.pinned.as_deref_mut().filter(|pinned| pinned.log.shows_response_headers()) {
        pinned.response = Some(head.headers.clone());
    }
    context.arrival()?.connection.responding(std::time::Instant::now());
    let downstream = session.as_downstream_mut();
    downstream.write_response_header(Box::new(head)).await?;
    if silent {
        return downstream.finish_body().await;
    }
    downstream.write_response_body(body, true).await
}

fn render(session: &Session, context: &mut Context, reply: Reply) -> Result<(ResponseHeader, Bytes)> {
    let request = session.req_header();
    let accept = request.headers.get(ACCEPT);
    let head_of = |reply: Reply, id| -> Result<(ResponseHeader, Bytes)> {
        let status = reply.status();
        let (headers, body) = reply.render(accept, id);
        let mut head = ResponseHeader::build(status, Some(headers.len() + 4))?;
        for (name, value) in &headers {
            head.append_header(name, value)?;
        }
        Ok((head, body))
    };
    let Some(pinned) = context.pinned.as_deref_mut() else {
        return head_of(reply, None);
    };
    let (chain, slots, mut exchange) = pinned.run(request);
    let id = exchange.request_id().clone();
    let (mut head, mut body) = head_of(reply, Some(&id))?;
    if let Err(fault) = chain.response(slots, &mut exchange, &mut head) {
        (head, body) = head_of(bug(&fault), Some(&id))?;
        context.reason = Some(Reason::BUG);
    }
    Ok((head, body))
}
