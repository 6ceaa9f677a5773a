//! Reason codes: the one word for what the gateway did, in the reply, the access log, the metrics and the headers.

use http::StatusCode;

/// A reason code with its status and title. The same word stands in the problem body, the access log, the
/// metric label and the `Proxy-Status` header (RFC 9209).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Reason {
    code: &'static str,
    status: StatusCode,
    title: &'static str,
    /// The error type of RFC 9209 that comes nearest.
    proxy_error: &'static str,
}

macro_rules! reasons {
    ($($(#[$doc:meta])* $name:ident = $code:literal, $status:ident, $title:literal, $proxy_error:literal;)*) => {
        impl Reason {
            /// Every reason of the gateway's own, in the order of the table; those of filters are elsewhere.
            pub const ALL: &[Self] = &[$(Self::$name,)*];

            $($(#[$doc])* pub const $name: Self = Self {
                code: $code, status: StatusCode::$status, title: $title, proxy_error: $proxy_error,
            };)*
        }
    };
}

reasons! {
    /// No route takes this request.
    ROUTE_NOT_FOUND = "route_not_found", NOT_FOUND, "No route takes this request", "destination_not_found";
    /// The API has no version of the name that the request says.
    VERSION_UNKNOWN = "version_unknown", NOT_FOUND, "There is no such version", "http_request_denied";
    /// The request does not say which version of the API it wants, and there is no default.
    VERSION_MISSING = "version_missing", BAD_REQUEST, "The request names no version", "http_request_denied";
    /// The version of the API has ended.
    VERSION_GONE = "version_gone", GONE, "This version has ended", "http_request_denied";
    /// A route takes this path, but not with this method.
    METHOD_NOT_ALLOWED = "method_not_allowed", METHOD_NOT_ALLOWED, "Method not allowed", "http_request_denied";
    /// The path has no single reading.
    BAD_PATH = "bad_path", BAD_REQUEST, "The path has no single reading", "http_request_error";
    /// The host is not a host name.
    BAD_HOST = "bad_host", BAD_REQUEST, "The host is not valid", "http_request_error";
    /// The request came in the clear to a listener that speaks TLS.
    TLS_REQUIRED = "tls_required", BAD_REQUEST, "This port speaks TLS: use https", "http_protocol_error";
    /// The host is not one that this connection was greeted for: another, with TLS of its own, is needed.
    MISDIRECTED_REQUEST = "misdirected_request", MISDIRECTED_REQUEST, "This connection is not for this host", "http_request_denied";
    /// Parameters of the query or the path are not what they must be.
    BAD_PARAMETERS = "bad_parameters", BAD_REQUEST, "Parameters are not what they must be", "http_request_error";
    /// The request target is longer than the route allows.
    URI_TOO_LONG = "uri_too_long", URI_TOO_LONG, "The request target is too long", "http_request_denied";
    /// The header fields are larger than the route allows.
    HEADERS_TOO_LARGE = "headers_too_large", REQUEST_HEADER_FIELDS_TOO_LARGE, "The header fields are too large", "http_request_denied";
    /// The request has more header fields than the route allows.
    TOO_MANY_HEADERS = "too_many_headers", REQUEST_HEADER_FIELDS_TOO_LARGE, "There are too many header fields", "http_request_denied";
    /// The query has more parameters than the route allows.
    TOO_MANY_PARAMETERS = "too_many_parameters", BAD_REQUEST, "The query has too many parameters", "http_request_denied";
    /// The body is longer than the route allows.
    BODY_TOO_LARGE = "body_too_large", PAYLOAD_TOO_LARGE, "The body is too large", "http_request_denied";
    /// The body shrinks to too little for what it holds.
    BODY_TOO_DENSE = "body_too_dense", PAYLOAD_TOO_LARGE, "The body expands too much", "http_request_denied";
    /// The body is not what its content coding says, or not whole.
    CORRUPT_CODING = "corrupt_coding", BAD_REQUEST, "The body cannot be decoded", "http_request_error";
    /// The body has a content coding that is not known here.
    UNSUPPORTED_CODING = "unsupported_coding", UNSUPPORTED_MEDIA_TYPE, "The content coding is not supported", "http_request_denied";
    /// The body of a gRPC-Web text call is not base64.
    BAD_BASE64 = "bad_base64", BAD_REQUEST, "The body is not base64", "http_request_error";
    /// The client did not send its whole request head in time.
    HEADER_TIMEOUT = "header_timeout", REQUEST_TIMEOUT, "The request head took too long", "http_request_error";
    /// The listener speaks HTTP/2 only.
    HTTP1_NOT_SPOKEN = "http1_not_spoken", HTTP_VERSION_NOT_SUPPORTED, "Only HTTP/2 is spoken here", "http_request_error";
    /// The client closed the connection before its answer was complete.
    CLIENT_CLOSED = "client_closed", BAD_REQUEST, "The client closed the connection", "connection_terminated";
    /// The client's address is not allowed here.
    IP_DENIED = "ip_denied", FORBIDDEN, "This address is not allowed", "http_request_denied";
    /// The client's program is not allowed here.
    BOT_DENIED = "bot_denied", FORBIDDEN, "This client is not allowed", "http_request_denied";
    /// The route is closed for maintenance.
    MAINTENANCE = "maintenance", SERVICE_UNAVAILABLE, "Closed for maintenance", "http_request_denied";
    /// The configuration has some requests fail; the status is the one that it says.
    FAULT_INJECTED = "fault_injected", SERVICE_UNAVAILABLE, "This request was made to fail", "http_request_denied";
    /// The request brings no credentials.
    CREDENTIALS_MISSING = "credentials_missing", UNAUTHORIZED, "Credentials are needed", "http_request_denied";
    /// The request's key, or name and password, is nobody's.
    CREDENTIALS_INVALID = "credentials_invalid", UNAUTHORIZED, "The credentials are not valid", "http_request_denied";
    /// The request's credentials were somebody's until they expired.
    CREDENTIALS_EXPIRED = "credentials_expired", UNAUTHORIZED, "The credentials have expired", "http_request_denied";
    /// The request brings credentials that are not of one and the same consumer.
    CREDENTIALS_CONFLICT = "credentials_conflict", UNAUTHORIZED, "The credentials contradict each other", "http_request_denied";
    /// The request's credentials cannot be read.
    CREDENTIALS_MALFORMED = "credentials_malformed", BAD_REQUEST, "The credentials cannot be read", "http_request_error";
    /// More passwords are being checked than the gateway checks at once.
    AUTHENTICATION_BUSY = "authentication_busy", SERVICE_UNAVAILABLE, "Too many passwords are being checked", "proxy_internal_response";
    /// The client has had as many requests as it may have in a time.
    RATE_LIMITED = "rate_limited", TOO_MANY_REQUESTS, "Too many requests", "http_request_denied";
    /// The client has had as many requests as it may have in an hour, a day or a month.
    QUOTA_EXCEEDED = "quota_exceeded", TOO_MANY_REQUESTS, "The quota is used up", "http_request_denied";
    /// The client has as many requests under way as it may have at once.
    CONCURRENCY_LIMITED = "concurrency_limited", TOO_MANY_REQUESTS, "Too many requests at once", "http_request_denied";
    /// The request lacks what a limit counts by, and the limit refuses such requests.
    LIMIT_KEY_MISSING = "limit_key_missing", BAD_REQUEST, "The request does not say whom it counts for", "http_request_denied";
    /// The store that counts for a limit does not answer, and the limit lets nobody through without it.
    LIMIT_STORE_UNAVAILABLE = "limit_store_unavailable", SERVICE_UNAVAILABLE, "The limit cannot be counted", "proxy_internal_error";
    /// Nothing of a body moved for longer than allowed.
    STREAM_IDLE_TIMEOUT = "stream_idle_timeout", GATEWAY_TIMEOUT, "Nothing moved for too long", "http_response_timeout";
    /// The client sent nothing of its body for longer than allowed.
    BODY_TIMEOUT = "body_timeout", REQUEST_TIMEOUT, "The request body took too long", "http_request_error";
    /// The client sent its body slower than allowed.
    BODY_TOO_SLOW = "body_too_slow", REQUEST_TIMEOUT, "The request body came too slowly", "http_request_error";
    /// No response head came before the route's deadline.
    REQUEST_TIMEOUT = "request_timeout", GATEWAY_TIMEOUT, "No response in time", "http_response_timeout";
    /// The exchange took longer than the route allows in all.
    TOTAL_TIMEOUT = "total_timeout", GATEWAY_TIMEOUT, "The exchange took too long", "http_response_timeout";
    /// The gateway bears as much as it may: see `server.shed`.
    OVERLOADED = "overloaded", SERVICE_UNAVAILABLE, "The gateway is overloaded", "proxy_internal_response";
    /// The upstream has no endpoint left to try.
    NO_HEALTHY_UPSTREAM = "no_healthy_upstream", SERVICE_UNAVAILABLE, "No server is available", "destination_unavailable";
    /// The upstream failed too often, and is left alone for a while.
    CIRCUIT_OPEN = "circuit_open", SERVICE_UNAVAILABLE, "The server is being given a rest", "destination_unavailable";
    /// Every endpoint that could be asked has as many requests as its upstream's `limits` allow, and as many wait.
    UPSTREAM_QUEUE_FULL = "upstream_queue_full", SERVICE_UNAVAILABLE, "The server is busy", "connection_limit_reached";
    /// The request waited for an endpoint as long as its upstream's `limits` allow.
    UPSTREAM_QUEUE_TIMEOUT = "upstream_queue_timeout", SERVICE_UNAVAILABLE, "The server is busy", "connection_limit_reached";
    /// No connection to the upstream could be made.
    UPSTREAM_CONNECT_FAILED = "upstream_connect_failed", BAD_GATEWAY, "The server could not be reached", "connection_refused";
    /// The upstream did not prove who it is, or speaks no TLS that we speak.
    UPSTREAM_TLS_FAILED = "upstream_tls_failed", BAD_GATEWAY, "No secure connection to the server", "tls_protocol_error";
    /// No connection to the upstream was made in time.
    UPSTREAM_CONNECT_TIMEOUT = "upstream_connect_timeout", GATEWAY_TIMEOUT, "The server could not be reached in time", "connection_timeout";
    /// The upstream sent nothing for longer than allowed.
    UPSTREAM_READ_TIMEOUT = "upstream_read_timeout", GATEWAY_TIMEOUT, "The server did not answer in time", "connection_read_timeout";
    /// An attempt took longer than the route allows each (`per_try`).
    TRY_TIMEOUT = "try_timeout", GATEWAY_TIMEOUT, "The server did not answer in time", "http_response_timeout";
    /// The upstream took nothing for longer than allowed.
    UPSTREAM_WRITE_TIMEOUT = "upstream_write_timeout", GATEWAY_TIMEOUT, "The server did not take the request in time", "connection_write_timeout";
    /// The upstream closed the connection before its answer was complete.
    UPSTREAM_RESET = "upstream_reset", BAD_GATEWAY, "The server closed the connection", "connection_terminated";
    /// The upstream's answer is not valid HTTP.
    UPSTREAM_INVALID_RESPONSE = "upstream_invalid_response", BAD_GATEWAY, "The server's answer is not valid", "http_protocol_error";
    /// A mistake of the gateway's own.
    BUG = "bug", INTERNAL_SERVER_ERROR, "The gateway made a mistake", "proxy_internal_error";
}

impl Reason {
    /// A reason of a filter's own. `code` is snake_case and stands in metric labels: keep the set of codes small.
    pub const fn custom(code: &'static str, status: StatusCode, title: &'static str) -> Self {
        Self { code, status, title, proxy_error: "http_request_denied" }
    }

    /// The code: one snake_case word.
    pub const fn code(self) -> &'static str {
        self.code
    }

    /// The status a reply with this reason has.
    pub const fn status(self) -> StatusCode {
        self.status
    }

    /// A short sentence for people.
    pub const fn title(self) -> &'static str {
        self.title
    }

    /// The `error` parameter of `Proxy-Status` (RFC 9209, section 2.3).
    pub const fn proxy_error(self) -> &'static str {
        self.proxy_error
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_custom_reason_keeps_its_words() {
        let reason = Reason::custom("too_green", StatusCode::IM_A_TEAPOT, "Too green");
        assert_eq!(
            (reason.code(), reason.status().as_u16(), reason.title()),
            ("too_green", 418, "Too green")
        );
    }
}
