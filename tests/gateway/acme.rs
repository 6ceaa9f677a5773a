//! Certificates by ACME, from a real authority.

use std::fs;
use std::path::Path;
use std::time::{Duration, SystemTime};

use serde_json::Value;

use crate::harness::pebble::{Front, HMAC_KEY, KEY_ID, Pebble, Setup};
use crate::harness::tls::{Authority, shown};
use crate::harness::{Client, Gateway, Nobody, eventually, eventually_some};

const ROUTES: &str = "routes: [{ name: all, path: /*, respond: { body: hello } }]\n";

/// A plaintext listener `web` that redirects, and `secure` with these certificates.
pub fn listeners(certificates: &str) -> String {
    format!(
        "listeners:\n\
         - {{ name: secure, address: \"127.0.0.1:0\", tls: {{ certificates: [{certificates}] }} }}\n\
         - {{ name: web, address: \"127.0.0.1:0\", redirect_to_https: {{}} }}\n{ROUTES}"
    )
}

/// The authority `ca`, with these words more, and a certificate of it for these hosts.
pub fn ordering(hosts: &str, directory: &str, ca: &Path, store: &Path, words: &str) -> String {
    let comma = if words.is_empty() { "" } else { ", " };
    format!(
        "{}acme: {{ ca: {{ directory: \"{directory}\", ca: {}, email: ops@example.com, store: {{ file: {} }}{comma}{words} }} }}\n",
        listeners(&format!("{{ acme: ca, hosts: [{hosts}] }}")),
        ca.display(),
        store.display()
    )
}

/// A gateway with a certificate from files; its ports are known, so that an authority can be started for it.
fn gateway(pki: &Authority) -> Gateway {
    Gateway::start_file(&listeners(&pki.issue("own", &["own.test"]).words()))
}

pub fn setup(gateway: &Gateway) -> Setup {
    Setup { http: gateway.listener("web").port(), tls: gateway.listener("secure").port(), ..Setup::default() }
}

fn reload(gateway: &Gateway, yaml: &str) {
    gateway.rewrite(yaml);
    gateway.reload().unwrap();
}

fn certificates(gateway: &Gateway) -> Vec<Value> {
    serde_json::from_str(&gateway.admin_get("/certificates").text()).unwrap()
}

fn state(gateway: &Gateway) -> Value {
    certificates(gateway)[0]["acme"].clone()
}

pub fn orders(gateway: &Gateway, result: &str) -> f64 {
    gateway.metric(&format!("portcullis_acme_orders_total{{directory=\"ca\",result=\"{result}\"}}"))
}

pub fn proofs(gateway: &Gateway) -> f64 {
    gateway.metric(
        "portcullis_tls_handshakes_total{listener=\"secure\",result=\"acme_challenge\",version=\"-\"}",
    )
}

/// Waits for a certificate, and says how long it lasts.
fn issued(gateway: &Gateway) -> Value {
    eventually_some("a certificate", || {
        let first = certificates(gateway).remove(0);
        assert!(first["acme"]["error"].is_null(), "{first}");
        (first["acme"]["state"] == "issued" && first["not_after"].is_string()).then_some(first)
    })
}

fn hello(client: &mut Client, host: &str) {
    assert_eq!(client.ask(format!("GET / HTTP/1.1\r\nhost: {host}\r\n\r\n")).text(), "hello");
}

#[test]
fn a_certificate_is_ordered_by_http_served_at_once_and_again_after_a_restart() {
    let (pki, store) = (Authority::new(), tempfile::tempdir().unwrap());
    let gateway = gateway(&pki);
    let mut pebble = Pebble::start(&Setup { nonces: 50, tls: 1, ..setup(&gateway) });
    let mut before = pki.client().connect(gateway.listener("secure"), "own.test").unwrap();
    let words =
        ordering("b.test, A.test", &pebble.directory(), &pebble.ca(), store.path(), "challenge: http");
    reload(&gateway, &words);

    let view = issued(&gateway);
    assert_eq!(view["hosts"], serde_json::json!(["a.test", "b.test"]));
    assert_eq!(view["acme"]["directory"], "ca");
    assert!(view["acme"]["next"].is_string() && view["acme"]["error"].is_null(), "{view}");
    hello(&mut before, "own.test");
    for host in ["a.test", "b.test"] {
        hello(&mut pebble.client().connect(gateway.listener("secure"), host).unwrap(), host);
    }
    assert_eq!((orders(&gateway, "success"), orders(&gateway, "failure")), (1.0, 0.0));
    assert!(gateway.metric("portcullis_certificate_expiry_timestamp_seconds{host=\"a.test\"}") > 1.7e9);
    assert_eq!(proofs(&gateway), 0.0);

    let redirected = Client::connect(gateway.listener("web"))
        .ask("GET /.well-known/acme-challenge/unknown HTTP/1.1\r\nhost: a.test\r\n\r\n");
    assert_eq!(redirected.status, 308, "a token that is not under way is none of ours");

    let caller = pebble.client();
    gateway.shutdown();
    pebble.stop();
    let again = Gateway::start(&words);
    hello(&mut caller.connect(again.listener("secure"), "a.test").unwrap(), "a.test");
    assert_eq!(orders(&again, "success"), 0.0);
}

#[test]
fn a_certificate_is_ordered_in_the_handshake() {
    let (pki, store) = (Authority::new(), tempfile::tempdir().unwrap());
    let gateway = gateway(&pki);
    let pebble = Pebble::start(&Setup { http: 1, nonces: 50, ..setup(&gateway) });
    let words = ordering("a.test", &pebble.directory(), &pebble.ca(), store.path(), "challenge: tls_alpn");
    reload(&gateway, &words);
    issued(&gateway);
    hello(&mut pebble.client().connect(gateway.listener("secure"), "a.test").unwrap(), "a.test");
    assert!(proofs(&gateway) >= 1.0);
    let asked = pebble.client().offering(&["acme-tls/1"]);
    let refused = asked.failure(gateway.listener("secure"), "a.test");
    assert!(refused.contains("NoApplicationProtocol"), "nothing is under way: {refused}");
}

#[test]
fn what_cannot_be_proved_in_the_handshake_is_proved_by_http() {
    let (pki, store, nobody) = (Authority::new(), tempfile::tempdir().unwrap(), Nobody::new());
    let gateway = gateway(&pki);
    let pebble = Pebble::start(&Setup { tls: nobody.address().port(), ..setup(&gateway) });
    reload(&gateway, &ordering("a.test", &pebble.directory(), &pebble.ca(), store.path(), ""));
    issued(&gateway);
    assert_eq!((orders(&gateway, "success"), proofs(&gateway)), (1.0, 0.0));
}

#[test]
fn an_account_that_was_made_elsewhere_is_bound() {
    let (pki, store) = (Authority::new(), tempfile::tempdir().unwrap());
    let gateway = gateway(&pki);
    let pebble = Pebble::start(&Setup { external: true, ..setup(&gateway) });
    let words = |id: &str| {
        let account = format!("external_account: {{ key_id: {id}, hmac_key: {HMAC_KEY} }}");
        ordering("a.test", &pebble.directory(), &pebble.ca(), store.path(), &account)
    };
    reload(&gateway, &words("kid-unknown"));
    let failed =
        eventually_some("a failure", || Some(state(&gateway)).filter(|state| state["state"] == "failed"));
    assert_eq!(failed["failures"], 1);
    assert!(failed["next"].is_string() && failed["error"].as_str().unwrap().contains("refuses"), "{failed}");
    assert_eq!(orders(&gateway, "failure"), 1.0);

    let other = tempfile::tempdir().unwrap();
    let fresh = words(KEY_ID).replace(store.path().to_str().unwrap(), other.path().to_str().unwrap());
    reload(&gateway, &fresh);
    issued(&gateway);
    assert!(!gateway.admin_get("/config").text().contains(HMAC_KEY));
}

#[test]
fn an_account_that_the_directory_has_forgotten_is_made_anew() {
    let (pki, store) = (Authority::new(), tempfile::tempdir().unwrap());
    let gateway = gateway(&pki);
    let pebble = Pebble::start(&setup(&gateway));
    let words =
        |host: &str| ordering(host, &pebble.directory(), &pebble.ca(), store.path(), "challenge: http");
    reload(&gateway, &words("a.test"));
    issued(&gateway);
    let folder = fs::read_dir(store.path()).unwrap().next().unwrap().unwrap().path();
    let kept = folder.join("account.json");
    let account = fs::read_to_string(&kept).unwrap();
    let unknown = account.replace("/my-account/", "/my-account/not-");
    assert_ne!(account, unknown);
    fs::write(&kept, &unknown).unwrap();
    reload(&gateway, &words("b.test"));
    issued(&gateway);
    assert!(!fs::read_to_string(&kept).unwrap().contains("not-"));
}

#[test]
fn a_certificate_is_renewed_while_connections_go_on() {
    let (pki, store) = (Authority::new(), tempfile::tempdir().unwrap());
    let gateway = gateway(&pki);
    let pebble = Pebble::start(&Setup { seconds: 9, ..setup(&gateway) });
    reload(&gateway, &ordering("a.test", &pebble.directory(), &pebble.ca(), store.path(), ""));
    issued(&gateway);
    let caller = pebble.client();
    let mut first = caller.connect(gateway.listener("secure"), "a.test").unwrap();
    hello(&mut first, "a.test");
    let old = shown(&first);
    eventually("a renewal", || {
        // One that does not resume: it would be shown nothing new.
        let next = caller.clone().offering(&[]).connect(gateway.listener("secure"), "a.test").unwrap();
        shown(&next) != old
    });
    hello(&mut first, "a.test");
    assert!(orders(&gateway, "success") >= 2.0);
}

#[test]
fn a_certificate_is_renewed_when_the_authority_suggests_it() {
    let (pki, store) = (Authority::new(), tempfile::tempdir().unwrap());
    let gateway = gateway(&pki);
    // Two thirds of this life are far away.
    let pebble = Pebble::start(&Setup { seconds: 60, ..setup(&gateway) });
    let advice = |path: &str| {
        assert!(path.starts_with("/advice/") && path.contains('.'), "{path}");
        let body = r#"{"suggestedWindow":{"start":"2020-01-01T00:00:00Z","end":"2020-01-02T00:00:00Z"}}"#;
        format!("200 OK\r\nretry-after: 21600\r\ncontent-length: {}\r\n\r\n{body}", body.len())
    };
    let change = |directory: &mut Value, own: &str| directory["renewalInfo"] = format!("{own}/advice").into();
    let front = Front::start(&pebble, change, advice);
    reload(&gateway, &ordering("a.test", &front.directory(), &pebble.ca(), store.path(), ""));
    eventually("a renewal", || orders(&gateway, "success") == 2.0);
    assert_eq!(orders(&gateway, "failure"), 0.0);
}

#[test]
fn a_directory_that_wants_to_be_left_alone_is() {
    let (pki, store) = (Authority::new(), tempfile::tempdir().unwrap());
    let gateway = gateway(&pki);
    let pebble = Pebble::start(&setup(&gateway));
    let busy = |_: &str| {
        let body = r#"{"type":"urn:ietf:params:acme:error:rateLimited","detail":"too many accounts"}"#;
        let length = body.len();
        format!("429 Too Many Requests\r\nretry-after: 5000\r\ncontent-length: {length}\r\n\r\n{body}")
    };
    let change = |directory: &mut Value, own: &str| directory["newAccount"] = format!("{own}/account").into();
    let front = Front::start(&pebble, change, busy);
    reload(&gateway, &ordering("a.test", &front.directory(), &pebble.ca(), store.path(), ""));
    let state = eventually_some("a failure", || Some(state(&gateway)).filter(|state| state["failures"] == 1));
    assert!(state["error"].as_str().unwrap().contains("too many accounts"), "{state}");
    let next = httpdate::parse_http_date(state["next"].as_str().unwrap()).unwrap();
    let wait = next.duration_since(SystemTime::now()).unwrap();
    assert!(wait > Duration::from_secs(4900) && wait <= Duration::from_secs(5000), "{wait:?}");
}

#[test]
fn of_two_gateways_with_one_store_one_orders() {
    let (pki, store) = (Authority::new(), tempfile::tempdir().unwrap());
    let first = gateway(&pki);
    let pebble = Pebble::start(&Setup { sleep: 5, ..setup(&first) });
    let words = ordering("a.test", &pebble.directory(), &pebble.ca(), store.path(), "");
    reload(&first, &words);
    eventually("an order", || state(&first)["state"] == "ordering");
    let second = Gateway::start(&words);
    let serials = [&first, &second].map(|gateway| issued(gateway)["serial"].clone());
    assert_eq!(serials[0], serials[1]);
    assert_eq!((orders(&first, "success"), orders(&second, "success")), (1.0, 0.0));
    assert_eq!(orders(&second, "failure"), 0.0);
}

#[test]
fn until_there_is_a_certificate_a_handshake_fails_or_gets_another() {
    let (pki, store, nobody) = (Authority::new(), tempfile::tempdir().unwrap(), Nobody::new());
    let own = pki.issue("own", &["own.test"]);
    let directory = format!("https://{}/dir", nobody.address());
    let words = ordering("a.test", &directory, &pki.ca(), store.path(), "");
    let alone = Gateway::start(&words);
    let failure = pki.client().failure(alone.listener("secure"), "a.test");
    assert!(failure.contains("AccessDenied"), "{failure}");
    let counted =
        "portcullis_tls_handshakes_total{listener=\"secure\",result=\"no_certificate\",version=\"-\"}";
    eventually("the failure to be counted", || alone.metric(counted) == 1.0);
    eventually("a failed order", || state(&alone)["state"] == "failed");
    let error = state(&alone)["error"].as_str().unwrap().to_owned();
    assert!(error.contains("127.0.0.1 cannot be asked") && error.contains("refused"), "{error}");
    alone.shutdown();

    let both = words.replace("certificates: [", &format!("certificates: [{}, ", own.words()));
    let beside = Gateway::start(&both);
    let refused = pki.client().failure(beside.listener("secure"), "a.test");
    assert!(refused.contains("not valid for name"), "it gets the other: {refused}");
    hello(&mut pki.client().connect(beside.listener("secure"), "own.test").unwrap(), "own.test");
    let kept = certificates(&beside)[1]["acme"].clone();
    eventually("what is known from before", || certificates(&beside)[1]["acme"]["state"] == "failed");
    assert_eq!(orders(&beside, "failure"), 0.0, "a restart does not ask again at once: {kept}");
}
