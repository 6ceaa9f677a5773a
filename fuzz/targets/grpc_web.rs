//! gRPC-Web: a call means the same however its bytes are cut, and an answer ends with one frame that tells how it ended,
//! or not at all.
//!
//! The first byte says what client and upstream speak, the second where bodies are cut.
#![no_main]

use std::sync::OnceLock;

use http::header::{ACCEPT, CONTENT_TYPE};
use http::{HeaderMap, HeaderValue};
use libfuzzer_sys::fuzz_target;
use portcullis::chain::{Chain, ChainBuilder, Link};
use portcullis::coding::Base64Decoder;
use portcullis::document::{Document, Environment, Errors};
use portcullis::exchange::{Client, Facts};
use portcullis::filters::builtin;
use portcullis::telemetry::{Buckets, Metrics};
use portcullis::types::{Peer, Trust};
use portcullis::{Exchange, Parameters, RequestHeader, ResponseHeader, Scope, State, Stores};

fuzz_target!(|bytes: &[u8]| {
    let Some((&[speaks, cut], body)) = bytes.split_first_chunk() else { return };
    let size = usize::from(cut).max(1);
    let text = speaks & 1 != 0;
    let wants_text = speaks & 2 != 0;

    let mut call = Call::begin(kind(text), kind(wants_text));
    let whole = call.request(&[body]);
    let pieces: Vec<&[u8]> = body.chunks(size).collect();
    assert_eq!(call.request(&pieces), whole);
    match &whole {
        Some(bytes) if text => assert_eq!(Some(bytes), Base64Decoder::default().decode(body, true).ok().as_ref()),
        Some(bytes) => assert_eq!(bytes, body),
        None => assert!(text),
    }

    let trailers = (speaks & 4 != 0).then(|| HeaderMap::from_iter([STATUS_OK]));
    let answer = call.answer(&[body], trailers.clone());
    let parts = call.answer(&pieces, trailers);
    assert_eq!(unwrapped(&parts, wants_text), unwrapped(&answer, wants_text));
    let answer = unwrapped(&answer, wants_text);
    let ending = answer.strip_prefix(body).expect("the messages pass as they are");
    if frames_end(body) {
        let (&[flag, a, b, c, d], lines) = ending.split_first_chunk().expect("the answer ends");
        assert_eq!((flag, u32::from_be_bytes([a, b, c, d]) as usize), (0x80, lines.len()));
        assert!(lines.starts_with(b"grpc-status: ") && lines.ends_with(b"\r\n"));
    } else {
        assert!(ending.is_empty(), "there is no room in the midst of a message");
    }
});

const STATUS_OK: (http::HeaderName, HeaderValue) =
    (http::HeaderName::from_static("grpc-status"), HeaderValue::from_static("0"));

fn kind(text: bool) -> &'static str {
    if text { "application/grpc-web-text" } else { "application/grpc-web" }
}

fn unwrapped(answer: &[u8], text: bool) -> Vec<u8> {
    if text { Base64Decoder::default().decode(answer, true).expect("base64") } else { answer.to_vec() }
}

/// Whether a body is a row of whole messages.
fn frames_end(mut body: &[u8]) -> bool {
    while let Some((&[_, a, b, c, d], rest)) = body.split_first_chunk() {
        let Some((_, after)) = rest.split_at_checked(u32::from_be_bytes([a, b, c, d]) as usize) else { return false };
        body = after;
    }
    body.is_empty()
}

/// A chain of this one filter.
fn chain() -> &'static Chain {
    static CHAIN: OnceLock<Chain> = OnceLock::new();
    CHAIN.get_or_init(|| {
        let registry = builtin();
        let kind = registry.kind("grpc_web").unwrap();
        let document = Document::parse("fuzz.yaml", "grpc_web: {}", &Environment::default()).ok().unwrap();
        let (state, mut errors) = (State::default(), Errors::default());
        let (stores, consumers) = (Stores::default(), Default::default());
        let (parameters, owner) = (Parameters::Any, "nobody");
        let metrics = Metrics::new("fuzz", Buckets::default()).unwrap();
        let scope = Scope {
            registry: &registry,
            parameters,
            state: &state,
            metrics: &metrics,
            stores: &stores,
            consumers: &consumers,
            owner,
            when: &[],
            files: false,
        };
        let built = kind.build(document.root.get("grpc_web").unwrap(), "grpc_web", &scope, &mut errors).unwrap();
        let mut chain = ChainBuilder::default();
        chain.push(Link::new(kind.name, built.stage, built.filter));
        chain.build()
    })
}

/// A call on its way.
struct Call {
    request: RequestHeader,
    facts: Facts,
}

impl Call {
    fn begin(kind: &'static str, accepts: &'static str) -> Self {
        let mut request = RequestHeader::build("POST", b"/shop.Orders/Get", None).unwrap();
        request.insert_header(CONTENT_TYPE, kind).unwrap();
        request.insert_header(ACCEPT, accepts).unwrap();
        let peer = Peer::Ip(([192, 0, 2, 7], 1).into());
        let client = Client::identify(peer, None, false, &HeaderMap::new(), &Trust::default());
        let facts = Facts { client, ..Facts::of_head("a.test") };
        Self { request, facts }
    }

    /// What the upstream gets of a body in these pieces; `None` when it is refused.
    fn request(&mut self, pieces: &[&[u8]]) -> Option<Vec<u8>> {
        let chain = chain();
        let mut slots = chain.slots();
        let mut exchange = Exchange::new(&self.request, "route", &mut self.facts);
        chain.request_at_once(&mut slots, &mut exchange).unwrap();
        let mut head = self.request.clone();
        chain.upstream_request(&mut slots, &mut exchange, &mut head).unwrap();
        assert_eq!(head.headers[CONTENT_TYPE], "application/grpc");
        let mut got = Vec::new();
        for (at, piece) in ended(pieces).enumerate() {
            let mut data = Some(piece.to_vec().into());
            let verdict = chain.request_body(&mut slots, &mut exchange, &mut data, at >= pieces.len()).unwrap();
            if verdict.is_some() {
                return None;
            }
            got.extend(data.unwrap_or_default());
        }
        Some(got)
    }

    /// What the client gets of an answer in these pieces.
    fn answer(&mut self, pieces: &[&[u8]], trailers: Option<HeaderMap>) -> Vec<u8> {
        let chain = chain();
        let mut slots = chain.slots();
        let mut exchange = Exchange::new(&self.request, "route", &mut self.facts);
        let mut head = ResponseHeader::build(200, None).unwrap();
        head.insert_header(CONTENT_TYPE, "application/grpc").unwrap();
        chain.response(&mut slots, &mut exchange, &mut head).unwrap();
        let mut got = Vec::new();
        let mut pass = |piece: &[u8], end| {
            let mut data = Some(piece.to_vec().into());
            chain.response_body(&mut slots, &mut exchange, &mut data, end).unwrap();
            got.extend(data.unwrap_or_default());
        };
        for piece in pieces {
            pass(piece, false);
        }
        match trailers {
            None => pass(b"", true),
            Some(mut trailers) => {
                let rest = chain.response_trailers(&mut slots, &mut exchange, &mut trailers).unwrap();
                got.extend(rest.unwrap_or_default());
            }
        }
        got
    }
}

/// The pieces, and the empty one that says that they are all.
fn ended<'p>(pieces: &'p [&'p [u8]]) -> impl Iterator<Item = &'p [u8]> {
    pieces.iter().copied().chain([&[][..]])
}
