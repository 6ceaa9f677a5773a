//! What `deploy/` hands to other programs is what they accept. It speaks of metrics that exist, and so does the guide.

#![allow(clippy::unwrap_used, clippy::panic, reason = "failing is what a test is for")]

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use http::Method;
use portcullis::telemetry::metrics::{Buckets, Metrics};
use regex::Regex;
use serde_json::Value;

#[test]
fn systemd_accepts_the_unit() {
    let folder = tempfile::tempdir().unwrap();
    let unit = fs::read_to_string(deploy("portcullis.service")).unwrap();
    let unit = unit.replace("/usr/bin/portcullis", env!("CARGO_BIN_EXE_portcullis"));
    let path = folder.path().join("portcullis.service");
    fs::write(&path, unit).unwrap();
    assert_eq!(said(Command::new("systemd-analyze").arg("verify").arg(&path), "systemd"), "");
}

#[test]
fn prometheus_accepts_the_rules_and_they_fire_when_they_should() {
    let folder = deploy("prometheus");
    said(Command::new("promtool").args(["check", "rules", "rules.yaml"]).current_dir(&folder), "prometheus");
    said(
        Command::new("promtool").args(["test", "rules", "rules_test.yaml"]).current_dir(&folder),
        "prometheus",
    );
}

#[test]
fn prometheus_accepts_every_query_of_the_dashboard() {
    let rules: Vec<Value> = queries()
        .into_iter()
        .map(|query| query.replace("$__rate_interval", "5m").replace("$__range", "1h"))
        .enumerate()
        .map(|(at, query)| serde_json::json!({ "record": format!("panel:{at}"), "expr": query }))
        .collect();
    assert!(rules.len() > 15);
    let file = serde_json::json!({ "groups": [{ "name": "dashboard", "rules": rules }] });
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("rules.yaml"), file.to_string()).unwrap();
    said(Command::new("promtool").args(["check", "rules", "rules.yaml"]).current_dir(&folder), "prometheus");
}

#[test]
fn the_dashboard_and_the_rules_speak_of_metrics_that_exist() {
    let known = families();
    let rules = fs::read_to_string(deploy("prometheus/rules.yaml")).unwrap();
    let named = Regex::new(r"\b(?:portcullis|process)_[a-z_]+\b").unwrap();
    // A rule's own series has colons around the metric that it is made of.
    let recorded = Regex::new(r"[a-z_]+:[a-z_]+:[a-z0-9_]+").unwrap();
    for text in queries().iter().map(String::as_str).chain([rules.as_str()]) {
        let text = recorded.replace_all(text, "");
        for name in named.find_iter(&text).map(|found| found.as_str()) {
            let family = name.strip_suffix("_bucket").unwrap_or(name);
            assert!(known.contains(family), "there is no metric {name}");
        }
    }
}

#[test]
fn the_guide_lists_every_metric() {
    let guide = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/guides/operating.md");
    let guide = fs::read_to_string(guide).unwrap();
    let listed: BTreeSet<_> = guide.lines().filter_map(|line| line.strip_prefix("| `portcullis_")).collect();
    let listed: BTreeSet<_> = listed.iter().filter_map(|row| row.split('`').next()).collect();
    let known = families();
    let known: BTreeSet<_> = known.iter().filter_map(|name| name.strip_prefix("portcullis_")).collect();
    assert_eq!(listed, known);
}

#[test]
fn the_sample_configurations_are_fine() {
    for sample in ["portcullis.yaml", "compose/portcullis.yaml"] {
        let mut check = Command::new(env!("CARGO_BIN_EXE_portcullis"));
        check.arg("check").arg("-c").arg(deploy(sample)).env_clear();
        check.env("PORTCULLIS_ADMIN_TOKEN", "0123456789abcdef");
        assert!(said(&mut check, "").contains("fine"), "{sample}");
    }
}

fn deploy(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("deploy").join(path)
}

/// Everything that a program says; it must succeed. `package` is the Debian package that it is in.
fn said(command: &mut Command, package: &str) -> String {
    let output = command.output().unwrap_or_else(|error| panic!("{command:?} (package {package}): {error}"));
    let said = String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{command:?}: {said}");
    said.trim().to_owned()
}

fn queries() -> Vec<String> {
    let text = fs::read_to_string(deploy("grafana/portcullis.json")).unwrap();
    let board: Value = serde_json::from_str(&text).unwrap();
    let panels = board["panels"].as_array().unwrap().iter();
    let targets = panels.filter_map(|panel| panel["targets"].as_array()).flatten();
    let annotations = board["annotations"]["list"].as_array().unwrap().iter();
    let queries = targets.chain(annotations).map(|target| target["expr"].as_str().unwrap().to_owned());
    queries.collect()
}

/// The names of all metrics, once everything has been counted that can be.
fn families() -> BTreeSet<String> {
    let metrics = Metrics::new("1.2.3", Buckets::default()).unwrap();
    let route = metrics.route("shop");
    let _active = route.start();
    route.record(&Method::GET, 200, Duration::from_millis(3));
    route.reply("ip_denied");
    route.verdict("ip_restriction", "ip_denied");
    route.condition_error("ip_restriction");
    let variant = metrics.variant("shop", "canary");
    variant.record(200);
    variant.deprecated(None);
    route.limited("rate_limit");
    route.mirrored("sent");
    metrics.tls_handshakes().with_label_values(&["web", "1.3", "full"]).inc();
    metrics.acme_orders().with_label_values(&["letsencrypt", "success"]).inc();
    metrics.certificates([("a.test".to_owned(), 1_800_000_000)]);
    let consumer = metrics.consumer("mobile");
    consumer.count();
    let (limits, counts) = (metrics.limits("route shop", "rate_limit"), std::sync::Arc::new(3));
    limits.watch(&counts, |keys: &usize| *keys);
    let upstream = metrics.upstream("shop");
    upstream.retry("success");
    upstream.hedge("won");
    upstream.key_missing();
    upstream.report_size(2);
    let endpoint = upstream.endpoint("10.0.0.1:8080");
    endpoint.record("success", Some(Duration::from_millis(2)));
    endpoint.probed("success");
    endpoint.report(true, Some(0));
    endpoint.report_load(Some(8), Some(0));
    metrics.connections_active("web").unwrap().set(1);
    let text = metrics.render().unwrap();
    text.lines()
        .filter_map(|line| line.strip_prefix("# TYPE ")?.split(' ').next())
        .map(str::to_owned)
        .collect()
}
