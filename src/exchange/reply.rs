//! Replies of the gateway's own: problem documents (RFC 9457), or a small page for a browser.

use std::borrow::Cow;
use std::sync::Arc;

use bytes::Bytes;
use http::header::{self, HeaderName, HeaderValue};
use http::{HeaderMap, StatusCode};

use super::{Reason, RequestId};

/// An answer of the gateway's own: a refusal with a reason, or content.
#[derive(Debug, Clone)]
pub struct Reply {
    status: StatusCode,
    headers: HeaderMap,
    content: Content,
}

#[derive(Debug, Clone)]
enum Content {
    Problem(Box<Problem>),
    Body(Bytes),
}

/// What a refusal tells.
#[derive(Debug, Clone)]
struct Problem {
    reason: Reason,
    title: Cow<'static, str>,
    detail: Cow<'static, str>,
    /// A page in place of our own.
    page: Option<Bytes>,
}

impl Reply {
    /// A refusal: a problem document whose `code` is the reason.
    pub fn refuse(reason: Reason) -> Self {
        Self {
            status: reason.status(),
            headers: HeaderMap::new(),
            content: Content::Problem(Box::new(Problem {
                reason,
                title: Cow::Borrowed(reason.title()),
                detail: Cow::Borrowed(""),
                page: None,
            })),
        }
    }

    /// An answer with a body of its own.
    pub fn content(status: StatusCode, body: impl Into<Bytes>) -> Self {
        Self { status, headers: HeaderMap::new(), content: Content::Body(body.into()) }
    }

    /// Adds a sentence for the person who reads the problem. Never put internal detail here.
    #[must_use]
    pub fn detail(mut self, text: impl Into<Cow<'static, str>>) -> Self {
        if let Content::Problem(problem) = &mut self.content {
            problem.detail = text.into();
        }
        self
    }

    /// Gives a problem another title than its reason's.
    #[must_use]
    pub fn title(mut self, text: impl Into<Cow<'static, str>>) -> Self {
        if let Content::Problem(problem) = &mut self.content {
            problem.title = text.into();
        }
        self
    }

    /// Shows browsers this page (HTML) in place of the gateway's own.
    #[must_use]
    pub fn page(mut self, html: impl Into<Bytes>) -> Self {
        if let Content::Problem(problem) = &mut self.content {
            problem.page = Some(html.into());
        }
        self
    }

    /// Gives it another status than its reason's.
    #[must_use]
    pub fn with_status(mut self, status: StatusCode) -> Self {
        self.status = status;
        self
    }

    /// Sets a header field.
    #[must_use]
    pub fn header(mut self, name: HeaderName, value: HeaderValue) -> Self {
        self.headers.insert(name, value);
        self
    }

    /// Takes all these header fields.
    #[must_use]
    pub fn headers(mut self, headers: HeaderMap) -> Self {
        self.headers = headers;
        self
    }

    /// The status.
    pub fn status(&self) -> StatusCode {
        self.status
    }

    /// The reason code; `None` for content.
    pub fn reason(&self) -> Option<Reason> {
        match &self.content {
            Content::Problem(problem) => Some(problem.reason),
            Content::Body(_) => None,
        }
    }

    /// The header fields and the body to send. `accept` chooses between a problem document and a page.
    pub fn render(self, accept: Option<&HeaderValue>, id: Option<&RequestId>) -> (HeaderMap, Bytes) {
        let mut headers = self.headers;
        let body = match self.content {
            Content::Body(body) => {
                headers.entry(header::CONTENT_TYPE).or_insert(TEXT);
                body
            }
            Content::Problem(problem) => {
                let reason = problem.reason;
                let (kind, body) = match problem.page {
                    Some(page) if wants_html(accept) => (HTML, page),
                    None if wants_html(accept) => {
                        headers.insert(header::CONTENT_SECURITY_POLICY, POLICY);
                        headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
                        (HTML, problem.html(self.status, id).into())
                    }
                    _ => (PROBLEM, problem.json(self.status, id).into()),
                };
                headers.insert(header::CONTENT_TYPE, kind);
                headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
                if self.status == StatusCode::SERVICE_UNAVAILABLE {
                    headers.entry(header::RETRY_AFTER).or_insert(HeaderValue::from_static("1"));
                }
                if let Ok(value) = HeaderValue::from_str(&format!(
                    "portcullis; error={}; details={}",
                    reason.proxy_error(),
                    reason.code()
                )) {
                    headers.insert(PROXY_STATUS, value);
                }
                if let Some(id) = id {
                    headers.insert(RequestId::HEADER, id.header());
                }
                body
            }
        };
        (headers, body)
    }
}

const TEXT: HeaderValue = HeaderValue::from_static("text/plain; charset=utf-8");
const HTML: HeaderValue = HeaderValue::from_static("text/html; charset=utf-8");
const PROBLEM: HeaderValue = HeaderValue::from_static("application/problem+json");
/// What a browser may do with a page of ours: show it, with the style that stands in it.
const POLICY: HeaderValue = HeaderValue::from_static(
    "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
);
const PROXY_STATUS: HeaderName = HeaderName::from_static("proxy-status");

/// A browser asks for `text/html` by name; `*/*` alone is a program, and `;q=0` says that it must not be.
fn wants_html(accept: Option<&HeaderValue>) -> bool {
    accept.and_then(|value| value.to_str().ok()).is_some_and(|value| value.split(',').any(is_html))
}

fn is_html(range: &str) -> bool {
    let mut parts = range.split(';').map(str::trim);
    let html = parts.next().is_some_and(|kind| kind.eq_ignore_ascii_case("text/html"));
    let unwanted = |part: &str| {
        let weight = part.split_once('=').filter(|(name, _)| name.eq_ignore_ascii_case("q"));
        weight.is_some_and(|(_, weight)| weight.parse() == Ok(0.0))
    };
    html && !parts.any(unwanted)
}

impl Problem {
    fn json(&self, status: StatusCode, id: Option<&RequestId>) -> Vec<u8> {
        let mut fields = serde_json::Map::new();
        let mut put = |name: &str, value: serde_json::Value| fields.insert(name.to_owned(), value);
        put("type", "about:blank".into());
        put("title", (*self.title).into());
        put("status", status.as_u16().into());
        if !self.detail.is_empty() {
            put("detail", (*self.detail).into());
        }
        put("code", self.reason.code().into());
        if let Some(id) = id {
            put("request_id", id.as_str().into());
        }
        let mut body = serde_json::Value::Object(fields).to_string().into_bytes();
        body.push(b'\n');
        body
    }

    /// Without a script or anything from elsewhere, and with all text escaped; [`POLICY`] holds browsers to that.
    fn html(&self, status: StatusCode, id: Option<&RequestId>) -> Vec<u8> {
        let detail = match &*self.detail {
            "" => String::new(),
            detail => format!("<p>{}</p>", escaped(detail)),
        };
        format!(
            "<!doctype html><html lang=\"en\"><meta charset=\"utf-8\"><meta name=\"viewport\" content=\"width=device-width\">\
             <title>{status}</title><style>:root{{color-scheme:light dark}}\
             body{{font:16px system-ui;margin:15vh auto;max-width:32rem;padding:0 1rem;overflow-wrap:anywhere}}\
             small{{opacity:.7}}</style><h1>{}</h1><p>{}</p>{detail}<small>{} · {}</small></html>\n",
            status.as_u16(),
            escaped(&self.title),
            escaped(self.reason.code()),
            escaped(id.map_or("-", RequestId::as_str)),
        )
        .into_bytes()
    }
}

fn escaped(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for character in text.chars() {
        match character {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '"' => escaped.push_str("&quot;"),
            '\'' => escaped.push_str("&#39;"),
            _ => escaped.push(character),
        }
    }
    escaped
}

/// A reply shared by all requests of a route.
impl From<&Arc<Reply>> for Reply {
    fn from(shared: &Arc<Reply>) -> Self {
        Reply::clone(shared)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_is_a_problem_document() {
        let id = RequestId::generate(std::time::SystemTime::now());
        let (headers, body) =
            Reply::refuse(Reason::BAD_PATH).detail("a \"quoted\" detail").render(None, Some(&id));
        assert_eq!(headers[header::CONTENT_TYPE], "application/problem+json");
        let body: serde_json::Value = serde_json::from_slice(&body).unwrap();
        assert_eq!(body["code"], "bad_path");
        assert_eq!(body["status"], 400);
        assert_eq!(body["detail"], "a \"quoted\" detail");
        assert_eq!(body["request_id"], id.as_str());
    }

    #[test]
    fn a_browser_gets_a_page_that_cannot_be_scripted() {
        let accept = HeaderValue::from_static("text/html,application/xhtml+xml;q=0.9,*/*;q=0.8");
        let reason = Reason::custom("a_<b", StatusCode::FORBIDDEN, "<img src=x>");
        let reply = Reply::refuse(reason).detail("<script>alert('&\"')</script>");
        let (headers, body) = reply.render(Some(&accept), None);
        assert_eq!(headers[header::CONTENT_TYPE], "text/html; charset=utf-8");
        assert!(
            headers[header::CONTENT_SECURITY_POLICY].to_str().unwrap().starts_with("default-src 'none';")
        );
        assert_eq!(headers[header::X_CONTENT_TYPE_OPTIONS], "nosniff");
        let body = String::from_utf8(body.to_vec()).unwrap();
        for tag in ["<script", "<img", "<b"] {
            assert!(!body.contains(tag), "{tag} in {body}");
        }
        assert!(body.contains("&lt;script&gt;alert(&#39;&amp;&quot;&#39;)&lt;/script&gt;"), "{body}");
        assert!(!body.contains("//") && !body.contains("url("), "something from elsewhere: {body}");
    }

    #[test]
    fn unavailable_says_when_to_come_back() {
        let (headers, _) = Reply::refuse(Reason::NO_HEALTHY_UPSTREAM).render(None, None);
        assert!(headers.contains_key(header::RETRY_AFTER));
    }
}
