//! An answer on its way to the client, where the gateway itself has asked for it: through the same hooks as the engine's.

use futures_util::FutureExt;
use http::header::{CONTENT_LENGTH, TRANSFER_ENCODING};
use http::{Method, StatusCode};
use pingora::http::ResponseHeader;
use pingora::protocols::http::HttpTask;
use pingora::{Error, ErrorType, Result};
use pingora_proxy::{ProxyHttp, Session};

use super::context::Context;
use super::lane::Held;
use super::{Gateway, forward};

/// How many pieces are written at once, if they are there.
const PIECES: usize = 4;

/// Passes an answer on, from its head to its end.
pub(super) async fn pass_on(
    gateway: &Gateway,
    session: &mut Session,
    context: &mut Context,
    held: &mut Held,
    head: HttpTask,
) -> Result<()> {
    let mut next: Result<HttpTask> = Ok(head);
    loop {
        let mut pieces = Vec::with_capacity(PIECES);
        loop {
            let piece = match next {
                Ok(piece) => shaped(gateway, session, context, piece).await?,
                Err(error) => HttpTask::Failed(error.into_up()),
            };
            let last = piece.is_end();
            pieces.push(piece);
            if last || pieces.len() == PIECES {
                break;
            }
            // What is there already: a small answer goes out as one.
            match tokio::task::unconstrained(held.next()).now_or_never() {
                Some(more) => next = more,
                None => break,
            }
        }
        if session.write_response_tasks(pieces).await? {
            break;
        }
        next = tokio::select! {
            biased;
            next = held.next() => next,
            gone = session.as_downstream_mut().read_body_or_idle(true) => return Err(left(gone.err())),
        };
    }
    if session.as_downstream_mut().finish_body().await.is_err() {
        session.as_downstream_mut().set_keepalive(None);
    }
    Ok(())
}

/// Passes an interim answer on.
pub(super) async fn interim(
    gateway: &Gateway,
    session: &mut Session,
    context: &mut Context,
    head: HttpTask,
) -> Result<()> {
    let head = shaped(gateway, session, context, head).await?;
    session.write_response_tasks(vec![head]).await.map(|_| ())
}

/// What a client that left, or a clock that ran out meanwhile, is an error of.
pub(super) fn left(error: Option<Box<Error>>) -> Box<Error> {
    let closed = || Error::explain(ErrorType::ConnectionClosed, "the client left");
    error.unwrap_or_else(closed).into_down()
}

/// Shows a piece to the hooks, in the engine's order.
async fn shaped(
    gateway: &Gateway,
    session: &mut Session,
    context: &mut Context,
    piece: HttpTask,
) -> Result<HttpTask> {
    Ok(match piece {
        HttpTask::Header(mut head, end) => {
            gateway.upstream_response_filter(session, &mut head, context).await?;
            frame(session, &mut head)?;
            gateway.response_filter(session, &mut head, context).await?;
            HttpTask::Header(head, end)
        }
        HttpTask::Body(mut data, end) => {
            forward::response_body(session, &mut data, end, context)?;
            HttpTask::Body(data, end)
        }
        HttpTask::Trailer(Some(mut trailers)) => {
            match forward::response_trailers(session, &mut trailers, context)? {
                Some(rest) => HttpTask::Body(Some(rest), true),
                None => HttpTask::Trailer(Some(trailers)),
            }
        }
        piece => piece,
    })
}

/// Has a body without a length come in chunks, to those who know them.
fn frame(session: &Session, head: &mut ResponseHeader) -> Result<()> {
    let bodiless = head.status.is_informational()
        || matches!(head.status, StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED)
        || session.req_header().method == Method::HEAD;
    let framed = [CONTENT_LENGTH, TRANSFER_ENCODING].iter().any(|name| head.headers.contains_key(name));
    if bodiless || framed { Ok(()) } else { head.insert_header(TRANSFER_ENCODING, "chunked") }
}
