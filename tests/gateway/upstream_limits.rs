//! `upstreams.X.limits`: how many requests an endpoint is given at once, who waits, and who is turned away.

use std::sync::{Arc, Condvar, Mutex};
use std::time::{Duration, Instant};

use crate::harness::{Client, Frames, Gateway, Http2, Origin, SOON, Then, eventually};

/// Lets requests go when the test says so.
#[derive(Default)]
struct Gate {
    free: Mutex<usize>,
    opened: Condvar,
}

impl Gate {
    /// Lets so many go.
    fn open(&self, count: usize) {
        *self.free.lock().unwrap() += count;
        self.opened.notify_all();
    }

    fn pass(&self) {
        let waits = self.opened.wait_timeout_while(self.free.lock().unwrap(), SOON, |free| *free == 0);
        let (mut free, _) = waits.unwrap();
        *free = free.saturating_sub(1);
    }
}

/// An origin that answers with a name when it is let.
fn held(name: &'static str) -> (Origin, Arc<Gate>) {
    let gate = Arc::new(Gate::default());
    let held = Arc::clone(&gate);
    let origin = Origin::start(move |visit| {
        held.pass();
        visit.answer(format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{name}", name.len()))
    });
    (origin, gate)
}

/// An origin of HTTP/2 that answers 204 when it is let.
fn held_http2() -> (Origin, Arc<Gate>) {
    let gate = Arc::new(Gate::default());
    let held = Arc::clone(&gate);
    let origin = Origin::raw(move |_, stream| {
        let _ = stream.exactly(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".len());
        let _ = stream.send(&Frames::spell(Frames::SETTINGS, 0, 0, &[]));
        let out = Arc::new(Mutex::new(stream.socket.try_clone().unwrap()));
        while let Ok(head) = stream.exactly(9) {
            let length = u32::from_be_bytes([0, head[0], head[1], head[2]]) as usize;
            let _ = stream.exactly(length);
            let id = u32::from_be_bytes([head[5], head[6], head[7], head[8]]);
            let (held, out) = (Arc::clone(&held), Arc::clone(&out));
            let say = move |frame: Vec<u8>| {
                let _ = std::io::Write::write_all(&mut *out.lock().unwrap(), &frame);
            };
            match head[3] {
                Frames::SETTINGS if head[4] == 0 => say(Frames::spell(Frames::SETTINGS, 1, 0, &[])),
                Frames::HEADERS => drop(std::thread::spawn(move || {
                    held.pass();
                    let end = Frames::END_HEADERS | Frames::END_STREAM;
                    say(Frames::spell(Frames::HEADERS, end, id, &[0x89]));
                })),
                _ => {}
            }
        }
        Then::Close
    });
    (origin, gate)
}

/// One upstream of these origins, with these words.
fn words(origins: &[&Origin], upstream: &str) -> String {
    let endpoints: Vec<String> = origins.iter().map(|origin| format!("\"{}\"", origin.address())).collect();
    format!(
        "server: {{ threads: 4 }}\n\
         upstreams: {{ origin: {{ endpoints: [{}], {upstream} }} }}\n\
         routes:\n\
         - {{ name: low, path: /low, upstream: origin, priority: low }}\n\
         - {{ name: high, path: /high, upstream: origin, priority: high }}\n\
         - {{ name: short, path: /short, upstream: origin, timeouts: {{ request: 100ms }} }}\n\
         - {{ name: all, path: /*, upstream: origin }}\n",
        endpoints.join(", ")
    )
}

fn gateway(origins: &[&Origin], upstream: &str) -> Gateway {
    Gateway::start(&words(origins, upstream))
}

/// What is said of all endpoints together.
fn sum(gateway: &Gateway, field: &str) -> u64 {
    let upstreams = gateway.admin_get("/upstreams").json();
    let endpoints = upstreams[0]["endpoints"].as_array().unwrap();
    endpoints.iter().map(|endpoint| endpoint[field].as_u64().unwrap_or_default()).sum()
}

fn comes_to(gateway: &Gateway, field: &str, due: u64) {
    eventually(&format!("{field} comes to {due}"), || sum(gateway, field) == due);
}

/// Sends a request that waits for room.
fn waits(gateway: &Gateway, path: &str) -> Client {
    let before = sum(gateway, "waiting");
    let mut client = gateway.client();
    client.send_get(path);
    comes_to(gateway, "waiting", before + 1);
    client
}

/// Sends a request that an origin gets and keeps.
fn is_kept(gateway: &Gateway, path: &str) -> Client {
    let before = sum(gateway, "active");
    let mut client = gateway.client();
    client.send_get(path);
    comes_to(gateway, "active", before + 1);
    client
}

#[test]
fn an_endpoint_at_its_limit_is_passed_over() {
    let ((a, gate), b) = (held("a"), Origin::named("b"));
    let gateway = gateway(&[&a, &b], "limits: { max_requests: 1 }");
    let mut first = is_kept(&gateway, "/");
    eventually("it is at a", || a.requests().len() == 1);
    let mut client = gateway.client();
    for _ in 0..6 {
        assert_eq!(client.get("/").text(), "b");
    }
    gate.open(2);
    assert_eq!(first.response().text(), "a");
    eventually("a is asked again", || client.get("/").text() == "a");
}

#[test]
fn when_all_are_at_their_limits_a_request_waits_for_its_turn() {
    let ((a, gate_of_a), (b, gate_of_b)) = (held("a"), held("b"));
    let gateway = gateway(&[&a, &b], "limits: { max_requests: 1, queue_timeout: 30s }");
    let mut kept = [is_kept(&gateway, "/"), is_kept(&gateway, "/")];
    let mut queued = [waits(&gateway, "/"), waits(&gateway, "/")];
    eventually("two are at work", || a.requests().len() + b.requests().len() == 2);
    let address = a.address();
    let waiting = format!("portcullis_upstream_queue{{upstream=\"origin\",endpoint=\"{address}\"}}");
    assert_eq!(gateway.metric(&waiting), 1.0, "where the fewest wait");
    let limit = format!("portcullis_endpoint_limit{{upstream=\"origin\",endpoint=\"{address}\"}}");
    assert_eq!((gateway.metric(&limit), sum(&gateway, "limit")), (1.0, 2));
    gate_of_a.open(2);
    gate_of_b.open(2);
    for client in kept.iter_mut().chain(&mut queued) {
        assert_eq!(client.response().status, 200);
    }
    assert_eq!((a.requests().len(), b.requests().len()), (2, 2));
    comes_to(&gateway, "active", 0);
}

#[test]
fn in_a_full_queue_a_request_is_refused_at_once() {
    for most in [0, 1] {
        let (origin, gate) = held("a");
        let limits = format!("limits: {{ max_requests: 1, max_queue: {most}, queue_timeout: 30s }}");
        let gateway = gateway(&[&origin], &limits);
        let mut kept = is_kept(&gateway, "/");
        let mut queued = (most > 0).then(|| waits(&gateway, "/"));
        let refused = gateway.get("/late");
        assert_eq!(refused.problem(), (503, "upstream_queue_full".into()));
        assert_eq!(refused.header("retry-after"), Some("30"));
        assert_eq!(gateway.log_of("/late")["reason"], "upstream_queue_full");
        gate.open(2);
        assert_eq!(kept.response().status, 200);
        assert!(queued.as_mut().is_none_or(|client| client.response().status == 200));
        assert_eq!(gateway.log_of("/late")["tries"], 0);
    }
}

#[test]
fn a_request_waits_no_longer_than_it_may() {
    let (origin, _gate) = held("a");
    let gateway = gateway(&[&origin], "limits: { max_requests: 1, queue_timeout: 200ms }");
    let _kept = is_kept(&gateway, "/");
    let begun = Instant::now();
    let refused = gateway.get("/late");
    assert_eq!(refused.problem(), (503, "upstream_queue_timeout".into()));
    assert_eq!(refused.header("retry-after"), Some("1"));
    assert!(begun.elapsed() >= Duration::from_millis(200));
    assert_eq!(
        gateway.get("/short").problem(),
        (504, "request_timeout".into()),
        "nor than it has time itself"
    );
    let post = "POST /short HTTP/1.1\r\nhost: a\r\ncontent-length: 4\r\n\r\nbody";
    assert_eq!(gateway.ask(post).problem(), (504, "request_timeout".into()));
    comes_to(&gateway, "waiting", 0);
    assert_eq!(origin.requests().len(), 1);
}

#[test]
fn connections_of_http_1_are_bounded() {
    let (origin, gate) = held("a");
    let gateway = gateway(&[&origin], "limits: { max_connections: 3, queue_timeout: 30s }");
    let mut clients: Vec<Client> = (0..30).map(|_| gateway.client()).collect();
    for client in &mut clients {
        client.send_get("/");
    }
    comes_to(&gateway, "waiting", 27);
    assert_eq!((sum(&gateway, "active"), sum(&gateway, "limit")), (3, 3));
    gate.open(30);
    for client in &mut clients {
        assert_eq!(client.response().status, 200);
    }
    assert_eq!(origin.connections(), 3);
}

#[test]
fn connections_of_http_2_are_bounded() {
    let (origin, gate) = held_http2();
    let limits = "protocol: http2, limits: { max_connections: 2, queue_timeout: 30s }";
    let gateway = gateway(&[&origin], limits);
    let mut clients: Vec<Http2> = (0..3).map(|_| Http2::connect(gateway.address())).collect();
    let mut asked = Vec::new();
    for (at, client) in clients.iter_mut().enumerate() {
        for _ in 0..70 {
            let request = client.request("GET", "/");
            asked.push((at, client.begin(request, true).answer));
        }
    }
    comes_to(&gateway, "waiting", 10);
    comes_to(&gateway, "active", 200);
    assert_eq!(sum(&gateway, "limit"), 200);
    eventually("both are needed", || origin.connections() == 2);
    gate.open(210);
    for (at, answer) in asked {
        assert_eq!(clients[at].answer(answer).unwrap().status, 204);
    }
    assert_eq!(origin.connections(), 2);
}

#[test]
fn a_web_socket_counts_as_long_as_it_lives() {
    let origin = Origin::raw(|_, stream| {
        while let Ok(Some(head)) = stream.request_head() {
            if head.header("upgrade").is_none() {
                let _ = stream.send(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n");
                continue;
            }
            let _ = stream.send(
                b"HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: websocket\r\n\r\n",
            );
            crate::harness::wait_for_close(stream);
            break;
        }
        Then::Close
    });
    let gateway = gateway(&[&origin], "limits: { max_connections: 1, queue_timeout: 30s }");
    let mut socket = gateway.client();
    socket.send("GET / HTTP/1.1\r\nhost: a\r\nconnection: upgrade\r\nupgrade: websocket\r\n\r\n");
    assert_eq!(socket.head().status, 101);
    let mut queued = waits(&gateway, "/");
    drop(socket);
    assert_eq!(queued.response().status, 200);
}

/// An origin that speaks HTTP/2, or begins a WebSocket.
fn either() -> Origin {
    Origin::raw(|_, stream| {
        if stream.exactly(3).is_ok_and(|start| start == b"GET") {
            let mut head = Vec::new();
            while !head.ends_with(b"\r\n\r\n") {
                let Ok(byte) = stream.exactly(1) else { return Then::Close };
                head.extend(byte);
            }
            let _ = stream.send(
                b"HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: websocket\r\n\r\n",
            );
            crate::harness::wait_for_close(stream);
            return Then::Close;
        }
        let _ = stream.exactly(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".len() - 3);
        let _ = stream.send(&Frames::spell(Frames::SETTINGS, 0, 0, &[]));
        while let Ok(head) = stream.exactly(9) {
            let length = u32::from_be_bytes([0, head[0], head[1], head[2]]) as usize;
            let _ = stream.exactly(length);
            let id = u32::from_be_bytes([head[5], head[6], head[7], head[8]]);
            let _ = match head[3] {
                Frames::SETTINGS if head[4] == 0 => stream.send(&Frames::spell(Frames::SETTINGS, 1, 0, &[])),
                Frames::HEADERS => {
                    let end = Frames::END_HEADERS | Frames::END_STREAM;
                    stream.send(&Frames::spell(Frames::HEADERS, end, id, &[0x89]))
                }
                _ => Ok(()),
            };
        }
        Then::Close
    })
}

/// Asks for a WebSocket.
fn asks_for_one(gateway: &Gateway) -> Client {
    let mut client = gateway.client();
    client.send("GET / HTTP/1.1\r\nhost: a\r\nconnection: upgrade\r\nupgrade: websocket\r\n\r\n");
    client
}

fn opens_one(gateway: &Gateway) -> Client {
    let mut client = asks_for_one(gateway);
    assert_eq!(client.head().status, 101);
    client
}

#[test]
fn web_sockets_count_before_an_upstream_of_http_2() {
    let origin = either();
    let limits = "protocol: http2, limits: { max_connections: 2, queue_timeout: 30s }";
    let gateway = gateway(&[&origin], limits);
    let (first, second) = (opens_one(&gateway), opens_one(&gateway));
    let mut third = asks_for_one(&gateway);
    comes_to(&gateway, "active", 3);
    assert!(third.is_silent(Duration::from_millis(300)));
    assert_eq!(origin.connections(), 2);
    drop(first);
    assert_eq!(third.head().status, 101);
    assert_eq!(origin.connections(), 3);
    // The origin may hear of an end later than of the next beginning.
    eventually("the first is closed", || origin.open() == 2);
    let mut other = gateway.client();
    other.send_get("/");
    comes_to(&gateway, "active", 3);
    assert!(other.is_silent(Duration::from_millis(300)), "WebSockets have all connections");
    drop(second);
    assert_eq!(other.response().status, 204);
    assert_eq!(origin.connections(), 4);
    eventually("the second is closed", || origin.open() == 2);
    for _ in 0..5 {
        assert_eq!(gateway.get("/").status, 204, "requests share one");
    }
    assert_eq!(origin.connections(), 4);
}

#[test]
fn a_web_socket_waits_no_longer_than_it_may() {
    for (words, reason) in
        [("queue_timeout: 100ms", "upstream_queue_timeout"), ("max_queue: 0", "upstream_queue_full")]
    {
        let origin = either();
        let gateway =
            gateway(&[&origin], &format!("protocol: http2, limits: {{ max_connections: 1, {words} }}"));
        let first = opens_one(&gateway);
        let mut second = asks_for_one(&gateway);
        assert_eq!(second.response().problem(), (503, reason.into()));
        assert_eq!(gateway.get("/").problem(), (503, reason.into()));
        comes_to(&gateway, "active", 1);
        drop(first);
        comes_to(&gateway, "active", 0);
        eventually("its connection is closed", || origin.open() == 0);
        drop(opens_one(&gateway));
        assert_eq!(origin.connections(), 2);
    }
}

#[test]
fn a_web_socket_goes_where_there_is_room_for_its_connection() {
    let (one, other) = (either(), either());
    let limits = "protocol: http2, limits: { max_connections: 1, queue_timeout: 100ms }";
    let gateway = gateway(&[&one, &other], limits);
    let _open = [opens_one(&gateway), opens_one(&gateway)];
    assert_eq!((one.connections(), other.connections()), (1, 1));
    assert_eq!(asks_for_one(&gateway).response().code(), "upstream_queue_timeout");
    assert_eq!((one.connections(), other.connections()), (1, 1));
}

#[test]
fn the_important_go_first_and_the_others_make_room() {
    let (origin, gate) = held("a");
    let gateway = gateway(&[&origin], "limits: { max_requests: 1, max_queue: 3, queue_timeout: 30s }");
    let mut kept = is_kept(&gateway, "/");
    let mut queued = ["/low", "/", "/high"].map(|path| waits(&gateway, path));
    assert_eq!(gateway.get("/low").problem(), (503, "upstream_queue_full".into()));
    let mut high = gateway.client();
    high.send_get("/high");
    assert_eq!(queued[0].response().problem(), (503, "upstream_queue_full".into()), "its place is taken");
    for turn in 1..=4 {
        gate.open(1);
        eventually("the next", || origin.requests().len() == 4.min(turn + 1));
    }
    for client in [&mut kept, &mut high].into_iter().chain(&mut queued[1..]) {
        assert_eq!(client.response().status, 200);
    }
    let order: Vec<_> = origin.requests().into_iter().map(|request| request.target).collect();
    assert_eq!(order, ["/", "/high", "/high", "/"]);
}

#[test]
fn a_changed_limit_holds_with_requests_under_way() {
    let (origin, gate) = held("a");
    let gateway = Gateway::start_file(&words(&[&origin], "retry_budget: {}"));
    let change = |upstream: &str| {
        gateway.rewrite(&words(&[&origin], upstream));
        gateway.reload().unwrap();
    };
    let mut kept = vec![is_kept(&gateway, "/"), is_kept(&gateway, "/")];
    change("limits: { max_requests: 2, queue_timeout: 30s }");
    let mut queued = vec![waits(&gateway, "/"), waits(&gateway, "/")];
    eventually("what is under way since there was no limit counts", || origin.requests().len() == 2);
    change("limits: { max_requests: 4, queue_timeout: 30s }");
    let mut next = gateway.client();
    next.send_get("/");
    eventually("those who waited are let in", || origin.requests().len() == 4);
    comes_to(&gateway, "waiting", 1);
    change("limits: { max_requests: 1, queue_timeout: 30s }");
    queued.push(waits(&gateway, "/"));
    gate.open(3);
    comes_to(&gateway, "active", 1);
    assert_eq!(sum(&gateway, "waiting"), 2);
    change("retry_budget: {}");
    let mut last = gateway.client();
    last.send_get("/");
    comes_to(&gateway, "active", 4);
    assert_eq!(sum(&gateway, "waiting"), 0, "nobody waits where there is no limit");
    gate.open(4);
    kept.append(&mut queued);
    kept.extend([next, last]);
    for client in &mut kept {
        assert_eq!(client.response().status, 200);
    }
}

#[test]
fn a_client_that_leaves_gives_its_place_back() {
    let (origin, gate) = held("a");
    let gateway = gateway(&[&origin], "limits: { max_requests: 1, max_queue: 2, queue_timeout: 30s }");
    let kept = is_kept(&gateway, "/");
    let leaves = waits(&gateway, "/left");
    let mut http2 = Http2::connect(gateway.address());
    let request = http2.request("GET", "/");
    let asked = http2.begin(request, true);
    comes_to(&gateway, "waiting", 2);
    drop(leaves);
    comes_to(&gateway, "waiting", 1);
    assert_eq!(gateway.log_of("/left")["reason"], "client_closed");
    drop(asked);
    comes_to(&gateway, "waiting", 0);
    let mut stays = waits(&gateway, "/");
    drop(kept);
    eventually("the next is asked", || origin.requests().len() == 2);
    gate.open(2);
    assert_eq!(stays.response().status, 200);
    comes_to(&gateway, "active", 0);
}

#[test]
fn a_retry_waits_for_another_endpoint() {
    let (busy, gate) = held("busy");
    let failing = Origin::answering("HTTP/1.1 503 Service Unavailable\r\ncontent-length: 0\r\n\r\n");
    let gateway = gateway(&[&failing, &busy], "limits: { max_requests: 1, queue_timeout: 30s }");
    let mut first = is_kept(&gateway, "/");
    eventually("it is where it stays", || busy.requests().len() == 1);
    let failed = failing.requests().len();
    let mut second = waits(&gateway, "/");
    assert_eq!(failing.requests().len(), failed + 1, "who has room was asked first");
    gate.open(2);
    assert_eq!((first.response().text(), second.response().text()), ("busy".into(), "busy".into()));
}

/// Asks with so many clients at once until dropped.
struct Load(Arc<std::sync::atomic::AtomicBool>, Vec<std::thread::JoinHandle<()>>);

impl Load {
    fn of(clients: usize, gateway: &Gateway) -> Self {
        let stop = Arc::new(std::sync::atomic::AtomicBool::new(false));
        let address = gateway.address();
        let client = || {
            let stop = Arc::clone(&stop);
            std::thread::spawn(move || {
                let mut client = Client::connect(address);
                while !stop.load(std::sync::atomic::Ordering::Relaxed) {
                    client.get("/");
                }
            })
        };
        let clients = (0..clients).map(|_| client()).collect();
        Self(stop, clients)
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        self.0.store(true, std::sync::atomic::Ordering::Relaxed);
        self.1.drain(..).for_each(|client| drop(client.join()));
    }
}

#[test]
fn an_adaptive_limit_falls_with_an_origin_that_becomes_slow() {
    let pause = Arc::new(std::sync::atomic::AtomicU64::new(2));
    let taken = Arc::clone(&pause);
    let origin = Origin::start(move |visit| {
        std::thread::sleep(Duration::from_millis(taken.load(std::sync::atomic::Ordering::Relaxed)));
        visit.answer("HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n")
    });
    let words = "limits: { queue_timeout: 30s }, adaptive_concurrency: { min: 2, max: 16 }";
    let gateway = gateway(&[&origin], words);
    assert_eq!(sum(&gateway, "limit"), 16);
    let load = Load::of(20, &gateway);
    // The long run is what the first windows of a quarter of a second saw.
    std::thread::sleep(Duration::from_secs(3));
    pause.store(400, std::sync::atomic::Ordering::Relaxed);
    eventually("it falls", || sum(&gateway, "limit") <= 12);
    assert!(sum(&gateway, "active") <= 16 && sum(&gateway, "waiting") > 0);
    let address = origin.address();
    let limit = format!("portcullis_endpoint_limit{{upstream=\"origin\",endpoint=\"{address}\"}}");
    assert!((2.0..=16.0).contains(&gateway.metric(&limit)));
    pause.store(0, std::sync::atomic::Ordering::Relaxed);
    drop(load);
}

#[test]
fn an_adaptive_limit_falls_with_what_is_refused_and_not_below_its_bound() {
    let origin = Origin::answering("HTTP/1.1 503 Service Unavailable\r\ncontent-length: 0\r\n\r\n");
    let gateway = gateway(&[&origin], "adaptive_concurrency: { min: 7, max: 9 }");
    assert_eq!(sum(&gateway, "limit"), 9);
    let mut client = gateway.client();
    eventually("it falls", || client.get("/").status == 503 && sum(&gateway, "limit") == 7);
    let until = Instant::now() + Duration::from_millis(600);
    while Instant::now() < until {
        client.get("/");
        assert_eq!(sum(&gateway, "limit"), 7);
    }
}

/// Milliseconds since midnight.
fn time_of_day(time: &str) -> u64 {
    let (_, time) = time.split_once('T').unwrap();
    let (whole, millis) = time.strip_suffix('Z').unwrap().split_once('.').unwrap();
    let seconds = whole.split(':').fold(0, |sum, part| sum * 60 + part.parse::<u64>().unwrap());
    seconds * 1000 + millis.parse::<u64>().unwrap()
}

#[test]
fn an_endpoint_is_told_until_when_it_is_waited_for() {
    let origin = Origin::ok();
    let cases = [
        ("timeouts: { request: 20s, announce: true }", "{}", Some(20_000)),
        ("timeouts: { request: 20s, per_try: 5s }", "{ timeouts: { announce: true } }", Some(5_000)),
        ("timeouts: { total: 7s, announce: true }", "{}", Some(7_000)),
        ("timeouts: { announce: false }", "{ timeouts: { announce: true } }", None),
        ("methods: []", "{}", None),
    ];
    for (route, defaults, due) in cases {
        let gateway =
            Gateway::start(&format!("{}defaults: {defaults}", crate::harness::to(&[&origin], route)));
        let claims = "x-request-deadline: 2099-01-01T00:00:00.000Z\r\nx_request_deadline: never\r\n";
        assert_eq!(gateway.ask(format!("GET / HTTP/1.1\r\nhost: a\r\n{claims}\r\n")).status, 200);
        let asked = origin.last();
        assert_eq!(asked.header("x_request_deadline"), None);
        let told = asked.header("x-request-deadline");
        let Some(due) = due else {
            assert_eq!(told, None, "a stranger's does not pass");
            continue;
        };
        let arrived = gateway.log_of("/")["time"].as_str().unwrap().to_owned();
        let left = (time_of_day(told.unwrap()) + 86_400_000 - time_of_day(&arrived)) % 86_400_000;
        assert!((due - 100..due + 1000).contains(&left), "{route}: {left}");
    }
    let trusted = format!("{}server: {{ trusted_proxies: [127.0.0.1] }}", crate::harness::to(&[&origin], ""));
    let gateway = Gateway::start(&trusted);
    gateway.ask("GET / HTTP/1.1\r\nhost: a\r\nx-request-deadline: soon\r\n\r\n");
    assert_eq!(origin.last().header("x-request-deadline"), Some("soon"), "that of a trusted proxy does");
}

#[test]
fn who_waits_is_not_sent_to_an_endpoint_that_has_failed_meanwhile() {
    let gate = Arc::new(Gate::default());
    let held = Arc::clone(&gate);
    let failing = Origin::start(move |visit| {
        held.pass();
        visit.answer("HTTP/1.1 500 Internal Server Error\r\ncontent-length: 0\r\n\r\n")
    });
    for (words, code) in [
        ("breaker: { consecutive_failures: 1 }", "circuit_open"),
        ("breaker: { scope: upstream, consecutive_failures: 1 }", "circuit_open"),
        ("health: { passive: { consecutive_errors: 1, max_ejected: 100% } }", "no_healthy_upstream"),
    ] {
        let before = failing.requests().len();
        let limits = "limits: { max_requests: 1, queue_timeout: 30s }";
        let gateway = gateway(&[&failing], &format!("{limits}, {words}"));
        let mut first = is_kept(&gateway, "/");
        let mut second = waits(&gateway, "/");
        gate.open(1);
        assert_eq!(first.response().status, 500);
        assert_eq!(second.response().problem(), (503, code.into()), "{words}");
        assert_eq!(failing.requests().len(), before + 1, "{words}");
        comes_to(&gateway, "active", 0);
    }
}
