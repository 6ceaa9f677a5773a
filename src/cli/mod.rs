//! The command line. Exit codes: 0 fine, 1 failed at run time, 2 the configuration or the command line is wrong.

mod ask;
mod check;
mod demo;
mod reference;
mod schema;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{CommandFactory, Parser, Subcommand};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use crate::registry::Registry;
use crate::server::{Server, Source};

#[doc(hidden)]
pub use reference::page;

/// An API gateway and edge proxy.
#[derive(Parser)]
#[command(name = "portcullis", version, about, disable_help_subcommand = true)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

/// Where the configuration is.
#[derive(clap::Args, Clone)]
struct ConfigFile {
    /// The configuration file.
    #[arg(short, long, value_name = "FILE", env = "PORTCULLIS_CONFIG", default_value = "portcullis.yaml")]
    config: PathBuf,
}

#[derive(Subcommand)]
enum Command {
    /// Run the gateway.
    Run(ConfigFile),
    /// Check a configuration and tell every error.
    Check {
        #[command(flatten)]
        file: ConfigFile,
        /// Show the configuration as it would be in force: includes, environment and defaults applied.
        #[arg(long)]
        print: bool,
    },
    /// Say what would become of a request: its route, its filters in order, its upstream. Without a request, say it
    /// of every route.
    Explain {
        #[command(flatten)]
        file: ConfigFile,
        /// The method.
        #[arg(requires = "url")]
        method: Option<String>,
        /// An absolute URL, or a path.
        url: Option<String>,
        /// A header field, `name: value`.
        #[arg(short = 'H', long = "header", value_name = "FIELD")]
        headers: Vec<String>,
        /// The listener it comes on.
        #[arg(short, long)]
        listener: Option<String>,
    },
    /// Print the JSON Schema of the configuration.
    Schema,
    /// Write the reference of the filters, a page each.
    Docs {
        /// The folder to write to.
        #[arg(long, default_value = "docs/filters")]
        out: PathBuf,
        /// Write nothing; fail when a page is not up to date.
        #[arg(long)]
        check: bool,
    },
    /// Run two embedded upstreams and a gateway before them.
    Demo {
        /// The gateway's address.
        #[arg(long, default_value = "127.0.0.1:8080")]
        address: std::net::SocketAddr,
        /// The admin listener's address.
        #[arg(long, default_value = "127.0.0.1:9901")]
        admin: std::net::SocketAddr,
    },
    /// Make the running gateway read its configuration again.
    Reload(ConfigFile),
    /// Make the running gateway start a new process of the program file and hand over to it.
    Upgrade(ConfigFile),
    /// Print the version.
    Version,
    /// Print completions for a shell.
    Completions {
        /// The shell.
        shell: clap_complete::Shell,
    },
}

/// Runs the command line with the filters and handlers that configuration can name.
pub fn main(registry: Registry) -> ExitCode {
    // Clap ends the process itself: 0 for help, 2 for a wrong command line.
    match Arguments::parse().command {
        Command::Run(file) => run(file, registry),
        Command::Check { file, print } => check::check(&file.config, print, registry),
        Command::Explain { file, method: Some(method), url: Some(url), headers, listener } => {
            check::explain(&file.config, registry, method, url, &headers, listener)
        }
        Command::Explain { file, .. } => check::outline(&file.config, registry),
        Command::Schema => show(&schema::schema(&registry)),
        Command::Docs { out, check } => reference::docs(&registry, &out, check),
        Command::Demo { address, admin } => demo::demo(address, admin),
        Command::Reload(file) => ask::reload(&file.config),
        Command::Upgrade(file) => ask::upgrade(&file.config),
        Command::Version => show(&format!("portcullis {}", env!("CARGO_PKG_VERSION"))),
        Command::Completions { shell } => {
            let mut script = Vec::new();
            clap_complete::generate(shell, &mut Arguments::command(), "portcullis", &mut script);
            show(&String::from_utf8_lossy(&script))
        }
    }
}

fn run(file: ConfigFile, registry: Registry) -> ExitCode {
    raise_descriptors();
    match Server::new(Source::File(file.config), registry).run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => failed(&error.to_string(), error.exit_code()),
    }
}

/// Takes as many descriptors as the system allows: the usual 1,024 would soon be used up by connections.
fn raise_descriptors() {
    let limit = getrlimit(Resource::Nofile);
    if limit.current != limit.maximum {
        // It goes on with those it has; that they are few is told when they have run out.
        let _ = setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, ..limit });
    }
}

/// Writes to standard output. A reader that has gone away (`| head`) is no failure.
fn show(text: &str) -> ExitCode {
    use std::io::Write;
    let _ = writeln!(std::io::stdout(), "{}", text.trim_end());
    ExitCode::SUCCESS
}

fn failed(message: &str, code: u8) -> ExitCode {
    use std::io::Write;
    let _ = writeln!(std::io::stderr(), "{}", message.trim_end());
    ExitCode::from(code)
}
