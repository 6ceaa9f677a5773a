//! Requests that are sent to a second endpoint too: when, when not, and that the answer is as whole as any other.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use crate::harness::tls::Authority;
use crate::harness::{Client, Gateway, Http2, Origin, Then, Visit, eventually, settled};

const GET: &str = "GET / HTTP/1.1\r\nhost: a\r\n\r\n";
const MILLIS: fn(u64) -> Duration = Duration::from_millis;

/// Endpoints that count the requests of them all, so that it does not matter who is asked first.
struct Endpoints {
    origins: [Origin; 2],
    /// Attempts that were given up.
    closed: Arc<AtomicUsize>,
}

/// Two endpoints where what becomes of a request is by its number among all, from 0.
fn endpoints(script: impl Fn(usize, &mut Visit<'_>) -> Then + Send + Sync + 'static) -> Endpoints {
    let (script, count, closed) =
        (Arc::new(script), Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let origin = |()| {
        let (script, count, closed) = (Arc::clone(&script), Arc::clone(&count), Arc::clone(&closed));
        Origin::start(move |visit| {
            let then = script(count.fetch_add(1, Ordering::SeqCst), visit);
            if then == Then::Close {
                visit.wait_for_close();
                closed.fetch_add(1, Ordering::SeqCst);
            }
            then
        })
    };
    Endpoints { origins: [(); 2].map(origin), closed }
}

impl Endpoints {
    fn heads(&self) -> usize {
        self.origins.iter().map(|origin| origin.heads().len()).sum()
    }

    fn are_given_up(&self, count: usize) {
        eventually("attempts are given up", || self.closed.load(Ordering::SeqCst) == count);
    }

    fn addresses(&self) -> Vec<SocketAddr> {
        self.origins.iter().map(Origin::address).collect()
    }

    fn gateway(&self, retry: &str, timeouts: &str, upstream: &str) -> Gateway {
        Gateway::start(&config(&self.addresses(), retry, timeouts, upstream))
    }
}

fn config(endpoints: &[SocketAddr], retry: &str, timeouts: &str, upstream: &str) -> String {
    let endpoints: Vec<_> = endpoints.iter().map(|address| format!("\"{address}\"")).collect();
    format!(
        "upstreams: {{ origin: {{ endpoints: [{}]{upstream} }} }}\n\
         routes: [{{ name: all, path: /*, upstream: origin, retry: {{ {retry} }}, timeouts: {{ {timeouts} }} }}]",
        endpoints.join(", ")
    )
}

/// The first request waits for ever, the others are answered.
fn first_is_slow(number: usize, visit: &mut Visit<'_>) -> Then {
    match number {
        0 => Then::Close,
        _ => visit.answer("HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\nfast"),
    }
}

fn hedges(gateway: &Gateway, result: &str) -> f64 {
    gateway.metric(&format!("portcullis_hedges_total{{upstream=\"origin\",result=\"{result}\"}}"))
}

/// Nothing is under way any more.
fn is_idle(gateway: &Gateway) {
    eventually("nothing is under way", || {
        let upstreams = gateway.admin_get("/upstreams").json();
        let endpoints = upstreams[0]["endpoints"].as_array().cloned().unwrap_or_default();
        endpoints.len() > 1 && endpoints.iter().all(|endpoint| endpoint["active"] == 0)
    });
}

#[test]
fn the_second_endpoint_answers_where_the_first_is_slow() {
    let endpoints = endpoints(first_is_slow);
    let gateway = endpoints.gateway("hedge: { after: 100ms }", "", "");
    let mut client = gateway.client();
    let begun = Instant::now();
    assert_eq!(client.ask(GET).text(), "fast");
    assert!(begun.elapsed() >= MILLIS(100) && begun.elapsed() < Duration::from_secs(10));
    endpoints.are_given_up(1);
    assert_eq!(client.ask("GET /again HTTP/1.1\r\nhost: a\r\n\r\n").text(), "fast");
    let line = gateway.log_of("/");
    let winner = endpoints.origins.iter().find(|origin| origin.heads().iter().any(|head| head.target == "/"));
    assert!(winner.is_some());
    assert_eq!((&line["tries"], &line["status"]), (&2.into(), &200.into()));
    assert_eq!(gateway.log_of("/again")["tries"], 1);
    assert_eq!((hedges(&gateway, "won"), hedges(&gateway, "lost")), (1.0, 0.0));
    let endpoint = line["endpoint"].as_str().unwrap();
    let outcome = |outcome: &str, address: &str| {
        gateway.metric(&format!(
            "portcullis_upstream_requests_total{{upstream=\"origin\",endpoint=\"{address}\",outcome=\"{outcome}\"}}"
        ))
    };
    let slow = endpoints.addresses().into_iter().map(|address| address.to_string()).find(|a| a != endpoint);
    assert_eq!(outcome("outrun", &slow.unwrap()), 1.0);
    assert!(outcome("success", endpoint) >= 1.0);
    is_idle(&gateway);
}

#[test]
fn without_the_word_it_waits() {
    for retry in ["", "hedge: { after: never }"] {
        let endpoints = endpoints(first_is_slow);
        let yaml = config(&endpoints.addresses(), retry, "request: 600ms", "");
        let defaults =
            if retry.is_empty() { "" } else { "defaults: { retry: { hedge: { after: 50ms } } }\n" };
        let gateway = Gateway::start(&format!("{defaults}{yaml}"));
        assert_eq!(gateway.ask(GET).problem(), (504, "request_timeout".into()));
        assert_eq!(endpoints.heads(), 1);
    }
}

#[test]
fn what_may_not_be_sent_twice_is_not() {
    let upgrade = "GET / HTTP/1.1\r\nhost: a\r\nconnection: upgrade\r\nupgrade: websocket\r\n\r\n";
    for request in [
        "POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 0\r\n\r\n",
        "PUT / HTTP/1.1\r\nhost: a\r\ncontent-length: 4\r\n\r\nbody",
        upgrade,
    ] {
        let endpoints = endpoints(first_is_slow);
        let gateway = endpoints.gateway("hedge: { after: 50ms }", "request: 600ms", "");
        assert_eq!(gateway.ask(request).status, 504, "{request}");
        assert_eq!(endpoints.heads(), 1, "{request}");
    }
    let endpoints = endpoints(first_is_slow);
    let gateway = endpoints.gateway("hedge: { after: 50ms }, methods: [POST]", "request: 600ms", "");
    assert_eq!(gateway.ask("POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 0\r\n\r\n").text(), "fast");
}

#[test]
fn defaults_hold_for_routes_without_a_word() {
    let endpoints = endpoints(first_is_slow);
    let yaml = config(&endpoints.addresses(), "", "", "");
    let gateway = Gateway::start(&format!("defaults: {{ retry: {{ hedge: {{ after: 50ms }} }} }}\n{yaml}"));
    assert_eq!(gateway.ask(GET).text(), "fast");
}

#[test]
fn a_percentile_is_learnt_and_outlives_a_reload() {
    let slow = Arc::new(AtomicUsize::new(0));
    let next = Arc::clone(&slow);
    let endpoints = endpoints(move |_, visit| match next.swap(0, Ordering::SeqCst) {
        0 => visit.answer("HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\nfast"),
        _ => Then::Close,
    });
    let yaml = config(&endpoints.addresses(), "hedge: { after: p90 }", "request: 1s", "");
    let gateway = Gateway::start_file(&yaml);
    let mut client = gateway.client();
    let slow_one = |client: &mut Client| {
        slow.store(1, Ordering::SeqCst);
        client.ask(GET).status
    };
    assert_eq!(slow_one(&mut client), 504, "nothing is known");
    let mut client = gateway.client();
    for _ in 0..30 {
        assert_eq!(client.ask(GET).status, 200);
    }
    gateway.rewrite(&yaml.replace("1s", "2s"));
    gateway.reload().unwrap();
    assert_eq!(slow_one(&mut client), 200);
    assert!(hedges(&gateway, "won") >= 1.0);
}

#[test]
fn a_hedge_needs_room_in_the_budget_and_somebody_to_ask() {
    let none = ", retry_budget: { ratio: 0%, min_per_second: 0 }";
    let full = ", limits: { max_requests: 1, max_queue: 0 }";
    for (upstream, many, result) in [(none, 2, "over_budget"), ("", 1, "nobody"), (full, 2, "nobody")] {
        let both = endpoints(|number, visit| match number {
            0 | 1 if !visit.request.target.is_empty() => Then::Close,
            _ => visit.answer("HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok"),
        });
        let addresses = &both.addresses()[..many];
        let gateway =
            Gateway::start(&config(addresses, "hedge: { after: 100ms }", "request: 800ms", upstream));
        let mut clients = [gateway.client(), gateway.client()];
        let used = if result == "nobody" && many == 2 { 2 } else { 1 };
        for client in &mut clients[..used] {
            client.send(GET);
        }
        for client in &mut clients[..used] {
            assert_eq!(client.response().status, 504, "{result}");
        }
        assert!(hedges(&gateway, result) >= 1.0, "{result}");
        assert_eq!(both.heads(), used, "{result}");
    }
}

#[test]
fn an_endpoint_whose_circuit_is_open_is_nobody() {
    let slow = Arc::new(AtomicUsize::new(0));
    let after = Arc::clone(&slow);
    let waits = Origin::start(move |visit| match after.load(Ordering::SeqCst) {
        0 => visit.answer("HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok"),
        _ => {
            visit.wait_for_close();
            Then::Close
        }
    });
    let fails = Origin::answering(*b"HTTP/1.1 500 Error\r\ncontent-length: 0\r\n\r\n");
    let breaker = ", breaker: { consecutive_failures: 1, open_for: 1h }";
    let addresses = [waits.address(), fails.address()];
    let gateway = Gateway::start(&config(&addresses, "hedge: { after: 100ms }", "request: 800ms", breaker));
    for _ in 0..2 {
        gateway.ask(GET);
    }
    slow.store(1, Ordering::SeqCst);
    assert_eq!(gateway.ask(GET).status, 504);
    assert_eq!((hedges(&gateway, "nobody"), fails.heads().len()), (1.0, 1));
}

#[test]
fn what_fails_early_is_tried_again_as_ever() {
    let endpoints = endpoints(|number, visit| match number {
        0 => visit.answer("HTTP/1.1 503 Unavailable\r\ncontent-length: 0\r\n\r\n"),
        1 => Then::Reset,
        _ => visit.answer("HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok"),
    });
    let gateway = endpoints.gateway("hedge: { after: 10s }, max_retries: 2", "request: 15s", "");
    assert_eq!(gateway.ask(GET).text(), "ok");
    assert_eq!(gateway.log_of("/")["tries"], 3);
    for result in ["won", "lost", "nobody", "over_budget"] {
        assert_eq!(hedges(&gateway, result), 0.0, "{result}");
    }
    is_idle(&gateway);
}

#[test]
fn what_fails_loses_while_the_other_is_under_way() {
    for second in
        ["HTTP/1.1 503 Unavailable\r\ncontent-length: 0\r\n\r\n", "reset", "HTTP/9.9 nonsense\r\n\r\n"]
    {
        let endpoints = endpoints(move |number, visit| match number {
            0 => {
                std::thread::sleep(MILLIS(600));
                visit.answer("HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\nslow")
            }
            _ if second == "reset" => Then::Reset,
            _ => visit.answer(second),
        });
        let gateway = endpoints.gateway("hedge: { after: 50ms }", "", "");
        assert_eq!(gateway.ask(GET).text(), "slow", "{second}");
        assert_eq!((hedges(&gateway, "lost"), endpoints.heads()), (1.0, 2), "{second}");
        assert_eq!(gateway.log_of("/")["tries"], 2, "{second}");
        is_idle(&gateway);
    }
}

#[test]
fn where_both_fail_it_ends_as_ever() {
    fn ends(script: fn(usize, &mut Visit<'_>) -> Then, retry: &str, timeouts: &str) -> (u16, String, usize) {
        let endpoints = endpoints(script);
        let retry = format!("hedge: {{ after: 100ms }}, backoff: {{ fixed: 1ms }}, {retry}");
        let gateway = endpoints.gateway(&retry, timeouts, "");
        let answer = gateway.ask(GET);
        let (status, code) = match answer.status {
            200 => (200, String::new()),
            _ => answer.problem(),
        };
        is_idle(&gateway);
        (status, code, endpoints.heads())
    }
    let resets = |number: usize, visit: &mut Visit<'_>| match number {
        0 => {
            std::thread::sleep(MILLIS(500));
            Then::Reset
        }
        1 => Then::Reset,
        _ => visit.answer("HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n"),
    };
    assert_eq!(ends(resets, "max_retries: 1", ""), (200, String::new(), 3));
    assert_eq!(ends(resets, "max_retries: 0", ""), (502, "upstream_reset".into(), 2));
    let silent = |_: usize, _: &mut Visit<'_>| Then::Close;
    for (timeouts, code) in [
        ("read: 500ms", "upstream_read_timeout"),
        ("per_try: 500ms", "try_timeout"),
        ("request: 500ms", "request_timeout"),
        ("total: 500ms", "total_timeout"),
    ] {
        assert_eq!(ends(silent, "", timeouts), (504, code.into(), 2), "{timeouts}");
    }
    let at_last = |number: usize, visit: &mut Visit<'_>| match number {
        0 | 1 => Then::Close,
        _ => visit.answer("HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n"),
    };
    assert_eq!(ends(at_last, "on: [timeout]", "per_try: 400ms"), (200, String::new(), 3));
}

#[test]
fn answers_are_whole_whoever_gave_them() {
    let big = "x".repeat(5 << 20);
    let rows: Vec<(&str, String, u16, String)> = vec![
        ("GET", "200 OK\r\ncontent-length: 5\r\n\r\nhello".into(), 200, "hello".into()),
        (
            "GET",
            "200 OK\r\ntransfer-encoding: chunked\r\n\r\n5\r\nhello\r\n6\r\n world\r\n0\r\n\r\n".into(),
            200,
            "hello world".into(),
        ),
        ("GET", format!("200 OK\r\ncontent-length: {}\r\n\r\n{big}", big.len()), 200, big.clone()),
        ("HEAD", "200 OK\r\ncontent-length: 5\r\n\r\n".into(), 200, String::new()),
        ("GET", "204 No Content\r\n\r\n".into(), 204, String::new()),
        ("GET", "304 Not Modified\r\netag: \"a\"\r\n\r\n".into(), 304, String::new()),
        ("GET", "404 Not Found\r\ncontent-length: 2\r\n\r\nno".into(), 404, "no".into()),
        ("GET", "200 OK\r\ncontent-length: 0\r\n\r\n".into(), 200, String::new()),
    ];
    for (method, answer, status, body) in rows {
        for slow in [false, true] {
            let bytes = format!("HTTP/1.1 {answer}");
            let endpoints = endpoints(move |number, visit| match number {
                0 if slow => Then::Close,
                _ => visit.answer(&bytes),
            });
            let after = if slow { "50ms" } else { "10s" };
            let gateway = endpoints.gateway(&format!("hedge: {{ after: {after} }}"), "", "");
            let what = format!("{method} {} {slow}", answer.lines().next().unwrap());
            let mut client = gateway.client();
            for _ in 0..2 {
                client.send(format!("{method} / HTTP/1.1\r\nhost: a\r\nconnection: keep-alive\r\n\r\n"));
                let got = client.response_to(method);
                assert_eq!((got.status, got.text() == body), (status, true), "{what}");
            }
            let mut client = Http2::connect(gateway.address());
            for _ in 0..2 {
                let got = client.ask(client.request(method, "/"));
                assert_eq!((got.status.as_u16(), got.body == body.as_bytes()), (status, true), "{what}");
            }
            // What came whole leaves its connection to the next.
            let made: usize = endpoints.origins.iter().map(Origin::connections).sum();
            assert!(made <= 3, "{what}: {made} connections");
            let last = endpoints.origins.iter().find_map(|origin| origin.requests().pop()).unwrap();
            assert!(last.header("connection").is_none() && last.header("x-request-id").is_some());
            is_idle(&gateway);
        }
    }
}

#[test]
fn an_answer_that_ends_with_its_connection_is_whole_or_broken_off() {
    let endpoints = endpoints(|number, visit| {
        match number {
            0 => visit.send("HTTP/1.1 200 OK\r\n\r\nuntil the end"),
            _ => visit.send("HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\nnot all"),
        };
        Then::Reset
    });
    let gateway = endpoints.gateway("hedge: { after: 10s }", "", "");
    let _ = gateway.ask("GET /a HTTP/1.0\r\nhost: a\r\n\r\n").text();
    assert!(gateway.client().send(GET).try_response("GET").is_err());
    assert_eq!(gateway.log_of("/")["reason"], "upstream_reset");
}

#[test]
fn a_client_that_takes_nothing_holds_the_endpoint_back() {
    let (endless, sent) = Origin::endless();
    let other = Origin::ok();
    let addresses = [endless.address(), other.address()];
    let gateway = Gateway::start(&config(&addresses, "hedge: { after: 10s }", "", ""));
    let mut client = Client::connect_small(gateway.address());
    client.send(GET);
    assert_eq!(client.head().status, 200);
    let most = settled("it is held back", MILLIS(500), || sent.load(Ordering::Relaxed));
    assert!(most < 64 << 20, "{most}");
    drop(client);
    is_idle(&gateway);
}

#[test]
fn events_come_as_they_come() {
    let endpoints = endpoints(|number, visit| match number {
        0 => Then::Close,
        _ => {
            visit.send("HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n\r\ndata: 1\n\n");
            std::thread::sleep(MILLIS(900));
            visit.send("data: 2\n\n");
            Then::Reset
        }
    });
    let gateway = endpoints.gateway("hedge: { after: 50ms }", "read: 500ms", "");
    let mut client = gateway.client();
    client.send(GET);
    assert_eq!(client.head().status, 200);
    let begun = Instant::now();
    assert_eq!(client.stream.chunk().unwrap(), b"data: 1\n\n");
    assert!(begun.elapsed() < MILLIS(800));
    assert_eq!(client.stream.chunk().unwrap(), b"data: 2\n\n");
}

#[test]
fn an_interim_answer_is_passed_on_and_ends_nothing() {
    let endpoints = endpoints(|number, visit| {
        visit.send("HTTP/1.1 103 Early Hints\r\nlink: </a>\r\n\r\n");
        first_is_slow(number, visit)
    });
    let gateway = endpoints.gateway("hedge: { after: 100ms }", "", "");
    let mut client = gateway.client();
    client.send(GET);
    let statuses: Vec<u16> = (0..3).map(|_| client.response().status).collect();
    assert_eq!(statuses, [103, 103, 200]);
    assert_eq!(client.ask(GET).status, 103);
    assert_eq!(client.response().text(), "fast");
}

#[test]
fn a_client_that_leaves_ends_both_attempts() {
    for http2 in [false, true] {
        let endpoints = endpoints(|_, _| Then::Close);
        let gateway = endpoints.gateway("hedge: { after: 50ms }", "", "");
        if http2 {
            let mut client = Http2::connect(gateway.address());
            let request = client.request("GET", "/");
            let asked = client.begin(request, true);
            eventually("both are asked", || endpoints.heads() == 2);
            drop(asked);
            endpoints.are_given_up(2);
        } else {
            let mut client = gateway.client();
            client.send(GET);
            eventually("both are asked", || endpoints.heads() == 2);
            client.reset();
            endpoints.are_given_up(2);
        }
        is_idle(&gateway);
        let line = gateway.log_of("/");
        assert_eq!((&line["status"], &line["tries"]), (&499.into(), &2.into()));
        assert_eq!(hedges(&gateway, "lost"), 1.0);
    }
}

#[test]
fn it_is_the_same_over_http2_and_tls() {
    let pki = Authority::new();
    let files = pki.issue("a", &["a.test"]);
    let tls = format!(", tls: {{ certificates: [{}] }}", files.words());
    let to_tls = format!("tls: {{ sni: a.test, ca: {} }}", pki.ca().display());
    for (listener, upstream) in [
        ("", ", protocol: http2".to_owned()),
        (&*tls, format!(", {to_tls}")),
        (&*tls, format!(", protocol: http2, {to_tls}")),
        (&*tls, format!(", protocol: auto, {to_tls}")),
    ] {
        let endpoints = endpoints(first_is_slow);
        let inner = endpoints.origins.each_ref().map(|origin| {
            Gateway::start(&format!(
                "listeners: [{{ name: web, address: \"127.0.0.1:0\"{listener} }}]\n{}",
                crate::harness::to(&[origin], "")
            ))
        });
        let addresses = inner.each_ref().map(Gateway::address);
        let gateway = Gateway::start(&config(&addresses, "hedge: { after: 1s }", "", &upstream));
        assert_eq!(gateway.get("/one").text(), "fast", "{upstream}");
        endpoints.are_given_up(1);
        let mut client = Http2::connect(gateway.address());
        for _ in 0..3 {
            assert_eq!(client.get("/two").body, b"fast", "{upstream}");
        }
        assert!(hedges(&gateway, "won") >= 1.0, "{upstream}");
        let http2 = upstream.contains("protocol");
        for inner in &inner {
            for line in inner.log() {
                assert_eq!(line["protocol"] == "HTTP/2.0", http2, "{upstream}");
            }
        }
        is_idle(&gateway);
    }
}

/// An endpoint that speaks HTTP/2: the first of all its requests waits, and the others get trailers. Counts streams that were
/// reset, and with which code.
fn with_trailers(count: Arc<AtomicUsize>, reset: Arc<AtomicUsize>) -> SocketAddr {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    listener.set_nonblocking(true).unwrap();
    let serve = async move |socket, count: Arc<AtomicUsize>, reset: Arc<AtomicUsize>| {
        let mut connection = h2::server::handshake(socket).await.unwrap();
        while let Some(Ok((_, mut respond))) = connection.accept().await {
            if count.fetch_add(1, Ordering::SeqCst) == 0 {
                let reset = Arc::clone(&reset);
                tokio::spawn(async move {
                    let reason = std::future::poll_fn(|cx| respond.poll_reset(cx)).await;
                    if reason.ok() == Some(h2::Reason::CANCEL) {
                        reset.fetch_add(1, Ordering::SeqCst);
                    }
                });
                continue;
            }
            let mut body = respond.send_response(http::Response::new(()), false).unwrap();
            body.send_data("first".into(), false).unwrap();
            let mut trailers = http::HeaderMap::new();
            trailers.insert("x-after", http::HeaderValue::from_static("told"));
            body.send_trailers(trailers).unwrap();
        }
    };
    std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let local = tokio::task::LocalSet::new();
        local.block_on(&runtime, async {
            let listener = tokio::net::TcpListener::from_std(listener).unwrap();
            while let Ok((socket, _)) = listener.accept().await {
                tokio::task::spawn_local(serve(socket, Arc::clone(&count), Arc::clone(&reset)));
            }
        });
    });
    address
}

#[test]
fn trailers_come_over_http2_and_the_loser_is_reset() {
    let (count, reset) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let addresses = [(); 2].map(|()| with_trailers(Arc::clone(&count), Arc::clone(&reset)));
    let gateway = Gateway::start(&config(&addresses, "hedge: { after: 100ms }", "", ", protocol: http2"));
    let mut client = Http2::connect(gateway.address());
    for _ in 0..4 {
        let answer = client.get("/");
        assert_eq!(answer.body, b"first");
        assert_eq!(answer.trailers.unwrap()["x-after"], "told");
    }
    assert_eq!(gateway.get("/").text(), "first");
    eventually("the stream of the loser is reset", || reset.load(Ordering::SeqCst) == 1);
    assert_eq!(count.load(Ordering::SeqCst), 6);
    is_idle(&gateway);
}

#[test]
fn filters_see_it_all() {
    let endpoints = endpoints(first_is_slow);
    let yaml = config(&endpoints.addresses(), "hedge: { after: 50ms }", "", "").replace(
        "timeouts: {  }",
        "filters: [{ headers: { request: { set: { x-in: a } }, response: { set: { x-out: b } } } }]",
    );
    let gateway = Gateway::start(&yaml);
    let answer =
        gateway.ask("GET /a?b=c HTTP/1.1\r\nhost: a\r\nconnection: keep-alive, te\r\nte: trailers\r\n\r\n");
    assert_eq!((answer.text(), answer.header("x-out")), ("fast".into(), Some("b")));
    let heads: Vec<_> = endpoints.origins.iter().flat_map(Origin::heads).collect();
    let ids: Vec<_> = heads.iter().map(|head| head.header("x-request-id")).collect();
    assert!(ids.len() == 2 && ids[0].is_some() && ids[0] == ids[1]);
    for head in &heads {
        assert_eq!((head.target.as_str(), head.header("x-in")), ("/a?b=c", Some("a")));
        assert!(head.header("te").is_none() && head.header("connection").is_none());
        assert_eq!(head.header("x-forwarded-for"), Some("127.0.0.1"));
    }
}

#[test]
fn a_hedge_takes_nobodys_turn() {
    let slow = Origin::start(|visit| {
        visit.wait_for_close();
        Then::Close
    });
    let fast = Origin::ok();
    let gateway =
        Gateway::start(&config(&[slow.address(), fast.address()], "hedge: { after: 50ms }", "", ""));
    let mut client = gateway.client();
    for _ in 0..10 {
        assert_eq!(client.ask(GET).text(), "ok");
    }
    assert_eq!((slow.heads().len(), fast.heads().len()), (5, 10));
}

#[test]
fn a_hedge_that_nobody_has_room_for_is_not_paid_for() {
    let held = Arc::new(AtomicBool::new(true));
    let make = || {
        let held = Arc::clone(&held);
        Origin::start(move |visit| {
            if visit.request.target == "/fail" {
                return Then::Reset;
            }
            while held.load(Ordering::SeqCst) {
                thread::sleep(Duration::from_millis(10));
            }
            visit.answer("HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n")
        })
    };
    let origins = [make(), make()];
    let gateway = Gateway::start(&format!(
        "upstreams: {{ origin: {{ endpoints: [\"{}\", \"{}\"], retry_budget: {{ ratio: 0%, min_per_second: 1 }}, limits: {{ max_requests: 5, max_queue: 0 }} }} }}\n\
         routes: [{{ name: all, path: /*, upstream: origin, retry: {{ hedge: {{ after: 50ms }}, max_retries: 1, backoff: {{ fixed: 1ms }} }} }}]",
        origins[0].address(),
        origins[1].address()
    ));
    let mut clients: Vec<_> = (0..10).map(|_| gateway.client()).collect();
    for client in &mut clients {
        client.send_get("/");
    }
    let nobody = "portcullis_hedges_total{upstream=\"origin\",result=\"nobody\"}";
    eventually("all wish for a second endpoint", || gateway.metric(nobody) == 10.0);
    held.store(false, Ordering::SeqCst);
    for client in &mut clients {
        assert_eq!(client.response().status, 200);
    }
    gateway.get("/fail");
    gateway.log_of("/fail");
    let text = gateway.admin_get("/metrics").text();
    assert!(
        text.contains("portcullis_retries_total{upstream=\"origin\",result=\"failure\"}"),
        "it was tried again"
    );
    assert!(!text.contains("portcullis_retries_total{upstream=\"origin\",result=\"over_budget\"}"), "{text}");
}

#[test]
fn an_interim_answer_that_is_none_loses_alone() {
    let asked = Arc::new(AtomicUsize::new(0));
    let make = || {
        let asked = Arc::clone(&asked);
        Origin::start(move |visit| match asked.fetch_add(1, Ordering::SeqCst) {
            0 => {
                thread::sleep(Duration::from_millis(800));
                visit.answer("HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n")
            }
            _ => {
                visit.send("HTTP/1.1 103 Early Hints\r\ntransfer-encoding: chunked\r\ntransfer-encoding: gzip\r\n\r\n");
                Then::Close
            }
        })
    };
    let origins = [make(), make()];
    let gateway = Gateway::start(&format!(
        "upstreams: {{ origin: {{ endpoints: [\"{}\", \"{}\"] }} }}\n\
         routes: [{{ name: all, path: /*, upstream: origin, retry: {{ hedge: {{ after: 50ms }} }} }}]",
        origins[0].address(),
        origins[1].address()
    ));
    assert_eq!(gateway.get("/").status, 200);
}

/// The first endpoint, which does so; the second answers at once.
fn beside(first: impl Fn(&mut Visit<'_>) -> Then + Send + Sync + 'static) -> [Origin; 2] {
    [Origin::start(first), Origin::ok()]
}

fn hangs(visit: &mut Visit<'_>) -> Then {
    visit.wait_for_close();
    Then::Close
}

fn over(origins: &[Origin; 2], timeouts: &str, upstream: &str) -> Gateway {
    let addresses = origins.each_ref().map(Origin::address);
    Gateway::start(&config(&addresses, "hedge: { after: 50ms }", timeouts, upstream))
}

fn first_endpoint(gateway: &Gateway) -> serde_json::Value {
    gateway.admin_get("/upstreams").json()[0]["endpoints"][0].clone()
}

fn outcomes(gateway: &Gateway, origin: &Origin, outcome: &str) -> f64 {
    gateway.metric(&format!(
        "portcullis_upstream_requests_total{{upstream=\"origin\",endpoint=\"{}\",outcome=\"{outcome}\"}}",
        origin.address()
    ))
}

#[test]
fn an_endpoint_that_hangs_is_ejected_though_others_answer_for_it() {
    for timeouts in ["read: 500ms", "per_try: 500ms"] {
        let origins = beside(hangs);
        let passive = ", health: { passive: { consecutive_errors: 3, eject_for: 1h } }";
        let gateway = over(&origins, timeouts, passive);
        let mut client = gateway.client();
        eventually("it is ejected", || {
            assert_eq!(client.ask(GET).status, 200);
            first_endpoint(&gateway)["healthy"] == false
        });
        assert!(outcomes(&gateway, &origins[0], "outrun") >= 3.0);
        let word = if timeouts.starts_with("read") { "read_timeout" } else { "try_timeout" };
        assert!(outcomes(&gateway, &origins[0], word) >= 3.0);
        is_idle(&gateway);
    }
}

#[test]
fn an_endpoint_that_is_only_slower_is_not_ejected() {
    let origins = beside(|visit| {
        thread::sleep(MILLIS(200));
        visit.answer("HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n")
    });
    let passive = ", health: { passive: { consecutive_errors: 1, error_rate: 1%, min_requests: 1 } }";
    let gateway = over(&origins, "", passive);
    let mut client = gateway.client();
    for _ in 0..20 {
        assert_eq!(client.ask(GET).status, 200);
    }
    eventually("it was waited for", || outcomes(&gateway, &origins[0], "success") >= 1.0);
    is_idle(&gateway);
    let told = first_endpoint(&gateway);
    assert_eq!((&told["healthy"], &told["ejected_for_seconds"]), (&true.into(), &serde_json::Value::Null));
}

#[test]
fn who_is_outrun_is_slow_for_a_breaker() {
    for (slow, expected) in [("20ms", "open"), ("10s", "closed")] {
        let origins = beside(hangs);
        let breaker = format!(
            ", breaker: {{ consecutive_failures: 1000, min_requests: 2, slow_call_duration: {slow}, slow_call_rate: 100%, open_for: 1h }}"
        );
        let gateway = over(&origins, "", &breaker);
        let mut client = gateway.client();
        for _ in 0..6 {
            assert_eq!(client.ask(GET).status, 200);
        }
        assert_eq!(first_endpoint(&gateway)["circuit"], expected, "{slow}");
        assert_eq!(outcomes(&gateway, &origins[0], "outrun"), if expected == "open" { 2.0 } else { 3.0 });
    }
}

#[test]
fn a_half_open_breaker_finds_out_though_others_answer() {
    let hanging = Arc::new(AtomicBool::new(false));
    let (hangs_now, failing) = (Arc::clone(&hanging), AtomicBool::new(true));
    let origins = beside(move |visit| match hangs_now.load(Ordering::SeqCst) {
        true => hangs(visit),
        false if failing.swap(false, Ordering::SeqCst) => {
            visit.answer("HTTP/1.1 500 Error\r\ncontent-length: 0\r\n\r\n")
        }
        false => visit.answer("HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n"),
    });
    let breaker = ", breaker: { consecutive_failures: 1, open_for: 300ms, close_after: 1 }";
    let gateway = over(&origins, "read: 500ms", breaker);
    while first_endpoint(&gateway)["circuit"] == "closed" {
        gateway.ask(GET);
    }
    hanging.store(true, Ordering::SeqCst);
    let mut client = gateway.client();
    eventually("it opens again", || {
        assert_eq!(client.ask(GET).status, 200);
        outcomes(&gateway, &origins[0], "read_timeout") >= 1.0
    });
    hanging.store(false, Ordering::SeqCst);
    eventually("it closes", || {
        client.ask(GET);
        first_endpoint(&gateway)["circuit"] == "closed"
    });
}
