//! The results as JSON, for programs; units are in the names.

use serde_json::{Value, json};

use super::gates::Gate;
use super::results::{Results, Row};
use super::stats::Estimate;

pub fn json(results: &Results, gates: &[Gate]) -> Value {
    json!({
        "machine": {
            "cores": results.machine.cores,
            "memory_gib": results.machine.memory_gib,
            "kernel": results.machine.kernel,
        },
        "rounds": results.rounds,
        "round_seconds": results.round.as_secs(),
        "connections": results.connections,
        "programs": results.programs,
        "skipped": results.skipped,
        "direct": list(&results.direct, |direct| json!({
            "workload": direct.workload,
            "requests_per_second": estimate(&direct.requests_per_second),
            "cpu_us_per_request": estimate(&direct.cpu_per_request),
        })),
        "comparisons": list(&results.comparisons, |comparison| json!({
            "workload": comparison.workload,
            "about": comparison.about,
            "unit": comparison.unit.name(),
            "bytes_before_compression": comparison.compressed,
            "bases": comparison.bases,
            "proxies": list(&comparison.rows, row),
        })),
        "idle": list(&results.idle, |idle| json!({
            "workload": idle.workload,
            "proxies": list(&idle.proxies, |proxy| json!({
                "proxy": proxy.name,
                "connections": proxy.connections,
                "bytes_per_connection": proxy.bytes_per_connection,
                "closed": proxy.closed,
            })),
        })),
        "reloads": list(&results.reloads, |reloads| json!({
            "workload": reloads.workload,
            "routes": reloads.routes,
            "every_seconds": reloads.every.as_secs(),
            "requests_per_second": reloads.requests_per_second,
            "p99_ms_without": estimate(&reloads.p99_still),
            "p99_ms_with": estimate(&reloads.p99_reloading),
            "p99_ratio": estimate(&reloads.p99_ratio),
            "reloads": reloads.reloads,
            "failed_reloads": reloads.failed_reloads,
            "failed_requests": reloads.failed_requests,
            "first_failure": reloads.first_failure,
            "foreign_share": reloads.foreign,
        })),
        "starts": list(&results.starts, |start| json!({
            "proxy": start.name,
            "routes": start.routes,
            "ms": estimate(&start.milliseconds),
        })),
        "memory": list(&results.memory, |memory| json!({
            "proxy": memory.name,
            "routes": memory.routes,
            "resident_bytes": memory.resident,
        })),
        "bounds": list(gates, |gate| json!({
            "workload": gate.workload,
            "what": gate.what,
            "at_most": gate.at_most,
            "measured": gate.measured,
            "holds": gate.holds(),
        })),
    })
}

fn row(row: &Row) -> Value {
    json!({
        "proxy": row.name,
        "per_second": estimate(&row.per_second),
        "cpu_us": estimate(&row.cpu),
        "cpu_ratios": list(&row.cpu_ratios, estimate),
        "body_bytes": row.body,
        "p50_ms": row.latency.p50.as_secs_f64() * 1e3,
        "p99_ms": row.latency.p99.as_secs_f64() * 1e3,
        "p999_ms": row.latency.p999.as_secs_f64() * 1e3,
        "peak_resident_bytes": row.peak_resident,
        "completed": row.completed,
        "failed": row.failed,
        "first_failure": row.first_failure,
        "load_core_idle": row.load_idle,
        "foreign_share": row.foreign,
    })
}

fn estimate(estimate: &Estimate) -> Value {
    json!({ "median": estimate.median, "low": estimate.low, "high": estimate.high })
}

fn list<T>(items: &[T], value: impl Fn(&T) -> Value) -> Vec<Value> {
    items.iter().map(value).collect()
}

#[cfg(test)]
mod tests {
    use super::super::gates;
    use super::super::options::Options;
    use super::super::results::samples;
    use super::*;

    #[test]
    fn holds_the_figures_and_the_verdicts() {
        let results = samples::full();
        let gates = gates::check(&results, &Options::default());
        let value = json(&results, &gates);
        assert_eq!(value["comparisons"][0]["proxies"][1]["cpu_ratios"][0]["median"], 1.08);
        assert_eq!(value["reloads"][1]["routes"], 50_000);
        assert_eq!(value["idle"][1]["proxies"][0]["bytes_per_connection"], 16384.0);
        assert_eq!(value["bounds"].as_array().unwrap().len(), gates.len());
        assert_eq!(value["bounds"][0]["holds"], true);
    }
}
