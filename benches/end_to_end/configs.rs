//! The proxies' configurations: each one worker, keep-alive on both sides, everything to one origin.

use std::fmt::Write;
use std::net::SocketAddr;
use std::path::Path;

/// What every configuration is made from.
pub struct Setup<'a> {
    pub listen: SocketAddr,
    /// Portcullis' second listener.
    pub admin: SocketAddr,
    pub origin: SocketAddr,
    /// Routes beside the catch-all. Portcullis only.
    pub routes: usize,
    /// For logs and temporary files.
    pub directory: &'a Path,
}

/// The hosts that the routes are spread over.
pub const HOSTS: usize = 1_000;

/// Host of route `number`, of the same length for every number, so that requests differ in nothing but the route.
pub fn route_host(number: usize) -> String {
    format!("h{:06}.test", number % HOSTS)
}

/// Path prefix of route `number`, without the slash at its end.
pub fn route_path(number: usize) -> String {
    format!("/r{number:06}")
}

/// Portcullis' file. `revision` changes the first route, so that a reload has something to do.
pub fn portcullis(setup: &Setup, revision: usize) -> String {
    let Setup { listen, admin, origin, directory, .. } = setup;
    let log = directory.join("access.log");
    let mut text = format!(
        "version: 1
server: {{ threads: 1 }}
listeners: [{{ name: web, address: \"{listen}\", limits: {{ connections_per_ip: 20000 }} }}]
admin: {{ address: \"{admin}\" }}
telemetry: {{ access_log: {{ output: \"{}\", format: json }} }}
upstreams: {{ origin: {{ endpoints: [\"{origin}\"] }} }}
routes:
  - {{ name: all, path: /*, upstream: origin }}
  - {{ name: revised, path: /revision/{revision}/*, upstream: origin }}
",
        log.display()
    );
    for number in 0..setup.routes {
        let (host, path) = (route_host(number), route_path(number));
        // Writing to a string cannot fail.
        let _ =
            writeln!(text, "  - {{ name: r{number}, hosts: [{host}], path: {path}/*, upstream: origin }}");
    }
    text
}

/// nginx' file: one process, a buffered access log of Portcullis' kind, responses of 64 KiB within its buffers.
pub fn nginx(setup: &Setup) -> String {
    let Setup { listen, origin, directory, .. } = setup;
    let directory = directory.display();
    format!(
        r#"daemon off;
master_process off;
pid {directory}/nginx.pid;
error_log {directory}/error.log;
worker_rlimit_nofile 20000;
events {{ worker_connections 16384; }}
http {{
  client_body_temp_path {directory}/body;
  proxy_temp_path {directory}/proxy;
  fastcgi_temp_path {directory}/fastcgi;
  uwsgi_temp_path {directory}/uwsgi;
  scgi_temp_path {directory}/scgi;
  log_format json escape=json '{{"time":"$time_iso8601","client":"$remote_addr","method":"$request_method",'
    '"host":"$host","path":"$uri","status":$status,"bytes":$body_bytes_sent,"duration":$request_time,'
    '"upstream":"$upstream_addr","request_id":"$request_id"}}';
  access_log {directory}/access.log json buffer=64k flush=1s;
  keepalive_timeout 300s;
  keepalive_requests 1000000000;
  upstream origin {{ server {origin}; keepalive 64; keepalive_requests 1000000000; }}
  server {{
    listen {listen} backlog=4096;
    location / {{
      proxy_pass http://origin;
      proxy_http_version 1.1;
      proxy_set_header Connection "";
      proxy_set_header Host $host;
      proxy_set_header X-Forwarded-For $remote_addr;
      proxy_buffer_size 16k;
      proxy_buffers 8 16k;
      proxy_max_temp_file_size 0;
    }}
  }}
}}
"#
    )
}

/// HAProxy's file: one thread, no log, since it cannot write one to a file by itself.
pub fn haproxy(setup: &Setup) -> String {
    let Setup { listen, origin, .. } = setup;
    format!(
        "global
  nbthread 1
  maxconn 16000
  no strict-limits
defaults
  mode http
  timeout connect 5s
  timeout client 300s
  timeout server 60s
  timeout http-keep-alive 300s
  option http-keep-alive
  option forwardfor
  http-reuse always
frontend web
  bind {listen} backlog 4096
  default_backend origin
backend origin
  server origin {origin}
"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn setup(directory: &Path) -> Setup<'_> {
        let [listen, admin, origin] =
            ["127.0.0.1:81", "127.0.0.1:82", "127.0.0.1:83"].map(|a| a.parse().unwrap());
        Setup { listen, admin, origin, routes: 3, directory }
    }

    #[test]
    fn a_revision_changes_one_route_and_nothing_else() {
        let setup = setup(Path::new("/tmp/x"));
        let (first, second) = (portcullis(&setup, 1), portcullis(&setup, 2));
        let changed = first.lines().zip(second.lines()).filter(|(a, b)| a != b).count();
        assert_eq!((changed, first.lines().count()), (1, second.lines().count()));
        assert_eq!(first.matches("upstream: origin }").count(), 5);
    }

    #[test]
    fn routes_differ_in_number_only() {
        assert_eq!(route_host(7).len(), route_host(49_999).len());
        assert_eq!(route_path(7).len(), route_path(49_999).len());
    }
}
