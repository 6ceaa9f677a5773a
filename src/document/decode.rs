//! Decoding with all errors at once.
//!
//! serde stops at the first error. So the value at fault is left out and the decoder runs again, until nothing is at
//! fault or nothing is left. What only follows from leaving something out is not reported. The tree stays as it is.

use std::marker::PhantomData;

use serde::de::DeserializeOwned;

use super::de::Decoder;
use super::error::{ConfigError, Errors};
use super::node::Node;
use super::pass::Pass;
use super::path::Trail;

/// How many errors one call reports.
const MAX_ERRORS: usize = 100;

/// Decodes a node that stands at `path`, or adds everything that is wrong with it to `errors`.
pub fn decode<T: DeserializeOwned>(node: &Node, path: &str, errors: &mut Errors) -> Option<T> {
    let mut pass = Pass::default();
    let mut reported = 0;
    loop {
        let decoder = Decoder { node, trail: Trail::Root(path), pass: &pass };
        let (problem, place) = match decoder.run(PhantomData::<T>) {
            // What was decoded without its wrong parts is of no use to anyone.
            Ok(value) => return (reported == 0).then_some(value),
            Err(fault) => fault.into_parts(),
        };
        let place = place?;
        if !place.echo {
            if reported == MAX_ERRORS {
                let more = format!("more than {MAX_ERRORS} errors; the others are not shown");
                errors.push(ConfigError::new(path, more));
                return None;
            }
            reported += 1;
            let (message, hint) = problem.describe();
            errors.push(ConfigError { path: place.path, message, hint, mark: Some(place.mark) });
        }
        let meant = problem.meant_key().map(str::to_owned);
        // A type that objects to what it cannot see would do so for ever.
        if std::ptr::eq(place.culprit, node) || !pass.prune(place.culprit, meant) {
            return None;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use serde::Deserialize;
    use serde::de::IgnoredAny;

    use super::*;
    use crate::document::{Document, Environment, Value};

    #[derive(Debug, Default, Deserialize, PartialEq)]
    #[serde(deny_unknown_fields)]
    struct Config {
        #[serde(default)]
        version: u16,
        #[serde(default)]
        routes: Vec<Route>,
        #[serde(default)]
        upstreams: BTreeMap<Name, Upstream>,
    }

    #[derive(Debug, Deserialize, PartialEq)]
    #[serde(deny_unknown_fields)]
    struct Route {
        path: String,
        #[serde(default)]
        upstream: Option<String>,
        #[serde(default)]
        methods: Vec<String>,
        #[serde(default)]
        headers: BTreeMap<String, String>,
        #[serde(default)]
        timeouts: Timeouts,
        #[serde(default)]
        filters: Vec<Node>,
    }

    #[derive(Debug, Default, Deserialize, PartialEq)]
    #[serde(deny_unknown_fields, default)]
    struct Timeouts {
        request: Option<u32>,
        ratio: Option<f64>,
        enabled: bool,
    }

    #[derive(Debug, Deserialize, PartialEq)]
    #[serde(deny_unknown_fields)]
    struct Upstream {
        endpoints: Vec<Endpoint>,
        #[serde(default)]
        balance: Balance,
        #[serde(default)]
        pair: Option<(u8, String)>,
    }

    #[derive(Debug, Deserialize, PartialEq)]
    #[serde(untagged, expecting = "expected an address, a port, or a map with `address`")]
    enum Endpoint {
        Port(u16),
        Address(String),
        Full { address: String, weight: Option<i64>, ratio: Option<f64>, spare: Option<bool> },
    }

    #[derive(Debug, Default, Deserialize, PartialEq)]
    #[serde(rename_all = "snake_case")]
    enum Balance {
        #[default]
        RoundRobin,
        ConsistentHash(Hash),
        Sticky {
            cookie: String,
        },
        Split(u8, u8),
    }

    #[derive(Debug, Deserialize, PartialEq)]
    #[serde(deny_unknown_fields)]
    struct Hash {
        key: Name,
    }

    #[derive(Clone, Debug, Deserialize, PartialEq, Eq, PartialOrd, Ord)]
    #[serde(try_from = "String")]
    struct Name(String);

    impl TryFrom<String> for Name {
        type Error = String;

        fn try_from(name: String) -> Result<Self, String> {
            match name.contains(' ') {
                true => Err(format!("`{name}` holds a space")),
                false => Ok(Self(name)),
            }
        }
    }

    fn document(text: &str) -> Document {
        Document::parse("c.yaml", text, &Environment::default()).unwrap()
    }

    fn decoded<T: DeserializeOwned>(text: &str) -> Result<T, String> {
        let document = document(text);
        let mut errors = Errors::default();
        match decode(&document.root, "", &mut errors) {
            Some(value) if errors.is_empty() => Ok(value),
            Some(_) => panic!("a value beside errors"),
            None => Err(errors.render(&document.sources)),
        }
    }

    fn complaints(text: &str) -> String {
        decoded::<Config>(text).unwrap_err()
    }

    #[test]
    fn decodes_what_is_right() {
        let config: Config = decoded(
            "version: 1\nroutes:\n  - path: /a\n    headers: { x-env: 1, x-on: true, x-float: 1.50 }\n    \
             timeouts: { request: 0x10, ratio: 1, enabled: true }\n    upstream: ~\nupstreams:\n  \
             a: { endpoints: [80, '80', h:80, { address: h, weight: -1, ratio: 0.5, spare: true }], balance: round_robin, pair: [1, 2] }\n  \
             b: { endpoints: [], balance: { consistent_hash: { key: ip } } }\n  \
             c: { endpoints: [], balance: { sticky: { cookie: c } } }\n  d: { endpoints: [], balance: { split: [1, 2] } }\n",
        )
        .unwrap();
        let route = &config.routes[0];
        let headers: Vec<_> = route.headers.iter().map(|(k, v)| (k.as_str(), v.as_str())).collect();
        assert_eq!(headers, [("x-env", "1"), ("x-float", "1.50"), ("x-on", "true")]);
        assert_eq!(route.timeouts, Timeouts { request: Some(16), ratio: Some(1.0), enabled: true });
        let upstream = |name: &str| &config.upstreams[&Name(name.into())];
        assert_eq!(
            upstream("a").endpoints,
            [
                Endpoint::Port(80),
                Endpoint::Address("80".into()),
                Endpoint::Address("h:80".into()),
                Endpoint::Full { address: "h".into(), weight: Some(-1), ratio: Some(0.5), spare: Some(true) },
            ]
        );
        assert_eq!(upstream("a").pair, Some((1, "2".into())));
        assert_eq!(upstream("b").balance, Balance::ConsistentHash(Hash { key: Name("ip".into()) }));
        assert_eq!(upstream("c").balance, Balance::Sticky { cookie: "c".into() });
        assert_eq!(upstream("d").balance, Balance::Split(1, 2));
    }

    #[test]
    fn reports_every_error_at_its_place() {
        let found = complaints(
            "version: x\nroutes:\n  - path: /a\n    timeouts: { request: -1, ratio: high, enabled: 1 }\n  - pth: /b\n  \
             - upstream: o\n  - path: [/c]\n    methods: GET\n    headers: { x: ~ }\nupstreams:\n  \
             a b: { endpoints: [] }\n  c: { endpoints: [[]], balance: round_robbin, pair: [300, x] }\n  \
             d: { endpoints: [], balance: { consistent_hash: { key: a b } } }\nrouts: []\n",
        );
        let expected = "\
c.yaml:1:10: version: expected a whole number from 0 to 65535, found a string
c.yaml:4:26: routes[0].timeouts.request: expected a whole number from 0 to 4294967295, found `-1`
c.yaml:4:37: routes[0].timeouts.ratio: expected a number, found a string
c.yaml:4:52: routes[0].timeouts.enabled: expected true or false, found `1`
c.yaml:5:5: routes[1].pth: unknown key `pth`
  hint: did you mean `path`?
c.yaml:6:5: routes[2]: missing key `path`
c.yaml:7:11: routes[3].path: expected a string, found a list
c.yaml:8:14: routes[3].methods: expected a list, found a string
c.yaml:9:19: routes[3].headers.x: expected a string, found nothing
c.yaml:11:3: upstreams[\"a b\"]: `a b` holds a space
c.yaml:12:20: upstreams.c.endpoints[0]: expected an address, a port, or a map with `address`
c.yaml:12:34: upstreams.c.balance: unknown value `round_robbin`
  hint: did you mean `round_robin`?
c.yaml:12:55: upstreams.c.pair[0]: expected a whole number from 0 to 255, found `300`
c.yaml:13:58: upstreams.d.balance.consistent_hash.key: `a b` holds a space
c.yaml:14:1: routs: unknown key `routs`
  hint: did you mean `routes`?
";
        assert_eq!(found, expected);
    }

    #[test]
    fn speaks_of_enums_in_users_words() {
        for (balance, expected) in [
            ("consistent_hash", "`consistent_hash` needs settings: `consistent_hash: ...`"),
            ("{ round_robin: 1 }", ".round_robin: `round_robin` takes no settings"),
            ("{ rr: {} }", ".rr: unknown value `rr`"),
            ("{ sticky: {}, split: [] }", ": expected a map with one key, found 2"),
            ("[]", ": expected a word or a map with one key, found a list"),
            ("~", ": expected a word or a map with one key, found nothing"),
            ("{ sticky: {} }", ".sticky: missing key `cookie`"),
            ("{ sticky: [c] }", ".sticky: expected a map, found a list"),
            ("{ split: [1] }", ".split: expected a list of 2 items, found 1"),
            ("{ split: 1 }", ".split: expected a list, found `1`"),
            ("{ split: [1, x] }", ".split[1]: expected a whole number from 0 to 255, found a string"),
            ("{ consistent_hash: { kee: ip } }", ".consistent_hash.kee: unknown key `kee`"),
        ] {
            let found = complaints(&format!("upstreams: {{ a: {{ endpoints: [], balance: {balance} }} }}"));
            assert!(found.contains(expected), "{balance}: {found}");
            assert_eq!(found.lines().filter(|line| line.starts_with("c.yaml")).count(), 1, "{found}");
        }
    }

    #[test]
    fn a_struct_is_not_a_list_and_a_tuple_has_its_length() {
        let found = complaints("routes: [[/a]]\nupstreams: { a: { endpoints: [], pair: [1, a, b] } }");
        assert!(found.contains("routes[0]: expected a map, found a list"), "{found}");
        assert!(found.contains("pair: expected a list of 2 items, found 3"), "{found}");
        assert!(complaints("routes: { a: 1 }").contains("routes: expected a list, found a map"));
    }

    #[test]
    fn does_not_report_what_only_follows() {
        #[derive(Debug, Deserialize)]
        #[serde(try_from = "Raw")]
        #[allow(dead_code)]
        struct Checked(Raw);
        #[derive(Debug, Deserialize)]
        struct Raw {
            a: Option<u8>,
            b: Option<u8>,
        }
        impl TryFrom<Raw> for Checked {
            type Error = &'static str;
            fn try_from(raw: Raw) -> Result<Self, Self::Error> {
                if raw.a.is_some() || raw.b.is_some() {
                    Ok(Self(raw))
                } else {
                    Err("one of `a` and `b` is needed")
                }
            }
        }
        let found = decoded::<BTreeMap<String, Checked>>("x: { a: no }\ny: {}\n").unwrap_err();
        assert!(found.contains("x.a: expected a whole number"), "{found}");
        assert!(found.contains("y: one of `a` and `b` is needed"), "{found}");
        assert!(!found.contains("x: one of"), "{found}");
        assert_eq!(complaints("routes: [{ path: [] }]").lines().count(), 1);
    }

    #[test]
    fn captures_nodes_with_their_places() {
        let text = "routes:\n- path: /a\n  filters:\n  - cors\n  - rate: { rate: 100/s, n: 1, q: '1', \"k 2\": [~, x] }\n";
        let document = document(text);
        let config: Config = decode(&document.root, "", &mut Errors::default()).unwrap();
        assert_eq!(config.routes[0].filters, document.root.nearest("routes[0].filters").items());
        let node: Node = decode(&document.root, "", &mut Errors::default()).unwrap();
        assert_eq!(node, document.root);
        assert!(serde_json::from_str::<Node>("{}").is_err());
    }

    #[test]
    fn a_captured_node_is_decoded_later_where_it_stood() {
        let document = document("a: { limit: 5, burts: 1 }");
        let raw: BTreeMap<String, Node> = decode(&document.root, "", &mut Errors::default()).unwrap();
        #[derive(Debug, Deserialize)]
        #[serde(deny_unknown_fields)]
        #[allow(dead_code)]
        struct Limit {
            limit: u8,
            burst: Option<u8>,
        }
        let mut errors = Errors::default();
        assert!(decode::<Limit>(&raw["a"], "routes[0].filters[2].a", &mut errors).is_none());
        let expected =
            "c.yaml:1:16: routes[0].filters[2].a.burts: unknown key `burts`\n  hint: did you mean `burst`?\n";
        assert_eq!(errors.render(&document.sources), expected);
    }

    #[test]
    fn large_lists_and_maps_are_searched_to_their_end() {
        let items: String =
            (0..500).map(|i| format!("- {}\n", if i % 100 == 7 { "x" } else { "1" })).collect();
        let entries: String =
            (0..500).map(|i| format!(" k{i}: {}\n", if i % 250 == 9 { "x" } else { "1" })).collect();
        #[derive(Debug, Deserialize)]
        #[allow(dead_code)]
        struct Both {
            list: Vec<u8>,
            map: BTreeMap<String, u8>,
        }
        let found = decoded::<Both>(&format!("list:\n{items}map:\n{entries}")).unwrap_err();
        for path in ["list[7]", "list[107]", "list[207]", "list[307]", "list[407]", "map.k9", "map.k259"] {
            assert!(found.contains(&format!(" {path}: ")), "{path}: {found}");
        }
        assert_eq!(found.lines().count(), 7);
    }

    #[test]
    fn an_alias_is_decoded_in_full_each_time() {
        let items = "1, ".repeat(100);
        let lists: BTreeMap<String, Vec<u8>> = decoded(&format!("a: &a [{items}]\nb: *a\n")).unwrap();
        assert_eq!((lists["a"].len(), lists["b"].len()), (100, 100));
    }

    #[test]
    fn stops_after_a_hundred_errors() {
        let found = decoded::<BTreeMap<String, Vec<u8>>>(&format!("a: [{}]", "x, ".repeat(500))).unwrap_err();
        assert_eq!(found.lines().count(), 101);
        assert!(found.ends_with("more than 100 errors; the others are not shown\n"));
    }

    #[test]
    fn other_shapes_of_serde() {
        #[derive(Debug, Deserialize, PartialEq)]
        struct Wrapper(u8);
        #[derive(Debug, Deserialize, PartialEq, Eq, PartialOrd, Ord)]
        #[serde(rename_all = "lowercase")]
        enum Word {
            On,
            Off,
        }
        #[derive(Debug, Deserialize)]
        struct Shapes {
            wrapper: Wrapper,
            by_number: BTreeMap<u16, char>,
            by_word: BTreeMap<Word, bool>,
            ignored: IgnoredAny,
            array: [i8; 2],
            boxed: Box<str>,
        }
        let shapes: Shapes = decoded(
            "wrapper: 1\nby_number: { 200: a }\nby_word: { on: true, off: False }\nignored: [{}]\narray: [1, -1]\n\
             boxed: 1.0\nextra: 1\n",
        )
        .unwrap();
        assert_eq!(shapes.wrapper, Wrapper(1));
        assert_eq!(shapes.by_number[&200], 'a');
        assert_eq!((shapes.by_word[&Word::On], shapes.by_word[&Word::Off]), (true, false));
        assert_eq!((shapes.array, &*shapes.boxed), ([1, -1], "1.0"));
        let _ = shapes.ignored;
        let found =
            decoded::<BTreeMap<String, u64>>("a: 99999999999999999999\nb: '1'\nc: 1.5\n").unwrap_err();
        assert!(
            found.contains("a: expected a whole number from 0, found `100000000000000000000`"),
            "{found}"
        );
        assert!(found.contains("b: expected a whole number from 0, found a string"), "{found}");
        assert!(found.contains("c: expected a whole number from 0, found `1.5`"), "{found}");
        let found = decoded::<BTreeMap<Word, bool>>("{ onn: true }").unwrap_err();
        assert_eq!(found, "c.yaml:1:3: onn: unknown value `onn`\n  hint: did you mean `on`?\n");
    }

    #[test]
    fn the_tree_stays_as_it_is() {
        let document = document("version: x\nroutes: [{}]\n");
        let before = document.root.clone();
        assert!(decode::<Config>(&document.root, "", &mut Errors::default()).is_none());
        assert_eq!(document.root, before);
        let (Value::Map(now), Value::Map(then)) = (&document.root.value, &before.value) else { panic!() };
        assert!(std::sync::Arc::ptr_eq(now, then));
    }

    #[test]
    fn a_type_that_objects_to_an_absent_key_ends() {
        #[derive(Debug)]
        struct Stubborn;
        impl<'de> Deserialize<'de> for Stubborn {
            fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                IgnoredAny::deserialize(deserializer)?;
                Err(serde::de::Error::unknown_field("x", &[]))
            }
        }
        let found = decoded::<BTreeMap<String, Stubborn>>("a: { x: 1 }").unwrap_err();
        assert!(found.starts_with("c.yaml:1:6: a.x: unknown key `x`"), "{found}");
    }

    proptest::proptest! {
        #[test]
        fn gives_a_value_or_errors(text in "((version|routes|upstreams|path|a): ?|[-\\[\\]{},&*~ x1'\n]){0,30}") {
            if let Ok(document) = Document::parse("c.yaml", &text, &Environment::default()) {
                let mut errors = Errors::default();
                let config = decode::<Config>(&document.root, "", &mut errors);
                proptest::prop_assert_eq!(config.is_some(), errors.is_empty());
            }
        }
    }
}
