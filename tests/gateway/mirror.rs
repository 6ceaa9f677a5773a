//! Copies of requests for another upstream: that they are whole, and that nobody waits for them.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use crate::harness::{
    Client, FullBacklog, Gateway, Http2, Nobody, Origin, Request, Then, eventually, eventually_some, to,
};

const GET: &str = "GET /a?b=1 HTTP/1.1\r\nhost: shop.test\r\nx-own: 1\r\n\r\n";
const OK: &str = "HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok";
const MIB: usize = 1 << 20;

fn words(origin: SocketAddr, copies: &str, mirror: &str, more: &str) -> String {
    format!(
        "upstreams:\n  origin: {{ endpoints: [\"{origin}\"] }}\n  next: {{ endpoints: [{copies}] }}\n\
         routes: [{{ name: all, path: /*, upstream: origin, mirror: {{ upstream: next{mirror} }}{more} }}]\n"
    )
}

fn at(address: SocketAddr) -> String {
    format!("\"{address}\"")
}

/// A gateway before the first that copies to the second.
fn gateway(origin: &Origin, next: &Origin, mirror: &str, more: &str) -> Gateway {
    Gateway::start(&words(origin.address(), &at(next.address()), mirror, more))
}

fn mirrored(gateway: &Gateway, result: &str) -> f64 {
    gateway.metric(&format!("portcullis_mirrored_total{{route=\"all\",result=\"{result}\"}}"))
}

fn becomes(gateway: &Gateway, result: &str, count: f64) {
    let text = || gateway.admin_get("/metrics").text();
    let told =
        || text().lines().filter(|line| line.contains("mirrored")).map(str::to_owned).collect::<Vec<_>>();
    eventually(&format!("{count} {result}, not {:?}", told()), || mirrored(gateway, result) == count);
}

fn outcome(gateway: &Gateway, upstream: &str, endpoint: SocketAddr, outcome: &str) -> f64 {
    gateway.metric(&format!(
        "portcullis_upstream_requests_total{{upstream=\"{upstream}\",endpoint=\"{endpoint}\",outcome=\"{outcome}\"}}"
    ))
}

fn body(length: usize) -> Vec<u8> {
    (0u32..).flat_map(|word| word.wrapping_mul(2_654_435_761).to_le_bytes()).take(length).collect()
}

/// What a copy has beside what the origin got.
#[track_caller]
fn is_copy(request: &Request, copy: &Request) {
    assert_eq!((&copy.method, &copy.target), (&request.method, &request.target));
    assert_eq!(copy.header("x-mirrored"), Some("true"));
    assert_eq!(request.header("x-mirrored"), None);
    let fields = |request: &Request| {
        let names = ["host", "x-own", "x-tenant", "x-forwarded-for", "x-request-id", "content-length"];
        names.map(|name| request.header(name).map(str::to_owned))
    };
    assert_eq!(fields(copy), fields(request));
    assert!(copy.body == request.body, "the body is another");
}

#[test]
fn a_copy_is_what_went_upstream() {
    let (origin, next) = (Origin::ok(), Origin::ok());
    let more = ", filters: [rewrite: { add_prefix: /v2 }, headers: { request: { set: { x-tenant: shop } } }]";
    let gateway = gateway(&origin, &next, "", more);
    let mut client = gateway.client();
    assert_eq!(client.ask(GET).text(), "ok");
    let copy = next.request(0);
    is_copy(&origin.last(), &copy);
    becomes(&gateway, "sent", 1.0);
    assert_eq!((copy.target.as_str(), copy.header("x-tenant")), ("/v2/a?b=1", Some("shop")));
    let body = body(50_000);
    client.send("PUT /b HTTP/1.1\r\nhost: shop.test\r\ncontent-length: 50000\r\n\r\n").send(&body[..20_000]);
    eventually("a piece is on its way", || origin.heads().len() == 2);
    assert_eq!(client.send(&body[20_000..]).response().text(), "ok");
    is_copy(&origin.last(), &next.request(1));
    becomes(&gateway, "sent", 2.0);
    assert_eq!(next.request(1).content(), body);
    client.send("POST /c HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n5\r\nhello\r\n");
    assert_eq!(client.send("6\r\n world\r\n0\r\n\r\n").response().text(), "ok");
    is_copy(&origin.last(), &next.request(2));
    becomes(&gateway, "sent", 3.0);
    assert_eq!(next.request(2).content(), b"hello world");
    // A body that has nothing in it.
    client.send("POST /d HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n");
    assert_eq!(client.response().text(), "ok");
    is_copy(&origin.last(), &next.request(3));
    becomes(&gateway, "sent", 4.0);
    assert_eq!(client.ask("POST /e HTTP/1.1\r\nhost: a\r\ncontent-length: 0\r\n\r\n").text(), "ok");
    is_copy(&origin.last(), &next.request(4));
    becomes(&gateway, "sent", 5.0);
    assert_eq!(next.connections(), 1, "connections are used again");
    assert_eq!(gateway.metric("portcullis_retry_memory_bytes"), 0.0);
    assert_eq!(outcome(&gateway, "next", next.address(), "success"), 5.0);
}

#[test]
fn a_client_that_waits_to_be_let_go_on_is_copied_without_its_wish() {
    let origin = Origin::on_head(|visit| {
        visit.send("HTTP/1.1 100 Continue\r\n\r\n");
        visit.read_body().unwrap();
        visit.answer(OK)
    });
    let next = Origin::ok();
    let gateway = gateway(&origin, &next, "", "");
    let mut client = gateway.client();
    client.send("PUT / HTTP/1.1\r\nhost: a\r\nexpect: 100-continue\r\ncontent-length: 4\r\n\r\n");
    assert_eq!(client.head().status, 100);
    assert_eq!(client.send("body").response().text(), "ok");
    let copy = next.request(0);
    assert_eq!((copy.header("expect"), copy.content()), (None, &b"body"[..]));
}

#[test]
fn both_versions_of_http_are_copied_to_both() {
    let behind = Origin::ok();
    let next = Gateway::before(&[&behind]);
    let origin = Origin::ok();
    let yaml = |protocols: [&str; 2]| {
        format!(
            "upstreams:\n  origin: {{ protocol: {}, endpoints: [\"{}\"] }}\n\
             \x20 next: {{ protocol: {}, endpoints: [\"{}\"] }}\n\
             routes: [{{ name: all, path: /*, upstream: origin, mirror: {{ upstream: next, max_body: 2MiB }} }}]\n",
            protocols[0],
            if protocols[0] == "http1" { origin.address() } else { next.address() },
            protocols[1],
            next.address(),
        )
    };
    let body = body(MIB);
    for protocols in [["http1", "http1"], ["http1", "http2"], ["http2", "http1"], ["http2", "http2"]] {
        let gateway = Gateway::start(&yaml(protocols));
        // The gateway behind does not believe who says that it is a copy: the number of the requests tells.
        let through = |path: &str| behind.requests().iter().filter(|seen| seen.target == path).count();
        let tag = format!("{}{}", protocols[0], protocols[1]);
        let many = if protocols[0] == "http2" { 2 } else { 1 };
        let mut old = gateway.client();
        let mut new = Http2::connect(gateway.address());
        let head = format!(
            "GET /{tag}/old HTTP/1.1\r\nhost: a\r\nte: trailers\r\nconnection: keep-alive, te, x-hop\r\n"
        );
        assert_eq!(old.ask(format!("{head}x-hop: 1\r\n\r\n")).status, 200);
        assert_eq!(new.get(&format!("/{tag}/new")).status.as_u16(), 200);
        let target = format!("/{tag}/body");
        old.send(format!("PUT {target} HTTP/1.1\r\nhost: a\r\ncontent-length: {MIB}\r\n\r\n")).send(&body);
        assert_eq!(old.response().status, 200);
        let target = format!("/{tag}/stream");
        assert_eq!(new.send(new.request("POST", &target), &body).status.as_u16(), 200);
        becomes(&gateway, "sent", 4.0);
        for path in ["old", "new", "body", "stream"] {
            let path = format!("/{tag}/{path}");
            eventually(&format!("{path} is there {many} times"), || through(&path) == many);
        }
        for path in ["body", "stream"] {
            let path = format!("/{tag}/{path}");
            assert!(
                behind
                    .requests()
                    .iter()
                    .filter(|seen| seen.target == path)
                    .all(|seen| seen.content() == body)
            );
        }
        eventually("the memory is free", || gateway.metric("portcullis_retry_memory_bytes") == 0.0);
    }
}

#[test]
fn so_many_of_a_hundred_are_copied() {
    let (origin, next) = (Origin::ok(), Origin::ok());
    let gateway = gateway(&origin, &next, ", percent: 25%", "");
    let mut client = gateway.client();
    for _ in 0..800 {
        assert_eq!(client.ask(GET).status, 200);
    }
    let count = || ["sent", "dropped_busy"].map(|result| mirrored(&gateway, result)).iter().sum::<f64>();
    eventually("about a quarter is copied", || count() >= 130.0);
    assert!(count() <= 270.0, "{}", count());
}

#[test]
fn nobody_waits_for_a_mirror_that_is_ill() {
    let nobody = Nobody::new();
    let full = FullBacklog::new();
    let silent = Origin::start(|visit| {
        visit.wait_for_close();
        Then::Close
    });
    let resetting = Origin::start(|_| Then::Reset);
    let failing = Origin::answering(*b"HTTP/1.1 503 Unavailable\r\ncontent-length: 0\r\n\r\n");
    let garbled = Origin::answering(*b"what?\r\n\r\n");
    let cut = Origin::start(|visit| {
        visit.send("HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nhalf");
        Then::Close
    });
    let (endless, taken) = Origin::endless();
    for (name, address, result, word) in [
        ("nobody", nobody.address(), "failed", "connect_failed"),
        ("full", full.address(), "timed_out", "aborted"),
        ("silent", silent.address(), "timed_out", "try_timeout"),
        ("resetting", resetting.address(), "failed", "reset"),
        ("failing", failing.address(), "sent", "server_error"),
        ("garbled", garbled.address(), "failed", "invalid_response"),
        ("cut", cut.address(), "failed", ""),
        ("endless", endless.address(), "sent", "success"),
    ] {
        let origin = Origin::ok();
        let gateway = Gateway::start(&words(origin.address(), &at(address), ", timeout: 2s", ""));
        let mut client = gateway.client();
        let begun = Instant::now();
        for _ in 0..3 {
            assert_eq!(client.ask(GET).text(), "ok", "{name}");
            let put = "PUT / HTTP/1.1\r\nhost: a\r\ncontent-length: 4\r\n\r\nbody";
            assert_eq!(client.ask(put).text(), "ok", "{name}");
        }
        assert!(begun.elapsed() < Duration::from_millis(1900), "{name}: {:?}", begun.elapsed());
        becomes(&gateway, result, 6.0);
        assert_eq!(origin.requests().len(), 6, "{name}");
        assert_eq!(outcome(&gateway, "origin", origin.address(), "success"), 6.0, "{name}");
        if !word.is_empty() {
            assert_eq!(outcome(&gateway, "next", address, word), 6.0, "{name}");
        }
        assert_eq!(gateway.metric("portcullis_retry_memory_bytes"), 0.0, "{name}");
        let view = gateway.admin_get("/routes").json();
        assert_eq!(
            view[0]["mirror"],
            serde_json::json!({ "upstream": "next", "percent": 100.0, "active": 0 })
        );
    }
    assert!(taken.load(std::sync::atomic::Ordering::Relaxed) < 6 * 16 * MIB, "answers are read to the end");
}

#[test]
fn bodies_that_are_too_long_are_not_copied() {
    let (origin, next) = (Origin::ok(), Origin::ok());
    let gateway = gateway(&origin, &next, ", max_body: 1KiB", "");
    let mut client = gateway.client();
    for length in [1024, 1025, 300_000] {
        client.send(format!("PUT /{length} HTTP/1.1\r\nhost: a\r\ncontent-length: {length}\r\n\r\n"));
        assert_eq!(client.send(body(length)).response().text(), "ok");
        assert_eq!(origin.last().content().len(), length);
    }
    becomes(&gateway, "dropped_body", 2.0);
    becomes(&gateway, "sent", 1.0);
    assert_eq!(next.last().target, "/1024");
    assert_eq!(gateway.metric("portcullis_retry_memory_bytes"), 0.0);
}

#[test]
fn bodies_that_there_is_no_memory_for_are_not_copied() {
    let (origin, next) = (Origin::ok(), Origin::ok());
    let yaml = words(origin.address(), &at(next.address()), "", "");
    let gateway = Gateway::start(&format!("server: {{ threads: 1, retry_memory: 100B }}\n{yaml}"));
    let mut client = gateway.client();
    client.send("POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 200\r\n\r\n");
    assert_eq!(client.send([b'x'; 200]).response().text(), "ok");
    let dropped = || mirrored(&gateway, "dropped_memory") + mirrored(&gateway, "dropped_body");
    eventually("it is not copied", || dropped() == 1.0);
    assert_eq!(client.ask(GET).text(), "ok");
    becomes(&gateway, "sent", 1.0);
    assert_eq!(gateway.metric("portcullis_retry_memory_bytes"), 0.0);
}

#[test]
fn only_so_many_are_under_way_and_a_reload_knows_of_them() {
    let origin = Origin::ok();
    let next = Origin::start(|visit| {
        visit.wait_for_close();
        Then::Close
    });
    let yaml = words(origin.address(), &at(next.address()), ", max_active: 2, timeout: 60s", "");
    let gateway = Gateway::start_file(&yaml);
    let mut client = gateway.client();
    for _ in 0..5 {
        assert_eq!(client.ask(GET).text(), "ok");
    }
    becomes(&gateway, "dropped_busy", 3.0);
    gateway.rewrite(&yaml.replace("60s", "50s"));
    gateway.reload().unwrap();
    assert_eq!(client.ask(GET).text(), "ok");
    becomes(&gateway, "dropped_busy", 4.0);
    eventually("two are there", || next.requests().len() == 2);
    assert_eq!(gateway.admin_get("/routes").json()[0]["mirror"]["active"], 2);
    // They hold nothing up.
    let begun = Instant::now();
    drop(client);
    gateway.shutdown();
    assert!(begun.elapsed() < Duration::from_secs(15), "{:?}", begun.elapsed());
}

#[test]
fn limits_and_breakers_of_the_mirror_hold() {
    let origin = Origin::ok();
    let next = Origin::start(|visit| {
        visit.wait_for_close();
        Then::Close
    });
    let busy = ", timeout: 60s }, timeouts: { request: 29s";
    let yaml = words(origin.address(), &at(next.address()), busy, "");
    let limited = yaml.replace("next: { ", "next: { limits: { max_requests: 1, max_queue: 9 }, ");
    let gateway = Gateway::start(&limited);
    let mut client = gateway.client();
    for _ in 0..3 {
        assert_eq!(client.ask(GET).text(), "ok");
    }
    becomes(&gateway, "dropped_busy", 2.0);

    let failing = Origin::answering(*b"HTTP/1.1 500 Failed\r\ncontent-length: 0\r\n\r\n");
    let yaml = words(origin.address(), &at(failing.address()), "", "");
    let breaker = "next: { breaker: { consecutive_failures: 2, open_for: 1h }, ";
    let gateway = Gateway::start(&yaml.replace("next: { ", breaker));
    let mut client = gateway.client();
    for count in 1..=2 {
        assert_eq!(client.ask(GET).text(), "ok");
        becomes(&gateway, "sent", f64::from(count));
    }
    for count in 1..=3 {
        assert_eq!(client.ask(GET).text(), "ok", "the origin has a breaker of its own");
        becomes(&gateway, "dropped_unavailable", f64::from(count));
    }
    assert_eq!(failing.requests().len(), 2);
}

#[test]
fn what_the_gateway_answers_itself_has_no_copy() {
    let (origin, next) = (Origin::ok(), Origin::ok());
    let yaml = format!(
        "upstreams:\n  origin: {{ endpoints: [\"{}\"] }}\n  next: {{ endpoints: [\"{}\"] }}\n\
         consumers: [{{ name: bob, api_keys: [0123456789abcdef0123456789abcdef] }}]\n\
         routes:\n\
         - {{ name: all, path: /limited, upstream: origin, mirror: {{ upstream: next }}, filters: [rate_limit: {{ rate: 1/h }}] }}\n\
         - {{ name: known, path: /known, upstream: origin, mirror: {{ upstream: next }}, filters: [api_key: {{}}] }}\n\
         - {{ name: gone, path: /gone, upstream: origin, mirror: {{ upstream: next }}, filters: [maintenance: {{}}] }}\n",
        origin.address(),
        next.address()
    );
    let gateway = Gateway::start(&yaml);
    let mut client = gateway.client();
    let statuses = ["/limited", "/limited", "/known", "/gone"].map(|path| client.get(path).status);
    assert_eq!(statuses, [200, 429, 401, 503]);
    becomes(&gateway, "sent", 1.0);
    let text = gateway.admin_get("/metrics").text();
    assert_eq!(
        text.lines().filter(|line| line.starts_with("portcullis_mirrored_total{")).count(),
        1,
        "{text}"
    );
    assert_eq!(next.requests().len(), 1);
}

#[test]
fn a_websocket_has_no_copy() {
    let origin = Origin::on_head(|visit| {
        visit.send("HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: websocket\r\n\r\n");
        visit.wait_for_close();
        Then::Close
    });
    let next = Origin::ok();
    let gateway = gateway(&origin, &next, "", "");
    let mut client = gateway.client();
    client.send(
        "GET /chat HTTP/1.1\r\nhost: a\r\nconnection: upgrade\r\nupgrade: websocket\r\n\
         sec-websocket-version: 13\r\nsec-websocket-key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n",
    );
    assert_eq!(client.head().status, 101);
    drop(client);
    gateway.log_of("/chat");
    assert!(!gateway.admin_get("/metrics").text().contains("portcullis_mirrored_total{"));
    assert!(next.heads().is_empty());
}

#[test]
fn a_request_that_is_tried_again_is_copied_once() {
    let count = std::sync::atomic::AtomicUsize::new(0);
    let origin =
        Origin::start(move |visit| match count.fetch_add(1, std::sync::atomic::Ordering::SeqCst) % 2 {
            0 => visit.answer("HTTP/1.1 503 Unavailable\r\ncontent-length: 0\r\n\r\n"),
            _ => visit.answer(OK),
        });
    let next = Origin::ok();
    let more = ", retry: { max_retries: 1, on: [503], backoff: { fixed: 1ms } }";
    let gateway = gateway(&origin, &next, "", more);
    let mut client = gateway.client();
    assert_eq!(client.ask(GET).text(), "ok");
    let body = body(30_000);
    client.send("PUT / HTTP/1.1\r\nhost: a\r\ncontent-length: 30000\r\n\r\n");
    assert_eq!(client.send(&body).response().text(), "ok");
    assert_eq!(origin.requests().len(), 4);
    becomes(&gateway, "sent", 2.0);
    assert_eq!(next.requests().len(), 2);
    assert_eq!(next.last().content(), body);
    assert_eq!(gateway.metric("portcullis_retry_memory_bytes"), 0.0);
}

#[test]
fn a_body_that_never_comes_whole_has_no_copy() {
    let (origin, next) = (Origin::ok(), Origin::ok());
    let gateway = gateway(&origin, &next, "", "");
    let mut client = gateway.client();
    client.send("PUT / HTTP/1.1\r\nhost: a\r\ncontent-length: 100\r\n\r\nsome");
    eventually("it is on its way", || !origin.heads().is_empty());
    drop(client);
    becomes(&gateway, "dropped_unfinished", 1.0);
    eventually("the memory is free", || gateway.metric("portcullis_retry_memory_bytes") == 0.0);
    assert!(next.heads().is_empty());
}

#[test]
fn hedged_requests_variants_and_versions_are_copied_once() {
    let (origin, next) = (Origin::named("main"), Origin::ok());
    let yaml = format!(
        "upstreams:\n  origin: {{ endpoints: [\"{}\"] }}\n  next: {{ endpoints: [\"{}\"] }}\n\
         routes:\n\
         - {{ name: all, path: /hedged, upstream: origin, mirror: {{ upstream: next }}, retry: {{ hedge: {{ after: 5s }} }} }}\n\
         - name: split\n  path: /split\n  mirror: {{ upstream: next }}\n  split: {{ header: x-variant, to: [{{ upstream: origin, name: a }}] }}\n\
         apis:\n- name: shop\n  path: /shop/*\n  version_from: [path]\n  mirror: {{ upstream: next }}\n  versions: {{ \"2\": {{ upstream: origin }} }}\n",
        origin.address(),
        next.address()
    );
    let gateway = Gateway::start(&yaml);
    let mut client = gateway.client();
    for (at, path) in ["/hedged", "/split", "/shop/v2/x"].into_iter().enumerate() {
        assert_eq!(client.get(path).text(), "main");
        assert_eq!(next.request(at).target, origin.last().target);
    }
    assert_eq!(next.request(1).header("x-variant"), Some("a"));
    let count = || next.requests().len();
    assert_eq!(crate::harness::settled("all copies", Duration::from_millis(200), count), 3);
}

#[test]
fn a_client_cannot_say_that_its_request_is_a_copy() {
    let origin = Origin::ok();
    let gateway = Gateway::start(&to(&[&origin], ""));
    gateway.ask("GET / HTTP/1.1\r\nhost: a\r\nx-mirrored: true\r\nx_mirrored: true\r\n\r\n");
    assert_eq!((origin.last().header("x-mirrored"), origin.last().header("x_mirrored")), (None, None));
}

#[test]
fn a_copy_meets_a_closed_connection_and_takes_another() {
    let origin = Origin::ok();
    let next = Origin::start(|visit| {
        visit.send(OK);
        // Without a word of it.
        Then::Close
    });
    let gateway = gateway(&origin, &next, "", "");
    let mut client = Client::connect(gateway.address());
    for count in 1..=5 {
        assert_eq!(client.ask(GET).text(), "ok");
        becomes(&gateway, "sent", f64::from(count));
    }
    let copies = eventually_some("five copies", || Some(next.requests().len()).filter(|count| *count >= 5));
    assert_eq!(copies, 5);
    assert_eq!(mirrored(&gateway, "failed"), 0.0);
}

#[test]
fn a_call_is_copied_when_it_was_said() {
    let reply = |status: u8| {
        Origin::answering(format!(
            "HTTP/1.1 200 OK\r\ncontent-type: application/grpc\r\ngrpc-status: {status}\r\ncontent-length: 0\r\n\r\n"
        ))
    };
    let (said, heard) = (reply(0), reply(14));
    let [origin, next] =
        [&said, &heard].map(|origin| Gateway::start(&to(&[origin], "retry: { max_retries: 0 }")));
    let yaml = words(origin.address(), &at(next.address()), "", "")
        .replace("{ endpoints", "{ protocol: http2, endpoints");
    let gateway = Gateway::start(&yaml);
    let mut client = Http2::connect(gateway.address());
    let call = |client: &Http2| {
        let request = client.request("POST", "/shop/Ask").header("te", "trailers");
        request.header("content-type", "application/grpc")
    };
    let request = call(&client);
    let answer = client.send(request, b"\0\0\0\0\x01a");
    assert_eq!((answer.status.as_u16(), answer.field("grpc-status")), (200, "0"));
    assert_eq!(heard.request(0).content(), b"\0\0\0\0\x01a");
    becomes(&gateway, "sent", 1.0);
    assert_eq!(outcome(&gateway, "next", next.address(), "server_error"), 1.0);
    let request = call(&client);
    let mut asked = client.begin(request, false);
    client.write(&mut asked.body, b"\0\0\0\0\x01b", false);
    eventually("the call is there", || said.heads().len() == 2);
    assert_eq!(heard.heads().len(), 1, "it is not whole");
    client.write(&mut asked.body, b"\0\0\0\0\x01c", true);
    assert_eq!(client.answer(asked.answer).unwrap().status.as_u16(), 200);
    assert_eq!(heard.request(1).content(), b"\0\0\0\0\x01b\0\0\0\0\x01c");
    becomes(&gateway, "sent", 2.0);
}

#[test]
fn a_body_that_is_kept_for_retries_too_counts_once() {
    let slow = Origin::start(|visit| {
        visit.wait_for_close();
        Then::Close
    });
    let next = Origin::ok();
    let more = ", retry: { methods: [PUT], on: [reset], max_body: 1MiB }";
    let gateway = gateway(&slow, &next, ", max_body: 1MiB", more);
    let body = body(200_000);
    let mut client = gateway.client();
    // One byte is missing: the copy waits for it.
    client.send("PUT / HTTP/1.1\r\nhost: a\r\ncontent-length: 200001\r\n\r\n").send(&body);
    let memory = || gateway.metric("portcullis_retry_memory_bytes");
    eventually("the body is kept", || memory() >= 200_000.0);
    // Pieces below 8 KiB are copied, and count twice.
    assert!(memory() < 250_000.0, "{}", memory());
    client.send("x");
    becomes(&gateway, "sent", 1.0);
    assert_eq!(next.last().content().len(), 200_001);
    assert!(memory() >= 200_001.0, "it is kept for retries still");
    drop(client);
    eventually("the memory is free", || memory() == 0.0);
}
