//! The access log's words become settings.

use std::collections::BTreeSet;

use http::HeaderName;

use crate::config::{AccessLog, Metrics};
use crate::document::{ConfigError, Errors};
use crate::telemetry::{Buckets, Format, Output, Redact, Sampling, Settings};

pub(super) fn access_log(
    words: &AccessLog,
    queries: BTreeSet<String>,
    errors: &mut Errors,
) -> Option<Settings> {
    let mut keep = |path: &str, message: String| {
        errors.push(ConfigError::new(format!("telemetry.access_log.{path}"), message))
    };
    let output = words.output.parse::<Output>().map_err(|error| keep("output", error.to_string())).ok();
    let format = words.format.parse::<Format>().map_err(|error| keep("format", error.to_string())).ok();
    let names = words.redact.iter().enumerate().filter_map(|(at, name)| {
        let parsed = HeaderName::try_from(name);
        parsed.map_err(|_| keep(&format!("redact[{at}]"), format!("`{name}` is not a header name"))).ok()
    });
    let redact = Redact::new(names.collect::<Vec<_>>()).queries(queries);
    let sampling = Sampling {
        success: words.sample.success.fraction(),
        slow: words.sample.slow.map(crate::types::Duration::get),
        errors: words.sample.errors.fraction(),
    };
    Some(Settings { output: output?, format: format?, sampling, redact })
}

pub(super) fn metrics(words: &Metrics, errors: &mut Errors) {
    let bounds: Vec<_> = words.buckets.iter().map(|bucket| bucket.get()).collect();
    if !bounds.is_empty()
        && let Err(error) = Buckets::new(&bounds)
    {
        errors.push(ConfigError::new("telemetry.metrics.buckets", error.to_string()));
    }
    if words.buckets.len() > 64 {
        errors.push(ConfigError::new("telemetry.metrics.buckets", "at most 64 buckets"));
    }
}
