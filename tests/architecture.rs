//! The rules of the house, read from its own page and held against the code.
//!
//! In one crate nothing else keeps a room from reaching into another. Each failure says which rule was broken, where,
//! and what to do instead. Tests at the bottom of a file are free to import what they like.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

/// The most lines of a file, its tests aside.
const MOST_LINES: usize = 400;

/// The statics that there may be: file and name. Anything else that is shared is handed over, in `State` or a snapshot.
const STATICS: [(&str, &str); 3] = [
    // What allocates cannot be handed over.
    ("main.rs", "ALLOCATOR"),
    // The number of a worker thread's own buffer, and the next to be given.
    ("telemetry/access_log/writer.rs", "NEXT"),
    ("telemetry/access_log/writer.rs", "NUMBER"),
];

#[test]
fn rooms_import_what_the_table_allows() {
    let table = Table::read();
    let mut faults = Vec::new();
    for file in files() {
        let Some(allowed) = table.row(file.room()) else { continue };
        for (line, import) in file.imports() {
            if import.room != file.room() && !allowed.contains(&import.room) {
                faults.push(format!(
                    "src/{}:{line}: `{}` imports `{}`, and its row in docs/architecture.md does not name it.",
                    file.name,
                    file.room(),
                    import.path
                ));
            }
        }
    }
    report(
        faults,
        "A room that reaches where it should not ties two concerns together. Move the code to the room that owns it, \
         hand the value over as an argument, or define a trait in the lower room. Only when the plan itself has \
         changed, change the table, and say why in docs/decisions/.",
    );
}

#[test]
fn the_table_lists_every_room_and_no_other() {
    let table = Table::read();
    let mut rooms: BTreeSet<String> = files().iter().map(|file| file.room().to_owned()).collect();
    // The crate's root is the list of the rooms, not one of them.
    rooms.remove("lib");
    let listed: BTreeSet<String> = table.rows.iter().map(|(room, _)| room.clone()).collect();
    let faults = rooms.symmetric_difference(&listed).map(|room| match listed.contains(room) {
        true => format!("docs/architecture.md has a row for `{room}`, but there is no such room in src/."),
        false => format!("src/ has the room `{room}`, but docs/architecture.md has no row for it."),
    });
    report(
        faults.collect(),
        "A new room needs a row in the table: what may it import, and who may import it?",
    );
}

#[test]
fn the_table_has_no_circle() {
    let table = Table::read();
    let place = |room: &str| table.rows.iter().position(|(known, _)| known == room);
    let mut faults = Vec::new();
    for (at, (room, allowed)) in table.rows.iter().enumerate() {
        for import in allowed.iter().filter(|import| *import != "pingora") {
            match place(import) {
                None => faults.push(format!("the row of `{room}` names `{import}`, which has no row.")),
                Some(other) if other <= at => {
                    faults.push(format!(
                        "the row of `{room}` names `{import}`, which does not stand below it."
                    ));
                }
                Some(_) => {}
            }
        }
    }
    report(
        faults,
        "Rows name only what stands below them: then no circle can arise, and the house can be read from the ground \
         up. Two rooms that need each other are one room, or miss a third below both.",
    );
}

#[test]
fn a_filter_stands_alone() {
    let mut faults = Vec::new();
    for file in files().iter().filter(|file| file.room() == "filters" && file.name != "filters/mod.rs") {
        for (line, text) in file.code() {
            // Out of its file, or out of its folder.
            if text.contains(&"super::".repeat(file.depth() - 1)) {
                faults.push(format!(
                    "src/{}:{line}: a filter reaches for its neighbours: `{}`",
                    file.name,
                    text.trim()
                ));
            }
        }
    }
    report(
        faults,
        "A filter is one file, or a folder, that knows no other filter. What two of them share belongs to `exchange`, `types` or a \
         room of its own.",
    );
}

#[test]
fn paths_to_other_rooms_start_at_the_crate() {
    let mut faults = Vec::new();
    for file in files() {
        for (line, text) in file.code() {
            if text.contains(&"super::".repeat(file.depth())) {
                faults.push(format!(
                    "src/{}:{line}: `{}` leaves the room by `super`.",
                    file.name,
                    text.trim()
                ));
            }
        }
    }
    report(faults, "Write `crate::room::Name`: then this test sees it, and so does a reader.");
}

#[test]
fn files_are_short() {
    let long = |file: &Source| (file.code().count() > MOST_LINES).then_some(file.code().count());
    let faults = files()
        .iter()
        .filter_map(|file| Some(format!("src/{}: {} lines without its tests.", file.name, long(file)?)))
        .collect();
    report(
        faults,
        "No file is longer than 400 lines, its tests aside: a longer one holds two concerns. Find the second one, give \
         it a name and a file.",
    );
}

#[test]
fn nothing_is_static() {
    let mut faults = Vec::new();
    for file in files() {
        for (line, text) in file.code() {
            let Some(name) = static_name(text) else { continue };
            if !STATICS.contains(&(file.name.as_str(), name)) {
                faults.push(format!("src/{}:{line}: `static {name}`", file.name));
            }
        }
    }
    report(
        faults,
        "A static is shared by every gateway in a process and by all tests, and nobody can see who uses it. A table is a \
         `const`; what changes lives in `State`, in a snapshot, or in the value that owns it.",
    );
}

#[test]
fn nothing_unwraps() {
    let mut faults = Vec::new();
    for file in files() {
        for (line, text) in file.code() {
            if [".unwrap()", ".expect("].iter().any(|call| text.contains(call)) {
                faults.push(format!("src/{}:{line}: {}", file.name, text.trim()));
            }
        }
    }
    report(
        faults,
        "A gateway does not end because one value was missing: return an error that says who is to blame, or give the \
         value a type that cannot miss it. Tests may unwrap.",
    );
}

/// Fails with every fault and the rule that they break.
#[track_caller]
fn report(faults: Vec<String>, rule: &str) {
    assert!(faults.is_empty(), "\n{}\n\n{rule}\n", faults.join("\n"));
}

/// The table in `docs/architecture.md`.
struct Table {
    rows: Vec<(String, BTreeSet<String>)>,
}

impl Table {
    fn read() -> Self {
        let page = fs::read_to_string(root().join("docs/architecture.md")).unwrap();
        let section = page.split("## Who may import whom").nth(1).expect("the page has the section");
        let section = section.split("\n## ").next().unwrap();
        let words =
            |cell: &str| -> Vec<String> { cell.split('`').skip(1).step_by(2).map(str::to_owned).collect() };
        let rows = section.lines().filter(|line| line.starts_with("| `")).map(|line| {
            let cells: Vec<_> = line.trim_matches('|').split('|').collect();
            let room = words(cells[0]).remove(0);
            (room, words(cells[cells.len() - 1]).into_iter().collect())
        });
        let table = Self { rows: rows.collect() };
        assert!(table.rows.len() > 10, "the table in docs/architecture.md cannot be read");
        table
    }

    fn row(&self, room: &str) -> Option<&BTreeSet<String>> {
        self.rows.iter().find(|(known, _)| known == room).map(|(_, allowed)| allowed)
    }
}

/// One file below `src/`.
struct Source {
    /// Its path below `src/`.
    name: String,
    text: String,
}

/// Something imported from elsewhere.
struct Import {
    room: String,
    path: String,
}

impl Source {
    /// The folder or file right below `src/` that it belongs to.
    fn room(&self) -> &str {
        let first = self.name.split('/').next().unwrap();
        first.trim_end_matches(".rs")
    }

    /// How many times `super` leads from this module to the crate's root.
    fn depth(&self) -> usize {
        let folders = self.name.matches('/').count();
        if self.name.ends_with("mod.rs") { folders } else { folders + 1 }
    }

    /// Its lines by number, without comments and without the tests at its bottom.
    fn code(&self) -> impl Iterator<Item = (usize, &str)> {
        // Tests that are too long for that have a file of their own.
        let is_code = !self.name.ends_with("/tests.rs");
        let lines = self.text.lines().take_while(move |line| is_code && !line.starts_with("#[cfg(test)]"));
        lines.enumerate().map(|(at, line)| {
            let comment = line.find("//").filter(|at| line[..*at].trim().is_empty());
            (at + 1, &line[..comment.unwrap_or(line.len())])
        })
    }

    /// What it imports, by line, wherever a path is written.
    fn imports(&self) -> Vec<(usize, Import)> {
        let mut imports = Vec::new();
        for (line, text) in self.code() {
            let root = if self.name == "main.rs" { "portcullis::" } else { "crate::" };
            for after in text.split(root).skip(1) {
                let rooms: Vec<&str> = match after.strip_prefix('{') {
                    // A group at the root names several rooms.
                    Some(group) => group.split(',').map(str::trim).collect(),
                    None => vec![after],
                };
                for path in rooms {
                    let end = path.find(|c: char| !c.is_ascii_alphanumeric() && !"_:".contains(c));
                    let path = &path[..end.unwrap_or(path.len())];
                    let room = path.split("::").next().unwrap().to_owned();
                    imports.push((line, Import { room, path: format!("{root}{path}") }));
                }
            }
            if text.contains("pingora::") || text.contains("pingora_") {
                imports.push((line, Import { room: "pingora".into(), path: text.trim().into() }));
            }
        }
        imports
    }
}

/// The name of a static that a line defines.
fn static_name(line: &str) -> Option<&str> {
    let mut words = line.split_whitespace().skip_while(|word| word.starts_with("pub"));
    let name = words.next().filter(|word| *word == "static").and(words.next())?;
    Some(name.trim_end_matches(':'))
}

fn files() -> Vec<Source> {
    let src = root().join("src");
    let mut found = Vec::new();
    walk(&src, &mut found);
    found.sort();
    let read = |path: &PathBuf| Source {
        name: path.strip_prefix(&src).unwrap().to_str().unwrap().replace('\\', "/"),
        text: fs::read_to_string(path).unwrap(),
    };
    found.iter().map(read).collect()
}

fn walk(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            walk(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(path);
        }
    }
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

#[test]
fn the_reader_of_imports_reads() {
    let text = "use crate::{chain::Link, types};\n// crate::server\nfn f() { crate::edge::g(crate::guard::H) }\n\
                #[cfg(test)]\nmod tests { use crate::server; }\n";
    let source = Source { name: "filters/x.rs".into(), text: text.into() };
    let rooms: BTreeMap<String, usize> =
        source.imports().into_iter().map(|(line, import)| (import.room, line)).collect();
    assert_eq!(
        rooms.into_iter().collect::<Vec<_>>(),
        [("chain".to_owned(), 1), ("edge".to_owned(), 3), ("guard".to_owned(), 3), ("types".to_owned(), 1)]
    );
    assert_eq!(source.depth(), 2);
    assert_eq!(static_name("    pub(crate) static NEXT: u8 = 1;"), Some("NEXT"));
    assert_eq!(static_name("fn f() -> &'static str"), None);
}
