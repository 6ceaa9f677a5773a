//! What the guides show is what happens: their configurations are loaded, their commands are run.
//!
//! `make docs` (or this test with `PORTCULLIS_WRITE_DOCS` set) puts what the commands say now into the pages.

#![allow(clippy::unwrap_used, clippy::panic, reason = "failing is what a test is for")]

mod harness;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use harness::tls::Authority;

const FENCE: &str = "```";
/// Ends the output of one command in that of many; no command prints it.
const END: char = '\u{1e}';

#[test]
fn the_guides_show_what_happens() {
    for page in pages() {
        let written = fs::read_to_string(&page).unwrap();
        let shown = Guide::default().replay(&written);
        if std::env::var_os("PORTCULLIS_WRITE_DOCS").is_some() {
            fs::write(&page, &shown).unwrap();
            continue;
        }
        let differs = written.lines().zip(shown.lines()).find(|(written, shown)| written != shown);
        assert!(written == shown, "{}: {differs:?}; run `make docs`", page.display());
    }
}

/// The README and the guides.
fn pages() -> Vec<PathBuf> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let guides = fs::read_dir(root.join("docs/guides")).unwrap().map(|entry| entry.unwrap().path());
    let pages: Vec<_> = guides.chain([root.join("README.md")]).collect();
    assert!(pages.len() > 4);
    pages
}

/// A page being followed: its files so far.
struct Guide {
    folder: tempfile::TempDir,
}

impl Default for Guide {
    fn default() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let certificates = folder.path().join("certs");
        fs::create_dir(&certificates).unwrap();
        let authority = Authority::new();
        fs::copy(authority.ca(), certificates.join("partners.pem")).unwrap();
        for name in ["shop", "api"] {
            let files =
                authority.issue(name, &[if name == "shop" { "www.example.com" } else { "api.example.com" }]);
            fs::copy(files.cert, certificates.join(format!("{name}.pem"))).unwrap();
            fs::copy(files.key, certificates.join(format!("{name}.key"))).unwrap();
        }
        Self { folder }
    }
}

impl Guide {
    /// The same page, with what its commands say now.
    fn replay(&self, page: &str) -> String {
        let mut shown = String::new();
        let mut rest = page;
        while let Some((before, after)) = rest.split_once(FENCE) {
            let (block, after) = after.split_once(FENCE).unwrap();
            let (language, content) = block.split_once('\n').unwrap();
            let content = match language {
                "yaml" => {
                    self.file(content);
                    content.to_owned()
                }
                "console" if can_be_run(content) => self.run(content),
                _ => content.to_owned(),
            };
            shown.push_str(&format!("{before}{FENCE}{language}\n{content}{FENCE}"));
            rest = after;
        }
        shown + rest
    }

    /// A whole configuration becomes a file, named by its first line if that is a comment. It is fine, unless it is
    /// called `bad.yaml`.
    fn file(&self, content: &str) {
        if !content.contains("listeners:") || !content.contains("address:") {
            return;
        }
        let name = content.lines().next().and_then(|line| line.strip_prefix("# "));
        let name = name.filter(|name| name.ends_with(".yaml")).unwrap_or("portcullis.yaml");
        fs::write(self.folder.path().join(name), content).unwrap();
        let said = self.shell(&format!("portcullis check -c {name}\n"));
        assert_eq!(said[0].contains(": fine ("), name != "bad.yaml", "{name}: {}", said[0]);
    }

    fn run(&self, content: &str) -> String {
        let script: String = commands(content).map(|command| format!("{command}\n")).collect();
        let said = self.shell(&script);
        commands(content).zip(said).map(|(command, said)| format!("$ {command}\n{said}")).collect()
    }

    /// What each line of a script says.
    fn shell(&self, script: &str) -> Vec<String> {
        let program = Path::new(env!("CARGO_BIN_EXE_portcullis")).parent().unwrap();
        let path = format!("{}:{}", program.display(), std::env::var("PATH").unwrap());
        // The status of each command is there for the next to ask for.
        let line = |line| format!("{line}\nstatus=$?; printf '{END}'; (exit $status)\n");
        let script: String = script.lines().map(line).collect();
        let output = Command::new("sh")
            .args(["-c", &format!("exec 2>&1\n{script}")])
            .current_dir(self.folder.path())
            .env_clear()
            .env("PATH", path)
            .output()
            .unwrap();
        String::from_utf8(output.stdout).unwrap().split(END).map(str::to_owned).collect()
    }
}

/// Whether all of a console's commands only look at configurations.
fn can_be_run(content: &str) -> bool {
    let harmless = ["portcullis check", "portcullis explain", "echo $?"];
    commands(content).all(|command| harmless.iter().any(|harmless| command.contains(harmless)))
}

fn commands(content: &str) -> impl Iterator<Item = &str> {
    content.lines().filter_map(|line| line.strip_prefix("$ "))
}
