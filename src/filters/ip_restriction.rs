//! `ip_restriction`: who may come in, by address.
//!
//! 1. The address is the client's: the peer's, or what a trusted proxy says of it.
//! 2. `deny` wins over `allow`. With an `allow` list, whoever is not on it is refused.
//! 3. An IPv4-mapped IPv6 address counts as the IPv4 address it carries.
//! 4. A client without an address, over a Unix socket, is refused: whether it is on a list cannot be known.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::chain::{Filter, Flow, Phases, Stage};
use crate::document::{ConfigError, Errors};
use crate::exchange::{Exchange, Reason, Reply, Result};
use crate::registry::{FilterKind, Scope};
use crate::types::Cidr;

/// Lets clients in or refuses them (403) by their address.
#[derive(Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// Who may come in; everyone when empty.
    allow: Vec<Cidr>,
    /// Who may not, even if `allow` names them.
    deny: Vec<Cidr>,
}

/// Refuses clients by address.
pub struct IpRestriction(Config);

impl FilterKind for IpRestriction {
    const NAME: &'static str = "ip_restriction";
    const STAGE: Stage = Stage::Admit;
    const EXAMPLE: &'static str = "{ allow: [10.0.0.0/8], deny: [10.1.0.0/16] }";
    type Config = Config;

    fn compile(config: Config, _: &Scope<'_>) -> std::result::Result<Self, Errors> {
        if config.allow.is_empty() && config.deny.is_empty() {
            return Err(ConfigError::new(
                "",
                "ip_restriction needs `allow` or `deny`: without both it lets everyone in",
            )
            .into());
        }
        Ok(Self(config))
    }
}

impl Filter for IpRestriction {
    type State = ();

    fn phases(&self) -> Phases {
        Phases::REQUEST
    }

    fn request(&self, (): &mut (), exchange: &mut Exchange<'_>) -> Result<Flow> {
        let admits = |ip| {
            let on = |list: &[Cidr]| list.iter().any(|range| range.contains(ip));
            !on(&self.0.deny) && (self.0.allow.is_empty() || on(&self.0.allow))
        };
        if exchange.client_ip().is_some_and(admits) {
            return Ok(Flow::Continue);
        }
        Ok(Reply::refuse(Reason::IP_DENIED).into())
    }
}
