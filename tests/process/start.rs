//! From the command to the first request, or to an exit code that says who is to blame.

use std::ffi::OsStr;
use std::fs;
use std::io::{IoSlice, Read, Write};
use std::mem::MaybeUninit;
use std::net::{SocketAddr, TcpListener};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::os::unix::net::UnixStream;

use rustix::fs::{CWD, FileType, Mode, mknodat};
use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags, sendmsg};
use rustix::process::Signal;

use crate::gateway::{Home, PROGRAM, errors, eventually};
use crate::origin::Origin;

#[test]
fn it_starts_and_serves() {
    let origin = Origin::start();
    let home = Home::new();
    home.write(&home.words(origin.address));
    let gateway = home.start();
    assert_eq!(gateway.body("/a"), "origin /a\n");
    assert_eq!(gateway.admin("GET", "/readyz").unwrap().status, 200);
    assert_eq!(gateway.status()["config"]["generation"], 1);
    let socket = fs::metadata(gateway.home.upgrade_socket()).unwrap();
    assert_eq!(socket.permissions().mode() & 0o777, 0o600);
}

#[test]
fn a_bad_configuration_ends_it_with_2_and_every_error_in_its_place() {
    let home = Home::new();
    home.write_text(
        "version: 1\nlisteners:\n  - { name: web, address: \"127.0.0.1:0\" }\n  - { name: more, address: nowhere }\n\
         routes:\n  - { name: a, path: /a, upstream: b }\n  - { name: c, path: /c, upstreem: d }\n",
    );
    let output = home.fails();
    assert_eq!(output.status.code(), Some(2));
    let errors = errors(&output);
    let file = home.config().display().to_string();
    for (place, words) in [
        ("4:28", "listeners[1].address: "),
        ("6:36", "routes[0].upstream: there is no upstream `b`"),
        ("7:26", "routes[1].upstreem: unknown key `upstreem`"),
    ] {
        assert!(errors.contains(&format!("{file}:{place}: {words}")), "{place}: {errors}");
    }
    assert!(output.stdout.is_empty());
}

#[test]
fn a_configuration_that_is_not_there_ends_it_with_2() {
    let output = Home::new().fails();
    assert_eq!(output.status.code(), Some(2));
    assert!(errors(&output).contains("there is no such file"), "{}", errors(&output));
}

#[test]
fn an_address_in_use_ends_it_with_1() {
    let home = Home::new();
    home.write(&home.words("127.0.0.1:1"));
    for address in [home.web, home.admin] {
        let _taken = TcpListener::bind(address).unwrap();
        let output = home.fails();
        assert_eq!(output.status.code(), Some(1), "{}", errors(&output));
        assert!(errors(&output).contains(&address.to_string()), "{}", errors(&output));
    }
}

#[test]
fn an_upgrade_socket_that_cannot_be_bound_ends_it_with_1() {
    let home = Home::new();
    let folder = home.config().with_file_name("a-folder");
    fs::create_dir(&folder).unwrap();
    for path in ["/proc/none/upgrade.sock", folder.to_str().unwrap()] {
        let mut words = home.words("127.0.0.1:1");
        words.server = format!("upgrade_socket: {path}");
        home.write(&words);
        let output = home.fails();
        assert_eq!(output.status.code(), Some(1));
        assert!(errors(&output).contains(path), "{}", errors(&output));
        assert!(!errors(&output).contains("\"msg\":\"ready\""));
    }
}

#[test]
fn an_access_log_that_cannot_be_opened_ends_it_with_1() {
    let home = Home::new();
    let mut words = home.words("127.0.0.1:1");
    words.telemetry = "access_log: { output: /proc/none/access.log }".into();
    home.write(&words);
    let output = home.fails();
    assert_eq!(output.status.code(), Some(1));
    assert!(errors(&output).contains("/proc/none/access.log"), "{}", errors(&output));
}

/// What an older process hands over may be anything: here it is a file, which cannot be waited at.
#[test]
fn a_listener_that_cannot_be_used_ends_it_with_1_and_it_is_never_ready() {
    for which in ["web", " admin"] {
        let home = Home::new();
        home.write(&home.words("127.0.0.1:1"));
        let address = if which == "web" { home.web } else { home.admin };
        let file = fs::OpenOptions::new().read(true).custom_flags(NONBLOCKING).open(home.config()).unwrap();
        let (mut ours, theirs) = UnixStream::pair().unwrap();
        hand_over(&mut ours, which, address, &file);
        let mut command = home.command(PROGRAM, &["run", "-c", "portcullis.yaml"]);
        command.env("PORTCULLIS_HANDOVER", "stdin").stdin(OwnedFd::from(theirs));
        let mut gateway = home.spawn(command);
        assert_eq!(gateway.ended().code(), Some(1));
        let mut said = String::new();
        ours.read_to_string(&mut said).unwrap();
        let expected = format!("refused cannot listen on {address} for `{}`", which.trim());
        assert!(said.starts_with(&expected), "{said}");
        assert!(!gateway.log().iter().any(|line| line.contains("\"msg\":\"ready\"")));
    }
}

/// `O_NONBLOCK`, as a listening socket has it.
const NONBLOCKING: i32 = 0o4000;

/// Hands over as an older process does.
fn hand_over(channel: &mut UnixStream, name: &str, address: SocketAddr, file: &fs::File) {
    let words = format!("[{{\"name\": \"{name}\", \"address\": \"{address}\"}}]");
    let length = u32::try_from(words.len()).unwrap().to_be_bytes();
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    let descriptors = [file.as_fd()];
    assert!(control.push(SendAncillaryMessage::ScmRights(&descriptors)));
    sendmsg(&*channel, &[IoSlice::new(&length)], &mut control, SendFlags::empty()).unwrap();
    channel.write_all(words.as_bytes()).unwrap();
}

#[test]
fn a_wrong_command_line_ends_it_with_2() {
    let home = Home::new();
    for arguments in [&["run", "--colour"][..], &["walk"], &[], &["explain", "-c", "x.yaml"]] {
        assert_eq!(home.ask(arguments).status.code(), Some(2), "{arguments:?}");
    }
    assert_eq!(home.ask(&["--help"]).status.code(), Some(0));
}

#[test]
fn a_variable_that_is_not_text_does_not_keep_it_from_starting() {
    let home = Home::new();
    home.write(&home.words("127.0.0.1:1"));
    let mut command = home.command(PROGRAM, &["run", "-c", "portcullis.yaml"]);
    command.env("BINARY", OsStr::from_bytes(b"\xff"));
    assert_eq!(home.run(command).status()["ready"], true);
}

/// A start that takes its time: the configuration comes from a pipe that nobody writes to.
#[test]
fn signals_before_it_is_ready_wait_and_those_that_end_it_do_not() {
    let home = Home::new();
    mknodat(CWD, home.config(), FileType::Fifo, Mode::from(0o600), 0).unwrap();
    let command = home.command(PROGRAM, &["run", "-c", "portcullis.yaml"]);
    let mut gateway = home.spawn(command);
    eventually("the signals to be listened to", || is_caught(gateway.pid(), Signal::USR2).then_some(()));
    for signal in [Signal::HUP, Signal::USR1, Signal::USR2] {
        gateway.signal(signal);
    }
    assert!(!gateway.has_ended());
    gateway.signal(Signal::TERM);
    assert_eq!(gateway.ended().code(), Some(0));
}

fn is_caught(pid: u32, signal: Signal) -> bool {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let caught = status.lines().find_map(|line| line.strip_prefix("SigCgt:")).unwrap();
    u64::from_str_radix(caught.trim(), 16).unwrap() >> (signal.as_raw() - 1) & 1 == 1
}
