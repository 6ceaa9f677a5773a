//! YAML text to a tree of [`Node`]s.
//!
//! 1. One document a source. JSON is accepted, as it is YAML.
//! 2. Keys are scalars and occur once; variables are expanded in values, never in keys.
//! 3. Aliases share what they repeat. How much they repeat is bounded, since everything after this room walks it.
//! 4. `<<` takes a map or a list of maps; explicit keys win, then earlier maps over later ones.
//! 5. Tags other than those of the core schema are refused.
//!
//! A text that is not YAML yields one error and no tree. Anything else wrong is collected, and the tree goes on.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use saphyr_parser::{Event, Marker, Parser, ScalarStyle, ScanError, Tag};

use super::environment::Environment;
use super::error::{ConfigError, Errors};
use super::interpolate;
use super::node::{Key, Node, Value};
use super::path::push_key;
use super::source::{Mark, SourceId};
use super::stack::{Begun, Ended, Pending, Stack};
use super::syntax;

/// How deep lists and maps may nest, aliases included. Later walks recurse, so this bounds their stack.
pub(super) const MAX_DEPTH: usize = 64;

/// How many values all aliases together may repeat.
const MAX_ALIASED: usize = 2_000_000;

const KEY_MUST_BE_SCALAR: &str = "a key must be a single value, not a list or a map";

/// Parses a text. Without an environment `$` means nothing.
pub(super) fn parse(
    source: SourceId,
    text: &str,
    environment: Option<&Environment>,
    errors: &mut Errors,
) -> Option<Node> {
    let mut builder = Builder::new(source, environment, errors);
    for event in Parser::new_from_str(text) {
        let result = match event {
            Ok((event, span)) => builder.event(event, span.start),
            Err(error) => Err(builder.syntax_error(&error)),
        };
        if let Err(error) = result {
            builder.errors.push(error);
            return None;
        }
    }
    let empty = Node { mark: Mark::start_of(source), value: Value::Null };
    Some(builder.stack.into_root().unwrap_or(empty))
}

struct Builder<'a> {
    source: SourceId,
    environment: Option<&'a Environment>,
    errors: &'a mut Errors,
    stack: Stack,
    anchors: HashMap<usize, Anchored>,
    /// Key texts already met: large configurations repeat the same few thousands of times.
    keys: HashSet<Arc<str>>,
    /// Values so far, counting each repetition by an alias.
    values: usize,
    /// How many of them aliases repeated.
    aliased: usize,
    documents: usize,
}

/// What an anchor names.
struct Anchored {
    node: Node,
    values: usize,
    height: usize,
}

impl<'a> Builder<'a> {
    fn new(source: SourceId, environment: Option<&'a Environment>, errors: &'a mut Errors) -> Self {
        Self {
            source,
            environment,
            errors,
            stack: Stack::default(),
            anchors: HashMap::new(),
            keys: HashSet::new(),
            values: 0,
            aliased: 0,
            documents: 0,
        }
    }

    /// Takes one event of the parser; an error ends the parse.
    fn event(&mut self, event: Event<'_>, at: Marker) -> Result<(), ConfigError> {
        let mark = self.mark(at);
        match event {
            Event::DocumentStart(_) => self.document(mark),
            Event::Scalar(text, style, anchor, tag) => {
                let plain = is_plain(style, tag.as_deref()).map_err(|message| self.error(mark, message))?;
                self.scalar(&text, plain, anchor, mark)
            }
            Event::Alias(anchor) => self.alias(anchor, mark),
            Event::SequenceStart(anchor, tag) => {
                let begun = self.begin(anchor, tag.as_deref(), "seq", mark)?;
                self.stack.begin_list(begun);
                Ok(())
            }
            Event::MappingStart(anchor, tag) => {
                let begun = self.begin(anchor, tag.as_deref(), "map", mark)?;
                self.stack.begin_map(begun);
                Ok(())
            }
            Event::SequenceEnd | Event::MappingEnd => {
                if let Some(ended) = self.stack.end() {
                    self.end(ended);
                }
                Ok(())
            }
            Event::Nothing | Event::StreamStart | Event::StreamEnd | Event::DocumentEnd => Ok(()),
        }
    }

    fn document(&mut self, mark: Mark) -> Result<(), ConfigError> {
        self.documents += 1;
        match self.documents {
            1 => Ok(()),
            _ => Err(self
                .error(mark, "a second document starts here; a file holds one")
                .with_hint("remove the `---`, or split the file and use `include`")),
        }
    }

    fn scalar(&mut self, text: &str, plain: bool, anchor: usize, mark: Mark) -> Result<(), ConfigError> {
        if self.stack.awaits_key() {
            if anchor != 0 {
                let node = Node { mark, value: scalar_value(text, plain) };
                self.anchors.insert(anchor, Anchored { node, values: 1, height: 0 });
            }
            return self.key(text, plain, mark);
        }
        let value = self.expanded(text, plain, mark);
        self.values += 1;
        self.place(Node { mark, value }, anchor, 1, 0);
        Ok(())
    }

    fn expanded(&mut self, text: &str, plain: bool, mark: Mark) -> Value {
        match self.environment.map(|environment| interpolate::expand(text, environment)) {
            None => scalar_value(text, plain),
            Some(Ok(expanded)) => scalar_value(&expanded, plain),
            Some(Err(message)) => {
                let error = self.error(mark, message);
                self.errors.push(error);
                scalar_value(text, plain)
            }
        }
    }

    fn key(&mut self, text: &str, plain: bool, mark: Mark) -> Result<(), ConfigError> {
        if plain && text.is_empty() {
            return Err(self.error(mark, "a key is missing here"));
        }
        // A quoted `<<` is an ordinary key.
        let key = match plain && text == "<<" {
            true => Pending::Merge,
            false => Pending::Key(Key { text: self.intern(text), mark }),
        };
        match self.stack.key(key) {
            true => Ok(()),
            false => Err(self.error(mark, "duplicate key `<<`").with_hint("`<<: [*a, *b]` merges several")),
        }
    }

    fn alias(&mut self, anchor: usize, mark: Mark) -> Result<(), ConfigError> {
        let Some(Anchored { node, values, height }) = self.anchors.get(&anchor) else {
            return Err(self.error(mark, "an alias cannot stand inside the value that it repeats"));
        };
        let (node, values, height) = (node.clone(), *values, *height);
        if self.stack.awaits_key() {
            return match node.value {
                Value::Scalar { text, plain } => self.key(&text, plain, mark),
                _ => Err(self.error(mark, KEY_MUST_BE_SCALAR)),
            };
        }
        self.values += values;
        self.aliased += values;
        if self.aliased > MAX_ALIASED {
            return Err(self.error(mark, format!("aliases repeat more than {MAX_ALIASED} values")));
        }
        if self.stack.depth() + height > MAX_DEPTH {
            return Err(self.too_deep(mark));
        }
        self.stack.place(node, height);
        Ok(())
    }

    fn begin(
        &mut self,
        anchor: usize,
        tag: Option<&Tag>,
        kind: &str,
        mark: Mark,
    ) -> Result<Begun, ConfigError> {
        if let Some(tag) = tag.filter(|tag| !(tag.is_yaml_core_schema() && tag.suffix == kind)) {
            return Err(self.error(mark, unsupported(tag)));
        }
        if self.stack.awaits_key() {
            return Err(self.error(mark, KEY_MUST_BE_SCALAR));
        }
        if self.stack.depth() == MAX_DEPTH {
            return Err(self.too_deep(mark));
        }
        let values_before = self.values;
        self.values += 1;
        Ok(Begun { mark, anchor, values_before })
    }

    fn end(&mut self, ended: Ended) {
        let Ended { begun, value, height, duplicates, bad_merge } = ended;
        for (first, key) in duplicates {
            let mut path = self.stack.path();
            push_key(&mut path, &key.text);
            let message = format!("duplicate key `{}`, first written in line {}", key.text, first.mark.line);
            self.errors.push(ConfigError::new(path, message).at(key.mark));
        }
        if let Some(mark) = bad_merge {
            let error = self.error(mark, "`<<` takes a map or a list of maps");
            self.errors.push(error);
        }
        let values = self.values - begun.values_before;
        self.place(Node { mark: begun.mark, value }, begun.anchor, values, height);
    }

    fn place(&mut self, node: Node, anchor: usize, values: usize, height: usize) {
        if anchor != 0 {
            self.anchors.insert(anchor, Anchored { node: node.clone(), values, height });
        }
        self.stack.place(node, height);
    }

    fn intern(&mut self, text: &str) -> Arc<str> {
        if let Some(known) = self.keys.get(text) {
            return known.clone();
        }
        let text: Arc<str> = text.into();
        self.keys.insert(text.clone());
        text
    }

    fn syntax_error(&self, error: &ScanError) -> ConfigError {
        let (message, hint) = syntax::describe(error.info());
        ConfigError { path: String::new(), message, hint, mark: Some(self.mark(*error.marker())) }
    }

    fn too_deep(&self, mark: Mark) -> ConfigError {
        // The path would be as absurd as the nesting.
        ConfigError::new("", format!("lists and maps nest deeper than {MAX_DEPTH}")).at(mark)
    }

    fn error(&self, mark: Mark, message: impl Into<String>) -> ConfigError {
        ConfigError::new(self.stack.path(), message).at(mark)
    }

    fn mark(&self, at: Marker) -> Mark {
        let number = |n: usize| u32::try_from(n).unwrap_or(u32::MAX);
        Mark { source: self.source, line: number(at.line()), column: number(at.col() + 1) }
    }
}

fn scalar_value(text: &str, plain: bool) -> Value {
    if plain { Value::plain(text) } else { Value::quoted(text) }
}

/// Whether a scalar is typed by its looks; `!!str` makes it a string, the other core tags undo quotes.
fn is_plain(style: ScalarStyle, tag: Option<&Tag>) -> Result<bool, String> {
    match tag {
        None => Ok(style == ScalarStyle::Plain),
        Some(tag) if tag.is_yaml_core_schema() => match tag.suffix.as_str() {
            "str" => Ok(false),
            "null" | "bool" | "int" | "float" => Ok(true),
            _ => Err(unsupported(tag)),
        },
        Some(tag) => Err(unsupported(tag)),
    }
}

fn unsupported(tag: &Tag) -> String {
    let handle = if tag.is_yaml_core_schema() { "!!" } else { &tag.handle };
    format!("the tag `{handle}{}` means nothing here", tag.suffix)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::document::{Source, Sources};
    use proptest::prelude::*;

    fn parsed(text: &str) -> Result<Node, String> {
        let mut sources = Sources::default();
        let mut errors = Errors::default();
        let environment = [("PORT", "80"), ("NAME", "a: [b"), ("NOTHING", "")].into_iter().collect();
        let source = sources.add(Source::File("c.yaml".into()));
        let node = parse(source, text, Some(&environment), &mut errors);
        match node {
            Some(node) if errors.is_empty() => Ok(node),
            _ => Err(errors.render(&sources)),
        }
    }

    fn complaint(text: &str) -> String {
        parsed(text).unwrap_err()
    }

    #[test]
    fn keeps_places_in_characters() {
        let root = parsed("é: {k: v}\nlist:\n  - \"ü\": 1\n").unwrap();
        let place = |node: &Node| (node.mark.line, node.mark.column);
        assert_eq!(place(&root), (1, 1));
        assert_eq!(place(root.get("é").unwrap().get("k").unwrap()), (1, 8));
        let item = &root.get("list").unwrap().items()[0];
        assert_eq!(place(item), (3, 5));
        assert_eq!(place(item.get("ü").unwrap()), (3, 10));
    }

    #[test]
    fn tells_plain_from_quoted_and_nothing() {
        let root = parsed("[1, '1', \"1\", ~, null, '', !!str 1, !!int '1', {a: , b: ''}]").unwrap();
        let quoted = |text: &str| Value::quoted(text);
        let plain = |text: &str| Value::plain(text);
        let values: Vec<_> = root.items().iter().take(8).map(|node| node.value.clone()).collect();
        let expected = [
            plain("1"),
            quoted("1"),
            quoted("1"),
            Value::Null,
            Value::Null,
            quoted(""),
            quoted("1"),
            plain("1"),
        ];
        assert_eq!(values, expected);
        assert_eq!(root.items()[8].get("a").unwrap().value, Value::Null);
    }

    #[test]
    fn reads_json_with_tabs_and_a_byte_order_mark() {
        let root =
            parsed("\u{feff}{\n\t\"a\": [1, true, null],\n\t\"b\": {\"c\": \"d\\/e\\u00e9\"}\n}\n").unwrap();
        assert_eq!(root.get("a").unwrap().items().len(), 3);
        assert_eq!(root.get("b").unwrap().get("c").unwrap().text(), Some("d/eé"));
    }

    #[test]
    fn aliases_repeat_and_merges_merge() {
        let root = parsed(
            "base: &base { a: 1, b: 1 }\nother: &other { b: 2, c: 2 }\n\
             one: { <<: *base, a: 0 }\nboth: { a: 9, <<: [*base, *other] }\nagain: *base\n'<<': text\n&k key: *k\n",
        )
        .unwrap();
        let pairs = |key: &str| -> Vec<(String, String)> {
            let entries = root.get(key).unwrap().entries().iter();
            entries.map(|(k, v)| (k.text.to_string(), v.text().unwrap().to_string())).collect()
        };
        let owned = |pairs: &[(&str, &str)]| -> Vec<(String, String)> {
            pairs.iter().map(|&(k, v)| (k.to_owned(), v.to_owned())).collect()
        };
        assert_eq!(pairs("one"), owned(&[("a", "0"), ("b", "1")]));
        assert_eq!(pairs("both"), owned(&[("a", "9"), ("b", "1"), ("c", "2")]));
        assert_eq!(pairs("again"), pairs("base"));
        assert_eq!(root.get("<<").unwrap().text(), Some("text"));
        assert_eq!(root.get("key").unwrap().text(), Some("key"));
    }

    #[test]
    fn expands_variables_without_injection() {
        let root =
            parsed("plain: ${PORT}\nquoted: '${PORT}'\nname: ${NAME}\nnothing: ${NOTHING}\n'${PORT}': $$\n")
                .unwrap();
        assert_eq!(root.get("plain").unwrap().value, Value::plain("80"));
        assert_eq!(root.get("quoted").unwrap().value, Value::quoted("80"));
        assert_eq!(root.get("name").unwrap().text(), Some("a: [b"));
        assert_eq!(root.get("nothing").unwrap().value, Value::Null);
        assert_eq!(root.get("${PORT}").unwrap().text(), Some("$"));
    }

    #[test]
    fn complains_with_a_place() {
        for (text, expected) in [
            ("a:\n\tb: 1\n", "c.yaml:2:2: a tab cannot indent"),
            ("a: 1\n---\nb: 2\n", "c.yaml:2:1: a second document starts here"),
            ("? [a]\n: b\n", "c.yaml:1:3: a key must be a single value"),
            ("{{a: b}: c}", "c.yaml:1:2: a key must be a single value"),
            ("a: &a {}\n*a : 1\n", "c.yaml:2:1: a key must be a single value"),
            (": 1\n", "c.yaml:1:1: a key is missing here"),
            ("a: *b\n", "c.yaml:1:4: this alias names no anchor"),
            ("a: &a [*a]\n", "c.yaml:1:8: a[0]: an alias cannot stand inside"),
            ("a:\n- {b: !x 1}\n", "c.yaml:2:7: a[0].b: the tag `!x` means nothing here"),
            ("a: !!set {}\n", "c.yaml:1:4: a: the tag `!!set` means nothing here"),
            ("a: {<<: 1}\n", "c.yaml:1:9: a: `<<` takes a map or a list of maps"),
            ("a: &a {}\nb: {<<: *a, <<: *a}\n", "c.yaml:2:13: b: duplicate key `<<`"),
            ("a: 'x\n", "c.yaml:1:4: a quoted text is never closed"),
            ("a: b: c\n", "c.yaml:1:5: a `:` is out of place"),
            ("a: {b: ${X}}\n", "c.yaml:1:9: a `,` or `}` is missing"),
            ("a: @b\n", "c.yaml:1:4: a plain text cannot begin with this character"),
        ] {
            let found = complaint(text);
            assert!(found.starts_with(expected), "{text:?}: {found}");
        }
    }

    #[test]
    fn goes_on_after_what_is_not_syntax() {
        let found = complaint("a: ${X}\nb: [ok, \"${Y}\"]\nc: 1\nc: 2\nd: { e: 1, e: 1 }\nf: ${\n");
        let expected = "c.yaml:1:4: a: environment variable `X` is not set\n\
                        c.yaml:2:9: b[1]: environment variable `Y` is not set\n\
                        c.yaml:4:1: c: duplicate key `c`, first written in line 3\n\
                        c.yaml:5:12: d.e: duplicate key `e`, first written in line 5\n\
                        c.yaml:6:4: f: `${` is never closed; write `$$` for a dollar\n";
        assert_eq!(found, expected);
    }

    #[test]
    fn finds_duplicates_in_large_maps() {
        let mut text: String = (0..100).map(|i| format!("k{i}: {i}\n")).collect();
        text.push_str("k42: again\n");
        assert_eq!(complaint(&text), "c.yaml:101:1: k42: duplicate key `k42`, first written in line 43\n");
    }

    #[test]
    fn refuses_deep_nesting() {
        let nested = |depth: usize| format!("{}{}", "[".repeat(depth), "]".repeat(depth));
        assert!(parsed(&nested(MAX_DEPTH)).is_ok());
        for depth in [MAX_DEPTH + 1, 100_000] {
            assert!(complaint(&nested(depth)).contains("nest deeper than"));
        }
        assert!(complaint(&"- ".repeat(5000)).contains("nest deeper than 64"));
    }

    #[test]
    fn refuses_deep_nesting_by_aliases() {
        let mut text = format!("a0: &a0 {}{}\n", "[".repeat(40), "]".repeat(40));
        text.push_str(&format!("a1: {}*a0{}\n", "[".repeat(40), "]".repeat(40)));
        assert!(complaint(&text).contains("nest deeper than 64"));
    }

    #[test]
    fn refuses_an_alias_bomb() {
        let mut text = "a0: &a0 [x, x, x, x, x, x, x, x, x]\n".to_owned();
        for i in 1..30 {
            let nine = vec![format!("*a{}", i - 1); 9].join(", ");
            text.push_str(&format!("a{i}: &a{i} [{nine}]\n"));
        }
        assert!(complaint(&text).contains("aliases repeat more than 2000000 values"));
    }

    proptest! {
        #[test]
        fn never_panics_on_any_text(text in ".*") {
            let _ = parsed(&text);
        }

        #[test]
        fn never_panics_on_what_looks_like_yaml(text in "[-:?,\\[\\]{}&*!|>'\"%@`#<~ \t\r\n\\\\ab01$é\u{feff}\u{0}]{0,60}") {
            let _ = parsed(&text);
        }

        #[test]
        fn reads_any_json(value in json()) {
            prop_assert_eq!(as_json(&parsed(&value.to_string()).unwrap()), value);
        }
    }

    fn json() -> impl Strategy<Value = serde_json::Value> {
        use serde_json::Value as Json;
        let leaf = prop_oneof![
            Just(Json::Null),
            any::<bool>().prop_map(Json::from),
            any::<i64>().prop_map(Json::from),
            "[a-z$ :#,é-]{0,8}".prop_map(|text| Json::from(text.replace('$', ""))),
        ];
        leaf.prop_recursive(4, 32, 5, |inner| {
            prop_oneof![
                proptest::collection::vec(inner.clone(), 0..5).prop_map(Json::from),
                proptest::collection::hash_map("[a-z ]{0,6}", inner, 0..5).prop_map(Json::from_iter),
            ]
        })
    }

    fn as_json(node: &Node) -> serde_json::Value {
        use crate::document::scalar::{Typed, typed};
        match &node.value {
            Value::Null => serde_json::Value::Null,
            Value::List(items) => items.iter().map(as_json).collect(),
            Value::Map(entries) => entries.iter().map(|(k, v)| (k.text.to_string(), as_json(v))).collect(),
            Value::Scalar { text, plain: false } => (&**text).into(),
            Value::Scalar { text, plain: true } => match typed(text) {
                Typed::Bool(b) => b.into(),
                Typed::Unsigned(n) => n.into(),
                Typed::Signed(n) => n.into(),
                Typed::Float(n) => n.into(),
                Typed::Text(text) => text.into(),
            },
        }
    }
}
