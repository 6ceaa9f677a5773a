//! Handing over to a new process: no request is lost, and whatever goes wrong leaves the old one serving.

use std::collections::BTreeSet;
use std::fs;
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rustix::process::Signal;

use crate::client::{Client, get};
use crate::gateway::{Gateway, Home, PROGRAM, Words, errors, eventually, exists, send};
use crate::load::Load;
use crate::origin::{Origin, download};

fn start(origin: &Origin) -> (Gateway, Words) {
    let home = Home::new();
    let words = home.words(origin.address);
    home.write(&words);
    (home.start(), words)
}

/// Upgrades by the command. Returns the new process.
pub fn upgrade(gateway: &Gateway) -> u32 {
    let output = gateway.ask("upgrade");
    assert_eq!(output.status.code(), Some(0), "{}", errors(&output));
    let words = String::from_utf8(output.stdout).unwrap();
    words.split(' ').nth(1).unwrap().parse().unwrap()
}

/// An upgrade that must fail and change nothing. Returns what was said.
fn fails(gateway: &Gateway, code: i32) -> String {
    let before = gateway.serving();
    let output = gateway.ask("upgrade");
    let errors = errors(&output);
    assert_eq!(output.status.code(), Some(code), "{errors}");
    assert_eq!(gateway.serving(), before);
    assert_eq!(gateway.body("/a"), "origin /a\n");
    assert_eq!(gateway.admin("GET", "/readyz").unwrap().status, 200);
    eventually("the new process to be gone", || (gateway.processes() == [before]).then_some(()));
    errors
}

#[test]
fn under_load_no_request_is_lost_twice_in_a_row() {
    let origin = Origin::start();
    let (mut gateway, words) = start(&origin);
    let load = Load::start(gateway.home.web, "/a");
    let mut long = Client::connect(gateway.home.web).unwrap();
    long.send("GET", "/download", "").unwrap();
    origin.holds(1);
    load.more(500);

    let first = gateway.pid();
    let second = upgrade(&gateway);
    assert_ne!(first, second);
    assert_eq!(gateway.serving(), second, "the admin listener goes along");
    assert_eq!(gateway.admin("GET", "/readyz").unwrap().status, 200);
    load.more(500);
    assert!(!gateway.has_ended(), "the old process has a download to finish");

    let third = upgrade(&gateway);
    assert_eq!(gateway.serving(), third);
    load.more(500);
    eventually("the second process to end", || (!exists(second)).then_some(()));
    assert!(!gateway.has_ended());

    origin.open();
    assert_eq!(long.receive().unwrap().body, download(), "the long download");
    assert_eq!(gateway.ended().code(), Some(0), "the old process ends when its last request does");
    load.more(200);
    assert!(load.end() >= 1_700);
    assert_eq!(gateway.serving(), third);

    let reloaded = Words { routes: "{ name: new, path: /*, respond: { body: new } }".into(), ..words };
    gateway.home.write(&reloaded);
    eventually("the newest process to follow the file", || (gateway.body("/") == "new").then_some(()));
    send(third, Signal::TERM);
    eventually("the end", || gateway.processes().is_empty().then_some(()));
    assert!(!gateway.home.upgrade_socket().exists());
}

#[test]
fn a_process_that_has_handed_over_reads_no_configuration_any_more() {
    let origin = Origin::start();
    let (gateway, words) = start(&origin);
    let mut held = Client::connect(gateway.home.web).unwrap();
    held.send("GET", "/held", "").unwrap();
    origin.holds(1);
    let old = gateway.pid();
    assert!(follows_files(old));
    // The old process has the head of a request to reload before it hands over, and its body only then.
    let mut late = Client::connect(gateway.home.admin).unwrap();
    assert_eq!(late.get("/healthz").unwrap().status, 200);
    late.write(&format!(
        "POST /reload HTTP/1.1\r\nhost: {}\r\ncontent-length: 1\r\n\r\n",
        gateway.home.admin
    ));
    let new = upgrade(&gateway);
    eventually("the old process to stop following files", || (!follows_files(old)).then_some(()));
    late.write("x");
    let refused = late.receive().unwrap();
    assert_eq!(refused.status, 409, "{}", refused.text());
    assert!(refused.text().contains("handed_over"), "{}", refused.text());

    assert!(follows_files(new));
    gateway.home.write(&Words { routes: "{ name: new, path: /*, respond: { body: new } }".into(), ..words });
    eventually("the new process to follow the file", || (gateway.body("/") == "new").then_some(()));
    // It is told a moment after.
    gateway.logged("is in force");
    assert_eq!(gateway.log().iter().filter(|line| line.contains("is in force")).count(), 1);
    gateway.signal(Signal::HUP);
    gateway.logged("not reloaded");
}

/// Whether a process watches any folder.
fn follows_files(pid: u32) -> bool {
    let links = fs::read_dir(format!("/proc/{pid}/fd")).unwrap().flatten();
    links
        .filter_map(|link| fs::read_link(link.path()).ok())
        .any(|target| target == Path::new("anon_inode:inotify"))
}

#[test]
fn a_signal_upgrades_under_load() {
    let origin = Origin::start();
    let (mut gateway, _) = start(&origin);
    let load = Load::start(gateway.home.web, "/a");
    load.more(200);
    gateway.signal(Signal::USR2);
    assert_eq!(gateway.ended().code(), Some(0));
    load.more(200);
    load.end();
    assert_ne!(gateway.serving(), gateway.pid());
    assert_eq!(gateway.processes(), [gateway.serving()]);
}

#[test]
fn the_new_process_has_the_new_configuration_and_its_new_listeners() {
    let origin = Origin::start();
    let (mut gateway, words) = start(&origin);
    let added = gateway.home.free();
    let listeners = format!(
        "{{ name: renamed, address: \"{}\" }}, {{ name: more, address: \"{added}\" }}",
        gateway.home.web
    );
    gateway.home.write(&Words {
        listeners,
        server: words.server.replace("threads: 2", "threads: 1"),
        routes: format!(
            "{}, {{ name: new, path: /new, respond: {{ body: new }}, listeners: [more] }}",
            words.routes
        ),
        ..words.clone()
    });
    upgrade(&gateway);
    assert_eq!(gateway.ended().code(), Some(0));
    assert_eq!(get(added, "/new").unwrap().text(), "new");
    assert_eq!(gateway.body("/new"), "origin /new\n");

    gateway.home.write(&words);
    upgrade(&gateway);
    eventually("the added listener to be gone", || get(added, "/new").is_err().then_some(()));
    assert_eq!(gateway.body("/a"), "origin /a\n");
}

#[test]
fn nothing_but_the_listeners_is_inherited() {
    let origin = Origin::start();
    let home = Home::new();
    let mut words = home.words(origin.address);
    words.telemetry = format!("access_log: {{ output: {} }}", home.path("access.log").display());
    home.write(&words);
    let mut gateway = home.start();
    let mut open: Vec<_> = (0..4).map(|_| Client::connect(gateway.home.web).unwrap()).collect();
    for client in &mut open {
        assert_eq!(client.get("/a").unwrap().status, 200);
    }
    let mut held = Client::connect(gateway.home.web).unwrap();
    held.send("GET", "/held", "").unwrap();
    origin.holds(1);
    let listening =
        [gateway.home.web, gateway.home.admin].map(|address| inode_of_listener(address.port(), address));
    let old = descriptors(gateway.pid());
    let new = descriptors(upgrade(&gateway));
    let shared: BTreeSet<_> = new.intersection(&old).filter(|target| target.contains('[')).cloned().collect();
    let shared: BTreeSet<_> = shared.into_iter().filter(|target| !target.starts_with("pipe:")).collect();
    assert_eq!(shared, BTreeSet::from(listening));
    origin.open();
    assert_eq!(held.receive().unwrap().status, 200);
    assert_eq!(gateway.ended().code(), Some(0));
}

/// What the descriptors of a process are, kernel objects without identity left out.
fn descriptors(pid: u32) -> BTreeSet<String> {
    let links = fs::read_dir(format!("/proc/{pid}/fd")).unwrap().flatten();
    let targets = links.filter_map(|link| fs::read_link(link.path()).ok());
    let targets = targets.map(|target| target.to_string_lossy().into_owned());
    targets.filter(|target| !target.starts_with("anon_inode")).collect()
}

fn inode_of_listener(port: u16, address: std::net::SocketAddr) -> String {
    let std::net::IpAddr::V4(ip) = address.ip() else { panic!("IPv4 is expected") };
    let local = format!("{:08X}:{port:04X}", u32::from_ne_bytes(ip.octets()));
    let table = fs::read_to_string("/proc/net/tcp").unwrap();
    let lines = table.lines().map(|line| line.split_ascii_whitespace().collect::<Vec<_>>());
    let inode =
        lines.filter(|words| words[1] == local && words[3] == "0A").map(|words| words[9].to_owned()).next();
    format!("socket:[{}]", inode.unwrap())
}

#[test]
fn a_bad_configuration_is_told_with_its_place_and_leaves_the_old_process() {
    let origin = Origin::start();
    let (gateway, words) = start(&origin);
    gateway.home.write(&Words { routes: "{ name: all, path: /*, upstream: origen }".into(), ..words });
    let said = fails(&gateway, 1);
    assert!(said.contains(&format!("{}:7:", gateway.home.config().display())), "{said}");
    assert!(said.contains("did you mean `origin`"), "{said}");
    gateway.logged("the upgrade failed, this process goes on");
    gateway.home.write_text("routes: [");
    fails(&gateway, 2);
}

#[test]
fn an_address_in_use_leaves_the_old_process_and_can_be_mended() {
    let origin = Origin::start();
    let (mut gateway, words) = start(&origin);
    let taken = TcpListener::bind((gateway.home.web.ip(), 0)).unwrap();
    let address = taken.local_addr().unwrap();
    let listeners = format!("{}, {{ name: more, address: \"{address}\" }}", words.listeners);
    gateway.home.write(&Words { listeners, ..words });
    let said = fails(&gateway, 1);
    assert!(said.contains(&format!("cannot listen on {address} for `more`")), "{said}");
    drop(taken);
    upgrade(&gateway);
    assert_eq!(gateway.ended().code(), Some(0));
    assert_eq!(get(address, "/a").unwrap().text(), "origin /a\n");
}

#[test]
fn without_a_gateway_or_a_socket_there_is_nothing_to_upgrade() {
    let home = Home::new();
    let words = home.words("127.0.0.1:1");
    home.write(&words);
    let ask = || home.ask(&["upgrade", "-c", "portcullis.yaml"]);
    assert_eq!(ask().status.code(), Some(1));
    fs::create_dir(home.path("run")).unwrap();
    drop(UnixListener::bind(home.upgrade_socket()).unwrap());
    assert_eq!(ask().status.code(), Some(1));
    assert!(errors(&ask()).contains("no gateway listens"), "{}", errors(&ask()));
    home.write(&Words { server: "threads: 1".into(), ..words });
    assert_eq!(ask().status.code(), Some(2));
}

#[test]
fn a_stale_socket_is_replaced_at_the_start() {
    let home = Home::new();
    home.write(&home.words("127.0.0.1:1"));
    fs::create_dir(home.path("run")).unwrap();
    drop(UnixListener::bind(home.upgrade_socket()).unwrap());
    let mut gateway = home.start();
    upgrade(&gateway);
    assert_eq!(gateway.ended().code(), Some(0));
    assert_eq!(fs::read_dir(gateway.home.path("run")).unwrap().count(), 1, "one socket, no remains");
}

/// A gateway from a program file of its own, which can be replaced.
fn from_own_program(origin: &Origin, server: &str) -> (Gateway, PathBuf) {
    let home = Home::new();
    let program = home.path("gateway");
    copy(Path::new(PROGRAM), &program);
    let mut words = home.words(origin.address);
    words.server = format!("{}, {server}", words.server);
    home.write(&words);
    let command = home.command(&program, &["run", "-c", &home.config().to_string_lossy()]);
    (home.run(command), program)
}

fn copy(from: &Path, to: &Path) {
    if fs::hard_link(from, to).is_err() {
        fs::copy(from, to).unwrap();
    }
}

/// Puts a shell script in the program's place.
fn replace(program: &Path, script: &str) {
    let fresh = program.with_extension("fresh");
    fs::write(&fresh, format!("#!/bin/sh\n{script}\n")).unwrap();
    fs::set_permissions(&fresh, fs::Permissions::from_mode(0o755)).unwrap();
    fs::rename(&fresh, program).unwrap();
}

#[test]
fn a_program_that_does_not_serve_leaves_the_old_process() {
    let origin = Origin::start();
    let (mut gateway, program) = from_own_program(&origin, "upgrade_timeout: 60s");
    for (script, expected) in [
        ("exit 3", "exit status: 3"),
        ("kill -SEGV $$", "signal: 11"),
        ("exit 0", "exit status: 0"),
        ("echo nonsense >&0; exit 1", "exit status: 1"),
        ("sleep 3 <&0 & exit 4", "exit status: 4"),
        ("printf read >&0; exit 1", "exit status: 1"),
        ("exec 0<&-; exec sleep 600", "does not listen"),
    ] {
        replace(&program, script);
        let said = fails(&gateway, 1);
        assert!(said.contains(expected), "{script}: {said}");
    }
    fs::write(&program, "no program").unwrap();
    assert!(fails(&gateway, 1).contains("cannot start"));
    fs::remove_file(&program).unwrap();
    assert!(fails(&gateway, 1).contains("cannot start"));

    copy(Path::new(PROGRAM), &program);
    upgrade(&gateway);
    assert_eq!(gateway.ended().code(), Some(0), "and a good one takes over");
}

#[test]
fn a_program_that_hangs_is_ended_when_its_time_is_up() {
    let origin = Origin::start();
    let (gateway, program) = from_own_program(&origin, "upgrade_timeout: 300ms");
    replace(&program, "exec sleep 600");
    let began = Instant::now();
    assert!(fails(&gateway, 1).contains("was not ready within 300ms"));
    assert!(began.elapsed() >= Duration::from_millis(300));
}

#[test]
fn sigterm_during_an_upgrade_ends_both() {
    let origin = Origin::start();
    let (mut gateway, program) = from_own_program(&origin, "upgrade_timeout: 10m");
    replace(&program, "exec sleep 600");
    let mut held = Client::connect(gateway.home.web).unwrap();
    held.send("GET", "/held", "").unwrap();
    origin.holds(1);
    gateway.signal(Signal::USR2);
    eventually("the new process", || (gateway.processes().len() == 2).then_some(()));
    assert!(errors(&gateway.ask("upgrade")).contains("under way already"));
    assert_eq!(gateway.admin("POST", "/reload").unwrap().status, 200, "a reload meanwhile");
    gateway.signal(Signal::TERM);
    eventually("the new process to be ended", || (gateway.processes().len() == 1).then_some(()));
    origin.open();
    assert_eq!(held.receive().unwrap().text(), "origin /held\n");
    assert_eq!(gateway.ended().code(), Some(0));
    assert!(gateway.processes().is_empty());
}

#[test]
fn one_sigterm_does_not_cut_short_what_an_upgrade_left_to_finish() {
    let origin = Origin::start();
    let (mut gateway, _) = start(&origin);
    let mut held = Client::connect(gateway.home.web).unwrap();
    held.send("GET", "/held", "").unwrap();
    origin.holds(1);
    let new = upgrade(&gateway);
    gateway.signal(Signal::TERM);
    gateway.signal(Signal::HUP);
    send(new, Signal::TERM);
    eventually("the new process to end", || (!exists(new)).then_some(()));
    assert!(!gateway.has_ended());
    origin.open();
    assert_eq!(held.receive().unwrap().text(), "origin /held\n");
    assert_eq!(gateway.ended().code(), Some(0));
}

/// Released versions often lie behind a link that is turned to the newest.
#[test]
fn a_link_to_the_program_is_followed_anew() {
    let origin = Origin::start();
    let home = Home::new();
    let link = home.path("gateway");
    for version in ["one", "two"] {
        fs::create_dir(home.path(version)).unwrap();
        copy(Path::new(PROGRAM), &home.path(version).join("gateway"));
    }
    std::os::unix::fs::symlink(home.path("one").join("gateway"), &link).unwrap();
    home.write(&home.words(origin.address));
    let command = home.command(&link, &["run", "-c", &home.config().to_string_lossy()]);
    let gateway = home.run(command);
    fs::remove_file(&link).unwrap();
    std::os::unix::fs::symlink(gateway.home.path("two").join("gateway"), &link).unwrap();
    let new = upgrade(&gateway);
    let program = fs::read_link(format!("/proc/{new}/exe")).unwrap();
    assert!(program.ends_with("two/gateway"), "{}", program.display());
}

#[test]
fn endpoints_are_not_changed_once_a_new_process_has_its_copy() {
    let origin = Origin::start();
    let (gateway, program) = from_own_program(&origin, "upgrade_timeout: 10m");
    let change = |method: &str| {
        let answer = gateway.admin(method, "/upstreams/origin/endpoints/127.0.0.1:9").unwrap();
        (answer.status, answer.text())
    };
    let is_there = || gateway.admin("GET", "/upstreams").unwrap().text().contains("127.0.0.1:9\"");
    assert_eq!(change("PUT").0, 200);
    let word = program.with_extension("word");
    replace(&program, &format!("while [ ! -e {} ]; do sleep 0.05; done; exit 3", word.display()));
    gateway.signal(Signal::USR2);
    eventually("the new process", || (gateway.processes().len() == 2).then_some(()));
    for method in ["PUT", "DELETE"] {
        let (status, text) = change(method);
        assert_eq!(status, 409, "{method}: {text}");
        assert!(text.contains("upgrade_under_way"), "{method}: {text}");
    }
    assert!(is_there());
    fs::write(&word, "").unwrap();
    gateway.logged("the upgrade failed");
    let (status, text) = change("DELETE");
    assert_eq!(status, 200, "the new process has failed: {text}");
    assert!(!is_there());
}

#[test]
fn a_process_that_has_handed_over_changes_no_endpoint_any_more() {
    let origin = Origin::start();
    let (gateway, _) = start(&origin);
    let mut held = Client::connect(gateway.home.web).unwrap();
    held.send("GET", "/held", "").unwrap();
    origin.holds(1);
    let mut late = Client::connect(gateway.home.admin).unwrap();
    assert_eq!(late.get("/healthz").unwrap().status, 200);
    late.write(&format!(
        "PUT /upstreams/origin/endpoints/127.0.0.1:9 HTTP/1.1\r\nhost: {}\r\ncontent-length: 2\r\n\r\n{{",
        gateway.home.admin
    ));
    upgrade(&gateway);
    late.write("}");
    let refused = late.receive().unwrap();
    assert_eq!(refused.status, 409, "{}", refused.text());
    assert!(refused.text().contains("handed_over"), "{}", refused.text());
    origin.open();
}
