//! Why the guard refused a request: one word for each reason, with its status and a sentence for the client.
//!
//! The table below is the only place that names them; the enum, the reply and the reference are made from it.

use std::fmt;

macro_rules! refusals {
    ($($variant:ident $status:literal $reason:literal $detail:literal)+) => {
        /// One reason to refuse a raw request. Nothing of it was forwarded, and the connection must be closed
        /// after the reply: where the refused request ends is not known.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        pub enum Refusal {
            $(#[doc = $detail] $variant,)+
        }

        impl Refusal {
            /// Every refusal, in the order of the table.
            pub const ALL: &'static [Refusal] = &[$(Refusal::$variant,)+];

            /// HTTP status of the reply.
            pub const fn status(self) -> u16 {
                match self { $(Refusal::$variant => $status,)+ }
            }

            /// Reason code: the word in the reply, the access log and the metric label.
            pub const fn reason(self) -> &'static str {
                match self { $(Refusal::$variant => $reason,)+ }
            }

            /// One sentence that may be shown to the client. It never repeats what the client sent.
            pub const fn detail(self) -> &'static str {
                match self { $(Refusal::$variant => $detail,)+ }
            }
        }
    };
}

refusals! {
    TlsOnPlaintext 400 "tls_on_plaintext" "A TLS handshake arrived on a port that speaks plain HTTP."
    Http2Preface 505 "http2_preface" "An HTTP/2 connection preface arrived where HTTP/1.1 is spoken."

    LeadingEmptyLines 400 "leading_empty_lines" "More than one empty line came before the request line."
    LeadingWhitespace 400 "leading_whitespace" "The request line or the first header line begins with whitespace."
    RequestLineWhitespace 400 "request_line_whitespace" "The parts of the request line must be separated by exactly one space."
    BareLf 400 "bare_lf" "A line ends with LF alone; lines end with CRLF."
    BareCr 400 "bare_cr" "A CR is not followed by LF."

    BadMethod 400 "bad_method" "The method is not a token of at most 32 characters."
    ConnectNotAllowed 405 "connect_not_allowed" "CONNECT asks for a tunnel; this is a reverse proxy and opens none."
    TraceWithBody 400 "trace_with_body" "A TRACE request must not carry a body."

    MissingTarget 400 "missing_target" "The request line has no target."
    TargetTooLong 414 "uri_too_long" "The request target is too long."
    BadTarget 400 "bad_target" "The request target contains a character that must be percent-encoded."
    FragmentInTarget 400 "fragment_in_target" "The request target contains a fragment."
    BadTargetForm 400 "bad_target_form" "The request target is neither a path, an absolute URI nor an asterisk."
    AsteriskTarget 400 "asterisk_target" "The asterisk target is for OPTIONS only."
    UnsupportedScheme 400 "unsupported_scheme" "The scheme of the request target is neither http nor https."
    BadTargetAuthority 400 "bad_target_authority" "The request target does not name a plain host with an optional port."

    BadVersion 400 "bad_http_version" "The request line does not end with an HTTP version."
    UnsupportedVersion 505 "unsupported_http_version" "Only HTTP/1.0 and HTTP/1.1 are understood here."

    HeadersTooLarge 431 "headers_too_large" "The request head is too large."
    TooManyHeaders 431 "too_many_headers" "The request has too many header fields."
    ObsFold 400 "folded_header" "A field line is continued on the next line."
    MissingColon 400 "missing_colon" "A field line has no colon."
    SpaceBeforeColon 400 "space_before_colon" "There is whitespace between a field name and its colon."
    EmptyFieldName 400 "empty_field_name" "A field line has no name before the colon."
    BadFieldName 400 "bad_field_name" "A field name contains a character that is not allowed there."
    LookalikeFieldName 400 "lookalike_field_name" "A field name is a spelling with underscores of Host, Content-Length or Transfer-Encoding."
    BadFieldValue 400 "bad_field_value" "A field value contains a control character."

    MissingHost 400 "missing_host" "An HTTP/1.1 request must have a Host field."
    RepeatedHost 400 "repeated_host" "The request has more than one Host field."
    EmptyHost 400 "empty_host" "The Host field is empty."
    BadHost 400 "bad_host" "The Host field is not a plain host with an optional port."
    HostMismatch 400 "host_mismatch" "The Host field and the request target name different hosts."

    BadContentLength 400 "bad_content_length" "Content-Length is not a plain decimal number in range."
    RepeatedContentLength 400 "repeated_content_length" "The request has more than one Content-Length field."
    AmbiguousLength 400 "ambiguous_length" "The request has both Content-Length and Transfer-Encoding."
    BadTransferEncoding 400 "bad_transfer_encoding" "Transfer-Encoding is not exactly one chunked."
    RepeatedTransferEncoding 400 "repeated_transfer_encoding" "The request has more than one Transfer-Encoding field."
    UnsupportedTransferCoding 501 "unsupported_transfer_coding" "No transfer coding but chunked is understood."
    TransferEncodingOnHttp10 400 "transfer_encoding_on_http10" "HTTP/1.0 has no Transfer-Encoding."

    BadConnectionOption 400 "bad_connection_option" "The Connection field contains something other than tokens."
    TooManyConnectionOptions 400 "too_many_connection_options" "The Connection field lists too many options."
    ProtectedFieldNominated 400 "protected_field_nominated" "The Connection field names a field that must not be removed on the way."
    ExpectationFailed 417 "expectation_failed" "No expectation but a single 100-continue is understood."

    BadChunkSize 400 "bad_chunk_size" "A chunk size is not 1 to 16 hexadecimal digits."
    ChunkSizeTooLarge 400 "chunk_size_too_large" "A chunk size is out of range."
    BadChunkExtension 400 "bad_chunk_extension" "A chunk extension is malformed."
    ChunkExtensionsTooLarge 400 "chunk_extensions_too_large" "The chunk extensions of the body are too large."
    BadChunkEnd 400 "bad_chunk_end" "The data of a chunk is not followed by CRLF."
    TrailersTooLarge 431 "trailers_too_large" "The trailer section is too large."
    ForbiddenTrailer 400 "forbidden_trailer" "A trailer field has a name that is not allowed after the body."
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}: {}", self.status(), self.reason(), self.detail())
    }
}

impl std::error::Error for Refusal {}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    #[test]
    fn every_refusal_has_its_own_snake_case_reason_and_a_sentence() {
        let mut seen = HashSet::new();
        for refusal in Refusal::ALL {
            let reason = refusal.reason();
            assert!(seen.insert(reason), "{reason} is used twice");
            assert!(
                reason.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_'),
                "{reason}"
            );
            assert!(refusal.detail().ends_with('.'), "{reason}");
            assert!(matches!(refusal.status(), 400 | 405 | 414 | 417 | 431 | 501 | 505), "{reason}");
        }
    }

    #[test]
    fn display_carries_status_reason_and_detail() {
        assert_eq!(
            Refusal::BareLf.to_string(),
            "400 bare_lf: A line ends with LF alone; lines end with CRLF."
        );
    }
}
