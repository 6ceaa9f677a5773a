//! What the gateway itself has to say, through the `log` facade to standard error.
//!
//! The level can be changed while running. Our own modules are heard at that level; those of dependencies only from
//! `warn` up, unless the level is `debug`.

use std::fmt::Display;
use std::io::{self, Write};
use std::str::FromStr;

use log::kv::{Key, Value, VisitSource, VisitValue};
use log::{LevelFilter, Log, Metadata, Record};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::encode;

/// How much is said.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum LogLevel {
    /// What needs a person.
    Error,
    /// What may come to need one.
    Warn,
    /// What changed: start, reload, shutdown.
    #[default]
    Info,
    /// Everything, that of dependencies included.
    Debug,
}

/// A word that is not a [`LogLevel`].
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not a log level: write error, warn, info or debug")]
pub struct UnknownLevel(String);

impl FromStr for LogLevel {
    type Err = UnknownLevel;

    fn from_str(word: &str) -> Result<Self, UnknownLevel> {
        match word {
            "error" => Ok(Self::Error),
            "warn" => Ok(Self::Warn),
            "info" => Ok(Self::Info),
            "debug" => Ok(Self::Debug),
            other => Err(UnknownLevel(other.to_owned())),
        }
    }
}

impl From<LogLevel> for LevelFilter {
    fn from(level: LogLevel) -> Self {
        match level {
            LogLevel::Error => Self::Error,
            LogLevel::Warn => Self::Warn,
            LogLevel::Info => Self::Info,
            LogLevel::Debug => Self::Debug,
        }
    }
}

/// What a line looks like.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum LogFormat {
    /// One JSON object: `ts`, `level`, `target`, `msg` and the record's own pairs.
    #[default]
    Json,
    /// For people; coloured on a terminal.
    Text,
}

/// Starts the process log. Where one was started before (by a test, or by a program that embeds the gateway) that one
/// stays, and only the level is set.
pub fn init(level: LogLevel, format: LogFormat) {
    // An error means that a logger is there already.
    let _ = log::set_boxed_logger(Box::new(ProcessLog::new(format)));
    set_level(level);
}

/// Changes the level from now on.
pub fn set_level(level: LogLevel) {
    log::set_max_level(level.into());
}

/// The level in force.
pub fn level() -> LogLevel {
    match log::max_level() {
        LevelFilter::Off | LevelFilter::Error => LogLevel::Error,
        LevelFilter::Warn => LogLevel::Warn,
        LevelFilter::Info => LogLevel::Info,
        LevelFilter::Debug | LevelFilter::Trace => LogLevel::Debug,
    }
}

/// `env_logger` fixes its filter when it is built; this one follows the level.
struct ProcessLog(env_logger::Logger);

impl ProcessLog {
    fn new(format: LogFormat) -> Self {
        let mut builder = env_logger::Builder::new();
        builder.filter_level(LevelFilter::Debug).format(move |out, record| {
            let time = out.timestamp_millis();
            let mut line = Vec::with_capacity(256);
            match format {
                LogFormat::Json => write_json(&mut line, &time, record),
                LogFormat::Text => {
                    let style = out.default_level_style(record.level());
                    write_text(
                        &mut line,
                        &time,
                        record,
                        &format_args!("{style}{:5}{style:#}", record.level()),
                    );
                }
            }
            out.write_all(&line)
        });
        Self(builder.build())
    }
}

impl Log for ProcessLog {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        heard(metadata, log::max_level())
    }

    fn log(&self, record: &Record<'_>) {
        if self.enabled(record.metadata()) {
            self.0.log(record);
        }
    }

    fn flush(&self) {
        self.0.flush();
    }
}

/// Whether a record is heard at `level`: ours, or a dependency's that matters.
fn heard(metadata: &Metadata<'_>, level: LevelFilter) -> bool {
    let ours = metadata.target().split("::").next() == Some(env!("CARGO_PKG_NAME"));
    let threshold = if ours || level >= LevelFilter::Debug { level } else { level.min(LevelFilter::Warn) };
    metadata.level() <= threshold
}

fn write_json(out: &mut Vec<u8>, time: &dyn Display, record: &Record<'_>) {
    out.extend_from_slice(b"{\"ts\":");
    json_display(out, time);
    out.extend_from_slice(b",\"level\":");
    json_display(out, &record.level().as_str().to_ascii_lowercase());
    out.extend_from_slice(b",\"target\":");
    json_display(out, &record.target());
    out.extend_from_slice(b",\"msg\":");
    json_display(out, record.args());
    // Neither visitor fails.
    let _ = record.key_values().visit(&mut JsonPairs(out));
    out.extend_from_slice(b"}\n");
}

fn write_text(out: &mut Vec<u8>, time: &dyn Display, record: &Record<'_>, level: &dyn Display) {
    let _ = write!(out, "{time} {level} {}: ", record.target());
    encode::visible(out, &record.args().to_string());
    let _ = record.key_values().visit(&mut TextPairs(out));
    out.push(b'\n');
}

fn json_display(out: &mut Vec<u8>, value: &dyn Display) {
    encode::json_string(out, value.to_string().as_bytes());
}

/// Appends `,"key":value` for each pair.
struct JsonPairs<'a>(&'a mut Vec<u8>);

impl<'kvs> VisitSource<'kvs> for JsonPairs<'_> {
    fn visit_pair(&mut self, key: Key<'kvs>, value: Value<'kvs>) -> Result<(), log::kv::Error> {
        let out = &mut *self.0;
        out.extend_from_slice(b",\"");
        encode::json_escaped(out, key.as_str().as_bytes());
        // A key twice in one object means a different thing to every reader.
        if matches!(key.as_str(), "ts" | "level" | "target" | "msg") {
            out.push(b'_');
        }
        out.extend_from_slice(b"\":");
        value.visit(JsonValue(out))
    }
}

/// Appends one value: numbers and booleans as themselves, all else as a string.
struct JsonValue<'a>(&'a mut Vec<u8>);

impl JsonValue<'_> {
    fn bare(self, value: impl Display) -> Result<(), log::kv::Error> {
        write!(self.0, "{value}").map_err(io::Error::into)
    }
}

impl<'v> VisitValue<'v> for JsonValue<'_> {
    fn visit_any(&mut self, value: Value<'_>) -> Result<(), log::kv::Error> {
        json_display(self.0, &value);
        Ok(())
    }

    fn visit_null(&mut self) -> Result<(), log::kv::Error> {
        JsonValue(self.0).bare("null")
    }

    fn visit_u64(&mut self, value: u64) -> Result<(), log::kv::Error> {
        JsonValue(self.0).bare(value)
    }

    fn visit_i64(&mut self, value: i64) -> Result<(), log::kv::Error> {
        JsonValue(self.0).bare(value)
    }

    fn visit_f64(&mut self, value: f64) -> Result<(), log::kv::Error> {
        // JSON has no word for NaN and the infinities.
        if value.is_finite() { JsonValue(self.0).bare(value) } else { self.visit_any(value.into()) }
    }

    fn visit_bool(&mut self, value: bool) -> Result<(), log::kv::Error> {
        JsonValue(self.0).bare(value)
    }
}

/// Appends ` key=value` for each pair, quoted where a blank or a quote would blur its end.
struct TextPairs<'a>(&'a mut Vec<u8>);

impl<'kvs> VisitSource<'kvs> for TextPairs<'_> {
    fn visit_pair(&mut self, key: Key<'kvs>, value: Value<'kvs>) -> Result<(), log::kv::Error> {
        let out = &mut *self.0;
        let value = value.to_string();
        out.push(b' ');
        encode::visible(out, key.as_str());
        out.push(b'=');
        if value.is_empty() || value.contains([' ', '"', '=']) {
            encode::json_string(out, value.as_bytes());
        } else {
            encode::visible(out, &value);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use log::Level;
    use log::kv::Source;
    use serde_json::json;

    fn metadata(target: &str, level: Level) -> Metadata<'_> {
        Metadata::builder().target(target).level(level).build()
    }

    /// Formats one record both ways.
    fn lines(message: &str, pairs: &[(&str, Value<'_>)]) -> (String, String) {
        let (mut json, mut text) = (Vec::new(), Vec::new());
        let source: &dyn Source = &pairs;
        let mut write = |args: std::fmt::Arguments<'_>| {
            let mut builder = Record::builder();
            builder.target("portcullis::server").level(Level::Info).key_values(&source);
            let record = builder.args(args).build();
            write_json(&mut json, &"T", &record);
            write_text(&mut text, &"T", &record, &"INFO ");
        };
        write(format_args!("{message}"));
        (String::from_utf8(json).unwrap(), String::from_utf8(text).unwrap())
    }

    #[test]
    fn both_formats_carry_message_and_pairs() {
        let pairs = [
            ("listener", Value::from("web")),
            ("routes", Value::from(7_u64)),
            ("delta", Value::from(-3_i64)),
            ("share", Value::from(0.5)),
            ("nan", Value::from(f64::NAN)),
            ("tls", Value::from(true)),
            ("msg", Value::from("of its own")),
        ];
        let (json, text) = lines("listening", &pairs);
        let read: serde_json::Value = serde_json::from_str(&json).unwrap();
        assert_eq!(
            read,
            json!({
                "ts": "T", "level": "info", "target": "portcullis::server", "msg": "listening", "listener": "web",
                "routes": 7, "delta": -3, "share": 0.5, "nan": "NaN", "tls": true, "msg_": "of its own",
            })
        );
        let expected = "T INFO  portcullis::server: listening listener=web routes=7 delta=-3 share=0.5 nan=NaN \
                        tls=true msg=\"of its own\"\n";
        assert_eq!(text, expected);
    }

    #[test]
    fn a_message_cannot_forge_a_line() {
        let (json, text) = lines("a\nb\u{1b}[0m \"c\"", &[("k", Value::from("x\ny"))]);
        assert_eq!(json.matches('\n').count(), 1);
        assert_eq!(text.matches('\n').count(), 1);
        assert!(text.contains("a\\nb\\u{1b}[0m \"c\" k=x\\ny"), "{text}");
        let read: serde_json::Value = serde_json::from_str(&json).unwrap();
        assert_eq!(read["msg"], "a\nb\u{1b}[0m \"c\"");
    }

    #[test]
    fn dependencies_are_heard_from_warn_up_unless_debugging() {
        let (ours, theirs) = ("portcullis::proxy", "pingora_proxy");
        for (level, target, record, expected) in [
            (LevelFilter::Info, ours, Level::Info, true),
            (LevelFilter::Info, ours, Level::Debug, false),
            (LevelFilter::Info, theirs, Level::Info, false),
            (LevelFilter::Info, theirs, Level::Warn, true),
            (LevelFilter::Error, theirs, Level::Warn, false),
            (LevelFilter::Debug, theirs, Level::Debug, true),
            (LevelFilter::Info, "portcullis_other", Level::Info, false),
        ] {
            assert_eq!(heard(&metadata(target, record), level), expected, "{target} {record} at {level}");
        }
    }

    #[test]
    fn the_level_can_change_and_a_second_start_is_harmless() {
        init(LogLevel::Info, LogFormat::Text);
        init(LogLevel::Warn, LogFormat::Json);
        assert_eq!(level(), LogLevel::Warn);
        set_level("debug".parse().unwrap());
        assert_eq!(level(), LogLevel::Debug);
        assert!(log::logger().enabled(&metadata("pingora", Level::Debug)));
        set_level(LogLevel::Error);
        assert!(!log::logger().enabled(&metadata("portcullis", Level::Warn)));
    }

    #[test]
    fn levels_are_the_words_of_the_configuration() {
        for level in [LogLevel::Error, LogLevel::Warn, LogLevel::Info, LogLevel::Debug] {
            let word = serde_json::to_value(level).unwrap();
            assert_eq!(word.as_str().unwrap().parse(), Ok(level));
        }
        assert_eq!("trace".parse::<LogLevel>(), Err(UnknownLevel("trace".to_owned())));
    }
}
