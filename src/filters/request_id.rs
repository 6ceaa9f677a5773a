//! `request_id`: one id for a request through every log on its way.
//!
//! Every request has an id, with or without this filter: it goes upstream as `X-Request-Id`, stands in the access
//! log and in every problem reply. This filter says whose id is kept, and shows the id to the client.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::chain::{Filter, Flow, Phases, Stage};
use crate::document::Errors;
use crate::exchange::{Exchange, RequestId, ResponseHeader, Result};
use crate::registry::{FilterKind, Scope};

/// Keeps or makes the id of a request, and shows it to the client as `X-Request-Id`.
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// Whose `X-Request-Id` is kept; everyone else's is replaced.
    accept: Accept,
    /// Whether the response carries the id.
    response: bool,
}

impl Default for Config {
    fn default() -> Self {
        Self { accept: Accept::default(), response: true }
    }
}

/// Whose id is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
enum Accept {
    /// That of `server.trusted_proxies`.
    #[default]
    Trusted,
    /// Every client's, if it is short and printable.
    Always,
    /// Nobody's.
    Never,
}

/// Keeps or makes request ids.
pub struct RequestIds(Config);

impl FilterKind for RequestIds {
    const NAME: &'static str = "request_id";
    const STAGE: Stage = Stage::Observe;
    const EXAMPLE: &'static str = "{ accept: trusted, response: true }";
    type Config = Config;

    fn compile(config: Config, _: &Scope<'_>) -> std::result::Result<Self, Errors> {
        Ok(Self(config))
    }
}

impl Filter for RequestIds {
    type State = ();

    fn phases(&self) -> Phases {
        if self.0.response { Phases::REQUEST | Phases::RESPONSE } else { Phases::REQUEST }
    }

    fn request(&self, (): &mut (), exchange: &mut Exchange<'_>) -> Result<Flow> {
        match self.0.accept {
            // A trusted proxy's id is kept without being asked.
            Accept::Trusted => {}
            Accept::Always => {
                if let Some(id) = exchange.header(&RequestId::HEADER).and_then(RequestId::accept) {
                    exchange.set_request_id(id);
                }
            }
            Accept::Never => exchange.forget_request_id(),
        }
        Ok(Flow::Continue)
    }

    fn response(&self, (): &mut (), exchange: &mut Exchange<'_>, head: &mut ResponseHeader) -> Result<()> {
        if self.0.response {
            head.insert_header(RequestId::HEADER, exchange.request_id().header())?;
        }
        Ok(())
    }
}
