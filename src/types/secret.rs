//! Values that must never be shown.

use std::fmt;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Serialize, Serializer};

/// What is shown instead of a secret.
pub const MASK: &str = "***";

/// Header fields that carry credentials, whoever says so.
pub const CREDENTIAL_FIELDS: [&str; 5] =
    ["authorization", "proxy-authorization", "cookie", "set-cookie", "x-api-key"];

/// A word that must not leave the process: printing and serializing it give `***`.
#[derive(Clone, PartialEq, Eq, Deserialize)]
#[serde(transparent)]
pub struct Secret(String);

impl Secret {
    /// Wraps a secret word.
    pub fn new(word: impl Into<String>) -> Self {
        Self(word.into())
    }

    /// The word itself. Take care where it goes.
    pub fn expose(&self) -> &str {
        &self.0
    }

    /// Compares in a time that depends on the lengths alone, so that timing tells nothing of the word.
    pub fn matches(&self, other: &str) -> bool {
        let (own, other) = (self.0.as_bytes(), other.as_bytes());
        let mut difference = u8::from(own.len() != other.len());
        for (at, byte) in other.iter().enumerate() {
            difference |= byte ^ own.get(at).copied().unwrap_or(!byte);
        }
        std::hint::black_box(difference) == 0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(MASK)
    }
}

impl Serialize for Secret {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(MASK)
    }
}

impl JsonSchema for Secret {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Secret".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": "string", "description": "A secret; never shown.", "writeOnly": true })
    }
}

/// Names of header fields whose values are credentials.
#[derive(Debug, Clone, Default)]
pub struct CredentialFields {
    fields: Vec<String>,
    queries: Vec<String>,
}

impl CredentialFields {
    /// Those that are known to carry credentials, and these.
    pub fn with<N: Into<String>>(names: impl IntoIterator<Item = N>) -> Self {
        Self { fields: names.into_iter().map(Into::into).collect(), queries: Vec::new() }
    }

    /// The same, and these query parameters.
    #[must_use]
    pub fn and_queries(mut self, names: impl IntoIterator<Item = String>) -> Self {
        self.queries = names.into_iter().collect();
        self
    }

    /// Whether a query parameter carries credentials.
    pub fn covers_query(&self, name: &str) -> bool {
        self.queries.iter().any(|known| known == name)
    }

    /// Masks the value of a field that carries credentials.
    pub fn mask(&self, name: &str, value: &mut String) {
        if self.covers(name) {
            MASK.clone_into(value);
        }
    }

    /// Whether a field carries credentials.
    pub fn covers(&self, name: &str) -> bool {
        let mut known = CREDENTIAL_FIELDS.into_iter().chain(self.fields.iter().map(String::as_str));
        known.any(|known| known.eq_ignore_ascii_case(name))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn is_never_shown() {
        let secret = Secret::new("hunter2");
        assert_eq!(format!("{secret:?}"), "***");
        assert_eq!(serde_json::to_string(&secret).unwrap(), "\"***\"");
    }

    #[test]
    fn credentials_are_known_by_the_name_of_their_field() {
        let fields = CredentialFields::with(["X-Tenant-Key"]);
        for (name, shown) in [
            ("Authorization", MASK),
            ("x-api-key", MASK),
            ("x-tenant-key", MASK),
            ("x-tenant", "value"),
            ("cookies", "value"),
        ] {
            let mut value = "value".to_owned();
            fields.mask(name, &mut value);
            assert_eq!(value, shown, "{name}");
        }
    }

    #[test]
    fn matches_only_itself() {
        let secret = Secret::new("hunter2");
        assert!(secret.matches("hunter2"));
        for other in ["", "hunter", "hunter22", "Hunter2"] {
            assert!(!secret.matches(other), "{other}");
        }
    }
}
