//! Limits that gateways share, at real servers: killed, restarted, slow, full, forgetful.

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use crate::harness::redis::Redis;
use crate::harness::{Client, Gateway, Origin, Response, eventually, eventually_some};

const KEYS: &str = "portcullis:limit:*";

/// A gateway whose route is limited at a server.
fn gateway(url: &str, timeout: &str, filter: &str) -> Gateway {
    Gateway::start(&yaml(url, timeout, filter))
}

fn yaml(url: &str, timeout: &str, filter: &str) -> String {
    format!(
        "stores: {{ main: {{ redis: {{ url: \"{url}\", timeout: {timeout} }} }} }}\n\
         routes: [{{ name: all, path: /*, filters: [{{ rate_limit: {{ store: main, {filter} }} }}], respond: {{}} }}]\n"
    )
}

fn statuses(gateway: &Gateway, count: usize) -> Vec<u16> {
    (0..count).map(|_| gateway.get("/").status).collect()
}

fn store_errors(gateway: &Gateway) -> f64 {
    gateway.metric(
        "portcullis_filter_verdicts_total{route=\"all\",filter=\"rate_limit\",verdict=\"store_error\"}",
    )
}

/// Asks both gateways as fast as they answer, for a time: how many passed, what a rate in a second with a burst of half of it
/// allows in the time that has passed by the server's clock, and whether there was always more than that to be had.
fn flood(redis: &Redis, gateways: &[&Gateway], time: Duration, rate: f64) -> (f64, f64, bool) {
    let clock = || {
        let [seconds, micros] = redis.ask::<[f64; 2]>(&["TIME"]);
        seconds + micros / 1e6
    };
    let (passed, refused) = (AtomicUsize::new(0), AtomicUsize::new(0));
    let mut clients: Vec<_> =
        gateways.iter().flat_map(|gateway| [gateway.address(); 2]).map(Client::connect).collect();
    let (from, began) = (clock(), Instant::now());
    thread::scope(|scope| {
        for client in &mut clients {
            let (passed, refused) = (&passed, &refused);
            scope.spawn(move || {
                while began.elapsed() < time {
                    let status = client.get("/").status;
                    assert!(matches!(status, 200 | 429), "{status}");
                    let count = if status == 200 { passed } else { refused };
                    count.fetch_add(1, Ordering::Relaxed);
                }
            });
        }
    });
    let (passed, most) = (passed.into_inner() as f64, rate * (0.5 + clock() - from));
    println!("{passed} of {most}, {refused:?} refused");
    (passed, most, refused.into_inner() as f64 > passed / 5.0)
}

/// A way to a server on which everything takes longer, as long as somebody says.
struct Relay {
    address: SocketAddr,
    delay: Arc<AtomicU64>,
    ended: Arc<AtomicBool>,
}

impl Relay {
    fn to(server: SocketAddr) -> Self {
        let socket = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = socket.local_addr().unwrap();
        let (delay, ended) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicBool::new(false)));
        let (slow, done) = (Arc::clone(&delay), Arc::clone(&ended));
        thread::spawn(move || {
            while let Ok((near, _)) = socket.accept() {
                if done.load(Ordering::Relaxed) {
                    return;
                }
                let Ok(far) = TcpStream::connect(server) else { continue };
                for (mut from, mut to) in [(near.try_clone().unwrap(), far.try_clone().unwrap()), (far, near)]
                {
                    let slow = Arc::clone(&slow);
                    thread::spawn(move || {
                        let mut bytes = [0; 4096];
                        while let Ok(read @ 1..) = from.read(&mut bytes) {
                            thread::sleep(Duration::from_millis(slow.load(Ordering::Relaxed)));
                            if to.write_all(&bytes[..read]).is_err() {
                                break;
                            }
                        }
                        let _ = to.shutdown(Shutdown::Both);
                    });
                }
            }
        });
        Self { address, delay, ended }
    }

    fn delay(&self, millis: u64) {
        self.delay.store(millis, Ordering::Relaxed);
    }

    fn url(&self) -> String {
        format!("redis://{}", self.address)
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        self.ended.store(true, Ordering::Relaxed);
        let _ = TcpStream::connect(self.address);
    }
}

#[test]
fn gateways_count_together_by_every_algorithm() {
    for (algorithm, key_is) in
        [("token_bucket", 3600), ("fixed_window", 86_400), ("sliding_window", 2 * 86_400)]
    {
        let redis = Redis::start();
        let period = if algorithm == "token_bucket" { "h" } else { "d" };
        let words = format!("rate: 6/{period}, algorithm: {algorithm}");
        let gateways = [gateway(&redis.url(), "10s", &words), gateway(&redis.url(), "10s", &words)];
        let mut passed = 0;
        for round in 0..5 {
            for gateway in &gateways {
                let answer = gateway.get("/");
                assert_eq!(answer.status == 200, passed < 6, "{algorithm} {round}");
                passed += usize::from(answer.status == 200);
                let told = answer.header("ratelimit").unwrap();
                assert!(told.starts_with(&format!("\"default\";r={};t=", 6 - passed)), "{algorithm}: {told}");
                assert_eq!(answer.header("retry-after").is_some(), answer.status == 429);
            }
        }
        let keys: Vec<String> = redis.ask(&["KEYS", KEYS]);
        assert_eq!(keys.len(), 1, "{keys:?}");
        let lives: i64 = redis.ask(&["TTL", &keys[0]]);
        assert!((1..=key_is).contains(&lives), "{algorithm}: {lives}");
        assert!(gateways.iter().all(|gateway| store_errors(gateway) == 0.0));
    }
}

#[test]
fn two_gateways_let_through_what_the_limit_says() {
    // A debug build of two gateways answers little more than 1,000 in a second on a busy machine: where each request takes
    // five, a fifth of them is as much as there is.
    for (cost, seconds) in [(1, 6), (5, 10)] {
        let redis = Redis::start();
        let words = format!("rate: 1000/s, burst: 500, key: route, cost: {cost}");
        let (one, two) = (gateway(&redis.url(), "10s", &words), gateway(&redis.url(), "10s", &words));
        let rate = 1000.0 / f64::from(cost);
        let (passed, most, enough) = flood(&redis, &[&one, &two], Duration::from_secs(seconds), rate);
        // One may be on its way to the server when its clock is read.
        assert!(passed <= most + 1.0, "{passed} of {most} at {cost}");
        // A machine that is too slow cannot ask for more.
        assert!(!enough || passed >= most * 0.98, "{passed} of {most} at {cost}");
        assert_eq!(store_errors(&one) + store_errors(&two), 0.0);
    }
}

#[test]
fn on_credit_they_let_through_no_more_than_a_credit_each_beyond() {
    let redis = Redis::start();
    let words = "rate: 1000/s, burst: 500, key: route, settle_every: 100ms";
    let (one, two) = (gateway(&redis.url(), "10s", words), gateway(&redis.url(), "10s", words));
    let (passed, most, enough) = flood(&redis, &[&one, &two], Duration::from_secs(4), 1000.0);
    let credit = 1000.0 * 0.1;
    assert!(passed <= most + 2.0 * credit, "{passed} of {most}");
    assert!(!enough || passed >= most * 0.95, "{passed} of {most}");
    let text: String = redis.ask(&["INFO", "commandstats"]);
    let calls = text.lines().find_map(|line| line.strip_prefix("cmdstat_evalsha:calls=")).unwrap();
    let calls: usize = calls.split(',').next().unwrap().parse().unwrap();
    println!("{calls} questions");
    assert!((calls as f64) < passed / 4.0, "{calls} questions for {passed} requests that passed");
}

#[test]
fn on_credit_gateways_that_each_stay_below_the_limit_are_held_to_it_together() {
    let redis = Redis::start();
    let words = "rate: 100/s, burst: 10, key: route, settle_every: 100ms";
    let gateways = [(); 2].map(|()| gateway(&redis.url(), "10s", words));
    let (began, passed) = (Instant::now(), AtomicUsize::new(0));
    thread::scope(|scope| {
        for gateway in &gateways {
            let passed = &passed;
            scope.spawn(move || {
                let mut client = Client::connect(gateway.address());
                // Four fifths of it, evenly.
                for at in 0..320 {
                    thread::sleep((Duration::from_micros(12_500) * at).saturating_sub(began.elapsed()));
                    passed.fetch_add(usize::from(client.get("/").status == 200), Ordering::Relaxed);
                }
            });
        }
    });
    let (passed, most) = (passed.into_inner() as f64, 10.0 + 100.0 * began.elapsed().as_secs_f64());
    assert!(passed <= most + 2.0 * 10.0, "{passed} of {most}");
}

#[test]
fn on_credit_a_gateway_soon_knows_what_another_used() {
    let redis = Redis::start();
    let words = "rate: 10/h, settle_every: 20ms";
    let (one, two) = (gateway(&redis.url(), "10s", words), gateway(&redis.url(), "10s", words));
    // A credit is one here: every second request of a gateway asks.
    let passed = statuses(&one, 20).iter().filter(|status| **status == 200).count();
    assert_eq!(passed, 10);
    let of_two = statuses(&two, 20).iter().filter(|status| **status == 200).count();
    assert!(of_two <= 1, "{of_two}");
    eventually("it is known that all is used", || two.get("/").status == 429);
    assert_eq!(store_errors(&one) + store_errors(&two), 0.0);
}

#[test]
fn all_rules_of_a_filter_are_one_question_and_refuse_together() {
    let redis = Redis::start();
    let words =
        "rules: [{ rate: 3/d, key: ip, algorithm: fixed_window }, { rate: 1/d, key: 'header:x-user' }]";
    let gateway = gateway(&redis.url(), "10s", words);
    let of = |user: &str| gateway.ask(format!("GET / HTTP/1.1\r\nhost: a\r\nx-user: {user}\r\n\r\n")).status;
    assert_eq!(of("a"), 200);
    assert_eq!([of("a"), of("a"), of("a"), of("a")], [429; 4]);
    assert_eq!(["b", "c", "d"].map(of), [200, 200, 429]);
    let text: String = redis.ask(&["INFO", "commandstats"]);
    // The first is refused, as the script is not known yet, and sent again with it.
    assert!(text.contains("cmdstat_evalsha:calls=8,") && text.contains("cmdstat_eval:calls=1,"), "{text}");
    let keys: Vec<String> = redis.ask(&["KEYS", KEYS]);
    let slot = |key: &String| key[key.find('{').unwrap()..key.find('}').unwrap()].to_owned();
    assert!(keys.len() == 4 && keys.iter().all(|key| slot(key) == slot(&keys[0])), "{keys:?}");
}

#[test]
fn on_credit_no_rule_charges_what_another_refuses() {
    let redis = Redis::start();
    let words = "rules: [{ rate: 10/h, key: ip }, { rate: 1/h, key: 'header:x-user' }], settle_every: 20ms";
    let gateway = gateway(&redis.url(), "10s", words);
    let of = |user: &str| gateway.ask(format!("GET / HTTP/1.1\r\nhost: a\r\nx-user: {user}\r\n\r\n")).status;
    assert_eq!(of("a"), 200);
    assert_eq!([(); 8].map(|()| of("a")), [429; 8]);
    // What was given back may be on its way.
    assert_eq!(["b", "c", "d", "e", "f", "g", "h"].map(of), [200; 7]);
}

#[test]
fn a_server_of_a_cluster_that_is_stopped_soon_delays_nobody() {
    let servers = Redis::cluster(3);
    let url = format!("redis+cluster://{}", servers[0].address());
    let gateway = gateway(&url, "400ms", "rate: 1000/h, key: 'header:x-user'");
    let of = |user: usize| {
        let began = Instant::now();
        let answer = gateway.ask(format!("GET / HTTP/1.1\r\nhost: a\r\nx-user: {user}\r\n\r\n"));
        assert_eq!(answer.status, 200);
        began.elapsed() >= Duration::from_millis(400)
    };
    let all = || (0..30).filter(|user| of(*user)).count();
    eventually("all are asked", || {
        let before = store_errors(&gateway);
        all();
        store_errors(&gateway) == before
    });
    // The one that is asked where keys are.
    servers[0].signal("STOP");
    let waited = all() + all();
    servers[0].signal("CONT");
    assert!((1..=8).contains(&waited), "{waited} have waited");
    eventually("all are asked again", || {
        let before = store_errors(&gateway);
        all();
        store_errors(&gateway) == before
    });
}

#[test]
fn a_server_that_forgets_its_scripts_is_told_them_again() {
    let redis = Redis::start();
    let gateway = gateway(&redis.url(), "10s", "rate: 3/h");
    assert_eq!(statuses(&gateway, 2), [200, 200]);
    redis.ask::<()>(&["SCRIPT", "FLUSH"]);
    assert_eq!(statuses(&gateway, 2), [200, 429]);
    assert_eq!(store_errors(&gateway), 0.0);
}

#[test]
fn without_a_server_it_is_as_the_policy_says() {
    for (words, expected) in [
        ("burst: 1, on_store_error: local", [200, 429, 429]),
        ("burst: 1", [200, 429, 429]),
        ("burst: 1, on_store_error: open", [200, 200, 200]),
        ("burst: 1, on_store_error: closed", [503, 503, 503]),
        // On credit the first passes; the second has to ask.
        ("burst: 2, on_store_error: local, settle_every: 50ms", [200, 200, 429]),
        ("burst: 3, on_store_error: closed, settle_every: 50ms", [200, 503, 503]),
        ("burst: 3, on_store_error: open, settle_every: 50ms", [200, 200, 200]),
    ] {
        let mut redis = Redis::away();
        let gateway = gateway(&redis.url(), "10s", &format!("rate: 1/h, {words}"));
        assert_eq!(statuses(&gateway, 3), expected, "{words}");
        if expected[1] == 503 {
            assert_eq!(gateway.get("/").problem(), (503, "limit_store_unavailable".to_owned()));
            assert!(gateway.get("/").header("retry-after").is_some());
        }
        eventually("it is counted", || store_errors(&gateway) >= 1.0);
        redis.start_again();
        eventually("the store is asked again", || {
            gateway.get("/");
            !redis.ask::<Vec<String>>(&["KEYS", KEYS]).is_empty()
        });
    }
}

#[test]
fn counting_alone_goes_on_from_what_is_known() {
    let mut redis = Redis::start();
    let words = "rate: 5/h";
    let (one, two) = (gateway(&redis.url(), "10s", words), gateway(&redis.url(), "10s", words));
    assert_eq!(statuses(&one, 3), [200; 3]);
    assert_eq!(statuses(&two, 1), [200]);
    redis.stop();
    // One is left, as the second knows from the last answer.
    assert_eq!(statuses(&two, 3), [200, 429, 429]);
    redis.start_again();
    eventually("they count together again", || {
        one.get("/");
        !redis.ask::<Vec<String>>(&["KEYS", KEYS]).is_empty()
    });
}

#[test]
fn a_slow_server_takes_no_more_than_the_deadline_and_soon_nothing() {
    for words in ["rate: 1000/h", "rate: 1000/h, settle_every: 10ms", "rate: 1000/h, on_store_error: open"] {
        let redis = Redis::start();
        let relay = Relay::to(redis.address());
        let gateway = gateway(&relay.url(), "300ms", words);
        eventually("the server is asked in time", || {
            gateway.get("/");
            gateway.get("/");
            !redis.ask::<Vec<String>>(&["KEYS", KEYS]).is_empty()
        });
        relay.delay(5000);
        let began = Instant::now();
        assert!(statuses(&gateway, 30).iter().all(|status| *status == 200), "{words}");
        let took = began.elapsed();
        assert!(took < Duration::from_millis(30 * 300 / 2), "{words}: {took:?}");
        assert!(store_errors(&gateway) >= 3.0, "{words}");
        relay.delay(0);
        let errors = || {
            let before = store_errors(&gateway);
            statuses(&gateway, 3);
            store_errors(&gateway) - before
        };
        eventually("it is asked again", || errors() == 0.0);
    }
}

#[test]
fn a_client_that_leaves_while_the_server_is_asked_pays_once() {
    let redis = Redis::start();
    let relay = Relay::to(redis.address());
    let gateway = gateway(&relay.url(), "10s", "rate: 100/h, settle_every: 60s");
    // A credit is one here: the third is owed.
    assert_eq!(statuses(&gateway, 3), [200; 3]);
    relay.delay(300);
    for _ in 0..10 {
        let mut client = gateway.client();
        client.send_get("/");
        std::thread::sleep(Duration::from_millis(60));
    }
    relay.delay(0);
    let left = || {
        let answer = gateway.get("/");
        let told = answer.header("ratelimit").unwrap();
        told.split(";r=").nth(1).unwrap().split(';').next().unwrap().parse::<u32>().unwrap()
    };
    left();
    let left = left();
    assert!(left >= 85, "{left} are left of 100 after 15 requests");
}

#[test]
fn a_server_that_answers_errors_counts_as_none() {
    for (words, expected) in [
        ("rate: 4/h", [200, 200, 429]),
        ("rate: 4/h, on_store_error: closed", [503, 503, 503]),
        ("rate: 1/h, burst: 4, on_store_error: open", [200, 200, 200]),
    ] {
        let redis = Redis::start();
        let limited = gateway(&redis.url(), "10s", words);
        assert_eq!(statuses(&limited, 2), [200, 200]);
        // What is there is not what it should be.
        let keys: Vec<String> = redis.ask(&["KEYS", KEYS]);
        redis.ask::<()>(&["DEL", &keys[0]]);
        redis.ask::<()>(&["LPUSH", &keys[0], "1"]);
        assert_eq!(statuses(&limited, 3), expected, "{words}");
        redis.ask::<()>(&["DEL", &keys[0]]);
        assert_eq!(statuses(&limited, 5), [200, 200, 200, 200, 429], "{words}");
        // There is no room for anything new.
        redis.ask::<()>(&["FLUSHALL"]);
        redis.ask::<()>(&["CONFIG", "SET", "maxmemory", "1"]);
        statuses(&limited, 2);
        eventually("all five are counted", || store_errors(&limited) == 5.0);
        redis.ask::<()>(&["CONFIG", "SET", "maxmemory", "0"]);
        assert_eq!(statuses(&limited, 5), [200, 200, 200, 200, 429], "{words}");
    }
}

#[test]
fn an_expression_says_what_a_request_costs_at_the_store() {
    let redis = Redis::start();
    for more in ["", ", settle_every: 20ms"] {
        redis.ask::<()>(&["FLUSHALL"]);
        let words = format!("rate: 6/d, cost: size(request.path) + 1{more}");
        let gateway = Gateway::start(&yaml(&redis.url(), "10s", &words));
        assert_eq!(statuses(&gateway, 4), [200, 200, 200, 429], "{words}");
    }
}

#[test]
fn what_an_answer_cost_is_told_the_store() {
    let redis = Redis::start();
    let origin = Origin::answering("HTTP/1.1 200 OK\r\nx-cost: 4\r\ncontent-length: 0\r\n\r\n");
    for more in ["", ", settle_every: 20ms"] {
        redis.ask::<()>(&["FLUSHALL"]);
        let words = format!("rate: 10/h, cost: {{ response_header: x-cost, max: 9 }}{more}");
        let start = || {
            let yaml = yaml(&redis.url(), "10s", &words).replace("respond: {}", "upstream: origin");
            Gateway::start(&format!(
                "{yaml}upstreams: {{ origin: {{ endpoints: [\"{}\"] }} }}\n",
                origin.address()
            ))
        };
        let (one, two) = (start(), start());
        let left = |answer: &Response| {
            let told = answer.header("ratelimit").unwrap();
            told.split(['=', ';']).nth(2).unwrap().parse::<u64>().unwrap()
        };
        assert_eq!(left(&one.get("/")), 6);
        eventually("the store knows it", || {
            let keys: Vec<String> = redis.ask(&["KEYS", KEYS]);
            // Four of ten: it is full again in 24 minutes, not in 6.
            keys.first().is_some_and(|key| redis.ask::<i64>(&["TTL", key]) > 20 * 60)
        });
        // The third finds two left, and takes them and what it costs beyond.
        let mut passed = 1;
        eventually("all is used", || {
            let answer = two.get("/");
            passed += usize::from(answer.status == 200);
            answer.status == 429
        });
        assert!((3..=4).contains(&passed), "{passed}");
    }
}

#[test]
fn a_reload_keeps_what_is_known() {
    let mut redis = Redis::start();
    let words = |more: &str| yaml(&redis.url(), "10s", &format!("rate: 5/h{more}"));
    let (first, second) = (words(""), words(", headers: legacy"));
    let gateway = Gateway::start_file(&first);
    assert_eq!(statuses(&gateway, 4), [200; 4]);
    gateway.rewrite(&second);
    gateway.reload().unwrap();
    redis.stop();
    assert_eq!(statuses(&gateway, 3), [200, 429, 429]);
}

#[test]
fn sentinels_say_which_server_counts() {
    let mut first = Redis::start();
    let second = Redis::following(&first);
    let sentinel = Redis::sentinel(&first);
    eventually("the sentinel knows of the second", || {
        let told: String = sentinel.ask(&["INFO", "sentinel"]);
        told.contains("slaves=1")
    });
    // The first of the sentinels is away.
    let away = Redis::away();
    let url = format!("redis+sentinel://{},{}/main", away.address(), sentinel.address());
    let gateway = gateway(&url, "10s", "rate: 1000/h, on_store_error: closed");
    assert_eq!(statuses(&gateway, 5), [200; 5]);
    assert_eq!(first.ask::<Vec<String>>(&["KEYS", KEYS]).len(), 1);
    eventually("the second has the count", || !second.ask::<Vec<String>>(&["KEYS", KEYS]).is_empty());
    first.stop();
    let answer =
        eventually_some("the second counts", || Some(gateway.get("/")).filter(|answer| answer.status == 200));
    let told = answer.header("ratelimit").unwrap();
    assert!(told.starts_with("\"default\";r=994;"), "what was counted is: {told}");
}

#[test]
fn a_cluster_counts_each_key_where_it_is() {
    let mut servers = Redis::cluster(3);
    let away = Redis::away();
    let url = format!("redis+cluster://{},{}", away.address(), servers[0].address());
    for words in [
        "rate: 2/h, key: 'header:x-user'",
        "rules: [{ rate: 2/h, key: 'header:x-user' }, { rate: 1000/h, key: 'header:x-user' }]",
        "rate: 2/h, key: 'header:x-user', settle_every: 20ms",
    ] {
        let gateways = [(); 2].map(|()| gateway(&url, "10s", &format!("{words}, on_store_error: closed")));
        let of = |gateway: &Gateway, user: usize| {
            gateway.ask(format!("GET / HTTP/1.1\r\nhost: a\r\nx-user: {user}\r\n\r\n")).status
        };
        for user in 0..30 {
            let statuses = [0, 0, 1, 1].map(|at| of(&gateways[at], user));
            if !words.contains("settle") {
                assert_eq!(statuses, [200, 200, 429, 429], "{words}, {user}");
            }
            assert!(statuses.iter().all(|status| matches!(status, 200 | 429)), "{statuses:?}");
        }
        assert!(gateways.iter().all(|gateway| store_errors(gateway) == 0.0), "{words}");
    }
    // A filter with one rule is spread over all of them.
    let keys: Vec<usize> =
        servers.iter().map(|server| server.ask::<Vec<String>>(&["KEYS", KEYS]).len()).collect();
    assert!(keys.iter().all(|count| *count > 0), "{keys:?}");
    // What is on its way from one to another is found there.
    let gateway = gateway(&url, "10s", "rate: 5/h, key: route, on_store_error: closed, name: moving");
    let before: Vec<String> =
        servers.iter().flat_map(|server| server.ask::<Vec<String>>(&["KEYS", KEYS])).collect();
    assert_eq!(statuses(&gateway, 2), [200, 200]);
    let find = |server: &Redis| {
        server.ask::<Vec<String>>(&["KEYS", KEYS]).into_iter().find(|key| !before.contains(key))
    };
    let from = servers.iter().position(|server| find(server).is_some()).unwrap();
    let key = find(&servers[from]).unwrap();
    let (from, to) = (servers.swap_remove(from), servers.swap_remove(0));
    let slot: i64 = from.ask(&["CLUSTER", "KEYSLOT", &key]);
    let id = |server: &Redis| server.ask::<String>(&["CLUSTER", "MYID"]);
    to.ask::<()>(&["CLUSTER", "SETSLOT", &slot.to_string(), "IMPORTING", &id(&from)]);
    from.ask::<()>(&["CLUSTER", "SETSLOT", &slot.to_string(), "MIGRATING", &id(&to)]);
    let port = to.address().port().to_string();
    from.ask::<String>(&["MIGRATE", "127.0.0.1", &port, &key, "0", "1000"]);
    assert_eq!(statuses(&gateway, 2), [200, 200]);
    for server in [&to, &from] {
        server.ask::<()>(&["CLUSTER", "SETSLOT", &slot.to_string(), "NODE", &id(&to)]);
    }
    assert_eq!(statuses(&gateway, 2), [200, 429]);
    assert_eq!(store_errors(&gateway), 0.0);
}

#[test]
fn a_prefix_keeps_what_is_counted_apart_over_reloads() {
    let redis = Redis::start();
    let rate = |words: &str| format!("rate_limit: {{ store: main, {words} }}");
    let all = [
        rate("rate: 2/h"),
        rate("rules: [{ rate: 2/h }, { rate: 9/h, name: b }]"),
        rate("rate: 2/h, settle_every: 20ms"),
        "quota: { store: main, limit: 2, per: month, key: ip }".to_owned(),
    ];
    for filter in &all {
        let of = |prefix: &str| {
            yaml(&redis.url(), &format!("10s{prefix}"), "rate: 2/h").replace(&rate("rate: 2/h"), filter)
        };
        redis.ask::<()>(&["FLUSHALL"]);
        let gateway = Gateway::start_file(&of(""));
        for (prefix, begins) in [
            ("", "portcullis:"),
            (", prefix: portcullis-staging", "portcullis-staging:"),
            (", prefix: 'a.b_c:d'", "a.b_c:d:"),
        ] {
            gateway.rewrite(&of(prefix));
            gateway.reload().unwrap();
            let others = redis.keys("");
            assert!(others.iter().all(|key| !key.starts_with(begins)), "{others:?}");
            assert_eq!(statuses(&gateway, 3), [200, 200, 429], "{filter} {prefix}");
            let wanted = if filter.contains("rules") { 2 } else { 1 };
            eventually("the store knows", || redis.keys("").len() == others.len() + wanted);
            let own: Vec<_> = redis.keys("").into_iter().filter(|key| !others.contains(key)).collect();
            assert!(own.iter().all(|key| key.starts_with(begins)), "{own:?}");
            let name = filter.split(':').next().unwrap();
            let series = format!("portcullis_limit_keys{{owner=\"route all\",filter=\"{name}\"}}");
            assert!(gateway.metric(&series) >= 1.0, "{filter}");
        }
    }
}
