//! `acme`, and the certificates that are ordered.

use std::collections::BTreeMap;
use std::sync::Arc;

use base64::Engine;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use http::Uri;

use super::listeners::secret;
use super::{Compiler, unknown};
use crate::acme::{Challenge, Directory, ExternalAccount, Managed, Progress, Store};
use crate::config::{self, AcmeChallenge, AcmeStore};
use crate::document::{ConfigError, join};
use crate::tls::Authorities;
use crate::types::HostPattern;

/// The most hosts of one certificate: what public authorities issue.
const MOST_HOSTS: usize = 100;

/// The authorities by name; `None` for one that something is wrong with.
pub(super) type Directories = BTreeMap<String, Option<Arc<Directory>>>;

impl Compiler<'_> {
    pub(super) fn directories(&mut self) -> Directories {
        let config = self.config;
        let compile = |(name, words): (&String, &config::Acme)| {
            let path = join("acme", name);
            self.check_name(path.clone(), name);
            (name.clone(), self.directory(&path, name, words).map(Arc::new))
        };
        config.acme.iter().map(compile).collect()
    }

    fn directory(&mut self, path: &str, name: &str, words: &config::Acme) -> Option<Directory> {
        let url = words.directory.parse::<Uri>().ok();
        let https = |url: &Uri| url.scheme_str() == Some("https") && url.host().is_some();
        if !url.as_ref().is_some_and(https) {
            let message =
                format!("`{}` is not the URL of a directory: it begins with `https://`", words.directory);
            self.error(join(path, "directory"), message);
        }
        let email = words.email.as_deref();
        if let Some(email) = email.filter(|email| !is_email(email)) {
            self.error(join(path, "email"), format!("`{email}` is not an address of e-mail"));
        }
        let store = self.acme_store(&join(path, "store"), words);
        if let Some(ca) = words.ca.as_ref().filter(|_| self.inputs.certificates) {
            self.usable(join(path, "ca"), Authorities::load(ca));
        }
        let known = words.external_account.as_ref();
        let external_account =
            known.map(|words| self.external_account(&join(path, "external_account"), words));
        Some(Directory {
            name: name.into(),
            url: words.directory.as_str().into(),
            email: email.map(Into::into),
            challenge: words.challenge.map(challenge),
            ca: words.ca.clone(),
            external_account: match external_account {
                None => None,
                Some(account) => Some(account?),
            },
            store: store?,
        })
    }

    fn acme_store(&mut self, path: &str, words: &config::Acme) -> Option<Store> {
        match &words.store {
            AcmeStore::File(folder) if folder.as_os_str().is_empty() => {
                self.error(join(path, "file"), "a folder has a name");
                None
            }
            AcmeStore::File(folder) => Some(Store::in_folder(folder, &words.directory)),
            AcmeStore::Redis(name) => {
                let redis = self.store(&join(path, "redis"), name)?;
                Some(Store::in_redis(redis, &words.directory))
            }
        }
    }

    fn external_account(&mut self, path: &str, words: &config::ExternalAccount) -> Option<ExternalAccount> {
        let path = join(path, "hmac_key");
        let read = secret(&words.hmac_key, self.inputs.environment);
        let key = read.map_err(|message| self.error(path.clone(), message)).ok()?;
        let Ok(hmac_key) = BASE64_URL_SAFE_NO_PAD.decode(key.expose().trim_end_matches('=')) else {
            self.error(path, "the key is not base64url");
            return None;
        };
        if hmac_key.is_empty() {
            self.error(path, "the key is empty");
            return None;
        }
        Some(ExternalAccount { key_id: words.key_id.clone(), hmac_key })
    }

    /// A certificate that `acme` issues for `hosts`: what has come of it so far, and what the store has.
    pub(super) fn managed(&mut self, path: &str, acme: &str, hosts: &[String]) -> Option<Managed> {
        let directory = match self.directories.get(acme) {
            Some(directory) => directory.clone(),
            None => {
                let unread = &self.config.unread;
                if !unread.touches(&join("acme", acme)) && !unread.touches("acme") && !unread.section() {
                    let known = self.config.acme.keys().map(String::as_str);
                    let error = unknown(join(path, "acme"), "authority", acme, known);
                    self.errors.push(error);
                }
                None
            }
        };
        let in_the_clear = self.config.listeners.iter().any(|listener| listener.tls.is_none());
        let by_http = |directory: &Arc<Directory>| directory.challenge == Some(Challenge::Http);
        if directory.as_ref().is_some_and(by_http)
            && !in_the_clear
            && !self.config.unread.touches("listeners")
        {
            let message = "hosts are proved by `http`, and there is no listener without TLS to prove them on";
            let hint = "add one, or take `challenge: tls_alpn`";
            self.errors.push(ConfigError::new(join(path, "acme"), message).with_hint(hint));
        }
        let hosts = self.ordered_hosts(&join(path, "hosts"), hosts)?;
        let directory = directory.filter(|_| self.inputs.certificates)?;
        let key = format!("acme {}", directory.store.key(&hosts));
        let progress = self.inputs.state.adopt(key, || Progress::new(hosts.into()));
        let managed = Managed { directory, progress };
        managed.recall_at_hand();
        if !self.managed.iter().any(|known| Arc::ptr_eq(&known.progress, &managed.progress)) {
            self.managed.push(managed.clone());
        }
        Some(managed)
    }

    /// The hosts of a certificate in canonical words and order.
    fn ordered_hosts(&mut self, path: &str, words: &[String]) -> Option<Vec<Box<str>>> {
        if !(1..=MOST_HOSTS).contains(&words.len()) {
            self.error(path, format!("a certificate is for 1 to {MOST_HOSTS} hosts"));
            return None;
        }
        let mut hosts: Vec<Box<str>> = Vec::with_capacity(words.len());
        for (at, word) in words.iter().enumerate() {
            let path = format!("{path}[{at}]");
            let Some(pattern) = self.host_pattern(&path, word) else { continue };
            match ordered(&pattern, &hosts) {
                Ok(host) => hosts.push(host),
                Err((message, hint)) => self.errors.push(ConfigError::new(path, message).with_hint(hint)),
            }
        }
        hosts.sort();
        (hosts.len() == words.len()).then_some(hosts)
    }
}

fn ordered(pattern: &HostPattern, known: &[Box<str>]) -> Result<Box<str>, (String, &'static str)> {
    let host = pattern.name();
    if pattern.is_wildcard() {
        let message =
            format!("`{pattern}` cannot be ordered: wildcards are proved by DNS, which is not offered");
        return Err((message, "list the hosts, or name the files of a certificate"));
    }
    if known.iter().any(|known| **known == *host) {
        return Err((format!("`{host}` is there twice"), "remove one of them"));
    }
    Ok(host.into())
}

fn challenge(words: AcmeChallenge) -> Challenge {
    match words {
        AcmeChallenge::Http => Challenge::Http,
        AcmeChallenge::TlsAlpn => Challenge::TlsAlpn,
    }
}

/// As far as an authority would refuse it for its form, and all that would end it early.
fn is_email(text: &str) -> bool {
    let fit = |c: char| c.is_ascii_graphic() && !",?&;<>".contains(c);
    text.chars().all(fit)
        && text.split_once('@').is_some_and(|(user, host)| !user.is_empty() && host.contains('.'))
}
