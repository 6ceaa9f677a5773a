//! The PROXY protocol, versions 1 and 2: what a proxy that passes bytes on unread says of its client, before the
//! client's first byte.
//!
//! 1. Bytes in, verdict out: no socket, no clock. The bytes so far are read anew with each call; they are few.
//! 2. A header that begins like one must be one to its last byte. Nothing is repaired.
//! 3. What is not understood is skipped where the protocol says so (extensions, the addresses of UNKNOWN and LOCAL),
//!    and bounded: a header has at most [`LONGEST`] bytes, its addresses and extensions fill it exactly.
//! 4. A checksum is verified where there is one.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::str::FromStr;

/// The longest header that is read. Version 2 could tell of 64 KiB more; proxies send a few hundred bytes.
pub const LONGEST: usize = 4 << 10;
/// The longest header of version 1, its end of line included.
const LONGEST_LINE: usize = 107;
const LINE: &[u8] = b"PROXY ";
const SIGNATURE: &[u8] = b"\r\n\r\n\0\r\nQUIT\n";
/// The fixed part of version 2: the signature, version and command, family and transport, the length of the rest.
const FIXED: usize = 16;
/// The extension that carries a CRC32C of the whole header.
const CRC32C: u8 = 0x03;

/// What bytes at the beginning of a connection come to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// They may become a header.
    NeedMore,
    /// They begin with a header of `len` bytes.
    Header {
        /// The bytes after these are the client's.
        len: usize,
        /// What the header says.
        told: Told,
    },
    /// They do not begin like a header.
    Absent,
    /// They begin like a header and are none.
    Invalid(Fault),
}

/// What a header says of the connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Told {
    /// The proxy speaks for itself, to see whether anyone answers.
    Itself,
    /// There is a client whose addresses are not told, or not those of IP.
    Unnamed,
    /// There is a client.
    Client {
        /// Its own end.
        source: SocketAddr,
        /// The end it connected to.
        destination: SocketAddr,
    },
}

/// What is wrong with a header.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Fault {
    /// It has more bytes than are read.
    #[error("the header is too long")]
    TooLong,
    /// A line of version 1 does not end as one.
    #[error("the line does not end with CRLF")]
    LineEnd,
    /// There is no such version or command.
    #[error("the version or command is not known")]
    Command,
    /// There is no such protocol, or it is none of streams.
    #[error("the protocol is not known")]
    Protocol,
    /// An address or a port is missing or none.
    #[error("the addresses are not valid")]
    Address,
    /// Extensions do not fill the header exactly.
    #[error("the extensions are not valid")]
    Extension,
    /// The checksum is that of other bytes.
    #[error("the checksum is wrong")]
    Checksum,
}

/// Reads the bytes that a connection begins with.
pub fn parse(bytes: &[u8]) -> Verdict {
    let read = if begins(bytes, LINE) {
        line(bytes)
    } else if begins(bytes, SIGNATURE) {
        binary(bytes)
    } else if LINE.starts_with(bytes) || SIGNATURE.starts_with(bytes) {
        Ok(None)
    } else {
        return Verdict::Absent;
    };
    match read {
        Ok(Some((len, told))) => Verdict::Header { len, told },
        Ok(None) => Verdict::NeedMore,
        Err(fault) => Verdict::Invalid(fault),
    }
}

/// The length of a header and what it says; `None` while it is not complete.
type Read = Result<Option<(usize, Told)>, Fault>;

fn begins(bytes: &[u8], with: &[u8]) -> bool {
    bytes.starts_with(with)
}

/// Version 1: `PROXY TCP4 192.0.2.1 198.51.100.1 56324 443\r\n`.
fn line(bytes: &[u8]) -> Read {
    let bytes = bytes.get(..LONGEST_LINE).unwrap_or(bytes);
    let Some(end) = bytes.iter().position(|byte| matches!(byte, b'\r' | b'\n')) else {
        return if bytes.len() < LONGEST_LINE { Ok(None) } else { Err(Fault::TooLong) };
    };
    match bytes.get(end..) {
        Some([b'\r', b'\n', ..]) => {}
        Some([b'\r']) if bytes.len() < LONGEST_LINE => return Ok(None),
        Some([b'\r']) => return Err(Fault::TooLong),
        _ => return Err(Fault::LineEnd),
    }
    let words = bytes.get(LINE.len()..end).unwrap_or_default();
    let words = std::str::from_utf8(words).map_err(|_| Fault::Address)?;
    Ok(Some((end + 2, words_of_line(words)?)))
}

fn words_of_line(words: &str) -> Result<Told, Fault> {
    let (protocol, rest) = words.split_once(' ').unwrap_or((words, ""));
    match protocol {
        "TCP4" => ends::<Ipv4Addr>(rest),
        "TCP6" => ends::<Ipv6Addr>(rest),
        // What comes after it is to be ignored.
        "UNKNOWN" => Ok(Told::Unnamed),
        _ => Err(Fault::Protocol),
    }
}

/// Two addresses, then two ports, with one space between.
fn ends<A: FromStr + Into<IpAddr>>(words: &str) -> Result<Told, Fault> {
    let mut words = words.split(' ');
    let mut word = || words.next().ok_or(Fault::Address);
    let (source, destination) = (address::<A>(word()?)?, address::<A>(word()?)?);
    let (from, to) = (port(word()?)?, port(word()?)?);
    if words.next().is_some() {
        return Err(Fault::Address);
    }
    Ok(Told::Client { source: SocketAddr::new(source, from), destination: SocketAddr::new(destination, to) })
}

fn address<A: FromStr + Into<IpAddr>>(word: &str) -> Result<IpAddr, Fault> {
    word.parse::<A>().map(Into::into).map_err(|_| Fault::Address)
}

/// Digits without leading zeros.
fn port(word: &str) -> Result<u16, Fault> {
    let plain = word.bytes().all(|byte| byte.is_ascii_digit()) && (word == "0" || !word.starts_with('0'));
    word.parse().ok().filter(|_| plain).ok_or(Fault::Address)
}

/// Version 2: the fixed part, then addresses by their family, then extensions.
fn binary(bytes: &[u8]) -> Read {
    let told = bytes.get(12).copied().map(is_told).transpose()?;
    let addresses = bytes.get(13).copied().map(family).transpose();
    let Some(&[high, low]) = bytes.get(14..FIXED) else { return Ok(None) };
    let len = FIXED + usize::from(u16::from_be_bytes([high, low]));
    if len > LONGEST {
        return Err(Fault::TooLong);
    }
    let (Some(header), Some(told)) = (bytes.get(..len), told) else { return Ok(None) };
    if !told {
        return Ok(Some((len, Told::Itself)));
    }
    let family = addresses?.ok_or(Fault::Protocol)?;
    let rest = header.get(FIXED..).unwrap_or_default();
    let (told, addresses) = match family {
        // Of what follows nothing can be known.
        Family::Unspecified => return Ok(Some((len, Told::Unnamed))),
        Family::Unix => (Told::Unnamed, 216),
        Family::Ipv4 => (binary_ends::<4, Ipv4Addr>(rest)?, 12),
        Family::Ipv6 => (binary_ends::<16, Ipv6Addr>(rest)?, 36),
    };
    let extensions = FIXED + addresses;
    if extensions > len {
        return Err(Fault::Address);
    }
    check_extensions(header, extensions)?;
    Ok(Some((len, told)))
}

/// The families of addresses that streams have.
enum Family {
    Unspecified,
    Ipv4,
    Ipv6,
    Unix,
}

/// Whether the header tells of a client (PROXY), or the proxy speaks for itself (LOCAL).
fn is_told(version_and_command: u8) -> Result<bool, Fault> {
    match version_and_command {
        0x20 => Ok(false),
        0x21 => Ok(true),
        _ => Err(Fault::Command),
    }
}

fn family(family_and_transport: u8) -> Result<Family, Fault> {
    match family_and_transport {
        0x00..=0x02 => Ok(Family::Unspecified),
        0x11 => Ok(Family::Ipv4),
        0x21 => Ok(Family::Ipv6),
        0x31 => Ok(Family::Unix),
        _ => Err(Fault::Protocol),
    }
}

/// Two addresses of `N` bytes, then two ports.
fn binary_ends<const N: usize, A: From<[u8; N]> + Into<IpAddr>>(rest: &[u8]) -> Result<Told, Fault> {
    let (source, rest) = rest.split_first_chunk::<N>().ok_or(Fault::Address)?;
    let (destination, rest) = rest.split_first_chunk::<N>().ok_or(Fault::Address)?;
    let Some(&[from_high, from_low, to_high, to_low]) = rest.first_chunk::<4>() else {
        return Err(Fault::Address);
    };
    let end = |ip: [u8; N], port| SocketAddr::new(A::from(ip).into(), u16::from_be_bytes(port));
    Ok(Told::Client {
        source: end(*source, [from_high, from_low]),
        destination: end(*destination, [to_high, to_low]),
    })
}

/// Walks the extensions, which begin at `at` and fill the header.
fn check_extensions(header: &[u8], mut at: usize) -> Result<(), Fault> {
    let mut checksum = None;
    while let Some(&[kind, high, low, ref rest @ ..]) = header.get(at..) {
        let len = usize::from(u16::from_be_bytes([high, low]));
        let value = rest.get(..len).ok_or(Fault::Extension)?;
        if kind == CRC32C {
            let told = value.try_into().map(u32::from_be_bytes).map_err(|_| Fault::Extension)?;
            if checksum.replace((at + 3, told)).is_some() {
                return Err(Fault::Extension);
            }
        }
        at += 3 + len;
    }
    if at != header.len() {
        return Err(Fault::Extension);
    }
    match checksum {
        Some((at, told)) if told != crc32c(header, at) => Err(Fault::Checksum),
        _ => Ok(()),
    }
}

/// The CRC32C of a header (RFC 4960, appendix B), the four bytes at `hole` taken for zeros.
fn crc32c(header: &[u8], hole: usize) -> u32 {
    const POLYNOMIAL: u32 = 0x82f6_3b78;
    let crc = header.iter().enumerate().fold(u32::MAX, |crc, (at, byte)| {
        let byte = if (hole..hole + 4).contains(&at) { 0 } else { *byte };
        (0..8).fold(crc ^ u32::from(byte), |crc, _| (crc >> 1) ^ (POLYNOMIAL & (crc & 1).wrapping_neg()))
    });
    !crc
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn client(source: &str, destination: &str) -> Told {
        Told::Client { source: source.parse().unwrap(), destination: destination.parse().unwrap() }
    }

    /// A header of version 2 with this second part.
    fn v2(command: u8, family: u8, rest: &[u8]) -> Vec<u8> {
        let len = u16::try_from(rest.len()).unwrap().to_be_bytes();
        [SIGNATURE, &[command, family], &len, rest].concat()
    }

    const V4: [u8; 12] = [192, 0, 2, 1, 198, 51, 100, 2, 0xdc, 0x04, 0x01, 0xbb];

    fn v4_with(extensions: &[u8]) -> Vec<u8> {
        v2(0x21, 0x11, &[&V4[..], extensions].concat())
    }

    fn checksummed(flip: u32) -> Vec<u8> {
        let mut header = v4_with(&[CRC32C, 0, 4, 0, 0, 0, 0, 4, 0, 2, 9, 9]);
        let at = FIXED + 12 + 3;
        let crc = crc32c(&header, at) ^ flip;
        header[at..at + 4].copy_from_slice(&crc.to_be_bytes());
        header
    }

    #[test]
    fn good_headers() {
        let v6: Vec<u8> =
            [[0x20, 1, 0xd, 0xb8].as_slice(), &[0; 11], &[1], &[0; 15], &[1], &[0, 7, 0, 9]].concat();
        let rows: [(Vec<u8>, Told); 16] = [
            (
                b"PROXY TCP4 192.0.2.1 198.51.100.2 56324 443\r\n".into(),
                client("192.0.2.1:56324", "198.51.100.2:443"),
            ),
            (b"PROXY TCP6 2001:db8::1 ::1 0 65535\r\n".into(), client("[2001:db8::1]:0", "[::1]:65535")),
            (b"PROXY TCP6 ::ffff:192.0.2.1 ::1 1 2\r\n".into(), client("[::ffff:192.0.2.1]:1", "[::1]:2")),
            (b"PROXY UNKNOWN\r\n".into(), Told::Unnamed),
            (b"PROXY UNKNOWN ffff:: anything \x01\r\n".into(), Told::Unnamed),
            (v2(0x21, 0x11, &V4), client("192.0.2.1:56324", "198.51.100.2:443")),
            (v2(0x21, 0x21, &v6), client("[2001:db8::1]:7", "[::1]:9")),
            (v2(0x21, 0x31, &[b'/'; 216]), Told::Unnamed),
            (v2(0x21, 0x00, b""), Told::Unnamed),
            (v2(0x21, 0x00, b"whatever"), Told::Unnamed),
            (v2(0x20, 0x00, b""), Told::Itself),
            // LOCAL: neither the family nor the addresses are looked at.
            (v2(0x20, 0x11, &V4), Told::Itself),
            (v2(0x20, 0xff, b"xyz"), Told::Itself),
            (v4_with(&[1, 0, 2, b'h', b'2', 4, 0, 0]), client("192.0.2.1:56324", "198.51.100.2:443")),
            (v4_with(&[4, 0x0f, 0xcd].iter().copied().chain([0; 0xfcd]).collect::<Vec<_>>()), {
                client("192.0.2.1:56324", "198.51.100.2:443")
            }),
            (checksummed(0), client("192.0.2.1:56324", "198.51.100.2:443")),
        ];
        for (header, told) in rows {
            let expected = Verdict::Header { len: header.len(), told };
            let shown = String::from_utf8_lossy(&header).into_owned();
            assert_eq!(parse(&header), expected, "{shown:?}");
            let followed = [&header, &b"\r\nGET / HTTP/1.1\r\n"[..]].concat();
            assert_eq!(parse(&followed), expected, "{shown:?} and a request");
            for end in 0..header.len() {
                assert_eq!(parse(&header[..end]), Verdict::NeedMore, "{end} bytes of {shown:?}");
            }
        }
    }

    #[test]
    fn bad_headers() {
        let line = |words: &str| format!("PROXY {words}\r\n").into_bytes();
        let rows: Vec<(Vec<u8>, Fault)> = vec![
            (line("TCP4 192.0.2.1 198.51.100.2 1"), Fault::Address),
            (line("TCP4 192.0.2.1 198.51.100.2 1 2 3"), Fault::Address),
            (line("TCP4 192.0.2.1  198.51.100.2 1 2"), Fault::Address),
            (line("TCP4 192.0.2.1 198.51.100.2 1 2 "), Fault::Address),
            (line("TCP4 192.0.2.01 198.51.100.2 1 2"), Fault::Address),
            (line("TCP4 192.0.2.1 198.51.100.2 01 2"), Fault::Address),
            (line("TCP4 192.0.2.1 198.51.100.2 +1 2"), Fault::Address),
            (line("TCP4 192.0.2.1 198.51.100.2 65536 2"), Fault::Address),
            (line("TCP4 192.0.2.1 198.51.100.2 1 "), Fault::Address),
            (line("TCP4 ::1 ::1 1 2"), Fault::Address),
            (line("TCP6 192.0.2.1 198.51.100.2 1 2"), Fault::Address),
            (line("TCP4"), Fault::Address),
            (line("tcp4 192.0.2.1 198.51.100.2 1 2"), Fault::Protocol),
            (line("UDP4 192.0.2.1 198.51.100.2 1 2"), Fault::Protocol),
            (line("UNKNOWNS"), Fault::Protocol),
            (line(""), Fault::Protocol),
            (line(" TCP4 192.0.2.1 198.51.100.2 1 2"), Fault::Protocol),
            (b"PROXY UNKNOWN\n".into(), Fault::LineEnd),
            (b"PROXY UNKNOWN\r\r\n".into(), Fault::LineEnd),
            (b"PROXY UNKNOWN\rX".into(), Fault::LineEnd),
            (format!("PROXY UNKNOWN {}\r\n", "a".repeat(92)).into(), Fault::TooLong),
            (format!("PROXY UNKNOWN {}", "a".repeat(93)).into(), Fault::TooLong),
            (b"PROXY TCP4 \xff\r\n".into(), Fault::Address),
            (v2(0x11, 0x11, &V4), Fault::Command),
            (v2(0x22, 0x11, &V4), Fault::Command),
            (v2(0x21, 0x12, &V4), Fault::Protocol),
            (v2(0x21, 0x41, &V4), Fault::Protocol),
            (v2(0x21, 0x11, &V4[..11]), Fault::Address),
            (v2(0x21, 0x21, &[0; 35]), Fault::Address),
            (v2(0x21, 0x31, &[0; 215]), Fault::Address),
            (v2(0x21, 0x11, &[0; 4096]), Fault::TooLong),
            (v4_with(&[1]), Fault::Extension),
            (v4_with(&[1, 0]), Fault::Extension),
            (v4_with(&[1, 0, 3, 0, 0]), Fault::Extension),
            (v4_with(&[CRC32C, 0, 3, 0, 0, 0]), Fault::Extension),
            (v4_with(&[CRC32C, 0, 4, 0, 0, 0, 0, CRC32C, 0, 4, 0, 0, 0, 0]), Fault::Extension),
            (checksummed(1), Fault::Checksum),
        ];
        for (header, fault) in rows {
            let shown = String::from_utf8_lossy(&header).into_owned();
            assert_eq!(parse(&header), Verdict::Invalid(fault), "{shown:?}");
        }
    }

    #[test]
    fn what_begins_otherwise_is_no_header() {
        for bytes in [
            &b"GET / HTTP/1.1\r\n"[..],
            b"PRI * HTTP/2.0",
            b"PROPFIND",
            b"proxy ",
            b"\r\nGET",
            b"\x16\x03\x01",
        ] {
            assert_eq!(parse(bytes), Verdict::Absent, "{bytes:?}");
        }
    }

    #[test]
    fn the_checksum_is_crc32c() {
        assert_eq!(crc32c(b"123456789", 100), 0xe306_9283);
    }

    proptest! {
        #[test]
        fn a_line_is_read_as_it_was_written(
            source: [Ipv4Addr; 2], other: [Ipv6Addr; 2], ports: [u16; 2], six: bool,
        ) {
            let [from, to]: [IpAddr; 2] = if six { other.map(Into::into) } else { source.map(Into::into) };
            let protocol = if six { "TCP6" } else { "TCP4" };
            let header = format!("PROXY {protocol} {from} {to} {} {}\r\n", ports[0], ports[1]);
            let told = Told::Client { source: (from, ports[0]).into(), destination: (to, ports[1]).into() };
            prop_assert_eq!(parse(header.as_bytes()), Verdict::Header { len: header.len(), told });
        }

        #[test]
        fn a_verdict_does_not_change_with_what_comes_after(
            mut bytes in prop::collection::vec(any::<u8>(), 0..300), more in prop::collection::vec(any::<u8>(), 0..40),
            begin in 0..4,
        ) {
            let begin: &[u8] = match begin { 0 => LINE, 1 => SIGNATURE, 2 => b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x14", _ => b"" };
            bytes.splice(..0, begin.iter().copied());
            let before = parse(&bytes);
            bytes.extend(more);
            if before != Verdict::NeedMore {
                prop_assert_eq!(parse(&bytes), before);
            }
        }

        #[test]
        fn a_header_is_wanted_no_longer_than_it_may_be(bytes in prop::collection::vec(any::<u8>(), LONGEST)) {
            for begin in [LINE, SIGNATURE] {
                prop_assert_ne!(parse(&[begin, &bytes].concat()), Verdict::NeedMore);
            }
        }
    }
}
