//! The strict reader of HTTP/1.x request heads (RFC 9112 2 to 6), over raw bytes and before any other parser.
//!
//! 1. One pass, line by line: a line is judged when its CRLF has come, and never read again. Bytes that drip in
//!    cost no more than bytes that come at once, and lead to the same verdict.
//! 2. Limits bind while a line is still open: no line end is waited for beyond them.
//! 3. An accepted head has CRLF line ends only, one framing at most, and one host.

use super::{
    BodyFraming, Refusal, TargetForm, Version,
    authority::Authority,
    field,
    request_line::{self, MAX_METHOD, RequestLine},
    semantics::Semantics,
};
use std::ops::Range;

/// How large a head may be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HeadLimits {
    /// Bytes of the whole head, from the first byte read to its final CRLF (431 above).
    pub header_bytes: usize,
    /// Number of field lines (431 above).
    pub headers: usize,
    /// Bytes of the request target (414 above).
    pub uri_bytes: usize,
}

/// An accepted request head. Ranges are offsets in the buffer it was read from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Head {
    /// Where the request line begins: 0, or 2 after the one tolerated empty line (RFC 9112 2.2). What comes
    /// before it must not be forwarded.
    pub start: usize,
    /// Where the head ends, the final CRLF included: offset of the first body byte.
    pub len: usize,
    /// The method, a token.
    pub method: Range<usize>,
    /// The request target as sent.
    pub target: Range<usize>,
    /// Form of the target.
    pub target_form: TargetForm,
    /// Version of the request.
    pub version: Version,
    /// Number of field lines.
    pub headers: usize,
    /// `host[:port]`: the value of Host, or for HTTP/1.0 without Host the authority of an absolute-form target.
    pub host: Option<Range<usize>>,
    /// How long the name in the Host field is, where that is the canonical one.
    pub plain_name: Option<usize>,
    /// Where the body ends.
    pub framing: BodyFraming,
    /// Whether the client wants the connection kept.
    pub keep_alive: bool,
    /// Whether the client waits for `100 Continue`; false on HTTP/1.0, whatever it says.
    pub expect_continue: bool,
    /// Whether the client offers to switch protocols (Upgrade and `Connection: upgrade`). If false, an Upgrade
    /// field that is there nevertheless must be stripped.
    pub upgrade: bool,
    /// Whether any field is meant for the next hop only, as Connection, TE and Upgrade are, or names such fields.
    pub hop_by_hop: bool,
}

/// How far a head has got.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Progress {
    /// No verdict yet: read more, and go on with the same [`HeadScanner`].
    NeedMore,
    /// The head is complete and has one reading.
    Done(Head),
    /// The request is refused, whatever would follow.
    Refused(Refusal),
}

impl Head {
    /// Reads a head from the start of `buf`. To go on after [`Progress::NeedMore`], use a [`HeadScanner`].
    pub fn parse(buf: &[u8], limits: &HeadLimits) -> Progress {
        HeadScanner::new(*limits).advance(buf)
    }
}

/// Reads one head from a buffer that grows.
#[derive(Debug)]
pub struct HeadScanner {
    limits: HeadLimits,
    /// Where the line being read begins.
    line: usize,
    /// No control character lies in the open line before this offset.
    searched: usize,
    /// Where the request line begins.
    start: usize,
    request_line: Option<RequestLine>,
    headers: usize,
    semantics: Semantics,
}

impl HeadScanner {
    /// A scanner for one head.
    pub fn new(limits: HeadLimits) -> Self {
        Self {
            limits,
            line: 0,
            searched: 0,
            start: 0,
            request_line: None,
            headers: 0,
            semantics: Semantics::default(),
        }
    }

    /// Goes on where the last call stopped. `buf` holds all bytes since the first call, grown at its end. A verdict
    /// is final: a scanner is not used after it.
    pub fn advance(&mut self, buf: &[u8]) -> Progress {
        match self.read_lines(buf) {
            Ok(None) => Progress::NeedMore,
            Ok(Some(head)) => Progress::Done(head),
            Err(refusal) => Progress::Refused(refusal),
        }
    }

    fn read_lines(&mut self, buf: &[u8]) -> Result<Option<Head>, Refusal> {
        let Some(version) = self.read_request_line(buf)? else {
            return Ok(None);
        };
        while let Some(line) = self.next_line(buf)? {
            if line.is_empty() {
                return self.finish(buf);
            }
            self.take_field(buf, line, version)?;
        }
        Ok(None)
    }

    fn read_request_line(&mut self, buf: &[u8]) -> Result<Option<Version>, Refusal> {
        loop {
            if let Some(request_line) = &self.request_line {
                return Ok(Some(request_line.version));
            }
            if let Some(&byte) = buf.get(self.line) {
                request_line::check_first_byte(byte)?;
            }
            let Some(line) = self.next_line(buf)? else {
                return Ok(None);
            };
            self.take_request_line(buf, line)?;
        }
    }

    /// The next whole line, without its CRLF.
    #[inline(always)]
    fn next_line(&mut self, buf: &[u8]) -> Result<Option<Range<usize>>, Refusal> {
        let limit = self.line_limit();
        let window = &buf[..buf.len().min(limit)];
        let unread = window.get(self.searched..).unwrap_or_default();
        let end = field::find_control(unread).map_or(window.len(), |found| self.searched + found);
        match window.get(end..).unwrap_or_default() {
            [b'\r', b'\n', ..] => {
                let line = self.line..end;
                self.line = end + 2;
                self.searched = self.line;
                Ok(Some(line))
            }
            [b'\r'] | [] if window.len() < limit => {
                self.searched = end;
                Ok(None)
            }
            [b'\r'] | [] => Err(self.why_over_limit(window)),
            [b'\r', ..] => Err(Refusal::BareCr),
            [b'\n', ..] => Err(Refusal::BareLf),
            [_, ..] => Err(self.why_control(&window[..=end])),
        }
    }

    /// The offset by which the open line must have ended.
    fn line_limit(&self) -> usize {
        const AROUND_TARGET: usize = MAX_METHOD + "  HTTP/1.1\r\n".len();
        if self.request_line.is_some() {
            return self.limits.header_bytes;
        }
        let longest = self.limits.uri_bytes.saturating_add(AROUND_TARGET);
        self.limits.header_bytes.min(self.line.saturating_add(longest))
    }

    #[cold]
    fn why_over_limit(&self, window: &[u8]) -> Refusal {
        match self.request_line {
            Some(_) => Refusal::HeadersTooLarge,
            None => request_line::why_too_long(window.get(self.line..).unwrap_or_default()),
        }
    }

    #[cold]
    fn why_control(&self, window: &[u8]) -> Refusal {
        let line = window.get(self.line..).unwrap_or_default();
        if self.request_line.is_some() { field::why_control(line) } else { request_line::why_control(line) }
    }

    fn take_request_line(&mut self, buf: &[u8], line: Range<usize>) -> Result<(), Refusal> {
        if !line.is_empty() {
            let at = line.start;
            self.request_line = Some(RequestLine::parse(&buf[line], self.limits.uri_bytes)?.shifted(at));
            return Ok(());
        }
        if self.start > 0 {
            return Err(Refusal::LeadingEmptyLines);
        }
        self.start = self.line;
        Ok(())
    }

    #[inline]
    fn take_field(&mut self, buf: &[u8], line: Range<usize>, version: Version) -> Result<(), Refusal> {
        let at = line.start;
        let line = &buf[line];
        if line.first().copied().is_some_and(field::is_ows) {
            return Err(if self.headers == 0 { Refusal::LeadingWhitespace } else { Refusal::ObsFold });
        }
        if self.headers == self.limits.headers {
            return Err(Refusal::TooManyHeaders);
        }
        self.headers += 1;
        self.semantics.take(&field::parse(line)?, at, version)
    }

    /// Judges the head as a whole, its last line read.
    fn finish(&mut self, buf: &[u8]) -> Result<Option<Head>, Refusal> {
        let Some(request_line) = self.request_line.take() else {
            return Ok(None);
        };
        let framing = self.semantics.framing();
        if &buf[request_line.method.clone()] == b"TRACE"
            && !matches!(framing, BodyFraming::None | BodyFraming::Length(0))
        {
            return Err(Refusal::TraceWithBody);
        }
        let version = request_line.version;
        Ok(Some(Head {
            start: self.start,
            len: self.line,
            host: self.host(buf, &request_line)?,
            plain_name: self.semantics.plain_name,
            method: request_line.method,
            target: request_line.target,
            target_form: request_line.form,
            version,
            headers: self.headers,
            framing,
            keep_alive: self.semantics.keep_alive(version),
            expect_continue: self.semantics.expect_continue(),
            upgrade: self.semantics.upgrade(version),
            hop_by_hop: self.semantics.hop_by_hop(),
        }))
    }

    /// Reconciles Host with the target's authority. RFC 9112 3.2.2 would have a proxy ignore a Host that differs;
    /// whoever routes by the other of the two would then be deceived.
    fn host(&mut self, buf: &[u8], request_line: &RequestLine) -> Result<Option<Range<usize>>, Refusal> {
        let host = self.semantics.host.take();
        if host.is_none() && request_line.version == Version::Http11 {
            return Err(Refusal::MissingHost);
        }
        let Some(target) = &request_line.authority else {
            return Ok(host);
        };
        let Some(host) = host else {
            return Ok(Some(target.at.clone()));
        };
        let authority = |at: Range<usize>| Authority::parse(&buf[at]);
        let same = authority(host.clone())
            .zip(authority(target.at.clone()))
            .is_some_and(|(named, targeted)| named.same_as(targeted, target.default_port));
        if same { Ok(Some(host)) } else { Err(Refusal::HostMismatch) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const LIMITS: HeadLimits = HeadLimits { header_bytes: 512, headers: 8, uri_bytes: 64 };

    fn parse(bytes: &[u8]) -> Progress {
        Head::parse(bytes, &LIMITS)
    }

    fn done(bytes: &[u8]) -> Head {
        match parse(bytes) {
            Progress::Done(head) => head,
            other => panic!("{other:?}"),
        }
    }

    /// Feeds one byte more each time, until there is a verdict.
    fn drip(bytes: &[u8]) -> Progress {
        let mut scanner = HeadScanner::new(LIMITS);
        for len in 0..=bytes.len() {
            match scanner.advance(&bytes[..len]) {
                Progress::NeedMore => {}
                verdict => return verdict,
            }
        }
        Progress::NeedMore
    }

    #[test]
    fn a_head_is_located_and_understood() {
        let bytes = b"POST /a?b HTTP/1.1\r\nHost: a.example:80\r\nContent-Length: 3\r\n\r\nabc";
        let head = done(bytes);
        assert_eq!(&bytes[head.method], b"POST");
        assert_eq!(&bytes[head.target], b"/a?b");
        assert_eq!(&bytes[head.host.unwrap()], b"a.example:80");
        assert_eq!(&bytes[head.len..], b"abc");
        assert_eq!((head.start, head.headers, head.framing), (0, 2, BodyFraming::Length(3)));
        assert!(head.keep_alive && !head.upgrade && !head.expect_continue);
    }

    #[test]
    fn fields_for_the_next_hop_are_noticed() {
        let with =
            |line: &str| done(format!("GET / HTTP/1.1\r\nHost: a\r\n{line}\r\n\r\n").as_bytes()).hop_by_hop;
        for line in [
            "TE: trailers",
            "trailer: x",
            "Upgrade: h2c",
            "CONNECTION: close",
            "Keep-Alive: 5",
            "HTTP2-Settings: x",
            "Proxy-Connection: x",
            "Transfer-Encoding: chunked",
            "Proxy-Authenticate: x",
            "Proxy-Authorization: x",
        ] {
            assert!(with(line), "{line}");
        }
        for line in ["Cookie: a", "Accept: */*", "Content-Length: 0", "X: y", "Keep-Alivf: 5"] {
            assert!(!with(line), "{line}");
        }
    }

    #[test]
    fn one_leading_empty_line_is_cut_off() {
        let bytes = b"\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n";
        let head = done(bytes);
        assert!(bytes[head.start..].starts_with(b"GET"));
        assert_eq!(&bytes[head.target], b"/");
        assert_eq!(&bytes[head.host.unwrap()], b"a");
        assert_eq!(parse(b"\r\n\r\n"), Progress::Refused(Refusal::LeadingEmptyLines));
    }

    #[test]
    fn some_refusals_wait_for_no_line_end() {
        for (bytes, refusal) in [
            (&b"\x16\x03\x01"[..], Refusal::TlsOnPlaintext),
            (b" ", Refusal::LeadingWhitespace),
            (b"\x00", Refusal::BadMethod),
            (b"GET / HTTP/1.1\rH", Refusal::BareCr),
            (b"GET / HTTP/1.1\n", Refusal::BareLf),
            (&[b'A'; 200], Refusal::BadMethod),
        ] {
            assert_eq!(parse(bytes), Progress::Refused(refusal));
        }
    }

    #[test]
    fn limits_bind_to_the_byte() {
        let head = |pad: usize| format!("GET / HTTP/1.1\r\nHost: a\r\nX: {}\r\n\r\n", "x".repeat(pad));
        let rest = head(0).len();
        assert_eq!(done(head(512 - rest).as_bytes()).len, 512);
        let over = head(513 - rest);
        assert_eq!(parse(over.as_bytes()), Progress::Refused(Refusal::HeadersTooLarge));
        assert_eq!(drip(over.as_bytes()), Progress::Refused(Refusal::HeadersTooLarge));

        let fields = |n: usize| format!("GET / HTTP/1.1\r\nHost: a\r\n{}\r\n", "X: y\r\n".repeat(n));
        assert_eq!(done(fields(7).as_bytes()).headers, 8);
        assert_eq!(parse(fields(8).as_bytes()), Progress::Refused(Refusal::TooManyHeaders));

        let target = |n: usize| format!("GET /{} HTTP/1.1\r\nHost: a\r\n\r\n", "x".repeat(n));
        assert_eq!(done(target(63).as_bytes()).target.len(), 64);
        assert_eq!(parse(target(64).as_bytes()), Progress::Refused(Refusal::TargetTooLong));
        assert_eq!(parse(&target(300).as_bytes()[..200]), Progress::Refused(Refusal::TargetTooLong));
    }

    #[test]
    fn an_open_line_is_searched_once() {
        let mut bytes = b"GET / HTTP/1.1\r\nHost: a\r\nX: ".to_vec();
        let line = bytes.len() - 3;
        let mut scanner = HeadScanner::new(LIMITS);
        for _ in 0..100 {
            bytes.push(b'x');
            assert_eq!(scanner.advance(&bytes), Progress::NeedMore);
            assert_eq!((scanner.line, scanner.searched), (line, bytes.len()));
        }
    }

    #[test]
    fn host_and_absolute_target_must_agree() {
        let with =
            |target: &str, host: &str| parse(format!("GET {target} HTTP/1.1\r\n{host}\r\n").as_bytes());
        for (target, host) in [
            ("http://a.example/", "Host: A.Example:80\r\n"),
            ("https://a.example:443/", "Host: a.example\r\n"),
            ("http://[::1]:8080", "Host: [::1]:8080\r\n"),
        ] {
            assert!(matches!(with(target, host), Progress::Done(_)), "{target}");
        }
        for (target, host) in [
            ("http://a.example/", "Host: b.example\r\n"),
            ("http://a.example/", "Host: a.example:443\r\n"),
            ("https://a.example/", "Host: a.example:80\r\n"),
        ] {
            assert_eq!(with(target, host), Progress::Refused(Refusal::HostMismatch), "{target}");
        }
        assert_eq!(with("http://a.example/", ""), Progress::Refused(Refusal::MissingHost));
    }

    #[test]
    fn http_1_0_needs_no_host() {
        assert_eq!(done(b"GET / HTTP/1.0\r\n\r\n").host, None);
        let bytes = b"GET http://a.example/ HTTP/1.0\r\n\r\n";
        assert_eq!(&bytes[done(bytes).host.unwrap()], b"a.example");
    }

    #[test]
    fn trace_has_no_body() {
        let trace = |field: &str| parse(format!("TRACE / HTTP/1.1\r\nHost: a\r\n{field}\r\n").as_bytes());
        assert_eq!(trace("Content-Length: 1\r\n"), Progress::Refused(Refusal::TraceWithBody));
        assert_eq!(trace("Transfer-Encoding: chunked\r\n"), Progress::Refused(Refusal::TraceWithBody));
        assert!(matches!(trace("Content-Length: 0\r\n"), Progress::Done(_)));
    }

    /// Requests that are nearly right, so that a fair share of them is accepted.
    fn requests() -> impl Strategy<Value = Vec<u8>> {
        let piece = prop::sample::select(vec![
            &b"Host: a\r\n"[..],
            b"Host: a\r\n",
            b"Content-Length: 3\r\n",
            b"Transfer-Encoding: chunked\r\n",
            b"Connection: keep-alive, upgrade\r\n",
            b"Upgrade: websocket\r\n",
            b"Expect: 100-continue\r\n",
            b"X-Long: some value, \xe4 and\ttabs\r\n",
            b"X:\r\n",
            b"\r\n",
            b"\r",
            b"\n",
            b" ",
            b"\0",
        ]);
        let line = prop::sample::select(vec![
            &b"GET / HTTP/1.1\r\n"[..],
            b"POST /a?b=c HTTP/1.1\r\nHost: a\r\n",
            b"GET http://a/ HTTP/1.0\r\n",
            b"\r\nOPTIONS * HTTP/1.1\r\nHost: a\r\n",
        ]);
        let noise = prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..2);
        (line, prop::collection::vec(piece, 0..6), noise).prop_map(|(line, pieces, noise)| {
            let mut bytes = [line, &pieces.concat(), b"\r\n"].concat();
            for (at, byte) in noise {
                let at = at.index(bytes.len());
                bytes[at] = byte;
            }
            bytes
        })
    }

    fn check_against_httparse(bytes: &[u8], head: &Head) -> Result<(), TestCaseError> {
        let mut fields = [httparse::EMPTY_HEADER; 16];
        let mut oracle = httparse::Request::new(&mut fields);
        let status = oracle.parse(bytes);
        prop_assert_eq!(status, Ok(httparse::Status::Complete(head.len)));
        prop_assert_eq!(oracle.method.map(str::as_bytes), Some(&bytes[head.method.clone()]));
        prop_assert_eq!(oracle.path.map(str::as_bytes), Some(&bytes[head.target.clone()]));
        prop_assert_eq!(oracle.version, Some(u8::from(head.version == Version::Http11)));
        prop_assert_eq!(oracle.headers.len(), head.headers);
        if let Some(host) = oracle.headers.iter().find(|h| h.name.eq_ignore_ascii_case("host")) {
            prop_assert_eq!(Some(host.value), head.host.clone().map(|at| &bytes[at]));
        }
        Ok(())
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(2000))]

        #[test]
        fn dripping_changes_nothing(bytes in requests()) {
            prop_assert_eq!(parse(&bytes), drip(&bytes));
        }

        #[test]
        fn arbitrary_bytes_do_no_harm(bytes in prop::collection::vec(any::<u8>(), 0..700)) {
            prop_assert_eq!(parse(&bytes), drip(&bytes));
        }

        #[test]
        fn an_accepted_head_has_one_reading(bytes in requests()) {
            if let Progress::Done(head) = parse(&bytes) {
                let text = &bytes[..head.len];
                for (at, _) in text.iter().enumerate().filter(|(_, b)| **b == b'\n') {
                    prop_assert_eq!(text[at - 1], b'\r');
                }
                prop_assert!(text.ends_with(b"\r\n\r\n"));
                check_against_httparse(&bytes, &head)?;
            }
        }
    }
}
