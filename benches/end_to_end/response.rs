//! Reads HTTP/1.1 responses (RFC 9112) off a byte stream: status, framing and completeness, and nothing more.
//!
//! It is strict where leniency would hide a fault: bytes past the end of a response, or a response whose end only the
//! close of the connection tells, count as malformed.

use std::fmt;

/// What a load generator must know of one complete response.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Response {
    pub status: u16,
    /// Whether the connection serves another request.
    pub reusable: bool,
    /// Whether it has a Content-Encoding.
    pub encoded: bool,
    /// Bytes of the body, as they came.
    pub body: u64,
}

/// Why the bytes are no response.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Malformed {
    StatusLine,
    Length,
    Chunk,
    /// Neither Content-Length nor chunked.
    Unframed,
    /// Bytes after the end of the response.
    Excess,
}

impl fmt::Display for Malformed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::StatusLine => "malformed status line",
            Self::Length => "malformed Content-Length",
            Self::Chunk => "malformed chunk",
            Self::Unframed => "response without framing",
            Self::Excess => "bytes after the end of the response",
        })
    }
}

impl std::error::Error for Malformed {}

/// An incremental reader; ready for the next response once it has returned one.
#[derive(Default)]
pub struct ResponseReader {
    state: State,
    /// An incomplete head; empty while heads arrive whole, which is nearly always.
    partial_head: Vec<u8>,
}

#[derive(Clone, Copy, Default)]
enum State {
    #[default]
    Head,
    Body(Response, Framing),
}

#[derive(Clone, Copy)]
enum Framing {
    /// Bytes of the body still to come.
    Length(u64),
    Chunked(Chunk),
}

#[derive(Clone, Copy)]
enum Chunk {
    Size {
        size: u64,
        digits: u8,
        extension: bool,
    },
    /// Bytes still to come, the CRLF behind the data included.
    Data(u64),
    /// Within the trailer section; `blank` while the current line has no bytes.
    Trailer {
        blank: bool,
    },
    End,
}

const SIZE_LINE: Chunk = Chunk::Size { size: 0, digits: 0, extension: false };

impl ResponseReader {
    /// Takes the next bytes; gives the response that they complete, if they do.
    pub fn feed(&mut self, input: &[u8]) -> Result<Option<Response>, Malformed> {
        match self.state {
            State::Head => self.feed_head(input),
            State::Body(response, framing) => self.feed_body(response, framing, input),
        }
    }

    fn feed_head(&mut self, input: &[u8]) -> Result<Option<Response>, Malformed> {
        if self.partial_head.is_empty() {
            return match end_of_head(input) {
                Some(end) => self.feed_whole_head(&input[..end], &input[end..]),
                None => {
                    self.partial_head.extend_from_slice(input);
                    Ok(None)
                }
            };
        }
        let mut head = std::mem::take(&mut self.partial_head);
        head.extend_from_slice(input);
        match end_of_head(&head) {
            Some(end) => self.feed_whole_head(&head[..end], &head[end..]),
            None => {
                self.partial_head = head;
                Ok(None)
            }
        }
    }

    fn feed_whole_head(&mut self, head: &[u8], body: &[u8]) -> Result<Option<Response>, Malformed> {
        let (response, framing) = parse_head(head)?;
        self.feed_body(response, framing, body)
    }

    fn feed_body(
        &mut self,
        mut response: Response,
        mut framing: Framing,
        input: &[u8],
    ) -> Result<Option<Response>, Malformed> {
        let rest = framing.consume(input, &mut response.body)?;
        if !framing.is_complete() {
            self.state = State::Body(response, framing);
            return Ok(None);
        }
        self.state = State::Head;
        if rest.is_empty() { Ok(Some(response)) } else { Err(Malformed::Excess) }
    }
}

impl Framing {
    fn is_complete(&self) -> bool {
        matches!(self, Self::Length(0) | Self::Chunked(Chunk::End))
    }

    /// Takes what belongs to the body, counts it and returns what is left of the input.
    fn consume<'a>(&mut self, input: &'a [u8], body: &mut u64) -> Result<&'a [u8], Malformed> {
        match self {
            Self::Length(left) => {
                let rest = take(left, input);
                *body += (input.len() - rest.len()) as u64;
                Ok(rest)
            }
            Self::Chunked(chunk) => chunk.consume(input, body),
        }
    }
}

impl Chunk {
    fn consume<'a>(&mut self, mut input: &'a [u8], body: &mut u64) -> Result<&'a [u8], Malformed> {
        while let Some((&byte, after)) = input.split_first() {
            match self {
                Self::End => break,
                Self::Data(left) => {
                    input = take(left, input);
                    if *left == 0 {
                        *self = SIZE_LINE;
                    }
                    continue;
                }
                Self::Size { .. } => {
                    *self = self.size_byte(byte)?;
                    if let Self::Data(size_and_end) = self {
                        *body += *size_and_end - 2;
                    }
                }
                Self::Trailer { blank: true } if byte == b'\n' => *self = Self::End,
                Self::Trailer { blank } => *blank = byte == b'\n' || (*blank && byte == b'\r'),
            }
            input = after;
        }
        Ok(input)
    }

    fn size_byte(self, byte: u8) -> Result<Self, Malformed> {
        let Self::Size { size, digits, extension } = self else {
            return Err(Malformed::Chunk);
        };
        match byte {
            b'\n' if digits == 0 => Err(Malformed::Chunk),
            b'\n' if size == 0 => Ok(Self::Trailer { blank: true }),
            b'\n' => Ok(Self::Data(size + 2)),
            b'\r' | b';' | b' ' => Ok(Self::Size { size, digits, extension: true }),
            _ if extension => Ok(self),
            _ => {
                let digit = char::from(byte).to_digit(16).ok_or(Malformed::Chunk)?;
                // Twelve digits are 256 TiB: enough, and far from an overflow.
                if digits >= 12 {
                    return Err(Malformed::Chunk);
                }
                Ok(Self::Size { size: size * 16 + u64::from(digit), digits: digits + 1, extension })
            }
        }
    }
}

fn take<'a>(left: &mut u64, input: &'a [u8]) -> &'a [u8] {
    let taken = input.len().min(usize::try_from(*left).unwrap_or(usize::MAX));
    *left -= taken as u64;
    &input[taken..]
}

fn end_of_head(input: &[u8]) -> Option<usize> {
    input.windows(4).position(|bytes| bytes == b"\r\n\r\n").map(|start| start + 4)
}

fn parse_head(head: &[u8]) -> Result<(Response, Framing), Malformed> {
    let mut lines = head.split(|&byte| byte == b'\n').map(<[u8]>::trim_ascii_end);
    let status = parse_status(lines.next().unwrap_or_default())?;
    let (mut reusable, mut encoded) = (true, false);
    // After 101 another protocol speaks.
    let mut framing = if matches!(status, 101 | 204 | 304) { Some(Framing::Length(0)) } else { None };
    for line in lines {
        let Some(colon) = line.iter().position(|&byte| byte == b':') else {
            continue;
        };
        let (name, value) = (&line[..colon], line[colon + 1..].trim_ascii());
        if name.eq_ignore_ascii_case(b"content-length") {
            framing = Some(Framing::Length(parse_length(value)?));
        } else if name.eq_ignore_ascii_case(b"transfer-encoding") && value.eq_ignore_ascii_case(b"chunked") {
            framing = Some(Framing::Chunked(SIZE_LINE));
        } else if name.eq_ignore_ascii_case(b"connection") && value.eq_ignore_ascii_case(b"close") {
            reusable = false;
        } else if name.eq_ignore_ascii_case(b"content-encoding") {
            encoded = true;
        }
    }
    Ok((Response { status, reusable, encoded, body: 0 }, framing.ok_or(Malformed::Unframed)?))
}

fn parse_status(line: &[u8]) -> Result<u16, Malformed> {
    let digits =
        line.strip_prefix(b"HTTP/1.1 ").and_then(|rest| rest.get(..3)).ok_or(Malformed::StatusLine)?;
    str::from_utf8(digits).ok().and_then(|digits| digits.parse().ok()).ok_or(Malformed::StatusLine)
}

fn parse_length(value: &[u8]) -> Result<u64, Malformed> {
    if !value.iter().all(u8::is_ascii_digit) {
        return Err(Malformed::Length);
    }
    str::from_utf8(value).ok().and_then(|digits| digits.parse().ok()).ok_or(Malformed::Length)
}

#[cfg(test)]
mod tests {
    use super::*;

    const OK: Response = Response { status: 200, reusable: true, encoded: false, body: 0 };

    fn with_body(body: u64) -> Response {
        Response { body, ..OK }
    }

    /// The outcome must not depend on how the bytes are cut.
    fn read_at_every_cut(bytes: &[u8]) -> Result<Option<Response>, Malformed> {
        let whole = ResponseReader::default().feed(bytes);
        for cut in 1..bytes.len() {
            let mut reader = ResponseReader::default();
            let halves = reader.feed(&bytes[..cut]).and_then(|first| match first {
                None => reader.feed(&bytes[cut..]),
                Some(_) => Err(Malformed::Excess),
            });
            assert_eq!(halves, whole, "cut at {cut}");
        }
        let mut reader = ResponseReader::default();
        let mut last = Ok(None);
        for byte in bytes {
            if !matches!(last, Ok(None)) {
                last = Err(Malformed::Excess);
                break;
            }
            last = reader.feed(std::slice::from_ref(byte));
        }
        assert_eq!(last, whole, "byte by byte");
        whole
    }

    #[test]
    fn reads_a_body_of_stated_length() {
        let bytes = b"HTTP/1.1 200 OK\r\nServer: x\r\ncontent-length: 5\r\n\r\nhello";
        assert_eq!(read_at_every_cut(bytes), Ok(Some(with_body(5))));
        assert_eq!(read_at_every_cut(&bytes[..bytes.len() - 1]), Ok(None));
    }

    #[test]
    fn reads_chunks_extensions_and_trailers() {
        let head = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n";
        for (body, length) in [
            (&b"0\r\n\r\n"[..], 0),
            (b"5\r\nhello\r\n0\r\n\r\n", 5),
            (
                b"1;name=value\r\na\r\n1A\r\nabcdefghijklmnopqrstuvwxyz\r\n0\r\nDigest: x\r\nOther: y\r\n\r\n",
                27,
            ),
        ] {
            assert_eq!(read_at_every_cut(&[&head[..], body].concat()), Ok(Some(with_body(length))));
        }
    }

    #[test]
    fn reads_one_response_after_another() {
        let mut reader = ResponseReader::default();
        for _ in 0..3 {
            assert_eq!(reader.feed(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n"), Ok(None));
            assert_eq!(reader.feed(b"ok"), Ok(Some(with_body(2))));
        }
    }

    #[test]
    fn tells_a_closing_connection_and_an_empty_body() {
        let closing = b"HTTP/1.1 503 No\r\nConnection: close\r\nContent-Length: 0\r\n\r\n";
        assert_eq!(read_at_every_cut(closing), Ok(Some(Response { status: 503, reusable: false, ..OK })));
        for (bytes, status) in [
            (&b"HTTP/1.1 204 No Content\r\n\r\n"[..], 204),
            (b"HTTP/1.1 101 Other\r\nUpgrade: x\r\n\r\n", 101),
        ] {
            assert_eq!(read_at_every_cut(bytes), Ok(Some(Response { status, ..OK })));
        }
        let encoded = b"HTTP/1.1 200 OK\r\ncontent-encoding: gzip\r\nContent-Length: 0\r\n\r\n";
        assert_eq!(read_at_every_cut(encoded), Ok(Some(Response { encoded: true, ..OK })));
    }

    #[test]
    fn refuses_what_is_no_response() {
        for (bytes, fault) in [
            (&b"HTTP/1.0 200 OK\r\n\r\n"[..], Malformed::StatusLine),
            (b"HTTP/1.1 200 OK\r\n\r\n", Malformed::Unframed),
            (b"HTTP/1.1 200 OK\r\nContent-Length: +1\r\n\r\n", Malformed::Length),
            (b"HTTP/1.1 200 OK\r\nContent-Length: \r\n\r\n", Malformed::Length),
            (b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\nab", Malformed::Excess),
            (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n\r\n", Malformed::Chunk),
            (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nxyz\r\n", Malformed::Chunk),
            (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nfffffffffffff\r\n", Malformed::Chunk),
        ] {
            assert_eq!(ResponseReader::default().feed(bytes), Err(fault));
        }
    }
}
