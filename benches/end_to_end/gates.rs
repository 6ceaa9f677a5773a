//! The bounds that Portcullis has to keep, checked against the medians.

use super::comparisons::{FEW_ROUTES, MANY_ROUTES};
use super::options::Options;
use super::proxies::Kind;
use super::results::{IdleMemory, Results};

/// One bound and what was measured for it.
#[derive(Debug, PartialEq)]
pub struct Gate {
    pub workload: &'static str,
    pub what: &'static str,
    pub at_most: f64,
    /// `None` when the programs for it were not there.
    pub measured: Option<f64>,
}

impl Gate {
    /// What was wanted and not measured has not been shown to hold.
    pub fn holds(&self) -> bool {
        self.measured.is_some_and(|measured| measured <= self.at_most)
    }
}

/// Workloads whose CPU is bounded by bare Pingora's.
const NEAR_BARE_PINGORA: [&str; 5] = ["small", "tls_small", "h2_to_h1", "h2_to_h2c", "grpc_unary"];
/// Crowds of which no connection may be closed, and what each may hold of KiB, where that is bounded.
const CROWDS: [(&str, Option<f64>); 3] =
    [("idle_10000", Some(20.0)), ("idle_tls", Some(40.0)), ("idle_websockets", None)];

/// The bounds of the wanted workloads.
pub fn check(results: &Results, options: &Options) -> Vec<Gate> {
    let gate = |workload, what, at_most, measured| Gate { workload, what, at_most, measured };
    let mut gates = Vec::new();
    for workload in NEAR_BARE_PINGORA {
        let ratio = cpu_ratio(results, workload, Kind::BarePingora);
        gates.push(gate(workload, "CPU per request, × bare Pingora", 1.10, ratio));
    }
    gates.extend([
        gate("routes_50000", "CPU per request, × ten routes", 1.05, ratio_to_base(results, "routes_50000")),
        gate("resilience", "CPU per request, × off", 1.05, ratio_to_base(results, "resilience")),
        gate("rate_limit", "CPU per request, × off", 1.03, ratio_to_base(results, "rate_limit")),
        gate(
            "rate_limit_settled",
            "CPU per request, × off",
            1.05,
            ratio_to_base(results, "rate_limit_settled"),
        ),
        gate("cors", "CPU per request, × off", 1.03, ratio_to_base(results, "cors")),
        gate("conditions", "CPU per request, × off", 1.03, ratio_to_base(results, "conditions")),
        gate("split", "CPU per request, × off", 1.03, ratio_to_base(results, "split")),
        gate(
            "tls_handshake",
            "CPU per handshake, × nginx",
            1.0,
            cpu_ratio(results, "tls_handshake", Kind::Nginx),
        ),
        gate("start", "ms to ready with 10,000 routes", 300.0, start(results)),
        gate("rss", "MB at rest", 30.0, memory(results, FEW_ROUTES)),
        gate("rss", "MB at rest with 50,000 routes", 120.0, memory(results, MANY_ROUTES)),
    ]);
    for (workload, kibibytes) in CROWDS {
        let idle = idle(results, workload);
        if let Some(at_most) = kibibytes {
            let each = idle.map(|idle| idle.bytes_per_connection / 1024.0);
            gates.push(gate(workload, "KiB per idle connection", at_most, each));
        }
        gates.push(gate(workload, "idle connections closed", 0.0, idle.map(|idle| idle.closed as f64)));
    }
    for workload in ["reload_10", "reload_50000"] {
        let reloads = results.reloads.iter().find(|reloads| reloads.workload == workload);
        let failed = reloads.map(|reloads| (reloads.failed_requests + reloads.failed_reloads) as f64);
        let ratio = reloads.map(|reloads| reloads.p99_ratio.median);
        gates.push(gate(workload, "failed requests and reloads", 0.0, failed));
        gates.push(gate(workload, "p99, × without reloads", 1.2, ratio));
    }
    gates.retain(|gate| options.wants(gate.workload));
    gates
}

fn cpu_ratio(results: &Results, workload: &str, base: Kind) -> Option<f64> {
    let comparison = results.comparisons.iter().find(|comparison| comparison.workload == workload)?;
    comparison.cpu_ratio(Kind::Portcullis.name(), base.name())
}

/// The contender that is not the base.
fn ratio_to_base(results: &Results, workload: &str) -> Option<f64> {
    let comparison = results.comparisons.iter().find(|comparison| comparison.workload == workload)?;
    let base = comparison.bases.first()?;
    let other = comparison.rows.iter().find(|row| row.name != *base)?;
    comparison.cpu_ratio(&other.name, base)
}

fn start(results: &Results) -> Option<f64> {
    let start = results.starts.iter().find(|start| start.name == Kind::Portcullis.name())?;
    Some(start.milliseconds.median)
}

fn memory(results: &Results, routes: usize) -> Option<f64> {
    let is_ours = |name: &str| name == Kind::Portcullis.name();
    let memory = results.memory.iter().find(|memory| is_ours(&memory.name) && memory.routes == routes)?;
    Some(memory.resident as f64 / 1e6)
}

fn idle<'a>(results: &'a Results, workload: &str) -> Option<&'a IdleMemory> {
    let idle = results.idle.iter().find(|idle| idle.workload == workload)?;
    idle.proxies.iter().find(|proxy| proxy.name == Kind::Portcullis.name())
}

#[cfg(test)]
mod tests {
    use super::super::results::samples;
    use super::super::workloads::NAMES;
    use super::*;

    fn gate(gates: &[Gate], workload: &str) -> f64 {
        gates.iter().find(|gate| gate.workload == workload).and_then(|gate| gate.measured).unwrap()
    }

    /// What the samples hold.
    fn measured() -> Options {
        let names =
            ["small", "routes_50000", "tls_handshake", "start", "rss", "idle_10000", "idle_websockets"];
        let reloads = ["reload_10", "reload_50000"];
        let only = names.into_iter().chain(reloads).map(str::to_owned).collect();
        Options { only, ..Options::default() }
    }

    #[test]
    fn reads_each_figure_of_the_gateway() {
        let gates = check(&samples::full(), &measured());
        assert_eq!(gates.len(), 13);
        assert_eq!(gate(&gates, "tls_handshake"), 0.9);
        assert_eq!(gate(&gates, "idle_websockets"), 0.0);
        assert_eq!(gate(&gates, "small"), 1.08);
        assert_eq!(gate(&gates, "routes_50000"), 1.01);
        assert_eq!(gate(&gates, "start"), 120.0);
        assert_eq!(gate(&gates, "rss"), 20.0);
        assert_eq!(gate(&gates, "idle_10000"), 16.0);
        assert_eq!(gate(&gates, "reload_10"), 0.0);
        assert!(gates.iter().all(Gate::holds), "{gates:?}");
    }

    #[test]
    fn a_bound_passed_over_or_left_unmeasured_does_not_hold() {
        let mut results = samples::full();
        results.reloads[0].failed_requests = 1;
        results.starts.clear();
        let failing = check(&results, &measured()).into_iter().filter(|gate| !gate.holds());
        assert_eq!(failing.map(|gate| gate.workload).collect::<Vec<_>>(), ["start", "reload_10"]);
    }

    #[test]
    fn every_bound_is_of_a_workload() {
        let gates = check(&samples::full(), &Options::default());
        assert!(gates.iter().all(|gate| NAMES.contains(&gate.workload)));
    }

    #[test]
    fn what_was_not_asked_for_is_not_checked() {
        let only = Options { only: vec!["start".into()], ..Options::default() };
        assert_eq!(check(&samples::full(), &only).len(), 1);
    }
}
