//! The router: routes in file order go in, the best route of a request comes out.

use std::cmp::Reverse;
use std::ops::ControlFlow;

use ahash::HashMap;
use http::Method;

use super::captures::{CapturePlan, Captures};
use super::condition::{
    Conditions, HeaderCondition, ListenerSet, Lookup, MethodSet, QueryCondition, Verdict,
};
use super::hosts::Hosts;
use super::pattern::{PathRegex, PathSpec};
use super::tree::{RouteId, TableId, Tree};
use crate::types::HostPattern;

/// Finds the route of a request, whose target is a `T`. Immutable: build another to change it.
pub struct Router<T> {
    routes: Vec<Route<T>>,
    hosts: Hosts,
    tree: Tree,
}

/// What a route matches.
#[derive(Debug, Clone)]
pub struct RouteSpec {
    /// The hosts; empty for any.
    pub hosts: Vec<HostPattern>,
    /// The path.
    pub path: PathSpec,
    /// The methods; empty for any.
    pub methods: MethodSet,
    /// Conditions on header fields: all must hold.
    pub headers: Vec<HeaderCondition>,
    /// Conditions on query parameters: all must hold.
    pub query: Vec<QueryCondition>,
    /// The listeners; empty for any. They narrow a route, but do not make it more specific.
    pub listeners: ListenerSet,
}

/// The outcome of [`Router::find`].
#[derive(Debug)]
pub enum Found<'r, T> {
    /// The best route.
    Route {
        /// What it leads to.
        target: &'r T,
        /// What its pattern captured of the path.
        captures: Captures,
    },
    /// No route matches, but some would with another method (405).
    MethodNotAllowed {
        /// The methods of all those routes, and OPTIONS, which is answered wherever another method is: the `Allow` field.
        allow: MethodSet,
    },
    /// No route matches (404).
    NotFound,
}

impl<T> Router<T> {
    /// An empty builder.
    pub fn builder() -> RouterBuilder<T> {
        RouterBuilder { routes: Vec::new() }
    }

    /// The best route for a request.
    pub fn find(&self, request: &Lookup<'_>) -> Found<'_, T> {
        let mut allow = MethodSet::default();
        for table in self.hosts.tables(request.host) {
            let found = self.tree.visit(table, request.path, |id| {
                let route = &self.routes[id as usize];
                match route.judge(request, &mut allow) {
                    Some(captures) => ControlFlow::Break((&route.target, captures)),
                    None => ControlFlow::Continue(()),
                }
            });
            if let ControlFlow::Break((target, captures)) = found {
                return Found::Route { target, captures };
            }
        }
        if allow.is_empty() {
            return Found::NotFound;
        }
        allow.insert(Method::OPTIONS);
        Found::MethodNotAllowed { allow }
    }
}

/// Takes routes in file order.
#[derive(Debug)]
pub struct RouterBuilder<T> {
    routes: Vec<(RouteSpec, T)>,
}

impl<T> RouterBuilder<T> {
    /// Adds a route after those added before.
    pub fn add(&mut self, spec: RouteSpec, target: T) -> &mut Self {
        self.routes.push((spec, target));
        self
    }

    /// Builds the router.
    pub fn build(self) -> Router<T> {
        let mut hosts = Hosts::default();
        let mut tree = Tree::default();
        let mut tables: HashMap<Vec<RouteId>, TableId> = HashMap::default();
        for (host, routes) in routes_by_host(&self.routes) {
            let table = *tables.entry(routes).or_insert_with(|| tree.add_table());
            hosts.insert(host, table);
        }
        let mut tables: Vec<_> = tables.into_iter().collect();
        tables.sort_unstable_by_key(|(_, table)| *table);
        for (routes, table) in tables {
            for id in routes {
                tree.insert(table, &self.routes[id as usize].0.path, id);
            }
        }
        tree.shrink();
        let routes = self.routes.into_iter();
        let mut routes: Vec<_> = routes.map(|(spec, target)| Route::new(spec, target)).collect();
        // Collecting may reuse the memory of the specs, which are several times as large.
        routes.shrink_to_fit();
        Router { routes, hosts, tree }
    }
}

/// The routes of each host pattern (or of none, which is any host), best last, as [`Tree::insert`] wants them.
fn routes_by_host<T>(routes: &[(RouteSpec, T)]) -> HashMap<Option<&HostPattern>, Vec<RouteId>> {
    let mut worst_first: Vec<RouteId> = (0..routes.len() as RouteId).collect();
    worst_first.sort_unstable_by_key(|&id| Reverse((Reverse(specificity(&routes[id as usize].0)), id)));
    let mut by_host: HashMap<Option<&HostPattern>, Vec<RouteId>> = HashMap::default();
    for id in worst_first {
        let hosts = &routes[id as usize].0.hosts;
        let any = hosts.is_empty().then_some(None);
        for host in hosts.iter().map(Some).chain(any) {
            let list = by_host.entry(host).or_default();
            // A host may be written twice.
            if list.last() != Some(&id) {
                list.push(id);
            }
        }
    }
    by_host
}

/// The number of conditions; for regexes it says nothing, since among them file order decides.
fn specificity(spec: &RouteSpec) -> usize {
    match spec.path {
        PathSpec::Regex(_) => 0,
        PathSpec::Pattern(_) => usize::from(!spec.methods.is_empty()) + spec.headers.len() + spec.query.len(),
    }
}

/// What is left to check, and to take from the path, when the tree has found a route.
struct Route<T> {
    target: T,
    path: PathCheck,
    /// None for most routes, hence the box.
    conditions: Option<Box<Conditions>>,
}

enum PathCheck {
    /// The tree has done it all.
    Done,
    Captures(Box<CapturePlan>),
    Regex(Box<PathRegex>),
}

impl<T> Route<T> {
    fn new(spec: RouteSpec, target: T) -> Self {
        let path = match spec.path {
            PathSpec::Regex(regex) => PathCheck::Regex(Box::new(regex)),
            PathSpec::Pattern(pattern) => {
                CapturePlan::new(&pattern).map_or(PathCheck::Done, |plan| PathCheck::Captures(Box::new(plan)))
            }
        };
        let conditions = Conditions {
            methods: spec.methods,
            listeners: spec.listeners,
            headers: spec.headers.into(),
            query: spec.query.into(),
        };
        Self { target, path, conditions: (!conditions.are_void()).then(|| Box::new(conditions)) }
    }

    /// The captures when the request matches. When only its method does not, the route's methods join `allow`.
    fn judge(&self, request: &Lookup<'_>, allow: &mut MethodSet) -> Option<Captures> {
        let Some(conditions) = &self.conditions else {
            return self.path.captures(request.path);
        };
        match conditions.judge(request) {
            Verdict::Met => self.path.captures(request.path),
            Verdict::OtherMethod => {
                if self.path.matches(request.path) {
                    allow.merge(&conditions.methods);
                }
                None
            }
            Verdict::Unmet => None,
        }
    }
}

impl PathCheck {
    fn matches(&self, path: &str) -> bool {
        match self {
            Self::Done | Self::Captures(_) => true,
            Self::Regex(regex) => regex.is_match(path),
        }
    }

    fn captures(&self, path: &str) -> Option<Captures> {
        match self {
            Self::Done => Some(Captures::default()),
            Self::Captures(plan) => Some(plan.captures(path)),
            Self::Regex(regex) => regex.captures(path),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::route::{PathPattern, ValueMatch};
    use crate::types::{Host, NormalPath};
    use http::{HeaderMap, HeaderName, HeaderValue};
    use proptest::prelude::*;

    /// A route as plain words: `~` in front of the path makes it a regex.
    #[derive(Debug, Clone, Copy, Default)]
    struct Words {
        hosts: &'static [&'static str],
        path: &'static str,
        methods: &'static [&'static str],
        header: Option<(&'static str, &'static str)>,
        query: Option<(&'static str, &'static str)>,
        listeners: &'static [usize],
    }

    impl Words {
        fn path(path: &'static str) -> Self {
            Self { path, ..Self::default() }
        }

        fn spec(&self) -> RouteSpec {
            let path = match self.path.strip_prefix('~') {
                Some(regex) => PathSpec::Regex(PathRegex::parse(regex).unwrap()),
                None => PathSpec::Pattern(PathPattern::parse(self.path).unwrap()),
            };
            let header = self.header.map(|(name, value)| HeaderCondition {
                name: HeaderName::from_static(name),
                value: ValueMatch::Exact(value.into()),
            });
            let query = self.query.map(|(name, value)| QueryCondition {
                name: name.into(),
                value: ValueMatch::Exact(value.into()),
            });
            RouteSpec {
                hosts: self.hosts.iter().map(|host| HostPattern::parse(host).unwrap()).collect(),
                path,
                methods: self.methods.iter().map(|method| method.parse::<Method>().unwrap()).collect(),
                headers: header.into_iter().collect(),
                query: query.into_iter().collect(),
                listeners: self.listeners.iter().copied().collect(),
            }
        }
    }

    #[derive(Debug, Clone)]
    struct Request {
        method: &'static str,
        host: &'static str,
        path: String,
        header: Option<(&'static str, &'static str)>,
        query: Option<&'static str>,
        listener: usize,
    }

    impl Request {
        fn get(host: &'static str, path: &str) -> Self {
            Self { method: "GET", host, path: path.to_owned(), header: None, query: None, listener: 0 }
        }
    }

    #[derive(Debug, PartialEq, Eq)]
    enum Outcome {
        /// The index of the route, and the captures as `name=value`.
        Route(usize, Vec<String>),
        Allow(Vec<String>),
        NotFound,
    }

    fn router(words: &[Words]) -> Router<usize> {
        let mut builder = Router::builder();
        for (index, words) in words.iter().enumerate() {
            builder.add(words.spec(), index);
        }
        builder.build()
    }

    fn find(router: &Router<usize>, request: &Request) -> Outcome {
        let mut headers = HeaderMap::new();
        if let Some((name, value)) = request.header {
            headers.append(name, HeaderValue::from_static(value));
        }
        let host = Host::parse(request.host).unwrap();
        let path = NormalPath::parse(&request.path).unwrap();
        let found = router.find(&Lookup {
            host: host.as_str(),
            path: path.as_str(),
            method: &request.method.parse().unwrap(),
            headers: &headers,
            query: request.query,
            listener: request.listener,
        });
        match found {
            Found::Route { target, captures } => {
                let captures = captures.iter(path.as_str()).map(|(name, value)| format!("{name}={value}"));
                Outcome::Route(*target, captures.collect())
            }
            Found::MethodNotAllowed { allow } => {
                let mut allow: Vec<String> = allow.iter().map(ToString::to_string).collect();
                allow.sort();
                Outcome::Allow(allow)
            }
            Found::NotFound => Outcome::NotFound,
        }
    }

    fn route(index: usize, captures: &[&str]) -> Outcome {
        Outcome::Route(index, captures.iter().map(|capture| (*capture).to_owned()).collect())
    }

    #[test]
    fn each_kind_of_path_matches_what_it_says() {
        for (pattern, path, expected) in [
            ("/orders", "/orders", Some(&[][..])),
            ("/orders", "/orders/", None),
            ("/orders", "/order", None),
            ("/orders", "/Orders", None),
            ("/orders/", "/orders/", Some(&[])),
            ("/orders/", "/orders", None),
            ("/", "/", Some(&[])),
            ("/", "/a", None),
            ("/orders/*", "/orders", Some(&[])),
            ("/orders/*", "/orders/", Some(&[])),
            ("/orders/*", "/orders/1/2", Some(&[])),
            ("/orders/*", "/orders2", None),
            ("/*", "/", Some(&[])),
            ("/*", "/a/b", Some(&[])),
            ("/users/{id}", "/users/7", Some(&["id=7"])),
            ("/users/:id", "/users/a%20b", Some(&["id=a%20b"])),
            ("/users/{id}", "/users/", None),
            ("/users/{id}", "/users", None),
            ("/users/{id}", "/users/7/", None),
            ("/users/{id}/", "/users/7/", Some(&["id=7"])),
            ("/{a}/{b}", "/x/y", Some(&["a=x", "b=y"])),
            ("/files/{rest*}", "/files/a/b", Some(&["rest=a/b"])),
            ("/files/{rest*}", "/files/", Some(&["rest="])),
            ("/files/{rest*}", "/files", Some(&["rest="])),
            ("/files/{rest*}", "/filesystem", None),
            ("/a/{x}/*", "/a/1/b", Some(&["x=1"])),
            ("/a/{x}/*", "/a/1", Some(&["x=1"])),
            ("/a/{x}/*", "/a/", None),
            ("/a/{x}/{rest*}", "/a/1/b/c", Some(&["x=1", "rest=b/c"])),
            ("/%7Euser/%c3%a9", "/~user/%C3%A9", Some(&[])),
            ("~^/v[0-9]+/", "/v1/x", Some(&[])),
            ("~^/v[0-9]+/", "/x/v1/", None),
            ("~v[0-9]+", "/x/v1/", Some(&[])),
            ("~^/v(?<n>\\d+)(/(?<rest>.*))?$", "/v2", Some(&["n=2"])),
            ("~^/v(?<n>\\d+)(/(?<rest>.*))?$", "/v2/a", Some(&["n=2", "rest=a"])),
        ] {
            let expected = expected.map_or(Outcome::NotFound, |captures| route(0, captures));
            let found = find(&router(&[Words::path(pattern)]), &Request::get("a.test", path));
            assert_eq!(found, expected, "{pattern} {path}");
        }
    }

    #[test]
    fn hosts_go_from_exact_over_the_longest_wildcard_to_any() {
        let words = [
            Words { path: "/x", ..Words::default() },
            Words { hosts: &["*.test"], path: "/*", ..Words::default() },
            Words { hosts: &["*.a.test"], path: "/*", ..Words::default() },
            Words { hosts: &["b.a.test", "c.test"], path: "/y", ..Words::default() },
        ];
        let router = router(&words);
        for (host, path, expected) in [
            ("b.a.test", "/y", route(3, &[])),
            ("B.A.test.:8443", "/y", route(3, &[])),
            ("b.a.test", "/x", route(2, &[])),
            ("x.y.a.test", "/x", route(2, &[])),
            ("a.test", "/x", route(1, &[])),
            ("c.test", "/y", route(3, &[])),
            ("c.test", "/x", route(1, &[])),
            ("test", "/x", route(0, &[])),
            ("test", "/y", Outcome::NotFound),
        ] {
            assert_eq!(find(&router, &Request::get(host, path)), expected, "{host} {path}");
        }
    }

    #[test]
    fn paths_go_from_exact_over_parameters_and_prefixes_to_regexes() {
        let words = [
            Words::path("~^/a/b"),
            Words::path("~^/a"),
            Words::path("/*"),
            Words::path("/a/{rest*}"),
            Words::path("/{x}/b/*"),
            Words::path("/a/{y}/*"),
            Words::path("/{x}/{y}"),
            Words::path("/{x}/b"),
            Words::path("/a/{y}"),
            Words::path("/a/b"),
        ];
        let best_first = [9, 8, 7, 6, 5, 4, 3, 2, 0, 1];
        for position in 0..best_first.len() {
            let left: Vec<usize> = best_first[position..].to_vec();
            let mut builder = Router::builder();
            for index in (0..words.len()).filter(|index| left.contains(index)) {
                builder.add(words[index].spec(), index);
            }
            let found = find(&builder.build(), &Request::get("a.test", "/a/b"));
            assert!(
                matches!(found, Outcome::Route(index, _) if index == left[0]),
                "{found:?}, not {}",
                left[0]
            );
        }
    }

    #[test]
    fn more_conditions_win_then_file_order() {
        let words = [
            Words::path("/a"),
            Words { methods: &["GET"], ..Words::path("/a") },
            Words { header: Some(("x-env", "canary")), query: Some(("beta", "1")), ..Words::path("/a") },
            Words { methods: &["GET"], query: Some(("beta", "1")), ..Words::path("/a") },
            Words { listeners: &[0], ..Words::path("/a") },
        ];
        let router = router(&words);
        let plain = Request::get("a.test", "/a");
        let beta = Request { query: Some("beta=1"), ..plain.clone() };
        let both = Request { header: Some(("x-env", "canary")), ..beta.clone() };
        let post = Request { method: "POST", ..plain.clone() };
        assert_eq!(find(&router, &both), route(2, &[]), "file order decides between two conditions each");
        assert_eq!(find(&router, &beta), route(3, &[]));
        assert_eq!(find(&router, &plain), route(1, &[]));
        assert_eq!(find(&router, &post), route(0, &[]), "a listener is no condition that counts");
    }

    #[test]
    fn a_route_whose_conditions_fail_makes_way() {
        let canary = Some(("x-env", "canary"));
        let words = [
            Words { hosts: &["a.test"], header: canary, ..Words::path("/a/b") },
            Words { hosts: &["a.test"], listeners: &[1], ..Words::path("/a/{x}") },
            Words { hosts: &["a.test"], methods: &["PUT"], ..Words::path("/a/*") },
            Words { hosts: &["*.test"], query: Some(("q", "1")), ..Words::path("/a/b") },
            Words { methods: &["GET"], ..Words::path("~b$") },
        ];
        let router = router(&words);
        let plain = Request::get("a.test", "/a/b");
        for (request, expected) in [
            (Request { header: canary, ..plain.clone() }, route(0, &[])),
            (Request { listener: 1, ..plain.clone() }, route(1, &["x=b"])),
            (Request { method: "PUT", ..plain.clone() }, route(2, &[])),
            (Request { query: Some("q=1"), ..plain.clone() }, route(3, &[])),
            (plain.clone(), route(4, &[])),
            (Request { method: "HEAD", ..plain.clone() }, route(4, &[])),
        ] {
            assert_eq!(find(&router, &request), expected, "{request:?}");
        }
    }

    #[test]
    fn other_methods_are_told_only_when_nothing_matches() {
        let words = [
            Words { hosts: &["a.test"], methods: &["GET"], ..Words::path("/a") },
            Words { methods: &["GET", "POST"], ..Words::path("/a") },
            Words { methods: &["PURGE"], ..Words::path("/*") },
            Words { methods: &["PUT"], header: Some(("x-env", "canary")), ..Words::path("/a") },
            Words { methods: &["TRACE"], ..Words::path("~^/b") },
        ];
        let router = router(&words);
        let delete = Request { method: "DELETE", ..Request::get("a.test", "/a") };
        let allow =
            |methods: &[&str]| Outcome::Allow(methods.iter().map(|method| (*method).to_owned()).collect());
        assert_eq!(find(&router, &delete), allow(&["GET", "HEAD", "OPTIONS", "POST", "PURGE"]));
        assert_eq!(find(&router, &Request { method: "POST", ..delete.clone() }), route(1, &[]));
        assert_eq!(find(&router, &Request { method: "PURGE", ..delete.clone() }), route(2, &[]));
        let elsewhere = Request { path: "/z".to_owned(), ..delete };
        assert_eq!(
            find(&router, &elsewhere),
            allow(&["OPTIONS", "PURGE"]),
            "a regex that does not match allows nothing"
        );
    }

    #[test]
    fn hosts_with_the_same_routes_share_a_table() {
        let hosts: &[&str] = &["a.test", "b.test", "*.c.test", "a.test"];
        let words = [
            Words { hosts, ..Words::path("/a/{x}") },
            Words { hosts, ..Words::path("/b/*") },
            Words { hosts: &["d.test"], ..Words::path("/b/*") },
        ];
        let router = router(&words);
        let tables: Vec<_> = ["a.test", "b.test", "x.c.test"].map(|h| router.hosts.tables(h).next()).to_vec();
        assert!(tables[0].is_some() && tables.iter().all(|table| *table == tables[0]));
        assert_ne!(router.hosts.tables("d.test").next(), tables[0]);
    }

    #[test]
    fn an_empty_router_finds_nothing() {
        assert_eq!(find(&router(&[]), &Request::get("a.test", "/")), Outcome::NotFound);
    }

    /// The specification, word by word, over all routes.
    mod reference {
        use super::*;

        pub fn find(routes: &[Words], request: &Request) -> Outcome {
            let mut allow: Vec<String> = Vec::new();
            let mut matching = Vec::new();
            for (index, route) in routes.iter().enumerate() {
                let Some((path, captures)) = path_rank(route.path, &request.path, index) else {
                    continue;
                };
                let Some(host) = host_rank(route.hosts, request.host) else {
                    continue;
                };
                let listener = route.listeners.is_empty() || route.listeners.contains(&request.listener);
                let header = route.header.is_none() || route.header == request.header;
                let query = route.query.is_none_or(|(name, value)| {
                    request
                        .query
                        .is_some_and(|query| query.split('&').any(|pair| pair == format!("{name}={value}")))
                });
                if !(listener && header && query) {
                    continue;
                }
                if !route.methods.is_empty() && !serves(route.methods, request.method) {
                    allow.extend(route.methods.iter().map(|method| (*method).to_owned()));
                    continue;
                }
                let conditions = usize::from(!route.methods.is_empty())
                    + usize::from(route.header.is_some())
                    + usize::from(route.query.is_some());
                matching.push((host, path, Reverse(conditions), index, captures));
            }
            if allow.iter().any(|method| method == "GET") {
                allow.push("HEAD".to_owned());
            }
            if !allow.is_empty() {
                allow.push("OPTIONS".to_owned());
            }
            allow.sort();
            allow.dedup();
            match matching.into_iter().min() {
                Some((_, _, _, index, captures)) => Outcome::Route(index, captures),
                None if allow.is_empty() => Outcome::NotFound,
                None => Outcome::Allow(allow),
            }
        }

        fn serves(methods: &[&str], method: &str) -> bool {
            methods.contains(&method) || (method == "HEAD" && methods.contains(&"GET"))
        }

        fn host_rank(patterns: &[&str], host: &str) -> Option<(u8, Reverse<usize>)> {
            let ranks = patterns.iter().filter_map(|pattern| match pattern.strip_prefix('*') {
                Some(suffix) => host.ends_with(suffix).then_some((1, Reverse(suffix.len()))),
                None => (host == *pattern).then_some((0, Reverse(0))),
            });
            if patterns.is_empty() { Some((2, Reverse(0))) } else { ranks.min() }
        }

        type PathRank = (u8, Reverse<usize>, Vec<bool>);

        /// The class, the length that counts, and which segments are captures; then the captures.
        fn path_rank(pattern: &str, path: &str, index: usize) -> Option<(PathRank, Vec<String>)> {
            if let Some(regex) = pattern.strip_prefix('~') {
                let found = regex::Regex::new(regex).unwrap().is_match(path);
                return found.then_some(((3, Reverse(usize::MAX - index), Vec::new()), Vec::new()));
            }
            let mut wanted: Vec<&str> = pattern[1..].split('/').collect();
            let given: Vec<&str> = path[1..].split('/').collect();
            let tail = wanted.pop_if(|last| last.ends_with('*') || last.ends_with("*}"));
            if given.len() < wanted.len() || (tail.is_none() && given.len() != wanted.len()) {
                return None;
            }
            let mut captures = Vec::new();
            let mut kinds = Vec::new();
            for (wanted, given) in wanted.iter().zip(&given) {
                let name = wanted.strip_prefix('{').and_then(|rest| rest.strip_suffix('}'));
                match name {
                    Some(name) if !given.is_empty() => captures.push(format!("{name}={given}")),
                    None if wanted == given => {}
                    _ => return None,
                }
                kinds.push(name.is_some());
            }
            if let Some(name) =
                tail.and_then(|tail| tail.strip_prefix('{')).and_then(|tail| tail.strip_suffix("*}"))
            {
                captures.push(format!("{name}={}", given[wanted.len()..].join("/")));
            }
            let class = if tail.is_some() { 2 } else { u8::from(kinds.contains(&true)) };
            let counts = if tail.is_some() { wanted.len() } else { 0 };
            Some(((class, Reverse(counts), kinds), captures))
        }
    }

    fn any_words() -> impl Strategy<Value = Words> {
        let hosts: Vec<&'static [&'static str]> = vec![
            &[],
            &[],
            &["a.test"],
            &["b.a.test"],
            &["*.test"],
            &["*.a.test"],
            &["a.test", "*.a.test"],
            &["*.test", "b.a.test"],
        ];
        let paths = vec![
            "/",
            "/a",
            "/a/",
            "/a/b",
            "/b",
            "/{x}",
            "/{x}/",
            "/a/{x}",
            "/{x}/b",
            "/{x}/{y}",
            "/{x}/a/{y}",
            "/*",
            "/a/*",
            "/a/b/*",
            "/{x}/*",
            "/a/{x}/*",
            "/{x}/b/*",
            "/{r*}",
            "/a/{r*}",
            "/{x}/{r*}",
            "/{x}/{y}/{r*}",
            "~^/a",
            "~b/?$",
            "~^/[ab]/",
        ];
        let methods: Vec<&'static [&'static str]> =
            vec![&[], &[], &["GET"], &["HEAD"], &["POST"], &["GET", "PURGE"]];
        let header = prop::option::weighted(0.2, prop::sample::select(vec![("x-h", "1"), ("x-h", "2")]));
        let query = prop::option::weighted(0.2, prop::sample::select(vec![("q", "1"), ("q", "2")]));
        let listeners: Vec<&'static [usize]> = vec![&[], &[], &[], &[0], &[0, 1]];
        (
            prop::sample::select(hosts),
            prop::sample::select(paths),
            prop::sample::select(methods),
            header,
            query,
            prop::sample::select(listeners),
        )
            .prop_map(|(hosts, path, methods, header, query, listeners)| Words {
                hosts,
                path,
                methods,
                header,
                query,
                listeners,
            })
    }

    fn any_request() -> impl Strategy<Value = Request> {
        let hosts = vec!["a.test", "b.a.test", "c.b.a.test", "test", "other"];
        let methods = vec!["GET", "GET", "HEAD", "POST", "PURGE", "DELETE"];
        (
            prop::sample::select(methods),
            prop::sample::select(hosts),
            "(/[abc]){0,4}/?".prop_map(|path| if path.is_empty() { "/".to_owned() } else { path }),
            prop::option::of(prop::sample::select(vec![("x-h", "1"), ("x-h", "2")])),
            prop::option::of(prop::sample::select(vec!["q=1", "q=2", "p=1&q=2", "q=1&q=2"])),
            0..3_usize,
        )
            .prop_map(|(method, host, path, header, query, listener)| Request {
                method,
                host,
                path,
                header,
                query,
                listener,
            })
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(500))]

        #[test]
        fn agrees_with_the_specification(
            words in prop::collection::vec(any_words(), 0..16),
            requests in prop::collection::vec(any_request(), 1..16),
        ) {
            let router = router(&words);
            for request in &requests {
                prop_assert_eq!(find(&router, request), reference::find(&words, request), "{:?}", request);
            }
        }
    }
}
