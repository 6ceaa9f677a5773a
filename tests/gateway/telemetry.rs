//! What the operator sees: the access log in every shape, and metrics that move as they should.

use std::collections::BTreeSet;
use std::fs;
use std::net::TcpListener;
use std::time::Duration;

use serde_json::Value;

use crate::ask::{Ask, ask, echo, upstream};
use crate::harness::{Gateway, Origin, Then, eventually, eventually_some};

/// A gateway with these words under `access_log`; `{access_log}` in them is the path that [`text_log`] reads.
fn logging(origin: &Origin, words: &str) -> Gateway {
    Gateway::start(&format!(
        "{}telemetry: {{ log: {{ level: warn }}, access_log: {{ {words} }} }}\n\
         routes:\n\
         - {{ name: all, path: /*, upstream: echo }}\n\
         - {{ name: own, path: /own, respond: {{ status: 202, headers: {{ set-cookie: secret2, x-pot: short }}, body: own }} }}",
        upstream(origin)
    ))
}

/// Waits for so many lines of the access log.
fn lines(gateway: &Gateway, count: usize) -> Vec<String> {
    eventually_some("lines in the access log", || {
        let text = fs::read_to_string(gateway.dir().join("access.log")).unwrap_or_default();
        let lines: Vec<String> = text.lines().map(str::to_owned).collect();
        (lines.len() >= count && text.ends_with('\n')).then_some(lines)
    })
}

#[test]
fn a_json_line_tells_the_whole_exchange() {
    let origin = echo();
    let gateway = logging(&origin, "output: '{access_log}', format: json");
    let body = Ask::new("POST /a/./%62?x=1&y=%22")
        .header("host: Api.Test:80\nuser-agent: \"quoted\\\" agent\nreferer: http://a.test/")
        .body("hello")
        .send(gateway.address())
        .body
        .len();
    let line = gateway.log_line(0);
    for (key, value) in [
        ("client_ip", Value::from("127.0.0.1")),
        ("listener", "web".into()),
        ("route", "all".into()),
        ("method", "POST".into()),
        ("host", "Api.Test:80".into()),
        ("path", "/a/b".into()),
        ("query", "x=1&y=%22".into()),
        ("protocol", "HTTP/1.1".into()),
        ("status", 200.into()),
        ("upstream", "echo".into()),
        ("endpoint", origin.address().to_string().into()),
        ("tries", 1.into()),
        ("bytes_in", 5.into()),
        ("bytes_out", body.into()),
        ("user_agent", "\"quoted\\\" agent".into()),
        ("referer", "http://a.test/".into()),
    ] {
        assert_eq!(line[key], value, "{key} in {line}");
    }
    assert!(
        line["duration_ms"].as_f64().unwrap() >= line["upstream_duration_ms"].as_f64().unwrap(),
        "{line}"
    );
    let time = line["time"].as_str().unwrap();
    assert!(time.starts_with("20") && time.ends_with('Z'), "{time}");
    assert_eq!(line["request_id"].as_str().unwrap().len(), 32);
    assert_eq!(line.get("reason"), None, "{line}");

    ask(gateway.address(), "GET /own", "");
    let own = gateway.log_line(1);
    assert_eq!((&own["status"], &own["tries"], &own["bytes_out"]), (&202.into(), &0.into(), &3.into()));
    for key in ["upstream", "endpoint", "upstream_duration_ms", "query", "referer"] {
        assert_eq!(own.get(key), None, "{key} in {own}");
    }
}

#[test]
fn a_request_that_no_route_takes_has_no_route_in_its_line() {
    let gateway = Gateway::start("routes: []");
    ask(gateway.address(), "GET /none", "");
    let line = gateway.log_line(0);
    assert_eq!(
        (line.get("route"), &line["status"], &line["reason"]),
        (None, &404.into(), &"route_not_found".into())
    );
}

#[test]
fn combined_is_the_form_of_apache_and_nginx() {
    let origin = echo();
    let gateway = logging(&origin, "output: '{access_log}', format: combined");
    Ask::new("GET /own?q=1").header("user-agent: a \"b\"").send(gateway.address());
    let line = lines(&gateway, 1).remove(0);
    let (before, rest) = line.split_once(" [").unwrap();
    let (time, after) = rest.split_once("] ").unwrap();
    assert_eq!(before, "127.0.0.1 - -");
    assert!(time.len() == 26 && time.ends_with("+0000"), "{time}");
    assert!(after.starts_with("\"GET /own?q=1 HTTP/1.1\" 202 3 \"-\" \"a "), "{after}");
    assert_eq!(after.matches('"').count(), 6, "no quote of the client's closes a field: {after}");
}

#[test]
fn a_template_shows_what_it_names_and_hides_what_is_redacted() {
    let origin = echo();
    let template = "{{{status}}} {method} {path} {request_header.authorization} {request_header.x-env} \
                    {request_header.x-none} {response_header.set-cookie} {response_header.x-pot}";
    for (redact, shown) in [
        ("", "{202} GET /own [redacted] canary, beta - [redacted] short"),
        (", redact: [x-env]", "{202} GET /own secret1 [redacted] - secret2 short"),
        (", redact: []", "{202} GET /own secret1 canary, beta - secret2 short"),
    ] {
        let gateway = logging(&origin, &format!("output: '{{access_log}}', format: '{template}'{redact}"));
        let sent = "authorization: secret1\nx-env: canary\nx-env: beta";
        ask(gateway.address(), "GET /own", sent);
        assert_eq!(lines(&gateway, 1), [shown], "{redact}");
    }
}

#[test]
fn a_template_shows_the_response_as_the_client_got_it() {
    let origin = echo();
    let gateway = Gateway::start(&format!(
        "{}telemetry: {{ access_log: {{ output: '{{access_log}}', format: '{{response_header.x-origin}} {{response_header.server}}' }} }}\n\
         routes: [{{ name: a, path: /*, upstream: echo, filters: [headers: {{ response: {{ set: {{ x-origin: changed }} }} }}] }}]",
        upstream(&origin)
    ));
    ask(gateway.address(), "GET /a", "");
    assert_eq!(lines(&gateway, 1), ["changed echo"]);
}

#[test]
fn off_writes_nothing() {
    let origin = echo();
    let gateway = logging(&origin, "output: off");
    ask(gateway.address(), "GET /own", "");
    let before = fs::read_dir(gateway.dir()).unwrap().count();
    gateway.shutdown();
    assert_eq!(before, 0);
}

#[test]
fn sampling_keeps_the_shares_it_is_told() {
    let origin = echo();
    // Settings, and which of a success, a slow success and an error are kept.
    for (sample, kept) in [
        ("{}", vec!["/ok", "/slow", "/bad"]),
        ("{ success: 0% }", vec!["/bad"]),
        ("{ errors: 0% }", vec!["/ok", "/slow"]),
        ("{ success: 0%, errors: 0% }", vec![]),
        ("{ success: 0%, errors: 0%, slow: 150ms }", vec!["/slow"]),
        ("{ success: 0%, slow: 150ms }", vec!["/slow", "/bad"]),
    ] {
        let slow = Origin::start(|visit| {
            std::thread::sleep(Duration::from_millis(160));
            visit.answer("HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n")
        });
        let gateway = Gateway::start(&format!(
            "upstreams: {{ echo: {{ endpoints: [\"{}\"] }}, slow: {{ endpoints: [\"{}\"] }} }}\n\
             telemetry: {{ access_log: {{ output: '{{access_log}}', sample: {sample} }} }}\n\
             routes:\n\
             - {{ name: ok, path: /ok, respond: {{ body: ok }} }}\n\
             - {{ name: slow, path: /slow, upstream: slow }}\n\
             - {{ name: end, path: /end, upstream: echo }}",
            origin.address(),
            slow.address()
        ));
        for path in ["/ok", "/slow", "/bad"] {
            ask(gateway.address(), &format!("GET {path}"), "");
        }
        let log = gateway.dir().join("access.log");
        let kept: Vec<&str> = kept;
        // What is written when the gateway has ended is all there is.
        let copy = tempfile::NamedTempFile::new().unwrap();
        let shown = || {
            let text = fs::read_to_string(&log).unwrap_or_default();
            fs::write(copy.path(), &text).unwrap();
            text.lines()
                .filter_map(|line| {
                    Some(serde_json::from_str::<Value>(line).ok()?["path"].as_str()?.to_owned())
                })
                .collect::<Vec<_>>()
        };
        eventually("all that is kept is written", || shown().len() >= kept.len());
        assert_eq!(shown(), kept, "{sample}");
    }
}

#[test]
fn a_share_is_about_what_it_says() {
    let gateway = Gateway::start(
        "telemetry: { access_log: { output: '{access_log}', sample: { success: 50% } } }\n\
         routes: [{ name: ok, path: /ok, respond: { body: ok } }]",
    );
    let mut client = gateway.client();
    for _ in 0..400 {
        client.get("/ok");
    }
    // The last line is always kept, and says that all before it were written.
    client.get("/end");
    gateway.log_of("/end");
    let kept = gateway.log().len() - 1;
    assert!((120..280).contains(&kept), "{kept} of 400");
}

#[test]
fn lines_that_cannot_be_written_are_counted_and_cost_no_request() {
    let gateway = Gateway::start(
        "telemetry: { log: { level: error }, access_log: { output: /dev/full } }\n\
         routes: [{ name: ok, path: /ok, respond: { body: ok } }]",
    );
    for _ in 0..10 {
        assert_eq!(gateway.get("/ok").status, 200);
    }
    eventually("lost lines are counted", || gateway.metric("portcullis_access_log_dropped_total") == 10.0);
}

/// The names of our metric families.
fn families(text: &str) -> BTreeSet<String> {
    let types = text.lines().filter_map(|line| line.strip_prefix("# TYPE portcullis_"));
    types.filter_map(|line| Some(line.split(' ').next()?.to_owned())).collect()
}

#[test]
fn every_metric_family_moves() {
    let origin = echo();
    let yaml = |extra: &str| {
        format!(
            "{}telemetry: {{ metrics: {{ buckets: [1ms, 10s] }}, access_log: {{ output: off }} }}\n\
             routes:\n\
             - {{ name: all, path: /*, upstream: echo, retry: {{ max_retries: 0 }} }}\n\
             - {{ name: limited, path: /limited, filters: [rate_limit: {{ rate: 1/h }}], respond: {{}} }}\n\
             - {{ name: denied, path: /denied, filters: [ip_restriction: {{ deny: [127.0.0.0/8] }}], respond: {{}} }}\n{extra}",
            upstream(&origin)
        )
    };
    let gateway = Gateway::start_file(&yaml(""));
    let mut held = gateway.client();
    assert_eq!(held.get("/held").status, 200);
    ask(gateway.address(), "GET /a?status=503", "");
    ask(gateway.address(), "BREW /a", "");
    ask(gateway.address(), "GET /denied", "");
    ask(gateway.address(), "GET /limited", "");
    ask(gateway.address(), "GET /limited", "");
    ask(gateway.address(), "GET /%2F", "");
    gateway.reload().unwrap();
    gateway.rewrite("routes: [{ name: broken }]");
    gateway.reload().unwrap_err();
    eventually("the last exchange is counted", || {
        gateway.metric("portcullis_requests_active{route=\"-\"}") == 0.0
    });

    let endpoint = origin.address();
    for (series, expected) in [
        ("portcullis_build_info{version=\"0.1.0\"}".to_owned(), 1.0),
        ("portcullis_connections_active{listener=\"web\"}".to_owned(), 1.0),
        ("portcullis_config_generation".to_owned(), 2.0),
        ("portcullis_config_reloads_total{result=\"success\"}".to_owned(), 2.0),
        ("portcullis_requests_total{route=\"all\",method=\"GET\",status=\"200\"}".to_owned(), 1.0),
        ("portcullis_requests_total{route=\"all\",method=\"GET\",status=\"503\"}".to_owned(), 1.0),
        ("portcullis_requests_total{route=\"all\",method=\"other\",status=\"200\"}".to_owned(), 1.0),
        ("portcullis_requests_total{route=\"-\",method=\"GET\",status=\"400\"}".to_owned(), 1.0),
        ("portcullis_requests_active{route=\"all\"}".to_owned(), 0.0),
        ("portcullis_request_duration_seconds_count{route=\"all\"}".to_owned(), 3.0),
        ("portcullis_request_duration_seconds_bucket{route=\"all\",le=\"10\"}".to_owned(), 3.0),
        ("portcullis_upstream_endpoints{upstream=\"echo\"}".to_owned(), 1.0),
        ("portcullis_upstream_request_duration_seconds_count{upstream=\"echo\"}".to_owned(), 3.0),
        (format!("portcullis_upstream_requests_total{{upstream=\"echo\",endpoint=\"{endpoint}\",outcome=\"success\"}}"), 2.0),
        (format!("portcullis_endpoint_healthy{{upstream=\"echo\",endpoint=\"{endpoint}\"}}"), 1.0),
        (format!("portcullis_upstream_requests_total{{upstream=\"echo\",endpoint=\"{endpoint}\",outcome=\"server_error\"}}"), 1.0),
        ("portcullis_gateway_replies_total{route=\"denied\",reason=\"ip_denied\"}".to_owned(), 1.0),
        ("portcullis_gateway_replies_total{route=\"-\",reason=\"bad_path\"}".to_owned(), 1.0),
        ("portcullis_filter_verdicts_total{route=\"denied\",filter=\"ip_restriction\",verdict=\"ip_denied\"}".to_owned(), 1.0),
        ("portcullis_retry_memory_bytes".to_owned(), 0.0),
        ("portcullis_rate_limited_total{route=\"limited\",filter=\"rate_limit\"}".to_owned(), 1.0),
        ("portcullis_limit_keys{owner=\"route limited\",filter=\"rate_limit\"}".to_owned(), 1.0),
        ("portcullis_access_log_dropped_total".to_owned(), 0.0),
        ("portcullis_events_dropped_total".to_owned(), 0.0),
        ("portcullis_events_sent_total{result=\"failure\"}".to_owned(), 0.0),
    ] {
        let text = gateway.admin_get("/metrics").text();
        let shown = text.lines().any(|line| line.starts_with(&format!("{series} ")));
        assert!(shown, "{series} is not shown:\n{text}");
        eventually(&format!("{series} is {expected}, not {}", gateway.metric(&series)), || {
            gateway.metric(&series) == expected
        });
    }
    assert!(gateway.metric("portcullis_config_reloads_total{result=\"failure\"}") >= 1.0);
    let text = gateway.admin_get("/metrics").text();
    let known = [
        "access_log_dropped_total",
        "build_info",
        "config_generation",
        "config_reloads_total",
        "connections_active",
        "endpoint_healthy",
        "events_dropped_total",
        "events_sent_total",
        "filter_verdicts_total",
        "gateway_replies_total",
        "limit_keys",
        "rate_limited_total",
        "request_duration_seconds",
        "requests_active",
        "requests_total",
        "retry_memory_bytes",
        "upstream_endpoints",
        "upstream_request_duration_seconds",
        "upstream_requests_total",
    ];
    assert_eq!(families(&text), known.map(str::to_owned).into(), "a family that no row above watches");
    drop(held);
    eventually("the connection is gone", || {
        gateway.metric("portcullis_connections_active{listener=\"web\"}") == 0.0
    });
}

#[test]
fn buckets_are_the_operators() {
    let gateway = Gateway::start(
        "telemetry: { metrics: { buckets: [5ms, 250ms, 2s] }, access_log: { output: off } }\nroutes: [{ name: a, path: /a, respond: {} }]",
    );
    gateway.get("/a");
    let bounds = || -> Vec<String> {
        let text = gateway.admin_get("/metrics").text();
        let lines = text
            .lines()
            .filter(|line| line.starts_with("portcullis_request_duration_seconds_bucket{route=\"a\""));
        lines.filter_map(|line| Some(line.split("le=\"").nth(1)?.split('"').next()?.to_owned())).collect()
    };
    eventually("the request is counted", || !bounds().is_empty());
    assert_eq!(bounds(), ["0.005", "0.25", "2", "+Inf"]);
}

#[test]
fn a_try_at_an_endpoint_is_counted_by_what_became_of_it() {
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let nobody = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let close = Origin::start(|_| Then::Close);
    let garbage = Origin::answering("nonsense\r\n\r\n");
    let endless = Origin::answering("HTTP/1.1 200 OK\r\ntransfer-encoding: gzip\r\n\r\nok");
    let bad = Origin::answering("HTTP/1.1 500 No\r\ncontent-length: 0\r\n\r\n");
    let good = Origin::answering("HTTP/1.1 404 No\r\ncontent-length: 0\r\n\r\n");
    for (address, outcome, status) in [
        (good.address(), "success", 404),
        (bad.address(), "server_error", 500),
        (nobody, "connect_failed", 502),
        (close.address(), "reset", 502),
        (garbage.address(), "invalid_response", 502),
        (endless.address(), "invalid_response", 502),
        (silent.local_addr().unwrap(), "read_timeout", 504),
    ] {
        let gateway = Gateway::start(&format!(
            "upstreams: {{ up: {{ endpoints: [\"{address}\"], timeouts: {{ read: 200ms }} }} }}\n\
             routes: [{{ name: all, path: /*, upstream: up, retry: {{ max_retries: 0 }} }}]"
        ));
        assert_eq!(ask(gateway.address(), "GET /", "").status, status, "{outcome}");
        let series = format!(
            "portcullis_upstream_requests_total{{upstream=\"up\",endpoint=\"{address}\",outcome=\"{outcome}\"}}"
        );
        eventually(&format!("{series} moves"), || gateway.metric(&series) == 1.0);
        let endpoint = gateway.admin_get("/upstreams").json()[0]["endpoints"][0].clone();
        let failed = u64::from(outcome != "success");
        assert_eq!((&endpoint["requests"], &endpoint["failures"]), (&1.into(), &failed.into()), "{outcome}");
    }
    let log = close.requests();
    assert_eq!(log.len(), 1);
}

#[test]
fn no_label_carries_what_a_client_says() {
    let gateway = Gateway::start("routes: [{ name: a, path: '/a/{x}', respond: {} }]");
    for line in ["GET /a/secretpath", "GET /none/secretpath?secretquery", "SECRETMETHOD /a/b", "GET /%secret"]
    {
        Ask::new(line).header("host: secrethost.test\nx-secretname: secretvalue").send(gateway.address());
    }
    gateway.ask("SECRET\u{1}METHOD /a HTTP/1.1\r\n\r\n");
    eventually("all are counted", || {
        gateway.metric("portcullis_requests_total{route=\"a\",method=\"other\",status=\"200\"}") == 1.0
    });
    let text = gateway.admin_get("/metrics").text().to_lowercase();
    assert!(!text.contains("secret"), "{text}");
}
