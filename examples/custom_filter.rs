//! A filter of one's own: with words for configuration files, and usable from code without them.
//!
//! `cargo run --example custom_filter`, then `curl -i http://127.0.0.1:8080/yaml` and `/code`.

use portcullis::document::Errors;
use portcullis::{
    Exchange, Filter, FilterKind, Gateway, Phases, ResponseHeader, Result, Scope, Stage, StartError,
};
use portcullis::{Route, document::ConfigError};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Puts a motto on every response.
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// What to say.
    text: String,
    /// How often to say it.
    #[serde(default = "once")]
    times: usize,
}

fn once() -> usize {
    1
}

/// Puts a motto on every response.
pub struct Motto(String);

impl Filter for Motto {
    type State = ();

    fn phases(&self) -> Phases {
        Phases::RESPONSE
    }

    fn response(&self, (): &mut (), _: &mut Exchange<'_>, head: &mut ResponseHeader) -> Result<()> {
        head.insert_header("x-motto", self.0.as_str())?;
        Ok(())
    }
}

/// What makes it nameable: `- motto: { text: hello }`.
impl FilterKind for Motto {
    const NAME: &'static str = "motto";
    const STAGE: Stage = Stage::Transform;
    const EXAMPLE: &'static str = "{ text: Keep calm, times: 2 }";
    type Config = Config;

    fn compile(config: Config, _: &Scope<'_>) -> std::result::Result<Self, Errors> {
        if config.times == 0 {
            return Err(ConfigError::new("times", "a motto that is never said needs no filter").into());
        }
        Ok(Self(vec![config.text; config.times].join(" ")))
    }
}

/// A gateway with the filter on two routes: one says it in the words of a file, one in code.
pub fn gateway(address: &str) -> Gateway {
    let words = format!(
        "listeners: [{{ name: web, address: \"{address}\" }}]\n\
         routes: [{{ name: yaml, path: /yaml, respond: {{ body: from YAML }},
                    filters: [{{ motto: {{ text: Keep calm, times: 2 }} }}] }}]\n"
    );
    let code = Route::new("code", "/code")
        .respond_with(|_, _| portcullis::Reply::content(http::StatusCode::OK, "from code"))
        .filter("code_motto", Stage::Transform, Motto("Carry on".into()));
    Gateway::from_yaml(&words).filter_kind::<Motto>().route(code)
}

#[allow(dead_code, reason = "a test runs the gateway without it")]
fn main() -> std::result::Result<(), StartError> {
    gateway("127.0.0.1:8080").run()
}
