//! Posts one event to one webhook.

use std::time::Duration;

use bytes::Bytes;
use http::header::{CONTENT_TYPE, HeaderValue, USER_AGENT};
use http::{Method, Request, StatusCode};
use http_body_util::{BodyExt, Full, Limited};
use hyper_util::client::legacy::Client;
use hyper_util::rt::TokioExecutor;
use serde::Serialize;

use super::Webhook;
use super::merge::Merged;
use crate::outbound::{self, Authorities, Connector, whole};
use crate::telemetry::{EventKind, Subject};

/// How often an event is tried to be told.
const TRIES: u32 = 3;
/// The pause after the first try, at most; the next one is twice as long.
const PAUSE: Duration = Duration::from_millis(500);
/// How long an idle connection is kept.
const IDLE: Duration = Duration::from_secs(30);
/// How much of an answer is read, so that its connection can be used again.
const MOST: usize = 64 << 10;
const AGENT: HeaderValue = HeaderValue::from_static(concat!("portcullis/", env!("CARGO_PKG_VERSION")));
const JSON: HeaderValue = HeaderValue::from_static("application/json");

/// What is posted.
#[derive(Serialize)]
struct Body<'a> {
    event: EventKind,
    at: String,
    gateway: &'a str,
    #[serde(flatten)]
    subject: &'a Subject,
    why: &'a str,
    message: &'a str,
    /// How many it stands for; one, where nothing is said.
    #[serde(skip_serializing_if = "is_one")]
    times: u32,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "as serde calls it")]
fn is_one(times: &u32) -> bool {
    *times == 1
}

/// The way to one webhook.
pub(super) struct Post {
    client: Client<Connector, Full<Bytes>>,
}

/// A try that came to nothing.
struct Failed {
    message: String,
    /// Whether the next one may come to something.
    again: bool,
}

impl Post {
    /// The way there. Reads the system's authorities where they are needed.
    pub(super) fn new(webhook: &Webhook) -> Result<Self, String> {
        let authorities = match &webhook.ca {
            _ if webhook.url.scheme_str() == Some("http") => Authorities::Nobody,
            None => Authorities::System,
            Some(text) => Authorities::Text(text),
        };
        let connector = outbound::connector(authorities, webhook.timeout)?;
        let client = Client::builder(TokioExecutor::new()).pool_idle_timeout(IDLE).build(connector);
        Ok(Self { client })
    }

    /// Posts an event, in as many tries as it takes and is allowed.
    pub(super) async fn tell(&self, webhook: &Webhook, gateway: &str, told: &Merged) -> Result<(), String> {
        let event = &told.event;
        let body = Body {
            event: event.kind,
            at: event.at_text(),
            gateway,
            subject: &event.subject,
            why: &event.why,
            message: &event.message,
            times: told.times,
        };
        let body = Bytes::from(serde_json::to_vec(&body).map_err(|error| error.to_string())?);
        let mut tried = 1;
        loop {
            let once = tokio::time::timeout(webhook.timeout, self.once(webhook, body.clone())).await;
            let late = Failed { message: format!("no answer within {:?}", webhook.timeout), again: true };
            match once.unwrap_or(Err(late)) {
                Ok(()) => return Ok(()),
                Err(Failed { message, again }) if !again || tried == TRIES => return Err(message),
                Err(_) => {}
            }
            // Gateways that see the same at once do not come back at once.
            tokio::time::sleep((PAUSE * tried).mul_f64(0.5 + fastrand::f64() / 2.0)).await;
            tried += 1;
        }
    }

    async fn once(&self, webhook: &Webhook, body: Bytes) -> Result<(), Failed> {
        let mut request = Request::new(Full::new(body));
        *request.method_mut() = Method::POST;
        *request.uri_mut() = webhook.url.clone();
        *request.headers_mut() = webhook.headers.clone();
        request.headers_mut().insert(CONTENT_TYPE, JSON);
        request.headers_mut().entry(USER_AGENT).or_insert(AGENT);
        let answer = self.client.request(request).await;
        let answer = answer.map_err(|error| Failed { message: whole(&error), again: true })?;
        let status = answer.status();
        // What it says beside the status is of no interest, whether it comes whole or not.
        let _ = Limited::new(answer.into_body(), MOST).collect().await;
        if status.is_success() {
            return Ok(());
        }
        let again = status.is_server_error()
            || [StatusCode::REQUEST_TIMEOUT, StatusCode::TOO_MANY_REQUESTS].contains(&status);
        Err(Failed { message: format!("it answers {}", status.as_u16()), again })
    }
}
