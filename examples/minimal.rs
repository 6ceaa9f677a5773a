//! A working proxy in three statements: `cargo run --example minimal`, with a server of yours on port 3000.

use portcullis::{Gateway, Route, StartError};

fn main() -> Result<(), StartError> {
    let gateway = Gateway::new().listen("127.0.0.1:8080");
    let gateway = gateway.route(Route::new("app", "/*").forward_to(["127.0.0.1:3000"]));
    gateway.run()
}
