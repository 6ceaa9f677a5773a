//! The `decompression` filter: what reaches the upstream, and what is refused of what strangers send.

use http::StatusCode;
use portcullis::{Reply, Route};

use crate::ask::Ask;
use crate::harness::{Gateway, Http2, Origin, Response, Then, eventually};
use crate::recode::{encode, encode_times, text};

const CODINGS: [&str; 4] = ["zstd", "br", "gzip", "deflate"];

fn gateway(origin: &Origin, settings: &str, limit: &str) -> Gateway {
    Gateway::before_with(
        origin,
        &format!("filters: [{{ decompression: {{ {settings} }} }}], limits: {{ request_body: {limit} }}"),
    )
}

fn post(gateway: &Gateway, coding: &str, body: &[u8]) -> Response {
    Ask::new("POST /").header(&format!("content-encoding: {coding}")).body(body).send(gateway.address())
}

/// A body in chunks of this size.
fn chunked(body: &[u8], size: usize) -> Vec<u8> {
    let chunks = body.chunks(size);
    let mut bytes: Vec<u8> = chunks
        .flat_map(|chunk| [format!("{:x}\r\n", chunk.len()).as_bytes(), chunk, b"\r\n"].concat())
        .collect();
    bytes.extend(b"0\r\n\r\n");
    bytes
}

#[test]
fn the_upstream_gets_what_was_meant() {
    let origin = Origin::ok();
    let gateway = gateway(&origin, "", "10MiB");
    let text = text(60_000);
    for coding in CODINGS {
        let body = encode(coding, text.as_bytes());
        for name in [coding.to_owned(), coding.to_ascii_uppercase(), format!("identity, {coding}")] {
            assert_eq!(post(&gateway, &name, &body).status, 200, "{name}");
            assert!(origin.last().content() == text.as_bytes(), "{name}");
        }
        for size in [1, 1000, 1 << 20] {
            let mut client = gateway.client();
            client.send(format!(
                "POST / HTTP/1.1\r\nhost: a\r\ncontent-encoding: {coding}\r\ntransfer-encoding: chunked\r\n\
                 content-digest: sha-256=:AAAA:\r\nx-stays: 1\r\n\r\n"
            ));
            assert_eq!(client.ask(chunked(&body, size)).status, 200, "{coding} by {size}");
            assert_eq!(client.get("/next").status, 200, "{coding} by {size}");
            let requests = origin.requests();
            let heard = &requests[requests.len() - 2];
            assert!(heard.content() == text.as_bytes(), "{coding} by {size}");
            assert_eq!(heard.header("transfer-encoding"), Some("chunked"));
            for gone in ["content-encoding", "content-length", "content-digest"] {
                assert_eq!(heard.header(gone), None, "{coding}");
            }
            assert_eq!(heard.header("x-stays"), Some("1"));
        }
    }
    assert_eq!(post(&gateway, "x-gzip", &encode("gzip", b"old")).status, 200);
    assert_eq!(origin.last().content(), b"old");
}

#[test]
fn what_is_not_compressed_passes_as_it_is() {
    let origin = Origin::ok();
    let gateway = gateway(&origin, "", "10MiB");
    let plain =
        Ask::new("POST /").header("content-digest: sha-256=:AAAA:").body("plain").send(gateway.address());
    assert_eq!((plain.status, origin.last().content()), (200, &b"plain"[..]));
    assert_eq!(origin.last().header("content-length"), Some("5"));
    assert_eq!(origin.last().header("content-digest"), Some("sha-256=:AAAA:"));
    assert_eq!(post(&gateway, "identity", b"plain").status, 200);
    assert_eq!(origin.last().header("content-length"), Some("5"));
    // Without a body there is nothing to decode, and nothing to frame.
    let nothing = Ask::new("GET /").header("content-encoding: gzip").send(gateway.address());
    assert_eq!((nothing.status, origin.last().body), (200, None));
    assert_eq!(post(&gateway, "gzip", b"").status, 200);
    assert_eq!((origin.last().content(), origin.last().header("content-length")), (&b""[..], Some("0")));
    let empty =
        "POST / HTTP/1.1\r\nhost: a\r\ncontent-encoding: br\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n";
    assert_eq!(gateway.ask(empty).status, 200);
    assert_eq!(origin.last().content(), b"");
}

#[test]
fn every_mix_of_versions_carries_it() {
    let origin = Origin::ok();
    let second = Gateway::before(&[&origin]);
    let filters = "filters: [decompression]";
    let first = Gateway::start(&format!(
        "upstreams: {{ next: {{ protocol: http2, endpoints: [\"{}\"] }} }}\n\
         routes: [{{ name: all, path: /*, upstream: next, {filters} }}]\n",
        second.address()
    ));
    let direct = Gateway::before_with(&origin, filters);
    let text = text(100_000);
    for gateway in [&first, &direct] {
        for coding in CODINGS {
            let body = encode(coding, text.as_bytes());
            assert_eq!(post(gateway, coding, &body).status, 200, "{coding}");
            assert!(origin.last().content() == text.as_bytes(), "{coding}");
            for length in [true, false] {
                let mut client = Http2::connect(gateway.address());
                let mut request = client.request("POST", "/").header("content-encoding", coding);
                if length {
                    request = request.header("content-length", body.len());
                }
                assert_eq!(client.send(request, &body).status.as_u16(), 200, "{coding}");
                assert!(origin.last().content() == text.as_bytes(), "{coding}");
                assert_eq!(origin.last().header("content-encoding"), None);
                let request = client.request("POST", "/").header("content-encoding", coding);
                let cut = client.send(request, &body[..body.len() - 2]);
                assert_eq!(cut.problem(), (400, "corrupt_coding".into()), "{coding}");
            }
        }
    }
}

#[test]
fn an_old_clients_body_is_decoded_too() {
    let origin = Origin::ok();
    let gateway = gateway(&origin, "", "10MiB");
    let body = encode("gzip", b"from long ago");
    let mut client = gateway.client();
    client.send(format!(
        "POST / HTTP/1.0\r\nhost: a\r\ncontent-encoding: gzip\r\ncontent-length: {}\r\n\r\n",
        body.len()
    ));
    assert_eq!(client.ask(body).status, 200);
    let heard = origin.last();
    assert_eq!((heard.version.as_str(), heard.content()), ("HTTP/1.1", &b"from long ago"[..]));
}

#[test]
fn an_unknown_coding_is_told_what_is_known() {
    let origin = Origin::ok();
    let gateway = gateway(&origin, "", "10MiB");
    for coding in ["compress", "gzip, br", "gzip, gzip", "zstd;q=1", "aws-chunked", "\"gzip\""] {
        let refused = post(&gateway, coding, b"body");
        assert_eq!(refused.problem(), (415, "unsupported_coding".into()), "{coding}");
        assert_eq!(refused.header("accept-encoding"), Some("zstd, br, gzip, deflate"), "{coding}");
    }
    let twice = Ask::new("POST /").header("content-encoding: gzip\ncontent-encoding: br").body("x");
    assert_eq!(twice.send(gateway.address()).status, 415);
    assert!(origin.heads().is_empty());
}

#[test]
fn what_cannot_be_decoded_is_refused() {
    let origin = Origin::ok();
    let gateway = gateway(&origin, "", "20MiB");
    let text = text(20_000);
    for coding in CODINGS {
        let whole = encode(coding, text.as_bytes());
        let mut corrupt = whole.clone();
        corrupt[whole.len() / 2..].fill(0xff);
        let rest = encode(coding, b"another");
        for (what, body) in [
            ("cut", whole[..whole.len() - 1].to_vec()),
            ("only begun", whole[..1].to_vec()),
            ("corrupt", corrupt),
            ("garbage", b"this is not it at all".to_vec()),
            ("followed", [&whole[..], b"trailing"].concat()),
            ("followed by a zero", [&whole[..], b"\0"].concat()),
            ("followed by half", [&whole[..], &rest[..rest.len() - 1]].concat()),
        ] {
            assert_eq!(
                post(&gateway, coding, &body).problem(),
                (400, "corrupt_coding".into()),
                "{coding} {what}"
            );
        }
    }
    // A sum at the end that does not fit.
    let mut wrong = encode("gzip", text.as_bytes());
    let at = wrong.len() - 5;
    wrong[at] ^= 1;
    assert_eq!(post(&gateway, "gzip", &wrong).status, 400);
    // `deflate` is zlib's format, not the bare one.
    assert_eq!(post(&gateway, "deflate", b"\x4b\x04\x00").status, 400);
    eventually("no connection to the origin is left open", || {
        origin.requests().len() <= origin.heads().len() && origin.open() <= 1
    });
    assert!(origin.requests().is_empty(), "a body that is refused is never whole");
}

#[test]
fn streams_may_follow_one_another_where_their_format_says_so() {
    let origin = Origin::ok();
    let gateway = gateway(&origin, "", "10MiB");
    for coding in ["gzip", "zstd"] {
        let body = [encode(coding, b"one "), encode(coding, b""), encode(coding, b"two")].concat();
        assert_eq!(post(&gateway, coding, &body).status, 200, "{coding}");
        assert_eq!(origin.last().content(), b"one two", "{coding}");
    }
    let skipped = [b"\x5a\x2a\x4d\x18\x03\0\0\0abc".to_vec(), encode("zstd", b"shown")].concat();
    assert_eq!(post(&gateway, "zstd", &skipped).status, 200);
    assert_eq!(origin.last().content(), b"shown");
    for coding in ["br", "deflate"] {
        let body = [encode(coding, b"one "), encode(coding, b"two")].concat();
        assert_eq!(post(&gateway, coding, &body).status, 400, "{coding}");
    }
}

#[test]
fn a_window_that_is_too_large_is_refused() {
    let origin = Origin::ok();
    let gateway = gateway(&origin, "max_ratio: 100000", "64MiB");
    let text = text(200_000);
    assert_eq!(post(&gateway, "zstd", &encode("zstd-wide", text.as_bytes())).status, 400);
    assert_eq!(post(&gateway, "br", &encode("br-wide", text.as_bytes())).status, 200);
    assert!(origin.last().content() == text.as_bytes());
    // A window of Brotli's unregistered extension, and the formats before RFC 8878.
    assert_eq!(post(&gateway, "br", b"\x11\x1e\x03").status, 400);
    for version in 0x22..=0x27 {
        assert_eq!(post(&gateway, "zstd", &[version, 0xb5, 0x2f, 0xfd, 0, 0, 0]).status, 400);
    }
}

#[test]
fn a_bomb_is_not_lit() {
    let origin = Origin::ok();
    let gateway = gateway(&origin, "", "1GiB");
    for coding in CODINGS {
        let bomb = encode_times(coding, &[0; 1 << 10], 64 << 10);
        assert_eq!(post(&gateway, coding, &bomb).problem(), (413, "body_too_dense".into()), "{coding}");
        let mut client = gateway.client();
        client.send(format!(
            "POST / HTTP/1.1\r\nhost: a\r\ncontent-encoding: {coding}\r\ntransfer-encoding: chunked\r\n\r\n"
        ));
        let part = &bomb[..bomb.len().min(200)];
        // It is refused before it is all there, and the connection with it: not all of it can be sent.
        let _ = client.stream.send(&chunked(part, 1));
        let status = client.try_response("POST").map(|answer| answer.status);
        assert!(matches!(status, Ok(413 | 400)), "{coding}: {status:?}");
    }
}

#[test]
fn the_ratio_counts_where_much_comes_out() {
    let origin = Origin::ok();
    for coding in ["gzip", "deflate"] {
        let [few, many] = [60, 1000].map(|times| encode_times(coding, &[0; 1000], times));
        assert_eq!(post(&gateway(&origin, "", "10MiB"), coding, &few).status, 200, "{coding}");
        assert_eq!(post(&gateway(&origin, "max_ratio: 100", "10MiB"), coding, &many).status, 413, "{coding}");
        assert_eq!(
            post(&gateway(&origin, "max_ratio: 2000", "10MiB"), coding, &many).status,
            200,
            "{coding}"
        );
    }
}

#[test]
fn the_bodys_limit_counts_what_comes_out() {
    let origin = Origin::ok();
    let gateway = gateway(&origin, "", "10000B");
    for coding in CODINGS {
        let fits = encode(coding, text(10_000).as_bytes());
        assert_eq!(post(&gateway, coding, &fits).status, 200, "{coding}");
        let long = encode(coding, text(10_001).as_bytes());
        assert!(long.len() < 10_000);
        assert_eq!(post(&gateway, coding, &long).problem(), (413, "body_too_large".into()), "{coding}");
    }
}

#[test]
fn a_body_that_is_sent_again_is_decoded_again() {
    // The first connection serves one request and is closed under the second.
    let origin = Origin::on_head(|visit| {
        visit.read_body().unwrap();
        if visit.request.connection == 0 && visit.request.target == "/again" {
            return Then::Reset;
        }
        visit.answer("HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok")
    });
    let gateway = gateway(&origin, "", "10MiB");
    assert_eq!(gateway.get("/first").status, 200);
    // Brotli: a second stream behind the first would be corrupt.
    let body = encode("br", text(5000).as_bytes());
    let answer = Ask::new("PUT /again").header("content-encoding: br").body(&body).send(gateway.address());
    assert_eq!(answer.status, 200, "{}", answer.text());
    let bodies: Vec<_> = origin.requests().into_iter().filter(|request| request.target == "/again").collect();
    assert_eq!(bodies.len(), 2);
    assert!(bodies.iter().all(|request| request.content() == text(5000).as_bytes()));
}

#[test]
fn a_handler_gets_the_decoded_body() {
    let gateway = Gateway::start_with("", |gateway| {
        let mut route = Route::new("own", "/own").configured("decompression", "{}").unwrap();
        route.config_mut().limits.request_body = Some("5000B".parse().unwrap());
        gateway.route(route.respond_with(|_, body| Reply::content(StatusCode::OK, body.len().to_string())))
    });
    let ask = |length: usize| {
        let body = encode("zstd", text(length).as_bytes());
        Ask::new("POST /own").header("content-encoding: zstd").body(body).send(gateway.address())
    };
    assert_eq!(ask(5000).text(), "5000");
    assert_eq!(ask(5001).status, 413);
}

#[test]
fn a_client_that_leaves_ends_it() {
    let origin = Origin::on_head(|visit| {
        visit.wait_for_close();
        Then::Close
    });
    let gateway = gateway(&origin, "", "10MiB");
    let body = encode("br", text(100_000).as_bytes());
    let mut client = gateway.client();
    client.send(format!(
        "POST / HTTP/1.1\r\nhost: a\r\ncontent-encoding: br\r\ncontent-length: {}\r\n\r\n",
        body.len()
    ));
    client.send(&body[..body.len() / 2]);
    eventually("the head is at the origin", || !origin.heads().is_empty());
    drop(client);
    assert_eq!(gateway.log_of("/")["reason"], "client_closed");
    eventually("the connection to the origin ends", || origin.open() == 0);
}
