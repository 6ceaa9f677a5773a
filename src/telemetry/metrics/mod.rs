//! The gateway's metrics, in a registry of their own (no statics: two gateways in one process do not mix).
//!
//! 1. A route, an upstream and an endpoint *adopt* their metrics by name when they are compiled: whatever has the same
//!    name shares the same numbers, so counters carry over a reload. What nothing holds any more leaves the registry:
//!    labels cannot pile up over reloads.
//! 2. Memory is taken on first use. Fifty thousand idle routes cost their names.
//! 3. Recording takes no lock and looks up no label.
//! 4. No label carries a path, a client's words or anything unbounded: methods outside the registered ones become
//!    `other`, reasons, outcomes and verdicts are `&'static str`.

mod adopted;
mod certificates;
mod collector;
mod consumer;
mod counts;
mod histogram;
mod limits;
mod route;
mod upstream;
mod variant;

use std::sync::Arc;

use prometheus::{
    IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Opts, Registry, TextEncoder, core::Collector,
};

pub use consumer::ConsumerMetrics;
pub use histogram::{Buckets, InvalidBuckets};
pub use limits::LimitMetrics;
pub use prometheus::TEXT_FORMAT;
pub use route::{ActiveRequest, RouteMetrics};
pub use upstream::{EndpointMetrics, UpstreamMetrics};
pub use variant::VariantMetrics;

use adopted::Adopted;
use certificates::{CertificateCollector, CertificateExpiry};
use collector::SeriesCollector;

/// The route label of requests that matched none.
const NO_ROUTE: &str = "-";

/// Every metric of one gateway.
pub struct Metrics {
    registry: Registry,
    buckets: Arc<Buckets>,
    routes: Arc<Adopted<RouteMetrics>>,
    upstreams: Arc<Adopted<UpstreamMetrics>>,
    variants: Arc<Adopted<VariantMetrics>>,
    consumers: Arc<Adopted<ConsumerMetrics>>,
    limits: Arc<Adopted<LimitMetrics>>,
    no_route: Arc<RouteMetrics>,
    connections_active: IntGaugeVec,
    tls_handshakes: IntCounterVec,
    certificates: Arc<CertificateExpiry>,
    acme_orders: IntCounterVec,
    config_generation: IntGauge,
    config_reloads: IntCounterVec,
    retry_memory: IntGauge,
    access_log_dropped: IntCounter,
    events_dropped: IntCounter,
    events_sent: IntCounterVec,
}

impl Metrics {
    /// Metrics whose duration histograms have these buckets. `version` labels `portcullis_build_info`.
    ///
    /// # Errors
    ///
    /// Never for the metrics that are declared here (a test builds them); the registry's error is handed on.
    pub fn new(version: &str, buckets: Buckets) -> prometheus::Result<Self> {
        let buckets = Arc::new(buckets);
        let routes = Arc::new(Adopted::default());
        let no_route = routes.adopt(NO_ROUTE, |name| RouteMetrics::new(name, Arc::clone(&buckets)));
        let metrics = Self {
            registry: Registry::new(),
            buckets,
            routes,
            upstreams: Arc::new(Adopted::default()),
            variants: Arc::new(Adopted::default()),
            consumers: Arc::new(Adopted::default()),
            limits: Arc::new(Adopted::default()),
            no_route,
            connections_active: IntGaugeVec::new(
                opts("connections_active", "Client connections open now."),
                &["listener"],
            )?,
            tls_handshakes: IntCounterVec::new(
                opts("tls_handshakes_total", "TLS handshakes, by version and by what became of them."),
                &["listener", "version", "result"],
            )?,
            certificates: Arc::default(),
            acme_orders: IntCounterVec::new(
                opts("acme_orders_total", "Certificates ordered, by authority and by what became of it."),
                &["directory", "result"],
            )?,
            config_generation: IntGauge::with_opts(opts(
                "config_generation",
                "Number of the configuration in force; each one published adds one.",
            ))?,
            config_reloads: IntCounterVec::new(
                opts("config_reloads_total", "Configurations offered, by what became of them."),
                &["result"],
            )?,
            retry_memory: IntGauge::with_opts(opts(
                "retry_memory_bytes",
                "Bytes of request bodies that are kept to send them again.",
            ))?,
            access_log_dropped: IntCounter::with_opts(opts(
                "access_log_dropped_total",
                "Access log lines lost: no room, or a failed write.",
            ))?,
            events_dropped: IntCounter::with_opts(opts(
                "events_dropped_total",
                "Events that a webhook was not told of: no room to wait in.",
            ))?,
            events_sent: IntCounterVec::new(
                opts("events_sent_total", "Events told to webhooks, by what became of it."),
                &["result"],
            )?,
        };
        metrics.register(version)?;
        Ok(metrics)
    }

    /// The metrics of the route called `name`: those of the snapshot in force, or new ones. Adopt while the old
    /// snapshot still lives.
    pub fn route(&self, name: &str) -> Arc<RouteMetrics> {
        self.routes.adopt(name, |name| RouteMetrics::new(name, Arc::clone(&self.buckets)))
    }

    /// The metrics of requests that matched no route, labelled `route="-"`.
    pub fn no_route(&self) -> &Arc<RouteMetrics> {
        &self.no_route
    }

    /// The metrics of the upstream called `name`; adopt as with [`Metrics::route`].
    pub fn upstream(&self, name: &str) -> Arc<UpstreamMetrics> {
        self.upstreams.adopt(name, |name| UpstreamMetrics::new(name, Arc::clone(&self.buckets)))
    }

    /// The metrics of a variant of the route called `route`; adopt as with [`Metrics::route`].
    pub fn variant(&self, route: &str, variant: &str) -> Arc<VariantMetrics> {
        self.variants.adopt(&VariantMetrics::key(route, variant), |key| VariantMetrics::new(&key))
    }

    /// The metrics of the consumer called `name`; adopt as with [`Metrics::route`].
    pub fn consumer(&self, name: &str) -> Arc<ConsumerMetrics> {
        self.consumers.adopt(name, ConsumerMetrics::new)
    }

    /// How many keys the limits of a kind know that stand among the filters of `owner`; adopt as with [`Metrics::route`].
    pub fn limits(&self, owner: &str, filter: &'static str) -> Arc<LimitMetrics> {
        self.limits.adopt(&LimitMetrics::key(owner, filter), |_| LimitMetrics::new(owner, filter))
    }

    /// Client connections open now on the listener called `name`. Look it up once and keep it.
    ///
    /// # Errors
    ///
    /// Never: the label's number is right. The registry's error is handed on.
    pub fn connections_active(&self, listener: &str) -> prometheus::Result<IntGauge> {
        self.connections_active.get_metric_with_label_values(&[listener])
    }

    /// TLS handshakes by listener, version and result.
    pub fn tls_handshakes(&self) -> IntCounterVec {
        self.tls_handshakes.clone()
    }

    /// Notes until when the certificates in force are valid, in seconds since 1970, by the hosts they name.
    pub fn certificates(&self, expiry: impl IntoIterator<Item = (String, u64)>) {
        self.certificates.set(expiry);
    }

    /// Certificates ordered, by authority and result.
    pub fn acme_orders(&self) -> IntCounterVec {
        self.acme_orders.clone()
    }

    /// Notes the authorities that certificates are ordered from: alerts on failures need their series before the first.
    pub fn acme_directories<'n>(&self, names: impl Iterator<Item = &'n str>) {
        for name in names {
            for result in ["success", "failure"] {
                // Zero, until one is counted.
                let _ = self.acme_orders.get_metric_with_label_values(&[name, result]);
            }
        }
    }

    /// Notes a configuration that went into force, and its number.
    pub fn config_published(&self, generation: u64) {
        self.config_generation.set(i64::try_from(generation).unwrap_or(i64::MAX));
        self.count_reload("success");
    }

    /// Notes a configuration that was refused.
    pub fn config_refused(&self) {
        self.count_reload("failure");
    }

    /// Bytes of request bodies that are kept to send them again.
    pub fn retry_memory(&self) -> IntGauge {
        self.retry_memory.clone()
    }

    /// Counts access log lines lost; hand it to the access log.
    pub fn access_log_dropped(&self) -> IntCounter {
        self.access_log_dropped.clone()
    }

    /// Counts events lost; hand it to whoever tells them.
    pub fn events_dropped(&self) -> IntCounter {
        self.events_dropped.clone()
    }

    /// Events told to webhooks, by result.
    pub fn events_sent(&self) -> IntCounterVec {
        self.events_sent.clone()
    }

    /// Every series in Prometheus' text format 0.0.4 ([`TEXT_FORMAT`] is its media type).
    ///
    /// # Errors
    ///
    /// When a family is malformed, which would be a fault in this module.
    pub fn render(&self) -> prometheus::Result<String> {
        TextEncoder::new().encode_to_string(&self.registry.gather())
    }

    fn count_reload(&self, result: &str) {
        if let Ok(counter) = self.config_reloads.get_metric_with_label_values(&[result]) {
            counter.inc();
        }
    }

    fn register(&self, version: &str) -> prometheus::Result<()> {
        let build_info = IntGauge::with_opts(
            opts("build_info", "Always 1; the labels say what is running.").const_label("version", version),
        )?;
        build_info.set(1);
        // Alerts on failures need their series before the first one.
        for result in ["success", "failure"] {
            self.config_reloads.get_metric_with_label_values(&[result])?;
            self.events_sent.get_metric_with_label_values(&[result])?;
        }
        let collectors: Vec<Box<dyn Collector>> = vec![
            Box::new(build_info),
            Box::new(self.connections_active.clone()),
            Box::new(self.tls_handshakes.clone()),
            Box::new(CertificateCollector::new(Arc::clone(&self.certificates))?),
            Box::new(self.acme_orders.clone()),
            Box::new(self.config_generation.clone()),
            Box::new(self.config_reloads.clone()),
            Box::new(self.retry_memory.clone()),
            Box::new(self.access_log_dropped.clone()),
            Box::new(self.events_dropped.clone()),
            Box::new(self.events_sent.clone()),
            Box::new(SeriesCollector::new(Arc::clone(&self.routes), route::FAMILIES)?),
            Box::new(SeriesCollector::new(Arc::clone(&self.upstreams), upstream::FAMILIES)?),
            Box::new(SeriesCollector::new(Arc::clone(&self.variants), variant::FAMILIES)?),
            Box::new(SeriesCollector::new(Arc::clone(&self.consumers), consumer::FAMILIES)?),
            Box::new(SeriesCollector::new(Arc::clone(&self.limits), limits::FAMILIES)?),
        ];
        collectors.into_iter().try_for_each(|collector| self.registry.register(collector))?;
        #[cfg(target_os = "linux")]
        self.registry.register(Box::new(prometheus::process_collector::ProcessCollector::for_self()))?;
        Ok(())
    }
}

impl std::fmt::Debug for Metrics {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Metrics").finish_non_exhaustive()
    }
}

fn opts(name: &str, help: &str) -> Opts {
    Opts::new(name, help).namespace(collector::NAMESPACE)
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::Method;
    use std::time::Duration;

    fn metrics() -> Metrics {
        Metrics::new("1.2.3", Buckets::new(&[Duration::from_millis(5), Duration::from_millis(250)]).unwrap())
            .unwrap()
    }

    /// The value of the series spelled so, if there is one.
    fn value(metrics: &Metrics, series: &str) -> Option<f64> {
        let text = metrics.render().unwrap();
        let line = text.lines().find_map(|line| line.strip_prefix(series)?.strip_prefix(' '));
        line.map(|value| value.parse().unwrap())
    }

    #[test]
    fn requests_are_counted_by_route_method_and_status() {
        let metrics = metrics();
        let route = metrics.route("orders");
        route.record(&Method::GET, 200, Duration::from_millis(5));
        route.record(&Method::GET, 200, Duration::from_millis(100));
        route.record(&Method::from_bytes(b"BREW").unwrap(), 418, Duration::from_secs(1));
        route.record(&Method::POST, 0, Duration::ZERO);
        route.record(&Method::POST, 777, Duration::ZERO);
        for (series, expected) in [
            (r#"portcullis_requests_total{route="orders",method="GET",status="200"}"#, 2.0),
            (r#"portcullis_requests_total{route="orders",method="other",status="418"}"#, 1.0),
            (r#"portcullis_requests_total{route="orders",method="POST",status="0"}"#, 2.0),
            (r#"portcullis_request_duration_seconds_bucket{route="orders",le="0.005"}"#, 3.0),
            (r#"portcullis_request_duration_seconds_bucket{route="orders",le="0.25"}"#, 4.0),
            (r#"portcullis_request_duration_seconds_bucket{route="orders",le="+Inf"}"#, 5.0),
            (r#"portcullis_request_duration_seconds_count{route="orders"}"#, 5.0),
            (r#"portcullis_request_duration_seconds_sum{route="orders"}"#, 1.105),
        ] {
            assert_eq!(value(&metrics, series), Some(expected), "{series}");
        }
    }

    #[test]
    fn every_registered_method_has_its_label() {
        let metrics = metrics();
        let methods =
            ["GET", "HEAD", "POST", "PUT", "DELETE", "CONNECT", "OPTIONS", "TRACE", "PATCH", "QUERY"];
        for method in methods {
            metrics.no_route().record(&method.parse().unwrap(), 200, Duration::ZERO);
            let series = format!(r#"portcullis_requests_total{{route="-",method="{method}",status="200"}}"#);
            assert_eq!(value(&metrics, &series), Some(1.0), "{series}");
        }
    }

    #[test]
    fn requests_are_active_until_their_guard_goes() {
        let metrics = metrics();
        let route = metrics.route("orders");
        let series = r#"portcullis_requests_active{route="orders"}"#;
        let (first, second) = (route.start(), route.start());
        assert_eq!(value(&metrics, series), Some(2.0));
        drop(first);
        assert_eq!(value(&metrics, series), Some(1.0));
        drop(second);
        assert_eq!(value(&metrics, series), Some(0.0));
    }

    #[test]
    fn a_reload_keeps_the_numbers_of_what_stays_and_drops_the_rest() {
        let metrics = metrics();
        let old = [metrics.route("stays"), metrics.route("goes")];
        old.iter().for_each(|route| route.record(&Method::GET, 200, Duration::ZERO));
        let stays = metrics.route("stays");
        drop(old);
        stays.record(&Method::GET, 200, Duration::ZERO);
        let text = metrics.render().unwrap();
        assert!(text.contains("{route=\"stays\",method=\"GET\",status=\"200\"} 2\n"), "{text}");
        assert!(!text.contains("goes"), "{text}");
    }

    #[test]
    fn an_idle_route_shows_nothing() {
        let metrics = metrics();
        let _idle = metrics.route("idle");
        assert!(!metrics.render().unwrap().contains("idle"));
    }

    #[test]
    fn replies_and_verdicts_are_counted_by_their_words() {
        let metrics = metrics();
        let route = metrics.route("orders");
        route.reply("rate_limited");
        route.verdict("rate_limit", "denied");
        route.verdict("rate_limit", "denied");
        metrics.no_route().reply("route_not_found");
        for (series, expected) in [
            (r#"portcullis_gateway_replies_total{route="orders",reason="rate_limited"}"#, 1.0),
            (r#"portcullis_gateway_replies_total{route="-",reason="route_not_found"}"#, 1.0),
            (r#"portcullis_filter_verdicts_total{route="orders",filter="rate_limit",verdict="denied"}"#, 2.0),
        ] {
            assert_eq!(value(&metrics, series), Some(expected), "{series}");
        }
    }

    #[test]
    fn requests_are_counted_by_consumer_once_there_are_any() {
        let metrics = metrics();
        let (mobile, _idle) = (metrics.consumer("mobile"), metrics.consumer("idle"));
        mobile.count();
        metrics.consumer("mobile").count();
        assert_eq!(value(&metrics, r#"portcullis_consumer_requests_total{consumer="mobile"}"#), Some(2.0));
        assert!(!metrics.render().unwrap().contains("idle"));
        drop(mobile);
        assert!(!metrics.render().unwrap().contains("mobile"));
    }

    #[test]
    fn limits_tell_their_keys_while_somebody_holds_them() {
        let metrics = metrics();
        let (first, second) = (Arc::new(2_usize), Arc::new(3_usize));
        let series = r#"portcullis_limit_keys{owner="route orders",filter="rate_limit"}"#;
        let limits = metrics.limits("route orders", "rate_limit");
        assert_eq!(value(&metrics, series), None);
        for counts in [&first, &second, &first] {
            metrics.limits("route orders", "rate_limit").watch(counts, |keys| *keys);
        }
        assert_eq!(value(&metrics, series), Some(5.0));
        drop(first);
        assert_eq!(value(&metrics, series), Some(3.0));
        drop(limits);
        assert_eq!(value(&metrics, series), None);
    }

    #[test]
    fn endpoints_are_told_apart_and_leave_with_their_last_holder() {
        let metrics = metrics();
        // Run together, these labels are the same.
        let first = metrics.upstream("v").endpoint("110.0.0.1:80");
        let second = metrics.upstream("v1").endpoint("10.0.0.1:80");
        first.record("success", Some(Duration::from_millis(3)));
        second.record("success", None);
        second.record("success", None);
        let series = |upstream, endpoint| {
            format!(
                "portcullis_upstream_requests_total{{upstream=\"{upstream}\",endpoint=\"{endpoint}\",outcome=\"success\"}}"
            )
        };
        assert_eq!(value(&metrics, &series("v", "110.0.0.1:80")), Some(1.0));
        assert_eq!(value(&metrics, &series("v1", "10.0.0.1:80")), Some(2.0));
        let count = "portcullis_upstream_request_duration_seconds_count{upstream=\"v\"}";
        assert_eq!(value(&metrics, count), Some(1.0));

        let upstream = metrics.upstream("v");
        drop(first);
        assert_eq!(value(&metrics, &series("v", "110.0.0.1:80")), None);
        assert_eq!(value(&metrics, count), Some(1.0));
        drop(upstream);
        assert_eq!(value(&metrics, count), None);
        let again = metrics.upstream("v1").endpoint("10.0.0.1:80");
        drop(second);
        again.record("success", None);
        assert_eq!(value(&metrics, &series("v1", "10.0.0.1:80")), Some(3.0));
    }

    #[test]
    fn the_gateway_itself_is_measured() {
        let metrics = metrics();
        metrics.connections_active("web").unwrap().set(3);
        metrics.config_published(7);
        metrics.config_refused();
        metrics.access_log_dropped().inc_by(4);
        for (series, expected) in [
            (r#"portcullis_connections_active{listener="web"}"#, 3.0),
            ("portcullis_config_generation", 7.0),
            (r#"portcullis_config_reloads_total{result="success"}"#, 1.0),
            (r#"portcullis_config_reloads_total{result="failure"}"#, 1.0),
            ("portcullis_access_log_dropped_total", 4.0),
            (r#"portcullis_build_info{version="1.2.3"}"#, 1.0),
        ] {
            assert_eq!(value(&metrics, series), Some(expected), "{series}");
        }
        #[cfg(target_os = "linux")]
        assert!(value(&metrics, "process_resident_memory_bytes").unwrap() > 0.0);
    }

    #[test]
    fn two_gateways_do_not_mix() {
        let (one, two) = (metrics(), metrics());
        let _held = one.route("orders").start();
        assert!(!two.render().unwrap().contains("orders"));
    }
}
