//! What the gateway tells its operator: the access log (one line an exchange), the process log (what the gateway
//! itself has to say), the metrics, and the events that others are told of. Nothing here makes a request wait.

pub mod access_log;
mod encode;
pub mod events;
pub mod metrics;
pub mod process_log;

pub use access_log::{
    AccessLog, Address, Format, Output, Record, Redact, Sampling, Settings, TlsRecord, rfc3339,
};
pub use events::{Event, EventKind, Events, Inbox, Subject};
pub use metrics::{
    ActiveRequest, Buckets, ConsumerMetrics, EndpointMetrics, LimitMetrics, Metrics, RouteMetrics,
    TEXT_FORMAT, UpstreamMetrics, VariantMetrics,
};
pub use process_log::{LogFormat, LogLevel};
