//! Requests that are sent again: after what, how often, how soon, and when not.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use crate::harness::{Client, Gateway, Http2, Nobody, Origin, Then, eventually};

const GET: &str = "GET / HTTP/1.1\r\nhost: a\r\n\r\n";
const POST: &str = "POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 4\r\n\r\nbody";

/// A gateway before these endpoints, with these words for retries on its one route, for its upstream, and for its timeouts.
fn gateway(endpoints: &[std::net::SocketAddr], retry: &str, upstream: &str, timeouts: &str) -> Gateway {
    let endpoints: Vec<_> = endpoints.iter().map(|address| format!("\"{address}\"")).collect();
    let endpoints = endpoints.join(", ");
    Gateway::start(&format!(
        "upstreams: {{ origin: {{ endpoints: [{endpoints}]{upstream} }} }}\n\
         routes: [{{ name: all, path: /*, upstream: origin, retry: {{ {retry} }}, timeouts: {{ {timeouts} }} }}]"
    ))
}

/// An origin whose answers are these in turn; the last one again and again.
fn answering(answers: &'static [&'static str]) -> Origin {
    let count = AtomicUsize::new(0);
    Origin::start(move |visit| {
        let at = count.fetch_add(1, Ordering::Relaxed);
        let answer = answers.get(at).or(answers.last()).unwrap();
        match *answer {
            "reset" => Then::Reset,
            "silence" => {
                visit.wait_for_close();
                Then::Close
            }
            head => visit.answer(format!("HTTP/1.1 {head}\r\ncontent-length: 2\r\n\r\nok")),
        }
    })
}

fn retries(gateway: &Gateway, result: &str) -> f64 {
    gateway.metric(&format!("portcullis_retries_total{{upstream=\"origin\",result=\"{result}\"}}"))
}

#[test]
fn a_request_goes_again_after_what_its_route_names() {
    let rows: &[(&str, &[&str], u16)] = &[
        // what the words name: what the origin does, and what the client gets when it is not named
        ("reset", &["reset", "200 OK"], 502),
        ("timeout", &["silence", "200 OK"], 504),
        ("gateway_error", &["502 Bad Gateway", "503 Unavailable", "504 Timeout", "200 OK"], 502),
        ("5xx", &["500 Error", "599 Odd", "200 OK"], 500),
        ("retriable_4xx", &["409 Conflict", "200 OK"], 409),
        ("429", &["429 Too Many", "200 OK"], 429),
        ("\"503\"", &["503 Unavailable", "200 OK"], 503),
    ];
    for (word, answers, otherwise) in rows {
        let origin = answering(answers);
        let words = format!("on: [{word}], max_retries: 5, backoff: {{ fixed: 1ms }}");
        let before = gateway(&[origin.address()], &words, "", "read: 400ms");
        assert_eq!(before.ask(GET).status, 200, "{word}");
        let sent = answers.len();
        assert_eq!(origin.heads().len(), sent, "{word}");
        assert_eq!(before.log_of("/")["tries"], sent, "{word}");
        eventually("retries are counted", || retries(&before, "success") == 1.0);

        let origin = answering(answers);
        let other = if *word == "5xx" { "429" } else { "501" };
        let words = format!("on: [{other}], max_retries: 5, backoff: {{ fixed: 1ms }}");
        let before = gateway(&[origin.address()], &words, "", "read: 400ms");
        assert_eq!(before.ask(GET).status, *otherwise, "without {word}");
        assert_eq!(origin.heads().len(), 1, "without {word}");
    }
}

#[test]
fn a_failed_connection_is_made_up_for_where_the_route_says_so() {
    for (words, status) in
        [("", 200), ("on: [connect_failure]", 200), ("on: [reset]", 502), ("max_retries: 0", 502)]
    {
        let (nobody, origin) = (Nobody::new(), Origin::ok());
        let before = gateway(&[nobody.address(), origin.address()], words, "", "");
        assert_eq!(before.ask(POST).status, status, "{words}");
    }
}

#[test]
fn without_words_the_usual_failures_are_made_up_for_once() {
    for (answers, status, sent) in [
        (&["reset", "200 OK"][..], 200, 2),
        (&["503 Unavailable", "200 OK"], 200, 2),
        (&["503 Unavailable", "503 Unavailable", "200 OK"], 503, 2),
        (&["500 Error", "200 OK"], 500, 1),
    ] {
        let origin = answering(answers);
        let before = gateway(&[origin.address()], "", "", "");
        assert_eq!((before.ask(GET).status, origin.heads().len()), (status, sent), "{answers:?}");
    }
}

#[test]
fn a_routes_words_win_over_those_for_all_each_by_itself() {
    let origin = answering(&["500 Error"]);
    let before = Gateway::start(&format!(
        "defaults: {{ retry: {{ on: [\"500\"], max_retries: 3, backoff: {{ fixed: 1ms }} }} }}\n\
         upstreams: {{ origin: {{ endpoints: [\"{}\"] }} }}\n\
         routes:\n- {{ name: all, path: /*, upstream: origin }}\n\
         - {{ name: own, path: /own, upstream: origin, retry: {{ max_retries: 1 }} }}\n\
         - {{ name: none, path: /none, upstream: origin, retry: {{ on: [] }} }}",
        origin.address()
    ));
    for (path, sent) in [("/", 4), ("/own", 2), ("/none", 1)] {
        let known = origin.heads().len();
        assert_eq!(before.get(path).status, 500);
        assert_eq!(origin.heads().len() - known, sent, "{path}");
    }
}

#[test]
fn what_may_have_been_done_is_done_again_only_where_that_is_harmless() {
    let keyed = "POST / HTTP/1.1\r\nhost: a\r\nidempotency-key: k1\r\ncontent-length: 4\r\n\r\nbody";
    for (words, request, status) in [
        ("", POST, 503),
        ("", keyed, 200),
        ("methods: [POST]", POST, 200),
        ("methods: [POST]", GET, 503),
        ("", "DELETE / HTTP/1.1\r\nhost: a\r\n\r\n", 200),
        ("", "PATCH / HTTP/1.1\r\nhost: a\r\ncontent-length: 0\r\n\r\n", 503),
    ] {
        let origin = answering(&["503 Unavailable", "200 OK"]);
        let before = gateway(&[origin.address()], words, "", "");
        assert_eq!(before.ask(request).status, status, "{words} {request:?}");
        if status == 200 && request != GET && request.contains("body") {
            assert_eq!(origin.last().content(), b"body");
        }
    }
}

#[test]
fn another_endpoint_is_asked_each_time() {
    let origins = [(); 3].map(|()| answering(&["503 Unavailable"]));
    let addresses = origins.each_ref().map(Origin::address);
    let before = gateway(&addresses, "max_retries: 2, backoff: { fixed: 1ms }", "", "");
    assert_eq!(before.ask(GET).status, 503);
    assert_eq!(origins.each_ref().map(|origin| origin.heads().len()), [1, 1, 1]);
}

#[test]
fn the_pause_before_another_attempt_is_as_the_words_say() {
    let took = |words: &str, requests: u32| {
        let origin = answering(&["503 Unavailable"]);
        let before = gateway(&[origin.address()], words, "", "");
        let started = Instant::now();
        for _ in 0..requests {
            assert_eq!(before.ask(GET).status, 503);
        }
        started.elapsed()
    };
    assert!(took("backoff: { fixed: 300ms }", 1) >= Duration::from_millis(300));
    // Full jitter: eight pauses of up to 400 ms are less than 400 ms together once in 40,000 times.
    let jittered = took("backoff: { exponential: { base: 400ms, max: 400ms } }", 8);
    assert!(
        jittered >= Duration::from_millis(400) && jittered < Duration::from_millis(3200 + 800),
        "{jittered:?}"
    );
    // Doubled ten times the first pause would be 40 s.
    let bounded = took("max_retries: 10, backoff: { exponential: { base: 40ms, max: 40ms } }", 1);
    assert!(bounded < Duration::from_secs(4), "{bounded:?}");
}

#[test]
fn an_upstream_that_wants_to_be_left_alone_is_for_a_while() {
    let unavailable = |seconds: u32| -> &'static [&'static str] {
        let head = format!("503 Unavailable\r\nretry-after: {seconds}");
        Box::leak(vec![&*Box::leak(head.into_boxed_str()), "200 OK"].into_boxed_slice())
    };
    for (words, seconds, status) in
        [("", 1, 200), ("", 2, 503), ("max_retry_after: 500ms", 1, 503), ("max_retry_after: 2s", 1, 200)]
    {
        let origin = answering(unavailable(seconds));
        let before = gateway(&[origin.address()], words, "", "");
        let started = Instant::now();
        let answer = before.ask(GET);
        assert_eq!(answer.status, status, "{words} {seconds}");
        if status == 200 {
            assert!(started.elapsed() >= Duration::from_secs(seconds.into()));
        } else {
            assert_eq!(answer.header("retry-after"), Some(&*seconds.to_string()));
        }
    }
}

#[test]
fn an_attempt_has_its_own_time() {
    let per_try = "per_try: 300ms, request: 10s";
    let origin = answering(&["silence", "silence", "200 OK"]);
    let before = gateway(&[origin.address()], "on: [timeout], max_retries: 2", "", per_try);
    let started = Instant::now();
    assert_eq!(before.ask(GET).status, 200);
    assert!(started.elapsed() >= Duration::from_millis(600) && started.elapsed() < Duration::from_secs(8));

    let origin = answering(&["silence", "200 OK"]);
    let before = gateway(&[origin.address()], "", "", per_try);
    assert_eq!(before.ask(GET).problem(), (504, "try_timeout".into()));
    let counted = format!(
        "portcullis_upstream_requests_total{{upstream=\"origin\",endpoint=\"{}\",outcome=\"try_timeout\"}}",
        origin.address()
    );
    eventually("the outcome is counted", || before.metric(&counted) == 1.0);

    // An answer that has begun takes its time.
    let origin = Origin::start(|visit| {
        visit.send("HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\no");
        std::thread::sleep(Duration::from_millis(700));
        visit.answer("k")
    });
    let before = gateway(&[origin.address()], "on: [timeout]", "", per_try);
    assert_eq!(before.ask(GET).text(), "ok");
}

#[test]
fn over_http2_it_is_the_same() {
    let origin = answering(&["silence", "503 Unavailable", "reset", "200 OK"]);
    let words = "on: [timeout, 503, reset], max_retries: 3, backoff: { fixed: 1ms }, methods: [POST]";
    let before = gateway(&[origin.address()], words, "", "per_try: 300ms, request: 10s");
    let mut client = Http2::connect(before.address());
    let answer = client.send(client.request("POST", "/"), b"body");
    assert_eq!((answer.status.as_u16(), &*answer.body), (200, &b"ok"[..]));
    assert_eq!(origin.heads().len(), 4);
    assert_eq!(origin.last().content(), b"body");
}

#[test]
fn attempts_share_the_time_of_the_request() {
    let origin = answering(&["silence"]);
    let timeouts = "per_try: 150ms, request: 400ms";
    let before = gateway(&[origin.address()], "on: [timeout], max_retries: 9", "", timeouts);
    let started = Instant::now();
    let (status, code) = before.ask(GET).problem();
    assert!(status == 504 && ["request_timeout", "try_timeout"].contains(&&*code), "{code}");
    assert!(started.elapsed() < Duration::from_secs(3));
    assert!((2..=4).contains(&origin.heads().len()), "{}", origin.heads().len());
}

#[test]
fn nothing_goes_again_once_the_client_has_a_byte_of_an_answer() {
    let origin = Origin::start(|visit| {
        visit.send("HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\nhalf");
        Then::Reset
    });
    let before = gateway(&[origin.address()], "max_retries: 5", "", "");
    let mut client = Client::connect(before.address());
    assert_eq!(client.send(GET).head().status, 200);
    assert_eq!(client.rest(), b"half");
    assert_eq!(origin.heads().len(), 1);
}

#[test]
fn retries_are_a_share_of_the_requests_and_no_more() {
    for (words, requests, sent) in [
        ("ratio: 0%, min_per_second: 0", 5, 5),
        // Ten seconds' worth at once.
        ("ratio: 0%, min_per_second: 1", 30, 40),
        ("ratio: 50%, min_per_second: 0", 30, 45),
        // As it is without words: three a second, and a fifth.
        ("", 100, 150),
    ] {
        let origin = answering(&["503 Unavailable"]);
        let budget = if words.is_empty() { String::new() } else { format!(", retry_budget: {{ {words} }}") };
        let before = gateway(&[origin.address()], "backoff: { fixed: 1ms }", &budget, "");
        let mut client = before.client();
        for _ in 0..requests {
            assert_eq!(client.ask(GET).status, 503);
        }
        // Each second that passes meanwhile has its own.
        let more = origin.heads().len() - sent;
        assert!(more <= 10, "{words}: {more} more than {sent}");
        let spared = 2 * requests - origin.heads().len();
        eventually("what was spared is counted", || retries(&before, "over_budget") == spared as f64);
    }
}

#[test]
fn a_budget_is_not_earned_anew_by_a_reload() {
    let origin = answering(&["503 Unavailable"]);
    let words = |path: &str| {
        format!(
            "upstreams: {{ origin: {{ endpoints: [\"{}\"], retry_budget: {{ ratio: 0%, min_per_second: 1 }} }} }}\n\
             routes: [{{ name: all, path: {path}, upstream: origin, retry: {{ backoff: {{ fixed: 1ms }} }} }}]",
            origin.address()
        )
    };
    let before = Gateway::start_file(&words("/*"));
    let ask = |count: usize| {
        let mut client = before.client();
        (0..count).for_each(|_| assert_eq!(client.ask(GET).status, 503));
        origin.heads().len()
    };
    let sent = ask(20);
    assert!((30..=32).contains(&sent), "{sent}");
    before.rewrite(&words("\"/{rest*}\""));
    before.reload().unwrap();
    let after = ask(20) - sent;
    assert!(after <= 22, "{after}");
}

#[test]
fn an_endpoint_that_cannot_be_asked_is_no_other() {
    // The other one is out for an hour, so the one that comes back in a moment is asked again.
    let (nobody, bad) = (Nobody::new(), answering(&["500 Error"]));
    let address = nobody.address();
    let words = ", health: { passive: { consecutive_errors: 1, eject_for: 1h } }";
    let retry = "max_retries: 9, backoff: { fixed: 100ms }, methods: [GET]";
    let before = gateway(&[bad.address(), address], retry, words, "");
    eventually("it to be out", || {
        before.ask(GET);
        before.admin_get("/upstreams").json()[0]["endpoints"][0]["healthy"] == false
    });
    let mut client = before.client();
    client.send(GET);
    // It comes back: whoever holds its port gives it up.
    drop(nobody);
    let origin = Origin::at(address);
    assert_eq!(client.response().status, 200);
    assert_eq!(origin.heads().len(), 1);
}

#[test]
fn a_client_that_leaves_in_a_pause_is_noticed() {
    let origin = answering(&["503 Unavailable"]);
    let before = gateway(&[origin.address()], "backoff: { fixed: 50s }", "", "request: 60s");
    let mut client = before.client();
    client.send(GET);
    eventually("the first attempt", || origin.heads().len() == 1);
    drop(client);
    let line = before.log_of("/");
    assert_eq!((&line["status"], &line["reason"]), (&499.into(), &"client_closed".into()));
    assert_eq!(origin.heads().len(), 1);
}

#[test]
fn a_call_goes_again_after_the_statuses_of_grpc_that_its_route_names() {
    for (word, code) in [
        ("grpc_cancelled", 1),
        ("grpc_deadline_exceeded", 4),
        ("grpc_resource_exhausted", 8),
        ("grpc_internal", 13),
        ("grpc_unavailable", 14),
    ] {
        for (named, sent) in [(word, 2), ("reset", 1)] {
            let count = AtomicUsize::new(0);
            let origin = Origin::start(move |visit| {
                let status = if count.fetch_add(1, Ordering::Relaxed) == 0 { code } else { 0 };
                visit.answer(format!(
                    "HTTP/1.1 200 OK\r\ncontent-type: application/grpc\r\ngrpc-status: {status}\r\n\
                     content-length: 0\r\n\r\n"
                ))
            });
            let before = gateway(&[origin.address()], &format!("on: [{named}]"), "", "");
            let mut client = Http2::connect(before.address());
            let call = client.request("POST", "/a.B/C").header("content-type", "application/grpc");
            let answer = client.send(call, b"\0\0\0\0\0");
            let status = if sent == 2 { "0".to_owned() } else { code.to_string() };
            assert_eq!(
                (answer.field("grpc-status"), origin.heads().len()),
                (&*status, sent),
                "{named} {code}"
            );
        }
    }
}
