//! The gateway over real sockets: every test starts its own, before scripted origins.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a failure here is a failed test")]

#[path = "../corpus/mod.rs"]
#[allow(dead_code, unfulfilled_lint_expectations, reason = "shared with another binary")]
mod corpus;
#[path = "../harness/mod.rs"]
mod harness;

mod acme;
mod admin;
mod alarms;
mod answers;
mod any_of;
mod api_key;
mod apis;
mod ask;
mod balance;
mod basic;
mod breakers;
mod browser;
mod canonical_path;
mod compression;
mod concurrency;
mod conditions;
mod consumers;
mod cors;
mod decompression;
mod discovery;
mod doors;
mod events;
mod exchange;
mod failover;
mod filters;
mod forms;
mod forwarded;
mod front_door;
mod grpc;
mod grpc_health;
mod grpc_web;
mod health;
mod health_checks;
mod hedging;
mod http2;
mod http2_clients;
mod library;
mod lifetimes;
mod limits;
mod log_level;
mod malformed;
mod members;
mod mirror;
mod neighbours;
mod overload;
mod parameters;
mod patience;
mod quota;
mod rate_limit;
mod recode;
mod refusals;
mod reload;
mod replay;
mod resources;
mod retries;
mod routing;
mod second_readers;
mod shared_acme;
mod shared_limits;
mod slow_clients;
mod split;
mod sticky;
mod stores_tls;
mod streaming;
mod suspicions;
mod telemetry;
mod timeouts;
mod tls;
mod upstream;
mod upstream_limits;
mod upstream_tls;
mod websocket;
