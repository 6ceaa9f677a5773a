//! TLS over the life of the program: renewed certificates, and sessions that outlive an upgrade.

use std::fs::{self, Permissions};
use std::io::{Read, Write};
use std::net::TcpStream;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use crate::gateway::{Gateway, Home, PROGRAM, Words, errors, eventually};
use crate::harness::tls::{
    Authority, Caller, Files, HandshakeKind, Order, TLS12, TLS13, kind, replace, shown,
};

/// A gateway that answers by TLS with these words in `tls`, and plainly at another address.
fn start(files: &Files, more: &str) -> Gateway {
    let home = Home::new();
    let (web, plain) = (home.web, home.free());
    let listeners = format!(
        "{{ name: web, address: \"{web}\", tls: {{ certificates: [{}]{more} }} }}, {{ name: plain, address: \"{plain}\" }}",
        files.words()
    );
    let routes = "{ name: all, path: /*, respond: { body: hello } }".into();
    home.write(&Words { listeners, routes, ..home.words(plain) });
    home.start()
}

fn visit(caller: &Caller, gateway: &Gateway) -> HandshakeKind {
    let mut client = caller.connect(gateway.home.web, "a.test").unwrap();
    assert_eq!(client.get("/").text(), "hello");
    kind(&client)
}

#[test]
fn a_session_is_resumed_with_the_new_process() {
    let pki = Authority::new();
    let files = pki.issue("a", &["a.test"]);
    let client = pki.issue("client", &[]);
    let gateway = start(&files, &format!(", client_auth: {{ ca: {} }}", pki.ca().display()));
    let callers = [&TLS13, &TLS12].map(|version| pki.client().with(&client).speaking(version));
    for caller in &callers {
        visit(caller, &gateway);
    }
    for _ in 0..2 {
        let before = gateway.serving();
        let output = gateway.ask("upgrade");
        assert_eq!(output.status.code(), Some(0), "{}", errors(&output));
        assert_ne!(gateway.serving(), before);
        for caller in &callers {
            assert_eq!(visit(caller, &gateway), HandshakeKind::Resumed);
        }
        assert_eq!(
            gateway
                .metric(r#"portcullis_tls_handshakes_total{listener="web",result="resumed",version="1.3"}"#),
            1.0,
            "by the new process"
        );
    }
}

#[test]
fn a_renewed_certificate_is_noticed_and_a_key_that_does_not_fit_is_not_taken() {
    let pki = Authority::new();
    let files = pki.issue("a", &["a.test"]);
    let gateway = start(&files, "");
    let caller = || pki.client().connect(gateway.home.web, "a.test").unwrap();
    let mut kept = caller();
    assert_eq!(kept.get("/").text(), "hello");

    pki.issue("a", &["a.test"]);
    eventually("the new certificate", || (shown(&caller()) == files.der()).then_some(()));
    let good = files.der();

    let other = pki.issue("b", &["a.test"]);
    replace(&files.key, &std::fs::read_to_string(&other.key).unwrap());
    gateway.logged("the key is not that of the certificate");
    assert_eq!(shown(&caller()), good);
    assert_eq!(kept.get("/").text(), "hello", "on the connection from before");
}

#[test]
fn an_idle_connection_takes_little_memory() {
    const CONNECTIONS: usize = 500;
    let pki = Authority::new();
    let gateway = start(&pki.issue("a", &["a.test"]), "");
    let open = |count| {
        let connect = |_| {
            let mut client = pki.client().connect(gateway.home.web, "a.test").unwrap();
            assert_eq!(client.get("/").text(), "hello");
            client
        };
        (0..count).map(connect).collect::<Vec<_>>()
    };
    let resident = || gateway.metric("process_resident_memory_bytes");
    let _first = open(100);
    let before = resident();
    let _more = open(CONNECTIONS);
    let each = (resident() - before) / 1024.0 / CONNECTIONS as f64;
    assert!(each < 25.0, "{each} KiB for each");
    println!("{each} KiB for each idle connection");
}

/// Half of them say nothing, half begin a greeting: all are told to go in time, and meanwhile others are served.
#[test]
fn ten_thousand_idle_handshakes_keep_nobody_waiting_and_leave_nothing() {
    let most = raise_descriptors().saturating_sub(2_000);
    let count = usize::try_from(most).unwrap().min(10_000);
    let pki = Authority::new();
    let files = pki.issue("a", &["a.test"]);
    let home = Home::new();
    let (web, plain) = (home.web, home.free());
    let limits = "limits: { connections_per_ip: 30000, header_timeout: 5s }";
    let listeners = format!(
        "{{ name: web, address: \"{web}\", {limits}, tls: {{ certificates: [{}] }} }}, {{ name: plain, address: \"{plain}\" }}",
        files.words()
    );
    let routes = "{ name: all, path: /*, respond: { body: hello } }".into();
    home.write(&Words { listeners, routes, ..home.words(plain) });
    let gateway = home.start();
    let descriptors = || fs::read_dir(format!("/proc/{}/fd", gateway.pid())).unwrap().count();
    let before = descriptors();
    let hello = pki.client().client_hello("a.test");

    let begun = Instant::now();
    let idle: Vec<TcpStream> = (0..count)
        .map(|at| {
            let mut socket = TcpStream::connect(web).unwrap();
            if at % 2 == 0 {
                socket.write_all(&hello[..hello.len() / 2]).unwrap();
            }
            socket
        })
        .collect();
    let active = || gateway.metric("portcullis_connections_active{listener=\"web\"}");
    if begun.elapsed() < Duration::from_secs(4) {
        eventually("all to be there", || (active() >= count as f64).then_some(()));
    }
    let asked = Instant::now();
    visit(&pki.client(), &gateway);
    assert!(asked.elapsed() < Duration::from_secs(3), "served after {:?}", asked.elapsed());

    for mut socket in idle {
        socket.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        // An alert may come before the end.
        assert!(socket.read_to_end(&mut Vec::new()).is_ok_and(|read| read < 100), "told to go");
    }
    eventually("all to be gone", || (active() == 0.0).then_some(()));
    let late =
        gateway.metric("portcullis_tls_handshakes_total{listener=\"web\",result=\"timeout\",version=\"-\"}");
    assert_eq!(late, count as f64);
    eventually("their descriptors", || (descriptors() <= before + 2).then_some(()));
    visit(&pki.client(), &gateway);
}

/// Has this process use as many descriptors as it may; how many.
fn raise_descriptors() -> u64 {
    let limit = getrlimit(Resource::Nofile);
    let _ = setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, ..limit });
    limit.maximum.unwrap_or(u64::MAX)
}

/// In a network of the test's own, so that the port is free: with the one capability that the systemd unit leaves, and
/// with none where the system has no privileged ports, as in containers. Others than root cannot give capabilities.
#[test]
fn port_443_is_served_by_others_than_root() {
    if !rustix::process::geteuid().is_root() {
        println!("skipped: this takes root");
        return;
    }
    let unit = Path::new(env!("CARGO_MANIFEST_DIR")).join("deploy/portcullis.service");
    let unit = fs::read_to_string(unit).unwrap();
    let word = |key: &str| unit.lines().find_map(|line| line.strip_prefix(key)).unwrap().to_ascii_lowercase();
    let [ambient, bounding] =
        ["AmbientCapabilities=CAP_", "CapabilityBoundingSet=CAP_"].map(|key| format!("-all,+{}", word(key)));
    let pki = Authority::new();
    let files = pki.issue("a", &["a.test"]);
    let home = Home::new();
    // What root has built others may be unable to reach.
    let program = home.path("portcullis");
    fs::copy(PROGRAM, &program).unwrap();
    let config = home.path("portcullis.yaml");
    let text = format!(
        "version: 1\nlisteners: [{{ name: web, address: \"127.0.0.1:443\", tls: {{ certificates: [{}] }} }}]\n\
         routes: [{{ name: all, path: /*, respond: {{ body: hello }} }}]\n",
        files.words()
    );
    fs::write(&config, text).unwrap();
    for path in [files.cert.parent().unwrap(), config.parent().unwrap()] {
        fs::set_permissions(path, Permissions::from_mode(0o755)).unwrap();
    }
    fs::set_permissions(&files.key, Permissions::from_mode(0o644)).unwrap();
    for (allow, ambient, bounding) in [
        ("true", ambient.as_str(), bounding.as_str()),
        ("echo 0 > /proc/sys/net/ipv4/ip_unprivileged_port_start", "-all", "-all"),
    ] {
        let script = format!(
            "ip link set lo up; {allow}
             setpriv --reuid 65534 --regid 65534 --clear-groups --no-new-privs --inh-caps {ambient} \
               --ambient-caps {ambient} --bounding-set {bounding} {} run -c {} & gateway=$!
             curl --silent --show-error --retry 20 --retry-connrefused --retry-delay 1 --max-time 40 --cacert {} \
               --resolve a.test:443:127.0.0.1 https://a.test/
             kill $gateway; wait $gateway",
            program.display(),
            config.display(),
            pki.ca().display()
        );
        let output = Command::new("unshare").args(["--net", "sh", "-c", &script]).output().unwrap();
        let said = String::from_utf8_lossy(&output.stdout).into_owned();
        assert!(said.starts_with("hello"), "{allow}: {said} {}", errors(&output));
        assert!(output.status.success(), "{}", errors(&output));
    }
}

#[test]
fn check_warns_of_what_has_expired() {
    let pki = Authority::new();
    let home = Home::new();
    let files = pki.issue_as("over", &Order { hosts: &["over.test"], days: -1, ..Order::default() });
    let listeners =
        format!("{{ name: web, address: \"{}\", tls: {{ certificates: [{}] }} }}", home.web, files.words());
    home.write(&Words { listeners, ..home.words("127.0.0.1:1") });
    let output = home.ask(&["check", "-c", "portcullis.yaml"]);
    assert_eq!(output.status.code(), Some(0), "{}", errors(&output));
    let said = String::from_utf8(output.stdout).unwrap();
    let warning = format!(
        "\n  warning: listener web: the certificate for over.test ({}) has expired\n",
        files.cert.display()
    );
    assert!(said.starts_with("portcullis.yaml: fine (") && said.ends_with(&warning), "{said}");
}
