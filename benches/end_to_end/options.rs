//! The command line.

use std::path::PathBuf;
use std::time::Duration;

use super::workloads::NAMES;

pub const USAGE: &str = "\
cargo bench --bench end_to_end -- [OPTIONS]

  --quick               3 rounds of 1 s instead of 7 of 3 s
  --rounds N            rounds of each workload and proxy
  --seconds N           length of a round
  --connections N       connections of the load generator (32)
  --only A,B            these workloads only
  --portcullis PATH     the gateway's binary (or PORTCULLIS_BIN; else the one cargo built)
  --bare PATH           the bare_pingora example's binary (else the one cargo built)
  --markdown PATH       write the tables between the markers of this file
  --svg PATH            write the chart
  --json PATH           write every figure
  --gate                exit 1 when a stated bound fails";

/// What to measure, with which programs, and where to write it.
#[derive(Debug)]
pub struct Options {
    pub rounds: usize,
    pub round: Duration,
    pub connections: usize,
    pub only: Vec<String>,
    pub portcullis: Option<PathBuf>,
    pub bare_pingora: Option<PathBuf>,
    pub markdown: Option<PathBuf>,
    pub svg: Option<PathBuf>,
    pub json: Option<PathBuf>,
    pub gate: bool,
}

impl Options {
    /// `Err` is what to tell the user.
    pub fn parse(mut arguments: impl Iterator<Item = String>) -> Result<Self, String> {
        let mut options = Self::default();
        while let Some(flag) = arguments.next() {
            let mut value = || arguments.next().ok_or_else(|| format!("{flag} needs a value"));
            match flag.as_str() {
                "--quick" => (options.rounds, options.round) = (3, Duration::from_secs(1)),
                "--rounds" => options.rounds = positive(&flag, &value()?)?,
                "--seconds" => options.round = Duration::from_secs(positive(&flag, &value()?)? as u64),
                "--connections" => options.connections = positive(&flag, &value()?)?,
                "--only" => options.only = workload_names(&value()?)?,
                "--portcullis" => options.portcullis = Some(value()?.into()),
                "--bare" => options.bare_pingora = Some(value()?.into()),
                "--markdown" => options.markdown = Some(value()?.into()),
                "--svg" => options.svg = Some(value()?.into()),
                "--json" => options.json = Some(value()?.into()),
                "--gate" => options.gate = true,
                _ => return Err(format!("unknown option {flag}\n\n{USAGE}")),
            }
        }
        Ok(options)
    }

    pub fn wants(&self, workload: &str) -> bool {
        self.only.is_empty() || self.only.iter().any(|name| name == workload)
    }
}

impl Default for Options {
    fn default() -> Self {
        let built = option_env!("CARGO_BIN_EXE_portcullis").map(PathBuf::from);
        Self {
            rounds: 7,
            round: Duration::from_secs(3),
            connections: 32,
            only: Vec::new(),
            portcullis: std::env::var_os("PORTCULLIS_BIN").map(PathBuf::from).or(built),
            bare_pingora: example("bare_pingora"),
            markdown: None,
            svg: None,
            json: None,
            gate: false,
        }
    }
}

/// Where cargo puts an example of the profile that this program was built with: it lies in `PROFILE/deps`.
fn example(name: &str) -> Option<PathBuf> {
    let program = std::env::current_exe().ok()?;
    Some(program.parent()?.parent()?.join("examples").join(name))
}

fn positive(flag: &str, value: &str) -> Result<usize, String> {
    value
        .parse()
        .ok()
        .filter(|number| *number > 0)
        .ok_or_else(|| format!("{flag}: {value} is no positive number"))
}

fn workload_names(list: &str) -> Result<Vec<String>, String> {
    let names: Vec<String> = list.split(',').map(str::to_owned).collect();
    match names.iter().find(|name| !NAMES.contains(&name.as_str())) {
        Some(name) => Err(format!("unknown workload {name}; there are: {}", NAMES.join(", "))),
        None => Ok(names),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(line: &str) -> Result<Options, String> {
        Options::parse(line.split_whitespace().map(str::to_owned))
    }

    #[test]
    fn reads_every_flag() {
        let options = parse(
            "--quick --rounds 5 --seconds 2 --connections 8 --only small,start --portcullis p --bare b \
             --markdown m --svg s --json j --gate",
        )
        .unwrap();
        assert_eq!((options.rounds, options.round, options.connections), (5, Duration::from_secs(2), 8));
        assert!(options.wants("small") && options.wants("start") && !options.wants("large"));
        let paths = [options.portcullis, options.bare_pingora, options.markdown, options.svg, options.json];
        assert_eq!(paths.map(Option::unwrap), ["p", "b", "m", "s", "j"].map(PathBuf::from));
        assert!(options.gate);
    }

    #[test]
    fn without_a_list_every_workload_is_wanted() {
        assert!(NAMES.iter().all(|name| parse("").unwrap().wants(name)));
    }

    #[test]
    fn refuses_what_it_does_not_know() {
        assert!(parse("--fast").unwrap_err().starts_with("unknown option --fast"));
        assert!(parse("--only smal").unwrap_err().contains("there are: small"));
        assert_eq!(parse("--rounds 0").unwrap_err(), "--rounds: 0 is no positive number");
        assert_eq!(parse("--rounds").unwrap_err(), "--rounds needs a value");
    }
}
