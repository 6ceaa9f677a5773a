//! The proxies' configurations: each one worker, keep-alive on both sides, everything to one origin.

use std::fmt::Write;
use std::net::SocketAddr;
use std::path::Path;

use super::certificate::Files;

/// What a workload asks of a proxy.
#[derive(Clone, Copy, Default)]
pub struct Setting {
    /// Routes beside the catch-all. Portcullis only.
    pub routes: usize,
    pub tls: bool,
    pub upstream: Upstream,
    pub compression: bool,
    /// Everything that watches over the origin. Portcullis only.
    pub resilience: bool,
    /// What is asked of each request on its way.
    pub policy: Policy,
}

/// What is asked of each request on its way; all pass. nginx knows the limit by address, the others none.
#[derive(Clone, Copy, Default, PartialEq, Eq)]
pub enum Policy {
    #[default]
    None,
    /// A limit by address.
    RateLimit,
    /// The same, kept by a Redis server: settled in the background, or asked for each request. Portcullis only.
    SharedRateLimit { exact: bool },
    /// A list of origins that the request's is on.
    Cors,
    /// Four filters with conditions, none of which holds.
    Conditions,
    /// Two variants of the route, by a key of the request.
    Split,
    /// A second endpoint after a time that no answer takes. Portcullis only.
    Hedge,
}

/// How the origin is spoken to.
#[derive(Clone, Copy, Default, PartialEq, Eq)]
pub enum Upstream {
    #[default]
    Http1,
    /// HTTP/2 with prior knowledge.
    Http2,
}

/// What every configuration is made from.
pub struct Setup<'a> {
    pub listen: SocketAddr,
    /// Portcullis' second listener.
    pub admin: SocketAddr,
    pub origin: SocketAddr,
    /// Where there is one.
    pub redis: Option<SocketAddr>,
    pub setting: Setting,
    pub certificate: &'a Files,
    /// For logs and temporary files.
    pub directory: &'a Path,
}

/// Of gzip, for all; the other codings are at Portcullis' own `balanced`, as this is.
pub const GZIP_LEVEL: u8 = 5;

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

/// Everything that watches over an origin, as it is by default where it has one.
const RESILIENCE: &str = ", slow_start: 10s, breaker: { slow_call_duration: 1s }, \
    health: { active: { http: { path: / }, interval: 1s }, passive: {} }, \
    limits: { max_requests: 1024, max_connections: 1024 }, adaptive_concurrency: { min: 64, max: 1024 }";

/// Portcullis' file. `revision` changes the first route, so that a reload has something to do.
pub fn portcullis(setup: &Setup, revision: usize) -> String {
    let Setup { listen, admin, origin, redis, setting, certificate, directory } = setup;
    let log = directory.join("access.log");
    let tls = match setting.tls {
        true => format!(
            "    tls: {{ certificates: [{{ cert: \"{}\", key: \"{}\" }}] }}\n",
            certificate.certificate.display(),
            certificate.key.display()
        ),
        false => String::new(),
    };
    let protocol = match setting.upstream {
        Upstream::Http1 => "http1",
        Upstream::Http2 => "http2",
    };
    let resilience = if setting.resilience { RESILIENCE } else { "" };
    let filters = match setting {
        Setting { compression: true, .. } => "{ compression: { level: balanced } }",
        _ => setting.policy.filters(),
    };
    let stores = match redis {
        Some(redis) => {
            format!("stores: {{ main: {{ redis: {{ url: \"redis://{redis}\", timeout: 1s }} }} }}\n")
        }
        None => String::new(),
    };
    let target = match setting.policy {
        Policy::Split => {
            "split: { key: ip, to: [{ upstream: origin, weight: 95 }, { upstream: origin, weight: 5, name: canary }] }"
        }
        Policy::Hedge => "upstream: origin, retry: { hedge: { after: 20s } }",
        _ => "upstream: origin",
    };
    let mut text = format!(
        "version: 1
server: {{ threads: 1, upstream_keepalive: 4096 }}
listeners:
  - name: web
    address: \"{listen}\"
    limits: {{ connections_per_ip: 20000, requests_per_connection: 1000000000, idle_timeout: 300s }}
{tls}admin: {{ address: \"{admin}\" }}
telemetry: {{ access_log: {{ output: \"{}\", format: json }} }}
{stores}filters: [{filters}]
upstreams: {{ origin: {{ endpoints: [\"{origin}\"], protocol: {protocol}{resilience} }} }}
routes:
  - {{ name: all, path: /*, {target} }}
  - {{ name: revised, path: /revision/{revision}/*, upstream: origin }}
",
        log.display()
    );
    for number in 0..setting.routes {
        let (host, path) = (route_host(number), route_path(number));
        // Writing to a string cannot fail.
        let _ =
            writeln!(text, "  - {{ name: r{number}, hosts: [{host}], path: {path}/*, upstream: origin }}");
    }
    text
}

impl Policy {
    fn filters(self) -> &'static str {
        match self {
            Self::None | Self::Split | Self::Hedge => "",
            Self::RateLimit => "{ rate_limit: { rate: 1000000/s, key: ip } }",
            Self::SharedRateLimit { exact: true } => {
                "{ rate_limit: { rate: 1000000/s, key: ip, store: main } }"
            }
            Self::SharedRateLimit { exact: false } => {
                "{ rate_limit: { rate: 1000000/s, key: ip, store: main, settle_every: 100ms } }"
            }
            Self::Cors => {
                "{ cors: { origins: [\"https://app.test\", \"https://*.shop.test\"], credentials: true } }"
            }
            Self::Conditions => {
                "{ bot: { deny: [curl] }, when: 'request.method == \"POST\"' }, \
                 { headers: { response: { set: { x-a: b } } }, when: 'request.headers[\"x-chaos\"] == \"1\"' }, \
                 { maintenance: {}, when: 'request.path.startsWith(\"/admin/\")' }, \
                 { ip_restriction: { deny: [10.0.0.0/8] }, when: 'request.query.page == \"1\"' }"
            }
        }
    }
}

/// nginx' file: one process, a buffered access log of Portcullis' kind, responses of 64 KiB within its buffers.
pub fn nginx(setup: &Setup) -> String {
    let Setup { listen, origin, setting, certificate, directory, .. } = setup;
    let directory = directory.display();
    let listen = match setting.tls {
        true => format!(
            "{listen} ssl http2 backlog=4096;
    ssl_protocols TLSv1.3;
    ssl_certificate {};
    ssl_certificate_key {}",
            certificate.certificate.display(),
            certificate.key.display()
        ),
        false => format!("{listen} backlog=4096"),
    };
    let gzip = match setting.compression {
        true => format!("gzip on; gzip_comp_level {GZIP_LEVEL}; gzip_types application/json;"),
        false => String::new(),
    };
    let (zone, limit) = match setting.policy {
        Policy::RateLimit => (
            "limit_req_zone $binary_remote_addr zone=clients:10m rate=1000000r/s;",
            "limit_req zone=clients burst=1000 nodelay;",
        ),
        _ => ("", ""),
    };
    // It speaks HTTP/2 to upstreams by its module for gRPC alone, one request at a time on a connection.
    let pass = match setting.upstream {
        Upstream::Http1 => {
            r#"proxy_pass http://origin;
      proxy_http_version 1.1;
      proxy_set_header Connection $upgrade;
      proxy_set_header Upgrade $http_upgrade;
      proxy_set_header Host $host;
      proxy_set_header X-Forwarded-For $remote_addr;
      proxy_read_timeout 300s;
      proxy_buffer_size 16k;
      proxy_buffers 8 16k;
      proxy_max_temp_file_size 0;"#
        }
        Upstream::Http2 => {
            r#"grpc_pass grpc://origin;
      grpc_set_header Host $host;
      grpc_set_header X-Forwarded-For $remote_addr;"#
        }
    };
    format!(
        r#"daemon off;
master_process off;
pid {directory}/nginx.pid;
error_log {directory}/error.log;
worker_rlimit_nofile 20000;
events {{ worker_connections 19000; }}
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
  {gzip}
  {zone}
  map $http_upgrade $upgrade {{ default upgrade; "" ""; }}
  upstream origin {{ server {origin}; keepalive 1024; keepalive_requests 1000000000; }}
  server {{
    listen {listen};
    location / {{
      {limit}
      {pass}
    }}
  }}
}}
"#
    )
}

/// HAProxy's file: one thread, no log, since it cannot write one to a file by itself.
pub fn haproxy(setup: &Setup) -> String {
    let Setup { listen, origin, setting, certificate, .. } = setup;
    let tls = match setting.tls {
        true => {
            format!(" ssl crt {} alpn h2,http/1.1 ssl-min-ver TLSv1.3", certificate.both.display())
        }
        false => String::new(),
    };
    let protocol = match setting.upstream {
        Upstream::Http1 => "",
        Upstream::Http2 => " proto h2",
    };
    let compression = match setting.compression {
        true => "  compression algo gzip\n  compression type application/json\n",
        false => "",
    };
    format!(
        "global
  nbthread 1
  maxconn 16000
  no strict-limits
  tune.comp.maxlevel {GZIP_LEVEL}
defaults
  mode http
  timeout connect 5s
  timeout client 300s
  timeout server 60s
  timeout tunnel 300s
  timeout http-keep-alive 300s
  option http-keep-alive
  option forwardfor
  http-reuse always
frontend web
  bind {listen} backlog 4096{tls}
  default_backend origin
{compression}backend origin
  server origin {origin}{protocol}
"
    )
}

/// Bare Pingora's command line.
pub fn bare_pingora(setup: &Setup) -> Vec<String> {
    let Setup { listen, origin, setting, certificate, .. } = setup;
    let mut arguments = vec![listen.to_string(), origin.to_string()];
    if setting.tls {
        let Files { certificate, key, .. } = certificate;
        arguments.push(format!("tls={},{}", certificate.display(), key.display()));
    }
    if setting.upstream == Upstream::Http2 {
        arguments.push("http2_origin".into());
    }
    if setting.compression {
        arguments.push(format!("compression={GZIP_LEVEL}"));
    }
    arguments
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_revision_changes_one_route_and_nothing_else() {
        let [listen, admin, origin] =
            ["127.0.0.1:81", "127.0.0.1:82", "127.0.0.1:83"].map(|a| a.parse().unwrap());
        let certificate = Files { certificate: "c".into(), key: "k".into(), both: "b".into() };
        let setting = Setting { routes: 3, ..Setting::default() };
        let directory = Path::new("/tmp/x");
        let setup =
            Setup { listen, admin, origin, redis: None, setting, certificate: &certificate, directory };
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
