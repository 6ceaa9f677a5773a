//! The YAML 1.2 core schema: what a plain scalar means when nobody asked for a string.

/// A plain scalar, typed.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Typed<'a> {
    /// `true` or `false`.
    Bool(bool),
    /// A whole number that is not negative.
    Unsigned(u64),
    /// A negative whole number.
    Signed(i64),
    /// A number with a fraction or an exponent, `.inf` or `.nan`.
    Float(f64),
    /// Anything else, and whole numbers beyond 64 bits, which a float would garble.
    Text(&'a str),
}

/// Whether a plain scalar stands for nothing.
pub(super) fn is_null(text: &str) -> bool {
    matches!(text, "" | "~" | "null" | "Null" | "NULL")
}

/// What a plain scalar means by the core schema.
pub(super) fn typed(text: &str) -> Typed<'_> {
    match text {
        "true" | "True" | "TRUE" => return Typed::Bool(true),
        "false" | "False" | "FALSE" => return Typed::Bool(false),
        _ => {}
    }
    // Most scalars of a configuration are words: one look at the first byte settles them.
    if !text.starts_with(|c: char| c.is_ascii_digit() || matches!(c, '+' | '-' | '.')) {
        return Typed::Text(text);
    }
    whole(text).or_else(|| float(text).map(Typed::Float)).unwrap_or(Typed::Text(text))
}

/// Whether the text is written as a whole number, however large.
pub(super) fn is_whole(text: &str) -> bool {
    let digits = text.strip_prefix(['+', '-']).unwrap_or(text);
    !digits.is_empty() && digits.bytes().all(|b| b.is_ascii_digit())
}

fn whole(text: &str) -> Option<Typed<'_>> {
    let radix = |digits: &str, radix| match digits.starts_with(['+', '-']) {
        true => None,
        false => u64::from_str_radix(digits, radix).ok().map(Typed::Unsigned),
    };
    if let Some(hex) = text.strip_prefix("0x") {
        return radix(hex, 16);
    }
    if let Some(octal) = text.strip_prefix("0o") {
        return radix(octal, 8);
    }
    if !is_whole(text) {
        return None;
    }
    match text.parse::<u64>() {
        Ok(number) => Some(Typed::Unsigned(number)),
        Err(_) => text.parse::<i64>().ok().map(Typed::Signed),
    }
}

fn float(text: &str) -> Option<f64> {
    let unsigned = text.strip_prefix(['+', '-']).unwrap_or(text);
    match unsigned {
        ".inf" | ".Inf" | ".INF" => {
            return Some(if text.starts_with('-') { f64::NEG_INFINITY } else { f64::INFINITY });
        }
        ".nan" | ".NaN" | ".NAN" => return (unsigned == text).then_some(f64::NAN),
        _ => {}
    }
    // Rust also reads `inf`, `nan` and `infinity`, which are words in YAML.
    let digits_lead =
        unsigned.strip_prefix('.').unwrap_or(unsigned).starts_with(|c: char| c.is_ascii_digit());
    (digits_lead && !is_whole(text)).then(|| text.parse().ok()).flatten()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn follows_the_core_schema() {
        let cases = [
            ("true", Typed::Bool(true)),
            ("FALSE", Typed::Bool(false)),
            ("yes", Typed::Text("yes")),
            ("0", Typed::Unsigned(0)),
            ("+12", Typed::Unsigned(12)),
            ("007", Typed::Unsigned(7)),
            ("-12", Typed::Signed(-12)),
            ("0xFF", Typed::Unsigned(255)),
            ("0o17", Typed::Unsigned(15)),
            ("0x+F", Typed::Text("0x+F")),
            ("1.5", Typed::Float(1.5)),
            (".5", Typed::Float(0.5)),
            ("1.", Typed::Float(1.0)),
            ("-1e3", Typed::Float(-1000.0)),
            ("-.inf", Typed::Float(f64::NEG_INFINITY)),
            ("-inf", Typed::Text("-inf")),
            ("1.2.3", Typed::Text("1.2.3")),
            ("10.0.0.1:80", Typed::Text("10.0.0.1:80")),
            ("100/s", Typed::Text("100/s")),
            ("-", Typed::Text("-")),
            (".", Typed::Text(".")),
            ("1_000", Typed::Text("1_000")),
            ("18446744073709551616", Typed::Text("18446744073709551616")),
        ];
        for (text, expected) in cases {
            assert_eq!(typed(text), expected, "{text}");
        }
        assert!(matches!(typed(".nan"), Typed::Float(f) if f.is_nan()));
    }

    proptest! {
        #[test]
        fn whole_numbers_survive(unsigned: u64, signed in i64::MIN..0) {
            let (positive, negative) = (unsigned.to_string(), signed.to_string());
            prop_assert_eq!(typed(&positive), Typed::Unsigned(unsigned));
            prop_assert_eq!(typed(&negative), Typed::Signed(signed));
        }

        #[test]
        fn any_text_has_a_type(text in ".*") {
            typed(&text);
        }
    }
}
