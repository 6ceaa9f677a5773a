//! The environment as it is handed in. Only [`Environment::of_process`] reads the process's own.

use std::collections::BTreeMap;

/// Environment variables by name, in name order.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Environment(BTreeMap<String, String>);

impl Environment {
    /// The environment of this process. Configuration is text: variables that are not UTF-8 are left out.
    pub fn of_process() -> Self {
        std::env::vars_os()
            .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)))
            .collect()
    }

    /// The value of a variable, if it is set.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.0.get(name).map(String::as_str)
    }

    /// The same names without their values, for a text of someone who must not learn them: every variable is `1`,
    /// and none overrides anything.
    #[must_use]
    pub fn withheld(&self) -> Self {
        let names = self.0.keys().filter(|name| !name.starts_with("PORTCULLIS__") && *name != "PORT");
        Self(names.map(|name| (name.clone(), "1".to_owned())).collect())
    }

    /// All variables in name order.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.0.iter().map(|(name, value)| (name.as_str(), value.as_str()))
    }
}

impl<K: Into<String>, V: Into<String>> FromIterator<(K, V)> for Environment {
    fn from_iter<I: IntoIterator<Item = (K, V)>>(variables: I) -> Self {
        Self(variables.into_iter().map(|(name, value)| (name.into(), value.into())).collect())
    }
}
