//! Filters in the configuration of another filter.

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::{Built, Registry, Scope};
use crate::chain::{Link, Stage};
use crate::document::{ConfigError, Errors, Key, Mark, Node, Value, closest};
use crate::types::{CredentialFields, MASK};

/// A list of filters that one filter is made of. Each is written as in any list: its name, or a map from its name to its
/// configuration; but when and where it runs is a matter of the filter that it is in.
#[derive(Clone, PartialEq)]
pub struct Members(Vec<Node>);

impl Members {
    /// How many there are.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Makes those that belong to `stage`, with their paths in the list; tells every error. `holder` is the filter that is
    /// made of them, and no member of itself.
    pub fn build(
        &self,
        holder: &str,
        stage: Stage,
        scope: &Scope<'_>,
        errors: &mut Errors,
    ) -> Vec<(String, Link)> {
        let place = Place { holder, stage, scope };
        let made = self.0.iter().enumerate().filter_map(|(at, node)| {
            let path = format!("[{at}]");
            place.member(&path, node, errors).map(|link| (path, link))
        });
        made.collect()
    }

    /// Has them as they may be shown.
    pub(super) fn show(&mut self, registry: &Registry, fields: &CredentialFields) {
        for node in &mut self.0 {
            let shown = written(node).and_then(|(name, config)| {
                let config = match registry.kind(name) {
                    Some(kind) => kind.show(&config, registry, fields),
                    // What is made in code has no configuration.
                    None => registry.instance(name).map(|_| nothing(node.mark))?,
                };
                Some((Key { text: name.into(), mark: node.mark }, config))
            });
            // Of one that means nothing, it is not known where its secrets are.
            *node = shown.map_or_else(
                || Node::of_data(MASK.into()),
                |entry| Node { mark: node.mark, value: Value::Map(Arc::from([entry])) },
            );
        }
    }

    pub(super) fn files(&self, registry: &Registry) -> Vec<PathBuf> {
        let files = |node| {
            written(node).and_then(|(name, config)| Some(registry.kind(name)?.files(&config, registry)))
        };
        self.0.iter().filter_map(files).flatten().collect()
    }

    pub(super) fn secret_queries(&self, registry: &Registry) -> Vec<String> {
        let queries = |node| {
            written(node)
                .and_then(|(name, config)| Some(registry.kind(name)?.secret_queries(&config, registry)))
        };
        self.0.iter().filter_map(queries).flatten().collect()
    }
}

/// Where members are made.
struct Place<'p> {
    holder: &'p str,
    stage: Stage,
    scope: &'p Scope<'p>,
}

impl Place<'_> {
    fn member(&self, path: &str, node: &Node, errors: &mut Errors) -> Option<Link> {
        let Self { holder, stage, scope } = *self;
        for word in ["when", "stage"].into_iter().filter(|word| node.get(word).is_some()) {
            let message = format!("`{word}` is not for one member");
            let hint = format!("beside `{holder}` it is for all of them");
            errors.push(ConfigError::new(format!("{path}.{word}"), message).with_hint(hint));
        }
        let Some((name, config)) = written(node) else {
            let message = "a member is the name of a filter, or a map from its name to its configuration";
            errors.push(
                ConfigError::new(path, message).with_hint(format!("each is an item of the list: {LIKE}")),
            );
            return None;
        };
        if let Some(link) = scope.registry.instance(name) {
            if config.value != nothing(node.mark).value {
                let message = format!("`{name}` is made in code and has no configuration");
                errors.push(ConfigError::new(format!("{path}.{name}"), message));
            }
            let fits = link.stage == stage;
            return fits.then_some(link).or_else(|| self.refuse(path, name, errors));
        }
        let Some(kind) = scope.registry.kind(name).filter(|kind| kind.name != holder && kind.stage == stage)
        else {
            return self.refuse(path, name, errors);
        };
        let path = format!("{path}.{name}");
        let Built { filter, stage, .. } = kind.build(&config, &path, scope, errors)?;
        Some(Link::new(kind.name, stage, filter))
    }

    /// Says why a name is none of a member.
    fn refuse(&self, path: &str, name: &str, errors: &mut Errors) -> Option<Link> {
        let Self { holder, stage, scope } = *self;
        let known: Vec<&str> = scope.registry.names_of(stage).filter(|known| *known != holder).collect();
        let all = || format!("there is `{}`", known.join("`, `"));
        let path = if name == "use" { format!("{path}.use") } else { path.to_owned() };
        let (message, hint) = if name == holder {
            (format!("`{holder}` is no member of itself"), "write its members into this list".to_owned())
        } else if name == "use" {
            ("a chain is no member".to_owned(), "write the filter itself".to_owned())
        } else if scope.registry.filter_names().any(|known| known == name) {
            (format!("`{name}` cannot be a member: it is not of the stage `{stage}`"), all())
        } else {
            let near = closest(name, &known);
            let hint = near.map_or_else(all, |near| format!("did you mean `{near}`?"));
            (format!("there is no filter `{name}`"), hint)
        };
        errors.push(ConfigError::new(path, message).with_hint(hint));
        None
    }
}

/// How such a list is written.
const LIKE: &str = "`[{ api_key: {} }, { basic: {} }]`";

/// The name of a member and its configuration, where it is written as it should.
fn written(node: &Node) -> Option<(&str, Node)> {
    if let Some(name) = node.text() {
        return Some((name, nothing(node.mark)));
    }
    let mut named = node.entries().iter().filter(|(key, _)| !matches!(&*key.text, "when" | "stage"));
    match (named.next(), named.next()) {
        (Some((key, Node { mark, value: Value::Null })), None) => Some((&key.text, nothing(*mark))),
        (Some((key, config)), None) => Some((&key.text, config.clone())),
        _ => None,
    }
}

fn nothing(mark: Mark) -> Node {
    Node { mark, value: Value::Map(Arc::from([])) }
}

impl fmt::Debug for Members {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Secrets are among their words.
        f.debug_list().entries(self.0.iter().map(|node| written(node).map(|(name, _)| name))).finish()
    }
}

impl<'de> Deserialize<'de> for Members {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let node = Node::deserialize(deserializer)?;
        match (&node.value, node.entries().first()) {
            (Value::List(items), _) => Ok(Self(items.to_vec())),
            (_, Some((key, _))) => {
                Err(D::Error::custom(format!("unknown key `{}`: write a list like {LIKE}", key.text)))
            }
            _ => Err(D::Error::custom(format!("write a list like {LIKE}"))),
        }
    }
}

impl Serialize for Members {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(&self.0)
    }
}

impl JsonSchema for Members {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Members".into()
    }

    fn inline_schema() -> bool {
        true
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        let member = generator.subschema_for::<Member>();
        json_schema!({ "type": "array", "items": member })
    }
}

/// Where the schema of all that can be members is put in the generated JSON Schema.
struct Member;

impl JsonSchema for Member {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Member".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "description": "A filter of the same stage: its bare name, or a map from its name to its configuration, as in any list of filters; `when` and `stage` stand beside the whole."
        })
    }
}
