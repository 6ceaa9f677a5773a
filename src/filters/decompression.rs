//! `decompression`: request bodies as they were before the client compressed them, for upstreams and filters that read
//! them.
//!
//! 1. `Content-Encoding` names one of zstd, br, gzip and deflate; anything else is 415, with what is taken in
//!    `Accept-Encoding` (RFC 7694).
//! 2. What comes out counts against the route's `limits.request_body`, as what came in does, and must be in proportion to
//!    it: 413. What is corrupt, cut off, or goes on behind its end is 400.
//! 3. The body goes upstream as it comes, so an upstream may have seen the beginning of one that is then refused.
//! 4. The upstream gets no `Content-Encoding`, no length that is no longer true, and no digest of the bytes that were.
//!    Handlers get the decoded body, and the head as the client sent it.
//! 5. Signatures over the body are checked before, in `authenticate`; what validates it comes after.

use http::header::{ACCEPT_ENCODING, CONTENT_ENCODING};
use http::{HeaderMap, HeaderValue};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::chain::{Chunk, Filter, Flow, Phases, Stage};
use crate::coding::{Bounds, Coding, DecodeError, Decoder};
use crate::document::{ConfigError, Errors};
use crate::exchange::{Exchange, Fault, Reason, Reply, RequestHeader, Result, reframe};
use crate::registry::{FilterKind, Scope};

/// Decompresses request bodies: zstd, br, gzip and deflate.
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// The most bytes that may come out for each byte that came, once more than 64 KiB have: 413 above.
    #[schemars(range(min = 1))]
    max_ratio: u32,
}

impl Default for Config {
    fn default() -> Self {
        Self { max_ratio: 100 }
    }
}

/// Decompresses request bodies.
pub struct Decompression(Config);

/// What is being decompressed.
#[derive(Default)]
pub struct Work {
    coding: Option<Coding>,
    decoder: Option<Decoder>,
}

impl FilterKind for Decompression {
    const NAME: &'static str = "decompression";
    const STAGE: Stage = Stage::Limit;
    const EXAMPLE: &'static str = "{ max_ratio: 100 }";
    type Config = Config;

    fn compile(config: Config, _: &Scope<'_>) -> std::result::Result<Self, Errors> {
        if config.max_ratio == 0 {
            return Err(ConfigError::new("max_ratio", "a ratio of 0 lets nothing through").into());
        }
        Ok(Self(config))
    }
}

impl Filter for Decompression {
    type State = Work;

    fn phases(&self) -> Phases {
        Phases::REQUEST | Phases::UPSTREAM_REQUEST | Phases::REQUEST_BODY
    }

    fn request(&self, work: &mut Work, exchange: &mut Exchange<'_>) -> Result<Flow> {
        match coding(&exchange.request().headers) {
            Ok(coding) => work.coding = coding,
            Err(Unknown) => {
                return Ok(Reply::refuse(Reason::UNSUPPORTED_CODING).header(ACCEPT_ENCODING, TAKEN).into());
            }
        }
        Ok(Flow::Continue)
    }

    fn upstream_request(
        &self,
        work: &mut Work,
        _: &mut Exchange<'_>,
        head: &mut RequestHeader,
    ) -> Result<()> {
        if work.coding.is_some() {
            // Every attempt brings the body from its beginning.
            work.decoder = None;
            head.remove_header(&CONTENT_ENCODING);
            reframe(head);
        }
        Ok(())
    }

    fn request_body(
        &self,
        work: &mut Work,
        exchange: &mut Exchange<'_>,
        chunk: &mut Chunk<'_>,
    ) -> Result<Flow> {
        let Some(coding) = work.coding else { return Ok(Flow::Continue) };
        let decoder = match &mut work.decoder {
            Some(decoder) => decoder,
            none => none.insert(self.decoder(coding, exchange)?),
        };
        let data = chunk.data.take().unwrap_or_default();
        match decoder.decode(&data, chunk.end) {
            Ok(decoded) => {
                *chunk.data = (!decoded.is_empty()).then_some(decoded);
                Ok(Flow::Continue)
            }
            Err(error) => Ok(Reply::refuse(reason(error)).into()),
        }
    }
}

impl Decompression {
    fn decoder(&self, coding: Coding, exchange: &Exchange<'_>) -> Result<Decoder> {
        let bounds = Bounds { bytes: exchange.body_limit(), ratio: self.0.max_ratio.into() };
        Decoder::new(coding, bounds).map_err(|error| Fault::new(format!("no decoder: {error}")))
    }
}

/// What is taken, for those who sent something else.
const TAKEN: HeaderValue = HeaderValue::from_static("zstd, br, gzip, deflate");

struct Unknown;

/// The one coding of a body, if it has one. Codings on top of each other have no honest use, and multiply.
fn coding(headers: &HeaderMap) -> std::result::Result<Option<Coding>, Unknown> {
    let lists = headers.get_all(CONTENT_ENCODING).iter();
    let names = lists.flat_map(|value| value.as_bytes().split(|byte| *byte == b',')).map(<[u8]>::trim_ascii);
    let mut names = names.filter(|name| !name.is_empty() && !name.eq_ignore_ascii_case(b"identity"));
    match (names.next(), names.next()) {
        (None, _) => Ok(None),
        (Some(name), None) => Coding::named(name).map(Some).ok_or(Unknown),
        (Some(_), Some(_)) => Err(Unknown),
    }
}

fn reason(error: DecodeError) -> Reason {
    match error {
        DecodeError::Corrupt => Reason::CORRUPT_CODING,
        DecodeError::TooLarge => Reason::BODY_TOO_LARGE,
        DecodeError::TooDense => Reason::BODY_TOO_DENSE,
    }
}
