//! Variables in scalars.
//!
//! 1. `${NAME}` is the variable's value; unset is an error.
//! 2. `${NAME:-default}` is the default where the variable is unset or empty, as in a shell. The default ends at
//!    the first `}`.
//! 3. `$$` is a dollar. A `$` before anything else stays as it is: regular expressions end in it.
//! 4. What a variable brings in is not expanded again.

use std::borrow::Cow;

use super::environment::Environment;

/// Expands the variables in a text; the error is a message for the operator.
pub(super) fn expand<'a>(text: &'a str, environment: &Environment) -> Result<Cow<'a, str>, String> {
    let Some(first) = text.find('$') else {
        return Ok(Cow::Borrowed(text));
    };
    let (mut expanded, mut rest) = (text[..first].to_owned(), &text[first..]);
    while let Some(at) = rest.find('$') {
        expanded.push_str(&rest[..at]);
        let after = &rest[at + 1..];
        rest = if let Some(after) = after.strip_prefix('$') {
            expanded.push('$');
            after
        } else if let Some(body) = after.strip_prefix('{') {
            let (body, after) =
                body.split_once('}').ok_or("`${` is never closed; write `$$` for a dollar")?;
            expanded.push_str(variable(body, environment)?);
            after
        } else {
            expanded.push('$');
            after
        };
    }
    expanded.push_str(rest);
    Ok(Cow::Owned(expanded))
}

/// The value of what stands between the braces.
fn variable<'a>(body: &'a str, environment: &'a Environment) -> Result<&'a str, String> {
    let (name, default) = match body.split_once(":-") {
        Some((name, default)) => (name, Some(default)),
        None => (body, None),
    };
    if !is_name(name) {
        return Err(format!("`{name}` is not the name of an environment variable; write `$$` for a dollar"));
    }
    match (environment.get(name), default) {
        (_, Some(default)) if default.contains("${") => {
            Err(format!("the default of `{name}` cannot hold a variable"))
        }
        (None | Some(""), Some(default)) => Ok(default),
        (Some(value), _) => Ok(value),
        (None, None) => Err(format!("environment variable `{name}` is not set")),
    }
}

fn is_name(name: &str) -> bool {
    name.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_')
        && name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_')
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn environment() -> Environment {
        [("A", "1"), ("EMPTY", ""), ("MONEY", "${A}$$")].into_iter().collect()
    }

    #[test]
    fn expands_what_it_should_and_nothing_else() {
        for (text, expected) in [
            ("plain", "plain"),
            ("x${A}y${A}", "x1y1"),
            ("${B:-two}", "two"),
            ("${B:-}", ""),
            ("${A:-two}", "1"),
            ("${EMPTY}", ""),
            ("${EMPTY:-two}", "two"),
            ("$${A}", "${A}"),
            ("$$$$", "$$"),
            ("^/v[0-9]+$", "^/v[0-9]+$"),
            ("$argon2id$v=19", "$argon2id$v=19"),
            ("/users/{id}", "/users/{id}"),
            ("${MONEY}", "${A}$$"),
            ("é${A}é", "é1é"),
        ] {
            assert_eq!(expand(text, &environment()).unwrap(), expected, "{text}");
        }
    }

    #[test]
    fn refuses_with_the_name() {
        for (text, part) in [
            ("${B}", "`B` is not set"),
            ("a${A", "never closed"),
            ("${}", "not the name"),
            ("${a b}", "`a b` is not the name"),
            ("${B:-${A}}", "cannot hold a variable"),
        ] {
            let message = expand(text, &environment()).unwrap_err();
            assert!(message.contains(part), "{text}: {message}");
        }
    }

    proptest! {
        #[test]
        fn doubled_dollars_give_the_text_back(text in ".*") {
            let doubled = text.replace('$', "$$");
            prop_assert_eq!(expand(&doubled, &environment()).unwrap(), text);
        }

        #[test]
        fn never_panics(text in "[$ {}:\\-A-Bé]*") {
            let _ = expand(&text, &environment());
        }
    }
}
