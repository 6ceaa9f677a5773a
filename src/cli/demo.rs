//! `demo`: two embedded upstreams and a gateway before them.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::process::ExitCode;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use super::{failed, show};
use crate::builder::Gateway;

pub(super) fn demo(address: SocketAddr, admin: SocketAddr) -> ExitCode {
    match serve(address, admin) {
        Ok(()) => ExitCode::SUCCESS,
        Err(message) => failed(&message, 1),
    }
}

fn serve(address: SocketAddr, admin: SocketAddr) -> Result<(), String> {
    let one = upstream("one").map_err(|error| error.to_string())?;
    let two = upstream("two").map_err(|error| error.to_string())?;
    let gateway = Gateway::from_yaml(&configuration(address, admin, one, two));
    show(&invitation(address, admin));
    gateway.run().map_err(|error| error.to_string())
}

fn configuration(address: SocketAddr, admin: SocketAddr, one: SocketAddr, two: SocketAddr) -> String {
    format!(
        r#"
version: 1
listeners: [{{ name: web, address: "{address}" }}]
admin: {{ address: "{admin}" }}
telemetry: {{ log: {{ format: text, level: warn }}, access_log: {{ format: combined }} }}
upstreams:
  shop:
    endpoints: ["{one}", {{ address: "{two}", weight: 2 }}]
    health:
      active: {{ http: {{ path: /healthz }}, interval: 1s, timeout: 500ms, healthy_after: 1, unhealthy_after: 1 }}
      passive: {{ consecutive_errors: 2, eject_for: 5s }}
    breaker: {{ open_for: 5s }}
  next: {{ endpoints: ["{two}"] }}
filters: [request_id, {{ headers: {{ response: {{ set: {{ x-served-by: portcullis }} }} }} }}]
routes:
  - {{ name: shop, path: /shop/*, upstream: shop, filters: [{{ rewrite: {{ strip_prefix: /shop }} }}] }}
  - {{ name: user, path: "/users/{{id}}", methods: [GET], upstream: shop,
      filters: [{{ rewrite: {{ path: "/people/{{id}}" }} }}, {{ headers: {{ request: {{ set: {{ x-user: "{{id}}" }} }} }} }}] }}
  - {{ name: limited, path: /limited, upstream: shop, filters: [{{ rate_limit: {{ rate: 12/m, burst: 3, key: ip }} }}] }}
  - {{ name: upload, path: /upload, methods: [POST], upstream: shop, limits: {{ request_body: 1KiB }} }}
  - {{ name: break, path: /break, methods: [POST], upstream: shop }}
  - {{ name: hidden, path: /hidden, upstream: shop, filters: [{{ ip_restriction: {{ allow: [192.0.2.0/24] }} }}] }}
  - {{ name: old, path: "/old/{{rest*}}", redirect: {{ to: "/shop/{{rest}}" }} }}
  - name: canary
    path: /canary
    split:
      key: "cookie:visitor"
      sticky: true
      header: x-variant
      rules: [{{ headers: {{ x-canary: "1" }}, to: next }}]
      to: [{{ upstream: shop, weight: 90 }}, {{ upstream: next, weight: 10 }}]
  - {{ name: home, path: /, respond: {{ body: "Portcullis is up.\n" }} }}
apis:
  - name: api
    path: /api/*
    version_from: [path, "header:x-api-version"]
    default: "2"
    versions:
      "1": {{ upstream: shop, deprecated: 2026-01-01, sunset: 2999-12-31, link: "https://docs.example.com/migrate" }}
      "2": {{ upstream: next }}
"#
    )
}

fn invitation(address: SocketAddr, admin: SocketAddr) -> String {
    format!(
        "Portcullis demo: a gateway on http://{address} before two upstreams. Try:\n\n\
         \x20 curl -i http://{address}/                       # the gateway's own answer\n\
         \x20 curl -i http://{address}/shop/cart              # balanced 1:2 over two upstreams\n\
         \x20 curl -i http://{address}/users/7                # a path parameter, rewritten\n\
         \x20 curl -i -X PUT http://{address}/users/7         # 405, with what is allowed\n\
         \x20 curl -i http://{address}/hidden                 # 403, with a reason\n\
         \x20 curl -i -L http://{address}/old/cart            # redirected\n\
         \x20 head -c 2000 /dev/zero | curl -i --data-binary @- http://{address}/upload   # 413, too large\n\
         \x20 curl -i http://{address}/limited                # 3 at once, then one in 5 s: 429, and when to come back\n\
         \x20 curl -i http://{address}/canary                 # one of ten visitors sees what is next,\n\
         \x20 curl -i -H 'x-canary: 1' http://{address}/canary   # and who asks for it\n\
         \x20 curl -i http://{address}/api/v1/orders          # a version that says when it ends\n\
         \x20 curl -i -X POST http://{address}/break          # one of the upstreams breaks down for 15 s,\n\
         \x20 curl -i http://{address}/shop/cart              # the other one answers,\n\
         \x20 curl -s http://{admin}/upstreams                # and the operator sees who is well\n\
         \x20 curl -s http://{admin}/metrics | grep portcullis_requests_total\n\n\
         Stop with Ctrl-C. Requests are logged below."
    )
}

/// How long an upstream that was asked to break down does not answer.
const BROKEN: Duration = Duration::from_secs(15);

/// A small web server that says who it is and what it was asked, and breaks down when it is asked to.
fn upstream(name: &'static str) -> std::io::Result<SocketAddr> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let address = listener.local_addr()?;
    let broken = Arc::new(Mutex::new(None));
    thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let broken = Arc::clone(&broken);
            thread::spawn(move || answer(&stream, name, &broken));
        }
    });
    Ok(address)
}

/// Answers requests until the connection ends, or the server is `broken` since less than a while. Bodies are read and
/// forgotten.
fn answer(stream: &TcpStream, name: &str, broken: &Mutex<Option<Instant>>) -> Option<()> {
    let mut reader = BufReader::new(stream);
    loop {
        let mut head = Vec::new();
        let mut length = 0;
        loop {
            let mut line = String::new();
            if reader.read_line(&mut line).ok()? == 0 {
                return None;
            }
            let line = line.trim_end().to_owned();
            if line.is_empty() {
                break;
            }
            if let Some(value) = line.to_ascii_lowercase().strip_prefix("content-length:") {
                length = value.trim().parse().ok()?;
            }
            head.push(line);
        }
        std::io::copy(&mut reader.by_ref().take(length), &mut std::io::sink()).ok()?;
        if broken.lock().is_some_and(|since| since.elapsed() < BROKEN) {
            return None;
        }
        let body = if head.first().is_some_and(|line| line.starts_with("POST /break ")) {
            *broken.lock() = Some(Instant::now());
            format!("upstream {name} breaks down for {BROKEN:?}\n")
        } else {
            format!("upstream {name} was asked:\n{}\n", head.join("\n"))
        };
        let reply = format!(
            "HTTP/1.1 200 OK\r\ncontent-type: text/plain\r\ncontent-length: {}\r\n\r\n{body}",
            body.len()
        );
        let mut writer = stream;
        writer.write_all(reply.as_bytes()).ok()?;
    }
}
