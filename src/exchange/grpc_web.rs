//! gRPC-Web: calls whose trailers are in the body, for clients that cannot read them elsewhere, such as browsers.

use http::HeaderMap;
use http::header::{ACCEPT, CONTENT_TYPE};

/// The media type of gRPC-Web; `-text` and a format may follow.
const MEDIA_TYPE: &str = "application/grpc-web";

/// A media type of gRPC-Web.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MediaType<'a> {
    /// Whether the body is in base64.
    pub text: bool,
    /// The format of the messages with its plus; empty when it is not said.
    pub format: &'a str,
}

impl<'a> MediaType<'a> {
    /// Reads a media type; `None` when it is another's.
    pub fn parse(text: &'a str) -> Option<Self> {
        let essence = text.split(';').next().unwrap_or_default().trim();
        let (start, rest) = essence.split_at_checked(MEDIA_TYPE.len())?;
        if !start.eq_ignore_ascii_case(MEDIA_TYPE) {
            return None;
        }
        let (mark, format) = rest.split_at(rest.find('+').unwrap_or(rest.len()));
        let text = match mark {
            "" => false,
            mark if mark.eq_ignore_ascii_case("-text") => true,
            _ => return None,
        };
        Some(Self { text, format })
    }

    /// What the body of a request is; `None` when the request is no call.
    pub fn of_request(headers: &'a HeaderMap) -> Option<Self> {
        Self::parse(headers.get(CONTENT_TYPE)?.to_str().ok()?)
    }

    /// What the answer to a call is to be: what `Accept` names first, or else what the request is.
    pub fn of_answer(headers: &'a HeaderMap) -> Option<Self> {
        let request = Self::of_request(headers)?;
        let lists = headers.get_all(ACCEPT).iter().filter_map(|list| list.to_str().ok());
        let named = lists.flat_map(|list| list.split(',')).find_map(Self::parse);
        Some(Self { text: named.map_or(request.text, |named| named.text), ..request })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::HeaderValue;

    #[test]
    fn its_media_types_are_known() {
        for (given, read) in [
            ("application/grpc-web", Some((false, ""))),
            ("Application/gRPC-Web+proto; charset=x", Some((false, "+proto"))),
            ("application/grpc-web-text", Some((true, ""))),
            ("application/grpc-web-TEXT+json ", Some((true, "+json"))),
            ("application/grpc", None),
            ("application/grpc+web", None),
            ("application/grpc-website", None),
            ("application/grpc-web-texts", None),
            ("text/plain", None),
            ("", None),
        ] {
            let media = MediaType::parse(given).map(|media| (media.text, media.format));
            assert_eq!(media, read, "{given}");
        }
    }

    #[test]
    fn an_answer_is_what_is_accepted_or_as_the_request() {
        for (kind, accept, text) in [
            ("application/grpc-web-text", "*/*", Some(true)),
            ("application/grpc-web", "*/*, application/grpc-web-text", Some(true)),
            ("application/grpc-web-text+proto", "application/grpc-web", Some(false)),
            ("application/grpc-web", "", Some(false)),
            ("text/plain", "application/grpc-web", None),
        ] {
            let fields = [(CONTENT_TYPE, kind), (ACCEPT, accept)];
            let headers = fields.map(|(name, value)| (name, HeaderValue::from_static(value)));
            let headers = HeaderMap::from_iter(headers);
            assert_eq!(MediaType::of_answer(&headers).map(|media| media.text), text, "{kind} {accept}");
        }
    }
}
