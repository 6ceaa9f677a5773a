//! A route answered in Rust: `cargo run --example handler`, then `curl http://127.0.0.1:8080/greet/Ada -d "How are you?"`.

use bytes::Bytes;
use http::StatusCode;
use portcullis::{Exchange, Gateway, Handler, Reply, Result, Route, StartError};

/// Greets, and repeats what was said.
pub struct Greeter {
    /// The word of greeting.
    pub greeting: &'static str,
}

impl Handler for Greeter {
    /// May wait for anything; the route's chain runs before and after.
    async fn handle(&self, exchange: &mut Exchange<'_>, body: Bytes) -> Result<Reply> {
        let name = exchange.capture("name").unwrap_or("stranger");
        let said = String::from_utf8_lossy(&body);
        Ok(Reply::content(StatusCode::OK, format!("{} {name}! You said: {said:?}\n", self.greeting)))
    }
}

/// A gateway with one route, which the handler answers.
pub fn gateway(address: &str) -> Gateway {
    let greet = Route::new("greet", "/greet/{name}").method("POST").handler(Greeter { greeting: "Hello" });
    Gateway::new().listen(address).route(greet)
}

#[allow(dead_code, reason = "a test runs the gateway without it")]
fn main() -> std::result::Result<(), StartError> {
    gateway("127.0.0.1:8080").run()
}
