//! Twelve-factor: everything can come from the environment, and the logs are lines of JSON.

use serde_json::Value;

use crate::client::get;
use crate::gateway::{Home, PROGRAM, errors, eventually};
use crate::origin::Origin;

#[test]
fn everything_can_come_from_the_environment() {
    let origin = Origin::start();
    let home = Home::new();
    let listener = "{ name: web, address: \"${HOST}:1\" }";
    home.write_text(&format!(
        "version: 1\nlisteners: [{listener}]\nadmin: {{ address: \"{}\" }}\n\
         upstreams: {{ origin: {{ endpoints: [\"${{ORIGIN:-127.0.0.1:9}}\"] }} }}\n\
         routes: [{{ name: all, path: /*, upstream: origin }}, {{ name: b, path: /b, respond: {{ body: a }} }}]\n",
        home.admin
    ));
    let mut command = home.command(PROGRAM, &["run"]);
    command
        .env("PORTCULLIS_CONFIG", home.config())
        .env("HOST", home.web.ip().to_string())
        .env("PORT", home.web.port().to_string())
        .env("ORIGIN", origin.address.to_string())
        .env("PORTCULLIS__ROUTES__1__RESPOND__BODY", "from the environment")
        .env("PORTCULLIS__SERVER__THREADS", "1")
        .env("PORTCULLIS__TELEMETRY__LOG__LEVEL", "debug");
    let gateway = home.run(command);
    assert_eq!(gateway.body("/a"), "origin /a\n");
    assert_eq!(gateway.body("/b"), "from the environment");
    let config: Value = serde_json::from_slice(&gateway.admin("GET", "/config").unwrap().body).unwrap();
    assert_eq!(config["server"]["threads"], "1");
    assert_eq!(config["telemetry"]["log"]["level"], "debug");
}

#[test]
fn what_the_environment_says_wrong_is_refused_by_its_name() {
    let home = Home::new();
    home.write(&home.words("127.0.0.1:1"));
    for (name, value, word) in [
        ("PORTCULLIS__SERVER__THREADS", "many", "PORTCULLIS__SERVER__THREADS"),
        ("PORTCULLIS__SERVER__TREADS", "2", "PORTCULLIS__SERVER__TREADS"),
        ("PORT", "no port", "PORT"),
    ] {
        let output =
            home.command(PROGRAM, &["run", "-c", "portcullis.yaml"]).env(name, value).output().unwrap();
        assert_eq!(output.status.code(), Some(2), "{name}");
        assert!(errors(&output).contains(word), "{name}: {}", errors(&output));
    }
}

#[test]
fn logs_are_json_lines_requests_on_stdout_and_the_process_on_stderr() {
    let origin = Origin::start();
    let home = Home::new();
    let mut words = home.words(origin.address);
    words.telemetry = String::new();
    home.write(&words);
    let gateway = home.start();
    assert_eq!(get(gateway.home.web, "/a?secret=1").unwrap().status, 200);
    assert_eq!(gateway.get("/../b").unwrap().status, 400);
    let lines = eventually("two access log lines", || Some(gateway.out()).filter(|lines| lines.len() == 2));
    let lines: Vec<Value> = lines.iter().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!((lines[0]["path"].as_str(), lines[0]["status"].as_u64()), (Some("/a"), Some(200)));
    assert_eq!(lines[1]["status"], 400);
    for line in gateway.log() {
        let line: Value = serde_json::from_str(&line).unwrap();
        assert!(line["ts"].is_string() && line["level"].is_string() && line["msg"].is_string(), "{line}");
    }
}
