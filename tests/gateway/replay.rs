//! Bodies that are sent anew with another attempt: how much of them is kept, and what comes of those that are not.

use std::net::SocketAddr;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::Duration;

use crate::harness::{Client, Gateway, Http2, Origin, Then, eventually};

const OK: &str = "HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok";
const UNAVAILABLE: &str = "HTTP/1.1 503 Unavailable\r\ncontent-length: 0\r\n\r\n";
const LARGE: &str = "max_body: 8MiB";

/// How an attempt ends before the one that goes well.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Breaks {
    /// By a reset in the middle of the body.
    Midway,
    /// By a reset after the body.
    After,
    /// By a 503 that does not wait for the body.
    Early,
    /// By a 503 after the body.
    Late,
}

const WAYS: [Breaks; 4] = [Breaks::Midway, Breaks::Early, Breaks::Late, Breaks::After];

/// An origin whose first attempts break so, and which takes the next.
fn breaking(ways: &'static [Breaks]) -> Origin {
    let count = AtomicUsize::new(0);
    Origin::on_head(move |visit| {
        match ways.get(count.fetch_add(1, Ordering::Relaxed)) {
            Some(Breaks::Midway) => {
                // A body may be shorter than that.
                let _ = visit.stream.some();
                return Then::Reset;
            }
            Some(Breaks::Early) => {
                // The body may have come whole by now: nothing must follow it here.
                visit.send("HTTP/1.1 503 Unavailable\r\ncontent-length: 0\r\nconnection: close\r\n\r\n");
                visit.wait_for_close();
                return Then::Close;
            }
            Some(way) => match visit.read_body() {
                Ok(()) if *way == Breaks::Late => return visit.answer(UNAVAILABLE),
                Ok(()) => return Then::Reset,
                Err(_) => return Then::Close,
            },
            None => {}
        }
        match visit.read_body() {
            Ok(()) => visit.answer(OK),
            Err(_) => Then::Close,
        }
    })
}

fn words(origin: SocketAddr, retry: &str, more: &str) -> String {
    format!(
        "{more}\nupstreams: {{ origin: {{ endpoints: [\"{origin}\"] }} }}\n\
         routes: [{{ name: all, path: /*, upstream: origin, retry: {{ backoff: {{ fixed: 1ms }}, {retry} }} }}]"
    )
}

fn gateway(origin: &Origin, retry: &str) -> Gateway {
    Gateway::start(&words(origin.address(), retry, ""))
}

/// No two places of it look alike.
fn body(length: usize) -> Vec<u8> {
    (0u32..).flat_map(|word| word.wrapping_mul(2_654_435_761).to_le_bytes()).take(length).collect()
}

fn put(length: usize) -> String {
    format!("PUT /big?x=1 HTTP/1.1\r\nhost: a\r\nx-own: 1\r\ncontent-length: {length}\r\n\r\n")
}

fn chunked(piece: &[u8]) -> Vec<u8> {
    piece
        .chunks(50_000)
        .flat_map(|c| [format!("{:x}\r\n", c.len()).as_bytes(), c, b"\r\n"].concat())
        .collect()
}

fn kept(gateway: &Gateway) -> f64 {
    gateway.metric("portcullis_retry_memory_bytes")
}

fn not_kept(gateway: &Gateway) -> f64 {
    gateway.metric("portcullis_retries_total{upstream=\"origin\",result=\"body_not_kept\"}")
}

/// All heads that an origin got, byte by byte.
fn heads(origin: &Origin) -> Vec<Vec<u8>> {
    let whole = origin.bytes().into_iter().map(|bytes| {
        let end = bytes.windows(4).position(|bytes| bytes == b"\r\n\r\n").unwrap();
        bytes[..end].to_vec()
    });
    whole.collect()
}

#[track_caller]
fn came_whole(origin: &Origin, body: &[u8], attempts: usize) {
    let content = origin.last().body.unwrap_or_default();
    assert_eq!(content.len(), body.len());
    assert!(content == body, "the body is another");
    assert_eq!(origin.heads().len(), attempts);
    let first = origin.heads().swap_remove(0);
    for head in origin.heads() {
        assert_eq!((&head.target, &head.fields), (&first.target, &first.fields), "heads differ");
    }
}

#[test]
fn over_http1_a_body_is_sent_anew_byte_for_byte() {
    for (length, way, is_chunked) in [
        (1 << 20, &[Breaks::Midway], false),
        (5 << 20, &[Breaks::Early], false),
        (1 << 20, &[Breaks::Late], true),
        (5 << 20, &[Breaks::Midway], true),
    ] {
        let body = body(length);
        let origin = breaking(way);
        let gateway = gateway(&origin, LARGE);
        let mut client = Client::connect(gateway.address());
        let (first, second) = body.split_at(length / 2);
        let (head, first, second) = match is_chunked {
            false => (put(length), first.to_vec(), second.to_vec()),
            true => (
                "PUT /big?x=1 HTTP/1.1\r\nhost: a\r\nx-own: 1\r\ntransfer-encoding: chunked\r\n\r\n".into(),
                chunked(first),
                [&*chunked(second), b"0\r\n\r\n"].concat(),
            ),
        };
        client.send(head).send(first);
        if way[0] != Breaks::Late {
            // The client is still at it.
            eventually("the second attempt", || origin.heads().len() == 2);
        }
        client.send(second);
        assert_eq!(client.response().text(), "ok", "{way:?}");
        came_whole(&origin, &body, 2);
        assert_eq!(gateway.log_of("/big")["bytes_in"], length);
        // The connection lives on.
        assert_eq!(client.get("/next").status, 200);
        assert_eq!(kept(&gateway), 0.0);
    }
}

#[test]
fn over_http2_it_is_the_same() {
    for (length, way) in [(1 << 20, WAYS[0]), (5 << 20, WAYS[1]), (1 << 20, WAYS[2])] {
        let body = body(length);
        let origin = breaking(WAYS.iter().position(|known| *known == way).map(|at| &WAYS[at..=at]).unwrap());
        let gateway = gateway(&origin, LARGE);
        let mut client = Http2::connect(gateway.address());
        let mut asked = client.begin(client.request("PUT", "/big?x=1"), false);
        let (first, second) = body.split_at(length / 2);
        client.write(&mut asked.body, first, false);
        if way != Breaks::Late {
            eventually("the second attempt", || origin.heads().len() == 2);
        }
        client.write(&mut asked.body, second, false);
        asked.body.send_trailers([("x-after", "told")].map(field).into_iter().collect()).unwrap();
        let answer = client.answer(asked.answer).unwrap();
        assert_eq!((answer.status.as_u16(), &*answer.body), (200, &b"ok"[..]), "{way:?}");
        came_whole(&origin, &body, 2);
        assert_eq!(client.get("/next").status.as_u16(), 200);
    }
}

fn field((name, value): (&'static str, &'static str)) -> (http::HeaderName, http::HeaderValue) {
    (http::HeaderName::from_static(name), http::HeaderValue::from_static(value))
}

#[test]
fn upstreams_by_http2_get_it_too() {
    for way in [&[Breaks::Early, Breaks::Late], &[Breaks::Late, Breaks::Midway]] {
        let body = body(1 << 20);
        let origin = breaking(way);
        let trust = "server: { trusted_proxies: [127.0.0.0/8] }";
        let second = Gateway::start(&words(origin.address(), "max_retries: 0", trust));
        let gateway = Gateway::start(&format!(
            "upstreams: {{ origin: {{ endpoints: [\"{}\"], protocol: http2 }} }}\n\
             routes: [{{ name: all, path: /*, upstream: origin, retry: {{ {LARGE}, max_retries: 2, on: [502, 503] }} }}]",
            second.address()
        ));
        let mut client = Client::connect(gateway.address());
        client.send(put(body.len())).send(&body);
        assert_eq!(client.response().text(), "ok", "{way:?}");
        came_whole(&origin, &body, 3);
        assert_eq!(client.get("/next").status, 200);
    }
}

#[test]
fn every_attempt_has_the_same_head() {
    let body = body(200 << 10);
    let origin = breaking(&[Breaks::Midway, Breaks::Midway, Breaks::Midway]);
    let gateway = gateway(&origin, "max_body: 1MiB, max_retries: 3");
    let mut client = Client::connect(gateway.address());
    client.send(
        "PUT http://A.test/x/../big HTTP/1.1\r\nHost: A.test\r\nExpect: 100-continue\r\nX-Own: 1\r\nx-own: 2\r\n\
         Content-Length: 204800\r\nConnection: x-away\r\nX-Away: 1\r\n\r\n",
    );
    client.send(&body);
    let mut answer = client.head();
    while answer.status < 200 {
        answer = client.head();
    }
    assert_eq!((answer.status, client.read(2)), (200, b"ok".to_vec()));
    came_whole(&origin, &body, 4);
    let heads = heads(&origin);
    assert_eq!(heads.len(), 4);
    assert!(heads.iter().all(|head| *head == heads[0]), "{heads:?}");
}

#[test]
fn a_body_that_is_longer_is_not_sent_anew() {
    for (words, most) in [("max_body: 10KiB", 10 << 10), ("max_body: 100KiB", 100 << 10), ("", 64 << 10)] {
        for (way, otherwise) in [(&WAYS[3..], 502), (&WAYS[2..3], 503)] {
            for (length, status, attempts) in [(most, 200, 2), (most + 1, otherwise, 1)] {
                let body = body(length);
                let origin = breaking(way);
                let before = gateway(&origin, words);
                let answer = before.ask([put(length).into_bytes(), body.clone()].concat());
                let got = (answer.status, origin.heads().len());
                assert_eq!(got, (status, attempts), "{words} {way:?} {length}");

                let origin = breaking(way);
                let before = gateway(&origin, words);
                let mut client = Http2::connect(before.address());
                let answer = client.send(client.request("PUT", "/"), &body);
                let got = (answer.status.as_u16(), origin.heads().len());
                assert_eq!(got, (status, attempts), "over HTTP/2: {words} {way:?} {length}");
            }
        }
    }
}

/// An origin that holds the first attempt at `/held` until it is told to break it, and answers all else: at first with 503
/// what begins with `/once`.
fn holding() -> (Origin, Sender<()>) {
    let (release, held): (_, Receiver<()>) = channel();
    let (held, count) = (Mutex::new(held), [(); 2].map(|()| AtomicUsize::new(0)));
    let origin = Origin::start(move |visit| {
        let first = |at: usize| count[at].fetch_add(1, Ordering::Relaxed) % 2 == 0;
        match &*visit.request.target {
            "/held" if first(0) => {
                held.lock().unwrap().recv().unwrap();
                visit.answer(UNAVAILABLE)
            }
            "/once" if first(1) => visit.answer(UNAVAILABLE),
            "/begun" => {
                visit.send("HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\no");
                held.lock().unwrap().recv().unwrap();
                visit.answer("k")
            }
            _ => visit.answer(OK),
        }
    });
    (origin, release)
}

fn ask(gateway: &Gateway, method: &str, path: &str, more: &str, length: usize) -> Client {
    let head = format!("{method} {path} HTTP/1.1\r\nhost: a\r\n{more}content-length: {length}\r\n\r\n");
    let mut client = gateway.client();
    client.send(head).send(body(length));
    client
}

#[test]
fn what_does_not_fit_into_the_memory_of_all_is_not_kept() {
    const LENGTH: usize = 80 << 10;
    let (origin, release) = holding();
    let before =
        Gateway::start(&words(origin.address(), "max_body: 80KiB", "server: { retry_memory: 100KiB }"));
    for round in 1..3 {
        let mut held = ask(&before, "PUT", "/held", "", LENGTH);
        eventually("it is kept", || kept(&before) == LENGTH as f64);
        assert_eq!(ask(&before, "PUT", "/once", "", LENGTH).response().status, 503);
        assert_eq!(not_kept(&before), f64::from(round));
        // What fits is.
        assert_eq!(ask(&before, "PUT", "/once", "", 100).response().status, 200);
        release.send(()).unwrap();
        assert_eq!(held.response().status, 200);
        eventually("all is given back", || kept(&before) == 0.0);
        assert_eq!(ask(&before, "PUT", "/once", "", LENGTH).response().status, 200, "now it fits");
    }
    // Over HTTP/2 it is the same memory.
    let mut held = ask(&before, "PUT", "/held", "", LENGTH);
    eventually("it is kept", || kept(&before) == LENGTH as f64);
    let mut client = Http2::connect(before.address());
    assert_eq!(client.send(client.request("PUT", "/once"), &body(LENGTH)).status.as_u16(), 503);
    release.send(()).unwrap();
    assert_eq!(held.response().status, 200);
}

#[test]
fn without_memory_nothing_is_kept() {
    let origin = breaking(&WAYS[2..3]);
    let before = Gateway::start(&words(origin.address(), "", "server: { retry_memory: 0 }"));
    assert_eq!(ask(&before, "PUT", "/", "", 1).response().status, 503);
}

#[test]
fn memory_is_counted_over_reloads() {
    let (origin, release) = holding();
    let text = |memory: &str| words(origin.address(), "", &format!("server: {{ retry_memory: {memory} }}"));
    let before = Gateway::start_file(&text("20KiB"));
    let mut held = ask(&before, "PUT", "/held", "", 16 << 10);
    eventually("it is kept", || kept(&before) == 16384.0);
    before.rewrite(&text("24KiB"));
    before.reload().unwrap();
    assert_eq!(ask(&before, "PUT", "/once", "", 16 << 10).response().status, 503);
    before.rewrite(&text("64KiB"));
    before.reload().unwrap();
    assert_eq!(ask(&before, "PUT", "/nothing", "", 16 << 10).response().status, 200);
    assert_eq!(ask(&before, "PUT", "/once", "", 16 << 10).response().status, 200);
    release.send(()).unwrap();
    assert_eq!(held.response().status, 200);
}

#[test]
fn only_what_may_be_sent_twice_is_kept() {
    let (origin, release) = holding();
    let rows =
        [("POST", "", "", 0.0), ("POST", "idempotency-key: a\r\n", "", 1000.0), ("PUT", "", "", 1000.0)];
    let rows = rows.into_iter().chain([
        ("POST", "", "methods: [POST]", 1000.0),
        ("POST", "idempotency-key: a\r\n", "max_retries: 0", 0.0),
        ("POST", "idempotency-key: a\r\n", "on: [connect_failure]", 0.0),
    ]);
    for (method, key, words, most) in rows {
        let before = gateway(&origin, words);
        let known = origin.requests().len();
        let mut client = ask(&before, method, "/begun", key, 1000);
        assert_eq!(client.head().status, 200);
        assert_eq!(kept(&before), 0.0, "an answer has begun");
        release.send(()).unwrap();
        assert_eq!(client.read(2), b"ok");

        let mut client = ask(&before, method, "/held", key, 1000);
        eventually("it is here", || origin.requests().len() == known + 2);
        assert_eq!(kept(&before), most, "{method} {key} {words}");
        release.send(()).unwrap();
        let again = most > 0.0;
        assert_eq!(client.response().status, if again { 200 } else { 503 });
        if !again {
            assert_eq!(ask(&before, method, "/held", key, 0).response().status, 200, "the next round begins");
        }
    }
}

#[test]
fn an_endpoint_that_answers_before_it_has_taken_the_body_gets_all_of_it() {
    let count = AtomicUsize::new(0);
    let origin = Origin::on_head(move |visit| {
        match count.fetch_add(1, Ordering::Relaxed) {
            0 => {
                if visit.read_body().is_err() {
                    return Then::Close;
                }
                return visit.answer(UNAVAILABLE);
            }
            1 => {
                visit.send("HTTP/1.1 103 Early Hints\r\nlink: </a>\r\n\r\n");
                visit.send("HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\no");
                std::thread::sleep(Duration::from_millis(100));
                if visit.read_body().is_err() {
                    return Then::Close;
                }
                return visit.answer("k");
            }
            _ => {}
        }
        match visit.read_body() {
            Ok(()) => visit.answer(OK),
            Err(_) => Then::Close,
        }
    });
    let body = body(5 << 20);
    let gateway = gateway(&origin, LARGE);
    let mut client = Client::connect(gateway.address());
    client.send(put(body.len())).send(&body);
    assert_eq!(client.head().status, 103);
    let answer = client.head();
    assert_eq!((answer.status, answer.header("connection")), (200, Some("keep-alive")));
    assert_eq!(client.read(2), b"ok");
    came_whole(&origin, &body, 2);
    assert_eq!(client.get("/next").status, 200);
    eventually("all is given back", || kept(&gateway) == 0.0);
}

#[test]
fn a_client_that_leaves_in_the_middle_of_it_leaves_nothing() {
    let count = AtomicUsize::new(0);
    let origin = Origin::start(move |visit| {
        if count.fetch_add(1, Ordering::Relaxed) == 0 {
            return visit.answer(UNAVAILABLE);
        }
        visit.wait_for_close();
        Then::Close
    });
    let gateway = gateway(&origin, LARGE);
    let body = body(300 << 10);
    let mut client = gateway.client();
    client.send(put(body.len())).send(&body);
    eventually("the second attempt", || origin.requests().len() == 2);
    assert_eq!(kept(&gateway), body.len() as f64);
    client.reset();
    eventually("all is given back", || kept(&gateway) == 0.0);
    let line = gateway.log_of("/big");
    assert_eq!((&line["status"], &line["tries"]), (&499.into(), &2.into()));
}

#[test]
fn filters_see_it_anew() {
    let origin = breaking(&WAYS[..2]);
    let gateway = Gateway::start(&format!(
        "upstreams: {{ origin: {{ endpoints: [\"{}\"] }} }}\n\
         routes: [{{ name: all, path: /*, upstream: origin, filters: [decompression: {{}}], \
         retry: {{ {LARGE}, max_retries: 2 }} }}]",
        origin.address()
    ));
    let body = body(1 << 20);
    let packed = zstd::encode_all(&*body, 1).unwrap();
    assert!(packed.len() > 128 << 10);
    let head = put(packed.len()).replace("x-own: 1", "content-encoding: zstd");
    assert_eq!(gateway.ask([head.into_bytes(), packed].concat()).text(), "ok");
    came_whole(&origin, &body, 3);
}

#[test]
fn a_drain_in_the_middle_of_it_says_goodbye() {
    let (release, held): (_, Receiver<()>) = channel();
    let (held, count) = (Mutex::new(held), AtomicUsize::new(0));
    let origin = Origin::start(move |visit| {
        if count.fetch_add(1, Ordering::Relaxed) == 0 {
            return visit.answer(UNAVAILABLE);
        }
        held.lock().unwrap().recv().unwrap();
        visit.answer(OK)
    });
    let gateway = gateway(&origin, LARGE);
    let body = body(1 << 20);
    let mut client = gateway.client();
    client.send(put(body.len())).send(&body);
    eventually("the second attempt", || origin.requests().len() == 2);
    let address = gateway.address();
    let ending = std::thread::spawn(move || gateway.shutdown());
    eventually("nobody listens", || std::net::TcpStream::connect(address).is_err());
    release.send(()).unwrap();
    let answer = client.response();
    assert_eq!((answer.status, answer.header("connection")), (200, Some("close")));
    assert!(client.ends());
    ending.join().unwrap();
}

/// An HTTP/2 server that answers 503 to the first request, after its body, and then takes no body any more.
fn takes_no_body() -> SocketAddr {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    listener.set_nonblocking(true).unwrap();
    std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let listener = tokio::net::TcpListener::from_std(listener).unwrap();
            let (mut asked, mut tasks) = (0, Vec::new());
            while let Ok((socket, _)) = listener.accept().await {
                asked += 1;
                let first = asked == 1;
                tasks.push(tokio::spawn(async move {
                    let mut connection = h2::server::handshake(socket).await.unwrap();
                    let (mut count, mut held) = (0, Vec::new());
                    while let Some(Ok((request, mut respond))) = connection.accept().await {
                        count += 1;
                        if !first || count > 1 {
                            held.push((request, respond));
                            continue;
                        }
                        tokio::spawn(async move {
                            let mut body = request.into_body();
                            while let Some(Ok(data)) = body.data().await {
                                let _ = body.flow_control().release_capacity(data.len());
                            }
                            let answer = http::Response::builder().status(503).body(()).unwrap();
                            let _ = respond.send_response(answer, true);
                        });
                    }
                }));
            }
        });
    });
    address
}

#[test]
fn an_endpoint_that_takes_nothing_holds_no_exchange_for_ever() {
    let address = takes_no_body();
    let gateway = Gateway::start(&format!(
        "upstreams: {{ origin: {{ endpoints: [\"{address}\"], protocol: http2 }} }}\n\
         routes: [{{ name: all, path: /*, upstream: origin, retry: {{ max_body: 2MiB, backoff: {{ fixed: 1ms }} }},\
           timeouts: {{ write: 1s, request: 2s, total: 3s, read: 2s, stream_idle: 2s }} }}]"
    ));
    let mut client = gateway.client();
    let body = vec![b'x'; 100 << 10];
    client
        .send(format!("PUT /big HTTP/1.1\r\nhost: a\r\ncontent-length: {}\r\n\r\n", body.len()))
        .send(&body);
    eventually("its body is kept", || gateway.metric("portcullis_retry_memory_bytes") > 0.0);
    client.reset();
    let active = || gateway.admin_get("/upstreams").json()[0]["endpoints"][0]["active"].clone();
    eventually("the exchange ends", || active() == 0);
    eventually("its memory is given back", || gateway.metric("portcullis_retry_memory_bytes") == 0.0);
}

#[test]
fn clocks_run_while_an_endpoint_does_not_take_a_body_that_is_here() {
    for (timeouts, code) in [("request: 2s", "request_timeout"), ("request: 20s, per_try: 2s", "try_timeout")]
    {
        let asked = AtomicUsize::new(0);
        let origin = Origin::on_head(move |visit| {
            if asked.fetch_add(1, Ordering::SeqCst) == 0 {
                let _ = visit.read_body();
                return visit.answer(UNAVAILABLE);
            }
            // It reads nothing.
            std::thread::sleep(Duration::from_secs(15));
            Then::Reset
        });
        let gateway = Gateway::start(&format!(
            "upstreams: {{ origin: {{ endpoints: [\"{}\"] }} }}\n\
             routes: [{{ name: all, path: /*, upstream: origin, limits: {{ request_body: 64MiB }},\
               retry: {{ backoff: {{ fixed: 1ms }}, max_body: 32MiB }}, timeouts: {{ write: 60s, {timeouts} }} }}]",
            origin.address()
        ));
        let body = vec![b'x'; 24 << 20];
        let mut client = gateway.client();
        client
            .send(format!("PUT /big HTTP/1.1\r\nhost: a\r\ncontent-length: {}\r\n\r\n", body.len()))
            .send(&body);
        let begun = std::time::Instant::now();
        assert_eq!(client.response_to("PUT").problem(), (504, code.to_owned()));
        assert!(begun.elapsed() < Duration::from_secs(12), "{:?}", begun.elapsed());
    }
}
