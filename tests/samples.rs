//! Every sample in `conf/` is loaded as it stands and exercised: with its addresses pointed to this machine, its routes
//! answer as its comments say.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

mod client;
mod harness;

use std::collections::BTreeSet;
use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use client::{Answer, ask, echo};
use harness::tls::{Authority, Caller, Order, TLS12};
use portcullis::config::{
    Acme, AcmeStore, ApiKey, Balance, CertificateSource, Config, Endpoint, SecretSource, Store, Tls,
};
use portcullis::document::{Document, Environment, Errors};
use portcullis::{Gateway, Running};

const TOKEN: &str = "a-token-for-the-samples";

/// The samples that a test below exercises.
const EXERCISED: [&str; 11] = [
    "consumers.yaml",
    "cors.yaml",
    "edge.yaml",
    "full.yaml",
    "internal.yaml",
    "minimal.yaml",
    "rate-limiting.yaml",
    "resilience.yaml",
    "split.yaml",
    "tls.yaml",
    "traffic.yaml",
];

#[test]
fn every_sample_is_exercised() {
    let entries = fs::read_dir(folder()).unwrap().map(|entry| entry.unwrap());
    let samples =
        entries.filter(|entry| entry.path().is_file()).map(|entry| entry.file_name().into_string().unwrap());
    let samples: BTreeSet<String> = samples.collect();
    assert_eq!(samples, EXERCISED.map(str::to_owned).into(), "a sample needs a test in this file");
}

#[test]
fn every_sample_passes_check_as_it_stands() {
    let certificates = Certificates::issue();
    for sample in EXERCISED {
        let output = std::process::Command::new(env!("CARGO_BIN_EXE_portcullis"))
            .args(["check", "-c"])
            .arg(folder().join(sample))
            .current_dir(certificates.folder())
            .env_clear()
            .env("PORTCULLIS_ADMIN_TOKEN", TOKEN)
            .env("PORTCULLIS_ACME_KEY", "c2VjcmV0")
            .env("PORTCULLIS_STICKY_SECRET", TOKEN)
            .env("PORTCULLIS_WAREHOUSE_KEY", TOKEN)
            .output()
            .unwrap();
        assert!(output.status.success(), "{sample}: {}", String::from_utf8_lossy(&output.stderr));
    }
}

#[test]
fn resilience() {
    let running = start("resilience.yaml");
    for (method, path) in [("GET", "/orders/7"), ("POST", "/pay")] {
        let answer = ask(web(&running), method, path, &["Host: a.test"]);
        assert_eq!(answer.status, 200, "{}", answer.body);
    }
    assert_eq!(get(&running, "/pay", "a.test", &[]).status, 405);
}

#[test]
fn traffic() {
    let running = start("traffic.yaml");
    let get = |target, fields: &[&str]| get(&running, target, "a.test", fields);
    assert!(get("/checkout/1", &["x-canary: 1"]).head.contains("\r\nx-variant: canary"));
    assert!(get("/checkout/1", &[]).head.contains("\r\nset-cookie: visitor="));
    let old = get("/shop/v1/orders", &[]);
    assert!(old.status == 200 && old.head.contains("\r\ndeprecation: @1767225600"), "{}", old.head);
    assert!(!get("/shop/orders", &[]).head.contains("deprecation"));
    assert_eq!(get("/shop/v3/orders", &[]).status, 404);
}

#[test]
fn rate_limiting() {
    let running = start("rate-limiting.yaml");
    let search = |from: &str| get(&running, "/search?q=a", "gw", &[from]).status;
    assert_eq!(search("X-User-Id: a"), 200);
    assert!((0..500).any(|_| search("X-User-Id: a") == 429));
    assert_eq!(search("X-User-Id: b"), 200);
    // The store is away: it is counted here.
    let orders = get(&running, "/orders/7", "gw", &[]);
    assert_eq!(orders.status, 200);
    assert!(orders.head.contains("ratelimit-policy: \"default\";q=1000;w=60"), "{}", orders.head);
    let sign_in = || ask(web(&running), "POST", "/sign-in", &["Host: gw", "Content-Length: 0"]);
    let statuses: Vec<_> = (0..6).map(|_| sign_in().status).collect();
    assert_eq!(statuses, [200, 200, 200, 200, 200, 429]);
    assert_eq!(get(&running, "/reports/1", "gw", &[]).status, 200);
}

#[test]
fn minimal() {
    let running = start("minimal.yaml");
    let answer = get(&running, "/any/path?and=query", "a.test", &[]);
    assert_eq!(answer.status, 200);
    assert!(answer.body.starts_with("GET /any/path?and=query HTTP/1.1\r\n"), "{}", answer.body);
}

#[test]
fn consumers() {
    let running = start("consumers.yaml");
    let who = |path: &str, field: &str| {
        let answer = get(&running, path, "gw", &[field]);
        let name =
            answer.body.lines().find_map(|line| line.strip_prefix("x-consumer-name: ").map(str::to_owned));
        (answer.status, name.unwrap_or_default().trim().to_owned())
    };
    let key = format!("X-API-Key: {TOKEN}");
    for (path, field, status, name) in [
        ("/api/1", "X-API-Key: acme-old-key-0123456789", 200, "acme"),
        ("/api/1?apikey=acme-new-key-0123456789", "X-None: 1", 200, "acme"),
        ("/api/1", &key, 200, "warehouse"),
        ("/api/1", "X-Consumer-Name: acme", 401, ""),
        ("/reports/1", "Authorization: Basic YW5uYTpodW50ZXIyMg==", 200, "anna"),
        ("/reports/1", &key, 401, ""),
        ("/catalogue/1", &key, 200, "warehouse"),
        ("/catalogue/1", "X-None: 1", 200, "guest"),
        ("/catalogue/1", "X-API-Key: wrong", 401, ""),
    ] {
        assert_eq!(who(path, field), (status, name.to_owned()), "{path} {field}");
    }
}

#[test]
fn edge() {
    let running = start("edge.yaml");
    let www = get(&running, "/a/b", "example.com", &[]);
    assert_eq!(www.status, 308);
    assert!(www.head.contains("location: https://www.example.com/a/b"), "{}", www.head);
    let shop = get(&running, "/cart", "www.example.com", &["X-Request-Id: mine"]);
    assert_eq!(shop.status, 200);
    assert!(
        !shop.head.contains("server:") && shop.head.contains("x-content-type-options: nosniff"),
        "{}",
        shop.head
    );
    let long = format!("X-Long: {}", "a".repeat(1024));
    let long = get(&running, "/cart", "www.example.com", &[&long]);
    assert!(long.head.contains("vary: accept-encoding"), "{}", long.head);
    assert!(!shop.body.contains("mine"), "a stranger's request id went upstream: {}", shop.body);
    assert_eq!(ask(web(&running), "DELETE", "/cart", &["Host: www.example.com"]).status, 405);
    assert_eq!(get(&running, "/internal/x", "other.example", &[]).status, 404);
    assert_eq!(get(&running, "/cart", "other.example", &[]).status, 404);
    let long = format!("/{}", "a".repeat(5000));
    assert_eq!(get(&running, &long, "www.example.com", &[]).status, 414);
    let large = ["Host: www.example.com", "Content-Length: 2000000"];
    assert_eq!(ask(web(&running), "POST", "/cart", &large).status, 413);
}

#[test]
fn cors() {
    let running = start("cors.yaml");
    let page = ["Origin: https://a.b.shop.example.com", "Access-Control-Request-Method: PUT"];
    let allowed = "access-control-allow-origin: https://a.b.shop.example.com";
    let preflight =
        ask(web(&running), "OPTIONS", "/cart/7", &[&["Host: api.example.com"], &page[..]].concat());
    assert!(preflight.status == 204 && preflight.head.contains(allowed), "{}", preflight.head);
    assert!(preflight.head.contains("access-control-max-age: 600"), "{}", preflight.head);
    for (path, status) in [("/cart/7", 200), ("/admin/7", 403), ("/none", 404)] {
        let answer = get(&running, path, "api.example.com", &page[..1]);
        assert!(answer.status == status && answer.head.contains(allowed), "{path}: {}", answer.head);
    }
    let stranger = get(&running, "/cart/7", "api.example.com", &["Origin: https://shop.example.com"]);
    assert!(stranger.status == 200 && !stranger.head.contains("access-control-"), "{}", stranger.head);
}

#[test]
fn internal() {
    let running = start("internal.yaml");
    let users =
        get(&running, "/v1/users/7", "gw", &["X-Forwarded-For: 10.9.8.7", "X-Request-Id: from-the-balancer"]);
    assert!(users.body.starts_with("GET /users/7 HTTP/1.1"), "{}", users.body);
    let upstream = users.body.to_lowercase();
    assert!(
        upstream.contains("x-api-version: 1") && upstream.contains("x-request-id: from-the-balancer"),
        "{upstream}"
    );
    assert!(users.head.contains("x-request-id: from-the-balancer"), "{}", users.head);
    let canary = get(&running, "/v1/users/7", "gw", &["X-Env: canary"]);
    assert_eq!(canary.status, 200);
    assert_eq!(get(&running, "/tools/x", "gw", &["X-Forwarded-For: 10.8.0.1"]).status, 403);
    assert_eq!(get(&running, "/tools/x", "gw", &["X-Forwarded-For: 10.9.0.1"]).status, 200);
    let admin = running.admin().unwrap();
    assert_eq!(ask(admin, "GET", "/status", &["Host: localhost"]).status, 401);
    let authorization = format!("Authorization: Bearer {TOKEN}");
    assert_eq!(ask(admin, "GET", "/status", &["Host: localhost", &authorization]).status, 200);
}

#[test]
fn split() {
    let running = start("split.yaml");
    assert_eq!(get(&running, "/", "gw", &[]).body, "See /shop and /blog.\n");
    assert!(get(&running, "/shop/cart", "gw", &[]).body.starts_with("GET /cart HTTP/1.1"));
    assert!(get(&running, "/blog/1", "gw", &[]).body.starts_with("GET /blog/1 HTTP/1.1"));
}

#[test]
fn full() {
    let running = start("full.yaml");
    assert_eq!(get(&running, "/ping", "gw", &[]).body, "pong");
    assert_eq!(get(&running, "/v7/ping", "gw", &[]).status, 200);
    let old = get(&running, "/old/a", "gw", &[]);
    assert!(old.status == 308 && old.head.contains("location: https://new.example.com/a"), "{old:?}");
    let conditions = ["X-Env: canary", "X-Debug: 1", "X-Tenant: t-1", "Cookie: a=b"];
    assert_eq!(
        get(&running, "/orders/7?beta=1", "api.example.com", &conditions).status,
        403,
        "127.0.0.1 is no partner"
    );
    assert_eq!(get(&running, "/orders/7?beta=2", "api.example.com", &conditions).status, 404);
    let inside = running.address("inside").unwrap();
    assert_eq!(ask(inside, "GET", "/ping", &["Host: gw"]).status, 200);
}

#[test]
fn tls() {
    let certificates = Certificates::issue();
    let running = start_with("tls.yaml", &certificates);
    let web = get(&running, "/cart?a=b", "www.example.com", &[]);
    assert!(web.status == 308 && web.head.contains("location: https://www.example.com/cart?a=b"), "{web:?}");
    let secure = running.address("secure").unwrap();
    let ask = |caller: &Caller, host: &str| {
        let mut client = caller.connect(secure, host).unwrap();
        client.ask(format!("GET /cart HTTP/1.1\r\nhost: {host}\r\nx-partner: me\r\n\r\n"))
    };
    let stranger = certificates.0.client();
    let shop = ask(&stranger, "www.example.com");
    assert_eq!(shop.header("strict-transport-security"), Some("max-age=31536000; includeSubDomains"));
    assert!(shop.text().contains("x-forwarded-proto: https"), "{}", shop.text());
    assert_eq!(ask(&stranger.clone().speaking(&TLS12).suites("_RSA_"), "www.example.com").status, 200);
    stranger.failure(secure, "partners.example.com");
    let partner = ask(&stranger.with(&certificates.0.issue("partner", &[])), "partners.example.com");
    assert!(partner.text().contains("x-partner: CN=test,O=Example\\, Inc"), "{}", partner.text());
}

/// What the samples name as `certs/…`, in a folder of its own.
struct Certificates(Authority);

impl Certificates {
    fn issue() -> Self {
        let authority = Authority::new();
        fs::create_dir(authority.path("certs")).unwrap();
        fs::copy(authority.ca(), authority.path("certs/partners.pem")).unwrap();
        fs::copy(authority.ca(), authority.path("certs/ca.pem")).unwrap();
        authority.issue("certs/edge", &[]);
        fs::copy(authority.ca(), authority.path("certs/acme.pem")).unwrap();
        fs::copy(authority.ca(), authority.path("certs/redis.pem")).unwrap();
        let hosts = ["www.example.com"];
        authority.issue("certs/shop", &hosts);
        authority.issue_as("certs/shop-rsa", &Order { hosts: &hosts, rsa: true, ..Order::default() });
        authority.issue("certs/api", &["partners.example.com", "api.example.com"]);
        Self(authority)
    }

    fn folder(&self) -> PathBuf {
        self.0.path("")
    }

    /// The samples name files in the folder that the gateway is started in: these are elsewhere.
    fn place(&self, tls: &mut Tls) {
        let hosts = tls.hosts.values_mut().flat_map(|host| &mut host.client_auth);
        let authorities = hosts.chain(&mut tls.client_auth).map(|auth| &mut auth.ca);
        let files = tls.certificates.iter_mut().flat_map(|source| match source {
            CertificateSource::Files { cert, key } => vec![cert, key],
            CertificateSource::Acme { .. } => Vec::new(),
        });
        files.chain(authorities).for_each(|file| *file = self.0.path(file.to_str().unwrap()));
    }

    /// An authority that nobody reaches.
    fn nowhere(&self, acme: &mut Acme) {
        acme.directory = "https://127.0.0.1:1/directory".into();
        acme.store = AcmeStore::File(self.0.path("acme"));
        acme.ca = Some(self.0.ca());
        if let Some(account) = &mut acme.external_account {
            account.hmac_key = SecretSource::Word(portcullis::types::Secret::new("c2VjcmV0"));
        }
    }
}

fn get(running: &Running, target: &str, host: &str, fields: &[&str]) -> Answer {
    let host = format!("Host: {host}");
    ask(web(running), "GET", target, &[&[host.as_str()], fields].concat())
}

fn web(running: &Running) -> SocketAddr {
    running.address("web").unwrap()
}

fn folder() -> std::path::PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("conf")
}

/// Starts a sample on this machine: free ports on loopback, and upstreams that echo.
fn start(sample: &str) -> Running {
    start_with(sample, &Certificates::issue())
}

fn start_with(sample: &str, certificates: &Certificates) -> Running {
    let environment: Environment =
        [("PORTCULLIS_ADMIN_TOKEN", TOKEN), ("PORTCULLIS_WAREHOUSE_KEY", TOKEN)].into_iter().collect();
    let document = Document::load(&folder().join(sample), &environment).unwrap();
    let mut errors = Errors::default();
    let mut config = Config::read(&document, &mut errors);
    assert!(errors.is_empty(), "{}", errors.render(&document.sources));
    here(&mut config);
    config
        .listeners
        .iter_mut()
        .filter_map(|listener| listener.tls.as_mut())
        .for_each(|tls| certificates.place(tls));
    config.acme.values_mut().for_each(|acme| certificates.nowhere(acme));
    for Store::Redis(store) in config.stores.values_mut() {
        store.ca = store.ca.as_ref().map(|file| certificates.0.path(file.to_str().unwrap()));
    }
    for sink in &mut config.telemetry.events {
        let hook = &mut sink.webhook;
        hook.ca = hook.ca.as_ref().map(|file| certificates.0.path(file.to_str().unwrap()));
        hook.token = Some(portcullis::config::SecretSource::Word(portcullis::types::Secret::new(TOKEN)));
    }
    of_this_process(&mut config);
    Gateway::from_config(config).start().unwrap_or_else(|error| panic!("{sample}: {error}"))
}

/// The environment of this process does not have the secrets of consumers.
fn of_this_process(config: &mut Config) {
    let token = || portcullis::types::Secret::new(TOKEN);
    for consumer in &mut config.consumers {
        for key in &mut consumer.api_keys {
            if matches!(key, ApiKey::Words(words) if words.env.is_some()) {
                *key = ApiKey::Word(token());
            }
        }
        for login in &mut consumer.basic {
            if login.password.is_some() {
                login.password = Some(SecretSource::Word(token()));
            }
        }
    }
}

fn here(config: &mut Config) {
    let free: SocketAddr = "127.0.0.1:0".parse().unwrap();
    let echo = echo();
    config.listeners.iter_mut().for_each(|listener| listener.address = free.into());
    for upstream in config.upstreams.values_mut() {
        upstream.endpoints = vec![Endpoint::new(echo)];
        // Nobody knows its names here.
        upstream.discover = None;
        // The environment of this process does not have its secret.
        if let Balance::Sticky(sticky) = &mut upstream.balance {
            sticky.secret = None;
        }
        // The echo speaks in the clear.
        upstream.tls = None;
    }
    if let Some(admin) = &mut config.admin {
        admin.address = free;
        // The environment of this process does not have it.
        if admin.token.is_some() {
            admin.token = Some(portcullis::config::SecretSource::Word(portcullis::types::Secret::new(TOKEN)));
        }
    }
    config.server.upgrade_socket = None;
    config.server.drain_delay = portcullis::types::Duration::default();
    config.telemetry.access_log.output = "off".into();
}
