//! The life of the real program: start, signals, reload, upgrade, end; what it says to service managers and to people.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a failure here is a failed test")]

mod acme;
mod client;
mod commands;
mod environment;
mod front_door;
mod gateway;
mod handed;
#[path = "../harness/mod.rs"]
mod harness;
mod load;
mod origin;
mod reload;
mod service;
mod start;
mod stop;
mod tls;
mod upgrade;
