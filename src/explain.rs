//! What would become of a request: its route, its chain in order, its upstream. Nothing is sent.

mod outline;
mod split;

use std::collections::BTreeMap;
use std::time::SystemTime;

use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, Uri};
use serde::{Deserialize, Serialize};

use crate::exchange::{Exchange, Facts, RequestHeader};
use crate::route::{Found, Lookup};
use crate::snapshot::{Mirror, Route, Snapshot, Target, Versions, Wanted};
use crate::tls::ServerPolicy;
use crate::types::{Host, NormalPath};

pub use outline::{Outline, outline};
pub use split::{RuleView, VariantView, variants};

/// A request to explain.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Question {
    /// The method.
    #[serde(default = "get")]
    pub method: String,
    /// An absolute URL, or a path with the host in `headers`.
    pub url: String,
    /// Header fields.
    #[serde(default)]
    pub headers: BTreeMap<String, String>,
    /// The listener it comes on, by name; the first one when absent.
    #[serde(default)]
    pub listener: Option<String>,
}

fn get() -> String {
    "GET".into()
}

/// What would become of it.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Explanation {
    /// The canonical host.
    pub host: String,
    /// The canonical path.
    pub path: String,
    /// The listener it comes on.
    pub listener: String,
    /// The route; absent when none takes it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub route: Option<String>,
    /// The status that the gateway itself answers with, when it does.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub status: Option<u16>,
    /// The methods that the path has, when this one is not among them.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub allow: Option<String>,
    /// Captured path parameters.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub captures: BTreeMap<String, String>,
    /// The filters in the order they run.
    pub chain: Vec<Step>,
    /// What is spoken with its client; absent for plaintext.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tls: Option<TlsView>,
    /// The version of the API.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub version: Option<String>,
    /// The rules of its split up to the first that holds.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub rules: Vec<RuleView>,
    /// The variants that it may go to.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub variants: Vec<VariantView>,
    /// The upstream and its endpoints; absent where several may answer.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub upstream: Option<UpstreamView>,
    /// Where copies of it may go.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mirror: Option<MirrorView>,
}

/// Where copies of a request may go.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct MirrorView {
    /// The upstream.
    pub upstream: String,
    /// How likely, in percent.
    pub percent: f64,
}

impl MirrorView {
    fn of(mirror: &Mirror) -> Self {
        Self { upstream: mirror.upstream.name().to_string(), percent: mirror.percent() }
    }
}

/// What is spoken with its client.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct TlsView {
    /// The oldest version and what is asked of the client, in short.
    pub policy: String,
    /// The file of the certificate that most clients are shown.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub certificate: Option<String>,
}

impl TlsView {
    fn of(policy: &ServerPolicy, host: &str) -> Self {
        let certificate = policy.certificates().of(host);
        Self {
            policy: policy.host(host).to_string(),
            certificate: certificate.map(|certificate| certificate.file.display().to_string()),
        }
    }
}

/// A filter in its place.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Step {
    /// The filter.
    pub filter: String,
    /// Its stage.
    pub stage: &'static str,
    /// Its hooks.
    pub hooks: Vec<&'static str>,
    /// The condition on which it applies.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub when: Option<String>,
    /// Whether it applies, where the request alone tells.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub applies: Option<bool>,
}

/// Where it would go.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct UpstreamView {
    /// The upstream's name.
    pub name: String,
    /// Its endpoints, those that are found only as far as that is known.
    pub endpoints: Vec<String>,
    /// Where more are looked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub discover: Option<String>,
    /// How one of them is chosen.
    pub balance: String,
    /// How they are asked whether they are well.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub health: Option<String>,
}

/// Explains a request.
///
/// # Errors
///
/// A sentence, when it is no request that could be sent.
pub fn explain(snapshot: &Snapshot, question: &Question) -> Result<Explanation, String> {
    let method = Method::from_bytes(question.method.as_bytes())
        .map_err(|_| format!("`{}` is not a method", question.method))?;
    let uri: Uri = question.url.parse().map_err(|_| format!("`{}` is not a URL", question.url))?;
    let headers = headers(question)?;
    let authority = uri.authority().map(|authority| authority.as_str());
    let host = authority.or_else(|| headers.get(http::header::HOST)?.to_str().ok()).unwrap_or_default();
    let host = match host {
        "" => String::new(),
        host => Host::parse(host).map_err(|error| format!("`{host}`: {error}"))?.as_str().to_owned(),
    };
    let path = NormalPath::parse(uri.path())
        .map_err(|error| format!("`{}` is answered 400: {error}", uri.path()))?;
    let listener = listener(snapshot, question)?;
    let policy = snapshot.listener(listener);
    let lookup = Lookup {
        host: &host,
        path: path.as_str(),
        method: &method,
        headers: &headers,
        query: uri.query(),
        listener,
    };
    let mut explanation = Explanation {
        host: host.clone(),
        path: path.as_str().to_owned(),
        listener: snapshot.listener(listener).name.to_string(),
        route: None,
        status: None,
        allow: None,
        captures: BTreeMap::new(),
        chain: Vec::new(),
        version: None,
        rules: Vec::new(),
        variants: Vec::new(),
        upstream: None,
        mirror: None,
        tls: policy.tls.as_ref().map(|tls| TlsView::of(tls, &host)),
    };
    if let Some(redirect) = policy.redirect_to_https {
        explanation.status = Some(redirect.status.as_u16());
        return Ok(explanation);
    }
    let (head, mut facts) = head_alone(&method, path.as_str(), uri.query(), &host, &headers)?;
    match snapshot.find(&lookup) {
        Found::Route { target, captures } => {
            explanation.route = Some(target.name.to_string());
            let found = captures.iter(path.as_str());
            explanation.captures = found.map(|(name, value)| (name.to_owned(), value.to_owned())).collect();
            facts.captures = captures;
            let exchange = Exchange::new(&head, &target.name, &mut facts);
            explanation.leads_to(&target.target, &lookup, &exchange);
            // What the gateway answers itself has no copy.
            let upstream = target.mirror.as_ref().filter(|_| explanation.status.is_none());
            explanation.mirror = upstream.map(|mirror| MirrorView::of(mirror));
            explanation.chain = met(snapshot, target, listener, &head, &mut facts);
        }
        Found::MethodNotAllowed { allow } => {
            explanation.status = Some(if method == Method::OPTIONS { 204 } else { 405 });
            explanation.allow = Some(allow.to_string());
            explanation.chain = met(snapshot, &snapshot.unmatched, listener, &head, &mut facts);
        }
        Found::NotFound => {
            explanation.status = Some(404);
            explanation.chain = met(snapshot, &snapshot.unmatched, listener, &head, &mut facts);
        }
    }
    Ok(explanation)
}

impl Explanation {
    fn leads_to(&mut self, target: &Target, lookup: &Lookup<'_>, exchange: &Exchange<'_>) {
        match target {
            Target::Upstream(upstream) => {
                let endpoints = upstream.endpoints();
                self.upstream = Some(UpstreamView {
                    name: upstream.name().to_string(),
                    endpoints: endpoints.iter().map(|endpoint| endpoint.address().to_string()).collect(),
                    discover: upstream.found().map(|found| found.finder().to_string()),
                    balance: upstream.choice().to_string(),
                    health: upstream.active_health().map(ToString::to_string),
                });
            }
            Target::Split(split) => {
                self.ruled(split, exchange);
                if let [only] = &*self.variants {
                    let name = only.variant.clone();
                    let variant = split.variants.iter().find(|route| route.is_variant(&name));
                    if let Some(variant) = variant {
                        self.leads_to(&variant.target, lookup, exchange);
                    }
                }
            }
            Target::Versions(all) => match all.wanted(lookup.path, lookup.headers, lookup.query) {
                Wanted::Version(route, _) => {
                    self.version = route.variant.as_ref().map(|variant| variant.name.to_string());
                    let ended = route
                        .lifecycle
                        .as_ref()
                        .is_some_and(|lifecycle| lifecycle.has_ended(SystemTime::now()));
                    if ended {
                        self.status = Some(StatusCode::GONE.as_u16());
                    } else {
                        self.leads_to(&route.target, lookup, exchange);
                    }
                }
                Wanted::Unknown => self.status = Some(StatusCode::NOT_FOUND.as_u16()),
                Wanted::Nothing => self.status = Some(StatusCode::BAD_REQUEST.as_u16()),
            },
            Target::Respond(reply) => self.status = Some(reply.status().as_u16()),
            Target::Redirect(redirect) => self.status = Some(redirect.status.as_u16()),
            Target::Handler(_) | Target::Nothing => {}
        }
    }
}

/// A version of an API.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct VersionView {
    /// Its name.
    pub version: String,
    /// Its upstream.
    pub upstream: String,
    /// Whether requests that say no version go there.
    pub default: bool,
    /// The value of `Deprecation`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub deprecation: Option<String>,
    /// The value of `Sunset`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sunset: Option<String>,
}

/// The versions of an API, the oldest first.
pub fn versions(versions: &Versions) -> impl Iterator<Item = VersionView> {
    let text = |date: &Option<(SystemTime, HeaderValue)>| Some(date.as_ref()?.1.to_str().ok()?.to_owned());
    versions.all.iter().enumerate().map(move |(at, (name, route))| VersionView {
        version: name.to_string(),
        upstream: match &route.target {
            Target::Upstream(upstream) => upstream.name().to_string(),
            _ => String::new(),
        },
        default: versions.default == Some(at),
        deprecation: route.lifecycle.as_ref().and_then(|lifecycle| text(&lifecycle.deprecated)),
        sunset: route.lifecycle.as_ref().and_then(|lifecycle| text(&lifecycle.sunset)),
    })
}

fn headers(question: &Question) -> Result<HeaderMap, String> {
    let mut headers = HeaderMap::new();
    for (name, value) in &question.headers {
        let known = HeaderName::try_from(name).map_err(|_| format!("`{name}` is not a header name"))?;
        let value =
            HeaderValue::from_str(value).map_err(|_| format!("`{value}` cannot be a header's value"))?;
        headers.append(known, value);
    }
    Ok(headers)
}

fn listener(snapshot: &Snapshot, question: &Question) -> Result<usize, String> {
    let Some(name) = &question.listener else {
        return Ok(0);
    };
    let found = snapshot.listeners.iter().position(|listener| *listener.name == **name);
    found.ok_or_else(|| format!("no listener is called `{name}`"))
}

fn chain(snapshot: &Snapshot, route: &Route, listener: usize) -> Vec<Step> {
    let chain = route.chain(snapshot.listener(listener).chain);
    let step = |link: &crate::chain::Link| Step {
        filter: link.name.to_owned(),
        stage: link.stage.name(),
        hooks: link.filter.phases().names().collect(),
        when: link.when.as_ref().map(crate::condition::When::text),
        applies: None,
    };
    chain.links().iter().map(step).collect()
}

/// The chain that a request would meet, with what its head tells of the conditions.
fn met(
    snapshot: &Snapshot,
    route: &Route,
    listener: usize,
    head: &RequestHeader,
    facts: &mut Facts,
) -> Vec<Step> {
    let mut steps = chain(snapshot, route, listener);
    let exchange = Exchange::new(head, &route.name, facts);
    let links = route.chain(snapshot.listener(listener).chain).links();
    for (step, link) in steps.iter_mut().zip(links) {
        step.applies = link.when.as_ref().and_then(|when| when.foretold(&exchange));
    }
    steps
}

/// A request of which its head alone is known.
fn head_alone(
    method: &Method,
    path: &str,
    query: Option<&str>,
    host: &str,
    headers: &HeaderMap,
) -> Result<(RequestHeader, Facts), String> {
    let target = query.map_or_else(|| path.to_owned(), |query| format!("{path}?{query}"));
    let mut head = RequestHeader::build(method.clone(), target.as_bytes(), Some(headers.len()))
        .map_err(|error| format!("this is no request: {error}"))?;
    for (name, value) in headers {
        head.append_header(name, value).map_err(|error| format!("`{name}`: {error}"))?;
    }
    Ok((head, Facts::of_head(host)))
}
