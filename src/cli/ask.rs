//! Commands to a gateway that runs already.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

use super::{failed, show};
use crate::compile::admin_token;
use crate::config::Config;
use crate::document::Environment;
use crate::server::{Source, ask_upgrade};

/// How long a reload may take.
const PATIENCE: Duration = Duration::from_secs(60);

pub(super) fn reload(path: &Path) -> ExitCode {
    let environment = Environment::of_process();
    // The new file may be wrong: where the gateway listens is all that is wanted of it, and it tells the errors.
    let loaded = match Source::File(path.to_owned()).load(&environment) {
        Ok(loaded) => loaded,
        Err(refusal) => return failed(&refusal.to_string(), 2),
    };
    match post_reload(&loaded.config, &environment) {
        Ok((200, body)) => show(&body),
        Ok((422, body)) => failed(&detail(&body), 2),
        Ok((_, body)) => failed(&detail(&body), 1),
        Err(message) => failed(&message, 1),
    }
}

fn detail(body: &str) -> String {
    let problem = serde_json::from_str::<serde_json::Value>(body).ok();
    let detail = problem.as_ref().and_then(|problem| problem.get("detail")?.as_str());
    detail.unwrap_or(body).to_owned()
}

fn post_reload(config: &Config, environment: &Environment) -> Result<(u16, String), String> {
    let admin =
        config.admin.as_ref().ok_or("the configuration has no admin listener: send SIGHUP instead")?;
    let token = admin_token(admin, environment)?;
    let failed = |error: std::io::Error| format!("no gateway answers at {}: {error}", admin.address);
    let mut stream = TcpStream::connect_timeout(&admin.address, Duration::from_secs(2)).map_err(failed)?;
    stream.set_read_timeout(Some(PATIENCE)).map_err(failed)?;
    let authorization =
        token.map(|token| format!("Authorization: Bearer {}\r\n", token.expose())).unwrap_or_default();
    let request = format!(
        "POST /reload HTTP/1.1\r\nHost: {}\r\nContent-Length: 0\r\nConnection: close\r\n{authorization}\r\n",
        admin.address
    );
    stream.write_all(request.as_bytes()).map_err(failed)?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).map_err(failed)?;
    let (head, body) = answer.split_once("\r\n\r\n").ok_or("the gateway's answer is not HTTP")?;
    let status = head.split(' ').nth(1).and_then(|status| status.parse().ok());
    Ok((status.ok_or("the gateway's answer is not HTTP")?, body.to_owned()))
}

pub(super) fn upgrade(path: &Path) -> ExitCode {
    let environment = Environment::of_process();
    let loaded = match Source::File(path.to_owned()).load(&environment) {
        Ok(loaded) => loaded,
        Err(refusal) => return failed(&refusal.to_string(), 2),
    };
    let Some(socket) = &loaded.config.server.upgrade_socket else {
        return failed("the configuration has no server.upgrade_socket: send SIGUSR2 instead", 2);
    };
    match ask_upgrade(socket) {
        Ok(pid) => show(&format!("process {pid} has taken over")),
        Err(message) => failed(&message, 1),
    }
}
