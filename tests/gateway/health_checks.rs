//! Active health, option by option: what endpoints are asked, and which answers are well.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use portcullis::upstream::BoxFuture;
use portcullis::{HealthCheck, ProbeError, Target};
use serde_json::Value;
use tonic::transport::Server;
use tonic::transport::server::TcpIncoming;
use tonic_health::ServingStatus;
use tonic_health::server::health_reporter;

use crate::harness::tls::Authority;
use crate::harness::{Gateway, Nobody, Origin, Request, Then, eventually, eventually_some, to};

const OK: &str = "HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok";
const BAD: &str = "HTTP/1.1 503 Service Unavailable\r\ncontent-length: 0\r\n\r\n";

/// Upstreams of one endpoint each, by name, with these words besides.
fn upstreams(each: &[(&str, String, &str)]) -> String {
    let words = each.iter().map(|(name, address, words)| {
        let words = words.replace("ACTIVE ", "health: { active: { interval: 100ms, ");
        let words = if words.contains("health:") { format!("{words} }} }}") } else { words };
        format!("  {name}: {{ endpoints: [\"{address}\"], {words} }}\n")
    });
    format!("upstreams:\n{}", words.collect::<String>())
}

/// What the API tells of the first endpoint of an upstream.
fn endpoint(gateway: &Gateway, name: &str) -> Value {
    let all = gateway.admin_get("/upstreams").json();
    let found = all.as_array().unwrap().iter().find(|upstream| upstream["name"] == name);
    found.unwrap()["endpoints"][0].clone()
}

/// What came of the last probe, once there was one: healthy, or why not.
fn probed(gateway: &Gateway, name: &str) -> Result<(), String> {
    eventually_some(&format!("{name} is probed"), || {
        let endpoint = endpoint(gateway, name);
        let active = &endpoint["health"]["active"];
        assert_eq!(endpoint["healthy"], active["healthy"], "{endpoint}");
        let last = active["last"].as_object()?;
        assert!(last["at"].is_string() && last["took_seconds"].is_f64(), "{endpoint}");
        Some(last["error"].as_str().map_or(Ok(()), |error| Err(error.to_owned())))
    })
}

type Answer = fn(&Request) -> &'static str;

/// A server that gives each request the answer that this makes of it.
fn server(answer: Answer) -> Origin {
    Origin::start(move |visit| {
        let answer = answer(&visit.request);
        visit.send(answer);
        Then::Close
    })
}

#[test]
fn the_question_is_as_configured() {
    fn ok_if(well: bool) -> &'static str {
        if well { OK } else { BAD }
    }
    let rows: &[(&str, Answer)] = &[
        ("ACTIVE http: {}", |asked| ok_if(asked.method == "GET" && asked.target == "/")),
        ("ACTIVE http: { path: \"/healthz?full=1\" }", |asked| ok_if(asked.target == "/healthz?full=1")),
        ("ACTIVE http: { method: OPTIONS }", |asked| ok_if(asked.method == "OPTIONS")),
        ("ACTIVE http: { method: HEAD }", |asked| match asked.method.as_str() {
            "HEAD" => "HTTP/1.1 200 OK\r\ncontent-length: 20\r\n\r\n",
            _ => BAD,
        }),
        ("ACTIVE http: { host: \"shop.test:81\" }", |asked| {
            ok_if(asked.header("host") == Some("shop.test:81"))
        }),
        ("ACTIVE http: {}", |asked| {
            ok_if(asked.header("host").is_some_and(|host| host.starts_with("127.0.0.1:")))
        }),
        ("ACTIVE http: { headers: { X-Probe: yes sir } }", |asked| {
            ok_if(asked.header("x-probe") == Some("yes sir"))
        }),
        ("ACTIVE http: {}", |asked| ok_if(asked.header("user-agent") == Some("portcullis-health-check"))),
        ("ACTIVE http: { headers: { user-agent: mine } }", |asked| {
            ok_if(asked.header("user-agent") == Some("mine"))
        }),
    ];
    let origins: Vec<_> = rows.iter().map(|(_, answer)| server(*answer)).collect();
    let names: Vec<_> = (0..rows.len()).map(|at| format!("u{at}")).collect();
    let each: Vec<_> = (0..rows.len())
        .map(|at| (names[at].as_str(), origins[at].address().to_string(), rows[at].0))
        .collect();
    let gateway = Gateway::start(&upstreams(&each));
    for (name, (words, _)) in names.iter().zip(rows) {
        assert_eq!(probed(&gateway, name), Ok(()), "{words}");
    }
}

#[test]
fn the_answer_must_be_as_expected() {
    const MOVED: &str = "HTTP/1.1 302 Found\r\ncontent-length: 0\r\nlocation: /\r\n\r\n";
    let rows: &[(&str, Answer, &str)] = &[
        ("ACTIVE http: {}", |_| "HTTP/1.1 299 Fine\r\ncontent-length: 0\r\n\r\n", ""),
        ("ACTIVE http: {}", |_| MOVED, "status 302 is not expected"),
        ("ACTIVE http: { expect: [204, 300-302] }", |_| MOVED, ""),
        ("ACTIVE http: { expect: [204, 300-302] }", |_| OK, "status 200 is not expected"),
        ("ACTIVE http: { body: ok }", |_| OK, ""),
        ("ACTIVE http: { body: fine }", |_| OK, "the body does not match"),
        ("ACTIVE http: { body: { regex: \"^o.$\" } }", |_| OK, ""),
        ("ACTIVE http: { body: { regex: \"^o$\" } }", |_| OK, "the body does not match"),
        ("ACTIVE http: {}", |_| "HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nok", "the exchange broke"),
    ];
    let origins: Vec<_> = rows.iter().map(|(_, answer, _)| server(*answer)).collect();
    let names: Vec<_> = (0..rows.len()).map(|at| format!("u{at}")).collect();
    let each: Vec<_> = (0..rows.len())
        .map(|at| (names[at].as_str(), origins[at].address().to_string(), rows[at].0))
        .collect();
    let gateway = Gateway::start(&upstreams(&each));
    for (name, (words, _, error)) in names.iter().zip(rows) {
        let said = probed(&gateway, name).err().unwrap_or_default();
        assert!(said.starts_with(error) && said.is_empty() == error.is_empty(), "{words}: {said}");
    }
    let counted = |at: usize, result: &str| {
        let (name, address) = (&names[at], origins[at].address());
        gateway.metric(&format!(
            "portcullis_health_checks_total{{upstream=\"{name}\",endpoint=\"{address}\",result=\"{result}\"}}"
        ))
    };
    for (at, result) in [(0, "success"), (1, "status"), (5, "body"), (8, "protocol")] {
        eventually("probes are counted", || counted(at, result) >= 2.0);
    }
    let healthy = |at: usize| {
        let (name, address) = (&names[at], origins[at].address());
        gateway.metric(&format!("portcullis_endpoint_healthy{{upstream=\"{name}\",endpoint=\"{address}\"}}"))
    };
    assert_eq!((healthy(0), healthy(1)), (1.0, 0.0));
}

#[test]
fn a_connection_may_be_enough() {
    let silent = Origin::raw(|_, stream| {
        let _ = stream.until_end();
        Then::Close
    });
    let nobody = Nobody::new();
    let gateway = Gateway::start(&upstreams(&[
        ("silent", silent.address().to_string(), "ACTIVE tcp: {}"),
        ("nobody", nobody.address().to_string(), "ACTIVE tcp: {}"),
    ]));
    assert_eq!(probed(&gateway, "silent"), Ok(()));
    let said = probed(&gateway, "nobody").unwrap_err();
    assert!(said.starts_with("cannot connect: "), "{said}");
}

#[test]
fn probes_come_as_often_and_take_as_long_as_configured() {
    let often = server(|_| OK);
    let hanging = Origin::start(|visit| {
        visit.wait_for_close();
        Then::Close
    });
    let slow = Origin::start(|visit| {
        std::thread::sleep(Duration::from_millis(2300));
        visit.answer(OK)
    });
    let gateway = Gateway::start(&upstreams(&[
        ("often", often.address().to_string(), "ACTIVE http: {}"),
        ("hanging", hanging.address().to_string(), "ACTIVE timeout: 50ms, http: {}"),
        ("slow", slow.address().to_string(), "ACTIVE timeout: 15s, http: {}"),
    ]));
    assert_eq!(probed(&gateway, "hanging"), Err("no answer in time".into()));
    let took = endpoint(&gateway, "hanging")["health"]["active"]["last"]["took_seconds"].as_f64();
    assert!(took.is_some_and(|took| (0.05..1.5).contains(&took)), "{took:?}");
    assert_eq!(probed(&gateway, "slow"), Ok(()));
    // At the usual 5 s this would take a minute.
    eventually("many probes", || often.requests().len() > 12);
}

/// A server whose answers to probes go round in this order.
fn round(answers: &'static [&'static str]) -> Origin {
    let asked = AtomicUsize::new(0);
    Origin::start(move |visit| {
        visit.send(answers[asked.fetch_add(1, Ordering::Relaxed) % answers.len()]);
        Then::Close
    })
}

#[test]
fn it_takes_as_many_in_a_row_as_configured() {
    let (patient, hasty) = (round(&[OK, BAD, BAD, BAD]), round(&[OK, BAD]));
    let (wary, trusting) = (round(&[BAD, OK, OK]), round(&[BAD, OK]));
    let gateway = Gateway::start(&upstreams(&[
        ("patient", patient.address().to_string(), "ACTIVE unhealthy_after: 4, http: {}"),
        ("hasty", hasty.address().to_string(), "ACTIVE unhealthy_after: 1, http: {}"),
        ("wary", wary.address().to_string(), "ACTIVE healthy_after: 3, http: {}"),
        ("trusting", trusting.address().to_string(), "ACTIVE healthy_after: 1, http: {}"),
    ]));
    let healthy = |name| endpoint(&gateway, name)["healthy"] == true;
    assert_eq!(probed(&gateway, "hasty"), Ok(()));
    eventually("one is enough to fall", || !healthy("hasty"));
    eventually("one is enough to rise", || healthy("trusting"));
    let _ = probed(&gateway, "wary");
    eventually("many rounds", || {
        assert!(healthy("patient"), "three failures are not four");
        assert!(!healthy("wary"), "two successes are not three");
        patient.requests().len() > 12 && wary.requests().len() > 12
    });
}

#[tokio::test(flavor = "multi_thread")]
async fn a_grpc_server_is_asked_for_a_service() {
    let (reporter, service) = health_reporter();
    reporter.set_service_status("shop", ServingStatus::NotServing).await;
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    tokio::spawn(Server::builder().serve_with_incoming(service, TcpIncoming::from(listener)));
    let started = tokio::task::spawn_blocking(move || {
        let gateway = Gateway::start(&upstreams(&[
            ("whole", address.clone(), "protocol: http2, ACTIVE grpc: {}"),
            ("shop", address.clone(), "protocol: http2, ACTIVE grpc: { service: shop }"),
            ("bank", address, "protocol: http2, ACTIVE grpc: { service: bank }"),
        ]));
        assert_eq!(probed(&gateway, "whole"), Ok(()));
        assert_eq!(probed(&gateway, "shop"), Err("the server says NOT_SERVING".into()));
        assert_eq!(probed(&gateway, "bank"), Err("gRPC status 5".into()));
        gateway
    });
    let gateway = started.await.unwrap();
    reporter.set_service_status("shop", ServingStatus::Serving).await;
    tokio::task::block_in_place(|| {
        eventually("it serves", || endpoint(&gateway, "shop")["healthy"] == true);
        drop(gateway);
    });
}

#[tokio::test(flavor = "multi_thread")]
async fn a_grpc_server_is_asked_under_a_host() {
    let (_reporter, service) = health_reporter();
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let server = listener.local_addr().unwrap().to_string();
    tokio::spawn(Server::builder().serve_with_incoming(service, TcpIncoming::from(listener)));
    let started = tokio::task::spawn_blocking(move || {
        // It serves under this host alone.
        let before = super::grpc::gateway(&server, "hosts: [calls.test]");
        let address = before.address().to_string();
        let gateway = Gateway::start(&upstreams(&[
            ("named", address.clone(), "protocol: http2, ACTIVE grpc: { host: calls.test }"),
            ("other", address.clone(), "protocol: http2, ACTIVE grpc: { host: \"other.test:80\" }"),
            ("none", address, "protocol: http2, ACTIVE grpc: {}"),
        ]));
        assert_eq!(probed(&gateway, "named"), Ok(()));
        assert!(probed(&gateway, "other").is_err());
        assert!(probed(&gateway, "none").is_err());
    });
    started.await.unwrap();
}

#[test]
fn probes_go_as_requests_do() {
    let (pki, other) = (Authority::new(), Authority::new());
    let origin = Origin::ok();
    let secure = Gateway::start(&format!(
        "{}listeners: [{{ name: web, address: \"127.0.0.1:0\", tls: {{ certificates: [{}] }} }}]\n",
        to(&[&origin], ""),
        pki.issue("a", &["a.test"]).words()
    ));
    let clear = Gateway::before(&[&origin]);
    let (ca, wrong) = (pki.ca().display().to_string(), other.ca().display().to_string());
    let tls = |ca: &str, sni: &str, path: &str| {
        format!("tls: {{ sni: {sni}, ca: {ca} }}, ACTIVE http: {{ path: {path} }}")
    };
    let auto = format!("protocol: auto, {}", tls(&ca, "a.test", "/auto"));
    let [one, name, stranger] =
        [tls(&ca, "a.test", "/one"), tls(&ca, "b.test", "/"), tls(&wrong, "a.test", "/")];
    let (secured, cleared) = (secure.address().to_string(), clear.address().to_string());
    let gateway = Gateway::start(&upstreams(&[
        ("one", secured.clone(), &one),
        ("auto", secured.clone(), &auto),
        ("name", secured.clone(), &name),
        ("stranger", secured, &stranger),
        ("two", cleared.clone(), "protocol: http2, ACTIVE http: { path: /two }"),
        ("old", cleared, "ACTIVE http: { path: /old }"),
    ]));
    for name in ["one", "auto", "two", "old"] {
        assert_eq!(probed(&gateway, name), Ok(()), "{name}");
    }
    for name in ["name", "stranger"] {
        let said = probed(&gateway, name).unwrap_err();
        assert!(said.starts_with("TLS failed: "), "{name}: {said}");
    }
    assert_eq!(secure.log_of("/one")["protocol"], "HTTP/1.1");
    assert_eq!(secure.log_of("/auto")["protocol"], "HTTP/2.0");
    assert_eq!(clear.log_of("/two")["protocol"], "HTTP/2.0");
    assert_eq!(clear.log_of("/old")["protocol"], "HTTP/1.1");
}

/// Passes for even ports alone.
struct EvenPorts(Arc<AtomicUsize>);

impl HealthCheck for EvenPorts {
    fn probe<'a>(&'a self, target: &'a Target) -> BoxFuture<'a, Result<(), ProbeError>> {
        Box::pin(async move {
            self.0.fetch_add(1, Ordering::Relaxed);
            if target.address.port() == 2 { Ok(()) } else { Err(ProbeError::Custom("odd".into())) }
        })
    }
}

#[test]
fn a_check_may_be_made_in_code() {
    let asked = Arc::new(AtomicUsize::new(0));
    let check = EvenPorts(Arc::clone(&asked));
    let words = upstreams(&[
        ("even", "127.0.0.1:2".into(), "ACTIVE custom: even_ports"),
        ("odd", "127.0.0.1:1".into(), "ACTIVE custom: even_ports"),
    ]);
    let gateway = Gateway::start_with(&words, |gateway| gateway.health_check("even_ports", check));
    assert_eq!(probed(&gateway, "even"), Ok(()));
    assert_eq!(probed(&gateway, "odd"), Err("odd".into()));
    let odd = "portcullis_health_checks_total{upstream=\"odd\",endpoint=\"127.0.0.1:1\",result=\"custom\"}";
    eventually("its failures are counted", || gateway.metric(odd) >= 1.0);
    assert!(asked.load(Ordering::Relaxed) >= 2);
}

#[test]
fn credentials_of_probes_are_not_shown() {
    let origin =
        server(|asked| if asked.header("authorization") == Some("Bearer hunter2") { OK } else { BAD });
    let words = "ACTIVE http: { headers: { Authorization: Bearer hunter2, x-other: seen } }";
    let gateway = Gateway::start(&upstreams(&[("u", origin.address().to_string(), words)]));
    assert_eq!(probed(&gateway, "u"), Ok(()));
    let shown = gateway.admin_get("/config").text();
    assert!(shown.contains("seen") && !shown.contains("hunter2"), "{shown}");
}
