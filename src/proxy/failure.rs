//! One mapping from error to reason, and the telling of it.

use std::time::Duration;

use http::StatusCode;
use pingora::{Error, ErrorSource, ErrorType};
use pingora_proxy::Session;

use super::context::{Call, Context};
use super::reply;
use crate::edge::{Timer, reason_of};
use crate::exchange::{Reason, Reply};
use crate::upstream::End;

/// How long a last reply may take to be written.
pub(super) const LAST_WORDS: Duration = Duration::from_secs(5);

/// What the client is to hear of a failed exchange.
pub(super) fn reply(session: &Session, context: &Context, error: &Error) -> Reply {
    let reason = reason(session, context, error);
    log::debug!("{}: {error}", reason.code());
    match context.arrival().ok().and_then(|arrival| arrival.connection.refused()) {
        Some(refusal) => Reply::refuse(reason).detail(refusal.detail()),
        None => Reply::refuse(reason),
    }
}

/// Why an exchange failed.
fn reason(session: &Session, context: &Context, error: &Error) -> Reason {
    if let Some(reason) = context.reason {
        return reason;
    }
    if let Ok(arrival) = context.arrival() {
        if let Some(refusal) = arrival.connection.refused() {
            return reason_of(refusal);
        }
        if let Some(timer) = arrival.connection.fired() {
            return of_the_clock(timer);
        }
    }
    match error.esource() {
        ErrorSource::Upstream => of_the_upstream(error),
        ErrorSource::Downstream if is_of_the_connection(error) => Reason::CLIENT_CLOSED,
        // What the engine has against a request should have been refused by the guard.
        ErrorSource::Downstream | ErrorSource::Internal | ErrorSource::Unset => {
            log::error!("{error}: {} {}", session.req_header().method, session.req_header().uri.path());
            Reason::BUG
        }
    }
}

fn is_of_the_connection(error: &Error) -> bool {
    matches!(
        error.etype(),
        ErrorType::ReadError
            | ErrorType::WriteError
            | ErrorType::ReadTimedout
            | ErrorType::WriteTimedout
            | ErrorType::ConnectionClosed
    )
}

fn is_of_writing(error: &Error) -> bool {
    *error.esource() != ErrorSource::Upstream
        && matches!(error.etype(), ErrorType::WriteError | ErrorType::WriteTimedout)
}

/// Why an exchange that ran out of time failed.
pub(super) fn of_the_clock(timer: Timer) -> Reason {
    match timer {
        Timer::Request => Reason::REQUEST_TIMEOUT,
        Timer::RequestBody => Reason::BODY_TIMEOUT,
        Timer::BodyRate => Reason::BODY_TOO_SLOW,
        Timer::StreamIdle => Reason::STREAM_IDLE_TIMEOUT,
        Timer::Total => Reason::TOTAL_TIMEOUT,
        Timer::UpstreamRead => Reason::UPSTREAM_READ_TIMEOUT,
        Timer::Try => Reason::TRY_TIMEOUT,
    }
}

fn of_the_upstream(error: &Error) -> Reason {
    match error.etype() {
        ErrorType::ConnectTimedout => Reason::UPSTREAM_CONNECT_TIMEOUT,
        ErrorType::ConnectRefused
        | ErrorType::ConnectNoRoute
        | ErrorType::ConnectError
        | ErrorType::SocketError => Reason::UPSTREAM_CONNECT_FAILED,
        ErrorType::ReadTimedout => Reason::UPSTREAM_READ_TIMEOUT,
        ErrorType::WriteTimedout => Reason::UPSTREAM_WRITE_TIMEOUT,
        ErrorType::Custom(code) if *code == Reason::TRY_TIMEOUT.code() => Reason::TRY_TIMEOUT,
        ErrorType::ReadError | ErrorType::WriteError | ErrorType::ConnectionClosed | ErrorType::H2Error => {
            Reason::UPSTREAM_RESET
        }
        _ => Reason::UPSTREAM_INVALID_RESPONSE,
    }
}

/// What the client is to hear of an attempt that ended so, when none follows after all.
pub(super) fn of_the_end(end: End) -> Option<Reason> {
    match end {
        End::Reset => Some(Reason::UPSTREAM_RESET),
        End::ReadTimeout => Some(Reason::UPSTREAM_READ_TIMEOUT),
        End::WriteTimeout => Some(Reason::UPSTREAM_WRITE_TIMEOUT),
        End::TryTimeout => Some(Reason::TRY_TIMEOUT),
        _ => None,
    }
}

/// How an attempt ended by the endpoint's fault.
pub(super) fn upstream_end(error: &Error) -> End {
    match of_the_upstream(error) {
        Reason::UPSTREAM_READ_TIMEOUT => End::ReadTimeout,
        Reason::UPSTREAM_WRITE_TIMEOUT => End::WriteTimeout,
        Reason::UPSTREAM_RESET => End::Reset,
        Reason::TRY_TIMEOUT => End::TryTimeout,
        _ => End::Invalid,
    }
}

/// Whether the client has the head of its answer, and not only of interim ones.
pub(super) fn has_begun(session: &Session) -> bool {
    let is_final =
        |status: StatusCode| !status.is_informational() || status == StatusCode::SWITCHING_PROTOCOLS;
    session.response_written().is_some_and(|head| is_final(head.status))
}

/// Tells the client of an error, where a reply can still be told.
pub(super) async fn tell(session: &mut Session, context: &mut Context, error: &Error, reply: Reply) {
    context.reason = reply.reason();
    let begun = has_begun(session);
    let call = context.pinned.as_ref().and_then(|pinned| pinned.call);
    let lost = match call {
        None => begun,
        Some(Call::Plain) => false,
        // What is written behind half a piece of a body would be taken for the other half.
        Some(Call::Web) => begun && is_of_writing(error),
    };
    if context.reason == Some(Reason::CLIENT_CLOSED) || lost {
        return;
    }
    if let Ok(arrival) = context.arrival() {
        // The clock that ended the exchange must not end the reply to it.
        arrival.connection.last_words(LAST_WORDS);
    }
    session.as_downstream_mut().set_keepalive(None);
    let told = match call {
        Some(Call::Plain) if begun => reply::end_call(session, context, reply.status(), reply.reason()).await,
        Some(Call::Web) if begun => {
            reply::end_call_in_body(session, context, reply.status(), reply.reason()).await
        }
        _ => reply::send(session, context, reply).await,
    };
    if let Err(error) = told {
        log::debug!("a reply could not be written: {error}");
    }
}
