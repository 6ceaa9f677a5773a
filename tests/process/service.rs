//! As a service: what systemd is told, and life as process 1 of a container.

use std::fs;
use std::os::unix::net::UnixDatagram;
use std::process::Command;

use rustix::process::Signal;

use crate::client::Client;
use crate::gateway::{Gateway, Home, PATIENCE, PROGRAM, eventually, exists, group, send};
use crate::origin::Origin;

/// The service manager's end.
struct Manager(UnixDatagram);

impl Manager {
    fn start(home: Home) -> (Self, Gateway) {
        let path = home.path("notify");
        let socket = UnixDatagram::bind(&path).unwrap();
        socket.set_read_timeout(Some(PATIENCE)).unwrap();
        let mut command = home.command(PROGRAM, &["run", "-c", &home.config().to_string_lossy()]);
        command.env("NOTIFY_SOCKET", &path);
        (Self(socket), home.run(command))
    }

    /// The next message, line by line.
    fn hears(&self) -> Vec<String> {
        let mut message = [0; 1024];
        let length = self.0.recv(&mut message).expect("a message");
        String::from_utf8_lossy(&message[..length]).lines().map(str::to_owned).collect()
    }

    fn hears_nothing(&self) {
        self.0.set_nonblocking(true).unwrap();
        assert!(self.0.recv(&mut [0; 1024]).is_err(), "nothing more is said");
        self.0.set_nonblocking(false).unwrap();
    }
}

#[test]
fn systemd_is_told_of_start_reload_and_end() {
    let origin = Origin::start();
    let home = Home::new();
    home.write(&home.words(origin.address));
    let (manager, mut gateway) = Manager::start(home);
    assert_eq!(manager.hears(), ["READY=1"]);
    for _ in 0..2 {
        gateway.signal(Signal::HUP);
        let reloading = manager.hears();
        assert_eq!(reloading[0], "RELOADING=1");
        assert!(reloading[1].strip_prefix("MONOTONIC_USEC=").unwrap().parse::<u64>().unwrap() > 0);
        assert_eq!(manager.hears(), ["READY=1"]);
        // A reload that is refused is over, too.
        gateway.home.write_text("routes: [");
    }
    gateway.signal(Signal::TERM);
    assert_eq!(manager.hears(), ["STOPPING=1"]);
    assert_eq!(gateway.ended().code(), Some(0));
    manager.hears_nothing();
}

#[test]
fn systemd_is_told_which_process_is_the_service_after_an_upgrade() {
    let origin = Origin::start();
    let home = Home::new();
    home.write(&home.words(origin.address));
    let (manager, mut gateway) = Manager::start(home);
    assert_eq!(manager.hears(), ["READY=1"]);
    gateway.signal(Signal::USR2);
    assert_eq!(gateway.ended().code(), Some(0));
    let new = gateway.serving();
    assert_eq!(manager.hears(), [format!("MAINPID={new}"), "READY=1".to_owned()]);
    // The service goes on: that one of its processes ends is no news.
    manager.hears_nothing();
    send(new, Signal::TERM);
    assert_eq!(manager.hears(), ["STOPPING=1"]);
}

/// The gateway as process 1 of a PID namespace of its own; `None` where that is not allowed.
struct Container {
    gateway: Gateway,
    /// Process 1, as seen from outside.
    init: u32,
}

impl Container {
    fn start(home: Home) -> Option<Self> {
        let arguments = ["--fork", "--pid", "--mount-proc", "--kill-child"];
        let allowed = Command::new("unshare").args(arguments).arg("true").output();
        if !allowed.is_ok_and(|output| output.status.success()) {
            eprintln!("skipped: no PID namespace can be made here");
            return None;
        }
        let mut command = home.command("unshare", &arguments);
        command.args([PROGRAM, "run", "-c"]).arg(home.config());
        let gateway = home.run(command);
        let init = children(gateway.pid())[0];
        Some(Self { gateway, init })
    }
}

fn children(parent: u32) -> Vec<u32> {
    let tasks = fs::read_to_string(format!("/proc/{parent}/task/{parent}/children")).unwrap();
    tasks.split_ascii_whitespace().map(|pid| pid.parse().unwrap()).collect()
}

#[test]
fn as_process_1_signals_work() {
    let origin = Origin::start();
    let home = Home::new();
    home.write(&home.words(origin.address));
    let Some(Container { mut gateway, init }) = Container::start(home) else { return };
    assert_eq!(gateway.serving(), 1);
    send(init, Signal::HUP);
    eventually("the reload", || (gateway.status()["config"]["generation"] == 2).then_some(()));
    let mut held = Client::connect(gateway.home.web).unwrap();
    held.send("GET", "/held", "").unwrap();
    origin.holds(1);
    send(init, Signal::TERM);
    eventually("unreadiness", || (gateway.admin("GET", "/readyz").ok()?.status == 503).then_some(()));
    origin.open();
    assert_eq!(held.receive().unwrap().text(), "origin /held\n");
    assert_eq!(gateway.ended().code(), Some(0));
}

#[test]
fn as_process_1_it_outlives_its_upgrades_and_leaves_no_zombie() {
    let origin = Origin::start();
    let home = Home::new();
    home.write(&home.words(origin.address));
    let Some(Container { mut gateway, init }) = Container::start(home) else { return };
    let mut serving = 1;
    for _ in 0..2 {
        let output = gateway.ask("upgrade");
        assert!(output.status.success(), "{output:?}");
        assert_ne!(gateway.serving(), serving);
        serving = gateway.serving();
        assert_eq!(gateway.body("/a"), "origin /a\n");
        // Left are unshare, process 1 and the one that serves.
        eventually("the others to be gone", || (group(gateway.pid()).len() == 3).then_some(()));
    }
    assert!(exists(init));
    send(init, Signal::HUP);
    eventually("the reload to be passed on", || {
        (gateway.status()["config"]["generation"] == 2).then_some(())
    });
    send(init, Signal::TERM);
    assert_eq!(gateway.ended().code(), Some(0));
    assert!(gateway.processes().is_empty());
}

#[test]
fn as_process_1_it_ends_with_the_code_of_its_successor() {
    let origin = Origin::start();
    let home = Home::new();
    home.write(&home.words(origin.address));
    let Some(Container { mut gateway, init }) = Container::start(home) else { return };
    assert!(gateway.ask("upgrade").status.success());
    eventually("process 1 to have nothing else to do", || {
        gateway.log().iter().any(|line| line.contains("process 1 stays")).then_some(())
    });
    let successor = eventually("the successor", || {
        let of_any_thread = fs::read_dir(format!("/proc/{init}/task")).ok()?.flatten();
        let children = of_any_thread.filter_map(|task| fs::read_to_string(task.path().join("children")).ok());
        children.flat_map(|text| text.split_ascii_whitespace().map(str::to_owned).collect::<Vec<_>>()).next()
    });
    send(successor.parse().unwrap(), Signal::KILL);
    assert_eq!(gateway.ended().code(), Some(137));
}
