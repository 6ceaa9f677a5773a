//! Environment variables that override the file.
//!
//! 1. `PORTCULLIS__A__B` sets what stands at `a.b`. A segment is a key, matched exactly, else without regard to
//!    case, else created in lower case; or the index of an item that exists.
//! 2. A value that reads as a YAML list or map (`[a, b]`, `{a: b}`) is one; anything else is a plain scalar.
//!    Variables in it are not expanded: it is one.
//! 3. `PORT` then sets the port of the only TCP listener. With several it is an error, with none it is ignored.

use std::sync::Arc;

use super::environment::Environment;
use super::error::{ConfigError, Errors};
use super::node::{Entry, Key, Node, Value};
use super::parse::{MAX_DEPTH, parse};
use super::path::{push_index, push_key};
use super::source::{Mark, Source, SourceId, Sources};

/// What names of overriding variables begin with.
const PREFIX: &str = "PORTCULLIS__";

/// Applies the overrides in name order, `PORT` last.
pub(super) fn apply(root: &mut Node, environment: &Environment, sources: &mut Sources, errors: &mut Errors) {
    for (name, value) in environment.iter() {
        let Some(path) = name.strip_prefix(PREFIX) else {
            continue;
        };
        let source = sources.add(Source::Variable(name.to_owned()));
        let segments: Vec<_> = path.split("__").collect();
        let mut place = String::new();
        if let Err(message) =
            check(&segments).and_then(|()| set(root, &segments, read(value, source), &mut place))
        {
            errors.push(ConfigError::new(place, message).at(Mark::start_of(source)));
        }
    }
    if let Some(port) = environment.get("PORT") {
        let source = sources.add(Source::Variable("PORT".to_owned()));
        if let Err(message) = set_port(root, port, Mark::start_of(source)) {
            errors.push(ConfigError::new("listeners", message).at(Mark::start_of(source)));
        }
    }
}

fn check(segments: &[&str]) -> Result<(), String> {
    match segments {
        _ if segments.contains(&"") => {
            Err("the name has an empty segment; segments are joined by `__`".into())
        }
        _ if segments.len() > MAX_DEPTH => Err(format!("the name has more than {MAX_DEPTH} segments")),
        [first, ..] if first.eq_ignore_ascii_case("include") => {
            Err("`include` can only be set in the file".into())
        }
        _ => Ok(()),
    }
}

/// The value of a variable as a node.
fn read(value: &str, source: SourceId) -> Node {
    let flow = value.trim_start().starts_with(['[', '{']);
    let mut errors = Errors::default();
    match flow.then(|| parse(source, value, None, &mut errors)).flatten() {
        Some(node) if errors.is_empty() && !matches!(node.value, Value::Scalar { .. }) => node,
        _ => Node { mark: Mark::start_of(source), value: Value::plain(value) },
    }
}

/// Sets what stands at the segments, and spells the path as far as it got.
fn set(node: &mut Node, segments: &[&str], new: Node, path: &mut String) -> Result<(), String> {
    let Some((first, rest)) = segments.split_first() else {
        *node = new;
        return Ok(());
    };
    match &mut node.value {
        Value::Map(entries) => match position(entries, first) {
            Some(at) => {
                let (key, value) = &mut Arc::make_mut(entries)[at];
                push_key(path, &key.text);
                set(value, rest, new, path)
            }
            None => {
                *entries = entries.iter().cloned().chain([created(first, rest, new)]).collect();
                Ok(())
            }
        },
        Value::List(items) => {
            let length = items.len();
            let index: usize =
                first.parse().map_err(|_| format!("`{first}` is not the index of a list item"))?;
            let item = Arc::make_mut(items).get_mut(index);
            let item = item
                .ok_or_else(|| format!("there is no item {index}: the list has {length}, counted from 0"))?;
            push_index(path, index);
            set(item, rest, new, path)
        }
        Value::Null => {
            node.value = Value::Map([created(first, rest, new)].into());
            Ok(())
        }
        Value::Scalar { .. } => Err(format!("there is no `{first}` in a single value")),
    }
}

fn position(entries: &[Entry], segment: &str) -> Option<usize> {
    let exactly = entries.iter().position(|(key, _)| &*key.text == segment);
    exactly.or_else(|| entries.iter().position(|(key, _)| key.text.eq_ignore_ascii_case(segment)))
}

/// A new entry, with maps on the way to the value.
fn created(segment: &str, rest: &[&str], new: Node) -> Entry {
    let mark = Mark::start_of(new.mark.source);
    let value = match rest.split_first() {
        None => new,
        Some((next, rest)) => Node { mark, value: Value::Map([created(next, rest, new)].into()) },
    };
    (Key { text: segment.to_lowercase().into(), mark }, value)
}

fn set_port(root: &mut Node, port: &str, mark: Mark) -> Result<(), String> {
    let Some(listeners) = child(root, "listeners") else {
        return Ok(());
    };
    let Value::List(listeners) = &mut listeners.value else {
        return Ok(());
    };
    let tcp: Vec<_> = (0..listeners.len()).filter(|&at| tcp_address(&listeners[at]).is_some()).collect();
    let at = match tcp[..] {
        [] => return Ok(()),
        [only] => only,
        _ => {
            return Err(format!(
                "PORT is set, but which of the {} TCP listeners it is for is unclear",
                tcp.len()
            ));
        }
    };
    let port: u16 = port.parse().map_err(|_| format!("PORT is `{port}`, which is not a port"))?;
    let Some(address) = child(&mut Arc::make_mut(listeners)[at], "address") else {
        return Ok(());
    };
    let host = address.text().map(host).unwrap_or_default();
    *address = Node { mark, value: Value::plain(format!("{host}:{port}")) };
    Ok(())
}

fn child<'a>(node: &'a mut Node, key: &str) -> Option<&'a mut Node> {
    let Value::Map(entries) = &mut node.value else {
        return None;
    };
    let at = entries.iter().position(|(k, _)| &*k.text == key)?;
    Some(&mut Arc::make_mut(entries)[at].1)
}

fn tcp_address(listener: &Node) -> Option<&str> {
    listener.get("address")?.text().filter(|address| !address.starts_with("unix:"))
}

/// An address without its port; the brackets of an IPv6 address stay.
fn host(address: &str) -> &str {
    match address.rsplit_once(':') {
        Some((host, port)) if !port.ends_with(']') => host,
        _ => address,
    }
}

#[cfg(test)]
mod tests {
    use crate::document::{Document, Environment, Value};

    const TEXT: &str = "server: { Threads: 2 }\nlisteners: [{ name: web, address: '[::]:8080' }]\nempty:\n\
                        upstreams: { orders-next: { balance: random } }\n";

    fn with(text: &str, environment: &[(&str, &str)]) -> Result<Document, String> {
        let environment: Environment = environment.iter().copied().collect();
        Document::parse("c.yaml", text, &environment).map_err(|failure| failure.to_string())
    }

    fn value(document: &Document, path: &str) -> Value {
        document.root.nearest(path).value.clone()
    }

    #[test]
    fn sets_what_a_name_leads_to() {
        let document = with(
            TEXT,
            &[
                ("PORTCULLIS__SERVER__THREADS", "4"),
                ("PORTCULLIS__LISTENERS__0__NAME", "'q'"),
                ("PORTCULLIS__LISTENERS__0__ADDRESS", "[::1]:9"),
                ("PORTCULLIS__EMPTY__A__B", "${X}"),
                ("PORTCULLIS__UPSTREAMS__orders-next__BALANCE", "{ sticky: { cookie: c } }"),
                ("PORTCULLIS__UPSTREAMS__NEW-ONE__ENDPOINTS", "[a, 1]"),
                ("PORTCULLIS_ADMIN_TOKEN", "ignored"),
            ],
        )
        .unwrap();
        assert_eq!(value(&document, "server.Threads"), Value::plain("4"));
        assert_eq!(document.root.get("server").unwrap().entries().len(), 1);
        assert_eq!(value(&document, "listeners[0].name"), Value::plain("'q'"));
        assert_eq!(value(&document, "listeners[0].address"), Value::plain("[::1]:9"));
        assert_eq!(value(&document, "empty.a.b"), Value::plain("${X}"));
        assert_eq!(value(&document, "upstreams.orders-next.balance.sticky.cookie"), Value::plain("c"));
        assert_eq!(document.root.nearest("upstreams.new-one.endpoints").items().len(), 2);
        let mark = document.mark_of("server.Threads");
        assert_eq!(document.sources.describe(mark), "environment PORTCULLIS__SERVER__THREADS");
    }

    #[test]
    fn an_exact_key_comes_before_one_in_other_case() {
        let document = with("{ a: 1, A: 2 }", &[("PORTCULLIS__A", "3")]).unwrap();
        assert_eq!((value(&document, "a"), value(&document, "A")), (Value::plain("1"), Value::plain("3")));
    }

    #[test]
    fn does_not_change_what_only_shares_an_anchor() {
        let document = with("a: &a { x: [1] }\nb: *a\n", &[("PORTCULLIS__B__X__0", "2")]).unwrap();
        assert_eq!(
            (value(&document, "a.x[0]"), value(&document, "b.x[0]")),
            (Value::plain("1"), Value::plain("2"))
        );
    }

    #[test]
    fn refuses_names_that_lead_nowhere() {
        for (name, expected) in [
            ("PORTCULLIS__LISTENERS__1__NAME", "listeners: there is no item 1: the list has 1"),
            ("PORTCULLIS__LISTENERS__WEB", "listeners: `WEB` is not the index"),
            ("PORTCULLIS__SERVER__THREADS__X", "server.Threads: there is no `X` in a single value"),
            ("PORTCULLIS__SERVER____X", "the name has an empty segment"),
            ("PORTCULLIS__INCLUDE__0", "`include` can only be set in the file"),
        ] {
            let found = with(TEXT, &[(name, "1")]).unwrap_err();
            assert!(found.starts_with(&format!("environment {name}: {expected}")), "{found}");
        }
        let long = format!("PORTCULLIS{}", "__A".repeat(65));
        assert!(with(TEXT, &[(&long, "1")]).unwrap_err().contains("more than 64 segments"));
    }

    #[test]
    fn port_is_for_the_only_tcp_listener() {
        for (listeners, expected) in [
            ("[{ address: '[::]:8080' }]", "[::]:81"),
            ("[{ address: 0.0.0.0:8080 }]", "0.0.0.0:81"),
            ("[{ address: '[::1]' }]", "[::1]:81"),
            ("[{ address: localhost }]", "localhost:81"),
        ] {
            let document = with(&format!("listeners: {listeners}"), &[("PORT", "81")]).unwrap();
            assert_eq!(value(&document, "listeners[0].address"), Value::plain(expected));
            let mark = document.mark_of("listeners[0].address");
            assert_eq!(document.sources.describe(mark), "environment PORT");
        }
        let unix_first = "listeners: [{ address: 'unix:/run/p' }, { address: 'h:1' }]";
        let document = with(unix_first, &[("PORT", "81")]).unwrap();
        assert_eq!(value(&document, "listeners[0].address"), Value::quoted("unix:/run/p"));
        assert_eq!(value(&document, "listeners[1].address"), Value::plain("h:81"));
    }

    #[test]
    fn port_without_a_listener_is_ignored_and_with_several_refused() {
        for text in ["version: 1", "listeners: []", "listeners: [{ address: 'unix:/run/p' }]", "listeners: x"]
        {
            assert!(with(text, &[("PORT", "81")]).is_ok(), "{text}");
        }
        let found =
            with("listeners: [{ address: 'a:1' }, { address: 'b:2' }]", &[("PORT", "81")]).unwrap_err();
        assert!(found.starts_with("environment PORT: listeners: PORT is set, but which of the 2"), "{found}");
        let found = with(TEXT, &[("PORT", "http")]).unwrap_err();
        assert!(found.contains("PORT is `http`, which is not a port"), "{found}");
    }
}
