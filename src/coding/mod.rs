//! Content codings (RFC 9110, section 8.4.1): which one a client takes, and the streams that encode and decode. And base64,
//! which some protocols put their bytes into.
//!
//! No I/O: bytes in, bytes out, in pieces of any size.

mod accept;
mod base64;
mod decode;
mod encode;

pub use accept::preferred;
pub use base64::{Base64Decoder, NotBase64, encode_base64};
pub use decode::{Bounds, DecodeError, Decoder};
pub use encode::{Effort, Encoder};

use http::HeaderValue;

/// A content coding.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Coding {
    /// Zstandard (RFC 8878).
    Zstd,
    /// Brotli (RFC 7932).
    Brotli,
    /// Gzip (RFC 1952).
    Gzip,
    /// Zlib (RFC 1950), which HTTP calls `deflate`.
    Deflate,
}

impl Coding {
    /// Every coding, in the order we would have them.
    pub const ALL: [Self; 4] = [Self::Zstd, Self::Brotli, Self::Gzip, Self::Deflate];

    /// Its registered name.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Zstd => "zstd",
            Self::Brotli => "br",
            Self::Gzip => "gzip",
            Self::Deflate => "deflate",
        }
    }

    /// Its name as a field value.
    pub const fn value(self) -> HeaderValue {
        HeaderValue::from_static(self.name())
    }

    /// The coding of this name, in any case; `x-gzip` is `gzip` (RFC 9110, section 8.4.1.3).
    pub fn named(name: &[u8]) -> Option<Self> {
        let known = Self::ALL.into_iter().find(|coding| coding.name().as_bytes().eq_ignore_ascii_case(name));
        known.or_else(|| name.eq_ignore_ascii_case(b"x-gzip").then_some(Self::Gzip))
    }
}
