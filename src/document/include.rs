//! `include` at the top of the main file: other files that add to it.
//!
//! 1. An entry is a path relative to the main file. A `*` in its file name stands for any characters, except a
//!    leading dot. A pattern that matches nothing is fine, a missing file without a `*` is not.
//! 2. Files come in the order of the entries, the matches of a pattern in name order, each file once.
//! 3. Lists are appended, maps are merged; a key of a map that two files define is an error.
//! 4. An included file holds only the [`SECTIONS`], so neither process settings nor another `include`.

use std::collections::{HashMap, HashSet};
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::error::{ConfigError, Errors};
use super::fault::suggest;
use super::node::{Entry, Key, Node, Value};
use super::path::{push_index, push_key};
use super::source::{Mark, Sources};

/// What an included file may hold.
const SECTIONS: [&str; 7] = ["listeners", "consumers", "upstreams", "filters", "chains", "routes", "apis"];

/// A file to include and the entry that asks for it.
pub(super) struct Included {
    /// Where it is.
    pub(super) path: PathBuf,
    /// The document path of the entry.
    pub(super) entry: String,
    /// The place of the entry.
    pub(super) mark: Mark,
}

/// Takes `include` out of the main file's tree and lists the files that it names.
pub(super) fn take(root: &mut Node, main: &Path, errors: &mut Errors) -> Vec<Included> {
    let Some(include) = remove(root, "include") else {
        return Vec::new();
    };
    let Value::List(entries) = &include.value else {
        let message = format!("expected a list, found {}", include.kind());
        errors.push(ConfigError::new("include", message).at(include.mark));
        return Vec::new();
    };
    let directory = main.parent().unwrap_or(Path::new(""));
    let mut seen = HashSet::from([identity(main)]);
    let mut included = Vec::new();
    for (i, node) in entries.iter().enumerate() {
        let mut entry = "include".to_owned();
        push_index(&mut entry, i);
        let found = node.text().ok_or_else(|| "expected the path of a file".to_owned());
        match found.and_then(|text| files(directory, text, main)) {
            Ok(paths) => {
                let new = paths.into_iter().filter(|path| seen.insert(identity(path)));
                included.extend(new.map(|path| Included { path, entry: entry.clone(), mark: node.mark }));
            }
            Err(message) => errors.push(ConfigError::new(entry, message).at(node.mark)),
        }
    }
    included
}

/// Adds the sections of included files to the main file's tree.
pub(super) fn merge(root: &mut Node, included: Vec<Node>, sources: &Sources, errors: &mut Errors) {
    let mut merger =
        Merger { sections: root.entries().iter().cloned().map(Section::new).collect(), sources, errors };
    for file in included {
        merger.add_file(file);
    }
    root.value = Value::Map(merger.sections.into_iter().map(Section::finish).collect());
}

/// The files that an entry names.
fn files(directory: &Path, entry: &str, main: &Path) -> Result<Vec<PathBuf>, String> {
    let path = directory.join(entry);
    let name = path.file_name().and_then(|name| name.to_str()).ok_or("this is not the path of a file")?;
    let parent = path.parent().unwrap_or(directory);
    if parent.strip_prefix(directory).unwrap_or(parent).to_string_lossy().contains('*') {
        return Err("`*` can only stand in the name of a file, not in a directory's".into());
    }
    if !name.contains('*') {
        return match identity(&path) == identity(main) {
            true => Err("a file cannot include itself".into()),
            false => Ok(vec![path]),
        };
    }
    let mut names =
        matching(parent, name).map_err(|error| format!("cannot list `{}`: {error}", parent.display()))?;
    names.sort();
    Ok(names.into_iter().map(|name| parent.join(name)).filter(|path| path.is_file()).collect())
}

fn matching(directory: &Path, pattern: &str) -> io::Result<Vec<String>> {
    // An empty path is the current directory.
    let listed = if directory.as_os_str().is_empty() { Path::new(".") } else { directory };
    let entries = match fs::read_dir(listed) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries?,
    };
    let mut names = Vec::new();
    for entry in entries {
        names.extend(entry?.file_name().into_string().ok().filter(|name| matches(pattern, name)));
    }
    Ok(names)
}

/// Whether a file name fits a pattern in which `*` stands for any characters.
fn matches(pattern: &str, name: &str) -> bool {
    if name.starts_with('.') && !pattern.starts_with('.') {
        return false;
    }
    let Some((start, rest)) = pattern.split_once('*') else {
        return pattern == name;
    };
    let Some(mut name) = name.strip_prefix(start) else {
        return false;
    };
    let (middle, end) = rest.rsplit_once('*').unwrap_or(("", rest));
    // The leftmost match of each part leaves the most room for the next.
    for part in middle.split('*').filter(|part| !part.is_empty()) {
        match name.split_once(part) {
            Some((_, after)) => name = after,
            None => return false,
        }
    }
    name.ends_with(end)
}

/// What tells files apart whatever they are called.
fn identity(path: &Path) -> PathBuf {
    path.canonicalize().unwrap_or_else(|_| path.to_owned())
}

fn remove(root: &mut Node, name: &str) -> Option<Node> {
    let found = root.get(name)?.clone();
    root.value = Value::Map(root.entries().iter().filter(|(key, _)| &*key.text != name).cloned().collect());
    Some(found)
}

struct Merger<'a> {
    sections: Vec<Section>,
    sources: &'a Sources,
    errors: &'a mut Errors,
}

/// A top-level section. It is only taken apart when an included file adds to it.
struct Section {
    key: Key,
    mark: Mark,
    content: Content,
}

enum Content {
    Whole(Value),
    List(Vec<Node>),
    Map(Vec<Entry>, HashMap<Arc<str>, Mark>),
}

impl Merger<'_> {
    fn add_file(&mut self, file: Node) {
        match &file.value {
            Value::Map(sections) => sections.iter().for_each(|section| self.add_section(section)),
            Value::Null => {}
            _ => {
                let message = format!("an included file must hold a map, found {}", file.kind());
                self.errors.push(ConfigError::new("", message).at(file.mark));
            }
        }
    }

    fn add_section(&mut self, (key, node): &Entry) {
        let name = &*key.text;
        if !SECTIONS.contains(&name) {
            let message = match name {
                "include" => "an included file cannot include others".to_owned(),
                _ => format!("`{name}` cannot stand in an included file"),
            };
            let error = ConfigError::new(name, message).at(key.mark);
            self.errors.push(match suggest(name, &SECTIONS) {
                Some(hint) if name != "include" => error.with_hint(hint),
                _ => error,
            });
            return;
        }
        let at = self.sections.iter().position(|section| section.key.text == key.text);
        let error = match at.and_then(|at| self.sections.get_mut(at)) {
            Some(section) => section.add(node, self.sources, self.errors).err(),
            None => {
                self.sections.push(Section::new((key.clone(), node.clone())));
                None
            }
        };
        if let Some(message) = error {
            self.errors.push(ConfigError::new(name, message).at(node.mark));
        }
    }
}

impl Section {
    fn new((key, node): Entry) -> Self {
        Self { key, mark: node.mark, content: Content::Whole(node.value) }
    }

    fn finish(self) -> Entry {
        let value = match self.content {
            Content::Whole(value) => value,
            Content::List(items) => Value::List(items.into()),
            Content::Map(entries, _) => Value::Map(entries.into()),
        };
        (self.key, Node { mark: self.mark, value })
    }

    fn add(&mut self, node: &Node, sources: &Sources, errors: &mut Errors) -> Result<(), String> {
        if matches!((&self.content, &node.value), (_, Value::Null)) {
            return Ok(());
        }
        if matches!(self.content, Content::Whole(Value::Null)) {
            (self.mark, self.content) = (node.mark, Content::Whole(node.value.clone()));
            return Ok(());
        }
        self.take_apart();
        match (&mut self.content, &node.value) {
            (Content::List(items), Value::List(more)) => items.extend(more.iter().cloned()),
            (Content::Map(entries, places), Value::Map(more)) => {
                for entry in more.iter() {
                    add_entry(entries, places, entry, &self.key.text, sources, errors);
                }
            }
            (Content::List(_), _) => return Err(format!("expected a list, found {}", node.kind())),
            (Content::Map(..), _) => return Err(format!("expected a map, found {}", node.kind())),
            (Content::Whole(_), _) => {
                return Err(format!("cannot be added to what stands at {}", sources.describe(self.mark)));
            }
        }
        Ok(())
    }

    fn take_apart(&mut self) {
        if let Content::Whole(value) = &self.content {
            self.content = match value {
                Value::List(items) => Content::List(items.to_vec()),
                Value::Map(entries) => {
                    let places = entries.iter().map(|(key, _)| (key.text.clone(), key.mark)).collect();
                    Content::Map(entries.to_vec(), places)
                }
                Value::Null | Value::Scalar { .. } => return,
            };
        }
    }
}

fn add_entry(
    entries: &mut Vec<Entry>,
    places: &mut HashMap<Arc<str>, Mark>,
    entry: &Entry,
    section: &str,
    sources: &Sources,
    errors: &mut Errors,
) {
    let key = &entry.0;
    if let Some(first) = places.insert(key.text.clone(), key.mark) {
        let mut path = section.to_owned();
        push_key(&mut path, &key.text);
        let message = format!("`{}` is already defined at {}", key.text, sources.describe(first));
        errors.push(ConfigError::new(path, message).at(key.mark));
        return;
    }
    entries.push(entry.clone());
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::document::{Document, Environment};
    use std::sync::atomic::{AtomicU32, Ordering};

    /// A directory of its own that goes away with the test.
    struct Directory(PathBuf);

    impl Directory {
        fn with(files: &[(&str, &str)]) -> Self {
            static NEXT: AtomicU32 = AtomicU32::new(0);
            let name = format!("document-{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
            let directory = Self(std::env::temp_dir().join(name));
            for (file, text) in files {
                let path = directory.0.join(file);
                fs::create_dir_all(path.parent().unwrap()).unwrap();
                fs::write(path, text).unwrap();
            }
            directory
        }

        fn load(&self) -> Result<Document, String> {
            let document = Document::load(&self.0.join("conf/main.yaml"), &Environment::default());
            document.map_err(|failure| failure.to_string().replace(&format!("{}/", self.0.display()), ""))
        }
    }

    impl Drop for Directory {
        fn drop(&mut self) {
            let _ = fs::remove_dir_all(&self.0);
        }
    }

    fn names(document: &Document, section: &str) -> Vec<String> {
        let items = document.root.nearest(section).items().iter();
        items.map(|item| item.get("name").and_then(Node::text).unwrap().to_owned()).collect()
    }

    #[test]
    fn appends_in_name_order_and_merges_maps() {
        let directory = Directory::with(&[
            (
                "conf/main.yaml",
                "include: [routes/*.yaml, ../more.yaml, routes/a.yaml, none/*.yaml]\nroutes: [{ name: main }]\n\
                 upstreams: { m: {} }\n",
            ),
            ("conf/routes/b.yaml", "routes: [{ name: b }]\nupstreams: { b: {} }\n"),
            ("conf/routes/a.yaml", "routes: [{ name: a }]\nchains: { x: [] }\n"),
            ("conf/routes/.hidden.yaml", "routes: [{ name: hidden }]\n"),
            ("conf/routes/c.yml", "routes: [{ name: c }]\n"),
            ("conf/routes/empty.yaml", "# nothing\n"),
            ("more.yaml", "routes: [{ name: more }]\nupstreams: { more: {} }\n"),
        ]);
        let document = directory.load().unwrap();
        assert_eq!(names(&document, "routes"), ["main", "a", "b", "more"]);
        let upstreams: Vec<_> =
            document.root.nearest("upstreams").entries().iter().map(|(k, _)| &*k.text).collect();
        assert_eq!(upstreams, ["m", "b", "more"]);
        assert!(document.root.get("chains").unwrap().get("x").is_some());
        assert!(document.root.get("include").is_none());
        let files: Vec<_> =
            document.files.iter().map(|path| path.strip_prefix(&directory.0).unwrap()).collect();
        let expected =
            ["conf/main.yaml", "conf/routes/a.yaml", "conf/routes/b.yaml", "conf/routes/empty.yaml"];
        assert_eq!(files[..4], expected.map(Path::new));
        assert!(
            document.sources.describe(document.mark_of("routes[2].name")).ends_with("routes/b.yaml:1:18")
        );
    }

    #[test]
    fn a_pattern_passes_over_the_main_file() {
        let directory = Directory::with(&[
            ("conf/main.yaml", "include: ['*.yaml']\n"),
            ("conf/other.yaml", "routes: [{ name: other }]\n"),
        ]);
        assert_eq!(names(&directory.load().unwrap(), "routes"), ["other"]);
    }

    #[test]
    fn reports_everything_that_cannot_be_included() {
        let directory = Directory::with(&[
            (
                "conf/main.yaml",
                "include: [gone.yaml, a.yaml, b.yaml, c.yaml, '*/x.yaml', [], main.yaml]\nupstreams:\n  o: {}\n",
            ),
            ("conf/a.yaml", "server: {}\nroute: []\nupstreams:\n  o: {}\n  p: {}\n"),
            ("conf/b.yaml", "include: [c.yaml]\nroutes: {}\nupstreams: { p: {}, q: '${NOPE}' }\n"),
            ("conf/c.yaml", "- 1\n"),
        ]);
        let found = directory.load().unwrap_err();
        for expected in [
            "conf/main.yaml:1:11: include[0]: cannot read `conf/gone.yaml`: there is no such file",
            "conf/main.yaml:1:46: include[4]: `*` can only stand in the name of a file",
            "conf/main.yaml:1:58: include[5]: expected the path of a file",
            "conf/main.yaml:1:62: include[6]: a file cannot include itself",
            "conf/a.yaml:1:1: server: `server` cannot stand in an included file",
            "conf/a.yaml:2:1: route: `route` cannot stand in an included file\n  hint: did you mean `routes`?",
            "conf/a.yaml:4:3: upstreams.o: `o` is already defined at conf/main.yaml:3:3",
            "conf/b.yaml:1:1: include: an included file cannot include others",
            "conf/b.yaml:3:14: upstreams.p: `p` is already defined at conf/a.yaml:5:3",
            "conf/c.yaml:1:1: an included file must hold a map, found a list",
        ] {
            assert!(found.contains(expected), "{expected}\nnot in\n{found}");
        }
        assert!(
            found.contains("conf/b.yaml:3:24: upstreams.q: environment variable `NOPE` is not set"),
            "{found}"
        );
    }

    #[test]
    fn sections_must_be_of_one_kind() {
        let directory = Directory::with(&[
            ("conf/main.yaml", "include: [a.yaml]\nroutes: []\nupstreams: {}\nchains: 1\nfilters:\n"),
            ("conf/a.yaml", "routes: { a: 1 }\nupstreams: [1]\nchains: { b: [] }\nfilters: [cors]\n"),
        ]);
        let found = directory.load().unwrap_err();
        for expected in [
            "conf/a.yaml:1:9: routes: expected a list, found a map",
            "conf/a.yaml:2:12: upstreams: expected a map, found a list",
            "conf/a.yaml:3:9: chains: cannot be added to what stands at conf/main.yaml:4:9",
        ] {
            assert!(found.contains(expected), "{expected}\nnot in\n{found}");
        }
        assert_eq!(found.lines().count(), 3);
    }

    #[test]
    fn include_must_be_a_list() {
        let directory = Directory::with(&[("conf/main.yaml", "include: a.yaml\n")]);
        assert_eq!(
            directory.load().unwrap_err(),
            "conf/main.yaml:1:10: include: expected a list, found a single value"
        );
    }

    #[test]
    fn a_star_stands_for_any_characters() {
        for (pattern, name, expected) in [
            ("*.yaml", "a.yaml", true),
            ("*.yaml", ".yaml", false),
            ("*.yaml", "a.yml", false),
            ("a*b*c", "abc", true),
            ("a*b*c", "a-b-b-c", true),
            ("a*b*c", "a-c-b", false),
            ("a*a", "a", false),
            ("**", "x", true),
            ("*", ".x", false),
            (".*", ".x", true),
            ("*b", "bb", true),
            ("*ab*ab", "abab", true),
            ("*ab*ab", "ab", false),
        ] {
            assert_eq!(matches(pattern, name), expected, "{pattern} {name}");
        }
    }
}
