//! `docs/reasons.md` is made of the code's own tables; this test keeps it so.
//!
//! `make docs` (or this test with `PORTCULLIS_WRITE_DOCS` set) writes the page anew.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use portcullis::Reason;
use portcullis::guard::Refusal;

const PAGE: &str = "docs/reasons.md";

/// The connections that are closed before anything is read: they get no reply, so that no [`Reason`] has a status.
const UNREAD: [(&str, &str); 6] = [
    ("too_many_connections", "The listener has as many connections as `limits.connections` allows."),
    (
        "too_many_connections_from_address",
        "The address has as many connections as `limits.connections_per_ip` allows.",
    ),
    (
        "proxy_header_untrusted",
        "The listener wants a PROXY protocol header, and the peer is none of `server.trusted_proxies`.",
    ),
    ("proxy_header_missing", "A trusted proxy sent no PROXY protocol header where one is required."),
    ("proxy_header_invalid", "What a trusted proxy sent begins like a PROXY protocol header and is none."),
    (
        "proxy_header_timeout",
        "A trusted proxy sent no whole PROXY protocol header within `limits.header_timeout`.",
    ),
];

#[test]
fn the_page_is_up_to_date() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(PAGE);
    if std::env::var_os("PORTCULLIS_WRITE_DOCS").is_some() {
        fs::write(&path, page()).unwrap();
    }
    let written = fs::read_to_string(&path).unwrap_or_default();
    assert!(written == page(), "{PAGE} is not what the code says: run `make docs`");
}

#[test]
fn one_word_means_one_thing() {
    let mut seen = BTreeSet::new();
    let codes = Reason::ALL.iter().map(|reason| reason.code());
    // A host is read twice, raw by the guard, and in its canonical form by the router; heads are measured by listeners and by
    // routes.
    let twice = ["bad_host", "uri_too_long", "headers_too_large", "too_many_headers"];
    for code in codes.chain(Refusal::ALL.iter().map(|refusal| refusal.reason())) {
        assert!(seen.insert(code) || twice.contains(&code), "{code} is used twice");
    }
}

#[test]
fn what_is_closed_unread_is_named_as_the_code_names_it() {
    let edge = [include_str!("../src/edge/accept.rs"), include_str!("../src/edge/announce.rs")].concat();
    for (code, _) in UNREAD {
        assert!(edge.contains(&format!("\"{code}\"")), "{code}");
    }
}

fn page() -> String {
    let mut page = String::from(
        "# Reason codes\n\n\
         When the gateway answers itself, one word says why. It is `code` in the problem document (RFC 9457), `reason` in\n\
         the access log, the label `reason` of `portcullis_gateway_replies_total`, and `details` in the `Proxy-Status`\n\
         header (RFC 9209), beside the `error` of that RFC which comes nearest.\n\n\
         A client whose `Accept` names `text/html` gets a small page instead of the document, without scripts and without\n\
         anything from elsewhere; a Content-Security-Policy says so. What the guard refuses is always told by a document.\n\n\
         This page is made of the code's own tables by `make docs`.\n\n\
         ## On the way\n\n\
         | code | status | what happened | Proxy-Status error |\n|---|---|---|---|\n",
    );
    for reason in Reason::ALL {
        let (code, status) = (reason.code(), reason.status().as_u16());
        row(&mut page, &[&format!("`{code}`"), &status, &reason.title(), &reason.proxy_error()]);
    }
    page.push_str(
        "\n`client_closed` is never sent, since nobody is left to read it; the access log shows it with status 499.\n\n\
         ## Before a request is one\n\n\
         What could be read in two ways is refused before the proxy sees it, and the connection is closed: where the\n\
         refused request ends is not known. Nothing of a refused head was forwarded; a body that breaks the rules ends the\n\
         exchange where it does. The error in `Proxy-Status` is `http_request_denied`.\n\n\
         | code | status | what happened |\n|---|---|---|\n",
    );
    for refusal in Refusal::ALL {
        row(&mut page, &[&format!("`{}`", refusal.reason()), &refusal.status(), &refusal.detail()]);
    }
    page.push_str(
        "\n## Before anything is read\n\n\
         Such a connection is closed without a reply; only the metric tells.\n\n\
         | code | what happened |\n|---|---|\n",
    );
    for (code, meaning) in UNREAD {
        row(&mut page, &[&format!("`{code}`"), &meaning]);
    }
    page
}

fn row(page: &mut String, cells: &[&dyn std::fmt::Display]) {
    cells.iter().for_each(|cell| page.push_str(&format!("| {cell} ")));
    page.push_str("|\n");
}
