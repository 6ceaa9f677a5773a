//! HTTP/2 (RFC 9113) as far as the bench needs it, for both of its ends: bytes in, events out, prepared frames back.
//!
//! Nothing is decoded that needs no decoding, so that the load core has time for more than one connection's worth of
//! streams. Field blocks are prepared once. A client looks at the status of those that come, which works without HPACK's
//! dynamic table: its settings forbid that to the other end. A server does not look at them, and leaves proxies the table of
//! 4096 bytes that servers have.

use std::fmt;
use std::ops::Range;

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
const FRAME_HEAD: usize = 9;
/// The initial window of a connection, and the largest of all.
const INITIAL_WINDOW: i64 = 65_535;
const MAX_WINDOW: u32 = (1 << 31) - 1;
/// When so much has come the window is opened by as much again.
const REFILL: u32 = 1 << 30;

const DATA: u8 = 0;
const HEADERS: u8 = 1;
const RST_STREAM: u8 = 3;
const SETTINGS: u8 = 4;
const PING: u8 = 6;
const GOAWAY: u8 = 7;
const WINDOW_UPDATE: u8 = 8;
const END_STREAM: u8 = 0x1;
const ACK: u8 = 0x1;
const END_HEADERS: u8 = 0x4;
const PADDED_OR_PRIORITY: u8 = 0x8 | 0x20;

/// What one of the streams, or the whole connection, has come to.
#[derive(Debug, PartialEq, Eq)]
pub enum Event {
    /// A field block, to be read by [`Wire::block`] before the next bytes are fed.
    Headers {
        stream: u32,
        block: Range<usize>,
        end: bool,
    },
    Data {
        stream: u32,
        length: usize,
        end: bool,
    },
    Reset {
        stream: u32,
    },
    GoAway,
}

/// What the bench does not read, although HTTP/2 allows it.
#[derive(Debug, PartialEq, Eq)]
pub struct Unexpected(&'static str);

impl fmt::Display for Unexpected {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "unexpected in HTTP/2: {}", self.0)
    }
}

impl std::error::Error for Unexpected {}

/// One end of a connection, without its socket.
pub struct Wire {
    input: Vec<u8>,
    /// How much of `input` has become events.
    taken: usize,
    /// To be sent by the owner of the socket, who empties it.
    pub output: Vec<u8>,
    /// Bytes of DATA that the other end takes on this connection.
    window: i64,
    received: u32,
    is_client: bool,
    preface_seen: bool,
}

impl Wire {
    pub fn client() -> Self {
        Self::new(true, PREFACE.to_vec())
    }

    pub fn server() -> Self {
        Self::new(false, Vec::new())
    }

    fn new(is_client: bool, output: Vec<u8>) -> Self {
        let mut wire = Self {
            input: Vec::new(),
            taken: 0,
            output,
            window: INITIAL_WINDOW,
            received: 0,
            is_client,
            preface_seen: is_client,
        };
        // INITIAL_WINDOW_SIZE the most there is; of a client HEADER_TABLE_SIZE 0.
        let mut settings = vec![0, 4];
        settings.extend(MAX_WINDOW.to_be_bytes());
        if is_client {
            settings.extend([0, 1, 0, 0, 0, 0]);
        }
        wire.frame(SETTINGS, 0, 0, &settings);
        wire.open_window(MAX_WINDOW - INITIAL_WINDOW as u32);
        wire
    }

    /// Whether a body of this length may be sent now. (A stream's own window is never the narrower one: bodies are tiny.)
    pub fn has_window(&self, length: usize) -> bool {
        self.window >= length as i64
    }

    pub fn send_headers(&mut self, stream: u32, block: &[u8], end: bool) {
        self.frame(HEADERS, END_HEADERS | if end { END_STREAM } else { 0 }, stream, block);
    }

    pub fn send_data(&mut self, stream: u32, body: &[u8], end: bool) {
        self.window -= body.len() as i64;
        self.frame(DATA, if end { END_STREAM } else { 0 }, stream, body);
    }

    /// Takes what came from the socket.
    pub fn feed(&mut self, bytes: &[u8]) {
        self.input.drain(..self.taken);
        self.taken = 0;
        self.input.extend_from_slice(bytes);
    }

    /// The next thing to know of; what a connection needs for itself is answered on the way.
    pub fn next_event(&mut self) -> Result<Option<Event>, Unexpected> {
        if !self.preface_seen {
            if self.input.len() < PREFACE.len() {
                return Ok(None);
            }
            if !self.input.starts_with(PREFACE) {
                return Err(Unexpected("no preface"));
            }
            (self.taken, self.preface_seen) = (PREFACE.len(), true);
        }
        while let Some(Frame { kind, flags, stream, payload }) = self.next_frame() {
            let end = flags & END_STREAM != 0;
            match kind {
                DATA | HEADERS if self.is_client && flags & PADDED_OR_PRIORITY != 0 => {
                    return Err(Unexpected("padding or priority"));
                }
                DATA => {
                    self.refill(payload.len());
                    return Ok(Some(Event::Data { stream, length: payload.len(), end }));
                }
                HEADERS if flags & END_HEADERS == 0 => return Err(Unexpected("CONTINUATION")),
                HEADERS => return Ok(Some(Event::Headers { stream, block: payload, end })),
                RST_STREAM => return Ok(Some(Event::Reset { stream })),
                GOAWAY => return Ok(Some(Event::GoAway)),
                SETTINGS if flags & ACK == 0 => self.frame(SETTINGS, ACK, 0, &[]),
                PING if flags & ACK == 0 => {
                    let payload = self.input[payload].to_vec();
                    self.frame(PING, ACK, 0, &payload);
                }
                WINDOW_UPDATE if stream == 0 => self.window += i64::from(number(&self.input[payload])),
                _ => {}
            }
        }
        Ok(None)
    }

    pub fn block(&self, block: Range<usize>) -> &[u8] {
        &self.input[block]
    }

    fn next_frame(&mut self) -> Option<Frame> {
        let head = self.input.get(self.taken..self.taken + FRAME_HEAD)?;
        let length = number(&head[..3]) as usize;
        let (kind, flags, stream) = (head[3], head[4], number(&head[5..]) & MAX_WINDOW);
        let start = self.taken + FRAME_HEAD;
        let payload = start..start + length;
        if payload.end > self.input.len() {
            return None;
        }
        self.taken = payload.end;
        Some(Frame { kind, flags, stream, payload })
    }

    fn refill(&mut self, length: usize) {
        self.received += length as u32;
        if self.received >= REFILL {
            self.open_window(self.received);
            self.received = 0;
        }
    }

    fn open_window(&mut self, increment: u32) {
        self.frame(WINDOW_UPDATE, 0, 0, &increment.to_be_bytes());
    }

    fn frame(&mut self, kind: u8, flags: u8, stream: u32, payload: &[u8]) {
        self.output.extend(&(payload.len() as u32).to_be_bytes()[1..]);
        self.output.extend([kind, flags]);
        self.output.extend(stream.to_be_bytes());
        self.output.extend(payload);
    }
}

struct Frame {
    kind: u8,
    flags: u8,
    stream: u32,
    payload: Range<usize>,
}

/// A field block, from fields that are written in full: HPACK's literals, never indexed.
#[derive(Default)]
pub struct Block(Vec<u8>);

impl Block {
    /// By its place in HPACK's static table (RFC 7541, appendix A): `:status: 200` is the eighth.
    pub fn indexed(mut self, index: u8) -> Self {
        self.0.push(0x80 | index);
        self
    }

    /// With a name from the static table: `:authority` is the first.
    pub fn named(mut self, index: u8, value: &str) -> Self {
        self.0.push(index);
        self.text(value)
    }

    pub fn field(mut self, name: &str, value: &str) -> Self {
        self.0.push(0);
        self.text(name).text(value)
    }

    pub fn bytes(self) -> Vec<u8> {
        self.0
    }

    fn text(mut self, text: &str) -> Self {
        debug_assert!(text.len() < 127, "longer ones need more than a byte for their length");
        self.0.push(text.len() as u8);
        self.0.extend(text.as_bytes());
        self
    }
}

/// Whether a block begins with the status 200, as every encoder writes it.
pub fn is_ok(block: &[u8]) -> bool {
    // The table was forbidden: the first block may say so.
    block.iter().find(|byte| **byte & 0xe0 != 0x20) == Some(&0x88)
}

/// Whether a block's last value is `0`, plain or in Huffman's code: that of the trailers that are `grpc-status` alone.
pub fn ends_with_zero(block: &[u8]) -> bool {
    block.ends_with(&[0x01, b'0']) || block.ends_with(&[0x81, 0x07])
}

fn number(bytes: &[u8]) -> u32 {
    bytes.iter().fold(0, |number, byte| number << 8 | u32::from(*byte))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn events(wire: &mut Wire, bytes: &[u8]) -> Vec<Event> {
        wire.feed(bytes);
        std::iter::from_fn(|| wire.next_event().unwrap()).collect()
    }

    #[test]
    fn two_ends_understand_each_other_at_every_cut() {
        let mut client = Wire::client();
        client.send_headers(1, &Block::default().indexed(2).named(1, "a.test").bytes(), false);
        client.send_data(1, b"hello", true);
        let sent = std::mem::take(&mut client.output);
        for cut in 0..sent.len() {
            let mut server = Wire::server();
            let mut seen = events(&mut server, &sent[..cut]);
            seen.extend(events(&mut server, &sent[cut..]));
            assert!(matches!(seen[0], Event::Headers { stream: 1, end: false, .. }), "cut at {cut}");
            assert_eq!(seen[1..], [Event::Data { stream: 1, length: 5, end: true }], "cut at {cut}");
            // It had no word yet that more may come, and has answered our settings.
            assert!(server.has_window(MAX_WINDOW as usize) && !server.has_window(MAX_WINDOW as usize + 1));
            assert!(server.output.ends_with(&[0, 0, 0, SETTINGS, ACK, 0, 0, 0, 0]));
        }
    }

    #[test]
    fn what_is_sent_counts_against_the_window() {
        let mut wire = Wire::client();
        wire.send_data(1, &[0; 65_000], false);
        assert!(wire.has_window(535) && !wire.has_window(536));
        assert!(events(&mut wire, &[0, 0, 4, WINDOW_UPDATE, 0, 0, 0, 0, 0, 0, 0, 0, 1]).is_empty());
        assert!(wire.has_window(536));
    }

    #[test]
    fn a_ping_is_answered_and_an_end_is_told() {
        let mut wire = Wire::client();
        wire.output.clear();
        let ping = [0, 0, 8, PING, 0, 0, 0, 0, 0, 1, 2, 3, 4, 5, 6, 7, 8];
        assert!(events(&mut wire, &ping).is_empty());
        assert_eq!(wire.output, [0, 0, 8, PING, ACK, 0, 0, 0, 0, 1, 2, 3, 4, 5, 6, 7, 8]);
        let ends = [
            [0, 0, 4, RST_STREAM, 0, 0, 0, 0, 3, 0, 0, 0, 8].as_slice(),
            &[0, 0, 8, GOAWAY, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0],
        ];
        assert_eq!(events(&mut wire, &ends.concat()), [Event::Reset { stream: 3 }, Event::GoAway]);
    }

    #[test]
    fn what_it_cannot_read_is_no_silent_success() {
        for (frame, fault) in [
            ([0, 0, 0, HEADERS, 0, 0, 0, 0, 1], "CONTINUATION"),
            ([0, 0, 0, DATA, 0x8, 0, 0, 0, 1], "padding or priority"),
        ] {
            let mut wire = Wire::client();
            wire.feed(&frame);
            assert_eq!(wire.next_event(), Err(Unexpected(fault)));
        }
        let mut wire = Wire::server();
        wire.feed(&[b'G'; 24]);
        assert_eq!(wire.next_event(), Err(Unexpected("no preface")));
    }

    #[test]
    fn outcomes_of_answers() {
        assert!(is_ok(&Block::default().indexed(8).field("a", "b").bytes()));
        assert!(is_ok(&[0x20, 0x88]));
        assert!(!is_ok(&Block::default().named(8, "502").bytes()) && !is_ok(&[]));
        assert!(ends_with_zero(&Block::default().field("grpc-status", "0").bytes()));
        assert!(!ends_with_zero(&Block::default().field("grpc-status", "10").bytes()));
    }
}
