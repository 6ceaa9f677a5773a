//! What one route counts.

use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use http::Method;
use prometheus::proto::MetricType;

use super::collector::{Family, Samples, Series};
use super::counts::Counts;
use super::histogram::{Buckets, Histogram};

/// The families that a route has series in, in the order that [`RouteMetrics::collect`] fills them.
pub(super) const FAMILIES: &[Family] = &[
    Family {
        name: "requests_total",
        help: "Requests answered, by route, method and status.",
        kind: MetricType::COUNTER,
        labels: &["route", "method", "status"],
    },
    Family {
        name: "request_duration_seconds",
        help: "Time from a request's head to the last byte of its response.",
        kind: MetricType::HISTOGRAM,
        labels: &["route"],
    },
    Family {
        name: "requests_active",
        help: "Requests in progress now.",
        kind: MetricType::GAUGE,
        labels: &["route"],
    },
    Family {
        name: "gateway_replies_total",
        help: "Replies that the gateway made itself, by reason code.",
        kind: MetricType::COUNTER,
        labels: &["route", "reason"],
    },
    Family {
        name: "filter_verdicts_total",
        help: "What filters decided.",
        kind: MetricType::COUNTER,
        labels: &["route", "filter", "verdict"],
    },
    Family {
        name: "condition_errors_total",
        help: "Requests to which a filter applied because its condition could not be told.",
        kind: MetricType::COUNTER,
        labels: &["route", "filter"],
    },
    Family {
        name: "rate_limited_total",
        help: "Requests that limits refused, by filter.",
        kind: MetricType::COUNTER,
        labels: &["route", "filter"],
    },
    Family {
        name: "mirrored_total",
        help: "Requests that were to be copied to another upstream, by what became of the copy.",
        kind: MetricType::COUNTER,
        labels: &["route", "result"],
    },
];

/// The counters of one route, shared by every snapshot that has a route of this name. Empty until its first request.
#[derive(Debug)]
pub struct RouteMetrics {
    name: Arc<str>,
    buckets: Arc<Buckets>,
    used: OnceLock<Box<Used>>,
}

/// What a route that has seen a request keeps.
#[derive(Debug)]
struct Used {
    requests: Counts<(MethodLabel, u16)>,
    duration: Histogram,
    active: AtomicI64,
    /// Few routes have any.
    rare: OnceLock<Box<Rare>>,
}

#[derive(Debug, Default)]
struct Rare {
    replies: Counts<&'static str>,
    verdicts: Counts<(&'static str, &'static str)>,
    doubts: Counts<&'static str>,
    limited: Counts<&'static str>,
    mirrored: Counts<&'static str>,
}

impl RouteMetrics {
    pub(super) fn new(name: Arc<str>, buckets: Arc<Buckets>) -> Self {
        Self { name, buckets, used: OnceLock::new() }
    }

    /// The route's name.
    pub fn name(&self) -> &Arc<str> {
        &self.name
    }

    /// Counts a request as in progress until the guard is dropped.
    pub fn start(self: &Arc<Self>) -> ActiveRequest {
        self.used().active.fetch_add(1, Ordering::Relaxed);
        ActiveRequest(Arc::clone(self))
    }

    /// Counts a finished exchange. A status outside 100 to 599 (0: none was sent) counts as `0`.
    pub fn record(&self, method: &Method, status: u16, duration: Duration) {
        let used = self.used();
        let status = if (100..600).contains(&status) { status } else { 0 };
        used.requests.add_one((MethodLabel::of(method), status));
        used.duration.observe(duration);
    }

    /// Counts a reply that the gateway made itself. The reason is one of the documented codes.
    pub fn reply(&self, reason: &'static str) {
        self.rare().replies.add_one(reason);
    }

    /// Counts what a filter decided; both words come from the filter's code.
    pub fn verdict(&self, filter: &'static str, verdict: &'static str) {
        self.rare().verdicts.add_one((filter, verdict));
    }

    /// Counts a filter that applied because its condition could not be told.
    pub fn condition_error(&self, filter: &'static str) {
        self.rare().doubts.add_one(filter);
    }

    /// Counts a request that a filter refused because there are too many; the word comes from the filter's code.
    pub fn limited(&self, filter: &'static str) {
        self.rare().limited.add_one(filter);
    }

    /// Counts a copy of a request, by what became of it.
    pub fn mirrored(&self, result: &'static str) {
        self.rare().mirrored.add_one(result);
    }

    fn used(&self) -> &Used {
        self.used.get_or_init(|| {
            Box::new(Used {
                requests: Counts::default(),
                duration: Histogram::new(Arc::clone(&self.buckets)),
                active: AtomicI64::new(0),
                rare: OnceLock::new(),
            })
        })
    }

    fn rare(&self) -> &Rare {
        self.used().rare.get_or_init(Box::default)
    }
}

impl Series for RouteMetrics {
    fn collect(&self, families: &mut [Samples]) {
        let ([requests, duration, active, replies, verdicts, doubts, limited, mirrored], Some(used)) =
            (families, self.used.get())
        else {
            return;
        };
        let route = &*self.name;
        for ((method, status), count) in used.requests.iter() {
            requests.counter(&[route, method.as_str(), &status.to_string()], count);
        }
        duration.histogram(&[route], used.duration.proto());
        active.gauge(&[route], used.active.load(Ordering::Relaxed));
        let Some(rare) = used.rare.get() else { return };
        for (reason, count) in rare.replies.iter() {
            replies.counter(&[route, reason], count);
        }
        for ((filter, verdict), count) in rare.verdicts.iter() {
            verdicts.counter(&[route, filter, verdict], count);
        }
        for (filter, count) in rare.doubts.iter() {
            doubts.counter(&[route, filter], count);
        }
        for (filter, count) in rare.limited.iter() {
            limited.counter(&[route, filter], count);
        }
        for (result, count) in rare.mirrored.iter() {
            mirrored.counter(&[route, result], count);
        }
    }
}

/// A request in progress.
#[derive(Debug)]
#[must_use = "dropped, it counts as ended"]
pub struct ActiveRequest(Arc<RouteMetrics>);

impl Drop for ActiveRequest {
    fn drop(&mut self) {
        self.0.used().active.fetch_sub(1, Ordering::Relaxed);
    }
}

/// A method as a label: the registered ones that HTTP servers meet (RFC 9110, RFC 5789, QUERY), or `other`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum MethodLabel {
    Get,
    Head,
    Post,
    Put,
    Delete,
    Connect,
    Options,
    Trace,
    Patch,
    Query,
    Other,
}

impl MethodLabel {
    fn of(method: &Method) -> Self {
        match *method {
            Method::GET => Self::Get,
            Method::HEAD => Self::Head,
            Method::POST => Self::Post,
            Method::PUT => Self::Put,
            Method::DELETE => Self::Delete,
            Method::CONNECT => Self::Connect,
            Method::OPTIONS => Self::Options,
            Method::TRACE => Self::Trace,
            Method::PATCH => Self::Patch,
            Method::QUERY => Self::Query,
            _ => Self::Other,
        }
    }

    const fn as_str(self) -> &'static str {
        match self {
            Self::Get => "GET",
            Self::Head => "HEAD",
            Self::Post => "POST",
            Self::Put => "PUT",
            Self::Delete => "DELETE",
            Self::Connect => "CONNECT",
            Self::Options => "OPTIONS",
            Self::Trace => "TRACE",
            Self::Patch => "PATCH",
            Self::Query => "QUERY",
            Self::Other => "other",
        }
    }
}
