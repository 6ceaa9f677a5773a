//! The gateway over real sockets: every test starts its own, before scripted origins.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a failure here is a failed test")]

#[path = "../harness/mod.rs"]
mod harness;

mod admin;
mod answers;
mod ask;
mod canonical_path;
mod exchange;
mod failover;
mod filters;
mod forwarded;
mod library;
mod log_level;
mod reload;
mod routing;
mod suspicions;
mod telemetry;
mod timeouts;
