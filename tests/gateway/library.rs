//! The code-first door: filters and handlers written in Rust, with and without names in YAML, and what becomes of a
//! request when they fail.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderName, HeaderValue, StatusCode};
use portcullis::document::Errors;
use portcullis::types::Secret;
use portcullis::{
    Chunk, Exchange, Fault, Filter, FilterKind, Flow, Handler, LogEntry, Parameters, Phases, Reason, Reply,
    RequestHeader, ResponseHeader, Result, Route, Scope, Stage,
};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::ask::{Ask, Asked, ask, echo, upstream};
use crate::harness::process_log::{self, heard};
use crate::harness::{Gateway, Origin, eventually};

fn all_phases() -> Phases {
    Phases::ALL.into_iter().fold(Phases::NONE, |all, (phase, _)| all | phase)
}

/// Remembers the hooks that ran, in its state, and writes them into the log line.
struct Witness;

impl Filter for Witness {
    type State = Vec<&'static str>;

    fn phases(&self) -> Phases {
        // A filter has one of the two request hooks.
        Phases::ALL
            .into_iter()
            .filter(|(_, name)| *name != "request")
            .fold(Phases::NONE, |all, (phase, _)| all | phase)
    }

    async fn request_wait(&self, seen: &mut Self::State, exchange: &mut Exchange<'_>) -> Result<Flow> {
        tokio::task::yield_now().await;
        assert_eq!(exchange.capture("id"), Some("7"));
        seen.push("request_wait");
        Ok(Flow::Continue)
    }

    fn upstream_request(
        &self,
        seen: &mut Self::State,
        exchange: &mut Exchange<'_>,
        head: &mut RequestHeader,
    ) -> Result<()> {
        seen.push("upstream_request");
        head.insert_header("x-witness", exchange.route().to_owned())?;
        Ok(())
    }

    fn request_body(
        &self,
        seen: &mut Self::State,
        _: &mut Exchange<'_>,
        chunk: &mut Chunk<'_>,
    ) -> Result<Flow> {
        if chunk.end {
            seen.push("request_body");
        }
        Ok(Flow::Continue)
    }

    fn response(
        &self,
        seen: &mut Self::State,
        _: &mut Exchange<'_>,
        head: &mut ResponseHeader,
    ) -> Result<()> {
        seen.push("response");
        head.insert_header("x-seen", seen.join(" "))?;
        Ok(())
    }

    fn response_body(
        &self,
        seen: &mut Self::State,
        _: &mut Exchange<'_>,
        chunk: &mut Chunk<'_>,
    ) -> Result<()> {
        if chunk.end {
            seen.push("response_body");
        }
        Ok(())
    }

    fn log(&self, seen: &mut Self::State, exchange: &mut Exchange<'_>, entry: &mut LogEntry) {
        entry.field("seen", seen.join(" "));
        entry.field("quoted", format!("\"{}\"", exchange.route()));
    }
}

#[test]
fn a_filter_keeps_its_state_through_every_hook() {
    let origin = echo();
    let gateway = Gateway::start_with(&upstream(&origin), |gateway| {
        let route = Route::new("coded", "/coded/{id}").upstream("echo");
        gateway.route(route.filter("witness", Stage::Observe, Witness))
    });
    for round in 0..2 {
        let answer = Ask::new("POST /coded/7").body("hello").send(gateway.address());
        let asked = Asked::of(&answer);
        assert_eq!((asked.body.as_str(), asked.header("x-witness").as_str()), ("hello", "coded"));
        let before_response = "request_wait upstream_request request_body response";
        assert_eq!(answer.header("x-seen"), Some(before_response), "round {round}");
        let line = gateway.log_line(round);
        assert_eq!(line["seen"], format!("{before_response} response_body"), "a state of its own each time");
        assert_eq!(line["quoted"], "\"coded\"");
    }
}

#[test]
fn a_filter_of_the_gateway_runs_on_every_route_and_on_none() {
    struct Stamp;
    impl Filter for Stamp {
        type State = ();
        fn phases(&self) -> Phases {
            Phases::RESPONSE
        }
        fn response(&self, (): &mut (), _: &mut Exchange<'_>, head: &mut ResponseHeader) -> Result<()> {
            head.insert_header("x-stamp", "yes")?;
            Ok(())
        }
    }
    let gateway =
        Gateway::start_with("routes: [{ name: yaml, path: /yaml, respond: { body: a } }]", |gateway| {
            let coded = Route::new("coded", "/coded").host("a.test").method("GET");
            gateway.filter("stamp", Stage::Observe, Stamp).route(
                coded.respond_with(|exchange, _| Reply::content(StatusCode::OK, exchange.host().to_owned())),
            )
        });
    for (line, headers, status, body) in [
        ("GET /yaml", "", 200, "a"),
        ("GET /coded", "host: A.test:80", 200, "a.test"),
        ("POST /coded", "host: a.test", 405, ""),
        ("GET /coded", "host: b.test", 404, ""),
    ] {
        let answer = ask(gateway.address(), line, headers);
        assert_eq!((answer.status, answer.header("x-stamp")), (status, Some("yes")), "{line}");
        assert!(body.is_empty() || answer.text() == body, "{line}: {}", answer.text());
    }
}

/// A filter that YAML can name.
struct Greeter {
    word: HeaderValue,
    names: usize,
}

#[derive(Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Greeting {
    /// What to say.
    word: String,
    /// Refuses everyone.
    #[serde(default)]
    refuse: bool,
    /// Something to know.
    #[serde(default)]
    password: Option<Secret>,
}

impl FilterKind for Greeter {
    const NAME: &'static str = "greeter";
    const STAGE: Stage = Stage::Transform;
    const EXAMPLE: &'static str = "{ word: hello }";
    type Config = Greeting;

    fn compile(config: Greeting, scope: &Scope<'_>) -> std::result::Result<Self, Errors> {
        let word = HeaderValue::try_from(config.word)
            .map_err(|_| portcullis::document::ConfigError::new("word", "a header cannot carry this"))?;
        if config.refuse {
            return Err(portcullis::document::ConfigError::new("refuse", "nobody wants that").into());
        }
        let names = match scope.parameters {
            Parameters::Of(names) => names.len(),
            Parameters::Nowhere | Parameters::Any => 0,
        };
        Ok(Self { word, names })
    }
}

impl Filter for Greeter {
    type State = ();

    fn phases(&self) -> Phases {
        Phases::RESPONSE
    }

    fn response(&self, (): &mut (), _: &mut Exchange<'_>, head: &mut ResponseHeader) -> Result<()> {
        head.append_header("x-greeting", self.word.clone())?;
        head.insert_header("x-captures", self.names)?;
        Ok(())
    }
}

#[test]
fn a_kind_of_filter_is_named_in_yaml_with_its_own_configuration() {
    let yaml = r#"
chains: { polite: [greeter: { word: chain }] }
routes: [{ name: a, path: "/{x}/{y}", filters: [{ use: polite }, { greeter: { word: hello } }], respond: { body: a } }]
"#;
    let gateway = Gateway::start_with(yaml, |gateway| gateway.filter_kind::<Greeter>());
    let answer = ask(gateway.address(), "GET /1/2", "");
    assert_eq!(answer.fields.all("x-greeting"), ["hello", "chain"]);
    assert_eq!(answer.header("x-captures"), Some("2"));
    let explained = gateway.admin_ask("POST", "/explain", r#"{ "url": "http://a.test/1/2" }"#).json();
    assert_eq!(explained["chain"][0]["filter"], "greeter");
    assert_eq!(explained["chain"][0]["stage"], "transform");
}

#[test]
fn a_secret_of_a_filter_is_not_shown() {
    let yaml = r#"
filters: [{ greeter: { word: all, password: hunter2 } }]
routes: [{ name: a, path: /, filters: [{ greeter: { word: hello, password: hunter3 } }], respond: { body: a } }]
"#;
    let gateway = Gateway::start_with(yaml, |gateway| gateway.filter_kind::<Greeter>());
    let config = gateway.admin_get("/config");
    assert!(!config.text().contains("hunter"), "{}", config.text());
    let shown = &config.json()["routes"][0]["filters"][0]["greeter"];
    assert_eq!(*shown, serde_json::json!({ "word": "hello", "refuse": false, "password": "***" }));
}

#[test]
fn words_that_a_kind_of_filter_does_not_know_are_refused_with_their_place() {
    process_log::listen();
    for (words, place, said) in [
        ("{ wrod: hello }", "greeter.wrod", "word"),
        ("{}", "greeter", "word"),
        ("{ word: \"a\\nb\" }", "greeter.word", "cannot carry"),
        ("{ word: a, refuse: true }", "greeter.refuse", "nobody wants that"),
    ] {
        let yaml = format!(
            "listeners: [{{ name: web, address: \"127.0.0.1:0\" }}]\n\
             routes: [{{ name: a, path: /, filters: [greeter: {words}], respond: {{ body: a }} }}]"
        );
        let refused = portcullis::Gateway::from_yaml(&yaml).filter_kind::<Greeter>().start();
        let message = refused.err().map(|error| error.to_string()).unwrap_or_default();
        assert!(message.contains(&format!("routes[0].filters[0].{place}")), "{words}: {message}");
        assert!(message.contains(said), "{words}: {message}");
    }
}

/// Writes bodies in capitals and appends a word to each: the length changes.
struct Shout;

impl Shout {
    fn shout(chunk: &mut Chunk<'_>) {
        let mut bytes = chunk.data.take().unwrap_or_default().to_ascii_uppercase();
        if chunk.end {
            bytes.extend_from_slice(b"!END");
        }
        *chunk.data = Some(Bytes::from(bytes));
    }
}

impl Filter for Shout {
    type State = ();

    fn phases(&self) -> Phases {
        Phases::UPSTREAM_REQUEST | Phases::REQUEST_BODY | Phases::RESPONSE | Phases::RESPONSE_BODY
    }

    fn upstream_request(&self, (): &mut (), _: &mut Exchange<'_>, head: &mut RequestHeader) -> Result<()> {
        head.remove_header("content-length");
        head.insert_header("transfer-encoding", "chunked")?;
        Ok(())
    }

    fn request_body(&self, (): &mut (), _: &mut Exchange<'_>, chunk: &mut Chunk<'_>) -> Result<Flow> {
        Self::shout(chunk);
        Ok(Flow::Continue)
    }

    fn response(&self, (): &mut (), _: &mut Exchange<'_>, head: &mut ResponseHeader) -> Result<()> {
        head.remove_header("content-length");
        Ok(())
    }

    fn response_body(&self, (): &mut (), _: &mut Exchange<'_>, chunk: &mut Chunk<'_>) -> Result<()> {
        Self::shout(chunk);
        Ok(())
    }
}

#[test]
fn body_hooks_change_bodies_and_their_length() {
    let origin = Origin::start(|visit| {
        let mut body = visit.request.content().to_vec();
        body.extend_from_slice(b" came back");
        let head = format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n", body.len());
        visit.answer([head.as_bytes(), &body].concat())
    });
    let gateway = Gateway::start_with(&upstream(&origin), |gateway| {
        gateway.route(Route::new("loud", "/*").upstream("echo").filter("shout", Stage::Transform, Shout))
    });
    let mut client = gateway.client();
    for body in ["hello", "a longer one, on the same connection"] {
        let length = body.len();
        client.send(format!("POST / HTTP/1.1\r\nhost: a.test\r\ncontent-length: {length}\r\n\r\n{body}"));
        let answer = client.response();
        assert_eq!(answer.text(), format!("{}!END CAME BACK!END", body.to_uppercase()));
    }
    client.send(
        "POST / HTTP/1.1\r\nhost: a.test\r\ntransfer-encoding: chunked\r\n\r\n2\r\nab\r\n1\r\nc\r\n0\r\n\r\n",
    );
    assert_eq!(client.response().text(), "ABC!END CAME BACK!END");
    assert_eq!(origin.connections(), 1, "the upstream connection stayed in step");
    client.send("HEAD / HTTP/1.1\r\nhost: a.test\r\n\r\n");
    assert_eq!(client.response_to("HEAD").body.len(), 0);
    assert_eq!(client.get("/").text(), "!END CAME BACK!END");
}

#[test]
fn body_hooks_change_the_gateways_own_answers_and_their_length() {
    let gateway = Gateway::start_with("", |gateway| {
        let own = Route::new("own", "/own").respond_with(|_, body| Reply::content(StatusCode::OK, body));
        let mut empty = Route::new("empty", "/empty").respond_with(|exchange, _| {
            Reply::content(
                if exchange.query().is_some() { StatusCode::NO_CONTENT } else { StatusCode::OK },
                "",
            )
        });
        empty.config_mut().filters.push(portcullis::config::FilterUse::named("shout"));
        gateway.route(own.filter("shout", Stage::Transform, Shout)).route(empty)
    });
    let mut client = gateway.client();
    for (body, said) in [("hello", "HELLO!END!END"), ("", "!END!END")] {
        let length = body.len();
        let answer = client
            .ask(format!("POST /own HTTP/1.1\r\nhost: a.test\r\ncontent-length: {length}\r\n\r\n{body}"));
        assert_eq!(answer.text(), said);
        assert_eq!(answer.header("content-length"), Some(&*said.len().to_string()));
    }
    client.send("HEAD /own HTTP/1.1\r\nhost: a.test\r\n\r\n");
    let head = client.response_to("HEAD");
    assert_eq!(
        (head.status, head.header("content-length")),
        (200, None),
        "its length is the filter's to know"
    );
    assert_eq!(client.get("/own").text(), "!END!END");
    assert_eq!(client.get("/empty").text(), "!END");
    let nothing = client.get("/empty?at-all");
    assert_eq!((nothing.status, nothing.header("content-length")), (204, None));
    assert_eq!(client.get("/own").status, 200);
}

#[test]
fn a_filter_answers_for_the_upstream() {
    /// Answers by what it finds in the head, or in the body.
    struct Guard;
    const TIRED: Reason = Reason::custom("too_tired", StatusCode::SERVICE_UNAVAILABLE, "Too tired");
    impl Filter for Guard {
        type State = ();
        fn phases(&self) -> Phases {
            Phases::REQUEST | Phases::REQUEST_BODY
        }
        fn request(&self, (): &mut (), exchange: &mut Exchange<'_>) -> Result<Flow> {
            Ok(match exchange.path() {
                "/tired" => Reply::refuse(TIRED).into(),
                "/later" => Reply::refuse(TIRED)
                    .header(http::header::RETRY_AFTER, HeaderValue::from_static("60"))
                    .into(),
                "/own" => Reply::content(StatusCode::ACCEPTED, "mine")
                    .header(HeaderName::from_static("x-own"), HeaderValue::from_static("yes"))
                    .into(),
                _ => Flow::Continue,
            })
        }
        fn request_body(&self, (): &mut (), _: &mut Exchange<'_>, chunk: &mut Chunk<'_>) -> Result<Flow> {
            let has = |word: &str| {
                chunk.data.as_ref().is_some_and(|data| String::from_utf8_lossy(data).contains(word))
            };
            Ok(if has("virus") {
                Reply::refuse(Reason::custom("virus_found", StatusCode::UNPROCESSABLE_ENTITY, "A virus"))
                    .detail("it is in the body")
                    .into()
            } else if has("own") {
                Reply::content(StatusCode::CREATED, "mine").into()
            } else {
                Flow::Continue
            })
        }
    }
    let origin = echo();
    let gateway = Gateway::start_with(&upstream(&origin), |gateway| {
        let coded =
            Route::new("coded", "/handled").respond_with(|_, body| Reply::content(StatusCode::OK, body));
        gateway
            .filter("guard", Stage::Admit, Guard)
            .route(Route::new("all", "/*").upstream("echo"))
            .route(coded)
    });
    let tired = ask(gateway.address(), "GET /tired", "");
    assert_eq!(tired.problem(), (503, "too_tired".to_owned()));
    assert_eq!(tired.header("retry-after"), Some("1"), "503 says when to come back");
    assert_eq!(ask(gateway.address(), "GET /later", "").header("retry-after"), Some("60"));
    let own = ask(gateway.address(), "GET /own", "");
    assert_eq!((own.status, own.text().as_str(), own.header("x-own")), (202, "mine", Some("yes")));
    assert_eq!(origin.connections(), 0);
    for verdict in ["too_tired", "answered"] {
        let series = format!(
            "portcullis_filter_verdicts_total{{route=\"all\",filter=\"guard\",verdict=\"{verdict}\"}}"
        );
        assert!(gateway.metric(&series) > 0.0, "{series}");
    }
    for path in ["/proxied", "/handled"] {
        let virus = Ask::new(&format!("POST {path}")).body("a virus").send(gateway.address());
        assert_eq!(virus.problem(), (422, "virus_found".to_owned()), "{path}");
        assert_eq!(virus.json()["detail"], "it is in the body", "{path}");
        let own = Ask::new(&format!("POST {path}")).body("own").send(gateway.address());
        assert_eq!((own.status, own.text().as_str()), (201, "mine"), "{path}");
        let clean = Ask::new(&format!("POST {path}")).body("clean").send(gateway.address());
        assert_eq!(clean.status, 200, "{path}");
    }
}

/// Does as it is told by the path: `/panic`, `/fault`, `/slow`, or says the body back.
struct Told;

impl Handler for Told {
    async fn handle(&self, exchange: &mut Exchange<'_>, body: Bytes) -> Result<Reply> {
        match exchange.path() {
            "/panic" => panic!("the handler's own words"),
            "/fault" => Err(Fault::new("secret: the handler's cat died")),
            "/slow" => std::future::pending().await,
            _ => Ok(Reply::content(StatusCode::OK, body)
                .header(HeaderName::from_static("transfer-encoding"), HeaderValue::from_static("chunked"))),
        }
    }
}

fn told() -> Gateway {
    Gateway::start_with("", |gateway| {
        let mut route = Route::new("told", "/*").handler(Told);
        route.config_mut().limits.request_body = Some("1KiB".parse().unwrap());
        route.config_mut().timeouts.request = Some(portcullis::types::Duration::from_millis(300));
        gateway.route(route)
    })
}

#[test]
fn a_handler_answers_with_the_whole_body_at_hand() {
    let gateway = told();
    let mut client = gateway.client();
    for _ in 0..2 {
        client.send("POST /a HTTP/1.1\r\nhost: a.test\r\ncontent-length: 5\r\n\r\nhello");
        let answer = client.response();
        assert_eq!((answer.status, answer.text().as_str()), (200, "hello"));
        assert_eq!(answer.header("transfer-encoding"), None, "the gateway frames, not the handler");
    }
    client.send("POST /a HTTP/1.1\r\nhost: a.test\r\ntransfer-encoding: chunked\r\n\r\n2\r\nab\r\n1\r\nc\r\n0\r\n\r\n");
    assert_eq!(client.response().text(), "abc");
    client.send("HEAD /a HTTP/1.1\r\nhost: a.test\r\n\r\n");
    assert_eq!(client.response_to("HEAD").header("content-length"), Some("0"));
    // A body that comes bit by bit, and one that waits to be asked for.
    client.send("POST /a HTTP/1.1\r\nhost: a.test\r\ncontent-length: 5\r\n\r\nhe");
    client.send("llo");
    assert_eq!(client.response().text(), "hello");
    client.send("POST /a HTTP/1.1\r\nhost: a.test\r\nexpect: 100-continue\r\ncontent-length: 5\r\n\r\n");
    assert_eq!(client.response().status, 100);
    client.send("hello");
    assert_eq!(client.response().text(), "hello");
    assert_eq!(client.get("/a").text(), "");
}

#[test]
fn a_body_too_large_for_a_handler_is_refused() {
    let gateway = told();
    let long = "x".repeat(1025);
    let by_length = Ask::new("POST /a").body(&long).send(gateway.address());
    assert_eq!(by_length.problem(), (413, "body_too_large".to_owned()));
    let chunked = format!(
        "POST /a HTTP/1.1\r\nhost: a.test\r\ntransfer-encoding: chunked\r\n\r\n401\r\n{long}\r\n0\r\n\r\n"
    );
    assert_eq!(gateway.ask(chunked).problem(), (413, "body_too_large".to_owned()));
    let just = Ask::new("POST /a").body(&long[..1024]).send(gateway.address());
    assert_eq!((just.status, just.body.len()), (200, 1024));
}

#[test]
fn a_handler_that_fails_costs_one_request() {
    let gateway = told();
    for path in ["/panic", "/fault"] {
        let answer = ask(gateway.address(), &format!("GET {path}"), "");
        assert_eq!(answer.problem(), (500, "bug".to_owned()), "{path}");
        assert!(!answer.text().contains("cat") && !answer.text().contains("own words"), "{}", answer.text());
        assert_eq!(gateway.log_of(path)["reason"], "bug");
    }
    heard(&["ERROR", "the handler's cat died"]);
    heard(&["ERROR", "told", "panicked", "the handler's own words"]);
    assert_eq!(Ask::new("POST /a").body("still here").send(gateway.address()).text(), "still here");
}

#[test]
fn a_handler_that_takes_too_long_is_given_up() {
    let gateway = told();
    let answer = ask(gateway.address(), "GET /slow", "");
    assert_eq!(answer.problem(), (504, "request_timeout".to_owned()));
    assert_eq!(gateway.log_of("/slow")["reason"], "request_timeout");
    assert_eq!(Ask::new("POST /a").body("still here").send(gateway.address()).text(), "still here");
}

/// Fails in one hook, by a panic or a fault.
#[derive(Clone, Copy)]
struct Fails {
    hook: &'static str,
    name: &'static str,
    panics: bool,
}

impl Fails {
    fn at(&self, hook: &str) -> Result<()> {
        if hook != self.hook {
            return Ok(());
        }
        assert!(!self.panics, "{} at {hook}", self.name);
        Err(Fault::new(format!("fault of {} at {hook}", self.name)))
    }
}

impl Filter for Fails {
    type State = ();

    fn phases(&self) -> Phases {
        let known = Phases::ALL.into_iter().find(|(_, name)| *name == self.hook);
        known.map_or_else(all_phases, |(phase, _)| phase)
    }

    fn request(&self, (): &mut (), _: &mut Exchange<'_>) -> Result<Flow> {
        self.at("request").map(|()| Flow::Continue)
    }

    async fn request_wait(&self, (): &mut (), _: &mut Exchange<'_>) -> Result<Flow> {
        tokio::task::yield_now().await;
        self.at("request_wait").map(|()| Flow::Continue)
    }

    fn upstream_request(&self, (): &mut (), _: &mut Exchange<'_>, _: &mut RequestHeader) -> Result<()> {
        self.at("upstream_request")
    }

    fn request_body(&self, (): &mut (), _: &mut Exchange<'_>, _: &mut Chunk<'_>) -> Result<Flow> {
        self.at("request_body").map(|()| Flow::Continue)
    }

    fn response(&self, (): &mut (), _: &mut Exchange<'_>, _: &mut ResponseHeader) -> Result<()> {
        self.at("response")
    }

    fn response_body(&self, (): &mut (), _: &mut Exchange<'_>, _: &mut Chunk<'_>) -> Result<()> {
        self.at("response_body")
    }

    fn log(&self, (): &mut (), _: &mut Exchange<'_>, entry: &mut LogEntry) {
        entry.field("said", "before");
        assert!(self.hook != "log", "{} at log", self.name);
    }
}

/// A gateway whose routes `/NAME` and `/NAME-own` have a filter that fails in one hook.
fn failing(origin: &Origin, failures: &[Fails]) -> Gateway {
    Gateway::start_with(&upstream(origin), |mut gateway| {
        for failure in failures {
            let name = failure.name;
            let route = Route::new(name, &format!("/{name}")).upstream("echo");
            gateway = gateway.route(route.filter(name, Stage::Admit, *failure));
            let mut own = Route::new(&format!("{name}-own"), &format!("/{name}-own"))
                .respond_with(|_, body| Reply::content(StatusCode::OK, body));
            own.config_mut().filters.push(portcullis::config::FilterUse::named(name));
            gateway = gateway.route(own);
        }
        gateway.route(Route::new("fine", "/fine").upstream("echo"))
    })
}

const PANICS: [Fails; 7] = [
    Fails { hook: "request", name: "panic_request", panics: true },
    Fails { hook: "request_wait", name: "panic_wait", panics: true },
    Fails { hook: "upstream_request", name: "panic_upstream", panics: true },
    Fails { hook: "request_body", name: "panic_body", panics: true },
    Fails { hook: "response", name: "panic_response", panics: true },
    Fails { hook: "response_body", name: "panic_response_body", panics: true },
    Fails { hook: "log", name: "panic_log", panics: true },
];

const FAULTS: [Fails; 6] = [
    Fails { hook: "request", name: "fault_request", panics: false },
    Fails { hook: "request_wait", name: "fault_wait", panics: false },
    Fails { hook: "upstream_request", name: "fault_upstream", panics: false },
    Fails { hook: "request_body", name: "fault_body", panics: false },
    Fails { hook: "response", name: "fault_response", panics: false },
    Fails { hook: "response_body", name: "fault_response_body", panics: false },
];

#[test]
fn a_filter_that_fails_costs_one_request() {
    let origin = echo();
    let gateway = failing(&origin, &[&PANICS[..], &FAULTS[..]].concat());
    for Fails { hook, name, panics } in PANICS.into_iter().chain(FAULTS) {
        let answer = Ask::new(&format!("POST /{name}")).body("hello").try_send(gateway.address());
        let line = gateway.log_of(&format!("/{name}"));
        match hook {
            // The exchange is over; what it has left in the line is lost at most.
            "log" => assert_eq!((answer.unwrap().status, &line["status"]), (200, &200.into()), "{name}"),
            _ => {
                let answer = answer.unwrap();
                assert_eq!(answer.problem(), (500, "bug".to_owned()), "{name}");
                assert!(!answer.text().contains(name), "internal detail leaves: {}", answer.text());
                assert_eq!((&line["status"], &line["reason"]), (&500.into(), &"bug".into()), "{name}");
                let series = format!("portcullis_gateway_replies_total{{route=\"{name}\",reason=\"bug\"}}");
                assert!(gateway.metric(&series) >= 1.0, "{series}");
            }
        }
        if panics {
            heard(&["ERROR", &format!("filter {name} panicked: {name} at {hook}")]);
        } else {
            heard(&["ERROR", &format!("filter {name}"), &format!("fault of {name} at {hook}")]);
        }
        assert_eq!(ask(gateway.address(), "GET /fine", "").status, 200, "after {name}");
    }
}

#[test]
fn a_filter_that_fails_on_the_gateways_own_answer_costs_one_request() {
    let origin = echo();
    let gateway = failing(&origin, &[&PANICS[..], &FAULTS[..]].concat());
    for Fails { hook, name, .. } in PANICS.into_iter().chain(FAULTS) {
        let answer = Ask::new(&format!("POST /{name}-own")).body("hello").send(gateway.address());
        match hook {
            // Never called: nothing goes upstream.
            "upstream_request" | "log" => {
                assert_eq!((answer.status, answer.text().as_str()), (200, "hello"), "{name}");
            }
            _ => assert_eq!(answer.problem(), (500, "bug".to_owned()), "{name}"),
        }
    }
}

#[test]
fn a_filter_that_fails_after_the_head_cuts_the_body_short() {
    /// Lets the first piece pass.
    struct Later;
    impl Filter for Later {
        type State = bool;
        fn phases(&self) -> Phases {
            Phases::RESPONSE_BODY
        }
        fn response_body(&self, seen: &mut bool, _: &mut Exchange<'_>, chunk: &mut Chunk<'_>) -> Result<()> {
            assert!(!*seen, "later on");
            *seen |= chunk.data.as_ref().is_some_and(|data| !data.is_empty());
            Ok(())
        }
    }
    // The second half leaves when the client has the first.
    let (told, wait) = std::sync::mpsc::channel();
    let wait = Mutex::new(wait);
    let origin = Origin::start(move |visit| {
        visit.send("HTTP/1.1 200 OK\r\ncontent-length: 8\r\n\r\nhalf");
        wait.lock().unwrap().recv().unwrap();
        visit.answer("half")
    });
    let gateway = Gateway::start_with(&upstream(&origin), |gateway| {
        gateway.route(Route::new("later", "/*").upstream("echo").filter("later", Stage::Transform, Later))
    });
    let mut client = gateway.client();
    assert_eq!(client.send_get("/cut").head().status, 200);
    assert_eq!(client.read(4), b"half");
    told.send(()).unwrap();
    assert_eq!(client.rest(), b"", "nothing stands for the rest");
    let line = gateway.log_of("/cut");
    assert_eq!(
        (&line["status"], &line["reason"], &line["bytes_out"]),
        (&200.into(), &"bug".into(), &4.into())
    );
    heard(&["filter later panicked: later on"]);
}

#[test]
fn a_failed_request_releases_what_it_held() {
    let origin = echo();
    let gateway = failing(&origin, &PANICS);
    for _ in 0..20 {
        for failure in PANICS {
            drop(Ask::new(&format!("POST /{}", failure.name)).body("hello").try_send(gateway.address()));
        }
    }
    eventually("all is released", || {
        let upstreams = gateway.admin_get("/upstreams").json();
        let active = PANICS.iter().all(|failure| {
            gateway.metric(&format!("portcullis_requests_active{{route=\"{}\"}}", failure.name)) == 0.0
        });
        active && upstreams[0]["endpoints"][0]["active"] == 0
    });
    assert_eq!(gateway.metric("portcullis_connections_active{listener=\"web\"}"), 0.0);
}

#[test]
fn upstream_hooks_run_again_for_every_attempt() {
    struct Count(Arc<AtomicUsize>);
    impl Filter for Count {
        type State = usize;
        fn phases(&self) -> Phases {
            Phases::UPSTREAM_REQUEST
        }
        fn upstream_request(
            &self,
            tries: &mut usize,
            _: &mut Exchange<'_>,
            head: &mut RequestHeader,
        ) -> Result<()> {
            *tries += 1;
            self.0.fetch_add(1, Ordering::SeqCst);
            head.insert_header("x-try", *tries)?;
            Ok(())
        }
    }
    // The first request on a connection is answered, the second one finds it closed, as pooled connections may be.
    let closed = Arc::new(Mutex::new(false));
    let seen = Arc::clone(&closed);
    let origin = Origin::start(move |visit| {
        let mut closed = seen.lock().unwrap();
        if visit.request.target == "/again" && !*closed {
            *closed = true;
            return crate::harness::Then::Close;
        }
        let tries = visit.request.header("x-try").unwrap_or_default().to_owned();
        visit.answer(format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{tries}", tries.len()))
    });
    let count = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&count);
    let gateway = Gateway::start_with(&upstream(&origin), move |gateway| {
        let route = Route::new("all", "/*").upstream("echo");
        gateway.route(route.filter("count", Stage::Route, Count(counted)))
    });
    assert_eq!(gateway.get("/first").text(), "1");
    assert_eq!(gateway.get("/again").text(), "2");
    assert_eq!(count.load(Ordering::SeqCst), 3);
}

#[test]
fn two_filters_made_in_code_cannot_share_a_name() {
    process_log::listen();
    let gateway = portcullis::Gateway::new()
        .listen("127.0.0.1:0")
        .route(Route::new("a", "/a").respond_with(|_, body| Reply::content(StatusCode::OK, body)).filter(
            "twin",
            Stage::Admit,
            PANICS[0],
        ))
        .route(Route::new("b", "/b").respond_with(|_, body| Reply::content(StatusCode::OK, body)).filter(
            "twin",
            Stage::Admit,
            FAULTS[0],
        ));
    let message = gateway.start().err().map(|error| error.to_string()).unwrap_or_default();
    assert!(message.contains("twin"), "{message:?}");
}

#[test]
fn what_cannot_be_put_into_words_is_told_at_the_start() {
    process_log::listen();
    let gateway = portcullis::Gateway::new()
        .listen("nowhere")
        .admin("127.0.0.1")
        .route(Route::new("a", "/a").forward_to(["localhost:80", "127.0.0.1:80"]));
    let message = gateway.start().err().map(|error| error.to_string()).unwrap_or_default();
    for word in ["`nowhere`", "`127.0.0.1`", "`localhost:80`"] {
        assert!(message.contains(word), "{word}: {message}");
    }
}

#[test]
fn a_gateway_ends_when_it_is_told_to() {
    let gateway = told();
    let address = gateway.address();
    assert_eq!(Ask::new("POST /a").body("here").send(address).text(), "here");
    gateway.shutdown();
    eventually("nobody listens", || {
        std::net::TcpStream::connect_timeout(&address, Duration::from_millis(200)).is_err()
    });
}

#[test]
fn a_file_and_words_of_code_do_not_mix() {
    process_log::listen();
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("p.yaml");
    let words = "listeners: [{ name: web, address: \"127.0.0.1:0\" }]\nroutes: [{ name: a, path: /a, respond: { body: a } }]\n";
    std::fs::write(&file, words).unwrap();
    let mixed = portcullis::Gateway::from_file(&file).listen("127.0.0.1:0");
    let message = mixed.start().err().map(|error| error.to_string()).unwrap_or_default();
    assert!(message.contains("by a file or by code"), "{message:?}");
    // A filter that the file may name is no word of code.
    std::fs::write(&file, format!("{words}filters: [early]\n")).unwrap();
    let named = portcullis::Gateway::from_file(&file).named_filter("early", Stage::Admit, FAULTS[0]);
    assert!(named.start().is_ok());
}

#[test]
fn a_gateway_inside_another_program_takes_no_upgrades() {
    process_log::listen();
    let folder = tempfile::tempdir().unwrap();
    let socket = folder.path().join("upgrade.sock");
    let words = format!(
        "server: {{ upgrade_socket: {} }}\nlisteners: [{{ name: web, address: \"127.0.0.1:0\" }}]\nroutes: [{{ name: a, path: /a, respond: {{ body: a }} }}]\n",
        socket.display()
    );
    let running = portcullis::Gateway::from_yaml(&words).start().unwrap();
    assert!(!socket.exists());
    running.shutdown();
}
