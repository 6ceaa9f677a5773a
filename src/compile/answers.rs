//! Routes that the gateway answers itself: `respond` and `redirect`.

use http::{HeaderMap, HeaderValue, StatusCode};

use super::Compiler;
use super::routes::sendable;
use crate::config::{Redirect as RedirectWords, Respond};
use crate::document::{ConfigError, join};
use crate::exchange::{Reply, Template};
use crate::registry::{Parameters, Scope};
use crate::snapshot::{Redirect, Target};

impl Compiler<'_> {
    pub(super) fn respond(&mut self, path: &str, words: &Respond) -> Option<Target> {
        let status =
            StatusCode::from_u16(words.status).ok().filter(|status| (200..600).contains(&status.as_u16()));
        let status = self.parsed(format!("{path}.status"), status.ok_or("a status is 200 to 599"));
        let mut headers = HeaderMap::new();
        for (name, value) in &words.headers {
            let path = join(&format!("{path}.headers"), name);
            let name = self.parsed(path.clone(), sendable(name));
            let value = self
                .parsed(path, HeaderValue::from_str(value).map_err(|_| "a header cannot carry this value"));
            if let (Some(name), Some(value)) = (name, value) {
                headers.append(name, value);
            }
        }
        Some(Target::Respond(Box::new(Reply::content(status?, words.body.clone()).headers(headers))))
    }

    pub(super) fn redirect(
        &mut self,
        path: &str,
        words: &RedirectWords,
        captures: &[&str],
    ) -> Option<Target> {
        let good = matches!(words.status, 301 | 302 | 303 | 307 | 308);
        let status = StatusCode::from_u16(words.status).ok().filter(|_| good);
        let status =
            self.parsed(format!("{path}.status"), status.ok_or("a redirect has 301, 302, 303, 307 or 308"));
        let to = self.parsed(format!("{path}.to"), Template::parse(&words.to))?;
        let fit = |to: &str| to.starts_with('/') || to.starts_with("http://") || to.starts_with("https://");
        if !fit(&words.to) || HeaderValue::from_str(&words.to).is_err() {
            self.error(format!("{path}.to"), "a redirect leads to an absolute URL or a path");
        }
        let scope = Scope {
            registry: self.inputs.registry,
            parameters: Parameters::Of(captures),
            state: self.inputs.state,
            metrics: self.inputs.metrics,
            stores: &self.stores,
            consumers: &self.consumers,
            owner: "",
            when: &[],
            files: false,
        };
        let unknown = scope.unknown_captures(&to).map(|error| ConfigError::new(format!("{path}.to"), error));
        self.errors.extend(unknown);
        Some(Target::Redirect(Redirect { to, status: status? }))
    }
}
