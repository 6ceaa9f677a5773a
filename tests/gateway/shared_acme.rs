//! Certificates by ACME that machines share, in a real Redis, from a real authority.

use std::net::TcpListener;
use std::time::{Duration, Instant};

use serde_json::Value;

use super::acme::{orders, proofs};
use crate::harness::pebble::{Pebble, Setup};
use crate::harness::process_log;
use crate::harness::redis::{Redis, key};
use crate::harness::tls::Authority;
use crate::harness::{Client, Gateway, Nobody, eventually, eventually_some};

/// Listeners with these certificates, plaintext and not.
fn listeners(certificates: &str) -> String {
    format!(
        "listeners:\n\
         - {{ name: secure, address: \"127.0.0.1:0\", tls: {{ certificates: [{certificates}] }} }}\n\
         - {{ name: web, address: \"127.0.0.1:0\", redirect_to_https: {{}} }}\n\
         routes: [{{ name: all, path: /*, respond: {{ body: hello }} }}]\n"
    )
}

/// A certificate for `a.test` that is shared in the store with these words.
fn sharing(pebble: &Pebble, store: &str, more: &str) -> String {
    format!(
        "{}acme: {{ ca: {{ directory: \"{}\", ca: {}, store: {{ redis: main }}{more} }} }}\n\
         stores: {{ main: {{ redis: {{ {store} }} }} }}\n",
        listeners("{ acme: ca, hosts: [a.test] }"),
        pebble.directory(),
        pebble.ca().display(),
    )
}

fn url(redis: &Redis) -> String {
    format!("url: \"{}\"", redis.url())
}

/// A gateway with a certificate from files; its ports are known, so that an authority can be started for it.
fn gateway(pki: &Authority) -> Gateway {
    Gateway::start_file(&listeners(&pki.issue("own", &["own.test"]).words()))
}

fn setup(gateway: &Gateway) -> Setup {
    Setup { http: gateway.listener("web").port(), tls: gateway.listener("secure").port(), ..Setup::default() }
}

fn reload(gateway: &Gateway, yaml: &str) {
    gateway.rewrite(yaml);
    gateway.reload().unwrap();
}

fn view(gateway: &Gateway) -> Value {
    serde_json::from_str::<Vec<Value>>(&gateway.admin_get("/certificates").text()).unwrap().remove(0)
}

fn state(gateway: &Gateway) -> Value {
    view(gateway)["acme"].clone()
}

fn questions(gateway: &Gateway) -> usize {
    let asked = |line: &&Value| line["path"].as_str().unwrap_or_default().starts_with("/.well-known/acme");
    gateway.log().iter().filter(asked).filter(|line| line["status"] == 200).count()
}

fn issued(gateway: &Gateway) -> Value {
    eventually_some("a certificate", || {
        let view = view(gateway);
        (view["acme"]["state"] == "issued" && view["not_after"].is_string()).then_some(view)
    })
}

fn error(gateway: &Gateway) -> String {
    eventually_some("a failure", || state(gateway)["error"].as_str().map(str::to_owned))
}

fn hello(pebble: &Pebble, gateway: &Gateway) {
    let mut client = pebble.client().connect(gateway.listener("secure"), "a.test").unwrap();
    assert_eq!(client.ask("GET / HTTP/1.1\r\nhost: a.test\r\n\r\n").text(), "hello");
}

/// Two gateways, the first of which orders while the authority asks the second; both have the certificate then.
fn ordered_by_one_and_proved_by_the_other(redis: &Redis, challenge: &str) -> (Pebble, String, [Gateway; 2]) {
    let pki = Authority::new();
    let (first, second) = (gateway(&pki), gateway(&pki));
    let pebble = Pebble::start(&setup(&second));
    let words = sharing(&pebble, &url(redis), &format!(", challenge: {challenge}"));
    let lock = key(&pebble.directory(), "lock", "a.test");
    let _: String = redis.ask(&["SET", &lock, "a test"]);
    reload(&second, &words);
    eventually("the second to wait", || state(&second)["next"].is_string());
    let _: u32 = redis.ask(&["DEL", &lock]);
    reload(&first, &words);
    let serials = [&first, &second].map(|gateway| issued(gateway)["serial"].clone());
    assert_eq!(serials[0], serials[1]);
    assert_eq!((orders(&first, "success"), orders(&second, "success")), (1.0, 0.0));
    assert_eq!((orders(&first, "failure"), orders(&second, "failure")), (0.0, 0.0));
    hello(&pebble, &first);
    hello(&pebble, &second);
    (pebble, words, [first, second])
}

#[test]
fn a_proof_by_http_is_given_by_the_other_machine() {
    let redis = Redis::start();
    let (mut pebble, words, [first, second]) = ordered_by_one_and_proved_by_the_other(&redis, "http");
    assert_eq!(questions(&first), 0);
    assert!(questions(&second) >= 1);
    eventually("the answer to be taken back", || redis.keys(":http:*").is_empty());
    eventually("the lock to be given back", || redis.keys(":lock:*").is_empty());

    first.shutdown();
    second.shutdown();
    let caller = pebble.client();
    pebble.stop();
    let again = Gateway::start(&words);
    let mut client = caller.connect(again.listener("secure"), "a.test").unwrap();
    assert_eq!(client.ask("GET / HTTP/1.1\r\nhost: a.test\r\n\r\n").text(), "hello", "from the start");
    assert_eq!(orders(&again, "success") + orders(&again, "failure"), 0.0);
    let file = view(&again)["file"].as_str().unwrap().to_owned();
    assert!(file.contains(":cert:a.test-") && file.starts_with("redis://127.0.0.1:"), "{file}");
}

#[test]
fn a_proof_in_the_handshake_is_given_by_the_other_machine() {
    let redis = Redis::start();
    let (pebble, _, [first, second]) = ordered_by_one_and_proved_by_the_other(&redis, "tls_alpn");
    assert_eq!(proofs(&first), 0.0);
    assert!(proofs(&second) >= 1.0);
    eventually("the answer to be taken back", || redis.keys(":tls:*").is_empty());
    for host in ["a.test", "b.test"] {
        let asked = pebble.client().offering(&["acme-tls/1"]);
        let refused = asked.failure(second.listener("secure"), host);
        assert!(refused.contains("NoApplicationProtocol"), "nothing is under way: {refused}");
    }
}

#[test]
fn the_lock_of_one_that_is_gone_runs_out() {
    let (pki, redis) = (Authority::new(), Redis::start());
    let gateway = gateway(&pki);
    let pebble = Pebble::start(&setup(&gateway));
    let lock = key(&pebble.directory(), "lock", "a.test");
    let _: String = redis.ask(&["SET", &lock, "somebody who is gone", "PX", "2000"]);
    reload(&gateway, &sharing(&pebble, &url(&redis), ""));
    eventually("it to wait", || state(&gateway)["next"].is_string());
    assert_eq!(state(&gateway)["state"], "waiting");
    issued(&gateway);
    assert_eq!(orders(&gateway, "success"), 1.0);
}

#[test]
fn what_is_of_no_use_in_the_store_is_ordered_anew() {
    let (pki, redis) = (Authority::new(), Redis::start());
    let gateway = gateway(&pki);
    let pebble = Pebble::start(&setup(&gateway));
    let cert = key(&pebble.directory(), "cert", "a.test");
    let _: String = redis.ask(&["SET", &cert, "no certificate"]);
    reload(&gateway, &sharing(&pebble, &url(&redis), ""));
    issued(&gateway);
    process_log::heard(&["WARN", "there is no certificate in", &cert]);
    let kept: String = redis.ask(&["GET", &cert]);
    assert!(kept.starts_with("-----BEGIN PRIVATE KEY-----") && kept.contains("BEGIN CERTIFICATE"));
    hello(&pebble, &gateway);
}

#[test]
fn one_that_has_lost_its_lock_overwrites_nothing() {
    let (pki, redis) = (Authority::new(), Redis::start());
    let gateway = gateway(&pki);
    let pebble = Pebble::start(&Setup { sleep: 5, ..setup(&gateway) });
    reload(&gateway, &sharing(&pebble, &url(&redis), ""));
    let lock = key(&pebble.directory(), "lock", "a.test");
    eventually("the lock", || redis.keys(":lock:a.test-*") == [lock.clone()]);
    let left: u64 = redis.ask(&["PTTL", &lock]);
    assert!(left > 20_000 && left <= 30_000, "{left}");
    let _: String = redis.ask(&["SET", &lock, "somebody else"]);
    let error = error(&gateway);
    assert!(error.contains("the lock was lost"), "{error}");
    assert!(redis.keys(":cert:*").is_empty() && redis.keys(":failed:*").is_empty());
    let held: String = redis.ask(&["GET", &lock]);
    assert_eq!(held, "somebody else", "what is not ours is not given back");
}

#[test]
fn what_failed_at_one_machine_is_not_tried_at_once_by_the_next() {
    let (pki, redis, nobody) = (Authority::new(), Redis::start(), Nobody::new());
    let words = format!(
        "{}acme: {{ ca: {{ directory: \"https://{}/dir\", ca: {}, store: {{ redis: main }} }} }}\n\
         stores: {{ main: {{ redis: {{ {} }} }} }}\n",
        listeners("{ acme: ca, hosts: [a.test] }"),
        nobody.address(),
        pki.ca().display(),
        url(&redis)
    );
    let first = Gateway::start(&words);
    eventually("a failure", || orders(&first, "failure") == 1.0);
    let second = Gateway::start(&words);
    assert_eq!(error(&second), error(&first));
    assert_eq!(orders(&second, "failure"), 0.0);
    assert_eq!(state(&second)["next"], state(&first)["next"]);
}

#[test]
fn a_store_that_is_away_at_the_start_is_waited_for_and_one_that_forgets_is_reminded() {
    let (pki, mut redis) = (Authority::new(), Redis::away());
    let gateway = gateway(&pki);
    let pebble = Pebble::start(&setup(&gateway));
    let words = sharing(&pebble, &url(&redis), "");
    reload(&gateway, &words);
    let told = error(&gateway);
    assert!(told.contains("cannot be reached") && told.contains(&redis.address().to_string()), "{told}");
    assert_eq!(state(&gateway)["state"], "failed");
    redis.start_again();
    issued(&gateway);
    assert_eq!((orders(&gateway, "success"), orders(&gateway, "failure")), (1.0, 0.0));

    redis.stop();
    hello(&pebble, &gateway);
    reload(&gateway, &words);
    error(&gateway);
    hello(&pebble, &gateway);
    redis.start_again();
    let cert = key(&pebble.directory(), "cert", "a.test");
    eventually("the certificate in the store again", || redis.keys(":cert:*") == [cert.clone()]);
    eventually("nothing to be wrong", || state(&gateway)["error"].is_null());
    assert_eq!(orders(&gateway, "success"), 1.0);
}

#[test]
fn a_store_that_is_away_in_the_midst_of_an_order_is_a_failure_like_others() {
    let (pki, mut redis) = (Authority::new(), Redis::start());
    let gateway = gateway(&pki);
    let pebble = Pebble::start(&Setup { sleep: 5, ..setup(&gateway) });
    reload(&gateway, &sharing(&pebble, &url(&redis), ""));
    eventually("an account", || !redis.keys(":account").is_empty());
    redis.stop();
    eventually("a failure", || orders(&gateway, "failure") == 1.0);
    assert!(error(&gateway).contains("the store cannot be used"), "{}", error(&gateway));
}

#[test]
fn a_wrong_password_is_told_and_no_password_is_shown() {
    let (pki, redis) = (Authority::new(), Redis::with_password("right-hunter2"));
    let gateway = gateway(&pki);
    let pebble = Pebble::start(&setup(&gateway));
    let wrong = format!("url: \"redis://:wrong-hunter3@{}\"", redis.address());
    reload(&gateway, &sharing(&pebble, &wrong, ""));
    let told = error(&gateway);
    assert!(told.contains("WRONGPASS") || told.contains("assword"), "{told}");
    // All that a gateway needs to be allowed.
    let rights = ["~portcullis:*", "+get", "+set", "+del", "+pexpire", "+eval"];
    let _: String = redis.ask(&[&["ACL", "SETUSER", "gate", "on", ">gate-hunter2"], &rights[..]].concat());
    let as_gate = format!("url: \"redis://gate:gate-hunter2@{}/0\"", redis.address());
    reload(&gateway, &sharing(&pebble, &as_gate, ""));
    issued(&gateway);
    eventually("the lock to be given back", || redis.keys(":lock:*").is_empty());
    let config = gateway.admin_get("/config").text();
    let shown: Value = serde_json::from_str(&config).unwrap();
    assert!(shown.to_string().contains(r#""url":"***""#), "{config}");
    let log = process_log::lines().join("\n");
    assert!(log.contains("cannot be reached"), "{log}");
    for secret in ["hunter2", "hunter3"] {
        let certificates = gateway.admin_get("/certificates").text();
        assert!(![&config, &told, &log, &certificates].iter().any(|text| text.contains(secret)), "{secret}");
    }
}

#[test]
fn a_dry_run_learns_nothing_of_secrets() {
    let gateway = Gateway::start(&listeners(&Authority::new().issue("own", &["own.test"]).words()));
    for (url, good) in [("{ env: PATH }", true), ("{ file: /etc/passwd }", true), ("\"redis://[\"", false)] {
        let words = format!(
            "listeners: [{{ name: web, address: \"127.0.0.1:80\" }}]\nstores: {{ main: {{ redis: {{ url: {url} }} }} }}"
        );
        let answer = gateway.admin_ask("POST", "/config/check", &words);
        assert_eq!(answer.status == 200, good, "{url}: {}", answer.text());
    }
}

#[test]
fn a_server_with_tls_must_prove_who_it_is() {
    let (pki, redis) = (Authority::new(), Redis::with_tls(Authority::new()));
    let gateway = gateway(&pki);
    let pebble = Pebble::start(&setup(&gateway));
    let by = |ca: &Authority| format!("{}, ca: {}", url(&redis), ca.ca().display());
    reload(&gateway, &sharing(&pebble, &by(&pki), ""));
    let told = error(&gateway);
    assert!(told.contains("ertificate"), "{told}");
    reload(&gateway, &sharing(&pebble, &by(redis.pki()), ""));
    issued(&gateway);
}

#[test]
fn all_keys_begin_with_the_prefix_of_the_store() {
    let (pki, redis) = (Authority::new(), Redis::start());
    let gateway = gateway(&pki);
    let pebble = Pebble::start(&setup(&gateway));
    let store = format!("{}, prefix: portcullis-staging", url(&redis));
    reload(&gateway, &sharing(&pebble, &store, ""));
    issued(&gateway);
    let keys = redis.keys("");
    assert!(!redis.keys(":cert:*").is_empty(), "{keys:?}");
    assert!(keys.iter().all(|key| key.starts_with("portcullis-staging:acme:{")), "{keys:?}");
}

#[test]
fn a_cluster_over_tls_keeps_certificates_too() {
    let (pki, of_servers) = (Authority::new(), Authority::new());
    let servers = Redis::cluster_with_tls(3, &of_servers);
    let gateway = gateway(&pki);
    let pebble = Pebble::start(&setup(&gateway));
    let store =
        format!("url: \"rediss+cluster://{}\", ca: {}", servers[0].secure(), of_servers.ca().display());
    reload(&gateway, &sharing(&pebble, &store, ""));
    issued(&gateway);
    let kept = servers.iter().filter(|server| !server.keys(":cert:*").is_empty());
    assert_eq!(kept.count(), 1);
}

#[test]
fn a_store_that_is_silent_holds_up_neither_the_start_nor_strangers_for_long() {
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let store = format!("url: \"redis://{}\", timeout: 1500ms", silent.local_addr().unwrap());
    let pki = Authority::new();
    let own = gateway(&pki);
    let pebble = Pebble::start(&setup(&own));
    let begun = Instant::now();
    let gateway = Gateway::start(&sharing(&pebble, &store, ""));
    assert!(begun.elapsed() > Duration::from_secs(1), "it waits for what the store may have");
    assert!(begun.elapsed() < Duration::from_secs(8), "but not for long: {:?}", begun.elapsed());
    let ask = |host: &str, token: &str| {
        let begun = Instant::now();
        let request = format!("GET /.well-known/acme-challenge/{token} HTTP/1.1\r\nhost: {host}\r\n\r\n");
        let answer = Client::connect(gateway.listener("web")).ask(request);
        assert_eq!(answer.status, 308, "as if nobody had been asked");
        begun.elapsed()
    };
    let patience = Duration::from_millis(1500);
    let waited = eventually_some("a question to the store", || {
        // While the store is known to be away nobody waits at all.
        Some(ask("a.test", "token")).filter(|waited| *waited >= patience / 2)
    });
    assert!(waited < patience * 3, "{waited:?}");
    let long = "a".repeat(129);
    for (host, token) in [("b.test", "token"), ("a.test", "to.ken"), ("a.test", ""), ("a.test", &long)] {
        assert!(ask(host, token) < patience / 2, "{host} {token}");
    }
    let asked = pki.client().offering(&["acme-tls/1"]);
    assert!(!asked.failure(gateway.listener("secure"), "a.test").is_empty());
}

#[test]
fn a_reload_does_not_connect_anew() {
    let (pki, redis) = (Authority::new(), Redis::start());
    let gateway = gateway(&pki);
    let pebble = Pebble::start(&setup(&gateway));
    let words = sharing(&pebble, &url(&redis), "");
    reload(&gateway, &words);
    issued(&gateway);
    let others = |redis: &Redis| {
        let clients: String = redis.ask(&["CLIENT", "LIST"]);
        clients.lines().filter(|line| !line.contains("cmd=client")).map(id).collect::<Vec<_>>()
    };
    let before = others(&redis);
    assert_eq!(before.len(), 1, "{before:?}");
    reload(&gateway, &words.replace("body: hello", "body: again"));
    let _: u32 = redis.ask(&["DEL", &key(&pebble.directory(), "cert", "a.test")]);
    reload(&gateway, &words);
    eventually("the gateway to have asked again", || !redis.keys(":cert:*").is_empty());
    assert_eq!(others(&redis), before);
}

fn id(line: &str) -> String {
    line.split(' ').find(|word| word.starts_with("id=")).unwrap().to_owned()
}
