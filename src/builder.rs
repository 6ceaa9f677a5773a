//! The code-first door: it writes the same configuration a file would.

use std::net::SocketAddr;
use std::path::PathBuf;

use bytes::Bytes;
use schemars::JsonSchema;

use crate::chain::{Filter, Stage};
use crate::config::{self, Config, FilterUse};
use crate::document::{ConfigError, Document, Environment, Errors, Node};
use crate::exchange::{Exchange, Reply};
use crate::filters;
use crate::handler::{Handler, handler_fn};
use crate::registry::{FilterKind, Registry};
use crate::server::{Running, Server, Source, StartError};
use crate::upstream::{Balancer, Discovery, Factory, HealthCheck, Member};

/// A gateway put together in code.
///
/// What cannot be put into words (an address that is none) is told when the gateway starts, together with everything
/// else that is wrong.
pub struct Gateway {
    config: Config,
    file: Option<PathBuf>,
    registry: Registry,
    errors: Errors,
}

impl Default for Gateway {
    fn default() -> Self {
        Self {
            config: Config::default(),
            file: None,
            registry: filters::builtin(),
            errors: Errors::default(),
        }
    }
}

impl Gateway {
    /// An empty gateway.
    pub fn new() -> Self {
        Self::default()
    }

    /// A gateway configured by a file, which is watched; filters and handlers of the program's own can be added.
    pub fn from_file(path: impl Into<PathBuf>) -> Self {
        Self { file: Some(path.into()), ..Self::default() }
    }

    /// A gateway configured by YAML at hand.
    pub fn from_yaml(text: &str) -> Self {
        let environment = Environment::of_process();
        let mut gateway = Self::default();
        gateway.config = read(text, &environment, &mut gateway.errors);
        gateway
    }

    /// A gateway with these words.
    pub fn from_config(config: Config) -> Self {
        Self { config, ..Self::default() }
    }

    /// Listens on an address, `127.0.0.1:8080` or `unix:/run/web.sock`; port 0 takes any free port. The first listener is called `web`, the next ones `web2`
    /// and so on.
    #[must_use]
    pub fn listen(mut self, address: &str) -> Self {
        let count = self.config.listeners.len() + 1;
        let name = if count == 1 { "web".to_owned() } else { format!("web{count}") };
        let parsed = address.parse();
        if let Some(address) = self.parsed("listeners", parsed) {
            self.config.listeners.push(config::Listener::new(name, address));
        }
        self
    }

    /// Speaks TLS on the listener added last, with the certificate and key in these PEM files. Called again, it adds
    /// a certificate; clients get the one that has the host they ask for.
    #[must_use]
    pub fn tls(mut self, cert: impl Into<PathBuf>, key: impl Into<PathBuf>) -> Self {
        let files = config::CertificateSource::Files { cert: cert.into(), key: key.into() };
        match self.config.listeners.last_mut() {
            Some(listener) => listener.tls.get_or_insert_default().certificates.push(files),
            None => {
                self.errors.push(ConfigError::new("listeners", "TLS is for a listener: call `listen` first"))
            }
        }
        self
    }

    /// Serves the operator's API on a loopback address.
    #[must_use]
    pub fn admin(mut self, address: &str) -> Self {
        if let Some(address) = self.address("admin", address) {
            self.config.admin = Some(config::Admin { address, token: None });
        }
        self
    }

    /// Adds an upstream with these endpoints.
    #[must_use]
    pub fn upstream<'e>(mut self, name: &str, endpoints: impl IntoIterator<Item = &'e str>) -> Self {
        let endpoints = endpoints
            .into_iter()
            .filter_map(|endpoint| Some(config::Endpoint::new(self.address("upstreams", endpoint)?)));
        let upstream = config::Upstream { endpoints: endpoints.collect(), ..config::Upstream::default() };
        self.config.upstreams.insert(name.to_owned(), upstream);
        self
    }

    /// Adds a route.
    #[must_use]
    pub fn route(mut self, route: Route) -> Self {
        let Route { words, endpoints, handler, filters } = route;
        let name = words.name.clone();
        self.config.routes.push(words);
        for (filter, stage, add) in filters {
            self.unused(filter);
            add(&mut self.registry, filter, stage);
        }
        if let Some(add) = handler {
            add(&mut self.registry, &name);
        }
        match endpoints {
            Some(endpoints) => self.upstream(&name, endpoints.iter().map(String::as_str)),
            None => self,
        }
    }

    /// Runs a filter on every route.
    #[must_use]
    pub fn filter(mut self, name: &'static str, stage: Stage, filter: impl Filter) -> Self {
        self.unused(name);
        self.registry.add_instance(name, stage, filter);
        self.config.filters.push(FilterUse::named(name));
        self
    }

    /// Has the filter added last apply where this condition (in CEL) holds alone.
    #[must_use]
    pub fn when(mut self, condition: &str) -> Self {
        match self.config.filters.last_mut() {
            Some(filter) => filter.when = Some(condition.to_owned()),
            None => {
                self.errors.push(ConfigError::new("filters", "`when` is for a filter: call `filter` first"))
            }
        }
        self
    }

    /// Makes one filter nameable in configuration, without placing it.
    #[must_use]
    pub fn named_filter(mut self, name: &'static str, stage: Stage, filter: impl Filter) -> Self {
        self.unused(name);
        self.registry.add_instance(name, stage, filter);
        self
    }

    /// Makes a kind of filter nameable in configuration.
    #[must_use]
    pub fn filter_kind<F: FilterKind>(mut self) -> Self
    where
        F::Config: JsonSchema,
    {
        self.registry = self.registry.filter::<F>();
        self
    }

    /// Makes a way of choosing an endpoint nameable: `balance: { custom: NAME }`. The function is called whenever the
    /// endpoints of such an upstream are new, once for those of each rank and zone.
    #[must_use]
    pub fn balancer(
        mut self,
        name: &str,
        make: impl Fn(&[Member]) -> Box<dyn Balancer> + Send + Sync + 'static,
    ) -> Self {
        if self.registry.balancer(name).is_some() {
            self.errors.push(ConfigError::new("upstreams", format!("another balancer is called `{name}`")));
        }
        self.registry.add_balancer(Factory::new(name, make));
        self
    }

    /// Makes a health check nameable by upstreams: `health: { active: { custom: NAME } }`. A later one with the same name
    /// takes its place.
    #[must_use]
    pub fn health_check(mut self, name: &str, check: impl HealthCheck) -> Self {
        self.registry.add_health_check(name, check);
        self
    }

    /// Makes what finds endpoints nameable by upstreams: `discover: { custom: NAME }`. A later one with the same name takes
    /// its place.
    #[must_use]
    pub fn discovery(mut self, name: &str, discovery: impl Discovery + 'static) -> Self {
        self.registry.add_discovery(name, discovery);
        self
    }

    /// The words put together so far, to be changed at will.
    pub fn config_mut(&mut self) -> &mut Config {
        &mut self.config
    }

    /// Runs until a signal ends it (SIGTERM, SIGINT), with reload (SIGHUP) and upgrade (SIGUSR2).
    ///
    /// # Errors
    ///
    /// What kept it from starting.
    pub fn run(self) -> Result<(), StartError> {
        self.server().run()
    }

    /// Starts in a thread of its own and leaves the process's signals alone.
    ///
    /// # Errors
    ///
    /// What kept it from starting.
    pub fn start(self) -> Result<Running, StartError> {
        self.server().start()
    }

    fn server(mut self) -> Server {
        if self.file.is_some() && self.config != Config::default() {
            let message =
                "a gateway is configured by a file or by code: what code adds to a file is filters by name";
            self.errors.push(ConfigError::new("", message));
        }
        let source = match self.file {
            Some(path) if self.errors.is_empty() => Source::File(path),
            _ => Source::Code { config: Box::new(self.config), errors: self.errors },
        };
        Server::new(source, self.registry)
    }

    /// Two filters of one name would be one filter: the later one, in both places.
    fn unused(&mut self, name: &str) {
        if self.registry.instance(name).is_some() || self.registry.kind(name).is_some() {
            self.errors.push(ConfigError::new("filters", format!("another filter is called `{name}`")));
        }
    }

    fn address(&mut self, path: &str, text: &str) -> Option<SocketAddr> {
        self.parsed(path, text.parse().map_err(|_| format!("`{text}` is not an address with a port")))
    }

    fn parsed<T>(&mut self, path: &str, parsed: Result<T, String>) -> Option<T> {
        parsed.map_err(|message| self.errors.push(ConfigError::new(path, message))).ok()
    }
}

fn read(text: &str, environment: &Environment, errors: &mut Errors) -> Config {
    match Document::parse("config", text, environment) {
        Ok(document) => {
            let mut found = Errors::default();
            let config = Config::read(&document, &mut found);
            errors.extend(found.placed(&document));
            config
        }
        Err(failure) => {
            errors.extend(failure.errors);
            Config::default()
        }
    }
}

/// What a filter added to a route leaves for the gateway to do.
type AddFilter = Box<dyn FnOnce(&mut Registry, &'static str, Stage) + Send>;
/// What a handler added to a route leaves for the gateway to do.
type AddHandler = Box<dyn FnOnce(&mut Registry, &str) + Send>;

/// A route put together in code.
pub struct Route {
    words: config::Route,
    endpoints: Option<Vec<String>>,
    handler: Option<AddHandler>,
    filters: Vec<(&'static str, Stage, AddFilter)>,
}

impl Route {
    /// A route with a unique name and a path: `/a`, `/a/*`, `/users/{id}`, `/files/{rest*}`.
    pub fn new(name: &str, path: &str) -> Self {
        let words = config::Route {
            name: name.to_owned(),
            path: config::Path::Pattern(path.to_owned()),
            ..config::Route::default()
        };
        Self { words, endpoints: None, handler: None, filters: Vec::new() }
    }

    /// Serves only this host; may be called again for others.
    #[must_use]
    pub fn host(mut self, host: &str) -> Self {
        self.words.hosts.push(host.to_owned());
        self
    }

    /// Serves only this method; may be called again for others.
    #[must_use]
    pub fn method(mut self, method: &str) -> Self {
        self.words.methods.push(method.to_owned());
        self
    }

    /// Sends requests to an upstream of this name.
    #[must_use]
    pub fn upstream(mut self, name: &str) -> Self {
        self.words.upstream = Some(name.to_owned());
        self
    }

    /// Sends requests to these addresses: an upstream that has the route's name.
    #[must_use]
    pub fn forward_to<'e>(mut self, endpoints: impl IntoIterator<Item = &'e str>) -> Self {
        self.endpoints = Some(endpoints.into_iter().map(str::to_owned).collect());
        let name = self.words.name.clone();
        self.upstream(&name)
    }

    /// Answers requests in Rust.
    #[must_use]
    pub fn handler(mut self, handler: impl Handler) -> Self {
        self.words.handler = Some(self.words.name.clone());
        self.handler = Some(Box::new(move |registry, name| registry.add_handler(name, handler)));
        self
    }

    /// Answers requests with a plain function.
    #[must_use]
    pub fn respond_with<F>(self, function: F) -> Self
    where
        F: Fn(&mut Exchange<'_>, Bytes) -> Reply + Send + Sync + 'static,
    {
        self.handler(handler_fn(function))
    }

    /// Runs a filter on this route. Its name is its metric label, and unique among those made in code.
    #[must_use]
    pub fn filter(mut self, name: &'static str, stage: Stage, filter: impl Filter) -> Self {
        self.words.filters.push(FilterUse::named(name));
        let add: AddFilter =
            Box::new(move |registry, name, stage| registry.add_instance(name, stage, filter));
        self.filters.push((name, stage, add));
        self
    }

    /// Runs a filter by its configured name, with its configuration in YAML.
    ///
    /// # Errors
    ///
    /// When the configuration is not YAML.
    pub fn configured(mut self, name: &str, yaml: &str) -> Result<Self, Errors> {
        let node: Node = Document::parse(name, &format!("{name}: {yaml}"), &Environment::default())
            .map_err(|failure| failure.errors)?
            .root;
        let config = node.get(name).cloned().unwrap_or(node);
        self.words.filters.push(FilterUse::configured(name, config));
        Ok(self)
    }

    /// Has the filter added last apply where this condition (in CEL) holds alone. Without a filter it means nothing.
    #[must_use]
    pub fn when(mut self, condition: &str) -> Self {
        if let Some(filter) = self.words.filters.last_mut() {
            filter.when = Some(condition.to_owned());
        }
        self
    }

    /// The words put together so far, to be changed at will.
    pub fn config_mut(&mut self) -> &mut config::Route {
        &mut self.words
    }
}
