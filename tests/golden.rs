//! Golden pairs: a configuration and what the program says of it.
//!
//! `good/NAME.yaml` stands beside `good/NAME.txt`, what `portcullis explain` makes of it; `bad/NAME.yaml` beside the
//! exact errors. Comment lines `# env: NAME=value` at the top of a configuration are the environment it is read in.
//! `UPDATE_GOLDEN=1 cargo test --test golden` writes the texts anew: read every change before it is committed.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]

mod harness;

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::LazyLock;

use harness::tls::{Authority, Order};

/// What configurations name as `${CERTS}/…`, made anew for each run; in the texts it is `CERTS/…`.
static CERTIFICATES: LazyLock<Authority> = LazyLock::new(|| {
    let authority = Authority::new();
    let shop = authority.issue("shop", &["www.shop.test", "*.shop.test"]);
    let api = authority.issue("api", &["api.test"]);
    let rsa = Order { hosts: &["api.test"], rsa: true, ..Order::default() };
    authority.issue_as("api-rsa", &rsa);
    authority.issue("nameless", &[]);
    let read = |file: &Path| fs::read_to_string(file).unwrap();
    let write = |name, text: String| fs::write(authority.path(name), text).unwrap();
    write("chain.pem", read(&shop.cert) + &read(&authority.ca()));
    write("disordered.pem", read(&shop.cert) + &read(&api.cert));
    write("redis.url", "rediss://gate:hunter2@127.0.0.1:6379/1\n".into());
    write("empty.pem", "nothing\n".into());
    write("encrypted.key", read(&shop.key).replace("PRIVATE KEY", "ENCRYPTED PRIVATE KEY"));
    write("damaged.pem", "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n".into());
    authority
});

#[test]
fn good_configurations_mean_what_is_written_beside_them() {
    let cases = cases("good");
    assert!(cases.len() >= 8, "only {} good configurations", cases.len());
    compare(&cases, |case| {
        let output = portcullis(case, &["explain"]);
        let said = text(&output);
        output.status.success().then_some(said.clone()).ok_or(format!("{case} is refused:\n{said}"))
    });
}

#[test]
fn bad_configurations_are_refused_with_the_errors_beside_them() {
    let cases = cases("bad");
    assert!(cases.len() >= 45, "only {} bad configurations", cases.len());
    compare(&cases, |case| {
        let output = portcullis(case, &["check"]);
        let said = text(&output);
        match output.status.code() {
            Some(2) => Ok(said),
            code => Err(format!("{case} ends with {code:?}, not 2:\n{said}")),
        }
    });
}

#[test]
fn what_check_prints_means_the_same_again() {
    for case in cases("good") {
        let printed = portcullis(&case, &["check", "--print"]);
        assert!(printed.status.success(), "{case}: {}", text(&printed));
        let file = tempfile::Builder::new().suffix(".yaml").tempfile().unwrap();
        // A secret is printed as `***`: it is put back, as the operator would have to.
        let readable = text(&printed).replace("'***'", "'0123456789abcdef'").replace('$', "$$");
        let readable = readable.replace("CERTS/", CERTIFICATES.path("").to_str().unwrap());
        fs::write(file.path(), readable).unwrap();
        let again = run(&[], &["explain", "-c", file.path().to_str().unwrap()]);
        assert_eq!(text(&again), expected(&case), "{case}, printed and read again");
    }
}

/// Compares every case with the text beside it, and tells all differences at once.
#[track_caller]
fn compare(cases: &BTreeSet<String>, actual: impl Fn(&str) -> Result<String, String>) {
    let update = std::env::var_os("UPDATE_GOLDEN").is_some();
    let mut faults = Vec::new();
    for case in cases {
        match actual(case) {
            Err(fault) => faults.push(fault),
            Ok(actual) if update => fs::write(beside(case), actual).unwrap(),
            Ok(actual) if actual != expected(case) => {
                faults.push(format!("{case} says:\n{actual}instead of:\n{}", expected(case)));
            }
            Ok(_) => {}
        }
    }
    assert!(
        faults.is_empty(),
        "\n{}\n\nIf this is meant: UPDATE_GOLDEN=1 cargo test --test golden",
        faults.join("\n")
    );
}

/// The configurations in a folder; those in folders below are parts of others.
fn cases(folder: &str) -> BTreeSet<String> {
    let entries = fs::read_dir(root().join(folder)).unwrap().map(|entry| entry.unwrap().path());
    let cases = entries.filter(|path| path.extension().is_some_and(|extension| extension == "yaml"));
    cases.map(|path| format!("{folder}/{}", path.file_name().unwrap().to_str().unwrap())).collect()
}

fn expected(case: &str) -> String {
    fs::read_to_string(beside(case)).unwrap_or_default()
}

fn beside(case: &str) -> PathBuf {
    root().join(case).with_extension("txt")
}

/// Runs the program on a case, in the environment that the case names.
fn portcullis(case: &str, arguments: &[&str]) -> Output {
    let config = fs::read_to_string(root().join(case)).unwrap();
    let environment: Vec<_> = config
        .lines()
        .map_while(|line| line.strip_prefix("# env: "))
        .map(|line| line.split_once('=').unwrap())
        .collect();
    run(&environment, &[arguments, &["-c", case]].concat())
}

fn run(environment: &[(&str, &str)], arguments: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_portcullis"));
    command.args(arguments).current_dir(root()).env_clear().envs(environment.iter().copied());
    command.env("CERTS", CERTIFICATES.path("")).output().unwrap()
}

fn text(output: &Output) -> String {
    let text =
        String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
    text.replace(CERTIFICATES.path("").to_str().unwrap(), "CERTS/")
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden")
}
