//! TLS: with clients (certificates, what is spoken with whom, who the client proved to be) and with upstreams.
//!
//! 1. Everything here is compiled into one immutable [`ServerPolicy`] for each listener. A handshake reads it, and
//!    nothing else; a reload puts another in its place, and connections keep the one they were greeted with.
//! 2. A certificate is chosen by the name that the client asks for (SNI), among those of the same name by what the
//!    client can verify. Without a known name it is the first of the list. Those that an authority issues while the
//!    gateway runs have a place of their own, which every snapshot that names them shares.
//! 3. What is spoken (versions, cipher suites, client certificates) may differ by host. A session belongs to the
//!    policy under which it was made: its ticket opens under no other, and its connection asks for no host of another.
//! 4. The keys of tickets rotate, outlive reloads, and go to the new process at an upgrade.
//! 5. An upstream is verified unless the operator says otherwise, and connections under one [`UpstreamTls`] are not
//!    used under another.

mod certificate;
mod certificates;
mod client;
mod failure;
mod identity;
mod issued;
mod pem;
mod policy;
mod session;
mod suites;
mod tickets;
mod upstream;

pub use certificate::{Certificate, Chain, Key};
pub use certificates::{Certificates, Entry};
pub use client::{Authorities, ClientAuth};
pub use failure::Failure;
pub use identity::ClientCertificate;
pub use issued::Issued;
pub use pem::{Unusable, authorities_text};
pub use policy::{ALPN_HTTP1, ALPN_HTTP2, HostPolicy, HostSpec, ServerPolicy, Spec};
pub use session::Session;
pub use suites::{Suites, Version};
pub use tickets::{TicketKey, Tickets};
pub use upstream::{
    Identity, IdentityPart, Trust, TrustedRoots, UpstreamTls, install_provider, system_roots,
};
