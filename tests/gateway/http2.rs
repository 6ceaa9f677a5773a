//! HTTP/2 from the client, HTTP/1.1 to the origin.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::channel;
use std::sync::{Arc, Barrier, Mutex};
use std::time::{Duration, Instant};

use crate::harness::{Client, Frames, Gateway, Http2, Origin, SOON, Stream, Then, eventually, fields, to};

const GET: [(&str, &str); 4] = [(":method", "GET"), (":scheme", "http"), (":path", "/"), (":authority", "a")];

fn with(origin: &Origin, listener: &str, route: &str) -> Gateway {
    let listener = format!("listeners: [{{ name: web, address: \"127.0.0.1:0\", {listener} }}]");
    Gateway::start(&format!("{}{listener}", to(&[origin], route)))
}

fn connect(gateway: &Gateway) -> Http2 {
    Http2::connect(gateway.address())
}

#[test]
fn a_request_reaches_the_origin_as_one_of_http_1() {
    let origin = Origin::ok();
    let gateway = Gateway::before(&[&origin]);
    let mut client = connect(&gateway);
    let request = client.request("GET", "/a/../b?q=1");
    let answer = client.ask(request.header("te", "trailers").header("cookie", "a=1").header("cookie", "b=2"));
    assert_eq!((answer.status.as_u16(), answer.body.as_slice()), (200, &b"ok"[..]));
    let seen = origin.last();
    let address = gateway.address();
    assert_eq!(
        (seen.method.as_str(), seen.target.as_str(), seen.version.as_str()),
        ("GET", "/b?q=1", "HTTP/1.1")
    );
    assert_eq!(seen.header("host"), Some(address.to_string().as_str()));
    assert_eq!(seen.fields.all("cookie"), ["a=1; b=2"]);
    assert_eq!(seen.header("x-forwarded-for"), Some("127.0.0.1"));
    assert_eq!(seen.header("x-forwarded-proto"), Some("http"));
    assert_eq!((seen.header("te"), seen.header("connection")), (None, None));
    let line = gateway.log_of("/b");
    assert_eq!(
        (&line["protocol"], &line["status"], &line["bytes_out"]),
        (&"HTTP/2.0".into(), &200.into(), &2.into())
    );
    assert_eq!(line["client_ip"], "127.0.0.1");
}

#[test]
fn both_versions_are_spoken_on_one_listener() {
    let origin = Origin::ok();
    let gateway = Gateway::before(&[&origin]);
    assert_eq!(connect(&gateway).get("/").status.as_u16(), 200);
    assert_eq!(gateway.get("/").status, 200);
    // A preface that comes byte by byte is one.
    let mut dripping = Client::connect(gateway.address());
    for byte in b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" {
        dripping.send([*byte]);
    }
    assert_eq!(dripping.read(4)[3], Frames::SETTINGS, "settings come first");
}

#[test]
fn a_listener_speaks_what_it_is_told() {
    let origin = Origin::ok();
    let old = with(&origin, "protocols: [http1]", "");
    let preface = old.ask("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n");
    assert_eq!(preface.problem(), (505, "http2_preface".into()));
    assert_eq!(old.get("/").status, 200);
    let new = with(&origin, "protocols: [http2]", "");
    assert_eq!(new.get("/").problem(), (505, "http1_not_spoken".into()));
    assert_eq!(connect(&new).get("/").status.as_u16(), 200);
}

#[test]
fn bodies_pass_whole_however_they_are_cut() {
    let origin = Origin::start(|visit| {
        let body = visit.request.content().to_vec();
        visit.answer(
            [format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n", body.len()).as_bytes(), &body].concat(),
        )
    });
    let gateway = Gateway::before(&[&origin]);
    let mut client = connect(&gateway);
    for size in [0, 1, 16_384, 3_000_000] {
        let body: Vec<u8> = (0..size).map(|at: usize| (at % 251) as u8).collect();
        for length in [true, false] {
            let mut request = client.request("POST", "/");
            if length {
                request = request.header("content-length", size);
            }
            // The last frame is always an empty one with END_STREAM.
            let answer = client.send(request, &body);
            assert_eq!(answer.status.as_u16(), 200, "{size} {length}");
            assert!(answer.body == body, "{size} {length}");
            let seen = origin.last();
            assert_eq!(seen.content().len(), size);
            assert_eq!(seen.header("transfer-encoding").is_some(), !length, "{size} {length}");
        }
    }
    // One that is on its way back to the pool is missed now and then.
    assert!(origin.connections() < 4, "connections to the origin were spoilt: {}", origin.connections());
    assert_eq!(origin.take_breaches(), [""; 0]);
}

#[test]
fn answers_without_a_body_end_with_their_head() {
    let origin = Origin::start(|visit| match visit.request.target.as_str() {
        "/none" => visit.answer("HTTP/1.1 204 No Content\r\n\r\n"),
        "/same" => visit.answer("HTTP/1.1 304 Not Modified\r\netag: \"x\"\r\n\r\n"),
        "/chunked" => {
            visit.answer("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n")
        }
        "/empty" => visit.answer("HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n"),
        _ => visit.answer("HTTP/1.1 200 OK\r\ncontent-length: 2\r\nkeep-alive: timeout=5\r\n\r\n"),
    });
    let gateway = Gateway::before(&[&origin]);
    let mut client = connect(&gateway);
    for (target, status, body) in
        [("/none", 204, ""), ("/same", 304, ""), ("/empty", 200, ""), ("/chunked", 200, "ok")]
    {
        let answer = client.get(target);
        assert_eq!((answer.status.as_u16(), answer.body.as_slice()), (status, body.as_bytes()), "{target}");
        assert_eq!(answer.field("transfer-encoding"), "");
    }
    let request = client.request("HEAD", "/head");
    let answer = client.ask(request);
    assert_eq!((answer.field("content-length"), answer.body.len()), ("2", 0));
    assert_eq!((answer.field("keep-alive"), answer.field("connection")), ("", ""));
    assert!(!answer.field("date").is_empty());
}

#[test]
fn interim_answers_are_passed_on() {
    let origin = Origin::start(|visit| {
        visit.send("HTTP/1.1 103 Early Hints\r\nlink: </a.css>; rel=preload\r\n\r\n");
        visit.answer("HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok")
    });
    let gateway = Gateway::before(&[&origin]);
    let mut client = connect(&gateway);
    let request = client.request("GET", "/");
    let mut asked = client.begin(request, true);
    let hint =
        client.within(std::future::poll_fn(|cx| asked.answer.poll_informational(cx))).unwrap().unwrap();
    assert_eq!(
        (hint.status().as_u16(), &hint.headers()["link"]),
        (103, &"</a.css>; rel=preload".parse().unwrap())
    );
    assert_eq!(client.answer(asked.answer).unwrap().status.as_u16(), 200);
}

#[test]
fn what_has_no_one_meaning_is_refused_on_its_stream_alone() {
    let origin = Origin::ok();
    let gateway = with(&origin, "limits: { uri_bytes: 64B, headers: 8, header_bytes: 1KiB }", "");
    let mut client = connect(&gateway);
    let authority = gateway.address().to_string();
    let get = |client: &Http2, target: &str| client.request("GET", target);
    let long = format!("/{}", "x".repeat(64));
    let large = "x".repeat(1024);
    let rows = [
        (get(&client, &long), (414, "uri_too_long")),
        (get(&client, "/%zz"), (400, "bad_path")),
        (get(&client, "/").header("host", "other.example"), (400, "host_mismatch")),
        (get(&client, "/").header("x-large", &large), (431, "headers_too_large")),
        (
            (0..9).fold(get(&client, "/"), |request, at| request.header(format!("x-{at}"), "")),
            (431, "too_many_headers"),
        ),
        (get(&client, "/").header("content_length", "1"), (400, "lookalike_field_name")),
        (get(&client, "/").header("expect", "more"), (417, "expectation_failed")),
        (client.request("TRACE", "/").header("max-forwards", "0"), (405, "method_not_allowed")),
    ];
    for (request, (status, code)) in rows {
        let answer = client.ask(request);
        assert_eq!(answer.problem(), (status, code.to_owned()));
        assert_eq!(answer.field("content-type"), "application/problem+json");
    }
    let accept = get(&client, "/").header("host", &authority);
    assert_eq!(client.ask(accept).status.as_u16(), 200);
    assert_eq!(origin.requests().len(), 1);
    let line = gateway.logged(|line| line["reason"] == "host_mismatch");
    assert_eq!(
        (&line["status"], &line["protocol"], &line["path"]),
        (&400.into(), &"HTTP/2.0".into(), &"/".into())
    );
    assert_eq!(gateway.metric("portcullis_gateway_replies_total{route=\"-\",reason=\"uri_too_long\"}"), 1.0);
}

/// Clients may cut the one field as they like (RFC 9113, section 8.2.3), and browsers do.
#[test]
fn many_cookies_are_one_field() {
    let origin = Origin::ok();
    let gateway = Gateway::before(&[&origin]);
    let mut client = connect(&gateway);
    let crumbs: Vec<String> = (0..150).map(|at| format!("c{at}={at}")).collect();
    let request =
        crumbs.iter().fold(client.request("GET", "/"), |request, crumb| request.header("cookie", crumb));
    assert_eq!(client.ask(request).status.as_u16(), 200);
    assert_eq!(origin.last().fields.all("cookie"), [crumbs.join("; ")]);
}

#[test]
fn connect_opens_no_tunnel() {
    let origin = Origin::ok();
    let gateway = Gateway::before(&[&origin]);
    let mut frames = Frames::connect(gateway.address());
    let connect = fields(&[(":method", "CONNECT"), (":authority", "a:80")]);
    frames.send(Frames::HEADERS, Frames::END_HEADERS, 1, &connect);
    let settings = frames.next_of(Frames::SETTINGS).unwrap().payload;
    assert!(settings.chunks(6).all(|setting| setting[..2] != [0, 8]), "no extended CONNECT is offered");
    assert!(frames.next_of(Frames::HEADERS).is_some());
    assert_eq!(gateway.log_line(0)["reason"], "connect_not_allowed");
    assert_eq!(origin.connections(), 0);
}

#[test]
fn bounds_are_told_and_kept() {
    let origin = Origin::ok();
    let gateway = with(&origin, "limits: { http2: { max_streams: 7, max_header_list: 300B } }", "");
    let mut frames = Frames::connect(gateway.address());
    let settings = frames.next_of(Frames::SETTINGS).unwrap().payload;
    let told = |id: u8| {
        let setting = settings.chunks(6).find(|setting| setting[..2] == [0, id]).unwrap();
        u32::from_be_bytes(setting[2..].try_into().unwrap())
    };
    assert_eq!((told(3), told(6)), (7, 300));
    let large = "x".repeat(400);
    let mut client = connect(&gateway);
    let request = client.request("GET", "/").header("x-large", &large);
    assert_eq!(client.ask(request).status.as_u16(), 431);
    assert!(origin.requests().is_empty());
}

#[test]
fn a_stream_too_many_is_refused_and_the_others_are_served() {
    let (release, held) = channel::<()>();
    let held = Mutex::new(held);
    let origin = Origin::start(move |visit| {
        let _ = held.lock().unwrap().recv();
        visit.answer("HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok")
    });
    let gateway = with(&origin, "limits: { http2: { max_streams: 2 } }", "");
    let mut frames = Frames::connect(gateway.address());
    for stream in [1, 3, 5] {
        frames.send(Frames::HEADERS, Frames::END_HEADERS | Frames::END_STREAM, stream, &fields(&GET));
    }
    let reset = frames.next_of(Frames::RESET).unwrap();
    assert_eq!((reset.stream, reset.payload.as_slice()), (5, &[0, 0, 0, 7][..]), "REFUSED_STREAM");
    drop(release);
    let answered =
        [frames.next_of(Frames::HEADERS), frames.next_of(Frames::HEADERS)].map(|frame| frame.unwrap().stream);
    assert_eq!(answered.iter().sum::<u32>(), 4);
}

#[test]
fn a_hundred_streams_are_served_at_once() {
    let origin = together(100);
    let gateway = Gateway::before(&[&origin]);
    let mut client = connect(&gateway);
    let asked: Vec<_> = (0..100)
        .map(|at| {
            let request = client.request("GET", &format!("/{at}"));
            client.begin(request, true).answer
        })
        .collect();
    for answer in asked {
        assert_eq!(client.answer(answer).unwrap().body, b"ok");
    }
}

/// An origin that answers when so many requests are there; one for `/alone` at once.
fn together(count: usize) -> Origin {
    let all = Barrier::new(count);
    Origin::start(move |visit| {
        if visit.request.target != "/alone" {
            all.wait();
        }
        visit.answer("HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok")
    })
}

#[test]
fn deadlines_end_an_exchange_on_its_stream() {
    let rows = [
        ("request: 80ms", (504, "request_timeout")),
        ("read: 80ms", (504, "upstream_read_timeout")),
        ("total: 80ms", (504, "total_timeout")),
    ];
    for (timeouts, (status, code)) in rows {
        let origin = Origin::start(|visit| {
            visit.wait_for_close();
            Then::Close
        });
        let gateway = Gateway::before_with(&origin, &format!("timeouts: {{ {timeouts} }}"));
        let mut client = connect(&gateway);
        assert_eq!(client.get("/").problem(), (status, code.to_owned()), "{timeouts}");
        assert_eq!(gateway.log_of("/")["reason"], code);
        eventually("the origin is let go", || origin.open() == 0);
        assert!(client.is_open(), "the connection goes on");
    }
}

#[test]
fn a_client_that_stops_in_its_body_is_told() {
    let origin = Origin::ok();
    let gateway = Gateway::before_with(&origin, "timeouts: { stream_idle: 100ms }");
    let mut client = connect(&gateway);
    let request = client.request("POST", "/");
    let mut asked = client.begin(request, false);
    client.write(&mut asked.body, b"abc", false);
    assert_eq!(client.answer(asked.answer).unwrap().problem(), (408, "body_timeout".into()));
    eventually("the origin is let go", || origin.open() == 0);
}

#[test]
fn an_upload_that_moves_may_take_longer_than_the_request_timeout() {
    let origin = Origin::ok();
    let gateway = Gateway::before_with(&origin, "timeouts: { request: 200ms, stream_idle: 2s }");
    let mut client = connect(&gateway);
    let request = client.request("POST", "/");
    let mut asked = client.begin(request, false);
    for _ in 0..10 {
        client.write(&mut asked.body, b"b", false);
        assert!(client.is_silent(&mut asked.answer, Duration::from_millis(40)));
    }
    client.write(&mut asked.body, b"", true);
    assert_eq!(client.answer(asked.answer).unwrap().status.as_u16(), 200);
    assert_eq!(origin.last().content(), b"bbbbbbbbbb");
}

#[test]
fn an_answer_that_stops_or_is_not_taken_is_cut_off() {
    let stops = Origin::start(|visit| {
        visit.send("HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nhello");
        visit.wait_for_close();
        Then::Close
    });
    let gateway = Gateway::before_with(&stops, "timeouts: { stream_idle: 100ms }");
    let mut client = connect(&gateway);
    let request = client.request("GET", "/");
    let asked = client.begin(request, true);
    let error = client.answer(asked.answer).unwrap_err();
    assert_eq!(error.reason(), Some(h2::Reason::INTERNAL_ERROR), "{error}");
    assert_eq!(gateway.log_of("/")["reason"], "stream_idle_timeout");

    let endless = Origin::answering(
        [&b"HTTP/1.1 200 OK\r\ncontent-length: 4000000\r\n\r\n"[..], &vec![b'x'; 4_000_000]].concat(),
    );
    let gateway = Gateway::before_with(&endless, "timeouts: { stream_idle: 300ms }");
    let mut frames = Frames::connect(gateway.address());
    frames.send(Frames::HEADERS, Frames::END_HEADERS | Frames::END_STREAM, 1, &fields(&GET));
    // No window is opened beyond the first 64 KiB.
    assert_eq!(frames.next_of(Frames::RESET).unwrap().stream, 1);
    assert_eq!(gateway.log_of("/")["reason"], "stream_idle_timeout");
}

#[test]
fn a_body_beyond_the_limit_is_answered_while_it_is_sent() {
    let origin = Origin::ok();
    let gateway = Gateway::before_with(&origin, "limits: { request_body: 1KiB }");
    let mut client = connect(&gateway);
    for length in [true, false] {
        let mut request = client.request("POST", "/");
        if length {
            request = request.header("content-length", 100_000);
        }
        let answer = client.send(request, &[b'x'; 100_000]);
        assert_eq!(answer.problem(), (413, "body_too_large".into()), "{length}");
    }
    assert!(origin.requests().is_empty());
    assert!(client.is_open());
}

#[test]
fn a_client_that_gives_up_frees_the_origin() {
    let (arrived, there) = channel();
    let arrived = Mutex::new(arrived);
    let origin = Origin::start(move |visit| {
        arrived.lock().unwrap().send(()).unwrap();
        visit.wait_for_close();
        Then::Close
    });
    let gateway = Gateway::before(&[&origin]);
    let mut client = connect(&gateway);
    let request = client.request("GET", "/");
    let mut asked = client.begin(request, true);
    there.recv_timeout(SOON).unwrap();
    asked.body.send_reset(h2::Reason::CANCEL);
    eventually("the origin is let go", || origin.open() == 0);
    assert_eq!(gateway.log_of("/")["status"], 499);
    assert!(client.is_open());

    let request = client.request("GET", "/again");
    let _asked = client.begin(request, true);
    there.recv_timeout(SOON).unwrap();
    drop(client);
    eventually("the origin is let go", || origin.open() == 0);
    assert_eq!(gateway.log_of("/again")["status"], 499);
}

#[test]
fn a_connection_ends_after_so_many_requests_and_when_it_is_idle() {
    let origin = Origin::ok();
    let gateway = with(&origin, "limits: { requests_per_connection: 2 }", "");
    let mut frames = Frames::connect(gateway.address());
    let get = |frames: &mut Frames, stream| {
        frames.send(Frames::HEADERS, Frames::END_HEADERS | Frames::END_STREAM, stream, &fields(&GET));
    };
    get(&mut frames, 1);
    assert_eq!(frames.next_of(Frames::DATA).unwrap().stream, 1);
    get(&mut frames, 3);
    assert_eq!(frames.goaway(), Some(0));
    assert_eq!(frames.next_of(Frames::DATA).unwrap().stream, 3);
    let gateway = with(&origin, "limits: { idle_timeout: 100ms }", "");
    let mut frames = Frames::connect(gateway.address());
    get(&mut frames, 1);
    assert_eq!(frames.next_of(Frames::DATA).unwrap().stream, 1);
    assert_eq!(frames.goaway(), Some(0));
    assert!(frames.ends(SOON));
    eventually("it is gone", || gateway.metric("portcullis_connections_active{listener=\"web\"}") == 0.0);
}

#[test]
fn a_drain_does_not_wait_for_the_rest_of_a_preface() {
    const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
    for sent in [20, PREFACE.len()] {
        let gateway = Gateway::before(&[&Origin::ok()]);
        let mut client = gateway.client();
        client.send(&PREFACE[..sent]);
        let open = "portcullis_connections_active{listener=\"web\"}";
        eventually("it is accepted", || gateway.metric(open) == 1.0);
        let begun = Instant::now();
        gateway.shutdown();
        client.rest();
        assert!(begun.elapsed() < Duration::from_secs(8), "{sent} bytes: {:?}", begun.elapsed());
    }
}

#[test]
fn a_drain_says_goodbye_and_serves_what_is_under_way() {
    let (release, held) = channel::<()>();
    let (arrived, there) = channel();
    let (held, arrived) = (Mutex::new(held), Mutex::new(arrived));
    let origin = Origin::start(move |visit| {
        arrived.lock().unwrap().send(()).unwrap();
        let _ = held.lock().unwrap().recv();
        visit.answer("HTTP/1.1 200 OK\r\ncontent-length: 7\r\n\r\nat last")
    });
    let gateway = Gateway::before(&[&origin]);
    let mut frames = Frames::connect(gateway.address());
    frames.send(Frames::HEADERS, Frames::END_HEADERS | Frames::END_STREAM, 1, &fields(&GET));
    there.recv_timeout(SOON).unwrap();
    let ending = std::thread::spawn(move || gateway.shutdown());
    assert_eq!(frames.goaway(), Some(0));
    drop(release);
    assert_eq!(frames.next_of(Frames::DATA).unwrap().payload, b"at last");
    ending.join().unwrap();
}

/// What must end a connection, and leave nothing behind: frames that cost the sender less than the gateway.
#[test]
fn floods_are_cut_off() {
    let origin = Origin::start(|visit| {
        visit.wait_for_close();
        Then::Close
    });
    let gateway = Gateway::before(&[&origin]);
    let head = fields(&GET);
    type Flood = fn(&mut Frames, u32, &[u8]) -> bool;
    let floods: [(&str, Flood); 6] = [
        ("rapid reset", |frames, at, head| {
            let stream = 2 * at + 1;
            frames.send(Frames::HEADERS, Frames::END_HEADERS | Frames::END_STREAM, stream, head)
                && frames.send(Frames::RESET, 0, stream, &[0, 0, 0, 8])
        }),
        ("endless continuation", |frames, at, head| match at {
            0 => frames.send(Frames::HEADERS, Frames::END_STREAM, 1, head),
            _ => frames.send(Frames::CONTINUATION, 0, 1, &fields(&[("x", "y")])),
        }),
        ("windows beyond their bound", |frames, _, _| {
            frames.send(Frames::WINDOW_UPDATE, 0, 0, &[0x7f, 0xff, 0xff, 0xff])
        }),
        ("data on no stream", |frames, _, _| frames.send(Frames::DATA, 0, 1, b"abc")),
        ("a stream from before", |frames, at, head| {
            frames.send(
                Frames::HEADERS,
                Frames::END_HEADERS | Frames::END_STREAM,
                if at == 0 { 5 } else { 3 },
                head,
            )
        }),
        ("a frame too large", |frames, _, _| frames.send(Frames::DATA, 0, 1, &[0; 20_000])),
    ];
    for (name, flood) in floods {
        let mut frames = Frames::connect(gateway.address());
        for at in 0..20_000 {
            if !flood(&mut frames, at, &head) {
                break;
            }
        }
        assert!(frames.ends(SOON), "{name}");
    }
    eventually("nothing is left", || {
        gateway.metric("portcullis_connections_active{listener=\"web\"}") == 0.0
    });
    eventually("no request is left", || gateway.metric("portcullis_requests_active{route=\"all\"}") == 0.0);
    eventually("no origin is held", || origin.open() == 0);
}

/// Pings and settings are answered one at a time: whoever does not read the answers is not read any more.
#[test]
fn a_flood_of_pings_costs_no_memory() {
    let origin = Origin::ok();
    let gateway = Gateway::before(&[&origin]);
    let mut frames = Frames::connect(gateway.address());
    frames.socket.set_write_timeout(Some(Duration::from_millis(500))).unwrap();
    let pings = Frames::spell(Frames::PING, 0, 0, b"pingpong").repeat(1000);
    let sent =
        (0..2000).take_while(|_| std::io::Write::write_all(&mut frames.socket, &pings).is_ok()).count();
    assert!(sent < 2000, "the gateway stopped reading");
    assert_eq!(connect(&gateway).get("/").status.as_u16(), 200, "others are served");
}

#[test]
fn garbage_after_the_preface_ends_the_connection() {
    let origin = Origin::ok();
    let gateway = Gateway::before(&[&origin]);
    let mut random = fastrand::Rng::with_seed(7);
    for _ in 0..200 {
        let mut frames = Frames::connect(gateway.address());
        let (kind, flags, stream) = (random.u8(0..12), random.u8(..), random.u32(0..9));
        let payload: Vec<u8> = (0..random.usize(0..64)).map(|_| random.u8(..)).collect();
        frames.send(kind, flags, stream, &payload);
        frames.socket.shutdown(std::net::Shutdown::Write).unwrap();
        assert!(frames.ends(SOON), "{kind} {flags} {stream} {payload:?}");
    }
    assert_eq!(connect(&gateway).get("/").status.as_u16(), 200);
    eventually("nothing is left", || {
        gateway.metric("portcullis_connections_active{listener=\"web\"}") == 0.0
    });
}

/// A gateway that speaks HTTP/2 to another one, which speaks HTTP/1.1 to the origin.
fn in_a_row(origin: &Origin, route: &str) -> (Gateway, Gateway) {
    let second = Gateway::before(&[origin]);
    let comma = if route.is_empty() { "" } else { ", " };
    let first = Gateway::start(&format!(
        "upstreams: {{ next: {{ protocol: http2, endpoints: [\"{}\"] }} }}\n\
         routes: [{{ name: all, path: /*, upstream: next{comma}{route} }}]\n",
        second.address()
    ));
    (first, second)
}

#[test]
fn an_upstream_is_spoken_to_in_http_2_whatever_the_client_speaks() {
    let origin = Origin::start(|visit| {
        let body = visit.request.content().to_vec();
        visit.answer(
            [format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n", body.len()).as_bytes(), &body].concat(),
        )
    });
    let (first, second) = in_a_row(&origin, "");
    let body: Vec<u8> = (0..2_000_000_u32).map(|at| (at % 251) as u8).collect();
    let head = format!("POST /x?y HTTP/1.1\r\nhost: a.example\r\ncontent-length: {}\r\n\r\n", body.len());
    let answer = first.ask([head.as_bytes(), &body].concat());
    assert!(answer.status == 200 && answer.body == body);
    assert_eq!(first.ask("GET / HTTP/1.1\r\nhost: a.example\r\n\r\n").status, 200);
    let mut client = connect(&first);
    let request = client.request("POST", "/x?y").header("te", "trailers");
    assert!(client.send(request, &body).body == body);
    let head = client.request("HEAD", "/");
    assert_eq!(client.ask(head).status.as_u16(), 200);

    let seen = origin.request(0);
    assert_eq!((seen.header("host"), seen.target.as_str()), (Some("a.example"), "/x?y"));
    let between = second.logged(|line| line["path"] == "/x" && line["host"] == "a.example");
    assert_eq!(between["protocol"], "HTTP/2.0");
    assert_eq!(
        second.metric("portcullis_connections_active{listener=\"web\"}"),
        1.0,
        "one connection carries them all"
    );
}

#[test]
fn many_requests_share_a_connection_to_an_upstream_of_http_2() {
    let origin = together(50);
    let (first, second) = in_a_row(&origin, "");
    let mut client = connect(&first);
    assert_eq!(client.get("/alone").body, b"ok");
    let asked: Vec<_> = (0..50)
        .map(|_| {
            let request = client.request("GET", "/");
            client.begin(request, true).answer
        })
        .collect();
    for answer in asked {
        assert_eq!(client.answer(answer).unwrap().body, b"ok");
    }
    assert!(second.metric("portcullis_connections_active{listener=\"web\"}") < 10.0);
}

#[test]
fn exchanges_with_an_upstream_of_http_2_end_as_others_do() {
    let silent = Origin::start(|visit| {
        visit.wait_for_close();
        Then::Close
    });
    for (timeouts, code) in [
        ("request: 100ms", "request_timeout"),
        ("read: 100ms", "upstream_read_timeout"),
        ("total: 100ms", "total_timeout"),
    ] {
        let (first, _second) = in_a_row(&silent, &format!("timeouts: {{ {timeouts} }}"));
        assert_eq!(first.get("/").problem(), (504, code.into()));
        assert_eq!(connect(&first).get("/").problem(), (504, code.into()));
        eventually("the origin is let go", || silent.open() == 0);
    }
    let (first, _second) = in_a_row(&silent, "limits: { request_body: 1KiB }");
    let mut client = first.client();
    client.send("POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n");
    client.send([&b"2000\r\n"[..], &[b'x'; 0x2000], b"\r\n"].concat());
    assert_eq!(client.response().problem(), (413, "body_too_large".into()));
    let mut client = connect(&first);
    let request = client.request("POST", "/");
    assert_eq!(client.send(request, &[b'x'; 100_000]).problem(), (413, "body_too_large".into()));
}

#[test]
fn an_answer_of_http_2_that_breaks_off_is_broken_off() {
    let (break_off, broken) = channel::<()>();
    let broken = Mutex::new(broken);
    let origin = Origin::start(move |visit| {
        visit.send("HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nhello");
        let _ = broken.lock().unwrap().recv();
        Then::Reset
    });
    let (first, _second) = in_a_row(&origin, "");
    let mut client = first.client();
    assert_eq!(client.send_get("/").head().status, 200);
    assert_eq!(client.read(5), b"hello");
    break_off.send(()).unwrap();
    assert_eq!(client.rest(), b"");
    assert_eq!(first.log_of("/")["reason"], "upstream_reset");
    let mut client = connect(&first);
    let request = client.request("GET", "/");
    let asked = client.begin(request, true);
    let error = client.within(async {
        let mut body = asked.answer.await.unwrap().into_body();
        assert_eq!(body.data().await.unwrap().unwrap(), "hello");
        break_off.send(()).unwrap();
        body.data().await.unwrap().unwrap_err()
    });
    assert!(error.is_reset(), "{error}");
}

/// A stream that its client has reset is none to the library, but may still be at work in the gateway.
#[test]
fn streams_that_were_reset_count_until_they_have_ended() {
    let nobody = crate::harness::FullBacklog::new();
    let gateway = Gateway::start(&format!(
        "listeners: [{{ name: web, address: \"127.0.0.1:0\", limits: {{ http2: {{ max_streams: 5 }} }} }}]\n\
         upstreams: {{ o: {{ endpoints: [\"{}\"], timeouts: {{ connect: 10s }} }} }}\n\
         routes: [{{ name: all, path: /*, upstream: o }}]\n",
        nobody.address()
    ));
    let mut frames = Frames::connect(gateway.address());
    let mut most = 0.0_f64;
    for at in 0..60 {
        let stream = 2 * at + 1;
        frames.send(Frames::HEADERS, Frames::END_HEADERS | Frames::END_STREAM, stream, &fields(&GET));
        frames.ping();
        frames.send(Frames::RESET, 0, stream, &[0, 0, 0, 8]);
        let active = gateway.metric("portcullis_requests_active{route=\"all\"}");
        assert!(active <= 10.0);
        most = most.max(active);
    }
    assert!(most >= 1.0, "streams were under way");
}

#[test]
fn a_connection_that_ignores_the_goodbye_is_parted_with() {
    let origin = Origin::ok();
    let gateway = with(&origin, "limits: { requests_per_connection: 1 }", "");
    let mut frames = Frames::connect(gateway.address());
    // Without an answer to its ping the library goes on taking streams.
    let mut streams = (1..).step_by(2);
    eventually("a stream is refused", || {
        let stream = streams.next().unwrap();
        frames.send(Frames::HEADERS, Frames::END_HEADERS | Frames::END_STREAM, stream, &fields(&GET));
        std::iter::from_fn(|| frames.next())
            .find(|frame| frame.stream == stream && matches!(frame.kind, Frames::DATA | Frames::RESET))
            .is_none_or(|frame| frame.kind == Frames::RESET)
    });
    assert!(streams.next() > Some(3), "the first ones are served");
    assert!(frames.ends(SOON));
}

#[test]
fn a_refused_head_has_no_body() {
    let origin = Origin::ok();
    let gateway = Gateway::before(&[&origin]);
    let mut client = connect(&gateway);
    let request = client.request("HEAD", "/").header("expect", "more");
    let answer = client.ask(request);
    assert_eq!((answer.status.as_u16(), answer.body.len()), (417, 0));
    assert!(client.is_open());
}

#[test]
fn an_answer_that_comes_before_the_end_of_the_request_ends_the_exchange() {
    let origin = Origin::on_head(|visit| {
        visit.send("HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nearly");
        visit.wait_for_close();
        Then::Close
    });
    let gateway = Gateway::before(&[&origin]);
    let mut client = connect(&gateway);
    let request = client.request("POST", "/");
    let mut asked = client.begin(request, false);
    client.write(&mut asked.body, b"part", false);
    assert_eq!(client.answer(asked.answer).unwrap().body, b"early");
    let line = gateway.log_of("/");
    assert_eq!((&line["status"], &line["reason"]), (&200.into(), &serde_json::Value::Null));
    eventually("the origin is let go", || origin.open() == 0);
    assert!(client.is_open());
}

/// An upstream that speaks HTTP/2 and does as `answer` says with each request: the number of its connection, the stream,
/// and the way back.
fn speaking(answer: impl Fn(usize, u32, &mut Stream) -> Then + Send + Sync + 'static) -> Origin {
    Origin::raw(move |index, stream| {
        let preface = stream.exactly(24);
        let _ = stream.send(&Frames::spell(Frames::SETTINGS, 0, 0, &[]));
        if preface.is_err() {
            return Then::Close;
        }
        while let Ok(head) = stream.exactly(9) {
            let length = u32::from_be_bytes([0, head[0], head[1], head[2]]) as usize;
            let _ = stream.exactly(length);
            let id = u32::from_be_bytes([head[5], head[6], head[7], head[8]]);
            match head[3] {
                Frames::SETTINGS if head[4] == 0 => {
                    let _ = stream.send(&Frames::spell(Frames::SETTINGS, 1, 0, &[]));
                }
                Frames::HEADERS if answer(index, id, stream) != Then::Keep => return Then::Close,
                _ => {}
            }
        }
        Then::Close
    })
}

/// Answers 204.
fn answer(id: u32, stream: &mut Stream) -> Then {
    let end = Frames::END_HEADERS | Frames::END_STREAM;
    let _ = stream.send(&Frames::spell(Frames::HEADERS, end, id, &[0x89]));
    Then::Keep
}

/// Says that it has not looked at a request, and will not.
fn refuse(id: u32, stream: &mut Stream) -> Then {
    let _ = stream.send(&Frames::spell(Frames::RESET, 0, id, &[0, 0, 0, 7]));
    Then::Keep
}

fn before_http2(origins: &[&Origin]) -> Gateway {
    before_http2_with(origins, "")
}

/// The same, with more words for the upstream.
fn before_http2_with(origins: &[&Origin], words: &str) -> Gateway {
    let endpoints: Vec<String> = origins.iter().map(|origin| format!("\"{}\"", origin.address())).collect();
    Gateway::start(&format!(
        "upstreams: {{ next: {{ protocol: http2, endpoints: [{}]{words} }} }}\n\
         routes: [{{ name: all, path: /*, upstream: next }}]\n",
        endpoints.join(", ")
    ))
}

/// A server that restarts says what it has not looked at (RFC 9113, section 8.7): that goes again, whatever the method.
#[test]
fn what_an_upstream_of_http_2_has_not_looked_at_goes_again() {
    let origin = speaking(|index, id, stream| match index {
        0 => {
            // Nothing was processed; nothing is wrong.
            let _ = stream.send(&Frames::spell(Frames::GOAWAY, 0, 0, &[0; 8]));
            Then::Close
        }
        _ => answer(id, stream),
    });
    let gateway = before_http2(&[&origin]);
    let mut client = connect(&gateway);
    let request = client.request("POST", "/");
    assert_eq!(client.ask(request).status.as_u16(), 204);
}

#[test]
fn what_is_refused_goes_again_once_and_then_to_others() {
    let asked = Arc::new(AtomicUsize::new(0));
    let refusing = || {
        let asked = Arc::clone(&asked);
        speaking(move |_, id, stream| {
            asked.fetch_add(1, Ordering::SeqCst);
            refuse(id, stream)
        })
    };
    let (one, other) = (refusing(), refusing());
    for (origins, tries) in [(&[&one][..], 2), (&[&one, &other][..], 3)] {
        let gateway = before_http2(origins);
        for http2 in [true, false] {
            asked.store(0, Ordering::SeqCst);
            let problem =
                if http2 { connect(&gateway).get("/").problem() } else { gateway.get("/").problem() };
            assert_eq!(problem, (503, "no_healthy_upstream".into()));
            assert_eq!(asked.load(Ordering::SeqCst), tries);
        }
        assert_eq!(gateway.log_of("/")["tries"], tries);
    }
    let willing = speaking(|_, id, stream| answer(id, stream));
    let gateway = before_http2(&[&one, &willing]);
    for _ in 0..4 {
        assert_eq!(connect(&gateway).get("/").status.as_u16(), 204);
    }
}

/// An upstream that refuses everything gets no more than twice as much, and what its budget allows.
#[test]
fn what_is_refused_again_is_paid_for() {
    let asked = Arc::new(AtomicUsize::new(0));
    let refusing: Vec<Origin> = (0..4)
        .map(|_| {
            let asked = Arc::clone(&asked);
            speaking(move |_, id, stream| {
                asked.fetch_add(1, Ordering::SeqCst);
                refuse(id, stream)
            })
        })
        .collect();
    let origins: Vec<&Origin> = refusing.iter().collect();
    let count = |words: &str| {
        let gateway = before_http2_with(&origins, words);
        asked.store(0, Ordering::SeqCst);
        for _ in 0..20 {
            assert_eq!(connect(&gateway).get("/").problem(), (503, "no_healthy_upstream".into()));
        }
        (asked.load(Ordering::SeqCst), gateway)
    };
    let (asked_without, gateway) = count(", retry_budget: { ratio: 0%, min_per_second: 0 }");
    assert_eq!(asked_without, 40);
    let spared = "portcullis_retries_total{upstream=\"next\",result=\"over_budget\"}";
    assert_eq!(gateway.metric(spared), 20.0);
    let (asked_within, _) = count(", retry_budget: { ratio: 100%, min_per_second: 1000 }");
    assert_eq!(asked_within, 100);
}

#[test]
fn trailers_are_announced_where_they_follow() {
    let old = Origin::answering(
        *b"HTTP/1.1 200 OK\r\ntrailer: x-sum\r\ntransfer-encoding: chunked\r\n\r\n2\r\nok\r\n0\r\nx-sum: 1\r\n\r\n",
    );
    let new = speaking(|_, id, stream| {
        let head = [&[0x88][..], &fields(&[("trailer", "x-sum")])].concat();
        let end = Frames::END_HEADERS | Frames::END_STREAM;
        for (kind, flags, payload) in [
            (Frames::HEADERS, Frames::END_HEADERS, head),
            (Frames::DATA, 0, b"ok".to_vec()),
            (Frames::HEADERS, end, fields(&[("x-sum", "1")])),
        ] {
            let _ = stream.send(&Frames::spell(kind, flags, id, &payload));
        }
        Then::Keep
    });
    for (gateway, http2) in [(Gateway::before(&[&old]), false), (before_http2(&[&new]), true)] {
        let answer = gateway.get("/");
        assert_eq!((answer.header("trailer"), answer.text().as_str()), (None, "ok"), "HTTP/1.1, {http2}");
        let answer = connect(&gateway).get("/");
        assert_eq!(answer.body, b"ok");
        let announced = if http2 { "x-sum" } else { "" };
        assert_eq!(answer.field("trailer"), announced);
        let sum = answer.trailers.and_then(|trailers| trailers.get("x-sum").cloned());
        assert_eq!(sum.is_some(), http2);
    }
}

/// A strict client sends no body before it is told to, and the engine drops an upstream's interim answers.
#[test]
fn an_upstream_of_http_2_may_be_asked_for_100_continue() {
    let origin = Origin::start(|visit| {
        assert_eq!(visit.request.header("expect"), None);
        visit.answer("HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok")
    });
    let (first, _second) = in_a_row(&origin, "");
    let mut client = first.client();
    for _ in 0..2 {
        let head = "POST / HTTP/1.1\r\nhost: a\r\nexpect: 100-continue\r\ncontent-length: 3\r\n\r\n";
        assert_eq!(client.ask(head).status, 100);
        let answer = client.ask("abc");
        assert_eq!((answer.status, answer.fields.lists("connection", "close")), (200, false));
        assert_eq!(origin.last().content(), b"abc");
    }
    let mut client = connect(&first);
    let request = client.request("POST", "/").header("expect", "100-continue");
    let mut asked = client.begin(request, false);
    let word =
        client.within(std::future::poll_fn(|cx| asked.answer.poll_informational(cx))).unwrap().unwrap();
    assert_eq!(word.status().as_u16(), 100);
    client.write(&mut asked.body, b"abc", true);
    assert_eq!(client.answer(asked.answer).unwrap().body, b"ok");

    // What was refused after the word goes again, and the word is not said twice.
    let turns = AtomicUsize::new(0);
    let reluctant = speaking(move |_, id, stream| match turns.fetch_add(1, Ordering::SeqCst) {
        0 => refuse(id, stream),
        _ => answer(id, stream),
    });
    let gateway = before_http2(&[&reluctant]);
    let mut client = gateway.client();
    let head = "PUT / HTTP/1.1\r\nhost: a\r\nexpect: 100-continue\r\ncontent-length: 3\r\n\r\n";
    assert_eq!(client.ask(head).status, 100);
    assert_eq!(client.ask("abc").status, 204);
}
