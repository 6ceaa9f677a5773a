//! What goes no further than the gateway.

use http::{HeaderMap, HeaderName, HeaderValue};

use super::{RequestHeader, Result};

/// Takes a field out of a request as it came, in every spelling that an upstream may read as this one. What a filter has
/// set in its place stays.
///
/// # Errors
///
/// When what stays cannot be put back.
pub fn hide_field(head: &mut RequestHeader, came: &HeaderMap, name: &HeaderName) -> Result<()> {
    for known in came.keys().filter(|known| reads_as(known, name)) {
        let theirs = |value: &HeaderValue| came.get_all(known).iter().any(|it| it == value);
        let (gone, kept): (Vec<_>, Vec<_>) =
            head.headers.get_all(known).iter().cloned().partition(|value| theirs(value));
        if gone.is_empty() {
            continue;
        }
        head.remove_header(known);
        for value in kept {
            head.append_header(known.clone(), value)?;
        }
    }
    Ok(())
}

/// Some upstreams take any other sign for `-`.
fn reads_as(name: &HeaderName, hidden: &HeaderName) -> bool {
    let (name, hidden) = (name.as_str().as_bytes(), hidden.as_str().as_bytes());
    let sign = |byte: &u8| !byte.is_ascii_alphanumeric();
    let mut pairs = name.iter().zip(hidden);
    name.len() == hidden.len() && pairs.all(|(one, other)| one == other || sign(one) && sign(other))
}
