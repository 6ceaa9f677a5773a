//! `ip_restriction`: who may come in, by address.
//!
//! 1. The address is the client's: the peer's, or what a trusted proxy says of it.
//! 2. `deny` wins over `allow`. With an `allow` list, whoever is not on it is refused, and everyone while it is empty.
//! 3. An IPv4-mapped IPv6 address counts as the IPv4 address it carries.
//! 4. A client without an address, over a Unix socket, is refused: whether it is on a list cannot be known.
//! 5. Lists may be in files, one address or range a line. A file that changes is read again; when a line of it is wrong, the
//!    lists in force stay as they are.

use std::path::{Path, PathBuf};
use std::{fs, io};

use schemars::JsonSchema;
use serde::{Deserialize, Deserializer, Serialize};

use crate::chain::{Filter, Flow, Phases, Stage};
use crate::document::{ConfigError, Errors, word_or_map};
use crate::exchange::{Exchange, Reason, Reply, Result};
use crate::registry::{FilterKind, Scope};
use crate::types::{Cidr, Ranges};

/// Lets clients in or refuses them (403) by their address.
#[derive(Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// Who may come in; everyone when nothing is named. Addresses, ranges, or `{ file: lists/offices.txt }` with one of
    /// these a line and comments after `#`.
    allow: Vec<Addresses>,
    /// Who may not, even if `allow` names them; in the same forms.
    deny: Vec<Addresses>,
}

/// An address, a range of them, or `{ file: … }`, a file with one of these a line.
#[derive(Debug, Serialize, JsonSchema)]
#[serde(untagged)]
enum Addresses {
    /// A range.
    Range(Cidr),
    /// Those in a file.
    File(List),
}

/// A file of addresses.
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct List {
    /// The file: one address or range a line, comments after `#`. It is watched.
    file: PathBuf,
}

impl<'de> Deserialize<'de> for Addresses {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> std::result::Result<Self, D::Error> {
        let expected = "an address, a range or `{ file: ... }`";
        word_or_map(deserializer, expected, |text| text.parse().map(Self::Range), |list| Ok(Self::File(list)))
    }
}

/// Refuses clients by address.
pub struct IpRestriction {
    /// Everyone, where there is no list.
    allow: Option<Ranges>,
    deny: Ranges,
}

/// The largest file: some two million ranges.
const LARGEST: u64 = 64 << 20;
/// How many lines of a file are complained of.
const COMPLAINTS: usize = 10;

impl FilterKind for IpRestriction {
    const NAME: &'static str = "ip_restriction";
    const STAGE: Stage = Stage::Admit;
    const EXAMPLE: &'static str = "{ allow: [10.0.0.0/8], deny: [10.1.0.0/16] }";
    type Config = Config;

    fn compile(config: Config, scope: &Scope<'_>) -> std::result::Result<Self, Errors> {
        if config.allow.is_empty() && config.deny.is_empty() {
            return Err(ConfigError::new(
                "",
                "ip_restriction needs `allow` or `deny`: without both it lets everyone in",
            )
            .into());
        }
        let mut errors = Errors::default();
        let allow = ranges("allow", &config.allow, scope, &mut errors);
        let deny = ranges("deny", &config.deny, scope, &mut errors);
        errors.or(Self { allow: (!config.allow.is_empty()).then_some(allow), deny })
    }

    fn files(config: &Config) -> Vec<PathBuf> {
        let files = config.allow.iter().chain(&config.deny).filter_map(|entry| match entry {
            Addresses::File(list) => Some(list.file.clone()),
            Addresses::Range(_) => None,
        });
        files.collect()
    }
}

fn ranges(path: &str, entries: &[Addresses], scope: &Scope<'_>, errors: &mut Errors) -> Ranges {
    let mut all = Vec::with_capacity(entries.len());
    for (at, entry) in entries.iter().enumerate() {
        match entry {
            Addresses::Range(range) => all.push(*range),
            Addresses::File(List { file }) if scope.files => {
                let path = format!("{path}[{at}].file");
                match text(file) {
                    Ok(text) => lines(&text, file, &path, &mut all, errors),
                    Err(error) => {
                        let message = format!("cannot read `{}`: {error}", file.display());
                        errors.push(ConfigError::new(path, message));
                    }
                }
            }
            Addresses::File(_) => {}
        }
    }
    all.into_iter().collect()
}

fn text(file: &Path) -> io::Result<String> {
    let data = fs::metadata(file)?;
    if !data.is_file() || data.len() > LARGEST {
        return Err(io::Error::other("it is not a file of at most 64 MiB"));
    }
    fs::read_to_string(file)
}

fn lines(text: &str, file: &Path, path: &str, all: &mut Vec<Cidr>, errors: &mut Errors) {
    let mut wrong = 0;
    for (number, line) in (1..).zip(text.lines()) {
        let line = line.split('#').next().unwrap_or_default().trim();
        if line.is_empty() {
            continue;
        }
        match line.parse() {
            Ok(range) => all.push(range),
            Err(error) => {
                wrong += 1;
                if wrong <= COMPLAINTS {
                    let shown = file.display();
                    errors.push(ConfigError::new(path, format!("{shown}:{number}: {}", brief(error))));
                }
            }
        }
    }
    if wrong > COMPLAINTS {
        let message = format!("{}: {} more lines are wrong", file.display(), wrong - COMPLAINTS);
        errors.push(ConfigError::new(path, message));
    }
}

/// What is no list may have long lines.
fn brief(error: String) -> String {
    match error.char_indices().nth(200) {
        Some((end, _)) => format!("{}…", &error[..end]),
        None => error,
    }
}

impl Filter for IpRestriction {
    type State = ();

    fn phases(&self) -> Phases {
        Phases::REQUEST
    }

    fn request(&self, (): &mut (), exchange: &mut Exchange<'_>) -> Result<Flow> {
        let admits =
            |ip| !self.deny.contains(ip) && self.allow.as_ref().is_none_or(|allow| allow.contains(ip));
        if exchange.client_ip().is_some_and(admits) {
            return Ok(Flow::Continue);
        }
        Ok(Reply::refuse(Reason::IP_DENIED).into())
    }
}
