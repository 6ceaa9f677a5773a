//! Certificates by ACME (RFC 8555): ordered, proved, kept, served and renewed while the gateway runs.
//!
//! 1. What is wanted is part of a snapshot: a [`Managed`] certificate is a list of hosts and the [`Directory`] to ask.
//!    What has come of it ([`Progress`]) and the certificate itself outlive snapshots.
//! 2. One task a process, the [`Keeper`], does all that is due. Compiling reads the store and nothing else; nobody but
//!    the keeper talks to a directory.
//! 3. The store decides among processes: whoever holds a certificate's lock orders it, the others wait and read what
//!    came of it. A store that machines share is looked into now and then, too, and when the process starts.
//! 4. When to order, renew and try again is computed by `schedule`, which reads no clock. Failures and the time of
//!    the next try are kept in the store, so that a process that restarts does not hammer a directory.
//! 5. Hosts are proved in the handshake (TLS-ALPN-01, RFC 8737) or over plaintext HTTP (HTTP-01). Both answer for what
//!    is under way and nothing else: here, or by another machine that has put its answer into the store they share.

mod attempt;
mod challenges;
mod client;
mod directory;
mod error;
mod keeper;
mod managed;
mod proofs;
mod schedule;
mod store;

pub use challenges::{ACME_TLS, Challenges, WELL_KNOWN};
pub use directory::{Challenge, Directory, ExternalAccount};
pub use keeper::{Keeper, recall};
pub use managed::{Managed, Progress};
pub use proofs::Proofs;
pub use store::Store;
