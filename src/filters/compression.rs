//! `compression`: answers in fewer bytes, for clients that take them.
//!
//! 1. The client's `Accept-Encoding` decides, with its weights; among equals the order of `algorithms`. There is no 406:
//!    where nothing fits, the answer goes as it is.
//! 2. What the upstream has encoded is left alone. `Accept-Encoding` goes upstream as the client sent it.
//! 3. Left alone are also: `Cache-Control: no-transform`, of either side; parts (206, `Content-Range`); what carries a
//!    digest of its bytes; event streams and gRPC, whose messages must not wait for each other or be framed anew.
//! 4. Whatever could have been encoded says `Vary: Accept-Encoding`, to this client and every other. An `ETag` becomes
//!    weak with the encoding, since the bytes are others.
//! 5. Every piece is flushed, so that a slow answer arrives as slowly as it is made, and no slower.
//! 6. Do not encode what holds a secret beside words of the client's choice: its length tells on it (BREACH).

use http::header::{
    ACCEPT_ENCODING, ACCEPT_RANGES, CACHE_CONTROL, CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_RANGE,
    CONTENT_TYPE, ETAG, IF_NONE_MATCH,
};
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::chain::{Chunk, Filter, Phases, Stage};
use crate::coding::{Coding, Effort, Encoder, preferred};
use crate::document::{ConfigError, Errors};
use crate::exchange::{DIGESTS, Exchange, Fault, ResponseHeader, Result, edit, vary};
use crate::registry::{FilterKind, Scope};
use crate::types::{ByteSize, MediaRange};

/// Compresses answers for clients that take it, the gateway's own too.
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// What is offered, the preferred first.
    algorithms: Vec<Algorithm>,
    /// How much work an answer is worth.
    level: Level,
    /// Exact levels, in place of what `level` means.
    levels: Levels,
    /// Answers known to be shorter go as they are.
    min_size: ByteSize,
    /// Which answers are compressed, by their `Content-Type`. Never: `text/event-stream`, `application/grpc`.
    types: Vec<MediaRange>,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            algorithms: vec![Algorithm::Zstd, Algorithm::Br, Algorithm::Gzip],
            level: Level::default(),
            levels: Levels::default(),
            min_size: ByteSize::kib(1),
            types: TYPES.iter().filter_map(|range| range.parse().ok()).collect(),
        }
    }
}

/// What shrinks, of what the web is made of.
const TYPES: [&str; 12] = [
    "text/*",
    "application/json",
    "application/*+json",
    "application/x-ndjson",
    "application/javascript",
    "application/xml",
    "application/*+xml",
    "application/yaml",
    "application/wasm",
    "image/svg+xml",
    "font/ttf",
    "font/otf",
];

/// A way to compress.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
enum Algorithm {
    /// Zstandard.
    Zstd,
    /// Brotli.
    Br,
    /// Gzip.
    Gzip,
}

impl Algorithm {
    fn coding(self) -> Coding {
        match self {
            Self::Zstd => Coding::Zstd,
            Self::Br => Coding::Brotli,
            Self::Gzip => Coding::Gzip,
        }
    }
}

/// How much work an answer is worth.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
enum Level {
    /// The least: zstd 1, br 1, gzip 1.
    Fastest,
    /// What a busy server can afford: zstd 3, br 4, gzip 5.
    #[default]
    Balanced,
    /// Small answers at several times the price: zstd 12, br 6, gzip 9.
    Best,
}

/// Exact levels, in each library's own numbers.
#[derive(Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
struct Levels {
    /// 1 to 19.
    #[schemars(range(min = 1, max = 19))]
    zstd: Option<u8>,
    /// 0 to 11. Above 6 each answer under way takes 7 MiB and more.
    #[schemars(range(min = 0, max = 11))]
    br: Option<u8>,
    /// 1 to 9.
    #[schemars(range(min = 1, max = 9))]
    gzip: Option<u8>,
}

impl Levels {
    fn of(&self, algorithm: Algorithm) -> Option<u8> {
        match algorithm {
            Algorithm::Zstd => self.zstd,
            Algorithm::Br => self.br,
            Algorithm::Gzip => self.gzip,
        }
    }
}

/// Compresses answers.
pub struct Compression {
    /// In the order of preference.
    codings: Vec<Coding>,
    /// The level of each, at its place in [`Coding::ALL`].
    levels: [u8; Coding::ALL.len()],
    min_size: u64,
    types: Vec<MediaRange>,
}

/// What is being compressed.
#[derive(Default)]
pub struct Work {
    chosen: Option<Coding>,
    encoder: Option<Encoder>,
}

impl FilterKind for Compression {
    const NAME: &'static str = "compression";
    const STAGE: Stage = Stage::Transform;
    const EXAMPLE: &'static str = "{ algorithms: [zstd, br, gzip], level: balanced, min_size: 1KiB }";
    type Config = Config;

    fn compile(config: Config, _: &Scope<'_>) -> std::result::Result<Self, Errors> {
        let mut errors = Errors::default();
        let algorithms = &config.algorithms;
        if algorithms.is_empty() {
            errors.push(ConfigError::new("algorithms", "compression needs at least one algorithm"));
        }
        for (at, algorithm) in algorithms.iter().enumerate() {
            if algorithms[..at].contains(algorithm) {
                let name = algorithm.coding().name();
                errors
                    .push(ConfigError::new(format!("algorithms[{at}]"), format!("`{name}` is there twice")));
            }
        }
        for algorithm in [Algorithm::Zstd, Algorithm::Br, Algorithm::Gzip] {
            check_level(algorithm, &config, &mut errors);
        }
        if config.types.is_empty() {
            errors.push(ConfigError::new("types", "compression without a media type compresses nothing"));
        }
        let effort = match config.level {
            Level::Fastest => Effort::Fastest,
            Level::Balanced => Effort::Balanced,
            Level::Best => Effort::Best,
        };
        let mut levels = Coding::ALL.map(|coding| Encoder::level(coding, effort));
        for algorithm in algorithms {
            let level = &mut levels[algorithm.coding() as usize];
            *level = config.levels.of(*algorithm).unwrap_or(*level);
        }
        let codings = algorithms.iter().map(|algorithm| algorithm.coding()).collect();
        errors.or(Self { codings, levels, min_size: config.min_size.get(), types: config.types })
    }
}

fn check_level(algorithm: Algorithm, config: &Config, errors: &mut Errors) {
    let Some(level) = config.levels.of(algorithm) else { return };
    let (name, levels) = (algorithm.coding().name(), Encoder::levels(algorithm.coding()));
    let path = format!("levels.{name}");
    if !levels.contains(&level) {
        let range = format!("the levels of `{name}` are {} to {}", levels.start(), levels.end());
        errors.push(ConfigError::new(path, range));
    } else if !config.algorithms.contains(&algorithm) {
        errors.push(ConfigError::new(path, format!("`{name}` is not among the algorithms")));
    }
}

impl Filter for Compression {
    type State = Work;

    fn phases(&self) -> Phases {
        Phases::RESPONSE | Phases::RESPONSE_BODY
    }

    fn response(
        &self,
        work: &mut Work,
        exchange: &mut Exchange<'_>,
        head: &mut ResponseHeader,
    ) -> Result<()> {
        // An answer may take the place of another whose head was here before.
        *work = Work::default();
        if !self.suits(head) {
            return Ok(());
        }
        edit(head, |fields| vary(fields, "Accept-Encoding"))?;
        let request = &exchange.request().headers;
        if head.status == StatusCode::NOT_MODIFIED {
            // The client has the body and what was said of it. Its copy keeps the tag that it got.
            return if asks_for_weak(request, head) { weaken(head) } else { Ok(()) };
        }
        if says(request, &CACHE_CONTROL, "no-transform") {
            return Ok(());
        }
        let Some(coding) = preferred(request.get_all(ACCEPT_ENCODING).iter(), &self.codings) else {
            return Ok(());
        };
        weaken(head)?;
        head.insert_header(CONTENT_ENCODING, coding.value())?;
        head.remove_header(&CONTENT_LENGTH);
        head.remove_header(&ACCEPT_RANGES);
        if exchange.method() != Method::HEAD {
            work.chosen = Some(coding);
        }
        Ok(())
    }

    fn response_body(&self, work: &mut Work, _: &mut Exchange<'_>, chunk: &mut Chunk<'_>) -> Result<()> {
        let Some(coding) = work.chosen else { return Ok(()) };
        let data = chunk.data.take().unwrap_or_default();
        if data.is_empty() && !chunk.end {
            return Ok(());
        }
        let encoder = match &mut work.encoder {
            Some(encoder) => encoder,
            none => none.insert(self.encoder(coding)?),
        };
        let encoded = encoder.encode(&data, chunk.end).map_err(failed)?;
        *chunk.data = (!encoded.is_empty()).then_some(encoded);
        if chunk.end {
            *work = Work::default();
        }
        Ok(())
    }
}

impl Compression {
    /// Whether an answer would be compressed for a client that takes it.
    fn suits(&self, head: &ResponseHeader) -> bool {
        has_content(head.status)
            && !DIGESTS.iter().chain([&CONTENT_RANGE]).any(|name| head.headers.contains_key(name))
            && !is_encoded(&head.headers)
            && !says(&head.headers, &CACHE_CONTROL, "no-transform")
            && self.is_long_enough(&head.headers)
            && self.is_of_type(head)
    }

    fn is_long_enough(&self, headers: &HeaderMap) -> bool {
        let length = headers.get(CONTENT_LENGTH).and_then(|length| length.to_str().ok()?.parse::<u64>().ok());
        length.is_none_or(|length| length > 0 && length >= self.min_size)
    }

    fn is_of_type(&self, head: &ResponseHeader) -> bool {
        match head.headers.get(CONTENT_TYPE).map(HeaderValue::to_str) {
            Some(Ok(kind)) => !is_stream(kind) && self.types.iter().any(|range| range.contains(kind)),
            Some(Err(_)) => false,
            // Of what has not changed, the type need not be told again.
            None => head.status == StatusCode::NOT_MODIFIED,
        }
    }

    fn encoder(&self, coding: Coding) -> Result<Encoder> {
        Encoder::new(coding, self.levels[coding as usize]).map_err(failed)
    }
}

fn has_content(status: StatusCode) -> bool {
    !status.is_informational()
        && !matches!(status, StatusCode::NO_CONTENT | StatusCode::RESET_CONTENT | StatusCode::PARTIAL_CONTENT)
}

fn is_encoded(headers: &HeaderMap) -> bool {
    headers
        .get_all(CONTENT_ENCODING)
        .iter()
        .any(|coding| !coding.as_bytes().eq_ignore_ascii_case(b"identity"))
}

/// Event streams, and gRPC in all its forms.
fn is_stream(kind: &str) -> bool {
    ["text/event-stream", "application/grpc"]
        .iter()
        .any(|stream| kind.get(..stream.len()).is_some_and(|start| start.eq_ignore_ascii_case(stream)))
}

/// Whether a list field has this member.
fn says(headers: &HeaderMap, name: &HeaderName, member: &str) -> bool {
    let lists = headers.get_all(name).iter().flat_map(|value| value.as_bytes().split(|byte| *byte == b','));
    lists.map(<[u8]>::trim_ascii).any(|known| known.eq_ignore_ascii_case(member.as_bytes()))
}

/// Whether the client has a copy under the weak form of a tag.
fn asks_for_weak(request: &HeaderMap, head: &ResponseHeader) -> bool {
    let Some(tag) = head.headers.get(ETAG) else { return false };
    let weak = [b"W/", tag.as_bytes()].concat();
    let mut lists = request.get_all(IF_NONE_MATCH).iter();
    lists.any(|list| list.as_bytes().windows(weak.len()).any(|part| part == weak))
}

/// Makes a strong `ETag` weak (RFC 9110, section 8.8.3).
fn weaken(head: &mut ResponseHeader) -> Result<()> {
    let Some(tag) = head.headers.get(ETAG).filter(|tag| tag.as_bytes().starts_with(b"\"")) else {
        return Ok(());
    };
    let weak = HeaderValue::from_bytes(&[b"W/", tag.as_bytes()].concat());
    Ok(head.insert_header(ETAG, weak.map_err(|_| Fault::new("an ETag cannot be weakened"))?)?)
}

fn failed(error: std::io::Error) -> Fault {
    Fault::new(format!("an encoder failed: {error}"))
}
