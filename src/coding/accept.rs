//! Which coding a client takes, by its `Accept-Encoding` (RFC 9110, section 12.5.3).
//!
//! 1. The highest weight wins; among equals, our own order.
//! 2. `*` stands for the codings that are not named. A coding that is neither named nor covered is not sent.
//! 3. `identity` wins where it is named with a higher weight than any coding of ours. Excluded or not, it is what is left
//!    when nothing else fits: better than no answer.
//! 4. What is not a weight excludes its coding: a client that cannot be understood gets what all understand.

use http::HeaderValue;

use super::Coding;

/// The coding to send, of those in `ours`, best first; `None` is identity. Each value is read once, whatever its length.
pub fn preferred<'a>(accept: impl Iterator<Item = &'a HeaderValue>, ours: &[Coding]) -> Option<Coding> {
    let wishes = Wishes::read(accept);
    let mut best: Option<(Coding, u16)> = None;
    for &coding in ours {
        let weight = wishes.weight(coding);
        if weight > best.map_or(0, |(_, weight)| weight) {
            best = Some((coding, weight));
        }
    }
    let (coding, weight) = best?;
    (wishes.identity <= weight).then_some(coding)
}

/// Weights in thousandths.
#[derive(Default)]
struct Wishes {
    named: [Option<u16>; Coding::ALL.len()],
    any: u16,
    identity: u16,
}

impl Wishes {
    fn read<'a>(accept: impl Iterator<Item = &'a HeaderValue>) -> Self {
        let mut wishes = Self::default();
        for item in accept.flat_map(|value| value.as_bytes().split(|byte| *byte == b',')) {
            let (name, weight) = match item.iter().position(|byte| *byte == b';') {
                Some(at) => (&item[..at], weight(item[at + 1..].trim_ascii()).unwrap_or(0)),
                None => (item, ONE),
            };
            match name.trim_ascii() {
                b"*" => wishes.any = weight,
                name if name.eq_ignore_ascii_case(b"identity") => wishes.identity = weight,
                name => {
                    if let Some(coding) = Coding::named(name) {
                        wishes.named[coding as usize] = Some(weight);
                    }
                }
            }
        }
        wishes
    }

    fn weight(&self, coding: Coding) -> u16 {
        self.named[coding as usize].unwrap_or(self.any)
    }
}

const ONE: u16 = 1000;

/// `q=0.123` in thousandths (RFC 9110, section 12.4.2).
fn weight(parameter: &[u8]) -> Option<u16> {
    let [b'q' | b'Q', b'=', whole @ (b'0' | b'1'), rest @ ..] = parameter else { return None };
    let decimals = match rest {
        [] => rest,
        [b'.', decimals @ ..] if decimals.len() <= 3 => decimals,
        _ => return None,
    };
    let mut thousandths = u16::from(whole - b'0') * ONE;
    for (digit, place) in decimals.iter().zip([100, 10, 1]) {
        thousandths += u16::from(digit.is_ascii_digit().then(|| digit - b'0')?) * place;
    }
    (thousandths <= ONE).then_some(thousandths)
}

#[cfg(test)]
mod tests {
    use super::*;

    const OURS: [Coding; 3] = [Coding::Zstd, Coding::Brotli, Coding::Gzip];

    fn choose(values: &[&str]) -> &'static str {
        let values: Vec<_> = values.iter().map(|value| HeaderValue::from_str(value).unwrap()).collect();
        preferred(values.iter(), &OURS).map_or("identity", Coding::name)
    }

    #[test]
    fn chooses_as_the_client_wishes() {
        for (accept, chosen) in [
            ("gzip, deflate, br, zstd", "zstd"),
            ("gzip, deflate, br", "br"),
            ("GZIP", "gzip"),
            ("x-gzip", "gzip"),
            ("gzip;q=1.0, br;q=0.9", "gzip"),
            ("gzip;q=0.5,br;Q=0.500", "br"),
            ("gzip ; q=0.001", "gzip"),
            ("*", "zstd"),
            ("*;q=0.1", "zstd"),
            ("zstd;q=0, *", "br"),
            ("gzip;q=0.5, *;q=0.1", "gzip"),
            ("gzip, *;q=0", "gzip"),
            ("identity;q=0.5, gzip;q=0.4", "identity"),
            ("identity;q=0.5, gzip;q=0.5", "gzip"),
            ("identity, gzip;q=0.9", "identity"),
            ("identity;q=0, br", "br"),
            (" , ,gzip, ", "gzip"),
            // Nothing that fits, and nothing at all.
            ("", "identity"),
            ("deflate, compress", "identity"),
            ("identity;q=0", "identity"),
            ("*;q=0", "identity"),
            ("gzip;q=0", "identity"),
            ("gzip;q=0.000", "identity"),
            // No weights.
            ("gzip;q=2", "identity"),
            ("gzip;q=1.001", "identity"),
            ("gzip;q=0.1234", "identity"),
            ("gzip;q=-1", "identity"),
            ("gzip;q=", "identity"),
            ("gzip;q", "identity"),
            ("gzip;", "identity"),
            ("gzip;q=0.x", "identity"),
            ("gzip;q =1", "identity"),
            ("gzip;level=9", "identity"),
            ("gzip;q=1;q=1", "identity"),
            ("gzip gzip", "identity"),
            ("gzipx", "identity"),
            ("gzip;q=nan, br;q=0.1", "br"),
        ] {
            assert_eq!(choose(&[accept]), chosen, "{accept:?}");
        }
        assert_eq!(choose(&[]), "identity");
        assert_eq!(choose(&["gzip;q=0.2", "br;q=0.1"]), "gzip");
    }

    #[test]
    fn our_order_decides_among_equals() {
        let accept = HeaderValue::from_static("zstd, br, gzip");
        for ours in [[Coding::Gzip, Coding::Zstd], [Coding::Brotli, Coding::Gzip]] {
            assert_eq!(preferred([&accept].into_iter(), &ours), Some(ours[0]));
        }
    }

    proptest::proptest! {
        #[test]
        fn no_text_surprises_it(text in "[ -~]{0,64}") {
            choose(&[&text]);
        }
    }
}
