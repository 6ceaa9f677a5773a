//! Consumers: what upstreams are told of them and nobody can forge, what logs, metrics and the admin API say, several
//! filters on one route, and changes while the gateway runs.

use std::fs;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use portcullis::types::Selector;
use portcullis::{Exchange, Filter, Flow, Phases, Reply, Stage};

use crate::ask::{Ask, Asked, ask, echo, upstream};
use crate::harness::{Gateway, Http2, Origin, eventually};

const CONSUMERS: &str = r#"
consumers:
  - name: mobile
    groups: [partners, beta]
    api_keys: [the-first-key-of-mobile]
    basic: [{ username: bob, password: hunter22 }]
  - { name: shop, api_keys: [the-key-of-the-shop], basic: [{ username: alice, password: hunter33 }] }
  - { name: guest }
"#;
const MOBILE: &str = "x-api-key: the-first-key-of-mobile";
const SHOP: &str = "x-api-key: the-key-of-the-shop";

fn basic(credentials: &str) -> String {
    format!("authorization: Basic {}", STANDARD.encode(credentials))
}

fn gateway(origin: &Origin, filters: &str) -> Gateway {
    Gateway::start(&format!(
        "{}{CONSUMERS}server: {{ threads: 1, trusted_proxies: [127.0.0.9/32] }}\n\
         routes:\n  - {{ name: closed, path: /closed, filters: [{filters}], upstream: echo }}\n  \
         - {{ name: open, path: /open, upstream: echo }}\n",
        upstream(origin)
    ))
}

/// Every name by which an upstream could take a client for a consumer.
const FORGED: [&str; 14] = [
    "X-Consumer-Name",
    "x-consumer-name",
    "X_Consumer_Name",
    "x_consumer_name",
    "x-consumer_name",
    "x_consumer-groups",
    "X-CONSUMER-GROUPS",
    "x-consumer-username",
    "x-consumer-username-",
    "x-consumer-id",
    "x.consumer.name",
    "x-consumer-",
    "X-Anonymous-Consumer",
    "x_anonymous.consumer",
];

#[test]
fn nobody_can_say_that_it_is_a_consumer() {
    let origin = echo();
    let gateway = gateway(&origin, "api_key");
    for from in ["127.0.0.1", "127.0.0.9"] {
        for name in FORGED {
            for line in ["GET /open", "GET /closed"] {
                let fields = format!("{MOBILE}\n{name}: admin\n{name}: root");
                let answer = Ask::new(line).header(&fields).from(from).send(gateway.address());
                assert_eq!(answer.status, 200, "{}", answer.text());
                let (name, groups) =
                    if line == "GET /open" { ("-", "-") } else { ("mobile", "partners,beta") };
                let asked = Asked::of(&answer);
                assert_eq!(
                    (asked.header("x-consumer-name"), asked.header("x-consumer-groups")),
                    (name.into(), groups.into())
                );
                assert!(
                    !asked.fields.0.iter().any(|(_, value)| value == "admin" || value == "root"),
                    "{asked:?}"
                );
            }
        }
    }
    // What only looks like it passes.
    let asked = Asked::of(&ask(
        gateway.address(),
        "GET /open",
        "x-consumer: 1\nx-consumers-name: 2\nxaconsumer-name: 3\nconsumer-name: 4\nx-anonymous-consumers: 5\n\
         x--consumer-name: 6\nx__consumer-name: 7",
    ));
    for (name, value) in [
        ("x-consumer", "1"),
        ("x-consumers-name", "2"),
        ("xaconsumer-name", "3"),
        ("consumer-name", "4"),
        ("x-anonymous-consumers", "5"),
        // A variable of its own to whoever takes `-` for `_`.
        ("x--consumer-name", "6"),
        ("x__consumer-name", "7"),
    ] {
        assert_eq!(asked.header(name), value);
    }
}

#[test]
fn a_client_cannot_have_its_name_left_out() {
    let origin = echo();
    let gateway = gateway(&origin, "api_key");
    let fields = format!("{MOBILE}\nconnection: close, x-consumer-name, x-consumer-groups");
    let asked = Asked::of(&ask(gateway.address(), "GET /closed", &fields));
    assert_eq!(asked.header("x-consumer-name"), "mobile");
    assert!(!asked.header("connection").contains("consumer"), "{asked:?}");
}

#[test]
fn no_route_is_taken_by_a_forged_name() {
    let gateway = Gateway::start(
        "routes:\n  - { name: theirs, path: /*, headers: { x-consumer-name: admin }, respond: { body: theirs } }\n  \
         - { name: all, path: /*, respond: { body: all } }\n",
    );
    assert_eq!(ask(gateway.address(), "GET /", "x-consumer-name: admin").text(), "all");
    let mut client = Http2::connect(gateway.address());
    let answer = client.ask(client.request("GET", "/").header("x-consumer-name", "admin"));
    assert_eq!(answer.body, b"all");
}

#[test]
fn consumers_are_logged_and_counted() {
    let origin = echo();
    let gateway = gateway(&origin, "{ api_key: { anonymous: guest } }");
    for _ in 0..3 {
        ask(gateway.address(), "GET /closed", MOBILE);
    }
    ask(gateway.address(), "GET /closed", "");
    ask(gateway.address(), "GET /closed", "x-api-key: wrong");
    ask(gateway.address(), "GET /open", MOBILE);
    let count = |name| gateway.metric(&format!("portcullis_consumer_requests_total{{consumer=\"{name}\"}}"));
    eventually("all are counted", || (count("mobile"), count("guest"), count("shop")) == (3.0, 1.0, 0.0));
    gateway.logged(|line| line["consumer"] == "guest");
    assert!(gateway.log_of("/open")["consumer"].is_null());
    assert!(gateway.logged(|line| line["status"] == 401)["consumer"].is_null());
}

#[test]
fn a_log_in_a_format_of_its_own_names_the_consumer() {
    let gateway = Gateway::start(&format!(
        "{CONSUMERS}routes: [{{ name: all, path: /*, filters: [api_key], respond: {{}} }}]\n\
         telemetry: {{ log: {{ level: warn }}, access_log: {{ output: {{access_log}}, format: '{{{{\"who\":\"{{consumer}}\"}}}}' }} }}\n"
    ));
    ask(gateway.address(), "GET /", MOBILE);
    assert_eq!(gateway.log_line(0)["who"], "mobile");
}

#[test]
fn the_admin_api_shows_consumers_without_secrets() {
    let gateway = Gateway::start(
        r#"
consumers:
  - name: shop
    groups: [partners]
    api_keys:
      - the-key-of-the-shop
      - { sha256: f2d0c01f821e761b2f63ae0cc5e322aea45cc9ac73ed31a41180704b08e4b3f5, name: ours, expires: 2020-01-01 }
    basic:
      - { username: bob, password_hash: "$2y$04$3TjlkokmZGbWFVck1NR45.SPIXq4sBWIMIG9OkJlgWwFi7s/mj3rO", expires: 2999-12-31T12:00:00+01:00 }
      - { username: alice, password: hunter33 }
routes: [{ name: all, path: /*, respond: {} }]
"#,
    );
    assert_eq!(
        gateway.admin_get("/consumers").json(),
        serde_json::json!([{
            "name": "shop",
            "groups": ["partners"],
            "api_keys": [
                { "name": null, "expires": null, "expired": false },
                { "name": "ours", "expires": "Wed, 01 Jan 2020 00:00:00 GMT", "expired": true },
            ],
            "basic": [
                { "username": "bob", "expires": "Tue, 31 Dec 2999 11:00:00 GMT", "expired": false },
                { "username": "alice", "expires": null, "expired": false },
            ],
        }])
    );
    let config = gateway.admin_get("/config").text();
    for secret in ["the-key-of-the-shop", "f2d0c01f", "$2y$", "hunter33"] {
        assert!(!config.contains(secret), "{config}");
    }
    assert!(config.contains("\"sha256\":\"***\""), "{config}");
}

#[test]
fn several_filters_have_to_agree() {
    let origin = echo();
    let both = gateway(&origin, "api_key, basic");
    let who = |gateway: &Gateway, fields: &str| {
        let answer = ask(gateway.address(), "GET /closed", fields);
        match answer.status {
            200 => {
                let asked = Asked::of(&answer);
                format!("{} {}", asked.header("x-consumer-name"), asked.header("x-consumer-username"))
            }
            _ => format!("{} {}", answer.status, answer.json()["code"].as_str().unwrap()),
        }
    };
    for (fields, said) in [
        (format!("{MOBILE}\n{}", basic("bob:hunter22")), "mobile bob"),
        (format!("{SHOP}\n{}", basic("alice:hunter33")), "shop alice"),
        (format!("{SHOP}\n{}", basic("bob:hunter22")), "401 credentials_conflict"),
        (MOBILE.to_owned(), "401 credentials_missing"),
        (basic("bob:hunter22"), "401 credentials_missing"),
        (format!("{MOBILE}\n{}", basic("bob:hunter33")), "401 credentials_invalid"),
    ] {
        assert_eq!(who(&both, &fields), said, "{fields}");
    }
    // A guest of one filter is somebody for the next.
    let then = gateway(&origin, "{ api_key: { anonymous: guest } }, basic");
    assert_eq!(who(&then, &basic("bob:hunter22")), "mobile bob");
    assert_eq!(who(&then, MOBILE), "401 credentials_missing");
    // Whoever brings neither is the guest; whoever brings one is who it proves to be.
    let (key, name) = ("{ api_key: { anonymous: guest } }", "{ basic: { anonymous: guest } }");
    for filters in [format!("{key}, {name}"), format!("{name}, {key}")] {
        let either = gateway(&origin, &filters);
        for (fields, said) in [
            (String::new(), "guest -"),
            (MOBILE.to_owned(), "mobile -"),
            (basic("bob:hunter22"), "mobile bob"),
            (format!("{MOBILE}\n{}", basic("bob:hunter22")), "mobile bob"),
            (format!("{SHOP}\n{}", basic("bob:hunter22")), "401 credentials_conflict"),
            (format!("{SHOP}\n{}", basic("bob:wrong")), "401 credentials_invalid"),
        ] {
            assert_eq!(who(&either, &fields), said, "{filters}: {fields}");
        }
    }
}

#[test]
fn a_reload_changes_who_is_known() {
    let origin = echo();
    let with = |consumers: &str| {
        format!(
            "{}consumers: [{consumers}]\nroutes:\n  - {{ name: keys, path: /keys, filters: [api_key], upstream: echo }}\n  \
             - {{ name: names, path: /names, filters: [basic], upstream: echo }}\n",
            upstream(&origin)
        )
    };
    let hash = |password: &str| bcrypt::hash(password, 4).unwrap();
    let (first, second) = (hash("hunter22"), hash("hunter33"));
    let mobile = "name: mobile, groups: [a], api_keys: [the-first-key-of-mobile]";
    let gateway = Gateway::start_file(&with(&format!(
        "{{ {mobile}, basic: [{{ username: bob, password_hash: \"{first}\" }}] }}"
    )));
    let mut client = gateway.client();
    let mut status = |path: &str, field: &str| {
        client.ask(format!("GET {path} HTTP/1.1\r\nhost: a.test\r\n{field}\r\n\r\n")).status
    };
    assert_eq!(status("/keys", MOBILE), 200);
    assert_eq!(status("/names", &basic("bob:hunter22")), 200);
    assert_eq!(status("/names", &basic("bob:hunter33")), 401);

    // The same words, counted on.
    gateway.reload().unwrap();
    assert_eq!(status("/keys", MOBILE), 200);
    // Another key, another password, another group.
    let words = "name: mobile, groups: [b], api_keys: [the-second-key-of-mobile]";
    gateway
        .rewrite(&with(&format!("{{ {words}, basic: [{{ username: bob, password_hash: \"{second}\" }}] }}")));
    gateway.reload().unwrap();
    assert_eq!(status("/keys", MOBILE), 401);
    assert_eq!(status("/names", &basic("bob:hunter22")), 401, "what was remembered is of another hash");
    assert_eq!(status("/names", &basic("bob:hunter33")), 200);
    let asked = Asked::of(&ask(gateway.address(), "GET /keys", "x-api-key: the-second-key-of-mobile"));
    assert_eq!(asked.header("x-consumer-groups"), "b");
    eventually("all are counted", || {
        gateway.metric("portcullis_consumer_requests_total{consumer=\"mobile\"}") == 5.0
    });

    gateway.rewrite(&with(""));
    gateway.reload().unwrap();
    assert_eq!(status("/keys", "x-api-key: the-second-key-of-mobile"), 401);
    assert_eq!(status("/names", &basic("bob:hunter33")), 401);
}

#[test]
fn a_key_in_a_file_changes_with_the_file() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("key");
    fs::write(&file, "the-first-key-of-the-file\n").unwrap();
    let gateway = Gateway::start_file(&format!(
        "consumers: [{{ name: mobile, api_keys: [{{ file: {} }}] }}]\n\
         routes: [{{ name: all, path: /*, filters: [api_key], respond: {{}} }}]\n",
        file.display()
    ));
    let status = |key: &str| ask(gateway.address(), "GET /", &format!("x-api-key: {key}")).status;
    assert_eq!(status("the-first-key-of-the-file"), 200);
    let next = folder.path().join("next");
    fs::write(&next, "the-second-key-of-the-file\r\n").unwrap();
    fs::rename(&next, &file).unwrap();
    eventually("the new key is known", || status("the-second-key-of-the-file") == 200);
    assert_eq!(status("the-first-key-of-the-file"), 401);
}

/// Answers with what selectors find of who the client is.
struct WhoAmI;

impl Filter for WhoAmI {
    type State = ();

    fn phases(&self) -> Phases {
        Phases::REQUEST
    }

    fn request(&self, (): &mut (), exchange: &mut Exchange<'_>) -> portcullis::Result<Flow> {
        let found = |word: &str| {
            let found = exchange.select(&word.parse::<Selector>().unwrap());
            found.map_or("-".into(), |found| String::from_utf8_lossy(found.as_ref()).into_owned())
        };
        let words = ["consumer", "basic:username", "header:x-consumer-name"].map(found).join(" ");
        Ok(Reply::content(http::StatusCode::OK, words).into())
    }
}

#[test]
fn selectors_find_only_what_was_verified() {
    let gateway = Gateway::start_with(
        &format!(
            "{CONSUMERS}routes:\n  - {{ name: a, path: /a, filters: [api_key, who_am_i], respond: {{}} }}\n  \
             - {{ name: b, path: /b, filters: [basic, who_am_i], respond: {{}} }}\n  \
             - {{ name: c, path: /c, filters: [who_am_i], respond: {{}} }}\n"
        ),
        |gateway| gateway.filter("who_am_i", Stage::Limit, WhoAmI),
    );
    let all = format!("{MOBILE}\n{}\nx-consumer-name: admin", basic("bob:hunter22"));
    for (path, found) in [("/a", "mobile - -"), ("/b", "mobile bob -"), ("/c", "- - -")] {
        assert_eq!(ask(gateway.address(), &format!("GET {path}"), &all).text(), found, "{path}");
    }
}

#[test]
fn clients_that_have_proved_nothing_are_not_one_client() {
    let origin = echo();
    let limit = "{ rate_limit: { rate: 1/h, burst: 1, key: [consumer, ip] } }";
    let gateway = gateway(&origin, &format!("{{ api_key: {{ anonymous: guest }} }}, {limit}"));
    let told = |from: &str, fields: &str| {
        let answer = Ask::new("GET /closed").header(fields).from(from).send(gateway.address());
        let asked = (answer.status == 200).then(|| Asked::of(&answer));
        asked.map_or("refused".to_owned(), |asked| {
            format!("{} {}", asked.header("x-consumer-name"), asked.header("x-anonymous-consumer"))
        })
    };
    assert_eq!(told("127.0.0.1", ""), "guest true");
    assert_eq!(told("127.0.0.1", ""), "refused");
    assert_eq!(told("127.0.0.2", ""), "guest true", "another stranger");
    assert_eq!(told("127.0.0.1", SHOP), "shop -");
    assert_eq!(told("127.0.0.2", SHOP), "refused", "a consumer is one wherever it comes from");
}

#[test]
fn conditions_tell_those_that_have_proved_nothing() {
    let origin = echo();
    let filters = "{ api_key: { anonymous: guest } }, \
                   { ip_restriction: { deny: [127.0.0.0/8] }, when: consumer.anonymous }";
    let gateway = gateway(&origin, filters);
    let status = |fields: &str| ask(gateway.address(), "GET /closed", fields).status;
    assert_eq!(["", SHOP].map(status), [403, 200]);
}
