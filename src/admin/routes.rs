//! The API's paths.

use std::sync::Arc;
use std::time::Instant;

use http::header::ALLOW;
use http::{HeaderValue, Method, Response, StatusCode};
use pingora::protocols::http::ServerSession;
use serde::Deserialize;
use serde_json::{Value, json};

use super::endpoints::Place;
use super::views::{self, json_of, problem, text};
use super::{Admin, ControlError, endpoints};
use crate::explain::{Question, explain};
use crate::telemetry::{TEXT_FORMAT, process_log};

/// The most that a request may bring.
const BODY: usize = 16 << 20;

/// Paths and their methods.
const PATHS: [(&str, Method); 13] = [
    ("/healthz", Method::GET),
    ("/readyz", Method::GET),
    ("/metrics", Method::GET),
    ("/status", Method::GET),
    ("/config", Method::GET),
    ("/routes", Method::GET),
    ("/upstreams", Method::GET),
    ("/certificates", Method::GET),
    ("/consumers", Method::GET),
    ("/config/check", Method::POST),
    ("/reload", Method::POST),
    ("/explain", Method::POST),
    ("/log/level", Method::PUT),
];

/// Answers a request that may use the API.
pub(super) async fn answer(admin: &Arc<Admin>, session: &mut ServerSession) -> Response<Vec<u8>> {
    let request = session.req_header();
    let path = request.uri.path().to_owned();
    let asked = if request.method == Method::HEAD { Method::GET } else { request.method.clone() };
    if let Some(place) = Place::parse(&path) {
        return endpoint(admin, session, place, &asked).await;
    }
    let Some((_, method)) = PATHS.iter().find(|(known, _)| *known == path) else {
        return problem(StatusCode::NOT_FOUND, "not_found", "There is nothing here.");
    };
    if asked != *method {
        return other_method(allow(method));
    }
    if asked == Method::GET {
        return get(admin, &path);
    }
    match body(session).await {
        Some(body) => change(admin, &path, body).await,
        None => no_body(),
    }
}

/// Changes one endpoint of an upstream.
async fn endpoint(
    admin: &Arc<Admin>,
    session: &mut ServerSession,
    place: Place,
    method: &Method,
) -> Response<Vec<u8>> {
    if !matches!(*method, Method::PUT | Method::DELETE) {
        return other_method(HeaderValue::from_static("PUT, DELETE"));
    }
    let Some(body) = body(session).await else { return no_body() };
    let removes = method == Method::DELETE;
    let work = move |admin: &Admin| match removes {
        true => endpoints::remove(admin, &place),
        false => endpoints::put(admin, &place, &body),
    };
    aside(admin, work).await
}

fn other_method(allowed: HeaderValue) -> Response<Vec<u8>> {
    let mut refusal =
        problem(StatusCode::METHOD_NOT_ALLOWED, "method_not_allowed", "This path has another method.");
    refusal.headers_mut().insert(ALLOW, allowed);
    refusal
}

fn no_body() -> Response<Vec<u8>> {
    problem(StatusCode::PAYLOAD_TOO_LARGE, "body_too_large", "The body is too large or did not arrive.")
}

/// What a path answers, for the `Allow` field: HEAD wherever it answers GET.
fn allow(method: &Method) -> HeaderValue {
    match *method {
        Method::GET => HeaderValue::from_static("GET, HEAD"),
        Method::PUT => HeaderValue::from_static("PUT"),
        _ => HeaderValue::from_static("POST"),
    }
}

fn get(admin: &Admin, path: &str) -> Response<Vec<u8>> {
    let plain = "text/plain; charset=utf-8";
    match path {
        "/healthz" => text(StatusCode::OK, plain, "ok\n"),
        "/readyz" if admin.drain.is_unready() => text(StatusCode::SERVICE_UNAVAILABLE, plain, "draining\n"),
        "/readyz" => text(StatusCode::OK, plain, "ready\n"),
        "/metrics" => match metrics(admin) {
            Ok(metrics) => text(StatusCode::OK, TEXT_FORMAT, metrics),
            Err(error) => failed(&error),
        },
        "/config" => text(StatusCode::OK, "application/json", admin.live.load().config.as_bytes()),
        "/routes" => json_of(StatusCode::OK, &views::routes(admin)),
        "/upstreams" => json_of(StatusCode::OK, &views::upstreams(admin)),
        "/consumers" => json_of(StatusCode::OK, &views::consumers(admin)),
        "/certificates" => json_of(StatusCode::OK, &views::certificates(admin)),
        _ => json_of(StatusCode::OK, &views::status(admin)),
    }
}

/// What is true at the moment is told before it is asked for.
fn metrics(admin: &Admin) -> Result<String, ControlError> {
    let (snapshot, now) = (admin.live.load_full(), Instant::now());
    snapshot.upstreams.values().for_each(|upstream| upstream.report(now));
    admin.control.metrics()
}

async fn change(admin: &Arc<Admin>, path: &str, body: Vec<u8>) -> Response<Vec<u8>> {
    match path {
        "/config/check" => aside(admin, move |admin| check(admin, &body)).await,
        "/reload" => aside(admin, reload).await,
        "/explain" => explained(admin, &body),
        _ => log_level(&body),
    }
}

/// Runs what takes its time where nothing waits for the thread.
async fn aside<F>(admin: &Arc<Admin>, work: F) -> Response<Vec<u8>>
where
    F: FnOnce(&Admin) -> Response<Vec<u8>> + Send + 'static,
{
    let admin = Arc::clone(admin);
    match tokio::task::spawn_blocking(move || work(&admin)).await {
        Ok(response) => response,
        Err(error) => failed(&ControlError::Bug(error.to_string())),
    }
}

fn check(admin: &Admin, body: &[u8]) -> Response<Vec<u8>> {
    let Ok(body) = std::str::from_utf8(body) else {
        return problem(StatusCode::BAD_REQUEST, "not_utf8", "A configuration is UTF-8 text.");
    };
    match admin.control.check(body) {
        Ok(()) => json_of(StatusCode::OK, &json!({ "ok": true, "errors": [] })),
        Err(errors) => json_of(StatusCode::UNPROCESSABLE_ENTITY, &json!({ "ok": false, "errors": errors })),
    }
}

fn reload(admin: &Admin) -> Response<Vec<u8>> {
    match admin.control.reload() {
        Ok(generation) => json_of(StatusCode::OK, &json!({ "ok": true, "generation": generation })),
        Err(error) => failed(&error),
    }
}

fn explained(admin: &Admin, body: &[u8]) -> Response<Vec<u8>> {
    match serde_json::from_slice::<Question>(body) {
        Ok(question) => match explain(&admin.live.load_full(), &question) {
            Ok(answer) => json_of(StatusCode::OK, &serde_json::to_value(answer).unwrap_or(Value::Null)),
            Err(message) => problem(StatusCode::BAD_REQUEST, "bad_question", &message),
        },
        Err(error) => problem(StatusCode::BAD_REQUEST, "bad_json", &error.to_string()),
    }
}

fn log_level(body: &[u8]) -> Response<Vec<u8>> {
    #[derive(Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Wanted {
        level: crate::telemetry::LogLevel,
    }
    match serde_json::from_slice::<Wanted>(body) {
        Ok(wanted) => {
            process_log::set_level(wanted.level);
            json_of(StatusCode::OK, &json!({ "level": wanted.level }))
        }
        Err(error) => problem(StatusCode::BAD_REQUEST, "bad_json", &error.to_string()),
    }
}

fn failed(error: &ControlError) -> Response<Vec<u8>> {
    match error {
        ControlError::Refused(message) => {
            problem(StatusCode::UNPROCESSABLE_ENTITY, "config_refused", message)
        }
        ControlError::HandedOver => problem(StatusCode::CONFLICT, "handed_over", &error.to_string()),
        ControlError::Bug(message) => {
            log::error!("admin: {message}");
            problem(
                StatusCode::INTERNAL_SERVER_ERROR,
                "bug",
                "The gateway made a mistake; its log says more.",
            )
        }
    }
}

async fn body(session: &mut ServerSession) -> Option<Vec<u8>> {
    let mut body = Vec::new();
    loop {
        match session.read_request_body().await {
            Ok(Some(piece)) if body.len() + piece.len() <= BODY => body.extend_from_slice(&piece),
            Ok(None) => return Some(body),
            _ => return None,
        }
    }
}
