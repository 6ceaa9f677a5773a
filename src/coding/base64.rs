//! Base64 (RFC 4648, section 4) as a stream of pieces, each with padding of its own, that follow one another.

/// What stands for no byte of the alphabet.
const NONE: u8 = 0xff;

const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

/// The value of every byte.
const VALUES: [u8; 256] = {
    let mut values = [NONE; 256];
    let mut value = 0;
    while value < ALPHABET.len() {
        values[ALPHABET[value] as usize] = value as u8;
        value += 1;
    }
    values
};

/// What is not base64.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NotBase64;

/// Encodes a piece, with its padding.
pub fn encode_base64(piece: &[u8]) -> Vec<u8> {
    let mut text = Vec::with_capacity(piece.len().div_ceil(3) * 4);
    for group in piece.chunks(3) {
        let mut bytes = [0; 4];
        bytes[1..=group.len()].copy_from_slice(group);
        let bits = u32::from_be_bytes(bytes);
        let digits = [18, 12, 6, 0].map(|shift| ALPHABET[(bits >> shift) as usize & 63]);
        text.extend_from_slice(&digits[..=group.len()]);
        text.extend_from_slice(&b"=="[group.len() - 1..]);
    }
    text
}

/// Decodes pieces that come cut anywhere.
#[derive(Debug, Default)]
pub struct Base64Decoder {
    /// The beginning of four digits.
    held: [u8; 4],
    count: usize,
}

impl Base64Decoder {
    /// Decodes more; at the `end` nothing may be left over.
    ///
    /// # Errors
    ///
    /// Bytes beyond the alphabet, line ends too; padding where none belongs; bits that are lost in it; an end within four
    /// digits.
    pub fn decode(&mut self, text: &[u8], end: bool) -> Result<Vec<u8>, NotBase64> {
        let mut bytes = Vec::with_capacity((self.count + text.len()) / 4 * 3);
        let (first, text) = text.split_at(text.len().min((4 - self.count) % 4));
        self.hold(first);
        if self.count == 4 {
            decode_digits(self.held, &mut bytes)?;
            self.count = 0;
        }
        let (groups, rest) = text.as_chunks();
        for group in groups {
            decode_digits(*group, &mut bytes)?;
        }
        self.hold(rest);
        if end && self.count > 0 { Err(NotBase64) } else { Ok(bytes) }
    }

    fn hold(&mut self, digits: &[u8]) {
        self.held[self.count..][..digits.len()].copy_from_slice(digits);
        self.count += digits.len();
    }
}

fn decode_digits(digits: [u8; 4], bytes: &mut Vec<u8>) -> Result<(), NotBase64> {
    let padding = match digits {
        [.., b'=', b'='] => 2,
        [.., b'='] => 1,
        _ => 0,
    };
    let mut values = digits.map(|digit| VALUES[usize::from(digit)]);
    values[4 - padding..].fill(0);
    if values.contains(&NONE) {
        return Err(NotBase64);
    }
    let bits = values.iter().fold(0, |bits, value| bits << 6 | u32::from(*value));
    let [_, three @ ..] = bits.to_be_bytes();
    let (kept, lost) = three.split_at(3 - padding);
    if lost.iter().any(|byte| *byte != 0) {
        return Err(NotBase64);
    }
    bytes.extend_from_slice(kept);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::collection::vec;
    use proptest::prelude::*;

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
            text in vec(prop_oneof![4 => proptest::sample::select(&ALPHABET[..]), 1 => Just(b'='), 1 => any::<u8>()], 0..24),
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
