//! Proxies in front that tell of the client (PROXY protocol), and Unix sockets.

use std::fs;
use std::io::Write;
use std::net::Ipv4Addr;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use tokio::io::AsyncWriteExt;

use crate::ask::{Asked, echo, upstream};
use crate::harness::{Client, Gateway, Http2, Origin, Response, eventually};

const TRUSTED: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 9);
const STRANGER: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 8);
const V1: &[u8] = b"PROXY TCP4 192.0.2.7 198.51.100.1 56324 443\r\n";
const GET: &[u8] = b"GET /?q HTTP/1.1\r\nhost: a.test\r\n\r\n";

/// A listener with these words, before an echo. 127.0.0.9 and 10.0.0.0/8 are trusted.
fn gateway(origin: &Origin, listener: &str) -> Gateway {
    Gateway::start(&format!(
        "{}server: {{ threads: 1, trusted_proxies: [127.0.0.9, 10.0.0.0/8] }}\n\
         listeners: [{{ name: web, address: \"127.0.0.1:0\", {listener} }}]\n\
         routes: [{{ name: all, path: /*, upstream: echo }}]",
        upstream(origin)
    ))
}

/// A header of version 2 from 192.0.2.7:56324 to 198.51.100.1:443.
fn v2() -> Vec<u8> {
    [b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0c".as_slice(), &[192, 0, 2, 7, 198, 51, 100, 1, 0xdc, 4, 1, 0xbb]]
        .concat()
}

/// A header of version 2 with this command, family and rest.
fn v2_of(command: u8, family: u8, rest: &[u8]) -> Vec<u8> {
    let len = u8::try_from(rest.len()).unwrap();
    [b"\r\n\r\n\0\r\nQUIT\n".as_slice(), &[command, family, 0, len], rest].concat()
}

fn heard(answer: &Response, names: [&str; 2]) -> [String; 2] {
    names.map(|name| Asked::of(answer).header(name))
}

const FOR_AND_PORT: [&str; 2] = ["x-forwarded-for", "x-forwarded-port"];

#[test]
fn who_may_tell_of_a_client_and_who_must() {
    // What comes of it: the address that goes upstream, or a status with a reason, or a closed connection.
    let rows = [
        ("off", TRUSTED, V1, "400 bad_http_version"),
        ("off", TRUSTED, b"", "127.0.0.9"),
        ("optional", TRUSTED, V1, "192.0.2.7"),
        ("optional", TRUSTED, b"", "127.0.0.9"),
        ("optional", TRUSTED, b"PROXY TCP4 192.0.2.7\r\n", "proxy_header_invalid"),
        ("optional", STRANGER, V1, "400 bad_http_version"),
        ("optional", STRANGER, b"", "127.0.0.8"),
        ("required", TRUSTED, V1, "192.0.2.7"),
        ("required", TRUSTED, b"", "proxy_header_missing"),
        ("required", TRUSTED, b"PROXY TCP4 192.0.2.7\r\n", "proxy_header_invalid"),
        ("required", STRANGER, V1, "proxy_header_untrusted"),
        ("required", STRANGER, b"", "proxy_header_untrusted"),
    ];
    let origin = echo();
    for mode in ["off", "optional", "required"] {
        let gateway = gateway(&origin, &format!("proxy_protocol: {mode}"));
        for (_, from, header, expected) in rows.iter().filter(|(of, ..)| *of == mode) {
            let row = format!("{mode}, from {from}: {}", String::from_utf8_lossy(header));
            let series = format!("portcullis_gateway_replies_total{{route=\"-\",reason=\"{expected}\"}}");
            let before = gateway.metric(&series);
            let mut client = Client::connect_from(*from, gateway.address());
            let _ = client.stream.send(&[*header, GET].concat());
            if expected.starts_with("proxy_") {
                assert!(client.ends(), "{row}");
                assert_eq!(gateway.metric(&series), before + 1.0, "{row}");
                continue;
            }
            let answer = client.response();
            match expected.split_once(' ') {
                Some((status, code)) => {
                    assert_eq!(answer.problem(), (status.parse().unwrap(), code.to_owned()), "{row}");
                }
                None => assert_eq!(Asked::of(&answer).header("x-forwarded-for"), *expected, "{row}"),
            }
        }
    }
}

#[test]
fn what_is_told_is_who_it_is_to_everyone() {
    let origin = echo();
    let gateway = gateway(&origin, "proxy_protocol: required");
    for header in [V1.to_vec(), v2()] {
        let mut client = Client::connect_from(TRUSTED, gateway.address());
        let lies =
            "GET /told HTTP/1.1\r\nhost: a\r\nx-forwarded-for: 6.6.6.6\r\nx-forwarded-proto: https\r\n\r\n";
        let answer = client.ask([&header, lies.as_bytes()].concat());
        assert_eq!(heard(&answer, FOR_AND_PORT), ["192.0.2.7", "443"]);
        assert_eq!(Asked::of(&answer).header("x-forwarded-proto"), "http");
        assert_eq!(gateway.log_of("/told")["client_ip"], "192.0.2.7");
        // The header is said once, for all requests of the connection.
        assert_eq!(heard(&client.get("/again"), FOR_AND_PORT), ["192.0.2.7", "443"]);
    }
}

#[test]
fn a_client_behind_a_proxy_is_believed_if_it_is_a_proxy_itself() {
    let origin = echo();
    let gateway = gateway(&origin, "proxy_protocol: required");
    let header = "PROXY TCP4 10.1.1.1 198.51.100.1 1 8443\r\n";
    let request = "GET / HTTP/1.1\r\nhost: a\r\nx-forwarded-for: 203.0.113.5\r\n\r\n";
    let answer = Client::connect_from(TRUSTED, gateway.address()).ask(format!("{header}{request}"));
    assert_eq!(heard(&answer, FOR_AND_PORT), ["203.0.113.5, 10.1.1.1", "8443"]);
}

#[test]
fn a_client_that_is_not_named_has_no_address() {
    let origin = echo();
    let gateway =
        gateway(&origin, "proxy_protocol: required, filters: [{ ip_restriction: { deny: [192.0.2.0/24] } }]");
    let ask = |header: &[u8]| {
        let request = b"GET /who HTTP/1.1\r\nhost: a\r\nx-forwarded-for: 203.0.113.5\r\n\r\n";
        Client::connect_from(TRUSTED, gateway.address()).ask([header, request].concat())
    };
    for header in [b"PROXY UNKNOWN\r\n".to_vec(), v2_of(0x21, 0, b""), v2_of(0x21, 0x31, &[b'x'; 216])] {
        assert_eq!(ask(&header).problem(), (403, "ip_denied".into()), "{header:?}");
        assert_eq!(gateway.log_of("/who").get("client_ip"), None);
    }
    assert_eq!(ask(V1).status, 403, "by its address");
    let itself = ask(&v2_of(0x20, 0, b""));
    assert_eq!(
        Asked::of(&itself).header("x-forwarded-for"),
        "203.0.113.5, 127.0.0.9",
        "LOCAL: the proxy itself"
    );
    let other = ask(b"PROXY TCP6 2001:db8::1 ::1 1 2\r\n");
    assert_eq!(Asked::of(&other).header("x-forwarded-for"), "2001:db8::1");
}

#[test]
fn connections_are_counted_for_whom_they_are() {
    let origin = echo();
    let gateway = gateway(&origin, "proxy_protocol: required, limits: { connections_per_ip: 1 }");
    let connect = |last: u8| {
        let mut client = Client::connect_from(TRUSTED, gateway.address());
        let _ = client.stream.send(format!("PROXY TCP4 192.0.2.{last} 10.0.0.1 1 2\r\n").as_bytes());
        let _ = client.stream.send(GET);
        client
    };
    let mut first = connect(1);
    assert_eq!(first.response().status, 200);
    assert!(connect(1).ends());
    assert_eq!(connect(2).response().status, 200);
    let code = "portcullis_gateway_replies_total{route=\"-\",reason=\"too_many_connections_from_address\"}";
    assert_eq!(gateway.metric(code), 1.0);
    drop(first);
    eventually("the place is free again", || connect(1).try_response("GET").is_ok());
}

#[test]
fn a_header_may_come_in_pieces_and_must_come_in_time() {
    let origin = echo();
    let patient = gateway(&origin, "proxy_protocol: optional");
    for bytes in [[V1, GET].concat(), [&v2(), GET].concat(), [b"\r\n", GET].concat(), GET.to_vec()] {
        let mut client = Client::connect_from(TRUSTED, patient.address());
        for byte in bytes.iter() {
            client.send([*byte]);
        }
        assert_eq!(client.response().status, 200, "{bytes:?}");
    }
    // As long as it may be.
    let long = v2_of(0x21, 0x11, &[&v2()[16..], &[4, 0, 0].repeat(60)].concat());
    assert_eq!(Client::connect_from(TRUSTED, patient.address()).ask([&long, GET].concat()).status, 200);

    let hasty = gateway(&origin, "proxy_protocol: optional, limits: { header_timeout: 100ms }");
    for bytes in [&b""[..], b"PRO", b"PROXY TCP4 1", &v2()[..20]] {
        let mut client = Client::connect_from(TRUSTED, hasty.address());
        client.send(bytes);
        assert!(client.ends(), "{bytes:?}");
    }
    let code = "portcullis_gateway_replies_total{route=\"-\",reason=\"proxy_header_timeout\"}";
    assert_eq!(hasty.metric(code), 4.0);
    let mut left = Client::connect_from(TRUSTED, patient.address());
    left.send(b"PROXY TC").finish();
    assert!(left.ends(), "long before its time is over");
    for gateway in [&patient, &hasty] {
        let open = "portcullis_connections_active{listener=\"web\"}";
        eventually("all have left", || gateway.metric(open) == 0.0);
    }
}

#[test]
fn http2_may_follow_the_header() {
    let origin = echo();
    let gateway = gateway(&origin, "proxy_protocol: required");
    let address = gateway.address();
    let mut client = Http2::over(&address.to_string(), async move {
        let socket = tokio::net::TcpSocket::new_v4().unwrap();
        socket.bind((TRUSTED, 0).into()).unwrap();
        let mut socket = socket.connect(address).await.unwrap();
        socket.write_all(V1).await.unwrap();
        socket
    });
    let answer = client.get("/");
    assert_eq!(answer.status, 200);
    assert!(String::from_utf8_lossy(&answer.body).contains("x-forwarded-for: 192.0.2.7\n"));
}

#[test]
fn a_drain_does_not_wait_for_a_header() {
    let origin = echo();
    let gateway = gateway(&origin, "proxy_protocol: required");
    let mut client = Client::connect_from(TRUSTED, gateway.address());
    client.send(b"PROXY");
    let open = "portcullis_connections_active{listener=\"web\"}";
    eventually("it is accepted", || gateway.metric(open) == 1.0);
    gateway.shutdown();
    assert!(client.ends());
}

#[test]
fn a_required_header_needs_someone_to_send_it() {
    let config = "listeners: [{ name: web, address: 127.0.0.1:0, proxy_protocol: required }]";
    let error = portcullis::Gateway::from_yaml(config).start().map(drop).unwrap_err().to_string();
    assert!(error.contains("`server.trusted_proxies` is empty"), "{error}");
}

/// HAProxy, until it is dropped.
struct HaProxy(Child);

impl HaProxy {
    /// HAProxy before the gateway, with these words on its server line. It connects from 127.0.0.9.
    fn start(folder: &Path, gateway: &Gateway, words: &str) -> (Self, std::net::SocketAddr) {
        let address = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let config = folder.join("haproxy.cfg");
        fs::write(
            &config,
            format!(
                "defaults\n mode tcp\n timeout connect 10s\n timeout client 30s\n timeout server 30s\n\
                 listen front\n bind {address}\n source 127.0.0.9\n server gateway {} {words}\n",
                gateway.address()
            ),
        )
        .unwrap();
        let path = format!("{}:/usr/sbin:/sbin", std::env::var("PATH").unwrap_or_default());
        let command = Command::new("haproxy").env("PATH", path).arg("-db").arg("-f").arg(&config).spawn();
        (Self(command.expect("haproxy is needed: make setup-test")), address)
    }
}

impl Drop for HaProxy {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn haproxy_tells_of_its_clients() {
    let origin = echo();
    for words in [
        "send-proxy",
        "send-proxy check check-send-proxy",
        "send-proxy-v2",
        "send-proxy-v2 proxy-v2-options crc32c,unique-id",
    ] {
        let gateway = gateway(&origin, "proxy_protocol: required");
        let folder = tempfile::tempdir().unwrap();
        let (_haproxy, address) = HaProxy::start(folder.path(), &gateway, words);
        let from = Ipv4Addr::new(127, 0, 0, 77);
        eventually("haproxy listens", || std::net::TcpStream::connect(address).is_ok());
        let mut client = Client::connect_from(from, address);
        let port = address.port().to_string();
        assert_eq!(heard(&client.get("/"), FOR_AND_PORT), ["127.0.0.77", port.as_str()], "{words}");
    }
}

#[test]
fn curl_tells_of_itself() {
    let origin = echo();
    let gateway = gateway(&origin, "proxy_protocol: required");
    let url = format!("http://{}/", gateway.address());
    let output = Command::new("curl")
        .args(["--silent", "--max-time", "20", "--interface", "127.0.0.9", "--haproxy-protocol", &url])
        .stderr(Stdio::inherit())
        .output()
        .unwrap();
    let answer = String::from_utf8_lossy(&output.stdout);
    assert!(answer.contains("x-forwarded-for: 127.0.0.9\n"), "{answer}");
}

/// A listener at a socket in this folder.
fn unix(folder: &Path, origin: &Origin, trusted: &str, listener: &str) -> Gateway {
    Gateway::start(&format!(
        "{}server: {{ threads: 1, trusted_proxies: [{trusted}] }}\n\
         listeners: [{{ name: web, address: \"unix:{}/web.sock\", {listener} }}]\n\
         routes: [{{ name: all, path: /*, upstream: echo }}]",
        upstream(origin),
        folder.display()
    ))
}

#[test]
fn a_unix_socket_serves_clients_without_an_address() {
    let origin = echo();
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("web.sock");
    let gateway = unix(folder.path(), &origin, "127.0.0.0/8", "limits: { connections_per_ip: 1 }");
    let mut clients = [Client::connect_unix(&path), Client::connect_unix(&path)];
    for client in &mut clients {
        let lies = "GET /who HTTP/1.1\r\nhost: a\r\nx-forwarded-for: 6.6.6.6\r\nx-forwarded-port: 1\r\n\r\n";
        assert_eq!(heard(&client.ask(lies), FOR_AND_PORT), ["-", "-"]);
        assert_eq!(client.get("/again").status, 200);
    }
    let line = gateway.log_of("/who");
    assert_eq!((&line["listener"], line.get("client_ip")), (&"web".into(), None));
    let mut broken = Client::connect_unix(&path);
    assert_eq!(broken.ask("GET /\r\n\r\n").status, 400);
    let http2 = path.clone();
    let mut http2 =
        Http2::over("a.test", async move { tokio::net::UnixStream::connect(http2).await.unwrap() });
    assert_eq!(http2.get("/").status, 200);
    drop((clients, broken, http2));
    gateway.shutdown();
    assert!(!path.exists(), "the socket goes with the gateway");
}

#[test]
fn proxies_over_a_unix_socket_are_believed_where_that_is_said() {
    let origin = echo();
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("web.sock");
    let filter = "filters: [{ ip_restriction: { allow: [192.0.2.0/24] } }]";
    let request = "GET / HTTP/1.1\r\nhost: a\r\nx-forwarded-for: 192.0.2.7\r\nforwarded: for=1.1.1.1\r\n\r\n";
    {
        let _gateway = unix(folder.path(), &origin, "unix", &format!("proxy_protocol: optional, {filter}"));
        let mut client = Client::connect_unix(&path);
        assert_eq!(heard(&client.ask(request), FOR_AND_PORT), ["192.0.2.7", "-"]);
        let forwarded = "GET / HTTP/1.1\r\nhost: a\r\nforwarded: for=192.0.2.8\r\n\r\n";
        let answer = client.ask(forwarded);
        assert_eq!(Asked::of(&answer).header("forwarded"), "for=192.0.2.8, for=unknown;proto=http");
        assert_eq!(client.get("/").problem(), (403, "ip_denied".into()));
        let mut told = Client::connect_unix(&path);
        assert_eq!(heard(&told.ask([V1, GET].concat()), FOR_AND_PORT), ["192.0.2.7", "443"]);
    }
    let _gateway = unix(folder.path(), &origin, "127.0.0.1", filter);
    assert_eq!(Client::connect_unix(&path).ask(request).problem(), (403, "ip_denied".into()));
}

#[test]
fn a_gateway_does_not_take_the_socket_of_another_nor_a_file() {
    let origin = echo();
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("web.sock");
    let first = unix(folder.path(), &origin, "", "");
    let listener = format!("listeners: [{{ name: web, address: \"unix:{}\" }}]", path.display());
    let start = || portcullis::Gateway::from_yaml(&listener).start().map(drop).unwrap_err().to_string();
    assert!(start().contains("another process listens there"));
    assert_eq!(Client::connect_unix(&path).get("/").status, 200);
    first.shutdown();
    fs::File::create(&path).unwrap().write_all(b"precious").unwrap();
    assert!(start().contains("there is a file that is no socket"));
    assert_eq!(fs::read(&path).unwrap(), b"precious");
}

#[test]
fn an_idle_connection_over_a_unix_socket_ends_like_any_other() {
    let origin = echo();
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("web.sock");
    let _gateway = unix(folder.path(), &origin, "", "limits: { idle_timeout: 100ms }");
    let mut client = Client::connect_unix(&path);
    assert_eq!(client.get("/").status, 200);
    assert!(client.ends());
    assert!(!Client::connect_unix(&path).is_silent(Duration::from_secs(5)), "closed unused");
}
