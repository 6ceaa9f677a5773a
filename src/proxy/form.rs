//! Forms whose fields a filter goes by: they are read before the chain decides.
//!
//! 1. Only what says that it is a form, and is no longer than [`LONGEST`], is looked at. Whatever else there is goes on as it
//!    came, and has no fields.
//! 2. What was read stays in front of the rest of the body until an answer begins: the upstream gets every byte.

use bytes::BytesMut;
use http::HeaderMap;
use http::header::{CONTENT_ENCODING, CONTENT_TYPE};
use pingora::Result;
use pingora_proxy::Session;

use super::context::Context;
use super::reply;
use crate::exchange::{Reason, Reply};
use crate::guard::BodyFraming;

/// The longest form that is looked at.
const LONGEST: u64 = 64 << 10;

/// Reads a form, as far as it may be looked at.
pub(super) async fn read(session: &mut Session, context: &mut Context) -> Result<()> {
    let (arrival, pinned) = context.parts()?;
    let too_long = matches!(arrival.head.framing, BodyFraming::Length(length) if length > LONGEST);
    if too_long || !is_form(&session.req_header().headers) {
        return Ok(());
    }
    let most = pinned.route.bounds.request_body;
    if arrival.connection.is_body_held() {
        reply::go_on(session, context).await?;
    }
    // In one piece: small ones would each hold on to the buffer that they were read into.
    let mut come = BytesMut::new();
    let whole = loop {
        let Some(piece) = session.as_downstream_mut().read_request_body().await? else { break true };
        come.extend_from_slice(&piece);
        if come.len() as u64 > LONGEST.min(most) {
            break false;
        }
    };
    if come.len() as u64 > most {
        context.reply = Some(Box::new(Reply::refuse(Reason::BODY_TOO_LARGE)));
    }
    let pinned = context.pinned()?;
    let come = come.freeze();
    if whole && is_sound(&come) {
        pinned.facts.form = Some(come.clone());
    }
    pinned.early = Some(come);
    Ok(())
}

fn is_form(headers: &HeaderMap) -> bool {
    let mut types = headers.get_all(CONTENT_TYPE).iter();
    let (Some(only), None) = (types.next(), types.next()) else { return false };
    let essence = only.to_str().ok().and_then(|text| text.split(';').next()).unwrap_or_default();
    essence.trim().eq_ignore_ascii_case("application/x-www-form-urlencoded")
        && !headers.contains_key(CONTENT_ENCODING)
}

/// Whether every `%` has two digits behind it: what two readers would take for different things has no fields.
fn is_sound(form: &[u8]) -> bool {
    let mut escapes = form.split(|byte| *byte == b'%').skip(1);
    std::str::from_utf8(form).is_ok()
        && escapes.all(|rest| rest.len() >= 2 && rest.iter().take(2).all(u8::is_ascii_hexdigit))
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    #[test]
    fn forms_say_what_they_are() {
        let is = |fields: &[(http::HeaderName, &'static str)]| {
            is_form(
                &fields.iter().map(|(name, value)| (name.clone(), HeaderValue::from_static(value))).collect(),
            )
        };
        assert!(is(&[(CONTENT_TYPE, "application/x-www-form-urlencoded")]));
        assert!(is(&[(CONTENT_TYPE, "Application/X-WWW-Form-Urlencoded ; charset=utf-8")]));
        assert!(!is(&[(CONTENT_TYPE, "application/json")]) && !is(&[]));
        assert!(!is(&[(CONTENT_TYPE, "application/x-www-form-urlencoded"), (CONTENT_ENCODING, "gzip")]));
        let twice = HeaderMap::from_iter([(CONTENT_TYPE, HeaderValue::from_static("text/plain"))]);
        let mut twice = twice;
        twice.append(CONTENT_TYPE, HeaderValue::from_static("application/x-www-form-urlencoded"));
        assert!(!is_form(&twice));
    }

    #[test]
    fn escapes_are_whole() {
        for sound in ["", "a=b", "a=%2F%2f&b=+", "%41=%"] {
            assert_eq!(is_sound(sound.as_bytes()), !sound.ends_with('%'), "{sound}");
        }
        for malformed in [&b"a=%"[..], b"a=%2", b"a=%2g", b"a=%%20", b"a=\xff"] {
            assert!(!is_sound(malformed), "{malformed:?}");
        }
    }
}
