//! `fault`: some requests wait, some fail, so that one sees beforehand what becomes of it.
//!
//! 1. Of all requests a share is hit at random (`percent`), or those that ask for it in a header field (`by_header`), or
//!    both. One of the two must be named: nobody is hit by an oversight.
//! 2. A request that waits and fails does so in this order. The wait counts against the route's `timeouts.request`.
//! 3. At most `max_active` requests wait at once; the others are not delayed. A client that leaves ends its wait.
//! 4. The access log says of those that waited how long they were to (`fault_delay_ms`).

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::chain::{Filter, Flow, LogEntry, Phases, Stage};
use crate::document::{ConfigError, Errors};
use crate::exchange::{Exchange, Reason, Reply, Result, grpc, grpc_web};
use crate::registry::{FilterKind, Scope};
use crate::types::{Duration, Percent};

/// Has some requests wait or fail, to try what becomes of them.
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// Which requests wait, and how long.
    #[serde(skip_serializing_if = "Option::is_none")]
    delay: Option<DelayConfig>,
    /// Which requests fail, and how.
    #[serde(skip_serializing_if = "Option::is_none")]
    abort: Option<AbortConfig>,
    /// How many requests wait at once; more are not delayed.
    #[schemars(range(min = 1))]
    max_active: usize,
}

impl Default for Config {
    fn default() -> Self {
        Self { delay: None, abort: None, max_active: 1000 }
    }
}

/// Which requests wait, and how long.
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct DelayConfig {
    /// How long they wait.
    duration: Duration,
    /// Which share of all requests.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    percent: Option<Percent>,
    /// Whether a client may ask for it: `X-Portcullis-Fault-Delay: 100ms`, of which it gets at most `duration`.
    #[serde(default)]
    by_header: bool,
}

/// Which requests fail, and how.
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct AbortConfig {
    /// The status of the answer, 400 to 599.
    #[serde(default = "unavailable")]
    #[schemars(range(min = 400, max = 599))]
    status: u16,
    /// How calls of gRPC end, 1 to 16. What goes best with `status` unless named.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 16))]
    grpc_status: Option<u8>,
    /// Which share of all requests.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    percent: Option<Percent>,
    /// Whether a client may ask for it: `X-Portcullis-Fault-Abort: 503`, any status from 400 to 599.
    #[serde(default)]
    by_header: bool,
}

fn unavailable() -> u16 {
    503
}

/// Has some requests wait or fail.
pub struct Fault {
    delay: Option<Delay>,
    abort: Option<Abort>,
    max_active: usize,
    /// How many wait, on all routes that share it.
    active: Arc<Active>,
}

#[derive(Default)]
struct Active(AtomicUsize);

struct Delay {
    duration: std::time::Duration,
    chance: Chance,
}

struct Abort {
    status: StatusCode,
    grpc_status: Option<u8>,
    chance: Chance,
}

/// Who is hit.
struct Chance {
    share: f64,
    by_header: bool,
}

const DELAY: HeaderName = HeaderName::from_static("x-portcullis-fault-delay");
const ABORT: HeaderName = HeaderName::from_static("x-portcullis-fault-abort");

impl FilterKind for Fault {
    const NAME: &'static str = "fault";
    const STAGE: Stage = Stage::Admit;
    const EXAMPLE: &'static str =
        "{ delay: { duration: 200ms, percent: 5% }, abort: { status: 503, percent: 1%, by_header: true } }";
    type Config = Config;

    fn compile(config: Config, scope: &Scope<'_>) -> std::result::Result<Self, Errors> {
        let mut errors = Errors::default();
        let mut error = |path: &str, message: &str| errors.push(ConfigError::new(path, message));
        if config.delay.is_none() && config.abort.is_none() {
            error("", "fault needs `delay` or `abort`");
        }
        if config.max_active == 0 {
            error("max_active", "with 0 nothing would ever wait: leave `delay` out");
        }
        let delay = config.delay.map(|words| {
            if words.duration.get().is_zero() {
                error("delay.duration", "a wait cannot be zero");
            }
            let chance = Chance::compile("delay", words.percent, words.by_header, &mut error);
            Delay { duration: words.duration.get(), chance }
        });
        let abort = config.abort.map(|words| {
            let status = failure(words.status);
            if status.is_none() {
                error("abort.status", "a failure is 400 to 599");
            }
            if words.grpc_status.is_some_and(|status| !(1..=16).contains(&status)) {
                error("abort.grpc_status", "a failed call ends with 1 to 16");
            }
            let chance = Chance::compile("abort", words.percent, words.by_header, &mut error);
            let status = status.unwrap_or(StatusCode::SERVICE_UNAVAILABLE);
            Abort { status, grpc_status: words.grpc_status, chance }
        });
        let active = scope.state.adopt(format!("{} fault", scope.owner), Active::default);
        errors.or(Self { delay, abort, max_active: config.max_active, active })
    }
}

fn failure(status: u16) -> Option<StatusCode> {
    (400..600).contains(&status).then(|| StatusCode::from_u16(status).ok()).flatten()
}

impl Chance {
    fn compile(
        path: &str,
        share: Option<Percent>,
        by_header: bool,
        error: &mut impl FnMut(&str, &str),
    ) -> Self {
        if share.is_none() && !by_header {
            error(path, "who is hit? name `percent`, or `by_header: true` for those who ask for it");
        }
        Self { share: share.map_or(0.0, Percent::fraction), by_header }
    }

    /// What the client asks for, if it may.
    fn asked<T>(&self, headers: &HeaderMap, name: &HeaderName, read: fn(&str) -> Option<T>) -> Option<T> {
        if !self.by_header {
            return None;
        }
        headers.get(name).and_then(|value| value.to_str().ok()).and_then(read)
    }

    fn hits(&self) -> bool {
        self.share > 0.0 && fastrand::f64() < self.share
    }
}

/// One that waits, while it lives.
struct Waiting<'a>(&'a Active);

impl Active {
    fn enter(&self, most: usize) -> Option<Waiting<'_>> {
        let waiting = self.0.fetch_add(1, Ordering::Relaxed);
        let entered = Waiting(self);
        (waiting < most).then_some(entered)
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.0.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Fault {
    /// How long this request waits.
    fn wait(&self, headers: &HeaderMap) -> Option<std::time::Duration> {
        let Delay { duration, chance } = self.delay.as_ref()?;
        let asked = chance.asked(headers, &DELAY, |text| text.parse::<Duration>().ok());
        let asked = asked.map(|asked| asked.get().min(*duration));
        asked.or_else(|| chance.hits().then_some(*duration))
    }

    /// How this request fails.
    fn fail(&self, headers: &HeaderMap) -> Flow {
        let Some(abort) = &self.abort else { return Flow::Continue };
        let asked = abort.chance.asked(headers, &ABORT, |text| failure(text.parse().ok()?));
        let Some(status) = asked.or_else(|| abort.chance.hits().then_some(abort.status)) else {
            return Flow::Continue;
        };
        let reply = Reply::refuse(Reason::FAULT_INJECTED).with_status(status);
        let is_call = grpc::is_grpc(headers) || grpc_web::MediaType::of_request(headers).is_some();
        match abort.grpc_status.filter(|_| is_call && asked.is_none()) {
            Some(status) => reply.header(grpc::STATUS, HeaderValue::from(u16::from(status))),
            None => reply,
        }
        .into()
    }
}

/// How long this request is made to wait.
#[derive(Default)]
pub struct Waited(Option<std::time::Duration>);

impl Filter for Fault {
    type State = Waited;

    fn phases(&self) -> Phases {
        match self.delay {
            Some(_) => Phases::REQUEST | Phases::REQUEST_WAIT | Phases::LOG,
            None => Phases::REQUEST,
        }
    }

    fn request(&self, waited: &mut Waited, exchange: &mut Exchange<'_>) -> Result<Flow> {
        let headers = &exchange.request().headers;
        waited.0 = self.wait(headers);
        Ok(if waited.0.is_some() { Flow::Wait } else { self.fail(headers) })
    }

    async fn request_wait(&self, waited: &mut Waited, exchange: &mut Exchange<'_>) -> Result<Flow> {
        if let Some(wait) = waited.0.take()
            && let Some(_waiting) = self.active.enter(self.max_active)
        {
            waited.0 = Some(wait);
            tokio::time::sleep(wait).await;
        }
        Ok(self.fail(&exchange.request().headers))
    }

    fn log(&self, waited: &mut Waited, _: &mut Exchange<'_>, entry: &mut LogEntry) {
        if let Some(wait) = waited.0 {
            entry.field("fault_delay_ms", wait.as_millis().to_string());
        }
    }
}
