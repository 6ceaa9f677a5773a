//! Timeouts: each ends what it should, at each level, and says so by its own reason.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener};
use std::sync::Mutex;
use std::sync::mpsc::{Sender, channel};
use std::time::{Duration, Instant};

use crate::harness::{Client, FullBacklog, Gateway, Http2, Origin, Then, eventually};

/// A configuration with timeouts at the three levels.
fn config(address: impl std::fmt::Display, defaults: &str, upstream: &str, route: &str) -> String {
    format!(
        "defaults: {{ timeouts: {{ {defaults} }}, limits: {{ request_body: 1GiB }} }}\n\
         upstreams: {{ origin: {{ endpoints: [\"{address}\"], timeouts: {{ {upstream} }} }} }}\n\
         routes: [{{ name: all, path: /*, upstream: origin, timeouts: {{ {route} }} }}]\n"
    )
}

/// An origin that takes requests and says nothing.
fn silent() -> Origin {
    Origin::start(|visit| {
        visit.wait_for_close();
        Then::Close
    })
}

/// An origin that takes connections and reads nothing for as long as the sender lives.
fn deaf() -> (Origin, Sender<()>) {
    let (hold, held) = channel();
    let held = Mutex::new(held);
    let origin = Origin::raw(move |_, stream| {
        rustix::net::sockopt::set_socket_recv_buffer_size(&stream.socket, 4096).unwrap();
        let _ = held.lock().unwrap().recv();
        Then::Reset
    });
    (origin, hold)
}

/// Timeouts that end an exchange with an origin that is silent: the row's words at each level, and who wins.
#[test]
fn the_nearest_word_wins_and_names_itself() {
    let read = (504, "upstream_read_timeout");
    let request = (504, "request_timeout");
    let total = (504, "total_timeout");
    let rows = [
        // defaults, upstream, route: what ends it
        ("read: 80ms", "", "", read),
        ("", "read: 80ms", "", read),
        ("", "", "read: 80ms", read),
        ("read: 30s", "read: 80ms", "", read),
        ("read: 30s", "read: 30s", "read: 80ms", read),
        ("read: 80ms, request: 300ms", "read: 20s", "", request),
        ("request: 300ms", "read: 80ms", "read: 20s", request),
        ("request: 80ms", "", "", request),
        ("", "", "request: 80ms", request),
        ("request: 30s", "", "request: 80ms", request),
        ("request: 80ms, total: 300ms", "", "request: 20s", total),
        ("total: 80ms", "", "", total),
        ("", "", "total: 80ms", total),
        ("total: 80ms, request: 300ms", "", "total: 20s", request),
    ];
    for (defaults, upstream, route, (status, code)) in rows {
        let origin = silent();
        let gateway = Gateway::start(&config(origin.address(), defaults, upstream, route));
        let mut client = gateway.client();
        let response = client.get("/");
        let row = format!("{defaults} | {upstream} | {route}");
        assert_eq!(response.problem(), (status, code.to_owned()), "{row}");
        let line = gateway.log_of("/");
        assert_eq!((&line["status"], &line["reason"]), (&status.into(), &code.into()), "{row}");
        let series = format!("portcullis_gateway_replies_total{{route=\"all\",reason=\"{code}\"}}");
        assert_eq!(gateway.metric(&series), 1.0, "{row}");
        eventually("the connection to the origin ends", || origin.open() == 0);
        assert_eq!(origin.requests().len(), 1, "{row}: it was sent twice");
    }
}

#[test]
fn without_a_word_a_silent_origin_has_half_a_minute() {
    let origin = silent();
    let gateway = Gateway::start(&config(origin.address(), "", "", ""));
    let mut client = gateway.client();
    assert!(client.send_get("/").is_silent(Duration::from_millis(700)));
}

#[test]
fn a_connect_that_takes_too_long_is_given_up() {
    let full = FullBacklog::new();
    let code = "upstream_connect_timeout";
    let rows = [
        ("connect: 80ms", "", "", code),
        ("", "connect: 80ms", "", code),
        ("", "", "connect: 80ms", code),
        ("connect: 30s", "connect: 30s", "connect: 80ms", code),
        ("connect: 20s, request: 80ms", "", "", "request_timeout"),
        ("connect: 80ms, request: 300ms", "connect: 20s", "", "request_timeout"),
        ("connect: 20s, total: 80ms", "", "", "total_timeout"),
    ];
    for (defaults, upstream, route, code) in rows {
        let gateway = Gateway::start(&config(full.address(), defaults, upstream, route));
        let row = format!("{defaults} | {upstream} | {route}");
        assert_eq!(gateway.get("/").problem(), (504, code.to_owned()), "{row}");
        assert_eq!(gateway.log_of("/")["reason"], code, "{row}");
        // A WebSocket is connected for in another way.
        let upgrade = "GET /ws HTTP/1.1\r\nhost: a\r\nconnection: upgrade\r\nupgrade: websocket\r\n\r\n";
        assert_eq!(gateway.client().ask(upgrade).problem(), (504, code.to_owned()), "{row}");
    }
}

#[test]
fn an_origin_that_takes_nothing_is_given_up() {
    for (defaults, upstream, route) in
        [("write: 300ms", "", ""), ("write: 30s", "write: 300ms", ""), ("", "write: 30s", "write: 300ms")]
    {
        let (origin, _hold) = deaf();
        for (address, protocol) in [(origin.address(), "http1"), (deaf_to_http2(), "http2")] {
            let words = config(address, defaults, upstream, route)
                .replace("endpoints:", &format!("protocol: {protocol}, endpoints:"));
            let gateway = Gateway::start(&words);
            let mut client = gateway.client();
            let begun = Instant::now();
            upload(&mut client, 64 << 20);
            assert_eq!(client.response().problem(), (504, "upstream_write_timeout".into()), "{words}");
            // Not as long as an answer, or the rest of the body, may take.
            assert!(begun.elapsed() < Duration::from_secs(20), "{words}");
            assert_eq!(gateway.log_of("/")["reason"], "upstream_write_timeout");
            let counted = format!(
                "portcullis_upstream_requests_total{{upstream=\"origin\",endpoint=\"{address}\",outcome=\"write_timeout\"}}"
            );
            assert_eq!(gateway.metric(&counted), 1.0);
        }
    }
}

#[test]
fn what_one_origin_does_not_take_goes_to_another() {
    let (deaf, _hold) = deaf();
    let origin = Origin::ok();
    let inner = Gateway::start(&crate::harness::to(&[&origin], ""));
    for (deaf, other, protocol) in
        [(deaf.address(), origin.address(), "http1"), (deaf_to_http2(), inner.address(), "http2")]
    {
        let gateway = Gateway::start(&format!(
            "upstreams: {{ origin: {{ protocol: {protocol}, endpoints: [\"{deaf}\", \"{other}\"] }} }}\n\
             routes: [{{ name: all, path: /*, upstream: origin, timeouts: {{ write: 300ms }},\
               retry: {{ methods: [POST], on: [timeout], max_body: 10MiB, backoff: {{ fixed: 1ms }} }} }}]"
        ));
        let mut tries = Vec::new();
        for _ in 0..2 {
            let mut client = gateway.client();
            upload(&mut client, 9 << 20);
            assert_eq!(client.response().text(), "ok", "{protocol}");
            assert_eq!(origin.last().content().len(), 9 << 20);
            eventually("its line is there", || gateway.log().len() > tries.len());
            tries.push(gateway.log()[tries.len()]["tries"].as_u64());
        }
        assert!(tries.contains(&Some(2)), "{protocol}: {tries:?}");
    }
}

#[test]
fn an_origin_that_takes_its_time_is_waited_for() {
    let slow = Origin::raw(|_, stream| {
        rustix::net::sockopt::set_socket_recv_buffer_size(&stream.socket, 64 << 10).unwrap();
        let (mut piece, mut left) = (vec![0; 128 << 10], 8 << 20);
        while left > 0 {
            std::thread::sleep(Duration::from_millis(20));
            let Ok(read @ 1..) = stream.socket.read(&mut piece) else { return Then::Close };
            left -= read.min(left);
        }
        let answer = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\nconnection: close\r\n\r\nok";
        stream.socket.write_all(answer).unwrap();
        while let Ok(1..) = stream.socket.read(&mut piece) {}
        Then::Close
    });
    let gateway = Gateway::start(&config(slow.address(), "write: 2s", "", ""));
    let mut client = gateway.client();
    upload(&mut client, 8 << 20);
    assert_eq!(client.response().text(), "ok");

    // So is a client that has pauses.
    let origin = Origin::ok();
    let gateway = Gateway::start(&config(origin.address(), "write: 200ms", "", ""));
    let mut client = gateway.client();
    client.send("POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 100000\r\n\r\n").send(vec![b'x'; 90_000]);
    std::thread::sleep(Duration::from_millis(800));
    assert_eq!(client.send(vec![b'x'; 10_000]).response().text(), "ok");
    assert_eq!(gateway.log_of("/")["tries"], 1);
}

#[test]
fn a_call_that_is_not_taken_is_given_up() {
    let address = deaf_to_http2();
    let words = config(address, "write: 300ms", "", "").replace("endpoints:", "protocol: http2, endpoints:");
    let gateway = Gateway::start(&words);
    let mut client = Http2::connect(gateway.address());
    let call =
        client.request("POST", "/s/M").header("content-type", "application/grpc").header("te", "trailers");
    let mut message = vec![b'x'; 200_005];
    message[..5].copy_from_slice(&[0, 0, 3, 13, 64]);
    let begun = Instant::now();
    let answer = client.send(call, &message);
    assert!(begun.elapsed() < Duration::from_secs(20));
    assert!(answer.trailers.unwrap_or(answer.fields).contains_key("grpc-status"));
    assert_eq!(gateway.log_of("/s/M")["reason"], "upstream_write_timeout");
}

/// A server of HTTP/2 that takes streams, and nothing of their bodies beyond the first window.
fn deaf_to_http2() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    listener.set_nonblocking(true).unwrap();
    std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let listener = tokio::net::TcpListener::from_std(listener).unwrap();
            while let Ok((socket, _)) = listener.accept().await {
                tokio::spawn(async move {
                    let mut connection = h2::server::handshake(socket).await.unwrap();
                    let mut held = Vec::new();
                    while let Some(Ok(request)) = connection.accept().await {
                        held.push(request);
                    }
                });
            }
        });
    });
    address
}

/// Sends as much of a body as is taken.
fn upload(client: &mut Client, size: usize) {
    client.send(format!("POST / HTTP/1.1\r\nhost: a\r\ncontent-length: {size}\r\n\r\n"));
    let piece = vec![b'x'; 64 << 10];
    for _ in 0..size / piece.len() {
        if client.stream.send(&piece).is_err() {
            return;
        }
    }
}

#[test]
fn a_client_that_stops_in_its_body_is_told() {
    for (defaults, route) in
        [("stream_idle: 100ms", ""), ("", "stream_idle: 100ms"), ("stream_idle: 30s", "stream_idle: 100ms")]
    {
        for part in [
            "content-length: 10\r\n\r\nabc",
            "transfer-encoding: chunked\r\n\r\n3\r\nabc\r\n",
            "content-length: 10\r\n\r\n",
        ] {
            let origin = silent();
            let gateway = Gateway::start(&config(origin.address(), defaults, "", route));
            let mut client = gateway.client();
            let response = client.ask(format!("POST / HTTP/1.1\r\nhost: a\r\n{part}"));
            assert_eq!(response.problem(), (408, "body_timeout".into()), "{part:?}");
            assert!(client.ends());
            assert_eq!(gateway.log_of("/")["reason"], "body_timeout");
            eventually("the connection to the origin ends", || origin.open() == 0);
            assert!(origin.requests().is_empty());
        }
    }
}

#[test]
fn a_client_that_goes_on_may_take_longer_than_the_request_timeout() {
    let origin = Origin::ok();
    let gateway = Gateway::start(&config(origin.address(), "request: 200ms, stream_idle: 2s", "", ""));
    let mut client = gateway.client();
    client.send("POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 10\r\n\r\n");
    for _ in 0..10 {
        assert!(client.send("b").is_silent(Duration::from_millis(40)) || !origin.requests().is_empty());
    }
    assert_eq!(origin.request(0).content(), b"bbbbbbbbbb");
}

/// An answer that stops in its middle cannot be told any more, only cut off and logged.
#[test]
fn an_answer_that_stops_is_cut_off_and_its_reason_logged() {
    let rows = [
        ("stream_idle: 100ms", "", "", "stream_idle_timeout"),
        ("", "", "stream_idle: 100ms", "stream_idle_timeout"),
        ("stream_idle: 30s", "", "stream_idle: 100ms", "stream_idle_timeout"),
        ("read: 100ms", "", "", "upstream_read_timeout"),
        ("", "read: 100ms", "", "upstream_read_timeout"),
        ("total: 100ms", "", "", "total_timeout"),
        ("request: 50ms, total: 300ms", "", "", "total_timeout"),
    ];
    for answer in [
        "HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nhello",
        "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5\r\nhello\r\n",
    ] {
        for (defaults, upstream, route, code) in rows {
            let origin = Origin::start(move |visit| {
                visit.send(answer);
                visit.wait_for_close();
                Then::Close
            });
            let gateway = Gateway::start(&config(origin.address(), defaults, upstream, route));
            let mut client = gateway.client();
            client.send_get("/");
            let error = client.try_response("GET").unwrap_err();
            assert!(
                matches!(
                    error.kind(),
                    std::io::ErrorKind::UnexpectedEof | std::io::ErrorKind::ConnectionReset
                ),
                "{code}: {error}"
            );
            let line = gateway.log_of("/");
            assert_eq!((&line["status"], &line["reason"]), (&200.into(), &code.into()), "{answer:?}");
            eventually("the connection to the origin ends", || origin.open() == 0);
        }
    }
}

#[test]
fn an_answer_that_goes_on_may_take_longer_than_the_request_timeout() {
    let origin = Origin::start(|visit| {
        visit.send("HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\n");
        for _ in 0..10 {
            std::thread::sleep(Duration::from_millis(30));
            visit.send("b");
        }
        Then::Keep
    });
    let gateway =
        Gateway::start(&config(origin.address(), "request: 150ms, stream_idle: 2s, read: 2s", "", ""));
    assert_eq!(gateway.get("/").body, b"bbbbbbbbbb");
}

#[test]
fn total_ends_an_answer_that_never_stops_moving() {
    let origin = Origin::start(|visit| {
        visit.send("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n");
        while visit.send("1\r\nb\r\n") {
            std::thread::sleep(Duration::from_millis(5));
        }
        Then::Close
    });
    let gateway = Gateway::start(&config(origin.address(), "", "", "total: 200ms"));
    let mut client = gateway.client();
    client.send_get("/");
    assert!(client.try_response("GET").is_err());
    assert_eq!(gateway.log_of("/")["reason"], "total_timeout");
}

#[test]
fn total_ends_an_upload_that_never_stops_moving() {
    let origin = Origin::ok();
    let gateway = Gateway::start(&config(origin.address(), "", "", "total: 200ms"));
    let mut client = gateway.client();
    client.send("POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n");
    let started = Instant::now();
    while client.is_silent(Duration::from_millis(10)) {
        assert!(started.elapsed() < Gateway::soon());
        let _ = client.stream.send(b"1\r\nb\r\n");
    }
    assert_eq!(gateway.log_of("/")["reason"], "total_timeout");
    assert_eq!(gateway.log_of("/")["status"], 504);
}

#[test]
fn a_client_that_reads_nothing_is_cut_off() {
    let origin = Origin::start(|visit| {
        visit.send("HTTP/1.1 200 OK\r\ncontent-length: 1000000000\r\n\r\n");
        let piece = vec![b'x'; 64 << 10];
        while visit.send(&piece) {}
        Then::Close
    });
    let gateway = Gateway::start(&config(origin.address(), "", "", "stream_idle: 300ms"));
    let mut client = Client::connect_small(gateway.address());
    client.send_get("/");
    assert_eq!(gateway.log_of("/")["reason"], "stream_idle_timeout");
    eventually("the connection to the origin ends", || origin.open() == 0);
    eventually("the client's connection ends", || {
        gateway.metric("portcullis_connections_active{listener=\"web\"}") == 0.0
    });
}

#[test]
fn an_idle_pooled_connection_is_closed() {
    for (idle, kept) in [("100ms", false), ("90s", true)] {
        let origin = Origin::ok();
        let gateway = Gateway::start(&config(origin.address(), "", &format!("idle: {idle}"), ""));
        assert_eq!(gateway.get("/").status, 200);
        if kept {
            let mut client = gateway.client();
            assert!(client.is_silent(Duration::from_millis(300)));
            assert_eq!(client.get("/").status, 200);
        } else {
            eventually("the pooled connection is closed", || origin.open() == 0);
            assert_eq!(gateway.get("/").status, 200);
        }
        assert_eq!(origin.connections(), if kept { 1 } else { 2 });
    }
}
