//! What we render is what Prometheus reads: asks its own checker (`promtool`, Debian package `prometheus`).

use std::io::Write;
use std::process::{Command, Stdio};
use std::time::Duration;

use http::Method;
use portcullis::telemetry::metrics::{Buckets, Metrics};

#[test]
fn promtool_finds_no_fault() {
    let metrics = Metrics::new("1.2.3", Buckets::default()).unwrap();
    let route = metrics.route("a \"quoted\" \\ name");
    let _active = route.start();
    route.record(&Method::GET, 200, Duration::from_millis(3));
    route.reply("rate_limited");
    route.verdict("rate_limit", "denied");
    metrics.tls_handshakes().with_label_values(&["web", "1.3", "full"]).inc();
    metrics.certificates([("a.test".to_owned(), 1_800_000_000)]);
    let endpoint = metrics.upstream("orders").endpoint("10.0.0.1:8080");
    endpoint.record("success", Some(Duration::from_millis(2)));
    endpoint.probed("success");
    metrics.connections_active("web").unwrap().set(1);
    metrics.config_published(1);

    let mut promtool = Command::new("promtool")
        .args(["check", "metrics"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("promtool must be installed (Debian package `prometheus`)");
    promtool.stdin.take().unwrap().write_all(metrics.render().unwrap().as_bytes()).unwrap();
    let output = promtool.wait_with_output().unwrap();
    let said = String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && said.trim().is_empty(), "{said}");
}
