//! New configurations in a running process: put in force whole, or refused whole and told.

use std::fmt::Write as _;
use std::fs;
use std::io::Write as _;
use std::os::unix::fs::symlink;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::Signal;
use serde_json::Value;

use crate::client::{Client, get};
use crate::gateway::{Gateway, Home, PATIENCE, Words, errors, eventually};
use crate::load::Load;
use crate::origin::{Origin, download};

fn start(origin: &Origin) -> (Gateway, Words) {
    let home = Home::new();
    let words = home.words(origin.address);
    home.write(&words);
    (home.start(), words)
}

fn respond(name: &str, body: &str) -> String {
    format!("{{ name: {name}, path: /{name}, respond: {{ body: {body} }} }}")
}

fn with_route(words: &Words, name: &str) -> Words {
    Words { routes: format!("{}, {}", words.routes, respond(name, name)), ..words.clone() }
}

fn generation(gateway: &Gateway) -> u64 {
    gateway.status()["config"]["generation"].as_u64().unwrap()
}

fn is_live(gateway: &Gateway, name: &str) {
    eventually(&format!("the route {name}"), || (gateway.body(&format!("/{name}")) == name).then_some(()));
}

#[test]
fn a_changed_file_is_noticed() {
    let origin = Origin::start();
    let (gateway, words) = start(&origin);
    gateway.home.write(&with_route(&words, "swapped"));
    is_live(&gateway, "swapped");
    let text = fs::read_to_string(gateway.home.config()).unwrap().replace("swapped", "written");
    fs::write(gateway.home.config(), text).unwrap();
    is_live(&gateway, "written");
    // The words are in force a moment before they are counted.
    eventually("the reloads are told", || {
        let counted = gateway.metric("portcullis_config_reloads_total{result=\"success\"}") >= 2.0;
        let told = gateway.metric("portcullis_config_generation") == generation(&gateway) as f64;
        (counted && told).then_some(())
    });
    let status = gateway.status();
    assert!(status["config"]["last_reload"]["at"].as_u64() > Some(1_600_000_000), "{status}");
    assert_eq!(status["config"]["last_reload"].get("error"), None);
}

#[test]
fn folders_that_no_link_leads_to_any_more_are_watched_no_more() {
    let origin = Origin::start();
    let home = Home::new();
    home.write(&with_route(&home.words(origin.address), "release-0"));
    let text = fs::read_to_string(home.config()).unwrap();
    fs::remove_file(home.config()).unwrap();
    let (current, next) = (home.path("current"), home.path("next"));
    symlink(current.join("gateway.yaml"), home.config()).unwrap();
    let release = |folder: PathBuf| {
        let name = folder.file_name().unwrap().to_str().unwrap().to_owned();
        fs::create_dir(&folder).unwrap();
        fs::write(folder.join("gateway.yaml"), text.replace("release-0", &name)).unwrap();
        symlink(folder, &next).unwrap();
        fs::rename(&next, &current).unwrap();
        name
    };
    release(home.path("release-0"));
    let gateway = home.start();
    let watched = watches(gateway.pid());
    assert!(watched >= 2, "{watched}");
    for number in 1..4 {
        is_live(&gateway, &release(gateway.home.path(&format!("release-{number}"))));
        eventually("the old folder is let go", || (watches(gateway.pid()) == watched).then_some(()));
    }
}

/// The folders that a process watches.
fn watches(pid: u32) -> usize {
    let files = fs::read_dir(format!("/proc/{pid}/fdinfo")).unwrap();
    let told = files.filter_map(|file| fs::read_to_string(file.ok()?.path()).ok());
    told.map(|told| told.lines().filter(|line| line.starts_with("inotify ")).count()).sum()
}

#[test]
fn a_reload_can_be_asked_for_in_every_way() {
    let origin = Origin::start();
    let (gateway, _) = start(&origin);
    gateway.signal(Signal::HUP);
    eventually("the reload", || (generation(&gateway) == 2).then_some(()));

    let output = gateway.ask("reload");
    assert_eq!(output.status.code(), Some(0), "{}", errors(&output));
    assert_eq!(serde_json::from_slice::<Value>(&output.stdout).unwrap()["generation"], 3);

    let response = gateway.admin("POST", "/reload").unwrap();
    assert_eq!(response.status, 200);
    assert_eq!(serde_json::from_slice::<Value>(&response.body).unwrap()["generation"], 4);
    assert_eq!(generation(&gateway), 4);
}

#[test]
fn what_is_wrong_leaves_the_old_one_in_force_and_is_told_everywhere() {
    let origin = Origin::start();
    let (gateway, words) = start(&origin);
    let file = gateway.home.config().display().to_string();
    let wrong = Words { routes: "{ name: all, path: /*, upstream: origen }".into(), ..words.clone() };
    gateway.home.write(&wrong);
    let line = gateway.logged("the new configuration is refused");
    let line: Value = serde_json::from_str(&line).unwrap();
    let message = line["msg"].as_str().unwrap();
    assert!(
        message.contains(&format!("{file}:7:")) && message.contains("did you mean `origin`"),
        "{message}"
    );
    let status = gateway.status();
    assert!(status["config"]["last_reload"]["error"].as_str().unwrap().contains("origen"), "{status}");
    assert!(gateway.metric("portcullis_config_reloads_total{result=\"failure\"}") >= 1.0);

    let output = gateway.ask("reload");
    assert_eq!(output.status.code(), Some(2));
    assert!(errors(&output).contains(&format!("{file}:7:")), "{}", errors(&output));
    let response = gateway.admin("POST", "/reload").unwrap();
    assert_eq!(response.status, 422);
    assert!(response.text().contains("origen"));

    gateway.home.write_text("routes: [");
    let output = gateway.ask("reload");
    assert_eq!(output.status.code(), Some(2), "not even YAML: {}", errors(&output));
    assert_eq!(generation(&gateway), 1);
    assert_eq!(gateway.body("/a"), "origin /a\n");

    gateway.home.write(&with_route(&words, "mended"));
    is_live(&gateway, "mended");
    eventually("the error is forgotten", || {
        gateway.status()["config"]["last_reload"].get("error").is_none().then_some(())
    });
}

#[test]
fn what_needs_a_new_process_is_refused_with_a_word_on_upgrade() {
    let origin = Origin::start();
    let (gateway, words) = start(&origin);
    let other = gateway.home.free();
    let changes = [
        ("listeners", Words { listeners: format!("{{ name: web, address: \"{other}\" }}"), ..words.clone() }),
        (
            "server.threads",
            Words { server: words.server.replace("threads: 2", "threads: 3"), ..words.clone() },
        ),
        ("telemetry.log.format", Words { telemetry: "log: { format: text }".into(), ..words.clone() }),
    ];
    for (what, words) in changes {
        gateway.home.write(&words);
        let output = gateway.ask("reload");
        assert_eq!(output.status.code(), Some(2));
        let errors = errors(&output);
        assert!(errors.contains(what) && errors.contains("portcullis upgrade"), "{what}: {errors}");
    }
    assert_eq!(generation(&gateway), 1);
    assert_eq!(gateway.body("/a"), "origin /a\n");
}

#[test]
fn the_log_level_changes_with_the_configuration() {
    let origin = Origin::start();
    let (gateway, words) = start(&origin);
    let quiet = Words { telemetry: format!("{}, log: {{ level: error }}", words.telemetry), ..words.clone() };
    gateway.home.write(&quiet);
    eventually("the reload", || (generation(&gateway) == 2).then_some(()));
    assert_eq!(gateway.admin("POST", "/reload").unwrap().status, 200);
    assert!(!gateway.log().iter().any(|line| line.contains("configuration 3 is in force")));
}

#[test]
fn files_that_a_reload_brings_in_are_followed_from_then_on() {
    let origin = Origin::start();
    let (gateway, words) = start(&origin);
    let folder = gateway.home.path("parts");
    fs::create_dir(&folder).unwrap();
    let part =
        |name: &str| fs::write(folder.join("routes.conf"), format!("routes: [{}]\n", respond(name, name)));
    part("first").unwrap();
    gateway.home.write(&Words { more: "include: [parts/*.conf]".into(), ..words });
    is_live(&gateway, "first");
    part("second").unwrap();
    is_live(&gateway, "second");
}

#[test]
fn a_log_that_never_rests_in_the_same_folder_hides_no_change() {
    let origin = Origin::start();
    let (gateway, words) = start(&origin);
    let mut log = fs::File::create(gateway.home.path("busy.log")).unwrap();
    let done = AtomicBool::new(false);
    thread::scope(|scope| {
        scope.spawn(|| {
            while !done.load(Ordering::Relaxed) {
                log.write_all(b"a line\n").unwrap();
                thread::sleep(Duration::from_millis(5));
            }
        });
        gateway.home.write(&with_route(&words, "noticed"));
        let until = Instant::now() + PATIENCE;
        while gateway.body("/noticed") != "noticed" && Instant::now() < until {
            thread::sleep(Duration::from_millis(5));
        }
        done.store(true, Ordering::Relaxed);
        assert!(Instant::now() < until);
    });
}

#[test]
fn sigusr1_opens_the_access_log_anew() {
    let origin = Origin::start();
    let home = Home::new();
    let (words, path) = home.words_logged(origin.address);
    let old = home.path("access.log.1");
    home.write(&words);
    let gateway = home.start();
    let line = |path: &std::path::Path, text: &str| {
        eventually(text, || fs::read_to_string(path).ok()?.contains(text).then_some(()));
    };
    assert_eq!(gateway.get("/before").unwrap().status, 200);
    line(&path, "/before");
    fs::rename(&path, &old).unwrap();
    assert_eq!(gateway.get("/between").unwrap().status, 200);
    line(&old, "/between");
    gateway.signal(Signal::USR1);
    eventually("the new file", || path.exists().then_some(()));
    assert_eq!(gateway.get("/after").unwrap().status, 200);
    line(&path, "/after");
    assert!(!fs::read_to_string(&old).unwrap().contains("/after"));
}

#[test]
fn reloads_under_load_cost_no_request() {
    let origin = Origin::start();
    let (gateway, words) = start(&origin);
    let load = Load::start(gateway.home.web, "/a");
    let mut long = Client::connect(gateway.home.web).unwrap();
    long.send("GET", "/download", "").unwrap();
    origin.holds(1);
    let mut reloads = 1;
    while load.served() < 3_000 || reloads < 20 {
        let begun = Instant::now();
        let name = format!("r{reloads}");
        gateway.home.write(&with_route(&words, &name));
        let response = gateway.admin("POST", "/reload").unwrap();
        assert_eq!(response.status, 200, "{}", response.text());
        assert_eq!(gateway.body(&format!("/{name}")), name, "in force when the reload is answered");
        reloads += 1;
        thread::sleep(Duration::from_millis(200).saturating_sub(begun.elapsed()));
    }
    origin.open();
    assert_eq!(long.receive().unwrap().body, download(), "the long download");
    assert!(load.end() >= 3_000);
    assert_eq!(gateway.metric("portcullis_config_reloads_total{result=\"failure\"}"), 0.0);
}

/// Fifty thousand routes over a thousand hosts, each answered by the gateway itself.
fn many_routes(changed: &str) -> String {
    let mut routes = String::new();
    for at in 0..50_000 {
        let body = if at == 31_415 { changed } else { "same" };
        let host = at % 1000;
        writeln!(
            routes,
            "{{ name: r{at}, hosts: [h{host}.test], path: /p{at}/*, respond: {{ body: {body} }} }},"
        )
        .unwrap();
    }
    routes + "{ name: all, path: /*, upstream: origin }"
}

#[test]
fn one_of_fifty_thousand_routes_changes_while_requests_run() {
    let origin = Origin::start();
    let home = Home::new();
    let mut words = home.words(origin.address);
    words.routes = many_routes("one");
    home.write(&words);
    let gateway = home.start();
    let body = || {
        let mut client = Client::connect(gateway.home.web).unwrap();
        client.send_for("h415.test", "/p31415/x").unwrap();
        client.receive().unwrap().text()
    };
    assert_eq!(body(), "one");
    let load = Load::paced(gateway.home.web, "/a", Duration::from_millis(10));
    load.more(100);
    words.routes = many_routes("two");
    gateway.home.write(&words);
    eventually("the changed route", || (body() == "two").then_some(()));
    load.more(100);
    load.end();
    assert_eq!(get(gateway.home.web, "/a").unwrap().status, 200);
}
