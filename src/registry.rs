//! What configuration can name: filters by kind, handlers, balancers, health checks and discoveries by name.

mod members;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

use http::HeaderValue;
use schemars::generate::SchemaGenerator;
use schemars::{JsonSchema, Schema};
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::chain::{Filter, Link, SharedFilter, Stage};
use crate::consumer::{Consumer, Consumers};
use crate::document::{ConfigError, Errors, Node, closest, decode};
use crate::handler::{Handler, SharedHandler};
use crate::state::State;
use crate::stores::Stores;
use crate::telemetry::Metrics;
use crate::types::{CredentialFields, MASK};
use crate::upstream::{Discovery, Factory, HealthCheck};

pub use members::Members;

/// What makes a filter nameable in configuration files. A code-first filter need not have it.
pub trait FilterKind: Filter + Sized {
    /// The config key, the metric label and the docs page.
    const NAME: &'static str;
    /// Where it belongs in the chain.
    const STAGE: Stage;
    /// A configuration of it in YAML, shown in the reference and compiled by a test.
    const EXAMPLE: &'static str;
    /// The words of its configuration; their doc comments become the reference. They are shown as they serialize: a
    /// [`Secret`](crate::types::Secret) masks itself.
    type Config: DeserializeOwned + Serialize + JsonSchema;

    /// Makes a filter of its configuration. Starts nothing.
    ///
    /// # Errors
    ///
    /// What the words alone could not tell; paths count from the filter's own configuration.
    fn compile(config: Self::Config, scope: &Scope<'_>) -> Result<Self, Errors>;

    /// Where this one belongs, if its configuration has a say in it.
    fn stage(&self) -> Stage {
        Self::STAGE
    }

    /// Whether it looks at who the client has proved to be, and so makes no sense before that is known.
    fn needs_identity(&self) -> bool {
        false
    }

    /// The filters that it is made of, if its configuration holds some: they are shown and watched as those of any list are.
    fn members(_config: &mut Self::Config) -> Option<&mut Members> {
        None
    }

    /// Masks what may not be shown of its configuration and is no secret by its type: the values of header fields that
    /// carry credentials.
    fn mask(_config: &mut Self::Config, _fields: &CredentialFields) {}

    /// The query parameters that carry credentials, as it is configured: no log line shows their values.
    fn secret_queries(_config: &Self::Config) -> Vec<String> {
        Vec::new()
    }

    /// The files that it is made of besides the configuration's own: when one changes, the configuration is read again.
    fn files(_config: &Self::Config) -> Vec<PathBuf> {
        Vec::new()
    }
}

/// What a filter may know where it is placed.
pub struct Scope<'a> {
    /// What configuration can name.
    pub registry: &'a Registry,
    /// The path parameters that a template may name.
    pub parameters: Parameters<'a>,
    /// What outlives a snapshot.
    pub state: &'a State,
    /// Where it is told what it counts.
    pub metrics: &'a Metrics,
    /// Where things can be kept.
    pub stores: &'a Stores,
    /// Who clients can prove to be.
    pub consumers: &'a Arc<Consumers>,
    /// Whose filters it is among: `global`, `listener web` or `route orders`. What it counts is counted for these.
    pub owner: &'a str,
    /// The conditions that it acts under: that of the chain it is in, and its own.
    pub when: &'a [&'a str],
    /// Whether files may be read. Else a filter takes what they hold for empty, and says nothing of them.
    pub files: bool,
}

/// The path parameters that there are where a filter is placed.
#[derive(Debug, Clone, Copy)]
pub enum Parameters<'a> {
    /// Those that the route captures.
    Of(&'a [&'a str]),
    /// None: the place serves every route.
    Nowhere,
    /// Any: the filter is in a chain that no route places yet.
    Any,
}

/// The filters, handlers, balancers, health checks and discoveries that configuration can name.
#[derive(Default)]
pub struct Registry {
    filters: BTreeMap<&'static str, Kind>,
    instances: BTreeMap<&'static str, (Stage, SharedFilter)>,
    handlers: BTreeMap<String, SharedHandler>,
    balancers: BTreeMap<String, Factory>,
    checks: BTreeMap<String, Arc<dyn HealthCheck>>,
    discoveries: BTreeMap<String, Arc<dyn Discovery>>,
}

/// A filter that was made of its configuration.
pub struct Built {
    /// The filter.
    pub filter: SharedFilter,
    /// Where it belongs.
    pub stage: Stage,
    /// Whether it looks at who the client has proved to be.
    pub needs_identity: bool,
}

/// One kind of filter, its types forgotten.
pub struct Kind {
    /// Config key, metric label, docs page.
    pub name: &'static str,
    /// Where it belongs in the chain.
    pub stage: Stage,
    /// A configuration of it in YAML.
    pub example: &'static str,
    /// The schema of its configuration.
    pub schema: fn(&mut SchemaGenerator) -> Schema,
    build: fn(&Node, &str, &Scope<'_>, &mut Errors) -> Option<Built>,
    show: fn(&Node, &Registry, &CredentialFields) -> Option<Node>,
    files: fn(&Node, &Registry) -> Vec<PathBuf>,
    secret_queries: fn(&Node, &Registry) -> Vec<String>,
}

impl Kind {
    /// Makes a filter of its configuration, which stands at `path`, and says where it belongs; tells every error.
    pub fn build(&self, config: &Node, path: &str, scope: &Scope<'_>, errors: &mut Errors) -> Option<Built> {
        (self.build)(config, path, scope, errors)
    }

    /// A configuration as it may be shown, with its defaults and without its secrets. Of one that cannot be read,
    /// nothing is shown: where its secrets are is not known.
    pub fn show(&self, config: &Node, registry: &Registry, fields: &CredentialFields) -> Node {
        (self.show)(config, registry, fields).unwrap_or_else(|| Node::of_data(MASK.into()))
    }

    /// The files that a filter of this configuration is made of.
    pub fn files(&self, config: &Node, registry: &Registry) -> Vec<PathBuf> {
        (self.files)(config, registry)
    }

    /// The query parameters that carry credentials for a filter of this configuration.
    pub fn secret_queries(&self, config: &Node, registry: &Registry) -> Vec<String> {
        (self.secret_queries)(config, registry)
    }
}

impl Registry {
    /// Adds a kind of filter. A later one with the same name takes its place.
    #[must_use]
    pub fn filter<F: FilterKind>(mut self) -> Self {
        self.filters.insert(
            F::NAME,
            Kind {
                name: F::NAME,
                stage: F::STAGE,
                example: F::EXAMPLE,
                schema: |generator| generator.subschema_for::<F::Config>(),
                build: build::<F>,
                show: show::<F>,
                files: files::<F>,
                secret_queries: secret_queries::<F>,
            },
        );
        self
    }

    /// Adds one filter made in code, to be named in a list of filters.
    pub fn add_instance(&mut self, name: &'static str, stage: Stage, filter: impl Filter) {
        self.instances.insert(name, (stage, SharedFilter::new(filter)));
    }

    /// Adds a handler, to be named as a route's target.
    pub fn add_handler(&mut self, name: impl Into<String>, handler: impl Handler) {
        self.handlers.insert(name.into(), SharedHandler::new(handler));
    }

    /// Adds a way of choosing an endpoint, to be named as an upstream's `balance`.
    pub fn add_balancer(&mut self, factory: Factory) {
        self.balancers.insert(factory.name().to_owned(), factory);
    }

    /// A way of choosing an endpoint, by its name.
    pub fn balancer(&self, name: &str) -> Option<&Factory> {
        self.balancers.get(name)
    }

    /// Every name that `balance: { custom: NAME }` may have.
    pub fn balancer_names(&self) -> impl Iterator<Item = &str> {
        self.balancers.keys().map(String::as_str)
    }

    /// Adds a health check, to be named by upstreams.
    pub fn add_health_check(&mut self, name: impl Into<String>, check: impl HealthCheck) {
        self.checks.insert(name.into(), Arc::new(check));
    }

    /// Adds what finds endpoints, to be named by upstreams.
    pub fn add_discovery(&mut self, name: impl Into<String>, discovery: impl Discovery + 'static) {
        self.discoveries.insert(name.into(), Arc::new(discovery));
    }

    /// What finds endpoints, by its name.
    pub fn discovery(&self, name: &str) -> Option<&Arc<dyn Discovery>> {
        self.discoveries.get(name)
    }

    /// The names of all that find endpoints.
    pub fn discoveries(&self) -> impl Iterator<Item = &str> {
        self.discoveries.keys().map(String::as_str)
    }

    /// A kind of filter by its name.
    pub fn kind(&self, name: &str) -> Option<&Kind> {
        self.filters.get(name)
    }

    /// Every kind of filter, by name.
    pub fn kinds(&self) -> impl Iterator<Item = &Kind> {
        self.filters.values()
    }

    /// A filter made in code, by its name.
    pub fn instance(&self, name: &str) -> Option<Link> {
        let (name, (stage, filter)) = self.instances.get_key_value(name)?;
        Some(Link::new(name, *stage, filter.clone()))
    }

    /// A handler by its name.
    pub fn handler(&self, name: &str) -> Option<&SharedHandler> {
        self.handlers.get(name)
    }

    /// A health check by its name.
    pub fn health_check(&self, name: &str) -> Option<&Arc<dyn HealthCheck>> {
        self.checks.get(name)
    }

    /// The names of all health checks.
    pub fn health_checks(&self) -> impl Iterator<Item = &str> {
        self.checks.keys().map(String::as_str)
    }

    /// The names of the filters that belong to a stage.
    pub(crate) fn names_of(&self, stage: Stage) -> impl Iterator<Item = &str> {
        let kinds = self.filters.values().filter(move |kind| kind.stage == stage).map(|kind| kind.name);
        let instances = self.instances.iter().filter(move |(_, (of, _))| *of == stage);
        kinds.chain(instances.map(|(name, _)| *name))
    }

    /// Every name that a list of filters may hold.
    pub fn filter_names(&self) -> impl Iterator<Item = &str> {
        self.filters.keys().chain(self.instances.keys()).copied()
    }
}

fn build<F: FilterKind>(config: &Node, path: &str, scope: &Scope<'_>, errors: &mut Errors) -> Option<Built> {
    let config = decode::<F::Config>(config, path, errors)?;
    match F::compile(config, scope) {
        Ok(filter) => {
            let (stage, needs_identity) = (filter.stage(), filter.needs_identity());
            Some(Built { filter: SharedFilter::new(filter), stage, needs_identity })
        }
        Err(found) => {
            errors.extend(found.below(path));
            None
        }
    }
}

fn show<F: FilterKind>(config: &Node, registry: &Registry, fields: &CredentialFields) -> Option<Node> {
    let mut config = decode::<F::Config>(config, "", &mut Errors::default())?;
    F::mask(&mut config, fields);
    if let Some(members) = F::members(&mut config) {
        members.show(registry, fields);
    }
    serde_json::to_value(config).ok().map(Node::of_data)
}

fn secret_queries<F: FilterKind>(config: &Node, registry: &Registry) -> Vec<String> {
    with_members::<F, _>(config, F::secret_queries, |members| members.secret_queries(registry))
}

fn files<F: FilterKind>(config: &Node, registry: &Registry) -> Vec<PathBuf> {
    with_members::<F, _>(config, F::files, |members| members.files(registry))
}

/// What there is of a filter's own and of its members'; nothing of a configuration that cannot be read.
fn with_members<F: FilterKind, T>(
    config: &Node,
    own: impl Fn(&F::Config) -> Vec<T>,
    of_members: impl Fn(&Members) -> Vec<T>,
) -> Vec<T> {
    let Some(mut config) = decode::<F::Config>(config, "", &mut Errors::default()) else { return Vec::new() };
    let mut all = own(&config);
    all.extend(F::members(&mut config).map(|members| of_members(members)).into_iter().flatten());
    all
}

impl Scope<'_> {
    /// Whom it counts for: those whose filters it is among, under its conditions. Filters with the same words that act under
    /// others count apart.
    pub fn counts_for(&self) -> String {
        let conditions = self.when.iter().map(|when| format!(" when ({})", when.trim()));
        std::iter::once(self.owner.to_owned()).chain(conditions).collect()
    }

    /// The consumer that a word at `path` names; an error when there is none.
    pub fn consumer(&self, path: &str, name: &str, errors: &mut Errors) -> Option<Arc<Consumer>> {
        let found = self.consumers.named(name);
        if found.is_none() && !self.consumers.incomplete {
            let known: Vec<&str> = self.consumers.entries().map(|entry| &*entry.consumer.name).collect();
            let error = ConfigError::new(path, format!("there is no consumer `{name}`"));
            errors.push(match closest(name, &known) {
                Some(near) => error.with_hint(format!("did you mean `{near}`?")),
                None => error,
            });
        }
        found.cloned()
    }

    /// What `WWW-Authenticate` says (RFC 9110, section 11.6.1): the scheme, the realm that stands at `path`, and more.
    pub fn challenge(
        &self,
        scheme: &str,
        path: &str,
        realm: &str,
        more: &str,
        errors: &mut Errors,
    ) -> HeaderValue {
        let quoted = realm.replace('\\', "\\\\").replace('"', "\\\"");
        let fits = realm.bytes().all(|byte| byte == b' ' || byte.is_ascii_graphic());
        let value = HeaderValue::try_from(format!("{scheme} realm=\"{quoted}\"{more}"));
        value.ok().filter(|_| fits).unwrap_or_else(|| {
            errors.push(ConfigError::new(path, "a realm is made of visible ASCII characters and spaces"));
            HeaderValue::from_static("Unknown")
        })
    }

    /// A sentence for every name in the template that the route does not capture.
    pub fn unknown_captures(&self, template: &crate::exchange::Template) -> impl Iterator<Item = String> {
        self.unknown_parameters(template.captures())
    }

    /// A sentence for every one of these path parameters that the route does not capture.
    pub fn unknown_parameters<'n>(
        &self,
        names: impl Iterator<Item = &'n str>,
    ) -> impl Iterator<Item = String> {
        let sentence = |name: &str| match self.parameters {
            Parameters::Of(known) if known.contains(&name) => None,
            Parameters::Of(_) => Some(format!("the route's path captures no `{{{name}}}`")),
            Parameters::Nowhere => {
                Some(format!("`{{{name}}}` needs a route that captures it; this place serves every route"))
            }
            Parameters::Any => None,
        };
        names.filter_map(sentence).collect::<Vec<_>>().into_iter()
    }
}
