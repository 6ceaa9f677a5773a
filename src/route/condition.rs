//! What a route wants of a request besides host and path: listener, method, header fields, query.

use std::borrow::Cow;
use std::fmt;

use http::{HeaderMap, HeaderName, HeaderValue, Method};
use regex::bytes::{Regex, RegexBuilder};
use smallvec::SmallVec;

use super::pattern::compile_regex;

/// What the router needs to know of a request.
#[derive(Debug, Clone, Copy)]
pub struct Lookup<'a> {
    /// The canonical host, see [`Host`](crate::types::Host).
    pub host: &'a str,
    /// The canonical path, see [`NormalPath`](crate::types::NormalPath).
    pub path: &'a str,
    /// The method.
    pub method: &'a Method,
    /// The header fields.
    pub headers: &'a HeaderMap,
    /// What stands after `?`, as it came.
    pub query: Option<&'a str>,
    /// The index of the listener that took the request.
    pub listener: usize,
}

/// A set of methods. `GET` brings `HEAD` with it, since whoever serves one serves the other (RFC 9110, 9.3.2).
///
/// Displayed, it is the value of an `Allow` field.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct MethodSet {
    /// One bit for each of [`STANDARD`].
    standard: u16,
    extensions: Vec<Method>,
}

const STANDARD: &[Method; 9] = &[
    Method::GET,
    Method::HEAD,
    Method::POST,
    Method::PUT,
    Method::PATCH,
    Method::DELETE,
    Method::OPTIONS,
    Method::TRACE,
    Method::CONNECT,
];

impl MethodSet {
    /// Adds a method, and `HEAD` with `GET`.
    pub fn insert(&mut self, method: Method) {
        if method == Method::GET {
            self.standard |= standard_bit(&Method::HEAD);
        }
        match standard_bit(&method) {
            0 if !self.extensions.contains(&method) => self.extensions.push(method),
            bit => self.standard |= bit,
        }
    }

    /// Adds all methods of another set.
    pub fn merge(&mut self, other: &Self) {
        self.standard |= other.standard;
        other.extensions.iter().for_each(|method| self.insert(method.clone()));
    }

    /// Whether the method is in the set.
    pub fn contains(&self, method: &Method) -> bool {
        self.standard & standard_bit(method) != 0 || self.extensions.contains(method)
    }

    /// Whether no method is in the set.
    pub fn is_empty(&self) -> bool {
        self.standard == 0 && self.extensions.is_empty()
    }

    /// The methods, each once: the registered ones in a fixed order, then the others as they were added.
    pub fn iter(&self) -> impl Iterator<Item = &Method> {
        let standard = STANDARD.iter().filter(|method| self.standard & standard_bit(method) != 0);
        standard.chain(&self.extensions)
    }
}

/// Zero for a method outside of [`STANDARD`].
fn standard_bit(method: &Method) -> u16 {
    STANDARD.iter().position(|standard| standard == method).map_or(0, |index| 1 << index)
}

impl FromIterator<Method> for MethodSet {
    fn from_iter<I: IntoIterator<Item = Method>>(methods: I) -> Self {
        let mut set = Self::default();
        methods.into_iter().for_each(|method| set.insert(method));
        set
    }
}

impl fmt::Display for MethodSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, method) in self.iter().enumerate() {
            f.write_str(if index == 0 { "" } else { ", " })?;
            f.write_str(method.as_str())?;
        }
        Ok(())
    }
}

/// A set of listeners, by index. The first 64 need no allocation.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ListenerSet(SmallVec<[u64; 1]>);

impl ListenerSet {
    /// Whether the listener is in the set.
    pub fn contains(&self, listener: usize) -> bool {
        self.0.get(listener / 64).is_some_and(|word| word >> (listener % 64) & 1 == 1)
    }

    /// Whether no listener is in the set.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl FromIterator<usize> for ListenerSet {
    fn from_iter<I: IntoIterator<Item = usize>>(listeners: I) -> Self {
        let mut words = SmallVec::<[u64; 1]>::new();
        for listener in listeners {
            let index = listener / 64;
            if words.len() <= index {
                words.resize(index + 1, 0);
            }
            words[index] |= 1 << (listener % 64);
        }
        Self(words)
    }
}

/// What is wanted of the values under a name.
#[derive(Debug, Clone)]
pub enum ValueMatch {
    /// One of them is this, byte for byte.
    Exact(Box<str>),
    /// There is one (`true`), or none (`false`).
    Present(bool),
    /// One of them is matched by this regex, anywhere in it.
    Regex(Regex),
}

impl ValueMatch {
    /// Compiles a regex, which works in linear time.
    ///
    /// # Errors
    /// When the syntax is wrong or the compiled form would take too much memory. The text is for the operator.
    pub fn regex(source: &str) -> Result<Self, regex::Error> {
        compile_regex(&mut RegexBuilder::new(source)).map(Self::Regex)
    }
}

impl ValueMatch {
    /// Whether it holds of the values that there are under a name.
    pub fn holds<'v>(&self, mut values: impl Iterator<Item = &'v [u8]>) -> bool {
        match self {
            Self::Exact(wanted) => values.any(|value| value == wanted.as_bytes()),
            Self::Present(wanted) => values.next().is_some() == *wanted,
            Self::Regex(regex) => values.any(|value| regex.is_match(value)),
        }
    }
}

/// A condition on a header field. Each line of a repeated field is a value of its own.
#[derive(Debug, Clone)]
pub struct HeaderCondition {
    /// The field.
    pub name: HeaderName,
    /// What is wanted of it.
    pub value: ValueMatch,
}

impl HeaderCondition {
    /// Whether it holds of these fields.
    pub fn holds(&self, headers: &HeaderMap) -> bool {
        self.value.holds(headers.get_all(&self.name).iter().map(HeaderValue::as_bytes))
    }
}

/// A condition on a query parameter. The request's names and values are form-decoded: `+` is a space, and escapes are
/// resolved; an escape that is none stands for itself. A name without `=` has the empty value.
#[derive(Debug, Clone)]
pub struct QueryCondition {
    /// The parameter, decoded.
    pub name: Box<str>,
    /// What is wanted of it, decoded.
    pub value: ValueMatch,
}

impl QueryCondition {
    /// Whether it holds of this query, as it came.
    pub fn holds(&self, query: Option<&str>) -> bool {
        let mut values = raw_values(query.unwrap_or_default(), &self.name);
        match &self.value {
            ValueMatch::Exact(wanted) => values.any(|value| form_equals(value, wanted)),
            ValueMatch::Present(wanted) => values.next().is_some() == *wanted,
            ValueMatch::Regex(regex) => values.any(|value| regex.is_match(&form_decoded(value))),
        }
    }
}

/// The first value of a query parameter; name and value are form-decoded.
pub fn query_value<'q>(query: &'q str, name: &str) -> Option<Cow<'q, [u8]>> {
    raw_values(query, name).next().map(form_decoded)
}

/// All values of a query parameter; name and values are form-decoded.
pub fn query_values<'q>(query: &'q str, name: &str) -> impl Iterator<Item = Cow<'q, [u8]>> {
    raw_values(query, name).map(form_decoded)
}

/// The query with this value in place of every value of a parameter, or without the parameter; `None` where it is not
/// there. What else there is stays as it came.
pub fn replace_query_values(query: &str, name: &str, value: Option<&str>) -> Option<String> {
    let named = |pair: &&str| !pair.is_empty() && form_equals(split_pair(pair.as_bytes()).0, name);
    query.split('&').find(named)?;
    let mut replaced = String::with_capacity(query.len());
    for pair in query.split('&') {
        let (pair, value) = match (named(&pair), value) {
            (true, None) => continue,
            (true, Some(value)) => (pair.split('=').next().unwrap_or_default(), Some(value)),
            (false, _) => (pair, None),
        };
        if !replaced.is_empty() {
            replaced.push('&');
        }
        replaced.push_str(pair);
        if let Some(value) = value {
            replaced.push('=');
            replaced.push_str(value);
        }
    }
    Some(replaced)
}

/// The names of the query parameters in the order they came, form-decoded.
pub fn query_names(query: &str) -> impl Iterator<Item = Cow<'_, str>> {
    let pairs = query.as_bytes().split(|byte| *byte == b'&').filter(|pair| !pair.is_empty());
    pairs.map(|pair| match form_decoded(split_pair(pair).0) {
        Cow::Borrowed(name) => String::from_utf8_lossy(name),
        Cow::Owned(name) => Cow::Owned(String::from_utf8_lossy(&name).into_owned()),
    })
}

/// The values of a query parameter as they came.
fn raw_values<'q>(query: &'q str, name: &str) -> impl Iterator<Item = &'q [u8]> {
    let pairs = query.as_bytes().split(|byte| *byte == b'&').filter(|pair| !pair.is_empty());
    pairs.map(split_pair).filter(move |(its, _)| form_equals(its, name)).map(|(_, value)| value)
}

fn split_pair(pair: &[u8]) -> (&[u8], &[u8]) {
    match memchr::memchr(b'=', pair) {
        Some(equals) => (&pair[..equals], &pair[equals + 1..]),
        None => (pair, &[]),
    }
}

/// Compares without a buffer.
fn form_equals(raw: &[u8], wanted: &str) -> bool {
    form_bytes(raw).eq(wanted.bytes())
}

fn form_decoded(raw: &[u8]) -> Cow<'_, [u8]> {
    match memchr::memchr2(b'+', b'%', raw) {
        Some(_) => form_bytes(raw).collect(),
        None => Cow::Borrowed(raw),
    }
}

/// The decoded bytes, as the `application/x-www-form-urlencoded` parser of WHATWG URL gives them.
fn form_bytes(mut raw: &[u8]) -> impl Iterator<Item = u8> {
    std::iter::from_fn(move || {
        let (byte, rest) = match raw {
            [b'%', rest @ ..] => escaped_byte(rest).unwrap_or((b'%', rest)),
            [b'+', rest @ ..] => (b' ', rest),
            [byte, rest @ ..] => (*byte, rest),
            [] => return None,
        };
        raw = rest;
        Some(byte)
    })
}

/// The byte that two digits at the start of `text` stand for, and what follows them.
fn escaped_byte(text: &[u8]) -> Option<(u8, &[u8])> {
    let [high, low, rest @ ..] = text else { return None };
    let digit = |byte: u8| char::from(byte).to_digit(16);
    Some(((digit(*high)? << 4 | digit(*low)?) as u8, rest))
}

/// All conditions of a route.
pub(super) struct Conditions {
    /// Any, when empty.
    pub methods: MethodSet,
    /// Any, when empty.
    pub listeners: ListenerSet,
    pub headers: Box<[HeaderCondition]>,
    pub query: Box<[QueryCondition]>,
}

/// How a request stands to the conditions of a route.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Verdict {
    Met,
    /// All but the method.
    OtherMethod,
    Unmet,
}

impl Conditions {
    /// Whether every request meets them.
    pub fn are_void(&self) -> bool {
        self.methods.is_empty()
            && self.listeners.is_empty()
            && self.headers.is_empty()
            && self.query.is_empty()
    }

    pub fn judge(&self, request: &Lookup<'_>) -> Verdict {
        let met = (self.listeners.is_empty() || self.listeners.contains(request.listener))
            && self.headers.iter().all(|condition| condition.holds(request.headers))
            && self.query.iter().all(|condition| condition.holds(request.query));
        if !met {
            Verdict::Unmet
        } else if self.methods.is_empty() || self.methods.contains(request.method) {
            Verdict::Met
        } else {
            Verdict::OtherMethod
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn methods(names: &[&str]) -> MethodSet {
        names.iter().map(|name| Method::from_bytes(name.as_bytes()).unwrap()).collect()
    }

    #[test]
    fn get_brings_head() {
        assert!(methods(&["GET"]).contains(&Method::HEAD));
        assert!(!methods(&["HEAD"]).contains(&Method::GET));
        assert!(!methods(&["POST"]).contains(&Method::HEAD));
        assert_eq!(methods(&["POST", "GET", "POST"]).to_string(), "GET, HEAD, POST");
    }

    #[test]
    fn extension_methods_are_kept_once() {
        let set = methods(&["PURGE", "PURGE", "DELETE", "QUERY"]);
        assert_eq!(set.to_string(), "DELETE, PURGE, QUERY");
        assert!(set.contains(&Method::from_bytes(b"PURGE").unwrap()));
        assert!(!set.contains(&Method::from_bytes(b"purge").unwrap()));
        assert!(!set.is_empty() && MethodSet::default().is_empty());
    }

    #[test]
    fn every_standard_method_has_its_own_place() {
        for method in STANDARD {
            let set: MethodSet = [method.clone()].into_iter().collect();
            let expected = if *method == Method::GET { 2 } else { 1 };
            assert_eq!((set.contains(method), set.iter().count()), (true, expected), "{method}");
        }
    }

    #[test]
    fn listeners_go_by_index() {
        let set: ListenerSet = [0, 63, 64, 200].into_iter().collect();
        for listener in 0..300 {
            assert_eq!(set.contains(listener), [0, 63, 64, 200].contains(&listener), "{listener}");
        }
        assert!(ListenerSet::default().is_empty() && !set.is_empty());
    }

    #[test]
    fn header_conditions() {
        let mut headers = HeaderMap::new();
        headers.append("x-env", HeaderValue::from_static("canary"));
        headers.append("x-env", HeaderValue::from_static("blue, green"));
        headers.append("x-raw", HeaderValue::from_bytes(b"a\xFFb").unwrap());
        let holds =
            |name, value| HeaderCondition { name: HeaderName::from_static(name), value }.holds(&headers);
        assert!(holds("x-env", ValueMatch::Exact("canary".into())));
        assert!(holds("x-env", ValueMatch::Exact("blue, green".into())));
        assert!(!holds("x-env", ValueMatch::Exact("blue".into())));
        assert!(!holds("x-env", ValueMatch::Exact("Canary".into())));
        assert!(holds("x-env", ValueMatch::Present(true)));
        assert!(!holds("x-env", ValueMatch::Present(false)));
        assert!(!holds("x-none", ValueMatch::Present(true)));
        assert!(holds("x-none", ValueMatch::Present(false)));
        assert!(holds("x-env", ValueMatch::regex("green$").unwrap()));
        assert!(!holds("x-env", ValueMatch::regex("^green$").unwrap()));
        assert!(!holds("x-none", ValueMatch::regex("").unwrap()));
        assert!(holds("x-raw", ValueMatch::regex("^a(?-u:.)b$").unwrap()));
    }

    #[test]
    fn query_conditions() {
        let query = Some("beta=1&q=a+b%2Bc&empty=&bare&&%62eta=2&x=%zz%2&=v&y=a=b");
        let holds = |name: &str, value| QueryCondition { name: name.into(), value }.holds(query);
        for (name, value, expected) in [
            ("beta", "1", true),
            ("beta", "2", true),
            ("beta", "3", false),
            ("q", "a b+c", true),
            ("q", "a+b%2Bc", false),
            ("empty", "", true),
            ("bare", "", true),
            ("x", "%zz%2", true),
            ("", "v", true),
            ("y", "a=b", true),
            ("none", "", false),
        ] {
            assert_eq!(holds(name, ValueMatch::Exact(value.into())), expected, "{name}={value}");
        }
        assert!(holds("bare", ValueMatch::Present(true)));
        assert!(holds("none", ValueMatch::Present(false)));
        assert!(!holds("beta", ValueMatch::Present(false)));
        assert!(holds("q", ValueMatch::regex("^a b\\+c$").unwrap()));
        assert!(!holds("q", ValueMatch::regex("%2B").unwrap()));
        assert_eq!(query_value("q=a+b&%71=c", "q").as_deref(), Some(&b"a b"[..]));
        assert_eq!((query_value("q", "q").as_deref(), query_value("q", "p")), (Some(&b""[..]), None));
        let absent = QueryCondition { name: "".into(), value: ValueMatch::Present(true) };
        assert!(!absent.holds(None) && !absent.holds(Some("")));
    }

    #[test]
    fn values_of_a_query_are_replaced_and_taken_out() {
        let replaced = |query, value| replace_query_values(query, "a b", value);
        for (query, masked, without) in [
            ("a+b=1", "a+b=*", ""),
            ("x=1&a%20b=2&y", "x=1&a%20b=*&y", "x=1&y"),
            ("a+b&a+b==&a+bc=1", "a+b=*&a+b=*&a+bc=1", "a+bc=1"),
            ("=&a+b=%zz&%", "=&a+b=*&%", "=&%"),
        ] {
            assert_eq!(replaced(query, Some("*")).as_deref(), Some(masked), "{query}");
            assert_eq!(replaced(query, None).as_deref(), Some(without), "{query}");
        }
        assert_eq!((replaced("", None), replaced("ab=1&a=b", None)), (None, None));
    }

    proptest! {
        #[test]
        fn what_is_form_encoded_decodes_to_itself(text in "\\PC{0,20}") {
            let encoded: String = text
                .bytes()
                .map(|byte| match byte {
                    b' ' => "+".to_owned(),
                    b'a'..=b'z' => char::from(byte).to_string(),
                    _ => format!("%{byte:02x}"),
                })
                .collect();
            prop_assert!(form_equals(encoded.as_bytes(), &text));
            let decoded = form_decoded(encoded.as_bytes());
            prop_assert_eq!(&*decoded, text.as_bytes());
        }
    }
}
