//! A new configuration while the gateway runs: what goes live, what is kept, and what is refused.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;

use portcullis::Running;
use serde_json::Value;

use crate::ask::{Asked, ask, echo};
use crate::harness::process_log::{self, heard};
use crate::harness::{Gateway, Origin, eventually};

/// One route that answers with this word.
fn saying(word: &str) -> String {
    format!("routes: [{{ name: a, path: /a, respond: {{ body: {word} }} }}]")
}

fn generation(gateway: &Gateway) -> u64 {
    gateway.admin_get("/status").json()["config"]["generation"].as_u64().unwrap()
}

#[test]
fn a_changed_route_goes_live_and_an_open_connection_sees_it() {
    let gateway = Gateway::start_file(&saying("one"));
    let mut client = gateway.client();
    assert_eq!(client.get("/a").text(), "one");
    for (round, word) in ["two", "three"].into_iter().enumerate() {
        gateway.rewrite(&saying(word));
        gateway.reload().unwrap();
        assert_eq!(client.get("/a").text(), word);
        assert!(generation(&gateway) > u64::try_from(round).unwrap() + 1);
    }
    let hash = gateway.admin_get("/status").json()["config"]["hash"].clone();
    gateway.reload().unwrap();
    assert_eq!(
        gateway.admin_get("/status").json()["config"]["hash"],
        hash,
        "the same words, the same fingerprint"
    );
}

#[test]
fn a_bad_file_keeps_the_old_configuration_and_says_so() {
    let gateway = Gateway::start_file(&saying("one"));
    for (bad, said) in [
        ("routes: [", "portcullis.yaml"),
        ("routes: [{ name: bad-one, path: /a, upstream: missing-upstream }]", "missing-upstream"),
        ("routes: [{ name: bad-two, path: /a }, { name: bad-two, path: b, respond: {} }]", "routes[1]"),
        ("routes: []\nadmin: { address: \"0.0.0.0:0\" }", "admin.address"),
    ] {
        gateway.rewrite(bad);
        let message = gateway.reload().unwrap_err();
        assert!(message.contains(said), "{bad}: {message}");
        assert_eq!(gateway.get("/a").text(), "one", "{bad}");
        let status = gateway.admin_get("/status").json();
        assert_eq!(status["config"]["generation"], 1, "{bad}");
        assert!(status["config"]["last_reload"]["error"].as_str().unwrap().contains(said), "{bad}: {status}");
        assert!(status["config"]["last_reload"]["at"].as_u64().unwrap() > 1_700_000_000);
        heard(&["ERROR", "stays in force", said]);
    }
    assert!(gateway.metric("portcullis_config_reloads_total{result=\"failure\"}") >= 4.0);
    fs::remove_file(gateway.dir().join("portcullis.yaml")).unwrap();
    assert!(gateway.reload().unwrap_err().contains("portcullis.yaml"));
    assert_eq!(gateway.get("/a").text(), "one");
    // The next good file mends it.
    gateway.rewrite(&saying("two"));
    gateway.reload().unwrap();
    assert_eq!(gateway.get("/a").text(), "two");
    assert_eq!(gateway.admin_get("/status").json()["config"]["last_reload"].get("error"), None);
}

#[test]
fn what_only_a_new_process_can_change_is_refused_and_names_the_way() {
    let base = "server: { threads: 1 }\n\
                listeners: [{ name: web, address: \"127.0.0.1:0\" }]\n\
                admin: { address: \"127.0.0.1:0\" }\n\
                telemetry: { access_log: { output: off }, log: { level: warn } }\n";
    let gateway = Gateway::start_file(&format!("{base}{}", saying("one")));
    for (from, to, named) in [
        ("threads: 1", "threads: 2", "server.threads"),
        ("threads: 1", "threads: 1, work_stealing: false", "server.work_stealing"),
        ("threads: 1", "threads: 1, upstream_keepalive: 7", "server.upstream_keepalive"),
        ("threads: 1", "threads: 1, upgrade_socket: /tmp/none.sock", "server.upgrade_socket"),
        ("name: web", "name: site", "listeners"),
        (
            "web, address: \"127.0.0.1:0\" }",
            "web, address: \"127.0.0.1:0\" }, { name: b, address: \"127.0.0.1:0\" }",
            "listeners",
        ),
        ("web, address: \"127.0.0.1:0\"", "web, address: \"127.0.0.2:0\"", "listeners"),
        (
            "admin: { address: \"127.0.0.1:0\" }",
            "admin: { address: \"127.0.0.1:0\", token: 0123456789abcdef }",
            "admin",
        ),
        ("level: warn", "level: warn, format: text", "telemetry.log.format"),
        ("output: off }", "output: off }, metrics: { buckets: [1s] }", "telemetry.metrics"),
    ] {
        let changed = base.replacen(from, to, 1);
        assert_ne!(changed, base, "{from}");
        gateway.rewrite(&format!("{changed}{}", saying("two")));
        let message = gateway.reload().unwrap_err();
        assert!(message.contains(named) && message.contains("portcullis upgrade"), "{to}: {message}");
        assert_eq!(gateway.get("/a").text(), "one", "{to}");
    }
    // What is wrong and what is fixed are told one after the other: first what is wrong.
    gateway.rewrite("server: { threads: 2 }\nroutes: [{ name: a }]");
    assert!(!gateway.reload().unwrap_err().contains("upgrade"));
}

#[test]
fn what_a_running_process_can_change_changes() {
    let words = |limits: &str, filter: &str, log: &str| {
        format!(
            "listeners: [{{ name: web, address: \"127.0.0.1:0\", limits: {{ {limits} }}, filters: [headers: {{ response: {{ set: {{ x-a: {filter} }} }} }}] }}]\n\
             telemetry: {{ log: {{ level: warn }}, access_log: {{ output: '{{access_log}}{log}' }} }}\n{}",
            saying("one")
        )
    };
    let gateway = Gateway::start_file(&words("uri_bytes: 1KiB", "one", ""));
    let mut client = gateway.client();
    assert_eq!(client.get("/a").header("x-a"), Some("one"));
    gateway.log_of("/a");
    gateway.rewrite(&words("uri_bytes: 16B", "two", ".2"));
    gateway.reload().unwrap();
    assert_eq!(client.get("/a").header("x-a"), Some("two"));
    let second = gateway.dir().join("access.log.2");
    eventually("the new log has the line", || {
        fs::read_to_string(&second).is_ok_and(|text| text.contains("/a"))
    });
    assert_eq!(client.get("/a-long-target-it-is").status, 414);
    assert_eq!(gateway.log().len(), 1, "the old log has only the line before");
}

fn requests(gateway: &Gateway) -> Vec<(String, u64, u64)> {
    let upstreams = gateway.admin_get("/upstreams").json();
    let endpoints = upstreams[0]["endpoints"].as_array().unwrap().clone();
    let number = |endpoint: &Value, name: &str| endpoint[name].as_u64().unwrap();
    let view = |endpoint: &Value| {
        let address = endpoint["address"].as_str().unwrap().to_owned();
        (address, number(endpoint, "weight"), number(endpoint, "requests"))
    };
    endpoints.iter().map(view).collect()
}

#[test]
fn the_counters_of_an_endpoint_survive_a_new_weight_and_go_with_the_endpoint() {
    let (one, two) = (echo(), echo());
    let words = |endpoints: &str| {
        format!(
            "upstreams: {{ up: {{ endpoints: [{endpoints}] }} }}\nroutes: [{{ name: all, path: /*, upstream: up }}]"
        )
    };
    let weighted =
        |origin: &Origin, weight: u64| format!("{{ address: \"{}\", weight: {weight} }}", origin.address());
    let gateway = Gateway::start_file(&words(&format!("{}, {}", weighted(&one, 1), weighted(&two, 1))));
    for _ in 0..4 {
        ask(gateway.address(), "GET /", "");
    }
    let (first, second) = (one.address().to_string(), two.address().to_string());
    assert_eq!(requests(&gateway), [(first.clone(), 1, 2), (second.clone(), 1, 2)]);
    let series = |address: &str| {
        format!(
            "portcullis_upstream_requests_total{{upstream=\"up\",endpoint=\"{address}\",outcome=\"success\"}}"
        )
    };
    eventually("both are counted", || {
        gateway.metric(&series(&first)) + gateway.metric(&series(&second)) == 4.0
    });

    gateway.rewrite(&words(&format!("{}, {}", weighted(&one, 3), weighted(&two, 1))));
    gateway.reload().unwrap();
    assert_eq!(requests(&gateway), [(first.clone(), 3, 2), (second.clone(), 1, 2)]);
    for _ in 0..4 {
        ask(gateway.address(), "GET /", "");
    }
    assert_eq!(requests(&gateway), [(first.clone(), 3, 5), (second.clone(), 1, 3)]);
    eventually("counters went on", || gateway.metric(&series(&first)) == 5.0);

    gateway.rewrite(&words(&weighted(&two, 1)));
    gateway.reload().unwrap();
    assert_eq!(requests(&gateway), [(second.clone(), 1, 3)]);
    assert_eq!((gateway.metric(&series(&first)), gateway.metric(&series(&second))), (0.0, 3.0));
    // Back again it is another endpoint.
    gateway.rewrite(&words(&format!("{}, {}", weighted(&one, 1), weighted(&two, 1))));
    gateway.reload().unwrap();
    assert_eq!(requests(&gateway), [(first, 1, 0), (second, 1, 3)]);
}

#[test]
fn a_route_that_goes_takes_its_series_along() {
    let route = |name: &str| {
        format!(
            "{{ name: {name}, path: /{name}, filters: [ip_restriction: {{ deny: [127.0.0.0/8] }}], respond: {{}} }}"
        )
    };
    let gateway = Gateway::start_file(&format!("routes: [{}, {}]", route("stays"), route("goes")));
    ask(gateway.address(), "GET /stays", "");
    ask(gateway.address(), "GET /goes", "");
    let series = |name: &str| {
        let text = gateway.admin_get("/metrics").text();
        text.lines().filter(|line| line.contains(&format!("route=\"{name}\""))).count()
    };
    eventually("both are counted", || series("goes") > 3 && series("stays") > 3);
    gateway.rewrite(&format!("routes: [{}]", route("stays")));
    gateway.reload().unwrap();
    eventually("the series are gone", || series("goes") == 0);
    ask(gateway.address(), "GET /stays", "");
    let stays = "portcullis_gateway_replies_total{route=\"stays\",reason=\"ip_denied\"}";
    eventually("the other's went on", || gateway.metric(stays) == 2.0);
}

#[test]
fn a_request_keeps_the_route_it_began_with() {
    let (release, wait) = std::sync::mpsc::channel::<()>();
    let wait = std::sync::Mutex::new(wait);
    let origin = Origin::start(move |visit| {
        wait.lock().unwrap().recv().unwrap();
        visit.answer("HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok")
    });
    let words = |word: &str| {
        format!(
            "upstreams: {{ up: {{ endpoints: [\"{}\"] }} }}\n\
             routes: [{{ name: {word}, path: /*, upstream: up, filters: [headers: {{ response: {{ set: {{ x-a: {word} }} }} }}] }}]",
            origin.address()
        )
    };
    let gateway = Gateway::start_file(&words("old"));
    let mut client = gateway.client();
    client.send_get("/held");
    eventually("the request is at the origin", || origin.heads().len() == 1);
    gateway.rewrite(&words("new"));
    // The old snapshot's last user holds only its route: the reload does not wait for it.
    gateway.reload().unwrap();
    release.send(()).unwrap();
    assert_eq!(client.response().header("x-a"), Some("old"));
    assert_eq!(gateway.log_of("/held")["route"], "old");
    release.send(()).unwrap();
    assert_eq!(client.get("/next").header("x-a"), Some("new"));
}

/// A gateway from this file, with the parts that every test needs.
fn started(path: &Path) -> Running {
    process_log::listen();
    portcullis::Gateway::from_file(path).start().unwrap_or_else(|error| panic!("{error}"))
}

fn whole(word: &str) -> String {
    format!(
        "server: {{ threads: 1 }}\nlisteners: [{{ name: web, address: \"127.0.0.1:0\" }}]\n\
         telemetry: {{ log: {{ level: warn }}, access_log: {{ output: off }} }}\n{}",
        saying(word)
    )
}

#[track_caller]
fn assert_becomes(gateway: &Running, word: &str) {
    let address = gateway.address("").unwrap();
    eventually(&format!("the answer is {word}"), || ask(address, "GET /a", "").text() == word);
}

#[test]
fn a_file_put_in_the_place_of_the_old_one_is_noticed() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    fs::write(at("p.yaml"), whole("one")).unwrap();
    let gateway = started(&at("p.yaml"));
    for word in ["two", "three"] {
        fs::write(at("next"), whole(word)).unwrap();
        fs::rename(at("next"), at("p.yaml")).unwrap();
        assert_becomes(&gateway, word);
    }
}

#[test]
fn a_file_written_in_place_is_noticed_and_half_of_it_does_no_harm() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("p.yaml");
    fs::write(&file, whole("one")).unwrap();
    let gateway = started(&file);
    for word in ["two", "three"] {
        let text = whole(word);
        fs::write(&file, &text[..text.len() / 2]).unwrap();
        assert_ne!(ask(gateway.address("").unwrap(), "GET /a", "").status, 500);
        fs::write(&file, &text).unwrap();
        assert_becomes(&gateway, word);
    }
}

#[test]
fn a_swapped_link_is_noticed() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    // As Kubernetes mounts a ConfigMap: the file leads through a link that is swapped as a whole.
    for word in ["one", "two", "three"] {
        fs::create_dir(at(word)).unwrap();
        fs::write(at(word).join("p.yaml"), whole(word)).unwrap();
    }
    symlink(at("one"), at("data")).unwrap();
    symlink(Path::new("data/p.yaml"), at("p.yaml")).unwrap();
    let gateway = started(&at("p.yaml"));
    assert_becomes(&gateway, "one");
    for word in ["two", "three"] {
        symlink(at(word), at("data.next")).unwrap();
        fs::rename(at("data.next"), at("data")).unwrap();
        assert_becomes(&gateway, word);
    }
}

#[test]
fn a_link_swapped_in_the_middle_of_a_chain_is_noticed() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    for part in ["etc", "current", "one", "two", "three"] {
        fs::create_dir(at(part)).unwrap();
    }
    for word in ["one", "two", "three"] {
        fs::write(at(word).join("gateway.yaml"), whole(word)).unwrap();
    }
    // The file is a link to a link, whose own folder holds neither the first nor the last.
    symlink(at("current/link"), at("etc/p.yaml")).unwrap();
    symlink(at("one/gateway.yaml"), at("current/link")).unwrap();
    let gateway = started(&at("etc/p.yaml"));
    assert_becomes(&gateway, "one");
    for word in ["two", "three"] {
        let file = at(word).join("gateway.yaml");
        symlink(&file, at("current/next")).unwrap();
        fs::rename(at("current/next"), at("current/link")).unwrap();
        assert_becomes(&gateway, word);
        let again = format!("{word}-again");
        fs::write(&file, whole(&again)).unwrap();
        assert_becomes(&gateway, &again);
    }
}

#[test]
fn included_files_are_watched_those_of_a_later_configuration_too() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    let base = whole("main").replace("routes:", "#");
    for part in ["early", "late"] {
        fs::create_dir(at(part)).unwrap();
        fs::write(at(part).join("a.yaml"), saying(part)).unwrap();
    }
    fs::write(at("p.yaml"), format!("include: [early/*.yaml]\n{base}")).unwrap();
    let gateway = started(&at("p.yaml"));
    assert_becomes(&gateway, "early");
    fs::write(at("early").join("a.yaml"), saying("early2")).unwrap();
    assert_becomes(&gateway, "early2");
    // A file that is new in the folder counts as well.
    fs::rename(at("early").join("a.yaml"), at("early").join("b.yaml")).unwrap();
    fs::write(at("early").join("b.yaml"), saying("early3")).unwrap();
    assert_becomes(&gateway, "early3");

    fs::write(at("p.yaml"), format!("include: [late/*.yaml]\n{base}")).unwrap();
    assert_becomes(&gateway, "late");
    fs::write(at("late").join("a.yaml"), saying("late2")).unwrap();
    assert_becomes(&gateway, "late2");
}

#[test]
fn a_gateway_made_in_code_reloads_to_what_it_was() {
    let origin = echo();
    let gateway = Gateway::start(
        &(crate::ask::upstream(&origin) + "routes: [{ name: all, path: /*, upstream: echo }]"),
    );
    assert_eq!(gateway.reload().unwrap(), 2);
    assert_eq!(Asked::of(&ask(gateway.address(), "GET /a", "")).target, "/a");
}
