//! `telemetry:`, logs, metrics and events.

use std::collections::BTreeMap;
use std::path::PathBuf;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::SecretSource;
use crate::telemetry::{EventKind, LogFormat, LogLevel};
use crate::types::{CREDENTIAL_FIELDS, Duration, Percent};

/// Logs, metrics and events.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Telemetry {
    /// What the process says of itself, on standard error.
    pub log: ProcessLog,
    /// A line for every request.
    pub access_log: AccessLog,
    /// Prometheus metrics, at `/metrics` of the admin listener.
    pub metrics: Metrics,
    /// Who is told what happens, beside the process log.
    pub events: Vec<EventSink>,
}

/// What the process says of itself, on standard error.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct ProcessLog {
    /// The least grave level shown. Changeable while running by `PUT /log/level`.
    pub level: LogLevel,
    /// `json` for machines, `text` for people. Read at start.
    pub format: LogFormat,
}

/// A line for every request.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct AccessLog {
    /// `stdout`, `stderr`, `off`, or the path of a file (reopened on SIGUSR1).
    pub output: String,
    /// `json`, `combined` (the Apache and nginx form), or a template such as `'{client_ip} {status} {path}'`.
    pub format: String,
    /// Which lines are kept.
    pub sample: Sample,
    /// Header names whose values a template shows as `[redacted]`.
    pub redact: Vec<String>,
}

impl Default for AccessLog {
    fn default() -> Self {
        Self {
            output: "stdout".into(),
            format: "json".into(),
            sample: Sample::default(),
            redact: CREDENTIAL_FIELDS.map(String::from).to_vec(),
        }
    }
}

/// Which access log lines are kept.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Sample {
    /// The share kept of what went well (status below 400) and was not slow.
    pub success: Percent,
    /// A request that took so long is always kept.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub slow: Option<Duration>,
    /// The share kept of status 400 and above.
    pub errors: Percent,
}

impl Default for Sample {
    fn default() -> Self {
        Self { success: Percent::ALL, slow: None, errors: Percent::ALL }
    }
}

/// Prometheus metrics.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Metrics {
    /// Upper bounds of the duration histograms, ascending. The default runs from 1ms to 10s. Read at start.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub buckets: Vec<Duration>,
}

/// Who is told what happens.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct EventSink {
    /// A server that gets each event as JSON, by POST.
    pub webhook: Webhook,
}

/// A server that gets each event as JSON, by POST.
///
/// It is told in up to three tries, and waited for by nobody. The same event of the same subject is told at most once a
/// second, with how often it was (`times`).
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Webhook {
    /// Where to: `https://` and a host, with a port and a path or without, or `http://`. Many services have a key in
    /// it, so it is a secret: never shown.
    pub url: SecretSource,
    /// The events that it gets. All of them where none is named.
    #[serde(default)]
    pub on: Vec<EventKind>,
    /// A token to send along, as `Authorization: Bearer TOKEN`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub token: Option<SecretSource>,
    /// Header fields to send along.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub headers: BTreeMap<String, String>,
    /// The PEM file of the authorities that may have issued its certificate, where it is not one that the system trusts.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ca: Option<PathBuf>,
    /// How long one try may take: up to 1m.
    #[serde(default = "patience")]
    pub timeout: Duration,
}

fn patience() -> Duration {
    Duration::from_secs(5)
}
