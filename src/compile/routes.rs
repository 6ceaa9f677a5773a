//! Routes: what they match, what runs on them, where they lead.

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use http::{HeaderName, Method};

use super::chains::Ground;
use super::listeners::Listeners;
use super::{Compiler, Links, hedge, in_order, limits, resilience, shown, unknown};
use crate::chain::Chain;
use crate::config::{Matcher, Path, Retry, Route as Words, Timeouts};
use crate::document::join;
use crate::exchange::is_reserved;
use crate::registry::Parameters;
use crate::route::{
    HeaderCondition, ListenerSet, MethodSet, PathPattern, PathRegex, PathSpec, QueryCondition, RouteSpec,
    Router, ValueMatch,
};
use crate::snapshot::{Bounds, Deadlines, Route, Target, UpstreamTimeouts, WebSocketLimits};
use crate::types::{ByteSize, HostPattern};
use crate::upstream::Upstream;

const REQUEST: Duration = Duration::from_secs(30);
const STREAM_IDLE: Duration = Duration::from_secs(300);
const WEBSOCKET_IDLE: Duration = Duration::from_secs(600);
const WEBSOCKET_LIFETIME: Duration = Duration::from_secs(24 * 3600);
const CONNECT: Duration = Duration::from_secs(2);
const READ: Duration = Duration::from_secs(30);
const WRITE: Duration = Duration::from_secs(30);
const POOLED: Duration = Duration::from_secs(90);
const BODY_LIMIT: ByteSize = ByteSize::kib(10 << 10);

/// The router, the routes in file order, and what answers when none matches.
type Routed = (Router<Arc<Route>>, Box<[Arc<Route>]>, Arc<Route>);

/// The chains of a route: one for each distinct list of listener filters.
pub(super) type Chains = Arc<[Arc<Chain>]>;

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
        self.check_kept("defaults.retry", &config.defaults.retry, None);
        let most = self.most(&config.defaults.timeouts);
        hedge::check("defaults.retry", &config.defaults.retry, most, &mut self.errors);
        self.check_limits("defaults.limits", &config.defaults.limits);
        for (at, words) in config.routes.iter().enumerate() {
            let path = format!("routes[{at}]");
            self.check_name(format!("{path}.name"), &words.name);
            if !names.insert(words.name.as_str()) {
                self.error(format!("{path}.name"), format!("another route is called `{}`", words.name));
            }
            let upstreams: Vec<&str> = words.upstreams().collect();
            let spec = self.spec(&path, words, &upstreams);
            let captures: Vec<&str> = spec.as_ref().map(|spec| spec.path.captures()).unwrap_or_default();
            let chains = if words.filters.is_empty() {
                Arc::clone(&bare)
            } else {
                let (path, owner) = (format!("{path}.filters"), format!("route {}", words.name));
                let ground = Ground { owner: &owner, parameters: Parameters::Of(&captures) };
                chains(&global, listeners, &self.links(&path, &words.filters, ground))
            };
            let target = self.target(&path, words, &captures, &chains);
            if let (Some(spec), Some(target)) = (spec, target) {
                let route = Arc::new(self.route(words, chains, target));
                routes.push(Arc::clone(&route));
                builder.add(spec, route);
            }
        }
        for (at, words) in config.apis.iter().enumerate() {
            let path = format!("apis[{at}]");
            if !names.insert(words.name.as_str()) {
                self.error(format!("{path}.name"), format!("another route is called `{}`", words.name));
            }
            if let Some((spec, route)) = self.api(&path, words, &global, listeners) {
                routes.push(Arc::clone(&route));
                builder.add(spec, route);
            }
        }
        let unmatched = Words { name: "-".into(), ..Words::default() };
        let unmatched = Arc::new(self.route(&unmatched, bare, Target::Nothing));
        (builder.build(), routes.into(), unmatched)
    }

    pub(super) fn route(&mut self, words: &Words, chains: Chains, target: Target) -> Route {
        let defaults = &self.config.defaults;
        let name = match &target {
            Target::Upstream(upstream) => Some(&**upstream.name()),
            _ => None,
        };
        let hedge = name.and_then(|name| hedge::of_requests(&words.retry, name, self.config));
        let own = &words.timeouts;
        let first = |options: [Option<crate::types::Duration>; 2], otherwise: Duration| {
            options.into_iter().flatten().next().map_or(otherwise, crate::types::Duration::get)
        };
        let of =
            |pick: fn(&Timeouts) -> Option<crate::types::Duration>| [pick(own), pick(&defaults.timeouts)];
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
            upstream: self.upstream_timeouts(own, name),
            retry: resilience::retry(&words.retry, &defaults.retry),
            hedge,
            priority: limits::priority(words.priority),
            announce: own.announce.or(defaults.timeouts.announce).unwrap_or(false),
            request_body: request_body.unwrap_or(BODY_LIMIT).get(),
            head: limits::of_heads(&words.limits, &defaults.limits),
        };
        let metrics = self.inputs.metrics.route(&words.name);
        Route {
            name: Arc::clone(metrics.name()),
            matches: shown::summary(words, &self.credentials).into(),
            chains,
            target,
            variant: None,
            lifecycle: None,
            mirror: self.mirror(words),
            bounds: Arc::clone(self.bounds.entry(bounds).or_insert_with(|| Arc::new(bounds))),
            metrics,
        }
    }

    /// How long to wait for an upstream by these words of a route, its own, and those of `defaults`.
    pub(super) fn upstream_timeouts(&self, own: &Timeouts, name: Option<&str>) -> UpstreamTimeouts {
        let defaults = &self.config.defaults.timeouts;
        let upstream = name.and_then(|name| self.config.upstreams.get(name));
        let upstream = upstream.map(|upstream| &upstream.timeouts);
        let first = |options: [Option<crate::types::Duration>; 3], otherwise: Duration| {
            options.into_iter().flatten().next().map_or(otherwise, crate::types::Duration::get)
        };
        UpstreamTimeouts {
            connect: first([own.connect, upstream.and_then(|u| u.connect), defaults.connect], CONNECT),
            read: first([own.read, upstream.and_then(|u| u.read), defaults.read], READ),
            write: first([own.write, upstream.and_then(|u| u.write), defaults.write], WRITE),
            idle: upstream.map_or(POOLED, |upstream| upstream.idle.get()),
            lifetime: upstream.and_then(|upstream| upstream.lifetime).map(crate::types::Duration::get),
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

    fn check_kept(&mut self, path: &str, words: &Retry, longest: Option<ByteSize>) {
        let memory = self.config.server.retry_memory;
        resilience::check_kept(path, words, longest, memory, &mut self.errors);
    }

    /// What a request and one of its attempts may take until the response head.
    fn most(&self, own: &Timeouts) -> [crate::types::Duration; 2] {
        let defaults = &self.config.defaults.timeouts;
        let request = own.request.or(defaults.request).unwrap_or(REQUEST.into());
        [request, own.per_try.or(defaults.per_try).unwrap_or(request)]
    }

    /// What a route matches that leads to these upstreams; `None` when it cannot be told.
    pub(super) fn spec(&mut self, path: &str, words: &Words, upstreams: &[&str]) -> Option<RouteSpec> {
        self.check_timeouts(&format!("{path}.timeouts"), &words.timeouts);
        resilience::check_retry(&format!("{path}.retry"), &words.retry, &mut self.errors);
        let longest = words.limits.request_body.or(self.config.defaults.limits.request_body);
        self.check_kept(&format!("{path}.retry"), &words.retry, longest.or(Some(BODY_LIMIT)));
        let most = self.most(&words.timeouts);
        hedge::check_route(path, &words.retry, upstreams, self.config, most, &mut self.errors);
        self.check_mirror(path, words, upstreams);
        self.check_limits(&format!("{path}.limits"), &words.limits);
        let hosts = self.hosts(path, words);
        let methods = self.methods(path, words);
        let headers = self.header_conditions(path, &words.headers);
        let query = self.query_conditions(path, &words.query);
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

    pub(super) fn header_conditions(
        &mut self,
        path: &str,
        words: &BTreeMap<String, Matcher>,
    ) -> Vec<HeaderCondition> {
        let condition = |(name, matcher): (&String, &Matcher)| {
            let path = join(&format!("{path}.headers"), name);
            let name = self.parsed(path.clone(), header_name(name))?;
            Some(HeaderCondition { name, value: self.value_match(path, matcher)? })
        };
        words.iter().filter_map(condition).collect()
    }

    pub(super) fn query_conditions(
        &mut self,
        path: &str,
        words: &BTreeMap<String, Matcher>,
    ) -> Vec<QueryCondition> {
        let condition = |(name, matcher): (&String, &Matcher)| {
            let path = join(&format!("{path}.query"), name);
            Some(QueryCondition { name: name.as_str().into(), value: self.value_match(path, matcher)? })
        };
        words.iter().filter_map(condition).collect()
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

    pub(super) fn parsed<T, E: ToString>(&mut self, path: String, parsed: Result<T, E>) -> Option<T> {
        parsed.map_err(|error| self.error(path, error.to_string())).ok()
    }

    pub(super) fn value_match(&mut self, path: String, matcher: &Matcher) -> Option<ValueMatch> {
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

    fn target(&mut self, path: &str, words: &'a Words, captures: &[&str], chains: &Chains) -> Option<Target> {
        let named = [
            words.upstream.is_some(),
            words.split.is_some(),
            words.respond.is_some(),
            words.redirect.is_some(),
            words.handler.is_some(),
        ];
        if named.iter().filter(|named| **named).count() != 1 {
            self.error(path, "a route needs exactly one of `upstream`, `split`, `respond` and `redirect`");
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
        if let Some(split) = &words.split {
            return self.split(&format!("{path}.split"), words, split, captures, chains);
        }
        let name = words.upstream.as_deref()?;
        self.upstream(format!("{path}.upstream"), name).map(Target::Upstream)
    }

    /// The upstream that a word at `path` names.
    pub(super) fn upstream(&mut self, path: String, name: &str) -> Option<Arc<Upstream>> {
        let upstream = self.upstreams.get(name).cloned();
        if upstream.is_none() && !self.config.unread.touches(&join("upstreams", name)) {
            let known = self.config.upstreams.keys().map(String::as_str);
            self.errors.push(unknown(path, "upstream", name, known));
        }
        upstream
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
pub(super) fn sendable(text: &str) -> Result<HeaderName, String> {
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

/// One chain for each distinct list of listener filters: global, the listener's, the route's own.
pub(super) fn chains(global: &Links, listeners: &Listeners, own: &Links) -> Chains {
    listeners.links.iter().map(|listener| Arc::new(in_order(&[global, listener, own]).build())).collect()
}
