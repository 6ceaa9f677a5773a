//! Base64 (RFC 4648, section 4) as a stream of pieces, each with padding of its own, that follow one another.

use std::borrow::Cow;

use base64::Engine;
use base64::prelude::BASE64_STANDARD;

/// What is not base64.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NotBase64;

/// Encodes a piece, with its padding.
pub fn encode_base64(piece: &[u8]) -> Vec<u8> {
    BASE64_STANDARD.encode(piece).into()
}

/// Decodes pieces that come cut anywhere.
#[derive(Debug, Default)]
pub struct Base64Decoder {
    /// The beginning of four digits.
    held: Vec<u8>,
}

impl Base64Decoder {
    /// Decodes more; at the `end` nothing may be left over.
    ///
    /// # Errors
    ///
    /// Bytes beyond the alphabet, line ends too; padding where none belongs; bits that are lost in it; an end within four
    /// digits.
    pub fn decode(&mut self, text: &[u8], end: bool) -> Result<Vec<u8>, NotBase64> {
        let text: Cow<'_, [u8]> =
            if self.held.is_empty() { text.into() } else { [&self.held, text].concat().into() };
        let (digits, rest) = text.as_chunks();
        let mut bytes = Vec::with_capacity(digits.len() * 3);
        for piece in digits.split_inclusive(|[.., last]: &[u8; 4]| *last == b'=') {
            BASE64_STANDARD.decode_vec(piece.as_flattened(), &mut bytes).map_err(|_| NotBase64)?;
        }
        self.held = rest.into();
        if end && !rest.is_empty() { Err(NotBase64) } else { Ok(bytes) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::collection::vec;
    use proptest::prelude::*;

    fn alphabet() -> Vec<u8> {
        base64::alphabet::STANDARD.as_str().into()
    }

    fn decode(text: &[u8]) -> Result<Vec<u8>, NotBase64> {
        Base64Decoder::default().decode(text, true)
    }

    /// Decodes `text` cut into pieces of these lengths, over and over.
    fn decode_in_pieces(text: &[u8], lengths: &[usize]) -> Result<Vec<u8>, NotBase64> {
        let (mut decoder, mut bytes, mut rest) = (Base64Decoder::default(), Vec::new(), text);
        for length in lengths.iter().cycle() {
            let (piece, after) = rest.split_at(rest.len().min(*length));
            bytes.extend(decoder.decode(piece, false)?);
            rest = after;
            if rest.is_empty() {
                break;
            }
        }
        bytes.extend(decoder.decode(b"", true)?);
        Ok(bytes)
    }

    #[test]
    fn the_examples_of_the_rfc_hold() {
        for (bytes, text) in [
            ("", ""),
            ("f", "Zg=="),
            ("fo", "Zm8="),
            ("foo", "Zm9v"),
            ("foob", "Zm9vYg=="),
            ("fooba", "Zm9vYmE="),
            ("foobar", "Zm9vYmFy"),
        ] {
            assert_eq!(encode_base64(bytes.as_bytes()), text.as_bytes());
            assert_eq!(decode(text.as_bytes()), Ok(bytes.into()));
        }
    }

    #[test]
    fn what_has_no_one_reading_is_refused() {
        for text in [
            "Z", "Zg", "Zg=", "Zm8", "Z===", "====", "=", "Zh==", "Zm9=", "Zg=x", "Zg\r\n", "Z-_v", "Zm 9",
            "Zm9vZ", "Zm\u{e9}",
        ] {
            assert_eq!(decode(text.as_bytes()), Err(NotBase64), "{text:?}");
            assert_eq!(decode_in_pieces(text.as_bytes(), &[1]), Err(NotBase64), "{text:?} byte by byte");
        }
    }

    proptest! {
        #[test]
        fn pieces_are_read_back_however_they_are_cut(
            pieces in vec(vec(any::<u8>(), 0..40), 0..8),
            lengths in vec(1..20_usize, 1..6),
        ) {
            let text: Vec<u8> = pieces.iter().flat_map(|piece| encode_base64(piece)).collect();
            prop_assert_eq!(decode_in_pieces(&text, &lengths), Ok(pieces.concat()));
        }

        #[test]
        fn any_bytes_come_to_the_same_however_they_are_cut(
            text in vec(prop_oneof![4 => proptest::sample::select(alphabet()), 1 => Just(b'='), 1 => any::<u8>()], 0..24),
            lengths in vec(1..9_usize, 1..6),
        ) {
            let whole = decode(&text);
            prop_assert_eq!(&decode_in_pieces(&text, &lengths), &whole);
            if let Ok(bytes) = whole {
                // What is taken has no other spelling, but for where its pieces end.
                prop_assert_eq!(text.len() % 4, 0);
                prop_assert!(bytes.len() <= text.len() / 4 * 3);
                if !text[..text.len().saturating_sub(4)].contains(&b'=') {
                    prop_assert_eq!(encode_base64(&bytes), text);
                }
            }
        }
    }
}
