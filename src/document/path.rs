//! Document paths: `routes[3].timeouts.request`, `hosts["a.example.com"].min_version`.

use std::borrow::Cow;
use std::fmt::Write;

/// One step of a document path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Step<'a> {
    /// To the value of a key.
    Key(Cow<'a, str>),
    /// To an item of a list.
    Index(usize),
}

/// Appends the step to a key. A key that could be misread is quoted in brackets.
pub(super) fn push_key(path: &mut String, key: &str) {
    if is_bare(key) {
        if !path.is_empty() {
            path.push('.');
        }
        path.push_str(key);
    } else {
        path.push_str("[\"");
        for c in key.chars() {
            if matches!(c, '"' | '\\') {
                path.push('\\');
            }
            path.push(c);
        }
        path.push_str("\"]");
    }
}

/// Appends the step to an item of a list.
pub(super) fn push_index(path: &mut String, index: usize) {
    // Writing to a `String` cannot fail.
    let _ = write!(path, "[{index}]");
}

/// The steps of a path, up to the first that cannot be read.
pub(super) fn steps(path: &str) -> impl Iterator<Item = Step<'_>> {
    let mut rest = path;
    std::iter::from_fn(move || {
        let (step, after) = first_step(rest)?;
        rest = after;
        Some(step)
    })
}

/// A path as the decoder walks it: borrowed from the stack, spelled out only for an error.
#[derive(Clone, Copy)]
pub(super) enum Trail<'a> {
    /// Where the walk began.
    Root(&'a str),
    /// Into the value of a key.
    Key(&'a Trail<'a>, &'a str),
    /// Into an item of a list.
    Index(&'a Trail<'a>, usize),
}

impl Trail<'_> {
    /// The path spelled out.
    pub(super) fn path(&self) -> String {
        match self {
            Self::Root(path) => (*path).to_owned(),
            Self::Key(parent, key) => {
                let mut path = parent.path();
                push_key(&mut path, key);
                path
            }
            Self::Index(parent, index) => {
                let mut path = parent.path();
                push_index(&mut path, *index);
                path
            }
        }
    }
}

fn is_bare(key: &str) -> bool {
    !key.is_empty() && key.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-'))
}

fn first_step(path: &str) -> Option<(Step<'_>, &str)> {
    if let Some(quoted) = path.strip_prefix("[\"") {
        return quoted_key(quoted);
    }
    if let Some(index) = path.strip_prefix('[') {
        let (digits, rest) = index.split_once(']')?;
        return Some((Step::Index(digits.parse().ok()?), rest));
    }
    let key = path.strip_prefix('.').unwrap_or(path);
    let end = key.find(['.', '[']).unwrap_or(key.len());
    let (key, rest) = key.split_at(end);
    (!key.is_empty()).then_some((Step::Key(Cow::Borrowed(key)), rest))
}

fn quoted_key(text: &str) -> Option<(Step<'_>, &str)> {
    let mut key = String::new();
    let mut chars = text.char_indices();
    while let Some((at, c)) = chars.next() {
        match c {
            '"' => {
                let rest = text.get(at + 1..)?.strip_prefix(']')?;
                return Some((Step::Key(Cow::Owned(key)), rest));
            }
            '\\' => key.push(chars.next()?.1),
            _ => key.push(c),
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn walks_keys_and_indexes() {
        let found: Vec<_> = steps("routes[3].timeouts.request").collect();
        let key = |k: &'static str| Step::Key(Cow::Borrowed(k));
        assert_eq!(found, [key("routes"), Step::Index(3), key("timeouts"), key("request")]);
    }

    #[test]
    fn stops_at_what_it_cannot_read() {
        assert_eq!(steps("a[x].b").count(), 1);
        assert_eq!(steps("a..b").count(), 1);
        assert_eq!(steps("").count(), 0);
    }

    #[test]
    fn a_trail_spells_its_path() {
        let root = Trail::Root("");
        let hosts = Trail::Key(&root, "hosts");
        let host = Trail::Key(&hosts, "a.example.com");
        let list = Trail::Key(&host, "list");
        assert_eq!(Trail::Index(&list, 2).path(), r#"hosts["a.example.com"].list[2]"#);
    }

    proptest! {
        #[test]
        fn what_is_written_is_read_again(keys in proptest::collection::vec(".{0,8}", 0..5), index in 0usize..99) {
            let mut path = String::new();
            for key in &keys {
                push_key(&mut path, key);
            }
            push_index(&mut path, index);
            let mut expected: Vec<_> = keys.into_iter().map(|k| Step::Key(Cow::Owned(k))).collect();
            expected.push(Step::Index(index));
            prop_assert_eq!(steps(&path).collect::<Vec<_>>(), expected);
        }

        #[test]
        fn any_path_can_be_walked(path in ".*") {
            steps(&path).count();
        }
    }
}
