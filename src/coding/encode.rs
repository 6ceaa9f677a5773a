//! Encoders that give out what they have after every piece.

use std::io::{self, Write};

use brotli::CompressorWriter;
use bytes::Bytes;
use flate2::{Compress, Compression, FlushCompress, Status};
use zstd::stream::raw::{self, CParameter, InBuffer, Operation, OutBuffer};

use super::Coding;

/// How hard an encoder tries. The numbers are each library's own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Effort {
    /// As fast as it can.
    Fastest,
    /// What a busy server can afford.
    Balanced,
    /// Small bodies, at several times the price.
    Best,
}

/// Windows, in bits. They and the tables are bounded, so that a body of any length takes about 3 MiB at any level but
/// Brotli's above 6. Zstandard's window stays below the 8 MiB that all clients take (RFC 9659).
const BROTLI_WINDOW: u32 = 19;
const ZSTD_WINDOW: u32 = 20;
const GZIP_WINDOW: u8 = 15;

/// From this level on, Zstandard's tables would grow with the level, to 80 MiB. For this window smaller ones lose little
/// and are faster.
const ZSTD_LARGE_TABLES: u8 = 5;
const ZSTD_TABLE: u32 = 18;

/// The least room for output.
const ROOM: usize = 4 << 10;

/// One body being encoded.
pub struct Encoder(Engine);

enum Engine {
    Zstd(raw::Encoder<'static>),
    /// Gone when it has ended.
    Brotli(Option<Box<CompressorWriter<Vec<u8>>>>),
    Zlib(Compress),
}

impl Encoder {
    /// An encoder of this coding at this level: [`level`](Self::level), or one of [`levels`](Self::levels).
    ///
    /// # Errors
    ///
    /// Where the library does not take the level, or has no memory.
    pub fn new(coding: Coding, level: u8) -> io::Result<Self> {
        Ok(Self(match coding {
            Coding::Zstd => {
                let mut encoder = raw::Encoder::new(level.into())?;
                encoder.set_parameter(CParameter::WindowLog(ZSTD_WINDOW))?;
                if level >= ZSTD_LARGE_TABLES {
                    encoder.set_parameter(CParameter::HashLog(ZSTD_TABLE))?;
                    encoder.set_parameter(CParameter::ChainLog(ZSTD_TABLE))?;
                }
                Engine::Zstd(encoder)
            }
            Coding::Brotli => {
                let writer = CompressorWriter::new(Vec::new(), ROOM, level.into(), BROTLI_WINDOW);
                Engine::Brotli(Some(Box::new(writer)))
            }
            Coding::Gzip => Engine::Zlib(Compress::new_gzip(Compression::new(level.into()), GZIP_WINDOW)),
            Coding::Deflate => Engine::Zlib(Compress::new(Compression::new(level.into()), true)),
        }))
    }

    /// The level that an effort means for a coding.
    pub const fn level(coding: Coding, effort: Effort) -> u8 {
        match (coding, effort) {
            (_, Effort::Fastest) => 1,
            (Coding::Zstd, Effort::Balanced) => 3,
            (Coding::Zstd, Effort::Best) => 12,
            (Coding::Brotli, Effort::Balanced) => 4,
            (Coding::Brotli, Effort::Best) => 6,
            (Coding::Gzip | Coding::Deflate, Effort::Balanced) => 5,
            (Coding::Gzip | Coding::Deflate, Effort::Best) => 9,
        }
    }

    /// The levels that a coding has.
    pub const fn levels(coding: Coding) -> std::ops::RangeInclusive<u8> {
        match coding {
            Coding::Zstd => 1..=19,
            Coding::Brotli => 0..=11,
            Coding::Gzip | Coding::Deflate => 1..=9,
        }
    }

    /// Encodes a piece. What comes out can be decoded up to the piece's last byte; with `end`, the stream is complete.
    ///
    /// # Errors
    ///
    /// Where the library fails, or the stream has ended before.
    pub fn encode(&mut self, piece: &[u8], end: bool) -> io::Result<Bytes> {
        let encoded = match &mut self.0 {
            Engine::Zstd(encoder) => zstd(encoder, piece, end),
            Engine::Brotli(writer) => brotli(writer, piece, end),
            Engine::Zlib(compress) => zlib(compress, piece, end),
        };
        encoded.map(Bytes::from)
    }
}

fn zstd(encoder: &mut raw::Encoder<'_>, piece: &[u8], end: bool) -> io::Result<Vec<u8>> {
    let mut out = Vec::with_capacity(room_for(piece));
    let mut input = InBuffer::around(piece);
    while input.pos() < piece.len() {
        out.reserve(ROOM);
        let written = out.len();
        encoder.run(&mut input, &mut OutBuffer::around_pos(&mut out, written))?;
    }
    loop {
        out.reserve(ROOM);
        let written = out.len();
        let mut output = OutBuffer::around_pos(&mut out, written);
        let left = if end { encoder.finish(&mut output, true)? } else { encoder.flush(&mut output)? };
        if left == 0 {
            return Ok(out);
        }
    }
}

fn brotli(
    writer: &mut Option<Box<CompressorWriter<Vec<u8>>>>,
    piece: &[u8],
    end: bool,
) -> io::Result<Vec<u8>> {
    let open = writer.as_mut().ok_or(io::ErrorKind::UnexpectedEof)?;
    open.write_all(piece)?;
    if !end {
        open.flush()?;
        return Ok(std::mem::take(open.get_mut()));
    }
    // Only this writes the last block: to flush is not enough.
    Ok(writer.take().map(|writer| writer.into_inner()).unwrap_or_default())
}

fn zlib(compress: &mut Compress, piece: &[u8], end: bool) -> io::Result<Vec<u8>> {
    let mut out = Vec::with_capacity(room_for(piece));
    let flush = if end { FlushCompress::Finish } else { FlushCompress::Sync };
    let mut left = piece;
    loop {
        out.reserve(ROOM);
        let before = compress.total_in();
        let status = compress.compress_vec(left, &mut out, flush)?;
        let taken = usize::try_from(compress.total_in() - before).unwrap_or(left.len());
        left = left.get(taken..).unwrap_or_default();
        // All is out when there was room for more.
        let flushed = left.is_empty() && out.len() < out.capacity();
        if status == Status::StreamEnd || (flushed && !end) {
            return Ok(out);
        }
    }
}

/// What text shrinks to, and then some.
fn room_for(piece: &[u8]) -> usize {
    ROOM.max(piece.len() / 2)
}

#[cfg(test)]
mod tests {
    use super::super::{Bounds, Decoder};
    use super::*;

    fn pieces() -> Vec<Vec<u8>> {
        let text = "the quick brown fox jumps over the lazy dog ".repeat(3000).into_bytes();
        let noise: Vec<u8> = (0u32..100_000).map(|at| (at.wrapping_mul(2_654_435_761) >> 13) as u8).collect();
        vec![b"h".to_vec(), text, Vec::new(), noise, b"end".to_vec()]
    }

    #[test]
    fn every_piece_can_be_decoded_as_soon_as_it_is_out() {
        for coding in Coding::ALL {
            let levels = Encoder::levels(coding);
            for level in [*levels.start(), Encoder::level(coding, Effort::Balanced), *levels.end()] {
                let mut encoder = Encoder::new(coding, level).unwrap();
                let mut decoder = Decoder::new(coding, Bounds { bytes: u64::MAX, ratio: u64::MAX }).unwrap();
                for piece in pieces() {
                    let encoded = encoder.encode(&piece, false).unwrap();
                    let decoded = decoder.decode(&encoded, false).unwrap();
                    assert!(decoded == piece, "{coding:?} {level}: {} of {}", decoded.len(), piece.len());
                }
                let last = encoder.encode(b"!", true).unwrap();
                assert_eq!(decoder.decode(&last, true).unwrap(), "!", "{coding:?} {level}");
            }
        }
    }

    #[test]
    fn nothing_is_a_whole_stream() {
        for coding in Coding::ALL {
            let mut encoder = Encoder::new(coding, 1).unwrap();
            let encoded = encoder.encode(b"", true).unwrap();
            assert!(!encoded.is_empty(), "{coding:?}");
            let mut decoder = Decoder::new(coding, Bounds { bytes: 0, ratio: 1 }).unwrap();
            assert_eq!(decoder.decode(&encoded, true).unwrap(), "", "{coding:?}");
        }
    }
}
