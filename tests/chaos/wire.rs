//! A wire to a machine of its own, which can be cut: a network namespace behind a veth pair. What is sent into a wire that is
//! cut vanishes, as it does when a machine loses its power: nobody refuses, resets or says anything.

use std::fs::File;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::os::fd::AsFd;
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};

use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

/// Set where the machine allows no namespaces, to leave out the tests that need one.
const LEFT_OUT: &str = "PORTCULLIS_NO_NAMESPACES";

/// Wires of this process so far.
static WIRES: AtomicU32 = AtomicU32::new(0);

/// A wire and the machine at its far end; both go when it is dropped.
pub struct Wire {
    machine: String,
    near: String,
    far: String,
    far_address: Ipv4Addr,
}

impl Wire {
    /// A new wire. `None` where none is to be had, and the environment says that this is no failure.
    ///
    /// # Panics
    /// When none is to be had.
    pub fn new() -> Option<Self> {
        if std::env::var_os(LEFT_OUT).is_some() {
            println!("left out: {LEFT_OUT} is set");
            return None;
        }
        let (process, number) = (std::process::id(), WIRES.fetch_add(1, Ordering::Relaxed));
        // Four addresses each, of the net that is set aside for measurements (RFC 2544).
        let net = u32::from(Ipv4Addr::new(198, 18, 0, 0)) + (process * 8 + number) % (1 << 15) * 4;
        let [near_address, far_address] = [net + 1, net + 2].map(Ipv4Addr::from);
        let wire = Self {
            machine: format!("portcullis-{process}-{number}"),
            near: format!("pc{process}n{number}"),
            far: format!("pc{process}f{number}"),
            far_address,
        };
        let Self { machine, near, far, .. } = &wire;
        for words in [
            format!("netns add {machine}"),
            format!("link add {near} type veth peer name {far} netns {machine}"),
            format!("address add {near_address}/30 dev {near}"),
            format!("-n {machine} address add {far_address}/30 dev {far}"),
            format!("link set {near} up"),
            format!("-n {machine} link set {far} up"),
        ] {
            if let Err(why) = ip(&words) {
                panic!(
                    "`ip {words}`: {why}\nThis test needs a network namespace, as root has it; {LEFT_OUT}=1 leaves it out."
                );
            }
        }
        Some(wire)
    }

    /// A port on the machine at the far end.
    pub fn listen(&self) -> TcpListener {
        let machine = File::open(format!("/run/netns/{}", self.machine)).unwrap();
        let address = SocketAddr::from((self.far_address, 0));
        // A thread of its own: it stays where it went, the socket too.
        let listening = std::thread::spawn(move || {
            move_into_link_name_space(machine.as_fd(), Some(LinkNameSpaceType::Network)).unwrap();
            TcpListener::bind(address).unwrap()
        });
        listening.join().unwrap()
    }

    /// From here on what is sent vanishes.
    pub fn cut(&self) {
        ip(&format!("-n {} link set {} down", self.machine, self.far)).unwrap();
    }

    /// From here on it arrives again.
    pub fn mend(&self) {
        ip(&format!("-n {} link set {} up", self.machine, self.far)).unwrap();
    }
}

impl Drop for Wire {
    fn drop(&mut self) {
        // Sockets keep a machine there that has lost its name, but not the wire.
        let _ = ip(&format!("link delete {}", self.near));
        let _ = ip(&format!("netns delete {}", self.machine));
    }
}

fn ip(words: &str) -> Result<(), String> {
    let path = format!("{}:/usr/sbin:/sbin", std::env::var("PATH").unwrap_or_default());
    let run = Command::new("ip").args(words.split(' ')).env("PATH", path).output();
    let run = run.map_err(|error| format!("{error} (`make setup` installs iproute2)"))?;
    match run.status.success() {
        true => Ok(()),
        false => Err(String::from_utf8_lossy(&run.stderr).trim().to_owned()),
    }
}
