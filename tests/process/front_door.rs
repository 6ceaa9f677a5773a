//! Unix sockets over the life of the process, and what becomes of connections when descriptors run out.

use std::fs;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};

use rustix::process::Signal;

use crate::gateway::{Gateway, Home, PROGRAM, errors, eventually, send};
use crate::origin::Origin;

/// A home whose gateway listens at a Unix socket as well.
fn home(origin: &Origin) -> (Home, PathBuf) {
    let home = Home::new();
    let path = home.path("web.sock");
    let mut words = home.words(origin.address);
    words.listeners = format!("{}, {{ name: local, address: \"unix:{}\" }}", words.listeners, path.display());
    home.write(&words);
    (home, path)
}

fn get(path: &Path) -> std::io::Result<String> {
    let mut socket = UnixStream::connect(path)?;
    socket.write_all(b"GET /a HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n")?;
    let mut answer = String::new();
    socket.read_to_string(&mut answer)?;
    Ok(answer)
}

fn is_served(path: &Path) -> bool {
    get(path).is_ok_and(|answer| answer.ends_with("origin /a\n"))
}

#[test]
fn a_unix_socket_is_handed_over_and_goes_with_the_last_process() {
    let origin = Origin::start();
    let (home, path) = home(&origin);
    let mut gateway = home.start();
    assert!(is_served(&path));
    let first = gateway.pid();
    let output = gateway.ask("upgrade");
    assert_eq!(output.status.code(), Some(0), "{}", errors(&output));
    assert_eq!(gateway.ended().code(), Some(0));
    assert!(is_served(&path), "the first process leaves the socket to the second");
    let second = gateway.serving();
    assert_ne!(first, second);
    send(second, Signal::TERM);
    eventually("the socket to go", || (!path.exists()).then_some(()));
}

#[test]
fn the_socket_of_a_process_that_was_killed_is_replaced() {
    let origin = Origin::start();
    let (home, path) = home(&origin);
    let mut gateway = home.start();
    gateway.signal(Signal::KILL);
    gateway.ended();
    assert!(path.exists() && !is_served(&path));
    let config = gateway.home.config();
    let command = gateway.home.command(PROGRAM, &["run", "-c", &config.to_string_lossy()]);
    let mut again = spawn(command);
    eventually("the next process", || is_served(&path).then_some(()));
    again.0.kill().unwrap();
}

/// Ends with the test.
struct Ends(std::process::Child);

impl Drop for Ends {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn spawn(mut command: std::process::Command) -> Ends {
    command.stdout(std::process::Stdio::null()).stderr(std::process::Stdio::null());
    Ends(command.spawn().unwrap())
}

#[test]
fn connections_beyond_the_descriptors_wait_until_some_are_free() {
    let origin = Origin::start();
    let home = Home::new();
    home.write(&home.words(origin.address));
    let config = home.config();
    let script = format!("ulimit -n 128; exec {PROGRAM} run -c {}", config.display());
    let command = home.command("/bin/sh", &["-c", &script]);
    let gateway = home.run(command);
    assert_eq!(gateway.body("/a"), "origin /a\n");
    let before = descriptors(&gateway);

    let crowd: Vec<TcpStream> = (0..200).map(|_| TcpStream::connect(gateway.home.web).unwrap()).collect();
    gateway.logged("cannot accept");
    assert!(descriptors(&gateway) > 100);
    drop(crowd);
    assert_eq!(gateway.body("/a"), "origin /a\n");
    assert_eq!(gateway.admin("GET", "/healthz").unwrap().status, 200);
    eventually("the descriptors to be free", || (descriptors(&gateway) <= before + 2).then_some(()));
}

#[test]
fn as_many_descriptors_are_used_as_the_system_allows() {
    let origin = Origin::start();
    let home = Home::new();
    home.write(&home.words(origin.address));
    let config = home.config();
    let script = format!("ulimit -S -n 99; ulimit -H -n 777; exec {PROGRAM} run -c {}", config.display());
    let command = home.command("/bin/sh", &["-c", &script]);
    let gateway = home.run(command);
    let limits = fs::read_to_string(format!("/proc/{}/limits", gateway.pid())).unwrap();
    let line = limits.lines().find(|line| line.starts_with("Max open files")).unwrap();
    assert_eq!(line.split_whitespace().nth(3), Some("777"), "{line}");
}

fn descriptors(gateway: &Gateway) -> usize {
    fs::read_dir(format!("/proc/{}/fd", gateway.pid())).unwrap().count()
}
