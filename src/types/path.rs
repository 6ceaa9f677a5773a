//! The canonical path: one spelling for matching, authorization, limits, the cache key and the upstream.
//!
//! Bypasses live between two normalisations, so there is one, and what it cannot make canonical without
//! guessing it refuses.
//!
//! 1. The path starts with `/`, and `//` collapses to `/` before dot segments are removed.
//! 2. Escapes of unreserved characters are decoded, the others are kept with upper-case digits (RFC 3986,
//!    6.2.2). `%25` stays, so nothing is ever decoded twice.
//! 3. `|` and `^`, which no URI may contain but browsers send raw, are encoded: they mean the same in either spelling.
//! 4. `.` and `..` are removed (RFC 3986, 5.2.4); climbing above the root is refused.
//! 5. Whatever two parsers may read differently is refused: see [`PathError`].
//! 6. A trailing slash is kept: it matters.

use std::borrow::Cow;
use std::fmt;

/// A path in canonical form. It borrows from the request when that was canonical already.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct NormalPath<'a>(Cow<'a, str>);

impl<'a> NormalPath<'a> {
    /// Makes the path of a request target canonical; `raw` is without the query.
    ///
    /// # Errors
    /// A [`PathError`] when `raw` has no unambiguous canonical form; the client is answered 400.
    pub fn parse(raw: &'a str) -> Result<Self, PathError> {
        if is_canonical(raw) {
            return Ok(Self(Cow::Borrowed(raw)));
        }
        canonicalize(raw).map(|path| Self(Cow::Owned(path)))
    }

    /// The canonical text: ASCII, starting with `/`.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl AsRef<str> for NormalPath<'_> {
    fn as_ref(&self) -> &str {
        self.as_str()
    }
}

impl fmt::Display for NormalPath<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Why a path has no canonical form. The text is fit for the client.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum PathError {
    /// The path does not start with `/`.
    NotAbsolute,
    /// `%` without two hexadecimal digits after it.
    InvalidEscape,
    /// Escaped bytes that are not UTF-8, overlong forms of `/`, `.` and `\` among them.
    InvalidUtf8,
    /// An escaped control character, `%00` among them.
    EncodedControl,
    /// A raw control character, DEL or a space.
    ControlOrSpace,
    /// A raw character outside of ASCII.
    NonAscii,
    /// A backslash, raw or escaped: some servers take it for a slash.
    Backslash,
    /// `%2F`: a slash to some, data to others.
    EncodedSlash,
    /// A dot segment with an escaped dot: `%2e%2e`, `.%2e`, `%2e`.
    EncodedDotSegment,
    /// A dot segment with path parameters: `..;x`. Servlet containers drop the parameters, then climb.
    DotSegmentParameters,
    /// `..` that climbs above the root.
    AboveRoot,
    /// `?` or `#` inside of the path.
    Delimiter,
    /// A raw character that no URI may contain and no browser sends: one of ``"<>`{}``.
    IllegalCharacter,
}

impl PathError {
    /// A short sentence for the client.
    pub fn reason(self) -> &'static str {
        match self {
            Self::NotAbsolute => "the path must start with a slash",
            Self::InvalidEscape => "the path has an invalid percent-escape",
            Self::InvalidUtf8 => "the path's percent-escapes are not valid UTF-8",
            Self::EncodedControl => "the path has an escaped control character",
            Self::ControlOrSpace => "the path has a space or a control character",
            Self::NonAscii => "non-ASCII characters in the path must be percent-encoded",
            Self::Backslash => "the path has a backslash",
            Self::EncodedSlash => "the path has an escaped slash",
            Self::EncodedDotSegment => "the path has a dot segment with an escaped dot",
            Self::DotSegmentParameters => "the path has a dot segment with parameters",
            Self::AboveRoot => "the path climbs above the root",
            Self::Delimiter => "the path contains `?` or `#`",
            Self::IllegalCharacter => "the path has a character that must be percent-encoded",
        }
    }
}

impl fmt::Display for PathError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.reason())
    }
}

impl std::error::Error for PathError {}

/// Says in one scan whether [`canonicalize`] would give `raw` back as it is.
fn is_canonical(raw: &str) -> bool {
    let bytes = raw.as_bytes();
    if bytes.first() != Some(&b'/') {
        return false;
    }
    let mut at = 0;
    while let Some(&byte) = bytes.get(at) {
        at += match byte {
            _ if PLAIN[usize::from(byte)] => 1,
            b'/' if starts_plain_segment(&bytes[at + 1..]) => 1,
            b'%' => match Escaped::read(&bytes[at..]) {
                Ok(escaped) if escaped.is_canonical(&bytes[at..]) => escaped.len,
                _ => return false,
            },
            _ => return false,
        };
    }
    true
}

/// Whether what follows a slash is neither a second slash nor a dot segment, with parameters or without.
fn starts_plain_segment(rest: &[u8]) -> bool {
    let after_dots = match rest {
        [b'/', ..] => return false,
        [b'.', b'.', after @ ..] | [b'.', after @ ..] => after,
        _ => return true,
    };
    !matches!(after_dots, [] | [b'/' | b';', ..] | [b'%', b'3', b'B', ..])
}

fn canonicalize(raw: &str) -> Result<String, PathError> {
    let rest = raw.strip_prefix('/').ok_or(PathError::NotAbsolute)?;
    let mut path = String::with_capacity(raw.len());
    path.push('/');
    // `path` ends with a slash at the top of every turn.
    let mut segments = rest.split('/').peekable();
    while let Some(segment) = segments.next() {
        match segment {
            "" | "." => continue,
            ".." => leave_segment(&mut path)?,
            _ => {
                append_segment(&mut path, segment)?;
                if segments.peek().is_some() {
                    path.push('/');
                }
            }
        }
    }
    Ok(path)
}

fn leave_segment(path: &mut String) -> Result<(), PathError> {
    let parent = path[..path.len() - 1].rfind('/').ok_or(PathError::AboveRoot)?;
    path.truncate(parent + 1);
    Ok(())
}

fn append_segment(path: &mut String, segment: &str) -> Result<(), PathError> {
    let start = path.len();
    let bytes = segment.as_bytes();
    let mut at = 0;
    while let Some(&byte) = bytes.get(at) {
        at += match byte {
            _ if PLAIN[usize::from(byte)] => {
                path.push(char::from(byte));
                1
            }
            b'%' => {
                let escaped = Escaped::read(&bytes[at..])?;
                escaped.write(&bytes[at..], path);
                escaped.len
            }
            // The URL standard's path percent-encode set has never had `|`, and `^` only since 2023.
            b'|' | b'^' => {
                path.push_str(if byte == b'|' { "%7C" } else { "%5E" });
                1
            }
            _ => return Err(refusal(byte)),
        };
    }
    refuse_dots_in_disguise(&path[start..])
}

/// Plain dot segments never come here, so any that shows up now was escaped or carries parameters.
fn refuse_dots_in_disguise(segment: &str) -> Result<(), PathError> {
    match segment {
        _ if starts_plain_segment(segment.as_bytes()) => Ok(()),
        "." | ".." => Err(PathError::EncodedDotSegment),
        _ => Err(PathError::DotSegmentParameters),
    }
}

fn refusal(byte: u8) -> PathError {
    match byte {
        b'\\' => PathError::Backslash,
        b'?' | b'#' => PathError::Delimiter,
        0..=b' ' | 0x7F => PathError::ControlOrSpace,
        0x80.. => PathError::NonAscii,
        _ => PathError::IllegalCharacter,
    }
}

/// One percent-encoded character that a path may carry.
struct Escaped {
    character: char,
    /// Bytes of the escaped text: three for each byte of the character.
    len: usize,
}

impl Escaped {
    /// Reads the character at the start of `text`, whose first byte is `%`.
    fn read(text: &[u8]) -> Result<Self, PathError> {
        let first = escaped_byte(text)?;
        let width = match first {
            0x00..=0x7F => 1,
            0xC2..=0xDF => 2,
            0xE0..=0xEF => 3,
            0xF0..=0xF4 => 4,
            _ => return Err(PathError::InvalidUtf8),
        };
        let mut utf8 = [first; 4];
        for (index, byte) in utf8.iter_mut().enumerate().take(width).skip(1) {
            let rest =
                text.get(3 * index..).filter(|rest| rest.starts_with(b"%")).ok_or(PathError::InvalidUtf8)?;
            *byte = escaped_byte(rest)?;
        }
        let decoded = std::str::from_utf8(&utf8[..width]).map_err(|_| PathError::InvalidUtf8)?;
        match decoded.chars().next() {
            Some('/') => Err(PathError::EncodedSlash),
            Some('\\') => Err(PathError::Backslash),
            Some(character) if character.is_control() => Err(PathError::EncodedControl),
            Some(character) => Ok(Self { character, len: 3 * width }),
            None => Err(PathError::InvalidUtf8),
        }
    }

    fn is_canonical(&self, text: &[u8]) -> bool {
        !self.is_unreserved() && !text[..self.len].iter().any(u8::is_ascii_lowercase)
    }

    fn write(&self, text: &[u8], path: &mut String) {
        if self.is_unreserved() {
            path.push(self.character);
        } else {
            path.extend(text[..self.len].iter().map(|byte| char::from(byte.to_ascii_uppercase())));
        }
    }

    fn is_unreserved(&self) -> bool {
        self.character.is_ascii_alphanumeric() || matches!(self.character, '-' | '.' | '_' | '~')
    }
}

fn escaped_byte(text: &[u8]) -> Result<u8, PathError> {
    let digit = |byte: u8| char::from(byte).to_digit(16).ok_or(PathError::InvalidEscape);
    match text {
        [b'%', high, low, ..] => Ok((digit(*high)? << 4 | digit(*low)?) as u8),
        _ => Err(PathError::InvalidEscape),
    }
}

/// The bytes that stand for themselves inside of a segment. `[` and `]` are among them: browsers send them raw.
const PLAIN: &[bool; 256] = &{
    let mut plain = [false; 256];
    let mut byte = 0x21;
    while byte < 0x7F {
        plain[byte as usize] = !matches!(
            byte,
            b'/' | b'%' | b'\\' | b'?' | b'#' | b'"' | b'<' | b'>' | b'^' | b'`' | b'{' | b'|' | b'}'
        );
        byte += 1;
    }
    plain
};

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn canonical_paths_are_borrowed() {
        for path in [
            "/",
            "/orders",
            "/orders/",
            "/.well-known/acme",
            "/...",
            "/..a/.b",
            "/a;v=1/b,c:d@e!$&'()*+=~",
            "/a%20b/%2525/%C3%A9/%F0%9F%98%80",
            "/.%20/..%21",
            "/a[0]",
            "/%3B..",
        ] {
            let parsed = NormalPath::parse(path).unwrap();
            assert!(matches!(parsed.0, Cow::Borrowed(_)), "{path}");
            assert_eq!(parsed.as_str(), path);
            assert_eq!(canonicalize(path).as_deref(), Ok(path));
        }
    }

    #[test]
    fn other_spellings_become_canonical() {
        for (raw, canonical) in [
            ("/%61%7E%2d%5F", "/a~-_"),
            ("/%c3%a9", "/%C3%A9"),
            ("/a%2cb", "/a%2Cb"),
            ("/a%2Eb", "/a.b"),
            ("/%2E%2E%2E", "/..."),
            ("/a/./b", "/a/b"),
            ("/a/.", "/a/"),
            ("/a/b/..", "/a/"),
            ("/a/b/../c", "/a/c"),
            ("/a/..", "/"),
            ("//", "/"),
            ("//evil.example/x", "/evil.example/x"),
            ("/a///b//", "/a/b/"),
            ("/a//..", "/"),
            ("/a//../b", "/b"),
            ("/./", "/"),
            ("/a|b", "/a%7Cb"),
            ("/a%7cb", "/a%7Cb"),
            ("/^a/../^", "/%5E"),
            ("/..|", "/..%7C"),
        ] {
            assert_eq!(NormalPath::parse(raw).unwrap().as_str(), canonical, "{raw}");
        }
    }

    #[test]
    fn what_is_ambiguous_is_refused() {
        use PathError::*;
        for (raw, error) in [
            ("", NotAbsolute),
            ("*", NotAbsolute),
            ("a/b", NotAbsolute),
            ("/%", InvalidEscape),
            ("/%2", InvalidEscape),
            ("/%zz", InvalidEscape),
            ("/%+1", InvalidEscape),
            ("/%%34%31", InvalidEscape),
            ("/%00", EncodedControl),
            ("/a%0d%0a", EncodedControl),
            ("/%7F", EncodedControl),
            ("/%C2%85", EncodedControl),
            ("/a b", ControlOrSpace),
            ("/a\0", ControlOrSpace),
            ("/a\r\n", ControlOrSpace),
            ("/\u{7f}", ControlOrSpace),
            ("/é", NonAscii),
            ("/a\\b", Backslash),
            ("/a%5Cb", Backslash),
            ("/a%5c..", Backslash),
            ("/a%2Fb", EncodedSlash),
            ("/a%2f..", EncodedSlash),
            ("/a/%2e%2e/b", EncodedDotSegment),
            ("/a/.%2E", EncodedDotSegment),
            ("/%2e.", EncodedDotSegment),
            ("/a/%2e/b", EncodedDotSegment),
            ("/a/..;x/b", DotSegmentParameters),
            ("/a/.;", DotSegmentParameters),
            ("/a/..%3Bx", DotSegmentParameters),
            ("/a/..%3bx", DotSegmentParameters),
            ("/a/%2e%2e;x", DotSegmentParameters),
            ("/..", AboveRoot),
            ("/../a", AboveRoot),
            ("/a/../..", AboveRoot),
            ("//..", AboveRoot),
            ("/./..", AboveRoot),
            ("/a?b", Delimiter),
            ("/a#b", Delimiter),
            ("/a<b", IllegalCharacter),
            ("/a>b", IllegalCharacter),
            ("/a{b", IllegalCharacter),
            ("/a}b", IllegalCharacter),
            ("/a`b", IllegalCharacter),
            ("/a\"b", IllegalCharacter),
            ("/%c0%af", InvalidUtf8),
            ("/%c0%ae%c0%ae", InvalidUtf8),
            ("/%c1%9c", InvalidUtf8),
            ("/%e0%80%af", InvalidUtf8),
            ("/%f0%80%80%af", InvalidUtf8),
            ("/%ed%a0%80", InvalidUtf8),
            ("/%80", InvalidUtf8),
            ("/%C3", InvalidUtf8),
            ("/%C3A9", InvalidUtf8),
            ("/%C3/%A9", InvalidUtf8),
            ("/%FF", InvalidUtf8),
        ] {
            assert_eq!(NormalPath::parse(raw), Err(error), "{raw}");
        }
    }

    #[test]
    fn a_segment_that_is_left_again_is_still_checked() {
        assert_eq!(NormalPath::parse("/a%00/../b"), Err(PathError::EncodedControl));
    }

    /// The rules again, slowly: decode everything into characters first, then look at segments.
    fn reference(raw: &str) -> Option<String> {
        if !raw.starts_with('/') {
            return None;
        }
        let mut characters: Vec<(char, bool)> = Vec::new();
        let mut rest = raw;
        while let Some(first) = rest.chars().next() {
            if first != '%' {
                if !('!'..='~').contains(&first) || "\\?#\"<>`{}".contains(first) {
                    return None;
                }
                characters.push((first, false));
                rest = &rest[first.len_utf8()..];
                continue;
            }
            let mut run = Vec::new();
            while let Some(after) = rest.strip_prefix('%') {
                let digits = after.get(..2).filter(|digits| digits.chars().all(|d| d.is_ascii_hexdigit()))?;
                run.push(u8::from_str_radix(digits, 16).ok()?);
                rest = &after[2..];
            }
            characters.extend(String::from_utf8(run).ok()?.chars().map(|c| (c, true)));
        }
        if characters.iter().any(|&(c, escaped)| escaped && (c == '/' || c == '\\' || c.is_control())) {
            return None;
        }
        let mut segments = characters.split(|&(c, escaped)| c == '/' && !escaped);
        segments.next();
        let mut kept: Vec<String> = Vec::new();
        let mut directory = true;
        for segment in segments {
            let text: String = segment.iter().map(|&(c, _)| c).collect();
            let escaped_dot = segment.contains(&('.', true));
            let stem = text.split(';').next()?;
            directory = true;
            match text.as_str() {
                "." | ".." if escaped_dot => return None,
                "" | "." => {}
                ".." => drop(kept.pop()?),
                _ if stem == "." || stem == ".." => return None,
                _ => {
                    kept.push(segment.iter().map(|&(c, escaped)| spell(c, escaped)).collect());
                    directory = false;
                }
            }
        }
        let slash = if directory && !kept.is_empty() { "/" } else { "" };
        Some(format!("/{}{slash}", kept.join("/")))
    }

    fn spell(character: char, escaped: bool) -> String {
        let unreserved = character.is_ascii_alphanumeric() || "-._~".contains(character);
        if unreserved || !(escaped || "^|".contains(character)) {
            return character.to_string();
        }
        character.to_string().bytes().map(|byte| format!("%{byte:02X}")).collect()
    }

    fn path_like() -> impl Strategy<Value = String> {
        let piece = prop_oneof![
            8 => "[a-zA-Z0-9]{1,3}",
            8 => Just("/".to_owned()),
            4 => prop::sample::select(vec![".", "..", "/../", "/./", "//", ";", "%3B", "%3b", "-", "~", "[", "@", "*"])
                .prop_map(str::to_owned),
            2 => prop::sample::select(vec!["%2e", "%2E", "%2F", "%5c", "%41", "%25", "%20", "%00", "%c3%A9", "%C0%AF"])
                .prop_map(str::to_owned),
            1 => prop::sample::select(vec!["%", "%2", "%zz", "%C3", "%A9", "\\", "?", "#", "{", "|", "^", " ", "é", "\t"])
                .prop_map(str::to_owned),
            1 => any::<u8>().prop_map(|byte| format!("%{byte:02x}")),
        ];
        prop::collection::vec(piece, 0..12).prop_map(|pieces| format!("/{}", pieces.concat()))
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(2000))]

        #[test]
        fn agrees_with_the_reference(raw in path_like()) {
            let parsed = NormalPath::parse(&raw).ok().map(|path| path.as_str().to_owned());
            prop_assert_eq!(parsed, reference(&raw));
        }

        #[test]
        fn any_text_agrees_with_the_reference(raw in "\\PC{0,20}|/[ -~]{0,30}") {
            let parsed = NormalPath::parse(&raw).ok().map(|path| path.as_str().to_owned());
            prop_assert_eq!(parsed, reference(&raw));
        }

        #[test]
        fn is_idempotent_and_borrows_the_second_time(raw in path_like()) {
            if let Ok(path) = NormalPath::parse(&raw) {
                let again = NormalPath::parse(path.as_str()).unwrap();
                prop_assert_eq!(again.as_str(), path.as_str());
                prop_assert!(matches!(again.0, Cow::Borrowed(_)));
            }
        }

        #[test]
        fn the_canonical_form_holds_nothing_refused(raw in path_like()) {
            if let Ok(path) = NormalPath::parse(&raw) {
                let path = path.as_str();
                prop_assert!(path.starts_with('/') && !path.contains("//"));
                let refused = b"\\?#\"<>^`{|}";
                prop_assert!(path.bytes().all(|byte| byte.is_ascii_graphic() && !refused.contains(&byte)));
                prop_assert!(!path.contains("%2F") && !path.contains("%5C") && !path.contains("%2E"));
                for segment in path.split('/') {
                    let stem = segment.split(';').next().unwrap().split("%3B").next().unwrap();
                    prop_assert!(stem != "." && stem != "..", "{}", path);
                }
            }
        }
    }
}
