//! Portcullis side by side with nginx, HAProxy and bare Pingora, before the same origin.
//!
//! ```text
//! cargo build --release --example bare_pingora
//! cargo bench --bench end_to_end -- --quick
//! ```
//!
//! One worker of each proxy runs on the first core; load generator and origin run on the second, in this process. The
//! figure that counts is the proxy's own CPU time per request: unlike the rate, it does not ask who waited for whom.

// Cargo sets `test` for a bench without the test harness, too, where nothing calls the helpers of tests; and where
// there is a harness (tests/end_to_end_bench.rs), nothing calls `main`.
#![cfg_attr(test, allow(dead_code, unused_imports))]

mod certificate;
mod chart;
mod comparisons;
mod configs;
mod footprint;
mod gates;
mod http2;
mod json;
mod load;
mod measure;
mod options;
mod origin;
mod proxies;
mod reloads;
mod report;
mod requests;
mod response;
mod results;
mod stats;
mod timer;
mod websocket;
mod workloads;

use std::error::Error;
use std::fs;
use std::io;
use std::path::Path;
use std::process::ExitCode;

use tokio::signal::unix::{SignalKind, signal};

use gates::Gate;
use measure::{Cores, Machine};
use options::Options;
use results::Results;

/// Any fault ends the bench: half a measurement is none.
type Result<T, E = Box<dyn Error + Send + Sync>> = std::result::Result<T, E>;

fn main() -> ExitCode {
    // `cargo bench` says so; `cargo test --all-targets` runs this program too, and means no hour of load by it.
    let (said, arguments): (Vec<_>, Vec<_>) =
        std::env::args().skip(1).partition(|argument| argument == "--bench");
    if said.is_empty() {
        eprintln!("nothing is measured without --bench\n\n{}", options::USAGE);
        return ExitCode::SUCCESS;
    }
    let options = match Options::parse(arguments.into_iter()) {
        Ok(options) => options,
        Err(message) => {
            eprintln!("{message}");
            return ExitCode::from(2);
        }
    };
    match bench(&options) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}

/// Measures and writes everything; whether the bounds hold, when they are asked for.
fn bench(options: &Options) -> Result<bool> {
    let (machine, cores) = (Machine::describe()?, Cores::find()?);
    cores.pin_load()?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let results = runtime.block_on(async {
        tokio::select! {
            results = workloads::run(options, machine, cores) => results,
            // Leaving drops the run and with it every process it started.
            interruption = interrupted() => Err(interruption.err().map_or("interrupted".into(), Into::into)),
        }
    })?;
    let gates = gates::check(&results, options);
    write(options, &results, &gates)?;
    Ok(!options.gate || gates.iter().all(Gate::holds))
}

async fn interrupted() -> io::Result<()> {
    let (mut interrupt, mut terminate) = (signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?);
    tokio::select! {
        _ = interrupt.recv() => {}
        _ = terminate.recv() => {}
    }
    Ok(())
}

fn write(options: &Options, results: &Results, gates: &[Gate]) -> Result<()> {
    let section = report::markdown(results, gates);
    println!("{section}");
    if let Some(path) = &options.markdown {
        let document = if path.exists() { fs::read_to_string(path)? } else { "# Benchmarks\n".into() };
        write_file(path, &report::insert(&document, &section))?;
    }
    if let Some(path) = &options.svg {
        write_file(path, &chart::svg(&results.comparisons))?;
    }
    if let Some(path) = &options.json {
        write_file(path, &format!("{:#}\n", json::json(results, gates)))?;
    }
    Ok(())
}

fn write_file(path: &Path, text: &str) -> Result<()> {
    fs::write(path, text).map_err(|error| format!("{}: {error}", path.display()).into())
}
