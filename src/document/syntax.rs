//! The parser's words for the commonest slips in YAML, put so that they help.

/// A message and perhaps a hint for what the parser says.
pub(super) fn describe(info: &str) -> (String, Option<String>) {
    let indentation = Some("check the indentation, here and above");
    let what = info.rsplit_once(", ").filter(|_| info.starts_with("while ")).map_or(info, |(_, what)| what);
    let (message, hint) = match what {
        _ if what.starts_with("tab") || what.ends_with(" tab") => {
            ("a tab cannot indent", Some("indent with spaces"))
        }
        _ if what.starts_with("unexpected character") => {
            ("a plain text cannot begin with this character", Some("quote the text"))
        }
        "mapping values are not allowed in this context" | "illegal placement of ':' indicator" => {
            ("a `:` is out of place", Some("check the indentation, and quote a text that holds `: `"))
        }
        "simple key expected" | "simple key expect ':'" => ("a key without its `:`", indentation),
        "did not find expected key" | "did not find expected '-' indicator" | "invalid indentation" => {
            ("this does not continue what is above it", indentation)
        }
        "did not find expected ',' or '}'" => {
            ("a `,` or `}` is missing", Some("in `{...}`, quote a text that holds braces, such as `${NAME}`"))
        }
        "expected ',' or ']'" => ("a `,` or `]` is missing", None),
        "found unexpected end of stream" => ("a quoted text is never closed", None),
        "invalid trailing content after double-quoted scalar" => ("a quoted text must end its value", None),
        // The parser counts open brackets on its own, and meets its limit before we see any of them.
        "recursion limit exceeded" => ("lists and maps nest deeper than allowed", None),
        "found unknown escape character" => (
            "a backslash in double quotes begins an escape, and this is none",
            Some("double the backslash, or use single quotes, where it is plain text"),
        ),
        "found unknown anchor" => ("this alias names no anchor above it", None),
        _ => return (format!("not valid YAML: {what}"), None),
    };
    (message.to_owned(), hint.map(str::to_owned))
}
