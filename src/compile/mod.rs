//! From words to a snapshot, or every error at once. Starts nothing, has no side effects.

mod acme;
mod answers;
mod apis;
mod balance;
mod chains;
mod consumers;
mod discover;
mod health;
mod hedge;
mod limits;
mod listeners;
mod mirror;
mod resilience;
mod routes;
mod shown;
mod split;
mod stores;
mod telemetry;
mod tls;
mod upstreams;
mod webhooks;

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use crate::acme::{Challenges, Managed, Proofs};
use crate::chain::{ChainBuilder, Link};
use crate::config::Config;
use crate::consumer::Consumers;
use crate::document::{ConfigError, Environment, Errors, closest};
use crate::registry::Registry;
use crate::snapshot::{Bounds, Snapshot, Watermarks};
use crate::state::State;
use crate::stores::Stores;
use crate::telemetry::{AccessLog, Events, Metrics, Settings};
use crate::types::CredentialFields;
use crate::upstream::Upstream;

pub use chains::filter_files;
pub use consumers::consumer_files;
pub use listeners::admin_token;
pub use shown::shown;
pub use stores::store_files;
pub use tls::tls_files;
pub use upstreams::upstream_files;
pub use webhooks::webhook_files;

/// What a configuration is compiled against.
#[derive(Clone, Copy)]
pub struct Inputs<'a> {
    /// What configuration can name.
    pub registry: &'a Registry,
    /// What outlives a snapshot.
    pub state: &'a State,
    /// The metrics that routes and upstreams count in.
    pub metrics: &'a Metrics,
    /// Where what happens to upstreams is told.
    pub events: &'a Events,
    /// The environment, for secrets that are named by their variable.
    pub environment: &'a Environment,
    /// Whether certificates and keys may be read. Else nothing is said of their files, and TLS is left out.
    pub certificates: bool,
}

/// A compiled configuration that is not yet in force: its access log is not open.
pub struct Compiled {
    /// Everything a request needs. Its access log is off.
    pub snapshot: Snapshot,
    /// How to open the access log.
    pub access_log: Settings,
}

/// Compiles a configuration.
///
/// # Errors
///
/// Everything that is wrong with it, by document path.
pub fn compile(config: &Config, inputs: Inputs<'_>) -> Result<Compiled, Errors> {
    let mut errors = Errors::default();
    let upstreams = upstreams::compile(config, inputs, &mut errors);
    let (credentials, bounds) = (shown::credentials(config, inputs.registry), HashMap::new());
    let mut compiler = Compiler {
        config,
        inputs,
        upstreams: &upstreams,
        credentials,
        stores: Stores::default(),
        consumers: Arc::default(),
        directories: BTreeMap::new(),
        managed: Vec::new(),
        used: Vec::new(),
        bounds,
        errors,
    };
    compiler.stores = compiler.stores();
    compiler.consumers = compiler.consumers();
    compiler.directories = compiler.directories();
    let listeners = compiler.listeners();
    let routed = compiler.routes(&listeners);
    compiler.unplaced_chains();
    let queries = chains::secret_queries(config, inputs.registry);
    let access_log = telemetry::access_log(&config.telemetry.access_log, queries, &mut compiler.errors);
    telemetry::metrics(&config.telemetry.metrics, &mut compiler.errors);
    let webhooks = compiler.webhooks();
    compiler.admin();
    if config.server.upgrade_timeout.get().is_zero() {
        compiler.error("server.upgrade_timeout", "a timeout cannot be zero");
    }
    if config.server.zone.as_deref() == Some("") {
        compiler.error("server.zone", "a zone has a name");
    }
    compiler.shed();
    let text = serde_json::to_string(&shown(config, inputs.registry)).unwrap_or_default();
    let acme: Box<[Managed]> = compiler.managed.into();
    let proofs = (!acme.is_empty()).then(|| {
        let here = inputs.state.adopt(Challenges::KEY, Challenges::default);
        Arc::new(Proofs::new(here, &acme))
    });
    let consumers = compiler.consumers;
    let errors = compiler.errors;
    let settings = access_log.unwrap_or_else(Settings::off);
    let (router, routes, unmatched) = routed;
    errors.or(Compiled {
        snapshot: Snapshot {
            generation: 0,
            hash: fingerprint(&text),
            config: text.into(),
            router,
            routes,
            unmatched,
            consumers,
            upstreams,
            listeners: listeners.policies,
            acme,
            proofs,
            trusted_proxies: config.server.trusted_proxies.iter().copied().collect(),
            retry_memory: config.server.retry_memory.get(),
            shed: config.server.shed.as_ref().map_or_else(Watermarks::default, |shed| Watermarks {
                memory: shed.memory,
                connections: shed.connections,
            }),
            webhooks,
            access_log: Arc::new(AccessLog::off()),
            grace_period: config.server.grace_period.get(),
            drain_delay: config.server.drain_delay.get(),
            upgrade_timeout: config.server.upgrade_timeout.get(),
        },
        access_log: settings,
    })
}

/// What the parts of the compilation share.
struct Compiler<'a> {
    config: &'a Config,
    inputs: Inputs<'a>,
    upstreams: &'a BTreeMap<Arc<str>, Arc<Upstream>>,
    /// Header fields whose values are not shown.
    credentials: CredentialFields,
    /// Stores that machines share.
    stores: Stores,
    /// Who clients can prove to be.
    consumers: Arc<Consumers>,
    /// The authorities that issue certificates.
    directories: acme::Directories,
    /// The certificates that are wanted of them.
    managed: Vec<Managed>,
    /// Named chains that were placed somewhere.
    used: Vec<&'a str>,
    /// Those of the routes so far.
    bounds: HashMap<Bounds, Arc<Bounds>>,
    errors: Errors,
}

impl Compiler<'_> {
    /// Marks that nothing is below would refuse every request.
    fn shed(&mut self) {
        let Some(shed) = &self.config.server.shed else { return };
        if shed.connections == Some(0) {
            self.error("server.shed.connections", "a gateway without connections serves nobody");
        }
        if shed.memory.and_then(|mark| mark.bytes(Some(u64::MAX))) == Some(0) {
            self.error("server.shed.memory", "a gateway without memory serves nobody");
        }
    }

    fn error(&mut self, path: impl Into<String>, message: impl Into<String>) {
        self.errors.push(ConfigError::new(path, message));
    }
}

/// A short fingerprint of the words as they are shown (FNV-1a, 64 bit): it tells nothing of secrets.
fn fingerprint(text: &str) -> String {
    let step = |hash: u64, byte: u8| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
    format!("{:016x}", text.bytes().fold(0xcbf2_9ce4_8422_2325, step))
}

/// The most names that a hint lists.
const NAMES: usize = 8;

/// An error about a name that means nothing, with the nearest known one as its hint, or all if they are few.
fn unknown<'n>(path: String, what: &str, name: &str, known: impl Iterator<Item = &'n str>) -> ConfigError {
    let error = ConfigError::new(path, format!("there is no {what} `{name}`"));
    let known: Vec<&str> = known.collect();
    match closest(name, &known) {
        Some(near) => error.with_hint(format!("did you mean `{near}`?")),
        None if (1..=NAMES).contains(&known.len()) => {
            error.with_hint(format!("there is `{}`", known.join("`, `")))
        }
        None => error,
    }
}

/// Compiled lists of filters, in the order they are written.
type Links = Vec<Link>;

fn in_order(lists: &[&Links]) -> ChainBuilder {
    let mut builder = ChainBuilder::default();
    lists.iter().flat_map(|links| links.iter()).cloned().for_each(|link| builder.push(link));
    builder
}
