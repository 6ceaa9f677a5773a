//! The filters' pages, made of the types themselves.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::Path;
use std::process::ExitCode;
use std::{fs, io};

use schemars::generate::SchemaSettings;
use serde_json::{Map, Value};

use super::{failed, show};
use crate::registry::{Kind, Registry};

/// Writes a page for each filter, or checks that they are up to date.
pub(super) fn docs(registry: &Registry, out: &Path, check: bool) -> ExitCode {
    for kind in registry.kinds() {
        let path = out.join(format!("{}.md", kind.name));
        let page = page(kind);
        if check {
            if fs::read_to_string(&path).ok().as_deref() != Some(&page) {
                return failed(&format!("{} is not up to date: run `portcullis docs`", path.display()), 1);
            }
        } else if let Err(error) = write(&path, &page) {
            return failed(&format!("{}: {error}", path.display()), 1);
        }
    }
    show(&format!("{} pages in {}", registry.kinds().count(), out.display()))
}

fn write(path: &Path, page: &str) -> io::Result<()> {
    if let Some(folder) = path.parent() {
        fs::create_dir_all(folder)?;
    }
    fs::write(path, page)
}

/// The page of a filter.
pub fn page(kind: &Kind) -> String {
    let mut generator = SchemaSettings::draft2020_12().into_generator();
    let reference = (kind.schema)(&mut generator).to_value();
    let definitions = generator.take_definitions(true);
    let schema = resolve(&reference, &definitions);
    let mut table = Table { rows: String::new(), types: BTreeMap::new(), definitions: &definitions };
    table.options("", schema, None);
    let name = kind.name;
    let (about, stage, example) = (description(schema), kind.stage, kind.example);
    let options = match table.rows.as_str() {
        "" if schema["type"] == "array" => format!("Its configuration is a {}.\n", table.kind(schema)),
        "" => "It has no options.\n".to_owned(),
        rows => format!("| option | type | default | what it means |\n|---|---|---|---|\n{rows}"),
    };
    let mut page = format!(
        "# {name}\n\n{about}\n\nStage: `{stage}`.\n\n```yaml\nfilters:\n  - {name}: {example}\n```\n\n{options}"
    );
    if !table.types.is_empty() {
        page.push('\n');
    }
    for (name, meaning) in table.types {
        // Writing to a string cannot fail.
        let _ = writeln!(page, "- {name}: {meaning}");
    }
    page
}

/// The options of a filter in the making.
struct Table<'a> {
    rows: String,
    /// The kinds of values that it mentions, with what they are.
    types: BTreeMap<String, &'a str>,
    definitions: &'a Map<String, Value>,
}

impl<'a> Table<'a> {
    /// A row for each option of a map, followed by those of the maps in it. `given` is what the map is by default.
    fn options(&mut self, prefix: &str, schema: &'a Value, given: Option<&'a Value>) {
        let Some(properties) = schema.get("properties").and_then(Value::as_object) else {
            return;
        };
        for (name, property) in properties {
            let resolved = resolve(property, self.definitions);
            let meaning = Some(description(property)).filter(|own| !own.is_empty());
            // A row of a table is one line.
            let meaning = meaning.unwrap_or_else(|| description(resolved)).replace('\n', " ");
            let kind = self.kind(property);
            let usual = given.and_then(|given| given.get(name)).or_else(|| property.get("default"));
            let nested = resolved.get("properties").is_some();
            let default = if is_required(schema, name) { "required".into() } else { default(usual, nested) };
            let words = words(resolved).map(|words| format!(" {words}")).unwrap_or_default();
            let _ = writeln!(self.rows, "| `{prefix}{name}` | {kind} | {default} | {meaning}{words} |");
            let inside = self.present(property);
            self.options(&format!("{prefix}{name}."), inside, usual);
            if let Some(each) = inside.get("additionalProperties") {
                self.options(&format!("{prefix}{name}.NAME."), resolve(each, self.definitions), None);
            }
        }
    }

    /// What an option is when it is there, if that is one thing.
    fn present(&self, schema: &'a Value) -> &'a Value {
        let forms = schema.get("anyOf").and_then(Value::as_array).into_iter().flatten();
        let mut forms = forms.filter(|form| form["type"] != "null");
        match (forms.next(), forms.next()) {
            (Some(form), None) => resolve(form, self.definitions),
            _ => resolve(schema, self.definitions),
        }
    }

    /// What may be written, in users' words.
    fn kind(&mut self, schema: &'a Value) -> String {
        if let Some(forms) = schema.get("anyOf").and_then(Value::as_array) {
            let forms = forms.iter().filter(|form| form["type"] != "null");
            let forms: Vec<_> = forms.map(|form| self.kind(form)).collect();
            return forms.join(" or ");
        }
        let resolved = resolve(schema, self.definitions);
        if words(resolved).is_some() {
            return "word".into();
        }
        let kind = match &resolved["type"] {
            Value::Array(kinds) => kinds.iter().find(|kind| *kind != "null").and_then(Value::as_str),
            kind => kind.as_str(),
        };
        match kind {
            Some("array") => format!("list of {}", plural(&self.kind(&resolved["items"]))),
            Some("object") if resolved.get("properties").is_some() => "map".into(),
            Some("object") => format!("map of {}", plural(&self.kind(&resolved["additionalProperties"]))),
            Some("boolean") => "true or false".into(),
            Some("integer" | "number") => "number".into(),
            Some("string") => self.text(schema),
            _ => self.named(schema),
        }
    }

    fn text(&mut self, schema: &'a Value) -> String {
        match schema.get("$ref") {
            Some(_) => self.named(schema),
            None => "text".into(),
        }
    }

    /// A kind of value that has a name of its own, such as a duration.
    fn named(&mut self, schema: &'a Value) -> String {
        let name = reference(schema).map(|name| {
            name.chars().fold(String::new(), |mut words, c| {
                if c.is_ascii_uppercase() && !words.is_empty() {
                    words.push(' ');
                }
                words.push(c.to_ascii_lowercase());
                words
            })
        });
        let Some(name) = name else { return "anything".into() };
        self.types.insert(name.clone(), description(resolve(schema, self.definitions)));
        name
    }
}

fn plural(kind: &str) -> String {
    match kind {
        "text" => "texts".into(),
        kind if kind.ends_with('s') || kind.contains(' ') => kind.into(),
        kind => format!("{kind}s"),
    }
}

fn is_required(map: &Value, name: &str) -> bool {
    let required = map.get("required").and_then(Value::as_array);
    required.is_some_and(|required| required.iter().any(|known| known == name))
}

/// What holds when an option is not written. What a map of options is by default is told by its options.
fn default(usual: Option<&Value>, nested: bool) -> String {
    match usual {
        None | Some(Value::Null) => String::new(),
        Some(_) if nested => String::new(),
        Some(Value::Array(items)) if items.is_empty() => "none".into(),
        Some(Value::Object(entries)) if entries.is_empty() => "none".into(),
        Some(Value::String(word)) => format!("`{word}`"),
        Some(other) => format!("`{other}`"),
    }
}

/// The words of an enumeration with their meanings.
fn words(schema: &Value) -> Option<String> {
    let forms = schema.get("oneOf")?.as_array()?;
    let word = |form: &Value| Some(format!("`{}`: {}", form.get("const")?.as_str()?, description(form)));
    let words: Option<Vec<_>> = forms.iter().map(word).collect();
    Some(words?.join(" "))
}

fn description(schema: &Value) -> &str {
    schema.get("description").and_then(Value::as_str).unwrap_or_default()
}

fn reference(schema: &Value) -> Option<&str> {
    schema.get("$ref")?.as_str()?.rsplit('/').next()
}

fn resolve<'a>(schema: &'a Value, definitions: &'a Map<String, Value>) -> &'a Value {
    reference(schema).and_then(|name| definitions.get(name)).unwrap_or(schema)
}
