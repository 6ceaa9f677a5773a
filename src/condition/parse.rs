//! From text to the tree of the crate `cel`.

use cel::IdedExpr;
use cel::parser::{ParseError, PrattParser};

use crate::document::{ConfigError, Errors};

/// The longest text.
const LONGEST: usize = 4096;
/// The most brackets within brackets: each costs the parser, and all that walks its tree, a piece of the stack.
const DEEPEST: usize = 32;
/// The most operators: a row of them is as deep as it is long.
const OPERATORS: usize = 200;
/// The most nodes of the tree; a list of words has many.
const NODES: usize = 2000;

/// Reads an expression.
pub(super) fn parse(text: &str) -> Result<IdedExpr, Errors> {
    if text.trim().is_empty() {
        return Err(ConfigError::new("", "an expression in CEL says something").into());
    }
    if let Some(message) = excess(text) {
        return Err(ConfigError::new("", message).into());
    }
    let parser = PrattParser::new().max_recursion_depth(250).max_expression_node_count(NODES);
    parser.parse(text).map_err(|errors| {
        let mut found = Errors::default();
        // What follows the first is mostly of its making.
        found.extend(errors.errors.first().map(|error| told(text, error)));
        if found.is_empty() {
            found.push(ConfigError::new("", "this is no expression in CEL"));
        }
        found
    })
}

/// What there is too much of, before the parser sees it.
fn excess(text: &str) -> Option<String> {
    if text.len() > LONGEST {
        return Some(format!("an expression has at most {LONGEST} bytes"));
    }
    let (mut depth, mut deepest, mut operators) = (0_usize, 0, 0);
    let bytes = text.as_bytes();
    let mut at = 0;
    while let Some(byte) = bytes.get(at) {
        match byte {
            b'"' | b'\'' => {
                at = behind_text(bytes, at);
                continue;
            }
            b'`' => at += bytes[at + 1..].iter().take_while(|byte| **byte != b'`').count() + 1,
            b'/' if bytes.get(at + 1) == Some(&b'/') => {
                at += bytes[at..].iter().take_while(|byte| **byte != b'\n').count();
                continue;
            }
            b'(' | b'[' | b'{' => {
                depth += 1;
                deepest = deepest.max(depth);
            }
            b')' | b']' | b'}' => depth = depth.saturating_sub(1),
            b'+' | b'-' | b'*' | b'/' | b'%' | b'!' | b'?' | b'<' | b'>' | b'=' | b'&' | b'|' | b'.' => {
                operators += 1
            }
            _ => {}
        }
        at += 1;
    }
    if deepest > DEEPEST {
        return Some(format!("brackets are at most {DEEPEST} deep"));
    }
    // `&&`, `||`, `==` are two each; a list of three hundred words is fine.
    (operators > 2 * OPERATORS).then(|| format!("an expression has at most {OPERATORS} operators"))
}

/// Where what is behind a text begins whose quotes open at `at`: as the parser reads it, with one quote or three, raw or not.
fn behind_text(text: &[u8], at: usize) -> usize {
    let (before, rest) = text.split_at(at);
    let Some(quote) = rest.first() else { return at };
    let quotes = if rest.starts_with(&[*quote; 3]) { 3 } else { 1 };
    // A word that only ends so is none of it, and no parser takes a text behind a word.
    let word = before.iter().rev().take_while(|byte| byte.is_ascii_alphanumeric() || **byte == b'_').count();
    let word = &before[at - word..];
    let raw = word.len() <= 2
        && word.iter().all(|byte| matches!(byte, b'r' | b'R' | b'b' | b'B'))
        && word.iter().any(|byte| matches!(byte, b'r' | b'R'));
    let close = &[*quote; 3][..quotes];
    let mut inside = quotes;
    while let Some(left) = rest.get(inside..).filter(|left| !left.is_empty()) {
        if left.starts_with(close) {
            return at + inside + quotes;
        }
        inside += if left[0] == b'\\' && !raw { 2 } else { 1 };
    }
    text.len()
}

/// What the parser found, in users' words.
fn told(text: &str, error: &ParseError) -> ConfigError {
    let message = error.msg.strip_prefix("Syntax error: ").unwrap_or(&error.msg);
    let (line, column) = place(text, error.pos);
    let found = message.strip_prefix("mismatched input '").and_then(|rest| rest.split_once("' expecting "));
    let message = match found {
        Some(("<EOF>", _)) => "it ends where something is missing".to_owned(),
        Some((found, "<EOF>")) => format!("`{found}` is not expected here"),
        Some((found, wanted)) => format!("`{found}` is not expected here, but {wanted}"),
        None => message.to_owned(),
    };
    let at =
        if line > 1 { format!("line {line}, character {column}") } else { format!("character {column}") };
    let error = ConfigError::new("", format!("no expression in CEL, at {at}: {message}"));
    match found.map(|(found, _)| found).and_then(meant) {
        Some(hint) => error.with_hint(hint),
        None => error,
    }
}

/// What was probably meant by words of other languages.
fn meant(found: &str) -> Option<&'static str> {
    match found {
        "=" => Some("`==` compares"),
        "and" | "AND" => Some("write `&&`"),
        "or" | "OR" => Some("write `||`"),
        "&" => Some("write `&&`"),
        "|" => Some("write `||`"),
        "~" | "=~" => Some("write `x.matches(\"pattern\")`"),
        _ => None,
    }
}

/// The place of an error in characters: the parser counts bytes.
fn place(text: &str, (line, column): (isize, isize)) -> (usize, usize) {
    let line = usize::try_from(line).unwrap_or(1).max(1);
    let bytes = usize::try_from(column).unwrap_or(1).saturating_sub(1);
    let row = text.split('\n').nth(line - 1).unwrap_or_default();
    let column = row.char_indices().take_while(|(at, _)| *at < bytes).count() + 1;
    (line, column)
}
