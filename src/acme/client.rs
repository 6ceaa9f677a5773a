//! The HTTP client that asks directories.

use std::path::Path;
use std::pin::Pin;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use http::Request;
use http::header::RETRY_AFTER;
use http_body_util::{BodyExt, Limited};
use hyper_util::client::legacy::Client as Pooled;
use hyper_util::rt::TokioExecutor;
use instant_acme::{BodyWrapper, BytesResponse, HttpClient};
use parking_lot::Mutex;

use super::error::Error;
use crate::outbound::{self, Authorities, Connector, whole};
use crate::tls::authorities_text;
use crate::types::retry_after;

/// How long one answer of a directory may take.
const PATIENCE: Duration = Duration::from_secs(30);
/// The most that one answer may have.
const MOST: usize = 1 << 20;

type Outcome = Result<BytesResponse, instant_acme::Error>;

/// Asks by HTTPS, within bounds. Cheap to clone.
#[derive(Clone)]
pub(super) struct Client {
    pooled: Pooled<Connector, BodyWrapper<Bytes>>,
    told: Told,
}

/// When the last answer asked to be asked again. The library tells it of some answers only, and never of refusals.
#[derive(Clone, Default)]
pub(super) struct Told(Arc<Mutex<Option<SystemTime>>>);

impl Told {
    pub(super) fn retry_at(&self) -> Option<SystemTime> {
        *self.0.lock()
    }
}

impl Client {
    /// A client that believes the authorities in a file; without one, those whom the system trusts.
    pub(super) fn new(ca: Option<&Path>) -> Result<Self, Error> {
        let pooled = Pooled::builder(TokioExecutor::new()).pool_idle_timeout(PATIENCE).build(connector(ca)?);
        Ok(Self { pooled, told: Told::default() })
    }

    pub(super) fn told(&self) -> Told {
        self.told.clone()
    }

    async fn ask(self, request: Request<BodyWrapper<Bytes>>) -> Outcome {
        let place = request.uri().host().unwrap_or_default().to_owned();
        let asked = async {
            let response =
                self.pooled.request(request).await.map_err(|error| failed(&place, &whole(&error)))?;
            let (parts, body) = response.into_parts();
            *self.told.0.lock() = parts.headers.get(RETRY_AFTER).and_then(|told| when(told.to_str().ok()?));
            let body = Limited::new(body, MOST).collect().await;
            let body = body.map_err(|error| failed(&place, &error.to_string()))?.to_bytes();
            Ok(BytesResponse { parts, body: Box::new(body) })
        };
        let timely = tokio::time::timeout(PATIENCE, asked).await;
        timely.unwrap_or_else(|_| Err(failed(&place, "no answer in time")))
    }
}

impl HttpClient for Client {
    fn request(&self, request: Request<BodyWrapper<Bytes>>) -> Pin<Box<dyn Future<Output = Outcome> + Send>> {
        Box::pin(self.clone().ask(request))
    }
}

fn connector(ca: Option<&Path>) -> Result<Connector, Error> {
    let unusable = |message| Error::Directory { message, retry_at: None };
    let text = ca.map(authorities_text).transpose().map_err(|fault| unusable(fault.to_string()))?;
    let authorities = text.as_deref().map_or(Authorities::System, Authorities::Text);
    outbound::connector(authorities, PATIENCE).map_err(unusable)
}

/// A time by `Retry-After`.
fn when(told: &str) -> Option<SystemTime> {
    let now = SystemTime::now();
    now.checked_add(retry_after(told, now)?)
}

fn failed(place: &str, message: &str) -> instant_acme::Error {
    instant_acme::Error::Other(format!("{place} cannot be asked: {message}").into())
}
