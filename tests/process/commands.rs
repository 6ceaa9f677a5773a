//! What else the program can be asked.

use std::fs;
use std::process::{Command, Output};

use portcullis::{Gateway, Reply, Route};
use serde_json::Value;

use crate::gateway::{Home, PROGRAM, errors, eventually};

const CONFIG: &str = r#"
version: 1
server: { grace_period: 5s, trusted_proxies: [10.0.0.0/8] }
listeners: [{ name: web, address: "127.0.0.1:0", filters: [request_id] }]
admin: { address: "127.0.0.1:0", token: 0123456789abcdef }
upstreams:
  shop: { endpoints: ["127.0.0.1:1", { address: "127.0.0.1:2", weight: 3 }], timeouts: { read: 5s } }
chains: { names: [{ headers: { request: { set: { x-user: "{id}", x-api-key: 0123456789abcdef } } } }] }
routes:
  - { name: user, hosts: ["*.shop.test"], path: "/users/{id}", methods: [GET], upstream: shop, filters: [{ use: names }] }
  - { name: old, path: "/old/{rest*}", redirect: { to: "/new/{rest}", status: 308 } }
  - { name: pong, path: { regex: "^/p[io]ng$" }, respond: { body: "pong\n" }, timeouts: { total: 1m } }
"#;

fn home() -> Home {
    let home = Home::new();
    home.write_text(CONFIG);
    home
}

fn text(output: &Output) -> String {
    assert_eq!(output.status.code(), Some(0), "{}", errors(output));
    String::from_utf8(output.stdout.clone()).unwrap()
}

#[test]
fn check_says_what_there_is_and_starts_nothing() {
    let home = home();
    let said = text(&home.ask(&["check", "-c", "portcullis.yaml"]));
    assert!(said.contains("portcullis.yaml: fine (1 listeners, 3 routes, 1 upstreams)"), "{said}");
    home.write_text("listeners: []\nrouts: []\n");
    let output = home.ask(&["check", "-c", "portcullis.yaml"]);
    assert_eq!(output.status.code(), Some(2));
    assert!(errors(&output).contains("portcullis.yaml:2:1: "), "{}", errors(&output));
}

#[test]
fn what_check_prints_is_a_configuration_that_means_the_same() {
    let home = home();
    let printed = text(&home.ask(&["check", "--print", "-c", "portcullis.yaml"]));
    assert!(printed.contains("***") && !printed.contains("0123456789abcdef"), "{printed}");
    let open = printed.replace("'***'", "0123456789abcdef").replace("\"***\"", "0123456789abcdef");
    home.write_text(&open);
    assert_eq!(text(&home.ask(&["check", "--print", "-c", "portcullis.yaml"])), printed);
}

#[test]
fn explain_says_route_chain_and_upstream() {
    let home = home();
    let explain = |arguments: &[&str]| {
        let mut all = vec!["explain", "-c", "portcullis.yaml"];
        all.extend(arguments);
        home.ask(&all)
    };
    let said = text(&explain(&["GET", "http://eu.shop.test/users/7"]));
    for words in
        ["route     user", "capture   id = 7", "request_id", "headers", "upstream  shop", "127.0.0.1:2"]
    {
        assert!(said.contains(words), "{words}: {said}");
    }
    let said = text(&explain(&["GET", "/users/7", "-H", "Host: eu.shop.test"]));
    assert!(said.contains("route     user"), "{said}");
    assert!(text(&explain(&["PUT", "http://eu.shop.test/users/7"])).contains("allow     GET"));
    assert!(text(&explain(&["GET", "/nowhere"])).contains("route     none"));
    assert_eq!(explain(&["GET", "/a", "-H", "no colon"]).status.code(), Some(2));
    assert_eq!(explain(&["GET", "/%2e%2e/a"]).status.code(), Some(2));
}

#[test]
fn schema_completions_and_version_are_printed() {
    let home = Home::new();
    let schema: Value = serde_json::from_str(&text(&home.ask(&["schema"]))).unwrap();
    assert!(schema["properties"]["routes"].is_object());
    let script = home.path("completions.bash");
    fs::write(&script, text(&home.ask(&["completions", "bash"]))).unwrap();
    assert!(Command::new("bash").arg("-n").arg(&script).status().unwrap().success());
    let version = format!("portcullis {}\n", env!("CARGO_PKG_VERSION"));
    assert_eq!(text(&home.ask(&["version"])), version);
}

/// A reader that goes away early (`portcullis ... | head -1`) is no failure.
#[test]
fn a_closed_pipe_is_no_panic() {
    let home = home();
    let lines = ["schema", "completions bash", "check --print -c portcullis.yaml"];
    for line in lines {
        let script = format!("{{ {PROGRAM} {line}; echo $? >&2; }} | true");
        let output = home.command("sh", &["-c", &script]).output().unwrap();
        assert_eq!(errors(&output), "0\n", "{line}");
    }
}

#[test]
fn every_line_that_the_demo_prints_works() {
    let home = Home::new();
    let (web, admin) = (home.web.to_string(), home.admin.to_string());
    let command = home.command(PROGRAM, &["demo", "--address", &web, "--admin", &admin]);
    let mut demo = home.spawn(command);
    eventually("the demo", || demo.get("/").ok());
    let lines: Vec<_> = demo.out().into_iter().filter(|line| line.contains("curl ")).collect();
    let expected = [
        " 200 OK",
        " 200 OK",
        " 200 OK",
        " 405 ",
        " 403 ",
        " 200 OK",
        " 413 ",
        "ratelimit: ",
        "x-variant: ",
        "x-variant: next",
        "deprecation: @",
        "breaks down",
        " 200 OK",
        "healthy",
        "requests_total",
    ];
    assert_eq!(lines.len(), expected.len(), "{lines:?}");
    for (line, expected) in lines.iter().zip(expected) {
        let output = Command::new("sh").arg("-c").arg(line).output().unwrap();
        let said = String::from_utf8_lossy(&output.stdout);
        assert!(output.status.success() && said.contains(expected), "{line}\n{said}{}", errors(&output));
    }
    demo.signal(rustix::process::Signal::INT);
    assert_eq!(demo.ended().code(), Some(0));
}

#[test]
fn a_panic_costs_one_request_and_is_logged_with_its_place() {
    let home = Home::new();
    let this = std::env::current_exe().unwrap();
    let arguments = ["--exact", "commands::a_program_that_panics", "--ignored", "--nocapture"];
    let mut command = home.command(this, &arguments);
    command.env("WEB", home.web.to_string());
    let gateway = home.run(command);
    let response = gateway.get("/boom").unwrap();
    assert_eq!(response.status, 500, "{}", response.text());
    assert!(response.text().contains("\"bug\""), "{}", response.text());
    assert_eq!(gateway.body("/fine"), "fine");
    let line: Value = serde_json::from_str(&gateway.logged("the egg broke")).unwrap();
    assert_eq!(line["level"], "error");
    assert!(line["place"].as_str().unwrap().contains("commands.rs:"), "{line}");
}

#[test]
#[ignore = "the program of another test, which runs it in a process of its own"]
fn a_program_that_panics() {
    let gateway = Gateway::new().listen(&std::env::var("WEB").unwrap());
    let gateway = gateway.route(Route::new("boom", "/boom").respond_with(|_, _| panic!("the egg broke")));
    let gateway = gateway
        .route(Route::new("fine", "/fine").respond_with(|_, _| Reply::content(http::StatusCode::OK, "fine")));
    gateway.run().unwrap();
}
