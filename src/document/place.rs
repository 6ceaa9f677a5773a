//! Where errors stand: paths put together, marks found.

use std::collections::HashSet;

use super::path::push_key;
use super::{ConfigError, Document, Errors};

/// The document path of a key below another path: `join("upstreams", "a.b")` is `upstreams["a.b"]`.
pub fn join(path: &str, key: &str) -> String {
    let mut joined = path.to_owned();
    push_key(&mut joined, key);
    joined
}

impl Errors {
    /// The value, if there are no errors.
    ///
    /// # Errors
    ///
    /// The errors, if there are any.
    pub fn or<T>(self, value: T) -> Result<T, Self> {
        if self.is_empty() { Ok(value) } else { Err(self) }
    }

    /// The same errors, their paths counted from a node at `path`.
    #[must_use]
    pub fn below(self, path: &str) -> Self {
        let below = |mut error: ConfigError| {
            let separator = if error.path.is_empty() || error.path.starts_with('[') { "" } else { "." };
            error.path = format!("{path}{separator}{}", error.path);
            error
        };
        let mut errors = Self::default();
        errors.extend(self.into_iter().map(below));
        errors
    }

    /// The same errors, each with the place of its path in the document if it had none.
    #[must_use]
    pub fn placed(self, document: &Document) -> Self {
        let placed = |mut error: ConfigError| {
            error.mark.get_or_insert_with(|| document.mark_of(&error.path));
            error
        };
        let mut errors = Self::default();
        errors.extend(self.into_iter().map(placed));
        errors
    }
}

impl Errors {
    /// The errors that stand at another place than each of `others`.
    #[must_use]
    pub fn elsewhere(self, others: &Self) -> Self {
        let places: HashSet<_> = others.sorted().into_iter().filter_map(|error| error.mark).collect();
        let mut errors = Self::default();
        errors.extend(self.into_iter().filter(|error| error.mark.is_none_or(|mark| !places.contains(&mark))));
        errors
    }
}

impl From<ConfigError> for Errors {
    fn from(error: ConfigError) -> Self {
        let mut errors = Self::default();
        errors.push(error);
        errors
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::document::Environment;

    #[test]
    fn errors_move_below_a_path_and_get_their_place() {
        let document = Document::parse("c.yaml", "a:\n  b: [1,\n    2]\n", &Environment::default()).unwrap();
        let errors = Errors::from(ConfigError::new("b[1]", "wrong")).below("a").placed(&document);
        assert_eq!(errors.render(&document.sources), "c.yaml:3:5: a.b[1]: wrong\n");
    }

    #[test]
    fn a_key_that_could_be_misread_is_quoted() {
        assert_eq!(join("upstreams", "a.b"), "upstreams[\"a.b\"]");
        assert_eq!(join("", "a"), "a");
    }
}
