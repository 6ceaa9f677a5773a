//! The JSON Schema in a real editor's hands: the validator behind YAML support in editors takes every good
//! configuration, and marks every bad one whose mistake is one of form.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;

/// Bad golden files whose mistake no schema can see: it lies in the meaning, in another file or in the environment.
const OF_MEANING: [&str; 49] = [
    "limits_overrides",
    "stages_before_identity",
    "proxy_protocol_from_nobody",
    "access_log_template",
    "access_log_template_field",
    "admin_on_a_listener",
    "admin_open",
    "admin_token_env",
    "admin_token_file",
    "admin_token_short",
    "chain_twice_one_error",
    "cidrs",
    "consumers",
    "filter_api_key",
    "filter_headers",
    "filter_headers_everywhere",
    "filter_rewrite",
    "filter_without_settings",
    "include_broken",
    "include_error_has_its_file",
    "include_missing",
    "include_refused",
    "include_twice",
    "include_wrong_kind",
    "limits",
    "listener_limits",
    "listener_name",
    "listener_twice",
    "metrics_zero_bucket",
    "no_listener",
    "nothing",
    "override_unknown",
    "override_value",
    "port_is_no_port",
    "port_of_two",
    "route_hosts",
    "route_listener",
    "route_methods",
    "route_names",
    "route_paths",
    "stores",
    "stores_memory",
    "tls_files",
    "tls_names",
    "two_documents",
    "upstream_balance_meaning",
    "unknown_upstream",
    "variables",
    "zero_timeouts",
];

#[test]
fn good_configurations_have_no_problem() {
    let good = yaml("tests/golden/good").into_iter().chain(yaml("conf")).chain(yaml("conf/split"));
    let found = problems(&good.collect::<Vec<_>>());
    let faults: Vec<_> = found.iter().filter(|(_, problems)| !problems.is_empty()).collect();
    assert!(found.len() >= 12 && faults.is_empty(), "an editor would mark what is right: {faults:#?}");
}

#[test]
fn bad_configurations_are_marked() {
    let found = problems(&yaml("tests/golden/bad"));
    let mut faults = Vec::new();
    for (file, problems) in &found {
        let name = Path::new(file).file_stem().unwrap().to_str().unwrap();
        match (OF_MEANING.contains(&name), problems.is_empty()) {
            (false, true) => faults.push(format!("{name}: an editor would not see the mistake")),
            (true, false) => faults.push(format!("{name} is seen by an editor after all: {problems:?}")),
            _ => {}
        }
    }
    assert!(found.len() >= 45 && faults.is_empty(), "{faults:#?}");
}

#[test]
fn the_full_sample_has_every_word() {
    let output = Command::new(env!("CARGO_BIN_EXE_portcullis")).arg("schema").output().unwrap();
    let schema: Value = serde_json::from_slice(&output.stdout).unwrap();
    let full = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("conf/full.yaml")).unwrap();
    let mut words = Vec::new();
    collect(&schema, &mut words);
    let missing: Vec<_> = words.into_iter().filter(|word| !full.contains(&format!("{word}:"))).collect();
    assert!(missing.is_empty(), "conf/full.yaml shows every word, but not {missing:?}");
}

/// Every key that a map may have, anywhere.
fn collect<'a>(schema: &'a Value, words: &mut Vec<&'a String>) {
    match schema {
        Value::Object(entries) => {
            words.extend(
                entries.get("properties").and_then(Value::as_object).into_iter().flat_map(|map| map.keys()),
            );
            entries.values().for_each(|value| collect(value, words));
        }
        Value::Array(items) => items.iter().for_each(|item| collect(item, words)),
        _ => {}
    }
}

fn yaml(folder: &str) -> Vec<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join(folder);
    let paths = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    paths.filter(|path| path.extension().is_some_and(|extension| extension == "yaml")).collect()
}

/// What the validator says of each file.
fn problems(files: &[PathBuf]) -> BTreeMap<String, Vec<String>> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/schema");
    let schema = Command::new(env!("CARGO_BIN_EXE_portcullis")).arg("schema").output().unwrap();
    let file = tempfile::NamedTempFile::new().unwrap();
    fs::write(file.path(), schema.stdout).unwrap();
    let mut node = Command::new("node");
    let run = node.arg(folder.join("validate.mjs")).arg(file.path()).args(files).output();
    let output = match run {
        Ok(output) if output.status.success() => output,
        Ok(output) => panic!(
            "the validator failed; `npm install --prefix tests/schema --no-package-lock` installs it:\n{}",
            String::from_utf8_lossy(&output.stderr)
        ),
        Err(error) => panic!("node (Debian packages `nodejs` and `npm`) cannot be run: {error}"),
    };
    let lines = String::from_utf8(output.stdout).unwrap();
    let found = lines.lines().map(|line| {
        let said: Value = serde_json::from_str(line).unwrap();
        (said["file"].as_str().unwrap().to_owned(), serde_json::from_value(said["problems"].clone()).unwrap())
    });
    found.collect()
}
