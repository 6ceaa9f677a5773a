//! Circuit breakers and passive health: who is not asked any more, and how they come back.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, mpsc};
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::harness::{FullBacklog, Gateway, Http2, Origin, Then, eventually, eventually_some};

/// A configuration with these words for its upstream, and no retries.
fn config(origins: &[&Origin], words: &str) -> String {
    let endpoints: Vec<_> = origins.iter().map(|origin| format!("\"{}\"", origin.address())).collect();
    format!(
        "upstreams: {{ origin: {{ endpoints: [{}], {words} }} }}\n\
         routes: [{{ name: all, path: /*, upstream: origin, retry: {{ max_retries: 0 }} }}]",
        endpoints.join(", ")
    )
}

fn gateway(origins: &[&Origin], words: &str) -> Gateway {
    Gateway::start_file(&config(origins, words))
}

/// An origin that answers 200 with a name while it is well, else 500.
fn sickly(name: &'static str) -> (Origin, Arc<AtomicBool>) {
    let ill = Arc::new(AtomicBool::new(true));
    let state = Arc::clone(&ill);
    let origin = Origin::start(move |visit| {
        let status = if state.load(Ordering::SeqCst) { "500 Error" } else { "200 OK" };
        visit.answer(format!("HTTP/1.1 {status}\r\ncontent-length: {}\r\n\r\n{name}", name.len()))
    });
    (origin, ill)
}

/// An origin that follows a script of statuses: `f` fails, `s` is slow, `.` is fine. Then it is fine.
fn scripted(script: &'static str) -> Origin {
    let count = AtomicUsize::new(0);
    Origin::start(move |visit| {
        let at = count.fetch_add(1, Ordering::SeqCst);
        let step = script.as_bytes().get(at).copied().unwrap_or(b'.');
        if step == b's' {
            std::thread::sleep(Duration::from_millis(400));
        }
        let status = if step == b'f' { "500 Error" } else { "200 OK" };
        visit.answer(format!("HTTP/1.1 {status}\r\ncontent-length: 2\r\n\r\nok"))
    })
}

/// How many of so many requests came to the origin.
fn sent(gateway: &Gateway, origin: &Origin, requests: usize) -> usize {
    let known = origin.heads().len();
    (0..requests).for_each(|_| drop(gateway.get("/")));
    origin.heads().len() - known
}

fn upstream(gateway: &Gateway) -> Value {
    let all: Value = serde_json::from_str(&gateway.admin_get("/upstreams").text()).unwrap();
    all[0].clone()
}

fn circuit(gateway: &Gateway, endpoint: &str) -> f64 {
    gateway.metric(&format!("portcullis_circuit_state{{upstream=\"origin\",endpoint=\"{endpoint}\"}}"))
}

#[test]
fn a_breaker_opens_by_what_its_words_say() {
    // Words, what the origin does, and how many of twelve requests come to it.
    let never = "consecutive_failures: 1000, min_requests: 1000";
    let rows = [
        ("consecutive_failures: 3", "ff.fff", 6),
        ("consecutive_failures: 4", "ff.fff", 12),
        ("consecutive_failures: 1000, error_rate: 50%, min_requests: 4", ".f.f", 4),
        ("consecutive_failures: 1000, error_rate: 60%, min_requests: 4", ".f.f", 12),
        ("consecutive_failures: 1000, error_rate: 50%, min_requests: 5", ".f.ff", 5),
        (never, "ffffffffffff", 12),
        (
            "consecutive_failures: 1000, min_requests: 4, slow_call_duration: 250ms, slow_call_rate: 75%",
            ".sss",
            4,
        ),
        (
            "consecutive_failures: 1000, min_requests: 4, slow_call_duration: 250ms, slow_call_rate: 80%",
            ".sss",
            12,
        ),
        (
            "consecutive_failures: 1000, min_requests: 4, slow_call_duration: 5s, slow_call_rate: 75%",
            ".sss",
            12,
        ),
    ];
    for (words, script, expected) in rows {
        let origin = scripted(script);
        let before = gateway(&[&origin], &format!("breaker: {{ {words}, open_for: 1h }}"));
        assert_eq!(sent(&before, &origin, 12), expected, "{words} {script}");
        let open = expected < 12;
        assert_eq!(upstream(&before)["endpoints"][0]["circuit"], if open { "open" } else { "closed" });
        assert_eq!(circuit(&before, &origin.address().to_string()), if open { 2.0 } else { 0.0 });
    }
}

#[test]
fn what_is_older_than_the_window_does_not_count() {
    let origin = scripted("ff..ff");
    let words = "breaker: { consecutive_failures: 1000, error_rate: 60%, min_requests: 3, window: 200ms, open_for: 1h }";
    let before = gateway(&[&origin], words);
    assert_eq!(sent(&before, &origin, 2), 2);
    let known = Instant::now();
    eventually("the window to pass", || known.elapsed() > Duration::from_millis(300));
    // With the two failures before, three of four.
    assert_eq!(sent(&before, &origin, 3), 3);
    assert_eq!(upstream(&before)["endpoints"][0]["circuit"], "closed");
}

#[test]
fn an_open_circuit_says_so_and_when_to_come_back() {
    let (origin, _) = sickly("a");
    let before = gateway(&[&origin], "breaker: { consecutive_failures: 1, open_for: 100s }");
    assert_eq!(before.get("/").status, 500);
    let answer = before.get("/");
    assert_eq!(answer.problem(), (503, "circuit_open".into()));
    let seconds: u64 = answer.header("retry-after").unwrap().parse().unwrap();
    assert!((99..=100).contains(&seconds), "{seconds}");
    assert_eq!(origin.heads().len(), 1);
}

#[test]
fn a_breaker_lets_some_through_and_closes_when_they_succeed() {
    let (origin, ill) = sickly("a");
    let words = "breaker: { consecutive_failures: 1, open_for: 100ms, close_after: 2 }";
    let before = gateway(&[&origin], words);
    assert_eq!(before.get("/").status, 500);
    assert_eq!(before.get("/").status, 503);
    // It is asked again after the time, and is not well yet: open for as long again.
    eventually("a probe", || before.get("/").status == 500);
    assert_eq!(before.get("/").status, 503);
    ill.store(false, Ordering::SeqCst);
    eventually("a probe that succeeds", || before.get("/").status == 200);
    assert_eq!(upstream(&before)["endpoints"][0]["circuit"], "half_open");
    assert_eq!(circuit(&before, &origin.address().to_string()), 1.0);
    assert_eq!(before.get("/").status, 200);
    eventually("the circuit closes", || upstream(&before)["endpoints"][0]["circuit"] == "closed");
}

#[test]
fn only_so_many_are_let_through_at_once() {
    let (release, gate) = mpsc::channel::<()>();
    let gate = Mutex::new(gate);
    let first = AtomicBool::new(true);
    let origin = Origin::start(move |visit| {
        if first.swap(false, Ordering::SeqCst) {
            return visit.answer("HTTP/1.1 500 Error\r\ncontent-length: 0\r\n\r\n");
        }
        let _ = gate.lock().unwrap().recv();
        visit.answer("HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n")
    });
    let words = "breaker: { consecutive_failures: 1, open_for: 50ms, half_open_requests: 2, close_after: 9 }";
    let before = gateway(&[&origin], words);
    assert_eq!(before.get("/").status, 500);
    let opened = Instant::now();
    eventually("it to be half-open", || opened.elapsed() > Duration::from_millis(60));
    let mut held = [before.client(), before.client()];
    for client in &mut held {
        client.send_get("/");
    }
    eventually("both to arrive", || origin.heads().len() == 3);
    assert_eq!(before.get("/").code(), "circuit_open");
    // A client that leaves tells nothing of the endpoint, and gives its place back.
    let [leaving, mut staying] = held;
    drop(leaving);
    let mut third = before.client();
    eventually("a place", || {
        third = before.client();
        third.send_get("/");
        origin.heads().len() == 4 || third.is_silent(Duration::from_millis(20))
    });
    (0..3).for_each(|_| release.send(()).unwrap());
    assert_eq!(staying.response().status, 200);
}

#[test]
fn a_breaker_stands_before_one_endpoint_or_all() {
    for (scope, status) in [("endpoint", 200), ("upstream", 503)] {
        let (bad, _) = sickly("bad");
        let good = Origin::named("good");
        let words = format!("breaker: {{ consecutive_failures: 1, scope: {scope}, open_for: 1h }}");
        let before = gateway(&[&bad, &good], &words);
        eventually("a failure", || before.get("/").status == 500);
        for _ in 0..6 {
            assert_eq!(before.get("/").status, status, "{scope}");
        }
        assert_eq!(bad.heads().len(), 1);
        let all = upstream(&before)["circuit"].clone();
        assert_eq!(all, if scope == "upstream" { "open".into() } else { Value::Null });
        if scope == "upstream" {
            assert_eq!(circuit(&before, "-"), 2.0);
        }
    }
}

#[test]
fn circuits_and_ejections_go_on_over_a_reload() {
    let (origin, _) = sickly("a");
    let (other, ill) = sickly("b");
    ill.store(false, Ordering::SeqCst);
    for (words, closed) in [
        (
            "breaker: { consecutive_failures: 1, open_for: 1h }",
            "breaker: { consecutive_failures: 2, open_for: 1h }",
        ),
        ("health: { passive: { consecutive_errors: 1 } }", "health: { passive: { consecutive_errors: 2 } }"),
    ] {
        let before = gateway(&[&origin, &other], words);
        let known = origin.heads().len();
        eventually("a failure", || before.get("/").status == 500);
        before.rewrite(&config(&[&other, &origin], closed));
        before.reload().unwrap();
        for _ in 0..6 {
            assert_eq!(before.get("/").text(), "b");
        }
        assert_eq!(origin.heads().len() - known, 1, "{words}");
        // What is not asked for any more does not hold.
        before.rewrite(&config(&[&other, &origin], "balance: round_robin"));
        before.reload().unwrap();
        eventually("it to be asked", || before.get("/").text() == "a");
    }
}

#[test]
fn an_endpoint_that_answers_badly_is_left_out_for_a_while() {
    // Words, and how many of the requests come to the endpoint that fails.
    for (words, expected) in [
        ("consecutive_errors: 3", 3),
        ("consecutive_errors: 5", 5),
        ("consecutive_errors: 1000, error_rate: 100%, min_requests: 4", 4),
        ("consecutive_errors: 1000, error_rate: 100%, min_requests: 7", 7),
        ("consecutive_errors: 1000, error_rate: 100%, min_requests: 7, window: 1ms", 15),
        ("consecutive_errors: 1, max_ejected: 49%", 15),
        ("", 5),
    ] {
        let (bad, _) = sickly("bad");
        let good = Origin::named("good");
        let before = gateway(&[&bad, &good], &format!("health: {{ passive: {{ {words} }} }}"));
        assert_eq!(sent(&before, &bad, 30), expected, "{words}");
        let told = &upstream(&before)["endpoints"][0];
        assert_eq!(told["healthy"], expected == 15, "{words}");
        assert_eq!(told["ejected_for_seconds"].is_null(), expected == 15, "{words}");
        let gauge =
            format!("portcullis_endpoint_healthy{{upstream=\"origin\",endpoint=\"{}\"}}", bad.address());
        assert_eq!(before.metric(&gauge), f64::from(u8::from(expected == 15)));
    }
}

#[test]
fn it_is_left_out_longer_each_time() {
    let (bad, _) = sickly("bad");
    let good = Origin::named("good");
    let words = "health: { passive: { consecutive_errors: 1, eject_for: 400ms } }";
    let before = gateway(&[&bad, &good], words);
    let left = |times: u32| {
        eventually("an error", || before.get("/").status == 500);
        let left = || upstream(&before)["endpoints"][0]["ejected_for_seconds"].as_f64();
        let seconds = eventually_some("it to be left out", left);
        let most = 0.4 * f64::from(times);
        assert!(seconds <= most && seconds > most - 0.35, "{times}: {seconds}");
    };
    left(1);
    left(2);
    left(3);
}

#[test]
fn when_none_is_healthy_the_words_decide() {
    let passive = "passive: { consecutive_errors: 1, max_ejected: 100% }";
    for (words, status) in
        [("", 503), (", when_none_healthy: fail", 503), (", when_none_healthy: try_all", 500)]
    {
        let (bad, _) = sickly("bad");
        let before = gateway(&[&bad], &format!("health: {{ {passive}{words} }}"));
        assert_eq!(before.get("/").status, 500);
        let answer = before.get("/");
        assert_eq!(answer.status, status, "{words}");
        if status == 503 {
            assert_eq!(answer.code(), "no_healthy_upstream");
            assert!(answer.header("retry-after").is_some());
        }
    }
}

#[test]
fn when_too_few_are_healthy_all_are_asked() {
    for (threshold, panics) in [("0%", false), ("25%", false), ("30%", true)] {
        let (bad, ills): (Vec<_>, Vec<_>) = ["a", "b", "c"].map(sickly).into_iter().unzip();
        let good = Origin::named("good");
        let origins: Vec<&Origin> = bad.iter().chain([&good]).collect();
        let words = format!(
            "health: {{ panic_threshold: {threshold}, passive: {{ consecutive_errors: 1, max_ejected: 100% }} }}"
        );
        let before = gateway(&origins, &words);
        eventually("three to be out", || {
            drop(before.get("/"));
            bad.iter().all(|origin| !origin.heads().is_empty())
        });
        eventually("the last one to count", || upstream(&before)["panicking"] == panics);
        ills.iter().for_each(|ill| ill.store(false, Ordering::SeqCst));
        let known: usize = bad.iter().map(|origin| origin.heads().len()).sum();
        (0..8).for_each(|_| assert_eq!(before.get("/").status, 200));
        let asked = bad.iter().map(|origin| origin.heads().len()).sum::<usize>() - known;
        assert_eq!(asked, if panics { 6 } else { 0 }, "{threshold}");
    }
}

#[test]
fn one_that_comes_back_starts_slowly() {
    for (slow_start, least, most) in [("", 40, 60), ("slow_start: 1h, ", 0, 30)] {
        let (back, ill) = sickly("back");
        let good = Origin::named("good");
        let words =
            format!("{slow_start}health: {{ passive: {{ consecutive_errors: 1, eject_for: 500ms }} }}");
        let before = gateway(&[&back, &good], &words);
        eventually("an error", || before.get("/").status == 500);
        ill.store(false, Ordering::SeqCst);
        eventually("it to be out", || upstream(&before)["endpoints"][0]["healthy"] == false);
        eventually("it to be back", || upstream(&before)["endpoints"][0]["healthy"] == true);
        // A tenth of its half.
        let share = sent(&before, &back, 100);
        assert!((least..=most).contains(&share), "{slow_start}: {share}");
        // Where there is nobody else it takes all.
        before.rewrite(&config(&[&back], &words));
        before.reload().unwrap();
        assert_eq!(sent(&before, &back, 10), 10);
    }
}

#[test]
fn a_client_that_leaves_is_not_held_against_the_endpoint() {
    let origin = Origin::on_head(|visit| {
        visit.wait_for_close();
        Then::Close
    });
    let words = "breaker: { consecutive_failures: 1 }, health: { passive: { consecutive_errors: 1, max_ejected: 100% } }";
    let before = gateway(&[&origin], words);
    for at in 0..3 {
        let mut client = before.client();
        client.send_get("/");
        eventually("it to arrive", || origin.heads().len() == at + 1);
        drop(client);
    }
    let counted = format!(
        "portcullis_upstream_requests_total{{upstream=\"origin\",endpoint=\"{}\",outcome=\"aborted\"}}",
        origin.address()
    );
    eventually("three to be aborted", || before.metric(&counted) == 3.0);
    let told = &upstream(&before)["endpoints"][0];
    assert_eq!((&told["healthy"], &told["circuit"]), (&true.into(), &"closed".into()));
}

#[test]
fn one_that_is_silent_until_the_requests_own_end_counts_as_silent() {
    let (silent, good) = (
        Origin::start(|visit| {
            visit.wait_for_close();
            Then::Close
        }),
        Origin::named("good"),
    );
    let before = Gateway::start(&format!(
        "upstreams: {{ origin: {{ endpoints: [\"{}\", \"{}\"], health: {{ passive: {{ consecutive_errors: 1 }} }} }} }}\n\
         routes: [{{ name: all, path: /*, upstream: origin, timeouts: {{ request: 200ms }} }}]",
        silent.address(),
        good.address()
    ));
    eventually("a timeout", || before.get("/").status == 504);
    let out = || upstream(&before)["endpoints"][0]["healthy"] == false;
    eventually("it to be out", out);
}

#[test]
fn a_callers_haste_is_not_the_endpoints_fault() {
    let full = FullBacklog::new();
    let before = Gateway::start(&format!(
        "upstreams: {{ origin: {{ endpoints: [\"{}\"], breaker: {{ consecutive_failures: 1 }} }} }}\n\
         routes: [{{ name: all, path: /*, upstream: origin }}]",
        full.address()
    ));
    for _ in 0..3 {
        let mut client = Http2::connect(before.address());
        let request = client
            .request("POST", "/a.B/C")
            .header("content-type", "application/grpc")
            .header("grpc-timeout", "50m");
        assert_eq!(client.send(request, b"").status.as_u16(), 200, "errors are told behind the answer");
    }
    let counted = format!(
        "portcullis_upstream_requests_total{{upstream=\"origin\",endpoint=\"{}\",outcome=\"aborted\"}}",
        full.address()
    );
    eventually("three to be given up", || before.metric(&counted) == 3.0);
    assert_eq!(upstream(&before)["endpoints"][0]["circuit"], "closed");
}

#[test]
fn a_trial_is_judged_by_its_head() {
    let (release, gate) = mpsc::channel::<()>();
    let gate = Mutex::new(gate);
    let first = AtomicBool::new(true);
    let origin = Origin::start(move |visit| {
        if first.swap(false, Ordering::SeqCst) {
            return visit.answer("HTTP/1.1 500 Error\r\ncontent-length: 0\r\n\r\n");
        }
        visit.send("HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\no");
        let _ = gate.lock().unwrap().recv();
        visit.answer("k")
    });
    let before = gateway(
        &[&origin],
        "breaker: { consecutive_failures: 1, open_for: 50ms, half_open_requests: 1, close_after: 1 }",
    );
    assert_eq!(before.get("/").status, 500);
    let mut client = before.client();
    eventually("a trial", || {
        client = before.client();
        client.send_get("/").head().status == 200
    });
    // Its body is still on the way.
    eventually("the circuit closes", || upstream(&before)["endpoints"][0]["circuit"] == "closed");
    release.send(()).unwrap();
    assert_eq!(client.read(2), b"ok");
}
