//! Who gets in, and who is sent away at the door: `maintenance`, `bot`, `fault`, lists of addresses, limits of routes.

use std::fs;
use std::time::{Duration, Instant};

use crate::ask::{Ask, Asked, ask, echo, upstream};
use crate::harness::{Gateway, Http2, Origin, Response, eventually};

/// A gateway with this filter on everything, before an echo.
fn behind(origin: &Origin, filter: &str) -> Gateway {
    Gateway::start(&format!(
        "{}server: {{ threads: 1, trusted_proxies: [127.0.0.9/32] }}\n\
         routes: [{{ name: all, path: /*, filters: [{{ {filter} }}], upstream: echo }}]",
        upstream(origin)
    ))
}

fn wait(answer: &Response) -> u64 {
    answer.header("retry-after").unwrap().parse().unwrap()
}

/// What a call of gRPC ends with.
fn call(gateway: &Gateway) -> (u16, String) {
    let mut client = Http2::connect(gateway.address());
    let request = client.request("POST", "/s/Call").header("content-type", "application/grpc");
    let answer = client.send(request.header("te", "trailers"), b"\0\0\0\0\0");
    let ended = answer.trailers.as_ref().unwrap_or(&answer.fields);
    (answer.status.as_u16(), ended["grpc-status"].to_str().unwrap().to_owned())
}

#[test]
fn maintenance_sends_away_all_but_those_on_its_list() {
    let origin = echo();
    let gateway = behind(&origin, "maintenance: { allow: [127.0.0.2, 10.0.0.0/8] }");
    let answer = gateway.get("/a");
    assert_eq!(answer.problem(), (503, "maintenance".into()));
    assert_eq!(wait(&answer), 60);
    assert_eq!(answer.json()["title"], "Closed for maintenance");
    assert_eq!(Ask::new("GET /a").from("127.0.0.2").send(gateway.address()).status, 200);
    // Only a trusted proxy's word counts on who the client is.
    let forwarded = Ask::new("GET /a").header("x-forwarded-for: 10.0.0.1");
    assert_eq!(forwarded.clone().send(gateway.address()).status, 503);
    assert_eq!(forwarded.from("127.0.0.9").send(gateway.address()).status, 200);
    // Unavailable.
    assert_eq!(call(&gateway), (200, "14".into()));
    let refused =
        "portcullis_filter_verdicts_total{route=\"all\",filter=\"maintenance\",verdict=\"maintenance\"}";
    assert_eq!(gateway.metric(refused), 3.0);
}

#[test]
fn maintenance_says_when_to_come_back_and_what_is_going_on() {
    let origin = echo();
    let gateway = behind(&origin, "maintenance: { retry_after: 5m, title: Moving, detail: 'Back <soon>.' }");
    let answer = gateway.get("/a");
    assert_eq!(wait(&answer), 300);
    assert_eq!(
        (&answer.json()["title"], &answer.json()["detail"]),
        (&"Moving".into(), &"Back <soon>.".into())
    );
    let page = Ask::new("GET /a").header("accept: text/html").send(gateway.address()).text();
    assert!(page.contains("<p>Moving</p><p>Back &lt;soon&gt;.</p>"), "{page}");

    let far = behind(&origin, "maintenance: { until: 2099-01-01T00:00:00Z }");
    let left = wait(&far.get("/a"));
    assert!(left > 1_000_000, "{left}");
    // What is over by the clock does not open by itself.
    let over = behind(&origin, "maintenance: { until: 2020-01-01, retry_after: 7s }");
    assert_eq!(wait(&over.get("/a")), 7);
    let open = behind(&origin, "maintenance: { enabled: false }");
    assert_eq!(open.get("/a").status, 200);
}

#[test]
fn maintenance_shows_a_page_that_is_read_again_when_it_changes() {
    let folder = tempfile::tempdir().unwrap();
    let page = folder.path().join("page.html");
    fs::write(&page, "<h1>one</h1>").unwrap();
    let yaml = format!(
        "filters: [{{ maintenance: {{ page: '{}' }} }}]\nroutes: [{{ name: a, path: /*, respond: {{}} }}]",
        page.display()
    );
    let gateway = Gateway::start_file(&yaml);
    let ask = || Ask::new("GET /a").header("accept: text/html").send(gateway.address());
    assert_eq!((ask().status, ask().text().as_str()), (503, "<h1>one</h1>"));
    assert_eq!(ask().header("content-type"), Some("text/html; charset=utf-8"));
    assert_eq!(gateway.get("/a").problem(), (503, "maintenance".into()));
    fs::write(&page, "<h1>two</h1>").unwrap();
    eventually("the new page", || ask().text() == "<h1>two</h1>");
}

#[test]
fn bot_judges_programs_by_their_names() {
    let origin = echo();
    let filter = r#"bot: { deny: [Scrapy, { regex: "^curl/[0-7]\\." }, a.b], allow: [our-curl, { regex: "^Friend" }] }"#;
    let gateway = behind(&origin, filter);
    for (names, welcome) in [
        (&["Mozilla/5.0"][..], true),
        (&["python SCRAPY/2"], false),
        (&["curl/7.88"], false),
        (&["curl/8.1"], true),
        (&["x curl/7.88"], true),
        (&["curl/7.88 our-curl"], true),
        (&["Friend of scrapy"], true),
        (&["friend of scrapy"], false),
        // A text is a text.
        (&["axb"], true),
        (&["xA.B"], false),
        // None of several names may be that of an unwelcome one.
        (&["Mozilla/5.0", "scrapy"], false),
        (&["", "Mozilla/5.0"], true),
        (&[""], true),
        (&[], true),
    ] {
        let names: Vec<_> = names.iter().map(|name| format!("user-agent: {name}")).collect();
        let answer = ask(gateway.address(), "GET /a", &names.join("\n"));
        assert_eq!(answer.status == 200, welcome, "{names:?}");
        if !welcome {
            assert_eq!(answer.problem(), (403, "bot_denied".into()));
        }
    }
    let strict = behind(&origin, "bot: { missing: deny }");
    assert_eq!(ask(strict.address(), "GET /a", "").status, 403);
    assert_eq!(ask(strict.address(), "GET /a", "user-agent:").status, 403);
    assert_eq!(ask(strict.address(), "GET /a", "user-agent: a").status, 200);
}

#[test]
fn fault_aborts_a_share_of_all_requests() {
    let origin = echo();
    let gateway = behind(&origin, "fault: { abort: { status: 418, percent: 30% } }");
    let mut client = gateway.client();
    let hit = (0..1000).filter(|_| client.get("/a").status == 418).count();
    // Six standard deviations.
    assert!((213..=387).contains(&hit), "{hit} of 1000");
    assert_eq!(origin.requests().len(), 1000 - hit);
    let verdicts =
        "portcullis_filter_verdicts_total{route=\"all\",filter=\"fault\",verdict=\"fault_injected\"}";
    assert_eq!(gateway.metric(verdicts), hit as f64);
    let all = behind(&origin, "fault: { abort: { percent: 100% } }");
    let answer = all.get("/a");
    assert_eq!(answer.problem(), (503, "fault_injected".into()));
    assert_eq!((&answer.json()["status"], wait(&answer)), (&503.into(), 1));
    assert_eq!(behind(&origin, "fault: { abort: { percent: 0% } }").get("/a").status, 200);
}

#[test]
fn fault_ends_calls_in_the_words_of_grpc() {
    let origin = echo();
    let by_status = behind(&origin, "fault: { abort: { status: 504, percent: 100% } }");
    assert_eq!(call(&by_status), (200, "4".into()));
    let own = behind(&origin, "fault: { abort: { status: 504, grpc_status: 8, percent: 100% } }");
    assert_eq!(call(&own), (200, "8".into()));
    let plain = own.get("/a");
    assert_eq!((plain.status, plain.header("grpc-status")), (504, None));
    let web = Ask::new("POST /a").header("content-type: application/grpc-web").body("\0\0\0\0\0");
    let translated = Gateway::start(
        "filters: [{ grpc_web: {} }, { fault: { abort: { grpc_status: 8, percent: 100% } } }]\n\
         routes: [{ name: a, path: /*, respond: {} }]",
    );
    let answer = web.send(translated.address());
    assert_eq!((answer.status, answer.header("grpc-status")), (200, Some("8")));
}

#[test]
fn fault_is_asked_for_in_a_header_where_that_is_allowed() {
    let origin = echo();
    let words = "delay: { duration: 300ms, by_header: true }, abort: { by_header: true }";
    let gateway = behind(&origin, &format!("fault: {{ {words} }}"));
    let asked = |fields: &str| {
        let started = Instant::now();
        (ask(gateway.address(), "GET /a", fields).status, started.elapsed())
    };
    assert_eq!(asked("").0, 200);
    for (value, status) in [("502", 502), ("404", 404), ("200", 200), ("600", 200), ("x", 200)] {
        assert_eq!(asked(&format!("x-portcullis-fault-abort: {value}")).0, status, "{value}");
    }
    let (status, took) = asked("x-portcullis-fault-delay: 100ms\nx-portcullis-fault-abort: 500");
    assert!(status == 500 && took >= Duration::from_millis(100), "{status} {took:?}");
    // No longer than the configuration says.
    let (status, took) = asked("x-portcullis-fault-delay: 1h");
    assert!(status == 200 && took >= Duration::from_millis(300), "{status} {took:?}");
    let deaf = behind(&origin, "fault: { delay: { duration: 20s, percent: 0% }, abort: { percent: 0% } }");
    let fields = "x-portcullis-fault-delay: 20s\nx-portcullis-fault-abort: 500";
    assert_eq!(ask(deaf.address(), "GET /a", fields).status, 200);
}

#[test]
fn as_many_wait_as_may_and_that_is_counted_over_a_reload() {
    let origin = echo();
    let yaml = format!(
        "{}routes: [{{ name: all, path: /*, filters: [{{ fault: {{ delay: {{ duration: 1h, percent: 100% }}, max_active: 1 }} }}], \
         upstream: echo }}]\n",
        upstream(&origin)
    );
    let gateway = Gateway::start_file(&yaml);
    let mut first = gateway.client();
    first.send_get("/first");
    let active = "portcullis_requests_active{route=\"all\"}";
    eventually("the first waits", || gateway.metric(active) >= 1.0);
    assert_eq!(Asked::of(&gateway.get("/second")).target, "/second");
    gateway.reload().unwrap();
    assert_eq!(Asked::of(&gateway.get("/third")).target, "/third");
    assert_eq!(origin.requests().len(), 2);
    drop(first);
    // The log says who was made to wait.
    assert_eq!(gateway.log_of("/first")["fault_delay_ms"], "3600000");
    assert_eq!(gateway.log_of("/second").get("fault_delay_ms"), None);
}

#[test]
fn a_client_that_leaves_ends_its_wait() {
    let origin = echo();
    let gateway = behind(&origin, "fault: { delay: { duration: 1h, percent: 100% }, max_active: 1 }");
    let mut client = gateway.client();
    client.send_get("/left");
    let active = "portcullis_requests_active{route=\"all\"}";
    eventually("it waits", || gateway.metric(active) >= 1.0);
    drop(client);
    let line = gateway.log_of("/left");
    assert_eq!((&line["status"], &line["reason"]), (&499.into(), &"client_closed".into()), "{line}");
    let mut stream = Http2::connect(gateway.address());
    let request = stream.request("GET", "/stream");
    let asked = stream.begin(request, true);
    eventually("it waits", || gateway.metric(active) >= 1.0);
    drop(asked);
    drop(stream);
    assert_eq!(gateway.log_of("/stream")["reason"], "client_closed");
    assert_eq!(origin.requests().len(), 0);
}

#[test]
fn a_wait_counts_against_the_routes_time() {
    let origin = echo();
    let gateway = Gateway::start(&format!(
        "{}routes: [{{ name: all, path: /*, filters: [{{ fault: {{ delay: {{ duration: 1h, percent: 100% }} }} }}], \
         timeouts: {{ request: 100ms }}, upstream: echo }}]",
        upstream(&origin)
    ));
    assert_eq!(gateway.get("/a").problem(), (504, "request_timeout".into()));
}

#[test]
fn lists_of_addresses_come_from_files_and_are_read_again() {
    let folder = tempfile::tempdir().unwrap();
    let (blocked, offices) = (folder.path().join("blocked.txt"), folder.path().join("offices.txt"));
    fs::write(&blocked, "# strangers\n127.0.0.2 # one\n\n  127.0.1.0/24\n2001:db8::/32\n").unwrap();
    fs::write(&offices, "127.0.0.0/8\n").unwrap();
    let yaml = format!(
        "routes: [{{ name: a, path: /*, filters: [{{ ip_restriction: {{ allow: [{{ file: '{}' }}, 10.0.0.1], \
         deny: [127.0.0.7, {{ file: '{}' }}] }} }}], respond: {{}} }}]",
        offices.display(),
        blocked.display()
    );
    let gateway = Gateway::start_file(&yaml);
    let gets_in = |ip: &str| Ask::new("GET /a").from(ip).send(gateway.address()).status == 200;
    let seen: Vec<_> = ["127.0.0.1", "127.0.0.2", "127.0.1.9", "127.0.0.7"].map(gets_in).into();
    assert_eq!(seen, [true, false, false, false]);
    fs::write(&blocked, "127.0.0.1\n").unwrap();
    eventually("the new list", || !gets_in("127.0.0.1") && gets_in("127.0.0.2"));
    // A wrong line refuses the reload, and the lists in force stay.
    fs::write(&blocked, "127.0.0.3\n127.0.0.300\n10.0.0.0/33\n").unwrap();
    let error = gateway.reload().unwrap_err();
    assert!(error.contains("blocked.txt:2: `127.0.0.300`") && error.contains("blocked.txt:3: "), "{error}");
    assert!(!gets_in("127.0.0.1") && gets_in("127.0.0.3"));
    // Whoever is on an empty list is nobody.
    fs::write(&blocked, "").unwrap();
    fs::write(&offices, "# closed\n").unwrap();
    eventually("nobody is let in", || !gets_in("127.0.0.2"));
}

#[test]
fn a_hundred_thousand_ranges_are_a_list_as_any() {
    let folder = tempfile::tempdir().unwrap();
    let list = folder.path().join("list.txt");
    let ranges =
        (0..100_000_u32).map(|at| format!("{}.{}.{}.0/25\n", 11 + at / 65536, at / 256 % 256, at % 256));
    fs::write(&list, ranges.chain(["127.0.0.2\n".to_owned()]).collect::<String>()).unwrap();
    let origin = echo();
    let gateway = behind(&origin, &format!("ip_restriction: {{ deny: [{{ file: '{}' }}] }}", list.display()));
    for (ip, welcome) in [("127.0.0.1", true), ("127.0.0.2", false)] {
        assert_eq!(Ask::new("GET /a").from(ip).send(gateway.address()).status == 200, welcome, "{ip}");
    }
    for (ip, welcome) in [("11.0.7.127", false), ("11.0.7.128", true), ("::ffff:12.1.2.3", false)] {
        let ask = Ask::new("GET /a").header(&format!("x-forwarded-for: {ip}")).from("127.0.0.9");
        assert_eq!(ask.send(gateway.address()).status == 200, welcome, "{ip}");
    }
}

#[test]
fn a_route_takes_smaller_heads_than_its_listener() {
    let origin = echo();
    let with = |fields: &str| format!("GET /a HTTP/1.1\r\nhost: a\r\nconnection: close\r\n{fields}\r\n\r\n");
    // The three names and values, and four bytes for each.
    let of = |bytes: usize| with(&format!("x-a: {}", "a".repeat(bytes - 35)));
    for (limit, enough, more, code) in [
        ("header_bytes: 100B", of(100), of(101), "headers_too_large"),
        ("headers: 3", with("a: 1"), with("a: 1\r\nb: 2"), "too_many_headers"),
    ] {
        let gateway = limited(&origin, limit);
        assert_eq!(gateway.ask(enough).status, 200, "{limit}");
        let answer = gateway.ask(more);
        assert_eq!(answer.problem(), (431, code.to_owned()), "{limit}");
        // Unlike a listener's, the answer is the route's: its filters see it, and it is logged as its own.
        assert_eq!(answer.header("x-route"), Some("yes"), "{limit}");
        assert_eq!(gateway.log_line(1)["route"], "all");
    }
    for (limit, enough, more, status, code) in [
        ("uri_bytes: 10B", "/12345?a=b", "/12345?a=bc", 414, "uri_too_long"),
        ("query_parameters: 2", "/a?a=1&&b", "/a?a=1&b&a", 400, "too_many_parameters"),
        ("query_parameters: 0", "/a?", "/a?a", 400, "too_many_parameters"),
    ] {
        let gateway = limited(&origin, limit);
        assert_eq!(gateway.get(enough).status, 200, "{limit}");
        assert_eq!(gateway.get(more).problem(), (status, code.to_owned()), "{limit}");
    }
    let everywhere = Gateway::start(&format!(
        "{}defaults: {{ limits: {{ uri_bytes: 4B }} }}\nroutes:\n  - {{ name: a, path: /a/*, upstream: echo }}\n  \
         - {{ name: b, path: /b/*, limits: {{ uri_bytes: 5B }}, upstream: echo }}",
        upstream(&origin)
    ));
    let statuses = ["/a/12", "/b/12", "/b/123"].map(|target| everywhere.get(target).status);
    assert_eq!(statuses, [414, 200, 414]);
}

fn limited(origin: &Origin, limit: &str) -> Gateway {
    Gateway::start(&format!(
        "{}routes: [{{ name: all, path: /*, limits: {{ {limit} }}, filters: [{{ headers: {{ response: {{ set: {{ x-route: yes }} }} }} }}], \
         upstream: echo }}]",
        upstream(origin)
    ))
}
