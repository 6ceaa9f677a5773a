//! Where a request's body ends (RFC 9112 6 and 7.1): a scanner that the body's bytes stream past. It keeps none
//! of them but the trailer line being read.
//!
//! 1. A chunk size is 1 to 16 hexadecimal digits and nothing else: no sign, no prefix, no space.
//! 2. Chunk extensions follow the grammar without its optional whitespace, which readers disagree on, and are
//!    bounded over the whole body.
//! 3. Every line ends with CRLF, and so does the data of every chunk.
//! 4. Trailers follow the rules of header lines, are bounded, and may not say what a header should have said.

use super::{Refusal, field};

/// Most bytes that the chunk extensions of one body may have.
const MAX_EXTENSION_BYTES: usize = 4 * 1024;

/// Most bytes that the trailer section may have, its line ends included.
const MAX_TRAILER_BYTES: usize = 8 * 1024;

const MAX_SIZE_DIGITS: u8 = 16;

/// How the end of a request body is found (RFC 9112 6.3).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BodyFraming {
    /// There is no body.
    None,
    /// So many bytes, as Content-Length says.
    Length(u64),
    /// The chunked transfer coding.
    Chunked,
}

/// How far a body has got with one piece of input.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Fed {
    /// Bytes of the input that belong to the body. The others begin the next request.
    pub consumed: usize,
    /// Whether the body has ended.
    pub done: bool,
}

/// Follows one request body to its end.
#[derive(Debug)]
pub struct BodyScanner {
    state: State,
    payload: u64,
    extension_bytes: usize,
    trailer_bytes: usize,
    trailer_line: Vec<u8>,
}

#[derive(Debug, Clone, Copy)]
enum State {
    /// Bytes left of a body with a length.
    Length(u64),
    Size {
        digits: u8,
        size: u64,
    },
    Extension {
        part: Extension,
        size: u64,
    },
    SizeLf {
        size: u64,
    },
    /// Bytes left of a chunk.
    Data(u64),
    DataCr,
    DataLf,
    Trailer,
    TrailerLf,
    Done,
    Refused(Refusal),
}

/// Where in `";" name [ "=" ( token / quoted-string ) ]` the next byte stands.
#[derive(Debug, Clone, Copy)]
enum Extension {
    NameStart,
    Name,
    ValueStart,
    Token,
    Quoted,
    Escaped,
    AfterQuoted,
}

impl BodyScanner {
    /// A scanner for a body framed like this.
    pub fn new(framing: BodyFraming) -> Self {
        let state = match framing {
            BodyFraming::None | BodyFraming::Length(0) => State::Done,
            BodyFraming::Length(length) => State::Length(length),
            BodyFraming::Chunked => State::Size { digits: 0, size: 0 },
        };
        Self { state, payload: 0, extension_bytes: 0, trailer_bytes: 0, trailer_line: Vec::new() }
    }

    /// Takes the next bytes, and stops at the end of the body.
    ///
    /// # Errors
    /// A body that breaks the rules is refused, now and at every later call.
    pub fn feed(&mut self, bytes: &[u8]) -> Result<Fed, Refusal> {
        let mut consumed = 0;
        loop {
            let rest = &bytes[consumed..];
            match self.state {
                State::Refused(refusal) => return Err(refusal),
                State::Done => return Ok(Fed { consumed, done: true }),
                _ if rest.is_empty() => {
                    return Ok(Fed { consumed, done: false });
                }
                State::Length(left) => consumed += self.take_data(rest, left, State::Length, State::Done),
                State::Data(left) => consumed += self.take_data(rest, left, State::Data, State::DataCr),
                state => {
                    self.state = self.step(state, rest[0]).unwrap_or_else(State::Refused);
                    consumed += 1;
                }
            }
        }
    }

    /// Bytes of content seen so far: without chunk framing, extensions and trailers.
    pub fn payload(&self) -> u64 {
        self.payload
    }

    /// Passes over data, of which `left` bytes are still to come. Returns how many of them were in `bytes`.
    fn take_data(&mut self, bytes: &[u8], left: u64, open: fn(u64) -> State, ended: State) -> usize {
        let taken = usize::try_from(left).map_or(bytes.len(), |left| left.min(bytes.len()));
        let left = left - taken as u64;
        self.payload = self.payload.saturating_add(taken as u64);
        self.state = if left == 0 { ended } else { open(left) };
        taken
    }

    /// The state after one byte of chunk framing.
    fn step(&mut self, state: State, byte: u8) -> Result<State, Refusal> {
        match state {
            State::Size { digits, size } => size_byte(digits, size, byte),
            State::Extension { part, size } => self.extension_byte(part, size, byte),
            State::SizeLf { size } => {
                expect_lf(byte)?;
                Ok(if size == 0 { State::Trailer } else { State::Data(size) })
            }
            State::DataCr if byte == b'\r' => Ok(State::DataLf),
            State::DataCr => Err(Refusal::BadChunkEnd),
            State::DataLf if byte == b'\n' => Ok(State::Size { digits: 0, size: 0 }),
            State::DataLf => Err(Refusal::BadChunkEnd),
            State::Trailer | State::TrailerLf => self.trailer_byte(state, byte),
            State::Length(_) | State::Data(_) | State::Done | State::Refused(_) => Ok(state),
        }
    }

    fn extension_byte(&mut self, part: Extension, size: u64, byte: u8) -> Result<State, Refusal> {
        if byte == b'\r' {
            return if part.may_end() { Ok(State::SizeLf { size }) } else { Err(Refusal::BadChunkExtension) };
        }
        self.count_extension_byte()?;
        Ok(State::Extension { part: part.after(byte)?, size })
    }

    fn count_extension_byte(&mut self) -> Result<(), Refusal> {
        self.extension_bytes += 1;
        if self.extension_bytes > MAX_EXTENSION_BYTES {
            Err(Refusal::ChunkExtensionsTooLarge)
        } else {
            Ok(())
        }
    }

    fn trailer_byte(&mut self, state: State, byte: u8) -> Result<State, Refusal> {
        self.trailer_bytes += 1;
        if self.trailer_bytes > MAX_TRAILER_BYTES {
            return Err(Refusal::TrailersTooLarge);
        }
        if let State::TrailerLf = state {
            expect_lf(byte)?;
            return self.trailer_line_ended();
        }
        match byte {
            b'\r' => return Ok(State::TrailerLf),
            b'\n' => return Err(Refusal::BareLf),
            b' ' | b'\t' if self.trailer_line.is_empty() => return Err(Refusal::ObsFold),
            _ if field::is_control(byte) => return Err(field::why_control(&self.trailer_line)),
            _ => self.trailer_line.push(byte),
        }
        Ok(State::Trailer)
    }

    fn trailer_line_ended(&mut self) -> Result<State, Refusal> {
        if self.trailer_line.is_empty() {
            return Ok(State::Done);
        }
        if field::is_forbidden_trailer(field::parse(&self.trailer_line)?.name) {
            return Err(Refusal::ForbiddenTrailer);
        }
        self.trailer_line.clear();
        Ok(State::Trailer)
    }
}

impl Extension {
    fn may_end(self) -> bool {
        matches!(self, Extension::Name | Extension::Token | Extension::AfterQuoted)
    }

    /// The part after one byte other than CR (RFC 9112 7.1.1).
    fn after(self, byte: u8) -> Result<Self, Refusal> {
        use Extension::*;
        match (self, byte) {
            (_, b'\n') => Err(Refusal::BareLf),
            (Name | Token | AfterQuoted, b';') => Ok(NameStart),
            (Name, b'=') => Ok(ValueStart),
            (NameStart | Name, _) if field::is_tchar(byte) => Ok(Name),
            (ValueStart, b'"') => Ok(Quoted),
            (ValueStart | Token, _) if field::is_tchar(byte) => Ok(Token),
            (Quoted, b'"') => Ok(AfterQuoted),
            (Quoted, b'\\') => Ok(Escaped),
            (Quoted | Escaped, b'\t' | b' '..=b'~' | 0x80..) => Ok(Quoted),
            _ => Err(Refusal::BadChunkExtension),
        }
    }
}

fn size_byte(digits: u8, size: u64, byte: u8) -> Result<State, Refusal> {
    match byte {
        b'\n' => Err(Refusal::BareLf),
        b'\r' | b';' if digits == 0 => Err(Refusal::BadChunkSize),
        b'\r' => Ok(State::SizeLf { size }),
        b';' => Ok(State::Extension { part: Extension::NameStart, size }),
        _ => size_digit(digits, size, byte),
    }
}

/// Readers with signed sizes see a negative one from 2^63 on.
fn size_digit(digits: u8, size: u64, byte: u8) -> Result<State, Refusal> {
    let digit = char::from(byte).to_digit(16).ok_or(Refusal::BadChunkSize)?;
    if digits == MAX_SIZE_DIGITS {
        return Err(Refusal::BadChunkSize);
    }
    let size = size << 4 | u64::from(digit);
    if size > i64::MAX as u64 {
        return Err(Refusal::ChunkSizeTooLarge);
    }
    Ok(State::Size { digits: digits + 1, size })
}

fn expect_lf(byte: u8) -> Result<(), Refusal> {
    if byte == b'\n' { Ok(()) } else { Err(Refusal::BareCr) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Verdict, bytes consumed and payload, when `bytes` come in pieces of `size`.
    fn scan(framing: BodyFraming, bytes: &[u8], size: usize) -> (Result<Fed, Refusal>, u64) {
        let mut scanner = BodyScanner::new(framing);
        let mut consumed = 0;
        for piece in bytes.chunks(size) {
            match scanner.feed(piece) {
                Ok(fed) => {
                    consumed += fed.consumed;
                    if fed.done {
                        return (Ok(Fed { consumed, done: true }), scanner.payload());
                    }
                }
                Err(refusal) => return (Err(refusal), scanner.payload()),
            }
        }
        (scanner.feed(&[]).map(|fed| Fed { consumed, ..fed }), scanner.payload())
    }

    fn chunked(bytes: &[u8]) -> Result<Fed, Refusal> {
        scan(BodyFraming::Chunked, bytes, usize::MAX).0
    }

    #[test]
    fn a_length_is_counted_down() {
        let fed = |bytes: &[u8]| scan(BodyFraming::Length(5), bytes, usize::MAX);
        assert_eq!(fed(b"abc"), (Ok(Fed { consumed: 3, done: false }), 3));
        assert_eq!(fed(b"abcdeGET /"), (Ok(Fed { consumed: 5, done: true }), 5));
    }

    #[test]
    fn no_body_is_done_at_once() {
        for framing in [BodyFraming::None, BodyFraming::Length(0)] {
            assert_eq!(scan(framing, b"GET /", 9), (Ok(Fed { consumed: 0, done: true }), 0));
            assert_eq!(BodyScanner::new(framing).feed(&[]), Ok(Fed { consumed: 0, done: true }));
        }
    }

    #[test]
    fn chunks_extensions_and_trailers_are_followed() {
        let body =
            b"5\r\nhello\r\n00000000000A;a;b=c;d=\"q\\\"\tq;\"\r\n0123456789\r\n0\r\nDigest: x\r\nA:\r\n\r\n";
        let all = [&body[..], b"GET /"].concat();
        let expected = (Ok(Fed { consumed: body.len(), done: true }), 15);
        assert_eq!(scan(BodyFraming::Chunked, &all, usize::MAX), expected);
        assert_eq!(scan(BodyFraming::Chunked, &all, 1), expected);
    }

    #[test]
    fn malformed_chunks_are_refused() {
        use Refusal::*;
        for (body, refusal) in [
            (&b"\r\n"[..], BadChunkSize),
            (b"0x5\r\n", BadChunkSize),
            (b" 5\r\n", BadChunkSize),
            (b"5 \r\n", BadChunkSize),
            (b"5 ;a\r\n", BadChunkSize),
            (b"-5\r\n", BadChunkSize),
            (b"+5\r\n", BadChunkSize),
            (b";a\r\n", BadChunkSize),
            (b"00000000000000005\r\n", BadChunkSize),
            (b"8000000000000000\r\n", ChunkSizeTooLarge),
            (b"5\n", BareLf),
            (b"5\rh", BareCr),
            (b"5;\r\n", BadChunkExtension),
            (b"5;\n", BareLf),
            (b"5; a\r\n", BadChunkExtension),
            (b"5;a=\r\n", BadChunkExtension),
            (b"5;a=\"x\r\n", BadChunkExtension),
            (b"5;a=\"x\"y\r\n", BadChunkExtension),
            (b"5;a\x00\r\n", BadChunkExtension),
            (b"5;a\rb", BareCr),
            (b"5;a\nb", BareLf),
            (b"5\r\nhelloX", BadChunkEnd),
            (b"5\r\nhello\n", BadChunkEnd),
            (b"5\r\nhello\rX", BadChunkEnd),
            (b"0\r\nA: b\n", BareLf),
            (b"0\r\nA: b\rc", BareCr),
            (b"0\r\n A: b\r\n", ObsFold),
            (b"0\r\nA: b\r\n c\r\n", ObsFold),
            (b"0\r\nA : b\r\n", SpaceBeforeColon),
            (b"0\r\nA: \0", BadFieldValue),
            (b"0\r\nA\0", BadFieldName),
            (b"0\r\nContent-Length: 5\r\n", ForbiddenTrailer),
            (b"0\r\nhost: a\r\n", ForbiddenTrailer),
            (b"0\r\nContent_Length: 5\r\n", LookalikeFieldName),
        ] {
            assert_eq!(chunked(body), Err(refusal), "{}", body.escape_ascii());
        }
    }

    #[test]
    fn extensions_are_bounded_over_the_body() {
        let chunk = format!("1;{}\r\nx\r\n", "e".repeat(1023));
        assert!(chunked(chunk.repeat(4).as_bytes()).is_ok());
        assert_eq!(chunked(chunk.repeat(5).as_bytes()), Err(Refusal::ChunkExtensionsTooLarge));
    }

    #[test]
    fn trailers_are_bounded() {
        let trailers = |n: usize| format!("0\r\n{}\r\n", "A: 345\r\n".repeat(n));
        assert!(chunked(trailers(1023).as_bytes()).is_ok_and(|fed| fed.done));
        assert_eq!(chunked(trailers(1024).as_bytes()), Err(Refusal::TrailersTooLarge));
    }

    #[test]
    fn a_refused_body_stays_refused() {
        let mut scanner = BodyScanner::new(BodyFraming::Chunked);
        assert_eq!(scanner.feed(b"x"), Err(Refusal::BadChunkSize));
        assert_eq!(scanner.feed(b"0\r\n\r\n"), Err(Refusal::BadChunkSize));
        assert_eq!(scanner.feed(&[]), Err(Refusal::BadChunkSize));
    }

    /// Chunked bodies, some of them wrong.
    fn bodies() -> impl Strategy<Value = Vec<u8>> {
        let piece = prop::sample::select(vec![
            &b"5\r\nhello\r\n"[..],
            b"1;a=b\r\nx\r\n",
            b"2;a=\"\\\"\"\r\nxy\r\n",
            b"0\r\n",
            b"A: b\r\n",
            b"\r\n",
            b"5",
            b"\n",
            b";",
        ]);
        let noise = prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..2);
        (prop::collection::vec(piece, 1..8), noise).prop_map(|(pieces, noise)| {
            let mut bytes = [&pieces.concat()[..], b"0\r\n\r\n"].concat();
            for (at, byte) in noise {
                let at = at.index(bytes.len());
                bytes[at] = byte;
            }
            bytes
        })
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(2000))]

        #[test]
        fn pieces_change_nothing(body in bodies(), size in 1usize..9) {
            let whole = scan(BodyFraming::Chunked, &body, usize::MAX);
            prop_assert_eq!(whole, scan(BodyFraming::Chunked, &body, 1));
            prop_assert_eq!(whole, scan(BodyFraming::Chunked, &body, size));
        }

        #[test]
        fn a_well_formed_body_is_followed_to_its_end(
            chunks in prop::collection::vec(prop::collection::vec(any::<u8>(), 1..40), 0..8),
            size in 1usize..50,
        ) {
            let mut body = Vec::new();
            for chunk in &chunks {
                body.extend_from_slice(format!("{:x}\r\n", chunk.len()).as_bytes());
                body.extend_from_slice(chunk);
                body.extend_from_slice(b"\r\n");
            }
            body.extend_from_slice(b"0\r\n\r\n");
            let len = body.len();
            body.extend_from_slice(b"GET / HTTP/1.1\r\n");
            let payload = chunks.iter().map(|chunk| chunk.len() as u64).sum();
            let expected = (Ok(Fed { consumed: len, done: true }), payload);
            prop_assert_eq!(scan(BodyFraming::Chunked, &body, size), expected);
        }
    }
}
