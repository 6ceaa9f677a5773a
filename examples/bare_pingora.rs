//! The floor of the end-to-end bench: the least a proxy on Pingora can do.
//!
//! No routing, no log, no filters: every request goes to one fixed origin, with the gateway's default timeouts. What Portcullis costs above this is what
//! Portcullis itself adds.
//!
//! ```text
//! bare_pingora LISTEN_ADDRESS ORIGIN_ADDRESS [h2c] [tls=CERTIFICATE,KEY] [http2_origin] [compression=LEVEL]
//! ```

use std::net::SocketAddr;
use std::process::ExitCode;
use std::time::Duration;

use async_trait::async_trait;
use pingora::apps::HttpServerOptions;
use pingora::listeners::tls::TlsSettings;
use pingora::modules::http::HttpModules;
use pingora::modules::http::compression::ResponseCompressionBuilder;
use pingora::prelude::{HttpPeer, Opt, ProxyHttp, Result, Server, Session};
use pingora::proxy::http_proxy_service;
use pingora::server::configuration::ServerConf;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Requests at once on a connection to an origin in HTTP/2, as in the gateway.
const STREAMS: usize = 100;

fn main() -> ExitCode {
    match Setting::parse(std::env::args().skip(1)) {
        Some(setting) => serve(setting).unwrap_or_else(|error| {
            eprintln!("bare_pingora: {error}");
            ExitCode::from(2)
        }),
        None => {
            eprintln!(
                "usage: bare_pingora LISTEN_ADDRESS ORIGIN_ADDRESS [h2c] [tls=CERTIFICATE,KEY] [http2_origin] \
                 [compression=LEVEL]"
            );
            ExitCode::from(2)
        }
    }
}

struct Setting {
    listen: String,
    /// Takes HTTP/2 with prior knowledge, too.
    h2c: bool,
    /// The files of certificate and key.
    tls: Option<(String, String)>,
    to_origin: ToOrigin,
}

impl Setting {
    fn parse(mut arguments: impl Iterator<Item = String>) -> Option<Self> {
        let listen = arguments.next()?;
        let address = arguments.next()?.parse().ok()?;
        let to_origin = ToOrigin { address, http2: false, compression: None };
        let mut setting = Self { listen, h2c: false, tls: None, to_origin };
        for word in arguments {
            match word.split_once('=') {
                None if word == "h2c" => setting.h2c = true,
                None if word == "http2_origin" => setting.to_origin.http2 = true,
                Some(("tls", files)) => {
                    let (certificate, key) = files.split_once(',')?;
                    setting.tls = Some((certificate.into(), key.into()));
                }
                Some(("compression", level)) => setting.to_origin.compression = Some(level.parse().ok()?),
                _ => return None,
            }
        }
        Some(setting)
    }
}

/// Serves until a signal ends the process.
fn serve(setting: Setting) -> Result<ExitCode> {
    let Setting { listen, h2c, tls, to_origin } = setting;
    // The gateway's cryptography: the first one installed stays, and Pingora would install ring. An error would mean that
    // there is one.
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let settings = ServerConf { threads: 1, upstream_keepalive_pool_size: 4096, ..ServerConf::default() };
    let mut server = Server::new_with_opt_and_conf(Opt::default(), settings);
    server.bootstrap();
    let mut service = http_proxy_service(&server.configuration, to_origin);
    if let Some(proxy) = service.app_logic_mut() {
        let mut options = HttpServerOptions::default();
        options.h2c = h2c;
        proxy.server_options = Some(options);
    }
    match tls {
        None => service.add_tcp(&listen),
        Some((certificate, key)) => {
            let mut tls = TlsSettings::intermediate(&certificate, &key)?;
            tls.enable_h2();
            service.add_tls_with_settings(&listen, None, tls);
        }
    }
    server.add_service(service);
    server.run_forever()
}

struct ToOrigin {
    address: SocketAddr,
    http2: bool,
    /// The level of gzip.
    compression: Option<u32>,
}

#[async_trait]
impl ProxyHttp for ToOrigin {
    type CTX = ();

    fn new_ctx(&self) {}

    /// Pingora's default registers a compression module, which costs boxed futures even while it is off.
    fn init_downstream_modules(&self, modules: &mut HttpModules) {
        if let Some(level) = self.compression {
            modules.add_module(ResponseCompressionBuilder::enable(level));
        }
    }

    async fn upstream_peer(&self, _: &mut Session, _: &mut ()) -> Result<Box<HttpPeer>> {
        let mut peer = Box::new(HttpPeer::new(self.address, false, String::new()));
        // The gateway's own defaults: a proxy without them could not be put before anything.
        peer.options.connection_timeout = Some(Duration::from_secs(2));
        peer.options.total_connection_timeout = Some(Duration::from_secs(2));
        peer.options.read_timeout = Some(Duration::from_secs(30));
        peer.options.write_timeout = Some(Duration::from_secs(30));
        peer.options.idle_timeout = Some(Duration::from_secs(90));
        if self.http2 {
            peer.options.set_http_version(2, 2);
            peer.options.max_h2_streams = STREAMS;
        }
        Ok(peer)
    }
}
