//! What an answer depends on, for caches.

use http::header::VARY;
use http::{HeaderMap, HeaderValue};

use super::{Fault, Result};

/// Says that the answer depends on this field of the request, unless it says so already.
///
/// # Errors
///
/// When what it says cannot be said in one field.
pub fn vary(fields: &mut HeaderMap, field: &'static str) -> Result<()> {
    if says(fields, "*") || says(fields, field) {
        return Ok(());
    }
    if !fields.contains_key(VARY) {
        fields.insert(VARY, HeaderValue::from_static(field));
        return Ok(());
    }
    let mut merged: Vec<u8> = Vec::new();
    for value in fields.get_all(VARY) {
        merged.extend_from_slice(value.as_bytes());
        merged.extend_from_slice(b", ");
    }
    merged.extend_from_slice(field.as_bytes());
    let merged = HeaderValue::from_bytes(&merged).map_err(|_| Fault::new("Vary cannot be merged"))?;
    fields.insert(VARY, merged);
    Ok(())
}

fn says(headers: &HeaderMap, field: &str) -> bool {
    let lists = headers.get_all(VARY).iter().flat_map(|list| list.as_bytes().split(|byte| *byte == b','));
    lists.map(<[u8]>::trim_ascii).any(|known| known.eq_ignore_ascii_case(field.as_bytes()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_field_is_named_once() {
        let varying = |before: &[&'static str]| {
            let mut fields = HeaderMap::new();
            for value in before {
                fields.append(VARY, HeaderValue::from_static(value));
            }
            vary(&mut fields, "Origin").unwrap();
            let values = fields.get_all(VARY).iter().map(|value| value.to_str().unwrap().to_owned());
            values.collect::<Vec<_>>()
        };
        assert_eq!(varying(&[]), ["Origin"]);
        assert_eq!(varying(&["accept"]), ["accept, Origin"]);
        assert_eq!(varying(&["accept", "cookie"]), ["accept, cookie, Origin"]);
        assert_eq!(varying(&["accept , origin"]), ["accept , origin"]);
        assert_eq!(varying(&["*"]), ["*"]);
    }
}
