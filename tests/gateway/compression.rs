//! The `compression` filter: every option, what is left alone, what is said of it, and that it holds nothing back.

use std::sync::Mutex;
use std::sync::mpsc::channel;

use portcullis::{Exchange, Fault, Filter, Phases, ResponseHeader, Stage};

use crate::ask::{Ask, ask};
use crate::harness::{Gateway, Http2, Origin, Response, SOON, Then, eventually, to};
use crate::recode::{begin, decode, text};

/// The codings by the names that the filter and HTTP give them.
const CODINGS: [&str; 3] = ["zstd", "br", "gzip"];

/// An origin that answers as the request says: `x-status`, `x-head` (lines, `|` between them) and `x-length` of a text.
/// Without a type in `x-head` it is `text/plain`.
fn origin() -> Origin {
    Origin::start(|visit| {
        let said = |name: &str| visit.request.header(name).unwrap_or_default().to_owned();
        let (status, length) = (said("x-status"), said("x-length"));
        let (status, length) =
            (if status.is_empty() { "200" } else { &status }, length.parse().unwrap_or(4000));
        let mut head: String = said("x-head").split('|').map(|line| format!("{}\r\n", line.trim())).collect();
        if head == "\r\n" {
            head.clear();
        }
        if !head.contains("content-type:") {
            head.push_str("content-type: text/plain\r\n");
        }
        let head = head.replace("content-type: none\r\n", "");
        let body = text(length);
        match status {
            "204" | "304" => visit.answer(format!("HTTP/1.1 {status} X\r\n{head}\r\n")),
            _ if visit.request.method == "HEAD" => {
                visit.answer(format!("HTTP/1.1 {status} X\r\n{head}content-length: {length}\r\n\r\n"))
            }
            _ if head.contains("transfer-encoding") => {
                visit.answer(format!("HTTP/1.1 {status} X\r\n{head}\r\n{length:x}\r\n{body}\r\n0\r\n\r\n"))
            }
            _ => visit.answer(format!("HTTP/1.1 {status} X\r\n{head}content-length: {length}\r\n\r\n{body}")),
        }
    })
}

/// A gateway with these settings of the filter.
fn gateway(origin: &Origin, settings: &str) -> Gateway {
    Gateway::before_with(origin, &format!("filters: [{{ compression: {{ {settings} }} }}]"))
}

fn get(gateway: &Gateway, accept: &str, fields: &str) -> Response {
    let accept = if accept.is_empty() { String::new() } else { format!("accept-encoding: {accept}") };
    Ask::new("GET /").header(&accept).header(fields).send(gateway.address())
}

/// The coding of an answer whose body, decoded by others, is the text of this length.
fn coding(answer: &Response, length: usize) -> String {
    let coding = answer.header("content-encoding").unwrap_or("identity").to_owned();
    let body = match coding.as_str() {
        "identity" => Some(answer.body.clone()),
        coding => decode(coding, &answer.body),
    };
    assert!(body.as_deref() == Some(text(length).as_bytes()), "{coding}: {answer:?}");
    coding
}

#[test]
fn a_client_gets_what_it_takes() {
    let origin = origin();
    let gateway = gateway(&origin, "");
    let all = "gzip, deflate, br, zstd";
    for (accept, chosen) in [
        (all, "zstd"),
        ("gzip, deflate, br", "br"),
        ("gzip", "gzip"),
        ("gzip;q=1, br;q=0.5, *;q=0.1", "gzip"),
        ("*", "zstd"),
        ("*, zstd;q=0", "br"),
        ("identity;q=0, gzip;q=0.1", "gzip"),
        ("identity, gzip;q=0.5", "identity"),
        ("gzip;q=0", "identity"),
        ("gzip;q=seven", "identity"),
        ("deflate", "identity"),
        ("identity;q=0", "identity"),
        ("*;q=0", "identity"),
        ("", "identity"),
    ] {
        let answer = get(&gateway, accept, "");
        assert_eq!((answer.status, coding(&answer, 4000).as_str()), (200, chosen), "{accept:?}");
        assert_eq!(answer.header("vary"), Some("Accept-Encoding"), "{accept:?}");
        assert_eq!(answer.header("content-length").is_some(), chosen == "identity", "{accept:?}");
        let heard = origin.last();
        assert_eq!(heard.header("accept-encoding").unwrap_or_default(), accept, "goes upstream as it came");
    }
    let lines = get(&gateway, "br;q=0.3", "accept-encoding: gzip;q=0.4");
    assert_eq!(coding(&lines, 4000), "gzip");
}

#[test]
fn a_hostile_accept_encoding_is_read_once() {
    let origin = origin();
    let gateway = gateway(&origin, "");
    for (accept, chosen) in [
        (format!("{}gzip", "x;q=0.5,".repeat(1300)), "gzip"),
        (format!("{}br", ",".repeat(10_000)), "br"),
        (format!("gzip;q={}", "0".repeat(10_000)), "identity"),
        ("gzip;q=0.5,".repeat(900) + "gzip;q=1", "gzip"),
        ("y".repeat(10_000), "identity"),
    ] {
        assert_eq!(coding(&get(&gateway, &accept, ""), 4000), chosen, "{}...", &accept[..20]);
    }
}

#[test]
fn every_option_counts() {
    let origin = origin();
    let all = "gzip, br, zstd";
    // Settings, what the origin is to say, the coding.
    for (settings, fields, chosen) in [
        ("algorithms: [br, gzip]", "", "br"),
        ("algorithms: [gzip, zstd, br]", "", "gzip"),
        ("min_size: 5000B", "x-length: 4999", "identity"),
        ("min_size: 5000B", "x-length: 5000", "zstd"),
        ("", "x-length: 1023", "identity"),
        ("", "x-length: 1024", "zstd"),
        ("", "x-length: 10\nx-head: transfer-encoding: chunked", "zstd"),
        ("min_size: 0B", "x-length: 1", "zstd"),
        ("types: [image/png]", "", "identity"),
        ("types: [image/png]", "x-head: content-type: Image/PNG", "zstd"),
        ("types: ['image/*', 'a/*+x']", "x-head: content-type: image/tiff;a=b", "zstd"),
        ("types: ['image/*', 'a/*+x']", "x-head: content-type: a/b+x", "zstd"),
        ("types: ['image/*', 'a/*+x']", "x-head: content-type: a/x", "identity"),
        ("", "x-head: content-type: application/json", "zstd"),
        ("", "x-head: content-type: application/problem+json; charset=utf-8", "zstd"),
        ("", "x-head: content-type: image/svg+xml", "zstd"),
        ("", "x-head: content-type: image/png", "identity"),
        ("", "x-head: content-type: application/octet-stream", "identity"),
        ("", "x-head: content-type: none", "identity"),
    ] {
        let gateway = gateway(&origin, settings);
        let length = fields.lines().find_map(|line| line.strip_prefix("x-length: "));
        let length = length.map_or(4000, |length| length.parse().unwrap());
        let answer = get(&gateway, all, fields);
        assert_eq!(coding(&answer, length), chosen, "{settings:?} {fields:?}");
        assert_eq!(answer.header("vary").is_some(), chosen != "identity", "{settings:?} {fields:?}");
    }
}

#[test]
fn a_higher_level_makes_less_of_it() {
    let origin = origin();
    let length = |settings: &str, accept: &str| {
        let answer = get(&gateway(&origin, settings), accept, "x-length: 200000");
        assert_eq!(coding(&answer, 200_000), accept);
        answer.body.len()
    };
    for (coding, fastest, best) in [("zstd", 1, 12), ("br", 1, 6), ("gzip", 1, 9)] {
        let (fast, small) = (length("level: fastest", coding), length("level: best", coding));
        assert!(small < fast, "{coding}: {small} of {fast}");
        assert_eq!(length("", coding), length("level: balanced", coding), "{coding}");
        let exact = |level: i32| length(&format!("levels: {{ {coding}: {level} }}"), coding);
        assert_eq!((exact(fastest), exact(best)), (fast, small), "{coding}");
        // It wins over the word, which holds for the others.
        assert_eq!(length(&format!("level: best, levels: {{ {coding}: {fastest} }}"), coding), fast);
    }
}

#[test]
fn some_answers_are_left_alone() {
    let origin = origin();
    let gateway = gateway(&origin, "types: ['text/*', 'application/*']");
    for fields in [
        "x-head: content-type: text/event-stream",
        "x-head: content-type: Text/Event-Stream; charset=utf-8",
        "x-head: content-type: application/grpc",
        "x-head: content-type: application/grpc+json",
        "x-head: content-type: application/grpc-web-text",
        "x-head: content-encoding: compress",
        "x-head: content-encoding: identity|content-encoding: x-own",
        "x-head: cache-control: public|cache-control: max-age=1, No-Transform",
        "x-head: content-range: bytes 0-3999/9000|etag: \"a\"",
        "x-status: 206\nx-head: content-range: bytes 0-3999/9000|etag: \"a\"",
        "x-status: 206\nx-head: etag: \"a\"",
        "x-head: content-digest: sha-256=:AAAA:",
        "x-head: repr-digest: sha-256=:AAAA:",
        "x-length: 0",
    ] {
        let answer = get(&gateway, "gzip", fields);
        let said = answer.fields.all("content-encoding");
        assert!(!said.contains(&"gzip"), "{fields}");
        assert_eq!(answer.header("vary"), None, "{fields}");
        assert!(answer.header("etag").is_none_or(|tag| tag == "\"a\""), "{fields}");
        assert!(answer.body.starts_with(b"line 0") || fields == "x-length: 0", "{fields}");
        assert_eq!(answer.header("content-length"), Some(&*answer.body.len().to_string()), "{fields}");
    }
    let plain = get(&gateway, "gzip", "cache-control: no-cache, no-transform");
    assert_eq!(coding(&plain, 4000), "identity", "the client wants no changes");
    assert_eq!(plain.header("vary"), Some("Accept-Encoding"), "others may");
    for status in ["404", "500"] {
        let answer = get(&gateway, "gzip", &format!("x-status: {status}"));
        assert_eq!(coding(&answer, 4000), "gzip", "{status}");
    }
    let named = get(&gateway, "gzip", "x-head: content-encoding: identity");
    assert_eq!(coding(&named, 4000), "gzip");
    let nothing = get(&gateway, "gzip", "x-status: 204");
    assert_eq!(
        (nothing.status, nothing.header("content-encoding"), nothing.header("vary")),
        (204, None, None)
    );
}

#[test]
fn a_range_is_the_upstreams() {
    let origin = origin();
    let gateway = gateway(&origin, "");
    get(&gateway, "gzip", "range: bytes=0-9\nif-none-match: W/\"a\"\nif-range: \"a\"");
    let heard = origin.last();
    assert_eq!(heard.header("range"), Some("bytes=0-9"));
    assert_eq!((heard.header("if-none-match"), heard.header("if-range")), (Some("W/\"a\""), Some("\"a\"")));
}

#[test]
fn what_is_said_of_the_answer_is_true_of_it() {
    let origin = origin();
    let gateway = gateway(&origin, "");
    // What the origin says, the name of a field, to a client that takes gzip, to another.
    for (said, name, compressed, plain) in [
        ("etag: \"a\"", "etag", Some("W/\"a\""), Some("\"a\"")),
        ("etag: W/\"a\"", "etag", Some("W/\"a\""), Some("W/\"a\"")),
        ("accept-ranges: bytes", "accept-ranges", None, Some("bytes")),
        ("vary: Origin", "vary", Some("Origin, Accept-Encoding"), Some("Origin, Accept-Encoding")),
        ("vary: a, b|vary: c", "vary", Some("a, b, c, Accept-Encoding"), Some("a, b, c, Accept-Encoding")),
        ("vary: a, accept-ENCODING", "vary", Some("a, accept-ENCODING"), Some("a, accept-ENCODING")),
        ("vary: *", "vary", Some("*"), Some("*")),
        ("transfer-encoding: chunked", "content-length", None, None),
    ] {
        let fields = format!("x-head: {said}");
        let answer = get(&gateway, "gzip", &fields);
        assert_eq!((coding(&answer, 4000).as_str(), answer.header(name)), ("gzip", compressed), "{said}");
        let answer = get(&gateway, "", &fields);
        assert_eq!((coding(&answer, 4000).as_str(), answer.header(name)), ("identity", plain), "{said}");
    }
}

#[test]
fn head_and_304_say_what_get_would() {
    let origin = origin();
    let gateway = gateway(&origin, "");
    let fields = "accept-encoding: gzip\nx-head: etag: \"a\"|accept-ranges: bytes";
    let head = ask(gateway.address(), "HEAD /", fields);
    for (name, value) in [
        ("content-encoding", Some("gzip")),
        ("vary", Some("Accept-Encoding")),
        ("etag", Some("W/\"a\"")),
        ("accept-ranges", None),
        ("content-length", None),
        ("transfer-encoding", None),
    ] {
        assert_eq!(head.header(name), value, "{name}");
    }
    // What the client has, its type, the tag and whether the answer varies.
    for (has, kind, tag, varies) in [
        ("W/\"a\"", "text/plain", "W/\"a\"", true),
        ("\"b,\", W/\"a\"", "none", "W/\"a\"", true),
        ("\"a\"", "none", "\"a\"", true),
        ("W/\"aa\"", "none", "\"a\"", true),
        ("*", "text/plain", "\"a\"", true),
        ("\"a\"", "image/png", "\"a\"", false),
    ] {
        let fields = format!("if-none-match: {has}\nx-status: 304\nx-head: etag: \"a\"|content-type: {kind}");
        let same = get(&gateway, "gzip", &fields);
        assert_eq!((same.status, same.header("etag")), (304, Some(tag)), "{has} {kind}");
        assert_eq!(same.header("vary").is_some(), varies, "{has} {kind}");
        assert_eq!(same.header("content-encoding"), None, "{has} {kind}");
    }
    // The connection goes on behind answers without a body.
    let mut client = gateway.client();
    for (method, status) in [("HEAD", 200), ("GET", 304), ("HEAD", 200), ("GET", 304)] {
        client.send(format!(
            "{method} / HTTP/1.1\r\nhost: a\r\naccept-encoding: gzip\r\nx-status: {status}\r\n\r\n"
        ));
        assert_eq!(client.response_to(method).status, status);
    }
}

#[test]
fn every_piece_arrives_before_the_next_is_made() {
    for coding in CODINGS {
        let (go, gone) = channel::<()>();
        let gone = Mutex::new(gone);
        let origin = Origin::start(move |visit| {
            visit.send("HTTP/1.1 200 OK\r\ncontent-type: text/plain\r\ntransfer-encoding: chunked\r\n\r\n5\r\nfirst\r\n");
            gone.lock().unwrap().recv_timeout(SOON).unwrap();
            visit.send("5\r\nlast!\r\n");
            gone.lock().unwrap().recv_timeout(SOON).unwrap();
            visit.answer("0\r\n\r\n")
        });
        let gateway = gateway(&origin, "");
        let mut client = gateway.client();
        let request = format!("GET / HTTP/1.1\r\nhost: a\r\naccept-encoding: {coding}\r\n\r\n");
        assert_eq!(client.send(request).head().header("content-encoding"), Some(coding));
        let mut so_far = client.stream.chunk().unwrap();
        assert_eq!(begin(coding, &so_far).as_deref(), Some(&b"first"[..]), "{coding}");
        go.send(()).unwrap();
        so_far.extend(client.stream.chunk().unwrap());
        assert_eq!(begin(coding, &so_far).as_deref(), Some(&b"firstlast!"[..]), "{coding}");
        go.send(()).unwrap();
        loop {
            match client.stream.chunk().unwrap() {
                chunk if chunk.is_empty() => break,
                chunk => so_far.extend(chunk),
            }
        }
        assert_eq!(decode(coding, &so_far).as_deref(), Some(&b"firstlast!"[..]), "{coding}");
        client.stream.fields().unwrap();
        drop(go);
    }
}

#[test]
fn large_answers_pass_whole() {
    let origin = origin();
    let gateway = gateway(&origin, "level: fastest");
    let mut client = gateway.client();
    for accept in CODINGS {
        let answer = client.ask(format!(
            "GET / HTTP/1.1\r\nhost: a\r\naccept-encoding: {accept}\r\nx-length: 5000000\r\n\r\n"
        ));
        assert_eq!(coding(&answer, 5_000_000), accept);
        assert!(answer.body.len() < 2_500_000, "{accept}");
    }
}

#[test]
fn an_answer_may_come_a_byte_at_a_time() {
    let origin = Origin::start(|visit| {
        visit.send("HTTP/1.1 200 OK\r\ncontent-type: text/plain\r\ntransfer-encoding: chunked\r\n\r\n");
        let sent = text(500).bytes().all(|byte| visit.send([b"1\r\n", &[byte][..], b"\r\n"].concat()));
        if sent { visit.answer("0\r\n\r\n") } else { Then::Close }
    });
    let gateway = gateway(&origin, "");
    for accept in CODINGS {
        assert_eq!(coding(&get(&gateway, accept, ""), 500), accept);
    }
}

#[test]
fn every_mix_of_versions_carries_it() {
    let origin = origin();
    let second = Gateway::before(&[&origin]);
    let filters = "filters: [compression]";
    let first = Gateway::start(&format!(
        "upstreams: {{ next: {{ protocol: http2, endpoints: [\"{}\"] }} }}\n\
         routes: [{{ name: all, path: /*, upstream: next, {filters} }}]\n",
        second.address()
    ));
    let direct = Gateway::before_with(&origin, filters);
    for gateway in [&first, &direct] {
        for accept in CODINGS {
            for (framing, length) in [("", 4000), ("transfer-encoding: chunked", 300_000)] {
                let fields = format!("x-length: {length}\nx-head: {framing}");
                assert_eq!(coding(&get(gateway, accept, &fields), length), accept, "{framing}");
                let mut client = Http2::connect(gateway.address());
                let request = client.request("GET", "/").header("accept-encoding", accept);
                let request = request.header("x-length", length).header("x-head", framing);
                let answer = client.ask(request);
                assert_eq!((answer.field("content-encoding"), answer.field("content-length")), (accept, ""));
                let body = decode(accept, &answer.body);
                assert!(body.as_deref() == Some(text(length).as_bytes()), "{accept} {framing}");
            }
        }
    }
}

/// An origin of HTTP/2 whose answer, `first`, ends with trailers.
fn origin_with_trailers() -> std::net::SocketAddr {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    listener.set_nonblocking(true).unwrap();
    std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let listener = tokio::net::TcpListener::from_std(listener).unwrap();
            while let Ok((socket, _)) = listener.accept().await {
                let mut connection = h2::server::handshake(socket).await.unwrap();
                while let Some(Ok((_, mut respond))) = connection.accept().await {
                    let head = http::Response::builder().header("content-type", "text/plain");
                    let mut body = respond.send_response(head.body(()).unwrap(), false).unwrap();
                    body.send_data("first".into(), false).unwrap();
                    let after = http::HeaderValue::from_static("told");
                    body.send_trailers(http::HeaderMap::from_iter([(
                        http::HeaderName::from_static("x-after"),
                        after,
                    )]))
                    .unwrap();
                }
            }
        });
    });
    address
}

#[test]
fn an_answer_with_trailers_ends_well() {
    let gateway = Gateway::start(&format!(
        "upstreams: {{ next: {{ protocol: http2, endpoints: [\"{}\"] }} }}\n\
         routes: [{{ name: all, path: /*, upstream: next, filters: [compression] }}]\n",
        origin_with_trailers()
    ));
    for accept in CODINGS {
        let answer = get(&gateway, accept, "");
        assert_eq!(decode(accept, &answer.body).as_deref(), Some(&b"first"[..]), "{accept}");
        let mut client = Http2::connect(gateway.address());
        let answer = client.ask(client.request("GET", "/").header("accept-encoding", accept));
        assert_eq!(decode(accept, &answer.body).as_deref(), Some(&b"first"[..]), "{accept}");
    }
}

#[test]
fn a_grpc_call_that_is_refused_has_no_coding() {
    let gateway = Gateway::start(
        "filters: [{ compression: { min_size: 1B } }, { ip_restriction: { deny: [127.0.0.1] } }]\n\
         routes: [{ name: a, path: /*, respond: {} }]\n",
    );
    let mut client = Http2::connect(gateway.address());
    let request = client.request("POST", "/s/Call").header("content-type", "application/grpc");
    let answer = client.send(request.header("te", "trailers").header("accept-encoding", "gzip"), b"");
    assert_eq!((answer.status.as_u16(), answer.field("content-type")), (200, "application/grpc"));
    assert_eq!((answer.field("content-encoding"), answer.body.len()), ("", 0));
}

#[test]
fn an_old_client_reads_until_the_end() {
    let origin = origin();
    let gateway = gateway(&origin, "");
    let answer = gateway.ask("GET / HTTP/1.0\r\nhost: a\r\naccept-encoding: gzip\r\n\r\n");
    assert_eq!((coding(&answer, 4000).as_str(), answer.header("transfer-encoding")), ("gzip", None));
}

#[test]
fn an_answer_that_breaks_off_does_not_end_well() {
    for coding in CODINGS {
        let origin = Origin::start(|visit| {
            visit.send("HTTP/1.1 200 OK\r\ncontent-type: text/plain\r\ncontent-length: 9000\r\n\r\nfirst");
            Then::Close
        });
        let gateway = gateway(&origin, "");
        let mut client = gateway.client();
        client.send(format!("GET / HTTP/1.1\r\nhost: a\r\naccept-encoding: {coding}\r\n\r\n")).head();
        let rest = client.rest();
        assert!(!rest.ends_with(b"0\r\n\r\n"), "{coding}: {rest:?}");
    }
}

#[test]
fn a_client_that_leaves_ends_it() {
    for coding in CODINGS {
        let origin = Origin::start(|visit| {
            visit.send("HTTP/1.1 200 OK\r\ncontent-type: text/plain\r\ntransfer-encoding: chunked\r\n\r\n");
            let piece = text(64 << 10);
            let mut at: u64 = 1;
            // What does not shrink fills the client's window sooner.
            loop {
                at = at.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                if !visit.send(format!("{:x}\r\n{at:016x}{piece}\r\n", piece.len() + 16)) {
                    return Then::Close;
                }
            }
        });
        let gateway = gateway(&origin, "");
        let mut client = gateway.client();
        client.send(format!("GET / HTTP/1.1\r\nhost: a\r\naccept-encoding: {coding}\r\n\r\n")).head();
        client.read(10_000);
        drop(client);
        assert_eq!(gateway.log_of("/")["reason"], "client_closed", "{coding}");
        eventually("the connection to the origin ends", || origin.open() == 0);
    }
}

#[test]
fn a_tunnel_is_left_alone() {
    let origin = Origin::raw(|_, stream| {
        stream.request_head().unwrap();
        stream
            .send(b"HTTP/1.1 101 Switching Protocols\r\ncontent-type: text/plain\r\nconnection: upgrade\r\nupgrade: websocket\r\n\r\n")
            .unwrap();
        let heard = stream.exactly(5).unwrap();
        stream.send(&heard.repeat(500)).unwrap();
        Then::Close
    });
    let gateway = gateway(&origin, "min_size: 0B");
    let mut client = gateway.client();
    client.send("GET / HTTP/1.1\r\nhost: a\r\naccept-encoding: gzip\r\nconnection: upgrade\r\nupgrade: websocket\r\n\r\n");
    let head = client.head();
    assert_eq!((head.status, head.header("content-encoding"), head.header("vary")), (101, None, None));
    client.send("hello");
    assert_eq!(client.read(2500), b"hello".repeat(500));
}

#[test]
fn the_gateways_own_answers_are_compressed_too() {
    let body = text(4000);
    let gateway = Gateway::start(&format!(
        "filters: [{{ compression: {{ min_size: 100B }} }}]\n\
         routes:\n  - {{ name: long, path: /long, respond: {{ body: {body:?} }} }}\n  \
         - {{ name: short, path: /short, respond: {{ body: short }} }}\n"
    ));
    let mut client = gateway.client();
    for accept in CODINGS {
        let request = |method: &str, path: &str| {
            format!("{method} {path} HTTP/1.1\r\nhost: a\r\naccept-encoding: {accept}\r\n\r\n")
        };
        let answer = client.ask(request("GET", "/long"));
        assert_eq!(coding(&answer, 4000), accept);
        assert_eq!(answer.header("content-length"), Some(&*answer.body.len().to_string()));
        assert_eq!(answer.header("vary"), Some("Accept-Encoding"));
        let head = client.send(request("HEAD", "/long")).response_to("HEAD");
        assert_eq!((head.header("content-encoding"), head.header("content-length")), (Some(accept), None));
        let short = client.ask(request("GET", "/short"));
        assert_eq!((short.text().as_str(), short.header("vary")), ("short", None));
        let problem = client.ask(request("GET", "/none"));
        assert_eq!((problem.status, problem.header("content-encoding")), (404, Some(accept)));
        let problem = decode(accept, &problem.body).unwrap();
        assert!(String::from_utf8(problem).unwrap().contains("route_not_found"));
    }
    let plain = client.get("/long");
    assert_eq!((coding(&plain, 4000).as_str(), plain.header("content-length")), ("identity", Some("4000")));
}

/// Has its say after `compression`, and does not like what it sees.
struct DislikesZstd;

impl Filter for DislikesZstd {
    type State = ();

    fn phases(&self) -> Phases {
        Phases::RESPONSE
    }

    fn response(
        &self,
        (): &mut (),
        _: &mut Exchange<'_>,
        head: &mut ResponseHeader,
    ) -> portcullis::Result<()> {
        match head.headers.get("content-encoding") {
            Some(coding) if coding == "zstd" => Err(Fault::new("zstd again")),
            _ => Ok(()),
        }
    }
}

#[test]
fn an_answer_that_takes_anothers_place_is_its_own() {
    let origin = origin();
    let yaml = to(&[&origin], "filters: [compression]");
    let gateway =
        Gateway::start_with(&yaml, |gateway| gateway.filter("dislikes", Stage::Observe, DislikesZstd));
    // The head of the first answer was compressed; the one in its place is too short to be.
    let answer = get(&gateway, "zstd", "");
    assert_eq!((answer.problem(), answer.header("content-encoding")), ((500, "bug".into()), None));
}
