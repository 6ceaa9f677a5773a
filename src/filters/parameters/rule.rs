//! What one value must be.

use std::borrow::Cow;

use regex::bytes::{Regex, RegexBuilder};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::document::{ConfigError, Errors};

/// What a value must be.
#[derive(Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub(super) struct RuleConfig {
    #[serde(rename = "type")]
    /// What kind of value it is.
    pub(super) kind: Kind,
    /// The lowest number.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) minimum: Option<f64>,
    /// The highest number.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) maximum: Option<f64>,
    /// The longest text, in characters.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) max_length: Option<usize>,
    /// A regular expression (linear time) that the whole text matches.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) pattern: Option<String>,
    /// The values that it may have.
    #[serde(rename = "enum")]
    pub(super) values: Vec<String>,
}

/// What kind of value it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub(super) enum Kind {
    /// Any text.
    #[default]
    String,
    /// Digits, with a minus or not, of 64 bits.
    Integer,
    /// A number as JSON writes it.
    Number,
    /// `true` or `false`.
    Boolean,
}

/// What a value must be.
pub(super) struct Rule {
    kind: Kind,
    minimum: Option<f64>,
    maximum: Option<f64>,
    max_length: Option<usize>,
    pattern: Option<Regex>,
    values: Box<[Box<str>]>,
}

/// Bytes of one compiled pattern.
const PATTERN: usize = 1 << 20;

impl Rule {
    pub(super) fn compile(path: &str, words: RuleConfig, errors: &mut Errors) -> Self {
        let mut error =
            |part: &str, message: String| errors.push(ConfigError::new(format!("{path}.{part}"), message));
        let numeric = matches!(words.kind, Kind::Integer | Kind::Number);
        for (part, bound) in [("minimum", words.minimum), ("maximum", words.maximum)] {
            if bound.is_some() && !numeric {
                error(part, "only numbers have bounds: say `type: integer` or `type: number`".into());
            }
        }
        if let (Some(minimum), Some(maximum)) = (words.minimum, words.maximum)
            && minimum > maximum
        {
            error("minimum", "the lowest number is above the highest".into());
        }
        let pattern = words.pattern.and_then(|pattern| {
            let build =
                |source: &str| RegexBuilder::new(source).size_limit(PATTERN).dfa_size_limit(PATTERN).build();
            // Read by itself first, so that no parenthesis of its own ends the group.
            match build(&pattern).and_then(|_| build(&format!(r"\A(?:{pattern})\z"))) {
                Ok(regex) => Some(regex),
                Err(wrong) => {
                    let reason = wrong.to_string();
                    let reason = reason.lines().last().unwrap_or_default().trim_start_matches("error: ");
                    error("pattern", format!("this is not a regular expression to use here: {reason}"));
                    None
                }
            }
        });
        let rule = Self {
            kind: words.kind,
            minimum: words.minimum,
            maximum: words.maximum,
            max_length: words.max_length,
            pattern,
            values: Box::default(),
        };
        for (at, value) in words.values.iter().enumerate() {
            if let Err(why) = rule.judge(value.as_bytes()) {
                error(&format!("enum[{at}]"), format!("this value {why}"));
            }
        }
        Self { values: words.values.into_iter().map(String::into).collect(), ..rule }
    }

    /// Says what is wrong with a value, without repeating it.
    pub(super) fn judge(&self, value: &[u8]) -> Result<(), Cow<'static, str>> {
        let Ok(text) = std::str::from_utf8(value) else { return Err("is not text".into()) };
        let number = match self.kind {
            Kind::String => None,
            Kind::Boolean if matches!(text, "true" | "false") => None,
            Kind::Boolean => return Err("is neither true nor false".into()),
            Kind::Integer => Some(integer(text).ok_or("is not an integer")?),
            Kind::Number => Some(number(text).ok_or("is not a number")?),
        };
        match (number, self.minimum, self.maximum) {
            (Some(number), Some(minimum), _) if number < minimum => {
                return Err(format!("is below {minimum}").into());
            }
            (Some(number), _, Some(maximum)) if number > maximum => {
                return Err(format!("is above {maximum}").into());
            }
            _ => {}
        }
        if let Some(most) = self.max_length.filter(|most| text.chars().nth(*most).is_some()) {
            return Err(format!("is longer than {most} characters").into());
        }
        if !self.values.is_empty() && !self.values.iter().any(|known| **known == *text) {
            return Err("is none of the values that it may have".into());
        }
        match &self.pattern {
            Some(pattern) if !pattern.is_match(value) => Err("has not the form that it must have".into()),
            _ => Ok(()),
        }
    }
}

/// An integer of 64 bits. Bounds are compared as doubles, which tell neighbours apart up to 2^53.
fn integer(text: &str) -> Option<f64> {
    let digits = text.strip_prefix('-').unwrap_or(text);
    if digits.is_empty() || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    text.parse::<i64>().ok().map(|number| number as f64)
}

fn number(text: &str) -> Option<f64> {
    let number = serde_json::from_str::<serde_json::Number>(text).ok()?;
    // Blanks around it are no part of a number.
    number.as_f64().filter(|number| number.is_finite() && text.trim() == text)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn judged(words: RuleConfig, value: &str) -> Result<(), Cow<'static, str>> {
        let mut errors = Errors::default();
        let rule = Rule::compile("", words, &mut errors);
        assert!(errors.is_empty(), "{errors:?}");
        rule.judge(value.as_bytes())
    }

    #[test]
    fn kinds_and_bounds() {
        let between =
            |kind| RuleConfig { kind, minimum: Some(-1.5), maximum: Some(100.0), ..RuleConfig::default() };
        for (kind, value, is) in [
            (Kind::Integer, "1", true),
            (Kind::Integer, "-1", true),
            (Kind::Integer, "-2", false),
            (Kind::Integer, "100", true),
            (Kind::Integer, "101", false),
            (Kind::Integer, "1.0", false),
            (Kind::Integer, "+1", false),
            (Kind::Integer, "", false),
            (Kind::Integer, "-", false),
            (Kind::Integer, "99999999999999999999", false),
            (Kind::Number, "-1.5", true),
            (Kind::Number, "1e2", true),
            (Kind::Number, "1e999", false),
            (Kind::Number, "NaN", false),
            (Kind::Number, " 1", false),
            (Kind::Number, "0x1", false),
        ] {
            assert_eq!(judged(between(kind), value).is_ok(), is, "{kind:?} {value}");
        }
        let boolean = || RuleConfig { kind: Kind::Boolean, ..RuleConfig::default() };
        assert!(judged(boolean(), "true").is_ok() && judged(boolean(), "TRUE").is_err());
    }

    #[test]
    fn texts() {
        let longest = || RuleConfig { max_length: Some(3), ..RuleConfig::default() };
        assert!(judged(longest(), "äöü").is_ok() && judged(longest(), "abcd").is_err());
        let one_of = || RuleConfig { values: vec!["a".into(), "b c".into()], ..RuleConfig::default() };
        assert!(judged(one_of(), "b c").is_ok() && judged(one_of(), "b").is_err());
        let form = || RuleConfig { pattern: Some("[a-z]+|1".into()), ..RuleConfig::default() };
        assert!(
            judged(form(), "abc").is_ok() && judged(form(), "abc1").is_err() && judged(form(), "").is_err()
        );
        let any = Rule::compile("", RuleConfig::default(), &mut Errors::default());
        assert!(any.judge(b"\xFF").is_err() && any.judge(b"").is_ok());
    }
}
