//! WebSockets through the gateway (RFC 6455): passed as they are, ended in their own words.

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::harness::{Client, Gateway, Nobody, Origin, SOON, Stream, Then, eventually, to};

pub const UPGRADE: &str = "GET /socket HTTP/1.1\r\nhost: a\r\nconnection: upgrade\r\nupgrade: websocket\r\n\
                       sec-websocket-version: 13\r\nsec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";
pub const SWITCH: &[u8] =
    b"HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: websocket\r\n\
                        sec-websocket-accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n";
/// Close with 1001, from a server.
const GOING_AWAY: [u8; 4] = [0x88, 2, 3, 0xe9];

/// A client's frame.
fn masked(opcode: u8, payload: &[u8]) -> Vec<u8> {
    let mut frame = vec![0x80 | opcode, 0x80 | u8::try_from(payload.len()).unwrap(), 1, 2, 3, 4];
    frame.extend(payload.iter().zip([1, 2, 3, 4].iter().cycle()).map(|(byte, mask)| byte ^ mask));
    frame
}

/// An origin that becomes a WebSocket and then does as the script says.
fn origin(script: impl Fn(&mut Stream) -> Then + Send + Sync + 'static) -> Origin {
    Origin::raw(move |_, stream| {
        let _ = stream.request_head();
        let _ = stream.send(SWITCH);
        script(stream)
    })
}

/// An origin that waits until the other side is done, and keeps what it was sent.
fn listening() -> Origin {
    origin(|stream| {
        let _ = stream.until_end();
        Then::Close
    })
}

fn open(gateway: &Gateway) -> Client {
    let mut client = gateway.client();
    assert_eq!(client.send(UPGRADE).head().status, 101);
    client
}

#[test]
fn a_real_client_and_a_real_server_do_not_notice_the_gateway() {
    let python = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/readers");
    let peer = |arguments: &[&str]| {
        let mut command = Command::new(python.join("venv/bin/python"));
        command.arg(python.join("websocket_peer.py")).args(arguments);
        command
    };
    let mut server = peer(&["serve"]).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    let mut port = String::new();
    BufReader::new(server.stdout.as_mut().unwrap()).read_line(&mut port).unwrap();
    let gateway = Gateway::start(&format!(
        "upstreams: {{ origin: {{ endpoints: [\"127.0.0.1:{}\"] }} }}\n\
         routes: [{{ name: all, path: /*, upstream: origin }}]\n",
        port.trim()
    ));
    let output = peer(&["call", &gateway.address().to_string()]).output().unwrap();
    drop(server.stdin.take());
    let _ = server.wait();
    let told: Value = serde_json::from_slice(&output.stdout)
        .unwrap_or_else(|_| panic!("{}", String::from_utf8_lossy(&output.stderr)));
    assert_eq!(
        told,
        json!({
            "subprotocol": "chat.v1", "extensions": ["permessage-deflate"], "echoed": [true, true, true, true, true],
            "fragments": "one two three", "close": [4001, "enough"],
        })
    );
    let line = gateway.log_of("/socket");
    assert_eq!((&line["status"], &line["reason"]), (&101.into(), &Value::Null));
}

#[test]
fn an_answer_in_another_protocol_than_the_one_asked_for_is_none() {
    let rows = [
        ("upgrade: h2c\r\n", 502),
        ("", 502),
        ("upgrade: websocket, h2c\r\n", 502),
        ("upgrade: WebSocket\r\n", 101),
    ];
    for (field, status) in rows {
        let origin = Origin::raw(move |_, stream| {
            let _ = stream.request_head();
            let head = format!("HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\n{field}\r\n");
            let _ = stream.send(head.as_bytes());
            let _ = stream.until_end();
            Then::Close
        });
        let gateway = Gateway::before(&[&origin]);
        let mut client = gateway.client();
        assert_eq!(client.send(UPGRADE).head().status, status, "{field}");
        if status == 502 {
            assert_eq!(gateway.log_of("/socket")["reason"], "upstream_invalid_response");
            eventually("the origin is let go", || origin.open() == 0);
        }
    }
}

/// Limits and filters of bodies are not for them: a WebSocket has no end that they could wait for.
#[test]
fn what_is_said_of_bodies_is_not_said_of_websockets() {
    let origin = origin(|stream| {
        for _ in 0..100 {
            let Ok(frame) = stream.exactly(106) else { return Then::Close };
            let _ = stream.send(&frame);
        }
        Then::Close
    });
    let filters = "filters: [{ compression: { min_size: 0B } }, grpc_web, decompression], limits: { request_body: 1KiB }";
    let gateway = Gateway::before_with(&origin, filters);
    let mut client = open(&gateway);
    let frame = masked(2, &[7; 100]);
    for _ in 0..100 {
        client.send(&frame);
        assert_eq!(client.read(106), frame);
    }
    assert!(client.ends());
    assert_eq!(gateway.log_of("/socket")["reason"], Value::Null);
}

/// Its 101 is there before the engine looks for it, which must not decide what becomes of the WebSocket.
#[test]
fn an_upstream_may_be_faster_than_the_gateway() {
    let origin = Origin::raw(|_, stream| {
        let _ = stream.send(SWITCH);
        let _ = stream.request_head();
        if let Ok(frame) = stream.exactly(10) {
            let _ = stream.send(&frame);
        }
        Then::Close
    });
    let gateway = Gateway::before(&[&origin]);
    let frame = masked(2, b"echo");
    for _ in 0..50 {
        let mut client = open(&gateway);
        client.send(&frame);
        assert_eq!(client.read(10), frame);
    }
}

#[test]
fn one_goes_to_the_endpoint_that_can_be_reached() {
    let (nobody, origin) = (Nobody::new(), listening());
    let gateway = Gateway::start(&format!(
        "upstreams: {{ next: {{ endpoints: [\"{}\", \"{}\"] }} }}\n\
         routes: [{{ name: all, path: /*, upstream: next }}]\n",
        nobody.address(),
        origin.address()
    ));
    let _both: Vec<Client> = (0..2).map(|_| open(&gateway)).collect();
    drop(origin);
    let refused = gateway.client().ask(UPGRADE).problem();
    assert_eq!(refused, (502, "upstream_connect_failed".into()));
}

#[test]
fn a_quiet_one_is_ended_after_its_own_time_and_no_other() {
    let rows = [
        // its own words, those of the others
        ("websocket: { idle: 200ms }", ""),
        ("websocket: { idle: 200ms }", "defaults: { timeouts: { websocket: { idle: 30s } } }\n"),
        ("", "defaults: { timeouts: { websocket: { idle: 200ms } } }\n"),
    ];
    for (route, defaults) in rows {
        let origin = listening();
        let gateway =
            Gateway::start(&format!("{defaults}{}", to(&[&origin], &format!("timeouts: {{ {route} }}"))));
        let mut client = open(&gateway);
        let started = Instant::now();
        assert_eq!(client.read(4), GOING_AWAY, "{route} {defaults}");
        assert!(started.elapsed() > Duration::from_millis(150));
        client.send(masked(8, &[3, 0xe9]));
        assert!(client.ends());
        assert_eq!(gateway.log_of("/socket")["reason"], "stream_idle_timeout");
        let sent = origin.bytes().pop().unwrap();
        assert!(sent.ends_with(&masked(8, &[3, 0xe9])), "the client's answer went upstream");
        eventually("the origin is let go", || origin.open() == 0);
    }
    let origin = listening();
    let timeouts = "timeouts: { request: 100ms, stream_idle: 100ms, total: 100ms, read: 100ms }";
    let gateway = Gateway::before_with(&origin, timeouts);
    assert!(open(&gateway).is_silent(Duration::from_millis(500)));
}

#[test]
fn a_busy_one_is_ended_after_its_lifetime() {
    let origin = origin(|stream| {
        while stream.send(b"\x81\x05hello").is_ok() {
            std::thread::sleep(Duration::from_millis(10));
        }
        Then::Close
    });
    let gateway = Gateway::before_with(&origin, "timeouts: { websocket: { lifetime: 300ms } }");
    let mut client = open(&gateway);
    let mut frames = Vec::new();
    while !frames.ends_with(&GOING_AWAY) {
        frames.extend(client.read(1));
    }
    assert_eq!((frames.len() - 4) % 7, 0, "after a whole frame");
    client.send(masked(8, &[3, 0xe9]));
    assert_eq!(client.rest(), b"", "nothing after a Close");
    assert_eq!(gateway.log_of("/socket")["reason"], "total_timeout");
    eventually("the origin is let go", || origin.open() == 0);
}

#[test]
fn a_drain_says_going_away_after_the_frame_under_way() {
    let origin = origin(|stream| {
        let _ = stream.send(b"\x81\x0ahello");
        // The rest of the frame comes when the client asks for it.
        let _ = stream.exactly(masked(1, b"go on").len());
        let _ = stream.send(b"world\x81\x03bye");
        let _ = stream.until_end();
        Then::Close
    });
    let gateway = Gateway::before(&[&origin]);
    let mut client = open(&gateway);
    assert_eq!(client.read(7), b"\x81\x0ahello");
    let ending = std::thread::spawn(move || gateway.shutdown());
    assert!(client.is_silent(Duration::from_millis(300)), "no frame of ours in the midst of another");
    client.send(masked(1, b"go on"));
    assert_eq!(client.read(9), [b"world".as_slice(), &GOING_AWAY].concat());
    client.send(masked(8, &[3, 0xe9]));
    assert_eq!(client.rest(), b"");
    ending.join().unwrap();
    assert!(origin.bytes()[0].ends_with(&masked(8, &[3, 0xe9])));
}

#[test]
fn one_that_does_not_answer_a_goodbye_holds_nobody_up() {
    let origin = listening();
    let gateway = Gateway::before(&[&origin]);
    let mut client = open(&gateway);
    let started = Instant::now();
    gateway.shutdown();
    assert!(started.elapsed() > Duration::from_secs(3) && started.elapsed() < Duration::from_secs(15));
    assert_eq!(client.rest(), GOING_AWAY);
}

#[test]
fn a_reload_is_not_noticed() {
    let origin = origin(|stream| {
        while let Ok(frame) = stream.exactly(masked(1, b"ping").len()) {
            let _ = stream.send(&frame);
        }
        Then::Close
    });
    let gateway = Gateway::start_file(&to(&[&origin], ""));
    let mut client = open(&gateway);
    let frame = masked(1, b"ping");
    assert_eq!(client.send(&frame).read(frame.len()), frame);
    gateway.rewrite(&to(&[&origin], "timeouts: { websocket: { idle: 1s } }"));
    gateway.reload().unwrap();
    assert!(client.is_silent(Duration::from_millis(1500)));
    assert_eq!(client.send(&frame).read(frame.len()), frame);
}

#[test]
fn a_side_that_has_said_close_still_hears_the_other() {
    let origin = origin(|stream| {
        let close = masked(8, &[3, 0xe8]);
        let _ = stream.exactly(close.len());
        std::thread::sleep(Duration::from_millis(200));
        let _ = stream.send(b"\x81\x04last\x88\x02\x03\xe8");
        Then::Close
    });
    let gateway = Gateway::before(&[&origin]);
    let mut client = open(&gateway);
    client.send(masked(8, &[3, 0xe8])).finish();
    assert_eq!(client.rest(), b"\x81\x04last\x88\x02\x03\xe8");
}

#[test]
fn frames_of_any_kind_pass_untouched() {
    let odd: [&[u8]; 6] = [
        b"\xff\xff\xff\xff",
        // reserved bits and opcodes, a length beyond all bounds, an unmasked frame from a client
        &[0xf3, 0x80, 1, 2, 3, 4],
        &[0x82, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 1, 2, 3, 4, 5],
        &[0x81, 2, b'h', b'i'],
        &[0x08, 0x80, 0, 0, 0, 0],
        b"GET / HTTP/1.1\r\nhost: b\r\n\r\n",
    ];
    for bytes in odd {
        let size = bytes.len();
        let origin = origin(move |stream| {
            if let Ok(seen) = stream.exactly(size) {
                let _ = stream.send(&seen);
            }
            Then::Close
        });
        let gateway = Gateway::before(&[&origin]);
        let mut client = open(&gateway);
        assert_eq!(client.send(bytes).read(size), bytes);
    }
}

#[test]
fn what_a_client_sends_before_the_101_is_no_request() {
    let origin = Origin::raw(|_, stream| {
        let _ = stream.request_head();
        let _ = stream.send(b"HTTP/1.1 403 Forbidden\r\ncontent-length: 2\r\n\r\nno");
        let _ = stream.until_end();
        Then::Close
    });
    let gateway = Gateway::before(&[&origin]);
    let mut client = gateway.client();
    client.send(format!("{UPGRADE}{}", String::from_utf8_lossy(b"\x81\x05hello")));
    assert_eq!(client.response().status, 403);
    // What came early is read as a request after the refusal, and is none.
    assert_eq!(client.response().status, 400);
    assert!(client.ends());
    let sent = origin.bytes()[0].clone();
    assert!(!sent.windows(5).any(|text| text == b"hello"));
}

#[test]
fn an_end_of_either_side_ends_the_other() {
    let upstream_ends = origin(|stream| {
        let _ = stream.send(b"\x81\x02hi");
        Then::Close
    });
    let gateway = Gateway::before(&[&upstream_ends]);
    assert_eq!(open(&gateway).rest(), b"\x81\x02hi");
    let client_ends = listening();
    let gateway = Gateway::before(&[&client_ends]);
    drop(open(&gateway));
    eventually("the origin is let go", || client_ends.open() == 0);
    let gone = Instant::now();
    assert_eq!(gateway.log_of("/socket")["status"], 101);
    assert!(gone.elapsed() < SOON);
}

#[test]
fn one_that_breaks_off_ends_without_a_word_of_ours() {
    let origin = origin(|stream| {
        let _ = stream.send(b"\x82\x05hello");
        let _ = stream.exactly(masked(1, b"now").len());
        Then::Reset
    });
    let gateway = Gateway::before(&[&origin]);
    let mut client = open(&gateway);
    assert_eq!(client.read(7), b"\x82\x05hello");
    client.send(masked(1, b"now"));
    assert_eq!(client.rest(), b"");
    assert_eq!(gateway.log_of("/socket")["reason"], "upstream_reset");
}
