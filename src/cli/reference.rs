//! The JSON Schema and the filters' pages, made of the types themselves.

use std::fmt::Write as _;
use std::path::Path;
use std::process::ExitCode;
use std::{fs, io};

use schemars::generate::SchemaSettings;
use serde_json::{Map, Value, json};

use super::{failed, show};
use crate::config::Config;
use crate::registry::{Kind, Registry};

/// The JSON Schema (draft 2020-12) of a whole configuration, with the configuration of every filter in it.
pub fn schema(registry: &Registry) -> String {
    let mut generator = SchemaSettings::draft2020_12().into_generator();
    let mut root = generator.root_schema_for::<Config>().to_value();
    let mut forms = vec![json!({
        "type": "object", "required": ["use"], "additionalProperties": false, "maxProperties": 1,
        "properties": { "use": { "type": "string", "description": "Places a named chain." } },
    })];
    let mut words = Vec::new();
    for kind in registry.kinds() {
        let schema = (kind.schema)(&mut generator).to_value();
        words.push(json!(kind.name));
        forms.push(json!({
            "type": "object", "required": [kind.name], "additionalProperties": false,
            "properties": { kind.name: schema },
        }));
    }
    forms.push(json!({ "enum": words }));
    let definitions = generator.take_definitions(true);
    if let Some(known) = root.get_mut("$defs").and_then(Value::as_object_mut) {
        known.extend(definitions);
        known.insert(
            "Filter".into(),
            json!({
                "description": "A filter: its bare name, or a map from its name to its configuration.",
                "anyOf": forms,
            }),
        );
    }
    if let Some(properties) = root.get_mut("properties").and_then(Value::as_object_mut) {
        properties.insert(
            "include".into(),
            json!({
                "description": "Files whose sections are added to this one's, `*` for any name.",
                "type": "array", "items": { "type": "string" },
            }),
        );
    }
    serde_json::to_string_pretty(&root).unwrap_or_default()
}

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
    let mut page = format!("# {}\n\n{}\n\nStage: {}.\n\n", kind.name, description(schema), kind.stage);
    // Writing to a string cannot fail.
    let _ = write!(page, "```yaml\n- {}: {}\n```\n\n", kind.name, kind.example);
    page.push_str("| option | what it means | default |\n|---|---|---|\n");
    rows(&mut page, "", schema, &definitions);
    page
}

fn rows(page: &mut String, prefix: &str, schema: &Value, definitions: &Map<String, Value>) {
    let Some(properties) = schema.get("properties").and_then(Value::as_object) else {
        return;
    };
    for (name, property) in properties {
        let resolved = resolve(property, definitions);
        let default =
            property.get("default").map(Value::to_string).filter(|default| !default.starts_with('{'));
        let default = default.map_or_else(String::new, |default| format!("`{default}`"));
        let meaning = match description(property) {
            "" => description(resolved),
            own => own,
        };
        let words = one_of(resolved).map(|words| format!(" {words}")).unwrap_or_default();
        let _ = writeln!(page, "| `{prefix}{name}` | {meaning}{words} | {default} |");
        rows(page, &format!("{prefix}{name}."), resolved, definitions);
    }
}

/// The words of an enumeration with their meanings.
fn one_of(schema: &Value) -> Option<String> {
    let words = schema
        .get("oneOf")?
        .as_array()?
        .iter()
        .filter_map(|form| Some(format!("`{}`: {}", form.get("const")?.as_str()?, description(form))));
    Some(words.collect::<Vec<_>>().join(" "))
}

fn description(schema: &Value) -> &str {
    schema.get("description").and_then(Value::as_str).unwrap_or_default()
}

fn resolve<'a>(schema: &'a Value, definitions: &'a Map<String, Value>) -> &'a Value {
    let reference = schema.get("$ref").and_then(Value::as_str);
    let name = reference.and_then(|reference| reference.rsplit('/').next());
    name.and_then(|name| definitions.get(name)).unwrap_or(schema)
}
