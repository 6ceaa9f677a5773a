//! Decoders for bodies of strangers: bounded in what they give out and in what they keep.
//!
//! 1. The stream must be whole: one that ends early, or goes on behind its end, is corrupt. Gzip members and Zstandard
//!    frames may follow one another (RFC 1952, section 2.2; RFC 8878, section 3.1). Nothing at all is an empty body.
//! 2. What comes out is bounded in bytes and, once it is large, in proportion to what went in. Both are looked at while
//!    decoding, so that one piece never grows beyond them.
//! 3. A Zstandard window is at most 8 MiB (RFC 9659), a Brotli window at most 16 MiB (RFC 7932, without its unregistered
//!    extension). Formats older than RFC 8878 are refused: their windows are not bounded.

use std::io;

use brotli::writer::StandardAlloc;
use brotli::{BrotliDecompressStream, BrotliResult, BrotliState};
use bytes::Bytes;
use flate2::{Decompress, FlushDecompress, Status};
use zstd::stream::raw::{self, DParameter, Operation};

use super::Coding;

/// What a decoded body may be.
#[derive(Debug, Clone, Copy)]
pub struct Bounds {
    /// The most bytes.
    pub bytes: u64,
    /// The most bytes for each byte that came, once there are more than 64 KiB.
    pub ratio: u64,
}

/// Why a body cannot be decoded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DecodeError {
    /// It is not what its coding says, or not whole.
    Corrupt,
    /// More bytes than allowed come out.
    TooLarge,
    /// More bytes come out, for what went in, than allowed.
    TooDense,
}

/// What may come out of any input: small bodies shrink to almost nothing, honestly.
const RATIO_FROM: u64 = 64 << 10;

/// Decoded at once between two looks at the bounds.
const STEP: usize = 16 << 10;

const GZIP_WINDOW: u8 = 15;
const ZSTD_WINDOW: u32 = 23;

/// One body being decoded.
pub struct Decoder {
    engine: Engine,
    bounds: Bounds,
    read: u64,
    written: u64,
    /// Whether the stream is where it may end.
    whole: bool,
}

enum Engine {
    Zstd(Frames),
    Brotli(Box<BrotliState<StandardAlloc, StandardAlloc, StandardAlloc>>),
    Gzip(Decompress),
    Deflate(Decompress),
}

/// What one step did.
struct Step {
    read: usize,
    written: usize,
    ended: bool,
}

struct Corrupt;

impl Decoder {
    /// A decoder of this coding.
    ///
    /// # Errors
    ///
    /// Where the library has no memory.
    pub fn new(coding: Coding, bounds: Bounds) -> io::Result<Self> {
        let engine = match coding {
            Coding::Zstd => Engine::Zstd(Frames::new()?),
            Coding::Brotli => {
                let alloc = StandardAlloc::default;
                Engine::Brotli(Box::new(BrotliState::new_strict(alloc(), alloc(), alloc())))
            }
            Coding::Gzip => Engine::Gzip(Decompress::new_gzip(GZIP_WINDOW)),
            Coding::Deflate => Engine::Deflate(Decompress::new(true)),
        };
        Ok(Self { engine, bounds, read: 0, written: 0, whole: true })
    }

    /// Decodes a piece; with `end`, the last one.
    ///
    /// # Errors
    ///
    /// Where the body is not to be taken. Nothing can be decoded after that.
    pub fn decode(&mut self, piece: &[u8], end: bool) -> Result<Bytes, DecodeError> {
        let mut out = Vec::new();
        let mut left = piece;
        // A step that fills its room may have left something behind.
        let mut full = false;
        while !left.is_empty() || full {
            if self.whole && self.read > 0 {
                self.engine.again()?;
            }
            let at = out.len();
            out.resize(at + STEP, 0);
            let step = self.engine.step(left, &mut out[at..])?;
            out.truncate(at + step.written);
            left = left.get(step.read..).unwrap_or_default();
            self.whole = step.ended;
            full = step.written == STEP && !step.ended;
            self.read += step.read as u64;
            self.written += step.written as u64;
            self.check()?;
            let stuck = step.read == 0 && step.written == 0;
            if stuck && !left.is_empty() {
                return Err(DecodeError::Corrupt);
            }
        }
        if end && !self.whole {
            return Err(DecodeError::Corrupt);
        }
        Ok(out.into())
    }

    fn check(&self) -> Result<(), DecodeError> {
        if self.written > self.bounds.bytes {
            return Err(DecodeError::TooLarge);
        }
        if self.written > RATIO_FROM.max(self.read.saturating_mul(self.bounds.ratio)) {
            return Err(DecodeError::TooDense);
        }
        Ok(())
    }
}

impl From<Corrupt> for DecodeError {
    fn from(Corrupt: Corrupt) -> Self {
        Self::Corrupt
    }
}

impl Engine {
    /// Begins anew behind an end.
    fn again(&mut self) -> Result<(), Corrupt> {
        match self {
            Self::Zstd(_) => Ok(()),
            Self::Gzip(inflate) => {
                *inflate = Decompress::new_gzip(GZIP_WINDOW);
                Ok(())
            }
            Self::Brotli(_) | Self::Deflate(_) => Err(Corrupt),
        }
    }

    fn step(&mut self, input: &[u8], out: &mut [u8]) -> Result<Step, Corrupt> {
        match self {
            Self::Zstd(frames) => frames.step(input, out),
            Self::Brotli(state) => brotli(state, input, out),
            Self::Gzip(inflate) | Self::Deflate(inflate) => zlib(inflate, input, out),
        }
    }
}

fn zlib(inflate: &mut Decompress, input: &[u8], out: &mut [u8]) -> Result<Step, Corrupt> {
    let (read, written) = (inflate.total_in(), inflate.total_out());
    let status = inflate.decompress(input, out, FlushDecompress::None).map_err(|_| Corrupt)?;
    let count = |bytes: u64| usize::try_from(bytes).map_err(|_| Corrupt);
    Ok(Step {
        read: count(inflate.total_in() - read)?,
        written: count(inflate.total_out() - written)?,
        ended: status == Status::StreamEnd,
    })
}

fn brotli(
    state: &mut BrotliState<StandardAlloc, StandardAlloc, StandardAlloc>,
    input: &[u8],
    out: &mut [u8],
) -> Result<Step, Corrupt> {
    let (mut available_in, mut read, mut available_out, mut written, mut total) =
        (input.len(), 0, out.len(), 0, 0);
    let result = BrotliDecompressStream(
        &mut available_in,
        &mut read,
        input,
        &mut available_out,
        &mut written,
        out,
        &mut total,
        state,
    );
    match result {
        BrotliResult::ResultFailure => Err(Corrupt),
        other => Ok(Step { read, written, ended: matches!(other, BrotliResult::ResultSuccess) }),
    }
}

/// Zstandard frames, one after the other.
struct Frames {
    decoder: raw::Decoder<'static>,
    /// The first bytes of the frame.
    magic: [u8; 4],
    /// How many of them were seen.
    seen: usize,
}

impl Frames {
    fn new() -> io::Result<Self> {
        let mut decoder = raw::Decoder::new()?;
        decoder.set_parameter(DParameter::WindowLogMax(ZSTD_WINDOW))?;
        Ok(Self { decoder, magic: [0; 4], seen: 0 })
    }

    fn step(&mut self, input: &[u8], out: &mut [u8]) -> Result<Step, Corrupt> {
        for (place, byte) in self.magic[self.seen..].iter_mut().zip(input) {
            *place = *byte;
            self.seen += 1;
        }
        if !is_frame(&self.magic[..self.seen]) {
            return Err(Corrupt);
        }
        let status = self.decoder.run_on_buffers(input, out).map_err(|_| Corrupt)?;
        let ended = status.remaining == 0;
        if ended {
            self.seen = 0;
        }
        Ok(Step { read: status.bytes_read, written: status.bytes_written, ended })
    }
}

/// Whether a frame of RFC 8878 may begin like this, a skippable one included. The library also knows older formats.
fn is_frame(magic: &[u8]) -> bool {
    b"\x28\xb5\x2f\xfd".starts_with(magic)
        || matches!(magic, [0x50..=0x5f, rest @ ..] if b"\x2a\x4d\x18".starts_with(rest))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::Encoder;
    use super::*;

    const WIDE: Bounds = Bounds { bytes: u64::MAX, ratio: u64::MAX };

    fn encoded(coding: Coding, bytes: &[u8]) -> Vec<u8> {
        Encoder::new(coding, 1).unwrap().encode(bytes, true).unwrap().to_vec()
    }

    /// Decodes in pieces of these sizes, in turn.
    fn decoded(
        coding: Coding,
        bounds: Bounds,
        bytes: &[u8],
        sizes: &[usize],
    ) -> Result<Vec<u8>, DecodeError> {
        let mut decoder = Decoder::new(coding, bounds).unwrap();
        let (mut left, mut whole) = (bytes, Vec::new());
        for size in sizes.iter().cycle() {
            let (piece, rest) = left.split_at(left.len().min(*size));
            whole.extend(decoder.decode(piece, rest.is_empty())?);
            left = rest;
            if left.is_empty() {
                break;
            }
        }
        Ok(whole)
    }

    fn codings() -> impl Strategy<Value = Coding> {
        prop::sample::select(Coding::ALL.to_vec())
    }

    /// Bytes with repetitions near and far.
    fn bodies() -> impl Strategy<Value = Vec<u8>> {
        let part = (prop::collection::vec(any::<u8>(), 0..40), 1..2000_usize);
        let parts = prop::collection::vec(part, 0..12);
        parts.prop_map(|parts| parts.into_iter().flat_map(|(bytes, times)| bytes.repeat(times)).collect())
    }

    fn sizes() -> impl Strategy<Value = Vec<usize>> {
        prop::collection::vec(prop_oneof![Just(1), 1..64_usize, 64..70_000_usize], 1..8)
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        #[test]
        fn pieces_of_any_size_make_the_same_whole(coding in codings(), body in bodies(), sizes in sizes()) {
            let stream = encoded(coding, &body);
            prop_assert_eq!(decoded(coding, WIDE, &stream, &sizes), Ok(body));
        }

        #[test]
        fn a_part_is_never_whole(coding in codings(), body in bodies(), sizes in sizes(), cut: prop::sample::Index) {
            let stream = encoded(coding, &body);
            let part = &stream[..cut.index(stream.len())];
            let expected = if part.is_empty() { Ok(Vec::new()) } else { Err(DecodeError::Corrupt) };
            prop_assert_eq!(decoded(coding, WIDE, part, &sizes), expected);
        }

        #[test]
        fn what_is_damaged_surprises_nobody(
            coding in codings(),
            body in bodies(),
            sizes in sizes(),
            damage in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..6),
        ) {
            let mut stream = encoded(coding, &body);
            for (at, byte) in damage {
                let at = at.index(stream.len());
                stream[at] = byte;
            }
            let bounds = Bounds { bytes: 1 << 20, ratio: 50 };
            if let Ok(whole) = decoded(coding, bounds, &stream, &sizes) {
                prop_assert!(whole.len() <= 1 << 20);
            }
        }

        #[test]
        fn noise_surprises_nobody(coding in codings(), noise: Vec<u8>, sizes in sizes()) {
            let _ = decoded(coding, WIDE, &noise, &sizes);
        }
    }

    #[test]
    fn bounds_are_looked_at_while_decoding() {
        for coding in Coding::ALL {
            let bomb = encoded(coding, &vec![0; 32 << 20]);
            for (bounds, error) in [
                (Bounds { bytes: 100_000, ratio: u64::MAX }, DecodeError::TooLarge),
                (Bounds { bytes: u64::MAX, ratio: 100 }, DecodeError::TooDense),
            ] {
                let mut decoder = Decoder::new(coding, bounds).unwrap();
                assert_eq!(decoder.decode(&bomb, true), Err(error), "{coding:?}");
                let bound = bounds.bytes.min(RATIO_FROM.max(decoder.read.saturating_mul(bounds.ratio)));
                assert!(decoder.written <= bound + STEP as u64, "{coding:?}: {} of {bound}", decoder.written);
            }
        }
    }

    #[test]
    fn a_limit_is_reached_exactly() {
        for coding in Coding::ALL {
            for length in [0, 1, STEP - 1, STEP, STEP + 1, 4 * STEP] {
                let stream = encoded(coding, &vec![7; length]);
                let at = |bytes| decoded(coding, Bounds { bytes, ratio: u64::MAX }, &stream, &[usize::MAX]);
                assert_eq!(at(length as u64).map(|whole| whole.len()), Ok(length), "{coding:?}");
                if length > 0 {
                    assert_eq!(at(length as u64 - 1), Err(DecodeError::TooLarge), "{coding:?} {length}");
                }
            }
        }
    }

    #[test]
    fn old_formats_are_no_frames() {
        assert!(
            is_frame(b"")
                && is_frame(b"\x28\xb5")
                && is_frame(b"\x28\xb5\x2f\xfd")
                && is_frame(b"\x5f\x2a\x4d\x18")
        );
        for magic in [
            &b"\x25\xb5\x2f\xfd"[..],
            b"\x1e\xb5\x2f\xfd",
            b"\x60\x2a\x4d\x18",
            b"\x50\x2a\x4d\x19",
            b"\x28\xb6",
        ] {
            assert!(!is_frame(magic), "{magic:?}");
        }
    }
}
