//! `api_key`: where keys are looked for, what is refused, what goes further.

use crate::ask::{Ask, Asked, ask, echo, upstream};
use crate::harness::{Gateway, Http2, Origin, Response};

const CONSUMERS: &str = r#"
consumers:
  - name: mobile
    groups: [partners, beta]
    api_keys:
      - the-first-key-of-mobile
      - { key: the-second-key-of-mobile, name: second, expires: 2999-01-01 }
      - { key: the-old-key-of-mobile, expires: 2020-01-01 }
  - name: shop
    # Of `the-key-of-the-shop`.
    api_keys:
      - { sha256: f2d0c01f821e761b2f63ae0cc5e322aea45cc9ac73ed31a41180704b08e4b3f6, expires: 2999-12-31T23:59:59Z }
  - name: guest
"#;

/// A gateway with a filter of these settings before an echo.
fn gateway(origin: &Origin, settings: &str) -> Gateway {
    Gateway::start(&format!(
        "{}{CONSUMERS}routes: [{{ name: all, path: /*, filters: [{{ api_key: {settings} }}], upstream: echo }}]",
        upstream(origin)
    ))
}

/// Who the upstream heard that it is.
#[track_caller]
fn passed(answer: &Response, consumer: &str) -> Asked {
    assert_eq!(answer.status, 200, "{}", answer.text());
    let asked = Asked::of(answer);
    assert_eq!(asked.header("x-consumer-name"), consumer);
    asked
}

#[track_caller]
fn refused(answer: &Response, code: &str) {
    assert_eq!((answer.status, answer.json()["code"].as_str()), (401, Some(code)), "{}", answer.text());
    assert_eq!(answer.header("www-authenticate"), Some("ApiKey realm=\"api\""));
}

#[test]
fn a_key_says_who_it_is() {
    let origin = echo();
    let gateway = gateway(&origin, "{}");
    for (key, consumer, groups) in [
        ("the-first-key-of-mobile", "mobile", "partners,beta"),
        ("the-second-key-of-mobile", "mobile", "partners,beta"),
        ("the-key-of-the-shop", "shop", "-"),
    ] {
        let asked = passed(&ask(gateway.address(), "GET /", &format!("x-api-key: {key}")), consumer);
        assert_eq!(asked.header("x-consumer-groups"), groups);
        assert_eq!(asked.header("x-consumer-username"), "-");
        assert_eq!(asked.header("x-api-key"), "-", "the key goes no further");
    }
    for (fields, code) in [
        ("", "credentials_missing"),
        ("x-api-key:", "credentials_missing"),
        ("x-api-key: the-first-key-of-mobil", "credentials_invalid"),
        ("x-api-key: The-first-key-of-mobile", "credentials_invalid"),
        // The hash of a key is no key.
        (
            "x-api-key: f2d0c01f821e761b2f63ae0cc5e322aea45cc9ac73ed31a41180704b08e4b3f6",
            "credentials_invalid",
        ),
        (&format!("x-api-key: {}", "k".repeat(10 << 10)), "credentials_invalid"),
        ("x-api-key: caf\u{e9}-caf\u{e9}-caf\u{e9}", "credentials_invalid"),
        ("x-api-key: the-old-key-of-mobile", "credentials_expired"),
        ("x-api-key: the-first-key-of-mobile\nx-api-key: the-second-key-of-mobile", "credentials_conflict"),
        ("x-api-key: the-first-key-of-mobile\nx-api-key: another", "credentials_conflict"),
        // Only where the settings say.
        ("apikey: the-first-key-of-mobile", "credentials_missing"),
        ("cookie: x-api-key=the-first-key-of-mobile", "credentials_missing"),
        ("authorization: Bearer the-first-key-of-mobile", "credentials_missing"),
    ] {
        refused(&ask(gateway.address(), "GET /?apikey=the-first-key-of-mobile", fields), code);
    }
    passed(
        &ask(gateway.address(), "GET /", "x-api-key: the-key-of-the-shop\nx-api-key: the-key-of-the-shop"),
        "shop",
    );
    let line = gateway.logged(|line| line["reason"] == "credentials_expired");
    assert_eq!((&line["status"], &line["consumer"]), (&401.into(), &serde_json::Value::Null));
    assert_eq!(
        gateway.metric("portcullis_filter_verdicts_total{route=\"all\",filter=\"api_key\",verdict=\"credentials_conflict\"}"),
        2.0
    );
}

#[test]
fn a_key_is_looked_for_in_every_place_and_hidden_there() {
    let origin = echo();
    let gateway = gateway(
        &origin,
        r#"{ from: ["header:x-key", "query:key", "query:api key", "cookie:key", "cookie:k2"] }"#,
    );
    let key = "the-key-of-the-shop";
    for (target, fields, sent, cookie) in [
        ("/a?b=1", format!("x-key: {key}"), "/a?b=1", "-"),
        (&format!("/a?key={key}"), String::new(), "/a", "-"),
        (&format!("/a?b=1&key={key}&c=%20"), String::new(), "/a?b=1&c=%20", "-"),
        (&format!("/a?%6bey={key}&keys=1&=2"), String::new(), "/a?keys=1&=2", "-"),
        ("/a?api+key=the%2Dkey%2dof-the-shop", String::new(), "/a", "-"),
        ("/a", format!("cookie: a=1; key={key}; b=2"), "/a", "a=1; b=2"),
        ("/a", format!("cookie: key={key}"), "/a", "-"),
        ("/a", format!("cookie: k2={key}; key={key}; key3=1"), "/a", "key3=1"),
        // Everywhere at once, as long as it is the same.
        (&format!("/a?key={key}&key={key}"), format!("x-key: {key}\ncookie: key={key}; c=3"), "/a", "c=3"),
    ] {
        let asked = passed(&ask(gateway.address(), &format!("GET {target}"), &fields), "shop");
        assert_eq!(
            (asked.target.as_str(), asked.header("cookie").as_str()),
            (sent, cookie),
            "{target} {fields}"
        );
        assert_eq!(asked.header("x-key"), "-");
    }
    for (target, fields) in [
        (format!("/a?key={key}&key=other"), String::new()),
        (format!("/a?key={key}"), "x-key: other".to_owned()),
        ("/a".to_owned(), format!("x-key: {key}\ncookie: key=other")),
    ] {
        refused(&ask(gateway.address(), &format!("GET {target}"), &fields), "credentials_conflict");
    }
    refused(&ask(gateway.address(), "GET /a?key=", "x-key:\ncookie: key="), "credentials_missing");
}

#[test]
fn a_key_can_be_left_to_the_upstream() {
    let origin = echo();
    let gateway = gateway(&origin, r#"{ hide: false, from: ["header:x-key", "query:key", "cookie:key"] }"#);
    let key = "the-key-of-the-shop";
    let fields = format!("x-key: {key}\ncookie: a=1; key={key}");
    let asked = passed(&ask(gateway.address(), &format!("GET /a?key={key}"), &fields), "shop");
    assert_eq!(asked.target, format!("/a?key={key}"));
    assert_eq!((asked.header("x-key"), asked.header("cookie")), (key.to_owned(), format!("a=1; key={key}")));
    // The log is nobody's upstream.
    assert_eq!(gateway.log_of("/a")["query"], "key=***");
}

#[test]
fn other_spellings_of_a_hidden_field_go_no_further() {
    let origin = echo();
    let gateway = gateway(&origin, "{}");
    let fields =
        "x-api-key: the-key-of-the-shop\nx_api_key: one\nx-api_key: two\nx.api.key: three\nx-api-keys: four";
    let asked = passed(&ask(gateway.address(), "GET /", fields), "shop");
    for (name, value) in [
        ("x-api-key", "-"),
        ("x_api_key", "-"),
        ("x-api_key", "-"),
        ("x.api.key", "-"),
        ("x-api-keys", "four"),
    ] {
        assert_eq!(asked.header(name), value, "{name}");
    }
}

#[test]
fn what_a_filter_set_in_place_of_the_key_stays() {
    let origin = echo();
    let gateway = Gateway::start(&format!(
        "{}{CONSUMERS}filters: [{{ headers: {{ request: {{ set: {{ authorization: ours }} }} }}, stage: admit }}]\n\
         routes: [{{ name: all, path: /*, upstream: echo, filters: [{{ api_key: {{ from: [\"header:authorization\"] }} }}] }}]",
        upstream(&origin)
    ));
    let answer = ask(gateway.address(), "GET /", "authorization: the-key-of-the-shop");
    assert_eq!(passed(&answer, "shop").header("authorization"), "ours");
}

#[test]
fn no_log_line_shows_a_key_of_the_query() {
    let origin = echo();
    let gateway = Gateway::start(&format!(
        "{}{CONSUMERS}filters: [{{ ip_restriction: {{ deny: [127.0.0.9] }} }}]\n\
         routes: [{{ name: all, path: /*, upstream: echo, filters: [{{ api_key: {{ from: [\"query:key\", \"query:k\"] }} }}] }}]",
        upstream(&origin)
    ));
    let target = |path: &str| format!("GET {path}?a=b+c&key=the-key-of-the-shop&%6b=the-key-of-the-shop&d");
    let answer = ask(gateway.address(), &target("/passed"), "");
    assert_eq!(passed(&answer, "shop").target, "/passed?a=b+c&d");
    refused(&ask(gateway.address(), "GET /wrong?key=wrong&a=b+c", ""), "credentials_invalid");
    // One who was refused before anybody looked for a key.
    assert_eq!(Ask::new(&target("/early")).from("127.0.0.9").send(gateway.address()).status, 403);
    assert_eq!(gateway.log_of("/passed")["query"], "a=b+c&key=***&%6b=***&d");
    assert_eq!(gateway.log_of("/wrong")["query"], "key=***&a=b+c");
    assert_eq!(gateway.log_of("/early")["query"], "a=b+c&key=***&%6b=***&d");
}

#[test]
fn no_log_line_shows_a_key_whatever_route_it_took() {
    let origin = echo();
    let config = |name: &str| {
        format!(
            "{}{CONSUMERS}routes:\n  - {{ name: keyed, path: /keyed, upstream: echo, filters: [{{ api_key: {{ from: \
             [\"query:{name}\"] }}, when: 'request.method == \"PUT\"' }}] }}\n  - {{ name: open, path: /open, upstream: echo }}\n",
            upstream(&origin)
        )
    };
    let gateway = Gateway::start_file(&config("key"));
    for path in ["/keyed", "/open", "/none"] {
        ask(gateway.address(), &format!("GET {path}?a=1&key=the-key-of-the-shop"), "");
        assert_eq!(gateway.log_of(path)["query"], "a=1&key=***");
    }
    gateway.rewrite(&config("another"));
    gateway.reload().unwrap();
    ask(gateway.address(), "GET /again?another=the-key-of-the-shop", "");
    assert_eq!(gateway.log_of("/again")["query"], "another=***");
}

#[test]
fn a_rewritten_path_keeps_the_query_without_the_key() {
    let origin = echo();
    let gateway = Gateway::start(&format!(
        "{}{CONSUMERS}routes: [{{ name: all, path: /*, upstream: echo, filters: [{{ rewrite: {{ add_prefix: /v1 }} }},\
         {{ api_key: {{ from: [\"query:key\"] }} }}] }}]",
        upstream(&origin)
    ));
    let answer = ask(gateway.address(), "GET /a?b=1&key=the-key-of-the-shop", "");
    assert_eq!(passed(&answer, "shop").target, "/v1/a?b=1");
}

#[test]
fn clients_without_a_key_may_be_somebody_who_stands_for_them() {
    let origin = echo();
    let gateway = gateway(&origin, r#"{ anonymous: guest, realm: "the \"shop\"" }"#);
    passed(&ask(gateway.address(), "GET /", ""), "guest");
    passed(&ask(gateway.address(), "GET /", "x-api-key: the-key-of-the-shop"), "shop");
    let answer = ask(gateway.address(), "GET /", "x-api-key: wrong");
    assert_eq!((answer.status, answer.json()["code"].as_str()), (401, Some("credentials_invalid")));
    assert_eq!(answer.header("www-authenticate"), Some(r#"ApiKey realm="the \"shop\"""#));
}

#[test]
fn calls_of_grpc_are_refused_in_its_words() {
    let origin = Origin::ok();
    let gateway = Gateway::start(&format!(
        "{CONSUMERS}upstreams: {{ s: {{ protocol: http2, endpoints: [\"{}\"] }} }}\n\
         routes: [{{ name: calls, path: /*, filters: [api_key], upstream: s }}]",
        origin.address()
    ));
    let mut client = Http2::connect(gateway.address());
    let call =
        client.request("POST", "/s/M").header("content-type", "application/grpc").header("te", "trailers");
    let answer = client.send(call, b"\0\0\0\0\0");
    let ended = answer.trailers.unwrap_or(answer.fields);
    assert_eq!((answer.status.as_u16(), ended["grpc-status"].to_str().unwrap()), (200, "16"));
    assert!(ended["grpc-message"].to_str().unwrap().starts_with("credentials_missing"));
    let line = gateway.log_of("/s/M");
    assert_eq!((&line["grpc_status"], &line["reason"]), (&16.into(), &"credentials_missing".into()));
}

#[test]
fn over_http_2_a_key_is_a_key() {
    let origin = echo();
    let gateway = gateway(&origin, "{}");
    let mut client = Http2::connect(gateway.address());
    let request =
        client.request("GET", "/").header("x-api-key", "the-key-of-the-shop").header("x-consumer-name", "me");
    let answer = client.ask(request);
    let text = String::from_utf8(answer.body).unwrap();
    assert!(text.contains("x-consumer-name: shop\n") && !text.contains(": me"), "{text}");
}
