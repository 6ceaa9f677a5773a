//! A way of choosing an endpoint of one's own, nameable in configuration files.
//!
//! `cargo run --example custom_balancer` before two servers, then `curl http://127.0.0.1:8080/`.

use std::net::SocketAddr;

use portcullis::upstream::{Balancer, EndpointId, EndpointSet, Member, Pick};
use portcullis::{Gateway, StartError};

/// All requests go to the first endpoint that may be asked, in the order of the list: the others stand by.
pub struct FirstOfAll(Box<[EndpointId]>);

impl FirstOfAll {
    /// Built anew whenever the endpoints change. Members without weight are not to be picked.
    pub fn new(members: &[Member]) -> Self {
        let picked = members.iter().filter(|member| member.weight > 0);
        Self(picked.map(|member| member.id).collect())
    }
}

impl Balancer for FirstOfAll {
    /// Called for every attempt. `admits` knows health, breakers, and whom this request has tried.
    fn pick(&self, _: &EndpointSet, pick: &Pick<'_>) -> Option<EndpointId> {
        self.0.iter().copied().find(|id| (pick.admits)(*id))
    }
}

/// A gateway that chooses so.
pub fn gateway(address: &str, endpoints: [SocketAddr; 2]) -> Gateway {
    let [one, other] = endpoints;
    let words = format!(
        "listeners: [{{ name: web, address: \"{address}\" }}]\n\
         upstreams: {{ app: {{ endpoints: [\"{one}\", \"{other}\"], balance: {{ custom: first_of_all }} }} }}\n\
         routes: [{{ name: app, path: /*, upstream: app }}]\n"
    );
    Gateway::from_yaml(&words).balancer("first_of_all", |members| Box::new(FirstOfAll::new(members)))
}

#[allow(dead_code, reason = "a test runs the gateway without it")]
fn main() -> Result<(), StartError> {
    gateway("127.0.0.1:8080", [([127, 0, 0, 1], 3000).into(), ([127, 0, 0, 1], 3001).into()]).run()
}
