//! `check` and `explain`: what a configuration means, without running it.

use std::path::Path;
use std::process::ExitCode;

use super::{failed, show};
use crate::explain::{Explanation, Question, explain as explain_request, outline as outline_of};
use crate::registry::Registry;
use crate::server::{Checked, check as check_file};

pub(super) fn check(path: &Path, print: bool, registry: Registry) -> ExitCode {
    match check_file(path, registry) {
        Err(refusal) => failed(&refusal.to_string(), 2),
        Ok(Checked { config, .. }) if print => match serde_yaml::to_string(&config) {
            Ok(text) => show(&text),
            Err(error) => failed(&error.to_string(), 1),
        },
        Ok(Checked { config, warnings, .. }) => {
            let fine = format!(
                "{}: fine ({} listeners, {} routes, {} upstreams)",
                path.display(),
                config.listeners.len(),
                config.routes.len() + config.apis.len(),
                config.upstreams.len()
            );
            let warnings = warnings.iter().map(|warning| format!("\n  warning: {warning}"));
            show(&warnings.fold(fine, |said, warning| said + &warning))
        }
    }
}

pub(super) fn explain(
    path: &Path,
    registry: Registry,
    method: String,
    url: String,
    fields: &[String],
    listener: Option<String>,
) -> ExitCode {
    let checked = match check_file(path, registry) {
        Ok(checked) => checked,
        Err(refusal) => return failed(&refusal.to_string(), 2),
    };
    let mut headers = std::collections::BTreeMap::new();
    for field in fields {
        let Some((name, value)) = field.split_once(':') else {
            return failed(&format!("`{field}` is not a header field: write `name: value`"), 2);
        };
        headers.insert(name.trim().to_owned(), value.trim().to_owned());
    }
    match explain_request(&checked.snapshot, &Question { method, url, headers, listener }) {
        Ok(explanation) => show(&words(&explanation)),
        Err(message) => failed(&message, 2),
    }
}

pub(super) fn outline(path: &Path, registry: Registry) -> ExitCode {
    match check_file(path, registry) {
        Ok(checked) => show(&outline_of(&checked.snapshot).to_string()),
        Err(refusal) => failed(&refusal.to_string(), 2),
    }
}

fn words(explanation: &Explanation) -> String {
    let host = if explanation.host.is_empty() { "(any host)" } else { &explanation.host };
    let mut lines = vec![format!("request   {host}{} on {}", explanation.path, explanation.listener)];
    if let Some(tls) = &explanation.tls {
        let certificate = tls.certificate.as_deref().unwrap_or("none");
        lines.push(format!("tls       {} ({certificate})", tls.policy));
    }
    match &explanation.route {
        Some(route) => lines.push(format!("route     {route}")),
        None => lines.push("route     none".into()),
    }
    for (name, value) in &explanation.captures {
        lines.push(format!("capture   {name} = {value}"));
    }
    for (at, step) in explanation.chain.iter().enumerate() {
        lines.push(format!(
            "filter {:<2} {} ({}: {})",
            at + 1,
            step.filter,
            step.stage,
            step.hooks.join(", ")
        ));
        if let Some(when) = &step.when {
            let applies = match step.applies {
                Some(true) => "applies",
                Some(false) => "does not apply",
                None => "known only then",
            };
            let when = when.split_ascii_whitespace().collect::<Vec<_>>().join(" ");
            lines.push(format!("  when    {when}: {applies}"));
        }
    }
    lines.extend(explanation.version.iter().map(|version| format!("version   {version}")));
    for (at, rule) in explanation.rules.iter().enumerate() {
        let holds = match rule.holds {
            Some(true) => "holds",
            Some(false) => "does not hold",
            None => "known only then",
        };
        lines.push(format!("rule {:<4} to {}: {holds}", at + 1, rule.to));
        if let Some(when) = &rule.when {
            lines.push(format!("  when    {}", when.split_ascii_whitespace().collect::<Vec<_>>().join(" ")));
        }
    }
    for (at, view) in explanation.variants.iter().enumerate() {
        let name = if at == 0 { "split" } else { "" };
        lines.push(format!("{name:<9} {} at {} ({}%)", view.variant, view.upstream, view.percent));
    }
    if let Some(upstream) = &explanation.upstream {
        let endpoints = match &*upstream.endpoints {
            [] => "no endpoints yet".to_owned(),
            endpoints => endpoints.join(", "),
        };
        lines.push(format!("upstream  {} ({endpoints})", upstream.name));
        lines.extend(upstream.discover.iter().map(|finder| format!("discover  {finder}")));
        if upstream.balance != "round_robin" {
            lines.push(format!("balance   {}", upstream.balance));
        }
    }
    if let Some(mirror) = &explanation.mirror {
        lines.push(format!("mirror    {}% to {}", mirror.percent, mirror.upstream));
    }
    if let Some(allow) = &explanation.allow {
        lines.push(format!("allow     {allow}"));
    }
    if let Some(status) = explanation.status {
        lines.push(format!("answer    {status} from the gateway"));
    }
    lines.join("\n")
}
