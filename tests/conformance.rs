//! What every filter of the house owes, looped over the registry: a new filter is held to it without a new test.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod client;

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::time::{Instant, SystemTime};

use client::ask;
use portcullis::chain::SharedFilter;
use portcullis::document::{Document, Environment, Errors};
use portcullis::exchange::{Answer, Client, Facts, Rewrite};
use portcullis::filters::builtin;
use portcullis::route::Captures;
use portcullis::telemetry::{Buckets, Metrics};
use portcullis::types::{Peer, Trust};
use portcullis::{Exchange, Gateway, Parameters, Registry, RequestHeader, Scope, Stage, State, Stores};
use serde_json::Value;

/// Builds a filter of the house from its configuration in YAML.
fn build(registry: &Registry, name: &str, yaml: &str) -> Result<SharedFilter, String> {
    let document = Document::parse("filter.yaml", &format!("{name}: {yaml}"), &Environment::default());
    let document = document.map_err(|failure| failure.to_string())?;
    let (state, mut errors) = (State::default(), Errors::default());
    // Whatever store an example names.
    let mut stores = Stores::default();
    stores.incomplete = true;
    let consumers = Arc::default();
    let metrics = Metrics::new("test", Buckets::default()).unwrap();
    let parameters = Parameters::Any;
    let scope = Scope {
        registry,
        parameters,
        state: &state,
        metrics: &metrics,
        stores: &stores,
        consumers: &consumers,
        owner: "nobody",
        when: &[],
        files: true,
    };
    let kind = registry.kind(name).unwrap();
    let built = kind.build(document.root.get(name).unwrap(), name, &scope, &mut errors);
    built.map(|built| built.filter).ok_or_else(|| errors.placed(&document).render(&document.sources))
}

#[test]
fn every_example_compiles() {
    let registry = builtin();
    for kind in registry.kinds() {
        let built = build(&registry, kind.name, kind.example);
        assert!(built.is_ok(), "the EXAMPLE of {}:\n{}", kind.name, built.err().unwrap());
    }
}

#[test]
fn unknown_keys_are_refused() {
    let registry = builtin();
    for kind in registry.kinds() {
        let refused = build(&registry, kind.name, "{ no_such_key: 1 }").err();
        let refused = refused.unwrap_or_else(|| panic!("{} takes a key that means nothing", kind.name));
        assert!(refused.contains("unknown key `no_such_key`"), "{}: {refused}", kind.name);
    }
}

#[tokio::test]
async fn every_hook_is_named_in_phases() {
    let registry = builtin();
    for kind in registry.kinds() {
        let filter = build(&registry, kind.name, kind.example).unwrap();
        let request = RequestHeader::build("GET", b"/", None).unwrap();
        let mut facts = facts();
        let unnamed = filter.unnamed_hooks(&mut Exchange::new(&request, "route", &mut facts)).await;
        assert!(
            unnamed.is_empty(),
            "{} implements {unnamed:?}, but its `phases` does not name them: they would never run. (If its EXAMPLE \
             leaves them idle, let the EXAMPLE use all that the filter can do.)",
            kind.name
        );
        assert!(filter.phases().names().next().is_some(), "{} joins no phase at all", kind.name);
    }
}

fn facts() -> Facts {
    let peer = Peer::Ip("192.0.2.7:1234".parse().unwrap());
    let local = "192.0.2.1:80".parse().unwrap();
    Facts {
        client: Client::identify(peer, Some(local), false, &http::HeaderMap::new(), &Trust::default()),
        tls: None,
        identity: Default::default(),
        host: "a.test".into(),
        captures: Captures::default(),
        request_id: None,
        rewrite: Rewrite::default(),
        body_limit: 10 << 20,
        may_have_body: true,
        form: None,
        started: Instant::now(),
        arrived: SystemTime::now(),
        answer: Answer::default(),
        remarks: Vec::new(),
    }
}

#[test]
fn what_finds_out_who_clients_are_is_a_member_of_any_of() {
    let registry = builtin();
    let of_its_stage = registry.kinds().filter(|kind| kind.stage == Stage::Authenticate);
    let others: Vec<_> = of_its_stage.filter(|kind| kind.name != "any_of").collect();
    for kind in &others {
        let (name, example) = (kind.name, kind.example);
        let any_of =
            build(&registry, "any_of", &format!("[{{ {name}: {example} }}, {{ {name}: {example} }}]"));
        assert!(any_of.is_ok(), "{name} needs `Filter::authenticator`: {:?}", any_of.err());
    }
    let schema = schema();
    let forms = schema["$defs"]["Member"]["anyOf"].as_array().unwrap();
    let members = forms.iter().filter_map(|form| form["required"][0].as_str());
    let names: Vec<_> = others.iter().map(|kind| kind.name).collect();
    assert_eq!(members.collect::<Vec<_>>(), names, "an editor completes each");
    assert_eq!(
        schema["$defs"]["Member"]["anyOf"][0]["properties"]["api_key"]["anyOf"][0]["$ref"],
        "#/$defs/api_key"
    );
    assert!(schema["$defs"]["api_key"]["properties"]["from"].is_object());
}

/// The schema of the whole configuration, as `portcullis schema` prints it.
fn schema() -> Value {
    let output = std::process::Command::new(env!("CARGO_BIN_EXE_portcullis")).arg("schema").output().unwrap();
    serde_json::from_slice(&output.stdout).unwrap()
}

#[test]
fn every_option_is_described_and_shows_its_default() {
    let schema = schema();
    let mut faults = Vec::new();
    let definitions = schema["$defs"].as_object().unwrap().iter();
    for (name, definition) in definitions.chain([(&"the top".to_owned(), &schema)]) {
        let Some(properties) = definition["properties"].as_object() else { continue };
        let required = definition["required"].as_array().cloned().unwrap_or_default();
        for (option, property) in properties {
            if property["description"].as_str().is_none_or(str::is_empty) && name != "Filter" {
                faults.push(format!("{name}.{option} has no doc comment"));
            }
            let optional = property["type"].as_array().is_some_and(|kinds| kinds.contains(&"null".into()))
                || property["anyOf"]
                    .as_array()
                    .is_some_and(|forms| forms.iter().any(|form| form["type"] == "null"));
            let told =
                property.get("default").is_some() || optional || required.contains(&option.as_str().into());
            if !told && option != "include" && !EMPTY.contains(&option.as_str()) {
                faults.push(format!(
                    "{name}.{option} has a default that the schema does not show: derive Serialize"
                ));
            }
        }
    }
    assert!(faults.is_empty(), "the reference is made of these:\n{}", faults.join("\n"));
}

/// Lists and maps that are left out when they are empty, and so have no default to show.
const EMPTY: [&str; 12] = [
    "hosts",
    "methods",
    "headers",
    "cookies",
    "rules",
    "query",
    "listeners",
    "filters",
    "timeouts",
    "limits",
    "buckets",
    "retry",
];

#[test]
fn pages_are_fresh() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/filters");
    let registry = builtin();
    let mut pages: BTreeSet<String> = BTreeSet::new();
    for kind in registry.kinds() {
        let name = format!("{}.md", kind.name);
        let page = fs::read_to_string(folder.join(&name)).unwrap_or_default();
        assert!(page == portcullis::cli::page(kind), "docs/filters/{name} is stale: run `portcullis docs`");
        pages.insert(name);
    }
    let found = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
    let strays: Vec<_> = found.filter(|name| name != "README.md" && !pages.contains(name)).collect();
    assert!(strays.is_empty(), "pages of no filter: {strays:?}");
}

#[test]
fn a_filter_has_its_name_in_four_places() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/filters");
    let files: BTreeSet<String> = fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().path().file_stem().unwrap().to_str().unwrap().to_owned())
        .filter(|name| name != "mod")
        .collect();
    let registry = builtin();
    let names: BTreeSet<String> = registry.kinds().map(|kind| kind.name.to_owned()).collect();
    assert_eq!(files, names, "a filter's file is named as its config key, and every file is registered");
}

#[test]
fn secrets_are_masked() {
    let token = "correct-horse-battery-staple";
    let running = Gateway::from_yaml(&format!(
        "listeners: [{{ name: web, address: 127.0.0.1:0 }}]\nadmin: {{ address: 127.0.0.1:0, token: {token} }}\n\
         telemetry: {{ access_log: {{ output: \"off\" }} }}\nroutes: [{{ name: a, path: /, respond: {{}} }}]\n"
    ));
    let running = running.start().unwrap();
    let authorization = format!("Authorization: Bearer {token}");
    let config = ask(running.admin().unwrap(), "GET", "/config", &["Host: localhost", &authorization]);
    assert_eq!(config.status, 200);
    assert!(!config.body.contains(token) && config.body.contains("\"token\":\"***\""), "{}", config.body);
}
