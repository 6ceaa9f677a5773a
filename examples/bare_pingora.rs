//! The floor of the end-to-end bench: the least a proxy on Pingora can do.
//!
//! No routing, no log, no filters: every request goes to one fixed origin, with the gateway's default timeouts. What Portcullis costs above this is what
//! Portcullis itself adds.
//!
//! ```text
//! bare_pingora LISTEN_ADDRESS ORIGIN_ADDRESS [h2c]
//! ```

use std::net::SocketAddr;
use std::process::ExitCode;
use std::time::Duration;

use async_trait::async_trait;
use pingora::apps::HttpServerOptions;
use pingora::modules::http::HttpModules;
use pingora::prelude::{HttpPeer, Opt, ProxyHttp, Result, Server, Session};
use pingora::proxy::http_proxy_service;
use pingora::server::configuration::ServerConf;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let (listen, origin, h2c) = match arguments.as_slice() {
        [listen, origin] => (listen, origin, false),
        [listen, origin, protocol] if protocol == "h2c" => (listen, origin, true),
        _ => {
            eprintln!("usage: bare_pingora LISTEN_ADDRESS ORIGIN_ADDRESS [h2c]");
            return ExitCode::from(2);
        }
    };
    match origin.parse() {
        Ok(origin) => serve(listen, origin, h2c),
        Err(error) => {
            eprintln!("bare_pingora: {origin}: {error}");
            ExitCode::from(2)
        }
    }
}

/// Serves until a signal ends the process. `h2c` takes HTTP/2 with prior knowledge, too.
fn serve(listen: &str, origin: SocketAddr, h2c: bool) -> ! {
    let settings = ServerConf { threads: 1, upstream_keepalive_pool_size: 4096, ..ServerConf::default() };
    let mut server = Server::new_with_opt_and_conf(Opt::default(), settings);
    server.bootstrap();
    let mut service = http_proxy_service(&server.configuration, ToOrigin(origin));
    if let Some(proxy) = service.app_logic_mut() {
        let mut options = HttpServerOptions::default();
        options.h2c = h2c;
        proxy.server_options = Some(options);
    }
    service.add_tcp(listen);
    server.add_service(service);
    server.run_forever()
}

struct ToOrigin(SocketAddr);

#[async_trait]
impl ProxyHttp for ToOrigin {
    type CTX = ();

    fn new_ctx(&self) {}

    /// Pingora's default registers a compression module, which costs boxed futures even while it is off.
    fn init_downstream_modules(&self, _: &mut HttpModules) {}

    async fn upstream_peer(&self, _: &mut Session, _: &mut ()) -> Result<Box<HttpPeer>> {
        let mut peer = Box::new(HttpPeer::new(self.0, false, String::new()));
        // The gateway's own defaults: a proxy without them could not be put before anything.
        peer.options.connection_timeout = Some(Duration::from_secs(2));
        peer.options.total_connection_timeout = Some(Duration::from_secs(2));
        peer.options.read_timeout = Some(Duration::from_secs(30));
        peer.options.write_timeout = Some(Duration::from_secs(30));
        peer.options.idle_timeout = Some(Duration::from_secs(90));
        Ok(peer)
    }
}
