//! The JSON Schema of the configuration, for editors.

use schemars::Schema;
use schemars::generate::{SchemaGenerator, SchemaSettings};
use schemars::transform::{Transform, transform_subschemas};
use serde_json::{Value, json};

use crate::chain::Stage;
use crate::config::Config;
use crate::registry::{Kind, Registry};

/// The JSON Schema (draft 2020-12) of a whole configuration, with the configuration of every filter in it.
pub fn schema(registry: &Registry) -> String {
    let mut generator = SchemaSettings::draft2020_12().into_generator();
    let mut root = generator.root_schema_for::<Config>().to_value();
    let filter = filter(registry, &mut generator);
    let definitions = generator.take_definitions(true);
    if let Some(known) = root.get_mut("$defs").and_then(Value::as_object_mut) {
        known.extend(definitions);
        known.insert("Filter".into(), filter);
        for kind in registry.kinds() {
            name_after(kind, known);
        }
        let member = member(registry, known);
        known.insert("Member".into(), member);
    }
    root["title"] = "Portcullis configuration".into();
    if let Some(properties) = root.get_mut("properties").and_then(Value::as_object_mut) {
        properties.insert(
            "include".into(),
            json!({
                "description": "Files whose sections are added to this one's, `*` for any name.",
                "type": "array", "items": { "type": "string" },
            }),
        );
    }
    if let Ok(schema) = <&mut Schema>::try_from(&mut root) {
        Scalars.transform(schema);
    }
    serde_json::to_string_pretty(&root).unwrap_or_default()
}

/// An entry in a list of filters: `use`, any filter's name with its configuration, or its bare name.
fn filter(registry: &Registry, generator: &mut SchemaGenerator) -> Value {
    let when = json!({
        "type": "string", "maxLength": 4096,
        "description": "A condition in CEL, such as `request.method == \"POST\"`. Where it does not hold, the filter is not there.",
    });
    let stages = Stage::ALL.map(Stage::name);
    let stage = json!({ "enum": stages, "description": "The stage that the filter runs in, where that is not its own." });
    let mut forms = vec![json!({
        "type": "object", "required": ["use"], "additionalProperties": false,
        "properties": {
            "use": { "type": "string", "description": "Places a named chain." },
            "when": when,
        },
    })];
    for kind in registry.kinds() {
        let configuration = (kind.schema)(generator).to_value();
        forms.push(json!({
            "type": "object", "required": [kind.name], "additionalProperties": false,
            "properties": {
                kind.name: { "anyOf": [configuration, { "type": "null" }] },
                "when": when,
                "stage": stage,
            },
        }));
    }
    let names: Vec<_> = registry.kinds().map(|kind| kind.name).collect();
    forms.push(json!({ "enum": names }));
    json!({
        "description": "A filter: its bare name, or a map from its name to its configuration, with `when` and `stage` beside it.",
        "anyOf": forms,
    })
}

/// An entry in a list of filters that find out who clients are: the name of one with its configuration, or its bare name.
fn member(registry: &Registry, definitions: &serde_json::Map<String, Value>) -> Value {
    let of_members = json!({ "$ref": "#/$defs/Member" });
    let holds_members = |configuration: &Value| {
        let name = configuration["$ref"].as_str().and_then(|reference| reference.rsplit('/').next());
        name.and_then(|name| definitions.get(name)).unwrap_or(configuration)["items"] == of_members
    };
    let entries = definitions.get("Filter").and_then(|filter| filter["anyOf"].as_array());
    let entries = entries.into_iter().flatten();
    let kinds: Vec<_> = registry.kinds().filter(|kind| kind.stage == Stage::Authenticate).collect();
    let known = entries.filter_map(|entry| {
        let kind = kinds.iter().find(|kind| entry["properties"].get(kind.name).is_some())?;
        let configuration = &entry["properties"][kind.name];
        (!holds_members(&configuration["anyOf"][0])).then_some((kind.name, configuration))
    });
    let mut forms: Vec<_> = known
        .map(|(name, configuration)| {
            json!({
                "type": "object", "required": [name], "additionalProperties": false,
                "properties": { name: configuration },
            })
        })
        .collect();
    let names: Vec<_> = forms.iter().map(|form| form["required"][0].clone()).collect();
    forms.push(json!({ "enum": names }));
    json!({
        "description": "A filter that finds out who the client is: its bare name, or a map from its name to its configuration.",
        "anyOf": forms,
    })
}

/// Gives the configuration of a filter the filter's name: in Rust all of them are called `Config`.
fn name_after(kind: &Kind, definitions: &mut serde_json::Map<String, Value>) {
    let pointer = format!("/anyOf/{{}}/properties/{}/anyOf/0", kind.name);
    let Some(filter) = definitions.get_mut("Filter") else { return };
    let forms = filter["anyOf"].as_array().map_or(0, Vec::len);
    for at in 0..forms {
        let Some(place) = filter.pointer_mut(&pointer.replace("{}", &at.to_string())) else { continue };
        let reference = place["$ref"].as_str().and_then(|reference| reference.rsplit('/').next());
        let Some(old) = reference.map(str::to_owned) else { return };
        *place = json!({ "$ref": format!("#/$defs/{}", kind.name) });
        if let Some(definition) = definitions.remove(&old) {
            definitions.insert(kind.name.into(), definition);
        }
        return;
    }
}

/// What the reader takes before types matter: a variable instead of any scalar, and any scalar, as it is written,
/// where text is wanted (`x-env: 1` is fine).
struct Scalars;

/// A text with a variable in it.
const VARIABLE: &str = r"\$\{[A-Za-z_]";

impl Transform for Scalars {
    fn transform(&mut self, schema: &mut Schema) {
        transform_subschemas(self, schema);
        let Some(object) = schema.as_object_mut() else { return };
        if let Some(Value::Array(words)) = object.get_mut("oneOf")
            && words.iter().all(|word| word.get("const").is_some())
        {
            words.push(json!({ "type": "string", "pattern": VARIABLE, "description": "A variable." }));
        }
        let narrow = ["enum", "const"].iter().any(|word| object.contains_key(*word));
        let Some(mut kinds) = object.get("type").map(kinds).filter(|_| !narrow) else { return };
        let takes = |kind: &str| kinds.iter().any(|known| known == kind);
        if let Some(Value::String(pattern)) = object.get_mut("pattern") {
            *pattern = format!("{pattern}|{VARIABLE}");
        } else if takes("string") {
            kinds.extend(["number".to_owned(), "boolean".to_owned()]);
        } else if takes("integer") || takes("number") || takes("boolean") {
            kinds.push("string".into());
            object.insert("pattern".into(), VARIABLE.into());
        }
        object.insert("type".into(), if kinds.len() == 1 { json!(kinds[0]) } else { json!(kinds) });
    }
}

fn kinds(value: &Value) -> Vec<String> {
    let one = value.as_str().into_iter();
    one.chain(value.as_array().into_iter().flatten().filter_map(Value::as_str)).map(str::to_owned).collect()
}
