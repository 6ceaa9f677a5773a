//! Routes: what they match, what runs on them, where they lead.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode};

use super::chains::Ground;
use super::listeners::Listeners;
use super::{Compiler, Links, in_order, limits, resilience, shown, unknown};
use crate::chain::Chain;
use crate::config::{Matcher, Path, Redirect as RedirectWords, Respond, Route as Words, Timeouts};
use crate::document::{ConfigError, join};
use crate::exchange::{Reply, Template, is_reserved};
use crate::registry::{Parameters, Scope};
use crate::route::{
    HeaderCondition, ListenerSet, MethodSet, PathPattern, PathRegex, PathSpec, QueryCondition, RouteSpec,
    Router, ValueMatch,
};
use crate::snapshot::{Bounds, Deadlines, Redirect, Route, Target, UpstreamTimeouts, WebSocketLimits};
use crate::types::{CredentialFields, HostPattern};

const REQUEST: Duration = Duration::from_secs(30);
const STREAM_IDLE: Duration = Duration::from_secs(300);
const WEBSOCKET_IDLE: Duration = Duration::from_secs(600);
const WEBSOCKET_LIFETIME: Duration = Duration::from_secs(24 * 3600);
const CONNECT: Duration = Duration::from_secs(2);
const READ: Duration = Duration::from_secs(30);
const WRITE: Duration = Duration::from_secs(30);
const POOLED: Duration = Duration::from_secs(90);
const BODY_LIMIT: u64 = 10 << 20;

/// The router, the routes in file order, and what answers when none matches.
type Routed = (Router<Arc<Route>>, Box<[Arc<Route>]>, Arc<Route>);

/// The chains of a route: one for each distinct list of listener filters.
type Chains = Arc<[Arc<Chain>]>;

impl<'a> Compiler<'a> {
    pub(super) fn routes(&mut self, listeners: &Listeners) -> Routed {
        let config = self.config;
        let global = self.links(
            "filters",
            &config.filters,
            Ground { owner: "global", parameters: Parameters::Nowhere },
        );
        let bare: Chains = chains(&global, listeners, &Vec::new());
        let mut names = HashSet::new();
        let mut builder = Router::builder();
        let mut routes = Vec::with_capacity(config.routes.len());
        self.check_timeouts("defaults.timeouts", &config.defaults.timeouts);
        resilience::check_retry("defaults.retry", &config.defaults.retry, &mut self.errors);
        for (at, words) in config.routes.iter().enumerate() {
            let path = format!("routes[{at}]");
            self.check_name(format!("{path}.name"), &words.name);
            if !names.insert(words.name.as_str()) {
                self.error(format!("{path}.name"), format!("another route is called `{}`", words.name));
            }
            let spec = self.spec(&path, words);
            let captures: Vec<&str> = spec.as_ref().map(|spec| spec.path.captures()).unwrap_or_default();
            let chains = if words.filters.is_empty() {
                Arc::clone(&bare)
            } else {
                let (path, owner) = (format!("{path}.filters"), format!("route {}", words.name));
                let ground = Ground { owner: &owner, parameters: Parameters::Of(&captures) };
                chains(&global, listeners, &self.links(&path, &words.filters, ground))
            };
            let target = self.target(&path, words, &captures);
            if let (Some(spec), Some(target)) = (spec, target) {
                let route = Arc::new(self.route(words, chains, target));
                routes.push(Arc::clone(&route));
                builder.add(spec, route);
            }
        }
        let unmatched = Words { name: "-".into(), ..Words::default() };
        let unmatched = Arc::new(self.route(&unmatched, bare, Target::Nothing));
        (builder.build(), routes.into(), unmatched)
    }

    fn route(&mut self, words: &Words, chains: Chains, target: Target) -> Route {
        let defaults = &self.config.defaults;
        let upstream = words.upstream.as_ref().and_then(|name| self.config.upstreams.get(name));
        let upstream = upstream.map(|upstream| &upstream.timeouts);
        let own = &words.timeouts;
        let first = |options: [Option<crate::types::Duration>; 3], otherwise: Duration| {
            options.into_iter().flatten().next().map_or(otherwise, crate::types::Duration::get)
        };
        let of = |pick: fn(&Timeouts) -> Option<crate::types::Duration>| {
            [pick(own), None, pick(&defaults.timeouts)]
        };
        let request_body = words.limits.request_body.or(defaults.limits.request_body);
        let bounds = Bounds {
            deadlines: Deadlines {
                request: first(of(|t| t.request), REQUEST),
                per_try: own.per_try.or(defaults.timeouts.per_try).map(crate::types::Duration::get),
                stream_idle: first(of(|t| t.stream_idle), STREAM_IDLE),
                total: own.total.or(defaults.timeouts.total).map(crate::types::Duration::get),
                websocket: WebSocketLimits {
                    idle: first(of(|t| t.websocket.as_ref()?.idle), WEBSOCKET_IDLE),
                    lifetime: first(of(|t| t.websocket.as_ref()?.lifetime), WEBSOCKET_LIFETIME),
                },
            },
            upstream: UpstreamTimeouts {
                connect: first(
                    [own.connect, upstream.and_then(|u| u.connect), defaults.timeouts.connect],
                    CONNECT,
                ),
                read: first([own.read, upstream.and_then(|u| u.read), defaults.timeouts.read], READ),
                write: first([own.write, upstream.and_then(|u| u.write), defaults.timeouts.write], WRITE),
                idle: upstream.map_or(POOLED, |upstream| upstream.idle.get()),
            },
            retry: resilience::retry(&words.retry, &defaults.retry),
            priority: limits::priority(words.priority),
            announce: own.announce.or(defaults.timeouts.announce).unwrap_or(false),
            request_body: request_body.map_or(BODY_LIMIT, crate::types::ByteSize::get),
        };
        let metrics = self.inputs.metrics.route(&words.name);
        Route {
            name: Arc::clone(metrics.name()),
            matches: summary(words, &self.credentials).into(),
            chains,
            target,
            bounds: Arc::clone(self.bounds.entry(bounds).or_insert_with(|| Arc::new(bounds))),
            metrics,
        }
    }

    fn check_timeouts(&mut self, path: &str, timeouts: &Timeouts) {
        for (name, timeout) in [
            ("request", timeouts.request),
            ("per_try", timeouts.per_try),
            ("stream_idle", timeouts.stream_idle),
            ("total", timeouts.total),
            ("websocket.idle", timeouts.websocket.as_ref().and_then(|w| w.idle)),
            ("websocket.lifetime", timeouts.websocket.as_ref().and_then(|w| w.lifetime)),
            ("connect", timeouts.connect),
            ("read", timeouts.read),
            ("write", timeouts.write),
        ] {
            if timeout.is_some_and(|timeout| timeout.get().is_zero()) {
                self.error(format!("{path}.{name}"), "a timeout cannot be zero");
            }
        }
        let request = timeouts.request.or(self.config.defaults.timeouts.request);
        if let Some(per_try) = timeouts.per_try
            && per_try.get() > request.map_or(REQUEST, crate::types::Duration::get)
        {
            let message = "one attempt cannot take longer than all of them may (`request`)";
            self.error(format!("{path}.per_try"), message);
        }
    }

    /// What a route matches; `None` when it cannot be told.
    fn spec(&mut self, path: &str, words: &Words) -> Option<RouteSpec> {
        self.check_timeouts(&format!("{path}.timeouts"), &words.timeouts);
        resilience::check_retry(&format!("{path}.retry"), &words.retry, &mut self.errors);
        let hosts = self.hosts(path, words);
        let methods = self.methods(path, words);
        let headers = self.header_conditions(path, words);
        let query = self.query_conditions(path, words);
        let listeners = self.listener_set(path, words);
        let path = self.path(path, words)?;
        Some(RouteSpec { hosts, path, methods, headers, query, listeners })
    }

    fn hosts(&mut self, path: &str, words: &Words) -> Vec<HostPattern> {
        let hosts = words.hosts.iter().enumerate();
        hosts
            .filter_map(|(at, host)| self.parsed(format!("{path}.hosts[{at}]"), HostPattern::parse(host)))
            .collect()
    }

    fn methods(&mut self, path: &str, words: &Words) -> MethodSet {
        let methods = words.methods.iter().enumerate();
        methods.filter_map(|(at, text)| self.parsed(format!("{path}.methods[{at}]"), method(text))).collect()
    }

    fn header_conditions(&mut self, path: &str, words: &Words) -> Vec<HeaderCondition> {
        let condition = |(name, matcher): (&String, &Matcher)| {
            let path = join(&format!("{path}.headers"), name);
            let name = self.parsed(path.clone(), header_name(name))?;
            Some(HeaderCondition { name, value: self.value_match(path, matcher)? })
        };
        words.headers.iter().filter_map(condition).collect()
    }

    fn query_conditions(&mut self, path: &str, words: &Words) -> Vec<QueryCondition> {
        let condition = |(name, matcher): (&String, &Matcher)| {
            let path = join(&format!("{path}.query"), name);
            Some(QueryCondition { name: name.as_str().into(), value: self.value_match(path, matcher)? })
        };
        words.query.iter().filter_map(condition).collect()
    }

    fn path(&mut self, path: &str, words: &Words) -> Option<PathSpec> {
        match &words.path {
            Path::Pattern(pattern) => {
                self.parsed(format!("{path}.path"), PathPattern::parse(pattern)).map(PathSpec::Pattern)
            }
            Path::Regex(words) => {
                let parsed = PathRegex::parse(&words.regex).map_err(|error| not_a_regex(&error));
                self.parsed(format!("{path}.path.regex"), parsed).map(PathSpec::Regex)
            }
        }
    }

    fn parsed<T, E: ToString>(&mut self, path: String, parsed: Result<T, E>) -> Option<T> {
        parsed.map_err(|error| self.error(path, error.to_string())).ok()
    }

    fn value_match(&mut self, path: String, matcher: &Matcher) -> Option<ValueMatch> {
        match matcher {
            Matcher::Exact(value) => Some(ValueMatch::Exact(value.as_str().into())),
            Matcher::Present(presence) => Some(ValueMatch::Present(presence.present)),
            Matcher::Regex(words) => {
                let parsed = ValueMatch::regex(&words.regex).map_err(|error| not_a_regex(&error));
                self.parsed(format!("{path}.regex"), parsed)
            }
        }
    }

    fn listener_set(&mut self, path: &str, words: &Words) -> ListenerSet {
        let config = self.config;
        let indexes = words.listeners.iter().enumerate().filter_map(|(at, name)| {
            let index = config.listeners.iter().position(|listener| listener.name == *name);
            if index.is_none() && !config.unread.touches("listeners") {
                let known = config.listeners.iter().map(|listener| listener.name.as_str());
                self.errors.push(unknown(format!("{path}.listeners[{at}]"), "listener", name, known));
            }
            index
        });
        indexes.collect()
    }

    fn target(&mut self, path: &str, words: &'a Words, captures: &[&str]) -> Option<Target> {
        let named = [
            words.upstream.is_some(),
            words.respond.is_some(),
            words.redirect.is_some(),
            words.handler.is_some(),
        ];
        if named.iter().filter(|named| **named).count() != 1 {
            self.error(path, "a route needs exactly one of `upstream`, `respond` and `redirect`");
            return None;
        }
        if let Some(respond) = &words.respond {
            return self.respond(&format!("{path}.respond"), respond);
        }
        if let Some(redirect) = &words.redirect {
            return self.redirect(&format!("{path}.redirect"), redirect, captures);
        }
        if let Some(name) = &words.handler {
            let handler = self.inputs.registry.handler(name).cloned();
            return self
                .parsed(path.to_owned(), handler.ok_or(format!("no handler is called `{name}`")))
                .map(Target::Handler);
        }
        let name = words.upstream.as_deref()?;
        match self.upstreams.get(name) {
            Some(upstream) => Some(Target::Upstream(Arc::clone(upstream))),
            None => {
                if !self.config.unread.touches(&join("upstreams", name)) {
                    let known = self.config.upstreams.keys().map(String::as_str);
                    self.errors.push(unknown(format!("{path}.upstream"), "upstream", name, known));
                }
                None
            }
        }
    }

    fn respond(&mut self, path: &str, words: &Respond) -> Option<Target> {
        let status =
            StatusCode::from_u16(words.status).ok().filter(|status| (200..600).contains(&status.as_u16()));
        let status = self.parsed(format!("{path}.status"), status.ok_or("a status is 200 to 599"));
        let mut headers = HeaderMap::new();
        for (name, value) in &words.headers {
            let path = join(&format!("{path}.headers"), name);
            let name = self.parsed(path.clone(), sendable(name));
            let value = self
                .parsed(path, HeaderValue::from_str(value).map_err(|_| "a header cannot carry this value"));
            if let (Some(name), Some(value)) = (name, value) {
                headers.append(name, value);
            }
        }
        Some(Target::Respond(Box::new(Reply::content(status?, words.body.clone()).headers(headers))))
    }

    fn redirect(&mut self, path: &str, words: &RedirectWords, captures: &[&str]) -> Option<Target> {
        let good = matches!(words.status, 301 | 302 | 303 | 307 | 308);
        let status = StatusCode::from_u16(words.status).ok().filter(|_| good);
        let status =
            self.parsed(format!("{path}.status"), status.ok_or("a redirect has 301, 302, 303, 307 or 308"));
        let to = self.parsed(format!("{path}.to"), Template::parse(&words.to))?;
        let fit = |to: &str| to.starts_with('/') || to.starts_with("http://") || to.starts_with("https://");
        if !fit(&words.to) || HeaderValue::from_str(&words.to).is_err() {
            self.error(format!("{path}.to"), "a redirect leads to an absolute URL or a path");
        }
        let scope = Scope {
            parameters: Parameters::Of(captures),
            state: self.inputs.state,
            stores: &self.stores,
            consumers: &self.consumers,
            owner: "",
        };
        let unknown = scope.unknown_captures(&to).map(|error| ConfigError::new(format!("{path}.to"), error));
        self.errors.extend(unknown);
        Some(Target::Redirect(Redirect { to, status: status? }))
    }
}

fn method(text: &str) -> Result<Method, String> {
    let method = Method::from_bytes(text.as_bytes()).map_err(|_| format!("`{text}` is not a method"))?;
    if text.chars().any(char::is_lowercase) {
        return Err(format!("`{text}`: methods are case-sensitive, and those of HTTP are upper case"));
    }
    Ok(method)
}

fn header_name(text: &str) -> Result<HeaderName, String> {
    HeaderName::try_from(text).map_err(|_| format!("`{text}` is not a header name"))
}

/// The name of a header field that a configuration may have the gateway send.
fn sendable(text: &str) -> Result<HeaderName, String> {
    let name = header_name(text)?;
    if is_reserved(&name) {
        return Err(format!("`{name}` is the gateway's own to send"));
    }
    Ok(name)
}

/// Why a regular expression is refused, in one line: the parser draws a picture and ends with the reason. The expression
/// itself is not repeated: it may hold a secret.
pub(super) fn not_a_regex(error: &regex::Error) -> String {
    let reason = match error {
        regex::Error::CompiledTooBig(limit) => format!("compiled, it is larger than {limit} bytes"),
        error => {
            error.to_string().lines().last().unwrap_or_default().trim_start_matches("error: ").to_owned()
        }
    };
    format!("this is not a regular expression to use here: {reason}")
}

/// What a route matches, in short: `GET,POST api.test/orders/* header x-env=canary on web`.
fn summary(words: &Words, credentials: &CredentialFields) -> String {
    let path = match &words.path {
        Path::Pattern(pattern) => pattern.clone(),
        Path::Regex(words) => format!("~{}", words.regex),
    };
    let methods = if words.methods.is_empty() { "*".to_owned() } else { words.methods.join(",") };
    let mut summary = format!("{methods} {}{path}", words.hosts.join(","));
    let headers = words
        .headers
        .iter()
        .map(|(name, wanted)| ("header", name, shown::matcher(name, wanted, credentials)));
    let query = words.query.iter().map(|(name, wanted)| ("query", name, wanted.clone()));
    for (kind, name, matcher) in headers.chain(query) {
        summary.push_str(&match matcher {
            Matcher::Exact(value) => format!(" {kind} {name}={value}"),
            Matcher::Present(presence) if presence.present => format!(" {kind} {name}"),
            Matcher::Present(_) => format!(" no {kind} {name}"),
            Matcher::Regex(words) => format!(" {kind} {name}~{}", words.regex),
        });
    }
    if !words.listeners.is_empty() {
        summary.push_str(" on ");
        summary.push_str(&words.listeners.join(","));
    }
    summary
}

/// One chain for each distinct list of listener filters: global, the listener's, the route's own.
fn chains(global: &Links, listeners: &Listeners, own: &Links) -> Chains {
    listeners.links.iter().map(|listener| Arc::new(in_order(&[global, listener, own]).build())).collect()
}
