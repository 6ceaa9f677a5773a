//! `grpc_web`: lets browsers call gRPC services, by gRPC-Web.
//!
//! 1. A request with `application/grpc-web` or `application/grpc-web-text`, over HTTP/1.1 or HTTP/2, goes upstream as
//!    `application/grpc` of the same format; the upstream speaks HTTP/2. Every other request passes as it is.
//! 2. A text body is decoded as it comes, each piece of base64 with padding of its own or none. What is not base64 is 400.
//! 3. The answer has the kind that `Accept` names first, or else that of the request. Its trailers become the last frame of
//!    its body, which text encodes in pieces that decode on their own.
//! 4. An answer without messages keeps its status in the header. One that ends without a status gets 2 (unknown): some
//!    clients take nothing for success. What is not gRPC passes as it is.
//! 5. The gateway's own refusals are answers without messages: 200, with `grpc-status` and `grpc-message`. Those in
//!    the midst of an answer are its last frame, unless a message is half sent: then the connection breaks off.
//! 6. Whether scripts of other origins may read any of it is said by the fields of CORS, which are not set here.

use bytes::Bytes;
use http::header::{ACCEPT, CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_TYPE, TE, TRAILER};
use http::{HeaderMap, HeaderName, HeaderValue, Version};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::chain::{Chunk, Filter, Flow, Phases, Stage};
use crate::coding::{Base64Decoder, encode_base64};
use crate::document::Errors;
use crate::exchange::grpc_web::MediaType;
use crate::exchange::{
    Answer, DIGESTS, Exchange, Fault, Reason, Reply, RequestHeader, ResponseHeader, Result, grpc, reframe,
};
use crate::registry::{FilterKind, Scope};

/// Translates gRPC-Web calls for gRPC upstreams, and their answers back. The upstream needs `protocol: http2`.
#[derive(Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Config {}

/// Translates gRPC-Web calls.
pub struct GrpcWeb;

/// A call on its way.
#[derive(Default)]
pub struct Call {
    /// Whether the request is one, in text or not.
    text: Option<bool>,
    decoder: Base64Decoder,
    shape: Shape,
}

/// What the answer becomes.
#[derive(Default)]
enum Shape {
    /// What it is.
    #[default]
    Same,
    /// A head alone.
    Bodiless,
    /// Messages with their end in the body.
    Framed(Framed),
}

impl FilterKind for GrpcWeb {
    const NAME: &'static str = "grpc_web";
    const STAGE: Stage = Stage::Transform;
    const EXAMPLE: &'static str = "{}";
    type Config = Config;

    fn compile(_: Config, _: &Scope<'_>) -> std::result::Result<Self, Errors> {
        Ok(Self)
    }
}

impl Filter for GrpcWeb {
    type State = Call;

    fn phases(&self) -> Phases {
        Phases::REQUEST
            | Phases::UPSTREAM_REQUEST
            | Phases::REQUEST_BODY
            | Phases::RESPONSE
            | Phases::RESPONSE_BODY
            | Phases::RESPONSE_TRAILERS
    }

    fn request(&self, call: &mut Call, exchange: &mut Exchange<'_>) -> Result<Flow> {
        call.text = MediaType::of_request(&exchange.request().headers).map(|kind| kind.text);
        Ok(Flow::Continue)
    }

    fn upstream_request(
        &self,
        call: &mut Call,
        exchange: &mut Exchange<'_>,
        head: &mut RequestHeader,
    ) -> Result<()> {
        let Some(kind) = MediaType::of_request(&exchange.request().headers) else { return Ok(()) };
        // Every attempt brings the body from its beginning.
        call.decoder = Base64Decoder::default();
        head.insert_header(CONTENT_TYPE, media_type("application/grpc", kind.format)?)?;
        for name in [ACCEPT, MARK] {
            head.remove_header(&name);
        }
        if head.version == Version::HTTP_2 {
            head.insert_header(TE, "trailers")?;
        }
        if kind.text {
            reframe(head);
        }
        Ok(())
    }

    fn request_body(&self, call: &mut Call, _: &mut Exchange<'_>, chunk: &mut Chunk<'_>) -> Result<Flow> {
        if call.text != Some(true) {
            return Ok(Flow::Continue);
        }
        let text = chunk.data.take().unwrap_or_default();
        match call.decoder.decode(&text, chunk.end) {
            Ok(bytes) => {
                *chunk.data = (!bytes.is_empty()).then(|| bytes.into());
                Ok(Flow::Continue)
            }
            Err(_) => Ok(Reply::refuse(Reason::BAD_BASE64).into()),
        }
    }

    fn response(
        &self,
        call: &mut Call,
        exchange: &mut Exchange<'_>,
        head: &mut ResponseHeader,
    ) -> Result<()> {
        // An answer may take the place of another whose head was here before.
        call.shape = Shape::Same;
        // A refusal may come before this filter saw the request.
        let Some(kind) = MediaType::of_answer(&exchange.request().headers) else { return Ok(()) };
        call.shape = match exchange.answer() {
            Answer::Own(reason) if head.status.as_u16() >= 400 => refused(kind, reason, head)?,
            Answer::Upstream if grpc::is_grpc(&head.headers) => framed(kind, head)?,
            _ => Shape::Same,
        };
        Ok(())
    }

    fn response_body(&self, call: &mut Call, _: &mut Exchange<'_>, chunk: &mut Chunk<'_>) -> Result<()> {
        match &mut call.shape {
            Shape::Same => {}
            Shape::Bodiless => *chunk.data = None,
            Shape::Framed(framed) => framed.body(chunk)?,
        }
        Ok(())
    }

    fn response_trailers(
        &self,
        call: &mut Call,
        _: &mut Exchange<'_>,
        trailers: &mut HeaderMap,
    ) -> Result<Option<Bytes>> {
        match &mut call.shape {
            Shape::Framed(framed) => framed.end(trailers),
            Shape::Same | Shape::Bodiless => Ok(None),
        }
    }
}

/// What clients mark their calls with.
const MARK: HeaderName = HeaderName::from_static("x-grpc-web");

/// Makes a refusal an answer without messages.
fn refused(kind: MediaType<'_>, reason: Option<Reason>, head: &mut ResponseHeader) -> Result<Shape> {
    for (name, value) in grpc::refusal(head.status, reason) {
        // A filter may have had a status of its own.
        if !head.headers.contains_key(&name) {
            head.insert_header(name, value)?;
        }
    }
    head.set_status(http::StatusCode::OK)?;
    for name in [CONTENT_LENGTH, CONTENT_ENCODING].into_iter().chain(DIGESTS) {
        head.remove_header(&name);
    }
    head.insert_header(CONTENT_TYPE, web_type(kind, kind.format)?)?;
    Ok(Shape::Bodiless)
}

/// Makes an answer of gRPC one of gRPC-Web.
fn framed(kind: MediaType<'_>, head: &mut ResponseHeader) -> Result<Shape> {
    let given = head.headers.get(CONTENT_TYPE).and_then(|given| given.to_str().ok()).unwrap_or_default();
    let essence = given.split(';').next().unwrap_or_default().trim();
    let format = essence.find('+').map_or(kind.format, |plus| &essence[plus..]);
    let media_type = web_type(kind, format)?;
    head.insert_header(CONTENT_TYPE, media_type)?;
    for name in [CONTENT_LENGTH, TRAILER].into_iter().chain(DIGESTS) {
        head.remove_header(&name);
    }
    let ended = head.headers.contains_key(grpc::STATUS);
    Ok(Shape::Framed(Framed { text: kind.text, ended, messages: Messages::default() }))
}

fn web_type(kind: MediaType<'_>, format: &str) -> Result<HeaderValue> {
    media_type(if kind.text { "application/grpc-web-text" } else { "application/grpc-web" }, format)
}

fn media_type(kind: &str, format: &str) -> Result<HeaderValue> {
    HeaderValue::try_from([kind, format].concat()).map_err(|_| Fault::new("a media type is no field value"))
}

/// An answer whose end is in its body.
struct Framed {
    text: bool,
    /// Whether its end was told.
    ended: bool,
    messages: Messages,
}

impl Framed {
    fn body(&mut self, chunk: &mut Chunk<'_>) -> Result<()> {
        let mut data = chunk.data.take().unwrap_or_default();
        self.messages.pass(&data);
        if chunk.end {
            let unknown = HeaderMap::from_iter(grpc::ending(2, "the answer ended without a status"));
            if let Some(end) = self.end(&unknown)? {
                data = [data, end].concat().into();
            }
        }
        if self.text {
            data = encode_base64(&data).into();
        }
        *chunk.data = (!data.is_empty()).then_some(data);
        Ok(())
    }

    /// The frame that ends the answer, where there is room for one.
    fn end(&mut self, trailers: &HeaderMap) -> Result<Option<Bytes>> {
        if self.ended || !self.messages.is_between() {
            return Ok(None);
        }
        self.ended = true;
        last_frame(trailers).map(Some)
    }
}

/// Trailers as a frame: its flag, its length, and a line for each field.
fn last_frame(trailers: &HeaderMap) -> Result<Bytes> {
    let mut lines = Vec::new();
    for (name, value) in trailers {
        for part in [name.as_str().as_bytes(), b": ", value.as_bytes(), b"\r\n"] {
            lines.extend_from_slice(part);
        }
    }
    let length = u32::try_from(lines.len()).map_err(|_| Fault::new("trailers are too long"))?;
    Ok([&[0x80], &length.to_be_bytes()[..], &lines].concat().into())
}

/// Where in a row of messages a body is.
#[derive(Default)]
struct Messages {
    /// The flag and the length of the next one, as far as they are there.
    prefix: [u8; 5],
    seen: usize,
    /// What is to come of the one under way.
    left: usize,
}

impl Messages {
    fn pass(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            let whole = if self.left > 0 { self.left } else { self.prefix.len() - self.seen };
            let (part, rest) = bytes.split_at(whole.min(bytes.len()));
            bytes = rest;
            if self.left > 0 {
                self.left -= part.len();
                continue;
            }
            self.prefix[self.seen..][..part.len()].copy_from_slice(part);
            self.seen += part.len();
            if let (5, [_, length @ ..]) = (self.seen, self.prefix) {
                self.left = u32::from_be_bytes(length) as usize;
                self.seen = 0;
            }
        }
    }

    /// Whether the last message is whole.
    fn is_between(&self) -> bool {
        self.left == 0 && self.seen == 0
    }
}
