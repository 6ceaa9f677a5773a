//! The `grpc_web` filter between raw clients of both versions and the real gRPC server of the C core.

use std::time::Instant;

use http::HeaderMap;
use portcullis::coding::{Base64Decoder, encode_base64};

use crate::ask::{Ask, Asked, echo, upstream};
use crate::grpc::{Service, gateway};
use crate::harness::{Client, Gateway, Http2, Nobody, Origin, Response, Then};

const FILTER: &str = "filters: [{ grpc_web: {} }]";
const BINARY: &str = "application/grpc-web+proto";
const TEXT: &str = "application/grpc-web-text+proto";

/// A message as it is framed.
fn message(bytes: &[u8]) -> Vec<u8> {
    [&[0][..], &u32::try_from(bytes.len()).unwrap().to_be_bytes(), bytes].concat()
}

/// What a body of this kind is.
fn body(kind: &str, messages: &[u8]) -> Vec<u8> {
    if kind == TEXT { encode_base64(messages) } else { messages.to_vec() }
}

/// An answer to a call, whatever version brought it.
#[derive(Debug)]
struct Told {
    status: u16,
    kind: String,
    messages: Vec<Vec<u8>>,
    /// The last frame, or the fields of an answer without messages.
    ending: Vec<(String, String)>,
    in_body: bool,
}

impl Told {
    fn new(status: u16, field: impl Fn(&str) -> String, body: &[u8]) -> Self {
        let kind = field("content-type");
        let body = match kind.starts_with("application/grpc-web-text") {
            true => Base64Decoder::default().decode(body, true).expect("base64"),
            false => body.to_vec(),
        };
        let (mut messages, mut ending, mut rest) = (Vec::new(), None, &body[..]);
        while !rest.is_empty() {
            assert!(ending.is_none(), "{rest:?} behind the last frame");
            let length = u32::from_be_bytes(rest[1..5].try_into().unwrap()) as usize;
            let (content, after) = rest[5..].split_at(length);
            match rest[0] {
                0 => messages.push(content.to_vec()),
                0x80 => ending = Some(lines(content)),
                flag => panic!("a frame with the flag {flag}"),
            }
            rest = after;
        }
        let in_body = ending.is_some();
        let of_head = || ["grpc-status", "grpc-message"].map(|name| (name.to_owned(), field(name))).to_vec();
        Self { status, kind, messages, ending: ending.unwrap_or_else(of_head), in_body }
    }

    fn of(response: &Response) -> Self {
        let field = |name: &str| response.header(name).unwrap_or_default().to_owned();
        Self::new(response.status, field, &response.body)
    }

    fn end(&self, name: &str) -> &str {
        let found = self.ending.iter().find(|(known, _)| known == name);
        found.map_or("", |(_, value)| value)
    }
}

fn lines(text: &[u8]) -> Vec<(String, String)> {
    let text = std::str::from_utf8(text).unwrap();
    assert!(text.ends_with("\r\n"), "{text:?}");
    let pair = |line: &str| {
        let (name, value) = line.split_once(": ").unwrap();
        assert_eq!(name, name.to_ascii_lowercase());
        (name.to_owned(), value.to_owned())
    };
    text.split_terminator("\r\n").map(pair).collect()
}

fn post(method: &str, kind: &str, headers: &str, body: impl AsRef<[u8]>) -> Ask {
    let ask = Ask::new(&format!("POST /s/{method}")).header(&format!("content-type: {kind}"));
    ask.header("x-grpc-web: 1").header(headers).body(body)
}

/// A call over HTTP/1.1.
fn call1(gateway: &Gateway, method: &str, kind: &str, headers: &str, messages: &[u8]) -> Told {
    Told::of(&post(method, kind, headers, body(kind, messages)).send(gateway.address()))
}

/// A call over HTTP/2.
fn call2(gateway: &Gateway, method: &str, kind: &str, headers: &str, messages: &[u8]) -> Told {
    let mut client = Http2::connect(gateway.address());
    let mut request = client.request("POST", &format!("/s/{method}")).header("content-type", kind);
    for (name, value) in headers.lines().filter_map(|line| line.split_once(": ")) {
        request = request.header(name, value);
    }
    let answer = client.send(request, &body(kind, messages));
    assert_eq!(answer.trailers, None::<HeaderMap>);
    Told::new(answer.status.as_u16(), |name| answer.field(name).to_owned(), &answer.body)
}

type Calling = fn(&Gateway, &str, &str, &str, &[u8]) -> Told;

/// Every version in every kind.
const WAYS: [(Calling, &str); 4] = [(call1, BINARY), (call1, TEXT), (call2, BINARY), (call2, TEXT)];

#[test]
fn a_call_and_its_answer_pass_whole() {
    let service = Service::start();
    let gateway = service.gateway(FILTER);
    for (call, kind) in WAYS {
        for size in [0, 1, 5, 300_000, 3_000_000] {
            let sent: Vec<u8> = (0..size).map(|at: usize| (at * 7 % 251) as u8).collect();
            let told = call(&gateway, "Echo", kind, "x-plain: a b\nx-data-bin: AP8", &message(&sent));
            assert_eq!((told.status, told.kind.as_str(), told.in_body), (200, kind, true), "{size}");
            assert!(told.messages == [sent], "{kind} {size}");
            assert_eq!(told.end("grpc-status"), "0");
            // Trailers of the service's own are there, too.
            assert_eq!((told.end("x-after"), told.end("x-plain")), ("told", "a b"));
            assert!(told.end("x-data-bin").starts_with("AP8"));
        }
    }
    let line = gateway.log_of("/s/Echo");
    assert_eq!((&line["status"], &line["grpc_status"]), (&200.into(), &0.into()));
}

#[test]
fn an_answer_of_many_messages_passes_whole() {
    let service = Service::start();
    let gateway = service.gateway(FILTER);
    for (call, kind) in WAYS {
        let told = call(&gateway, "Many", kind, "", &message(b"2500"));
        let sizes: Vec<usize> = told.messages.iter().map(Vec::len).collect();
        assert_eq!(sizes, (0..2500).map(|number| number % 2000).collect::<Vec<_>>(), "{kind}");
        assert_eq!(told.end("grpc-status"), "0");
    }
}

#[test]
fn an_answer_comes_as_it_is_made() {
    let service = Service::start();
    let gateway = service.gateway(FILTER);
    for kind in [BINARY, TEXT] {
        let mut client = gateway.client();
        let sent = body(kind, &message(b""));
        client.send(format!(
            "POST /s/Stall HTTP/1.1\r\nhost: a\r\ncontent-type: {kind}\r\ncontent-length: {}\r\n\r\n",
            sent.len()
        ));
        client.send(sent);
        assert_eq!(client.head().status, 200);
        // The service goes on in half a minute.
        let mut piece = client.stream.chunk().unwrap();
        if kind == TEXT {
            // Each piece can be read before the next is there.
            piece = Base64Decoder::default().decode(&piece, true).unwrap();
        }
        assert_eq!(piece, message(b"first"), "{kind}");
    }
}

#[test]
fn the_services_errors_are_told() {
    let service = Service::start();
    let gateway = service.gateway(FILTER);
    for (call, kind) in WAYS {
        let failed = call(&gateway, "Fail", kind, "", &message(b""));
        assert_eq!((failed.status, failed.kind.as_str()), (200, kind));
        assert_eq!((failed.end("grpc-status"), failed.messages.len()), ("5", 0));
        assert_eq!(failed.end("grpc-message"), "gr%C3%B6%C3%9Fe 50%25 unknown");
        assert_eq!(call(&gateway, "Nothing", kind, "", &message(b"")).end("grpc-status"), "12");
    }
    assert_eq!(gateway.log_of("/s/Fail")["grpc_status"], 5);
}

#[test]
fn the_client_says_what_it_reads() {
    let service = Service::start();
    let gateway = service.gateway(FILTER);
    for (kind, accept, answer) in [
        (BINARY, "application/grpc-web-text", "application/grpc-web-text+proto"),
        (TEXT, "application/grpc-web", BINARY),
        (TEXT, "*/*", TEXT),
        ("application/grpc-web", "", "application/grpc-web"),
        ("application/grpc-web+json; charset=utf-8", "", "application/grpc-web+json"),
    ] {
        let told = call1(&gateway, "Echo", kind, &format!("accept: {accept}"), &message(b"hello"));
        assert_eq!((told.kind.as_str(), told.messages), (answer, vec![b"hello".to_vec()]), "{kind} {accept}");
    }
}

#[test]
fn the_upstream_is_asked_in_the_words_of_grpc() {
    // A second gateway, which answers 404 to all other words.
    let service = Gateway::start(
        "routes: [{ name: calls, path: /*, headers: { te: trailers, content-type: application/grpc+proto, \
         x-grpc-web: { present: false }, accept: { present: false }, content-length: { present: false } }, \
         respond: { headers: { content-type: application/grpc, grpc-status: \"9\" } } }]",
    );
    let gateway = gateway(&service.address().to_string(), FILTER);
    let told =
        Told::of(&post("Any", TEXT, "accept: */*", encode_base64(&message(b"x"))).send(gateway.address()));
    assert_eq!((told.status, told.kind.as_str(), told.in_body), (200, TEXT, false));
    assert_eq!((told.end("grpc-status"), told.messages.len()), ("9", 0));
}

#[test]
fn text_is_read_however_it_is_cut_and_padded() {
    let service = Service::start();
    let gateway = service.gateway(FILTER);
    let whole = message(b"a message in pieces");
    let padded: Vec<u8> = whole.chunks(4).flat_map(encode_base64).collect();
    for (kind, text) in [(BINARY, whole.clone()), (TEXT, encode_base64(&whole)), (TEXT, padded)] {
        for size in [1, 2, 3, 1000] {
            let mut client = gateway.client();
            client.send(format!(
                "POST /s/Echo HTTP/1.1\r\nhost: a\r\ncontent-type: {kind}\r\ntransfer-encoding: chunked\r\n\r\n"
            ));
            for piece in text.chunks(size) {
                client.send([format!("{:x}\r\n", piece.len()).as_bytes(), piece, b"\r\n"].concat());
            }
            let told = Told::of(&client.ask("0\r\n\r\n"));
            assert_eq!(told.messages, [b"a message in pieces"], "{kind} by {size}");
            assert_eq!(Told::of(&client.ask(again())).end("grpc-status"), "0", "the connection goes on");
        }
    }
    let mut client = Http2::connect(gateway.address());
    let request = client.request("POST", "/s/Echo").header("content-type", TEXT);
    let mut asked = client.begin(request, false);
    for piece in encode_base64(&whole).chunks(1) {
        client.write(&mut asked.body, piece, false);
    }
    client.write(&mut asked.body, b"", true);
    let answer = client.answer(asked.answer).unwrap();
    let told = Told::new(200, |name| answer.field(name).to_owned(), &answer.body);
    assert_eq!(told.messages, [b"a message in pieces"]);
}

/// A second call on a connection.
fn again() -> String {
    let text = String::from_utf8(encode_base64(&message(b"again"))).unwrap();
    let length = text.len();
    format!(
        "POST /s/Echo HTTP/1.1\r\nhost: a\r\ncontent-type: {TEXT}\r\ncontent-length: {length}\r\n\r\n{text}"
    )
}

#[test]
fn what_is_not_base64_is_refused() {
    let service = Service::start();
    let gateway = service.gateway(FILTER);
    for text in ["AAAA*AAA", "AAAAAA", "AAAAAAA===", "not base64 at all"] {
        let told = Told::of(&post("Echo", TEXT, "", text).send(gateway.address()));
        assert_eq!((told.status, told.kind.as_str(), told.end("grpc-status")), (200, TEXT, "13"), "{text}");
        assert_eq!(told.end("grpc-message"), "bad_base64: The body is not base64");
    }
    assert_eq!(gateway.logged(|line| line["reason"] == "bad_base64")["grpc_status"], 13);
}

#[test]
fn a_deadline_is_kept() {
    let service = Service::start();
    let gateway = service.gateway(FILTER);
    for (call, kind) in WAYS {
        let begun = Instant::now();
        let told = call(&gateway, "Slow", kind, "grpc-timeout: 200m", &message(b"5"));
        assert!(begun.elapsed().as_secs() < 5);
        assert_eq!((told.status, told.end("grpc-status")), (200, "4"), "{told:?}");
        // The service is told what is left.
        let told = call(&gateway, "Remaining", kind, "grpc-timeout: 20S", &message(b""));
        let left: f64 = std::str::from_utf8(&told.messages[0]).unwrap().parse().unwrap();
        assert!((10.0..20.0).contains(&left), "{left}");
    }
}

#[test]
fn an_end_in_the_midst_of_an_answer_is_told_behind_the_last_message() {
    let service = Service::start();
    let gateway = service.gateway(&format!("{FILTER}, timeouts: {{ total: 400ms }}"));
    for (call, kind) in WAYS {
        let told = call(&gateway, "Stall", kind, "", &message(b""));
        assert_eq!(told.messages, [b"first"], "{kind}");
        assert!(told.in_body);
        assert_eq!(told.end("grpc-status"), "4");
        assert!(told.end("grpc-message").starts_with("total_timeout: "));
    }
    assert_eq!(gateway.logged(|line| line["reason"] == "total_timeout")["grpc_status"], 4);
}

#[test]
fn the_gateways_own_errors_are_told_without_a_body() {
    let service = Service::start();
    let expect = |gateway: &Gateway, method: &str, status: &str, reason: &str| {
        for (call, kind) in WAYS {
            let told = call(gateway, method, kind, "accept: */*, text/html", &message(b"5"));
            assert_eq!((told.status, told.kind.as_str(), told.in_body), (200, kind, false), "{reason}");
            assert_eq!((told.end("grpc-status"), told.messages.len()), (status, 0), "{reason}");
            assert!(told.end("grpc-message").starts_with(&format!("{reason}: ")), "{told:?}");
        }
        let line = gateway.logged(|line| line["reason"] == reason);
        assert_eq!(line["grpc_status"].to_string(), status);
    };
    let nobody = Nobody::new().address().to_string();
    expect(&gateway(&nobody, FILTER), "Echo", "14", "upstream_connect_failed");
    // Refused before the filter sees the request.
    let denied = "filters: [{ grpc_web: {} }, { ip_restriction: { allow: [10.0.0.0/8] } }]";
    expect(&service.gateway(denied), "Echo", "7", "ip_denied");
    let small = format!("{FILTER}, limits: {{ request_body: 3B }}");
    expect(&service.gateway(&small), "Echo", "8", "body_too_large");
    let strict = format!("{FILTER}, timeouts: {{ request: 200ms }}");
    expect(&service.gateway(&strict), "Slow", "4", "request_timeout");
    // A connection goes on after a refusal.
    let gateway = service.gateway(denied);
    let mut client = gateway.client();
    for _ in 0..2 {
        assert_eq!(Told::of(&client.ask(again())).end("grpc-status"), "7");
    }
}

#[test]
fn a_refusal_keeps_what_other_filters_say_of_it() {
    let gateway = gateway(
        &Nobody::new().address().to_string(),
        "filters: [{ headers: { response: { set: { access-control-allow-origin: \"https://a.test\" } } } }, \
         { grpc_web: {} }, { compression: { min_size: 0B, types: [application/*+json] } }]",
    );
    let answer =
        post("Echo", TEXT, "accept-encoding: gzip", encode_base64(&message(b""))).send(gateway.address());
    assert_eq!((answer.status, answer.header("grpc-status")), (200, Some("14")));
    assert_eq!(answer.header("access-control-allow-origin"), Some("https://a.test"));
    assert_eq!((answer.header("content-encoding"), answer.header("content-length")), (None, Some("0")));
    // It was encoded before its body was taken away.
    assert_eq!(answer.header("vary"), Some("Accept-Encoding"));
}

#[test]
fn other_requests_pass_as_they_are() {
    let origin = echo();
    let gateway = Gateway::start(&format!(
        "{}routes: [{{ name: all, path: /*, upstream: echo, filters: [{{ grpc_web: {{}} }}] }}, \
         {{ name: no, path: /no, respond: {{ status: 404 }}, filters: [{{ grpc_web: {{}} }}] }}]\n",
        upstream(&origin)
    ));
    let answer = Ask::new("POST /a").header("content-type: application/json\naccept: text/plain").body("{}");
    let answer = answer.send(gateway.address());
    assert_eq!((answer.status, answer.header("x-origin")), (200, Some("yes")));
    let asked = Asked::of(&answer);
    assert_eq!(
        (asked.header("content-type"), asked.header("accept")),
        ("application/json".into(), "text/plain".into())
    );
    assert_eq!((asked.body.as_str(), asked.header("te")), ("{}", "-".into()));
    assert_eq!(gateway.get("/no").status, 404);
    assert_eq!(gateway.get("/no").header("grpc-status"), None);
    // What answers a call in other words than gRPC's is passed on, too.
    let answer = post("Echo", BINARY, "", message(b"")).send(gateway.address());
    assert_eq!((answer.header("grpc-status"), answer.header("x-origin")), (None, Some("yes")));
    // Without the filter, a refusal is a problem.
    let plain = Gateway::before_with(&origin, "methods: [GET]");
    let answer = post("Echo", BINARY, "", message(b"")).send(plain.address());
    assert_eq!(answer.problem(), (405, "method_not_allowed".into()));
}

/// An upstream of HTTP/1.1, whose trailers are not seen here. It says this much of an answer.
fn talking(messages: &[u8], then: impl Fn() -> Then + Send + Sync + 'static) -> Origin {
    let mut said =
        b"HTTP/1.1 200 OK\r\ncontent-type: application/grpc\r\ntransfer-encoding: chunked\r\n\r\n".to_vec();
    said.extend([format!("{:x}\r\n", messages.len()).as_bytes(), messages, b"\r\n"].concat());
    Origin::start(move |visit| {
        visit.send(&said);
        if let Then::Keep = then() {
            visit.send("0\r\n\r\n");
            return Then::Keep;
        }
        // What was said is read before the end is seen.
        visit.wait_for_close();
        Then::Close
    })
}

#[test]
fn an_answer_without_a_status_is_no_success() {
    let origin = talking(&message(b"one"), || Then::Keep);
    let gateway = Gateway::before_with(&origin, FILTER);
    for (call, kind) in WAYS {
        let told = call(&gateway, "Any", kind, "", &message(b""));
        assert_eq!((told.messages.len(), told.in_body, told.end("grpc-status")), (1, true, "2"), "{kind}");
    }
}

#[test]
fn half_a_message_is_followed_by_nothing() {
    let cut = [message(b"one"), message(b"two")[..6].to_vec()].concat();
    let origin = talking(&cut, || Then::Close);
    let gateway = Gateway::before_with(&origin, &format!("{FILTER}, timeouts: {{ total: 400ms }}"));
    let mut client = gateway.client();
    client.send(again());
    assert_eq!(client.head().status, 200);
    let mut text = Vec::new();
    let ended = loop {
        match client.stream.chunk() {
            Ok(chunk) if chunk.is_empty() => break "whole",
            Ok(chunk) => text.extend(chunk),
            Err(_) => break "broken off",
        }
    };
    assert_eq!(ended, "broken off");
    assert_eq!(Base64Decoder::default().decode(&text, true).unwrap(), cut);
    assert_eq!(gateway.log_of("/s/Echo")["reason"], "total_timeout");
}

#[test]
fn nothing_is_told_behind_half_a_piece_of_a_body() {
    let service = Service::start();
    let gateway = service.gateway(&format!("{FILTER}, timeouts: {{ total: 3s }}"));
    let mut client = Client::connect_small(gateway.address());
    let sent = message(b"50000");
    client.send(format!(
        "POST /s/Many HTTP/1.1\r\nhost: a\r\ncontent-type: {BINARY}\r\ncontent-length: {}\r\n\r\n",
        sent.len()
    ));
    client.send(sent);
    assert_eq!(client.head().status, 200);
    // Its time is over when a later call's is. It has not read: by then all buffers are full, in the midst of a piece.
    assert_eq!(call1(&gateway, "Stall", BINARY, "", &message(b"")).end("grpc-status"), "4");
    let rest = client.rest();
    assert!(rest.len() > 10_000);
    assert!(!rest.windows(13).any(|part| part == b"total_timeout"), "{}", rest.len());
    assert_eq!(gateway.log_of("/s/Many")["reason"], "total_timeout");
}
