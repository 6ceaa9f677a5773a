//! The words of `balance` become a choice.

use std::path::Path;
use std::sync::Arc;

use super::listeners::secret;
use super::{Inputs, unknown};
use crate::config::{
    Balance as Words, ConsistentHash, CustomBalance, Ring, SecretSource, Selectors, Sticky as StickyWords,
};
use crate::document::{ConfigError, Errors, join};
use crate::types::Selector;
use crate::upstream::{Balance, Choice, HashAlgorithm, Sticky, StickyKey};

/// The least characters of a secret.
const SECRET: usize = 16;
/// How many times the average an endpoint may bear.
const LOADS: std::ops::RangeInclusive<f64> = 1.0..=100.0;

/// How the endpoints of an upstream are chosen among. What is wrong is told, and left out.
pub(super) fn choice(
    upstream: &str,
    words: &Words,
    zone: Option<&str>,
    inputs: Inputs<'_>,
    errors: &mut Errors,
) -> Choice {
    let path = join(&join("upstreams", upstream), "balance");
    let mut checks = Checks { inputs, errors };
    let (sticky, path, words) = match words {
        Words::Sticky(sticky) => {
            let path = join(&path, "sticky");
            (checks.sticky(upstream, &path, sticky), join(&path, "balance"), &*sticky.balance)
        }
        words => (None, path, words),
    };
    let (balance, keys) = checks.balance(&path, words);
    Choice { balance, keys, sticky, zone: zone.map(Arc::from) }
}

/// The file that the secret of sticky cookies is kept in, for a watcher.
pub(super) fn secret_file(words: &Words) -> Option<&Path> {
    match words {
        Words::Sticky(StickyWords { secret: Some(SecretSource::File { file }), .. }) => Some(file),
        _ => None,
    }
}

struct Checks<'a, 'e> {
    inputs: Inputs<'a>,
    errors: &'e mut Errors,
}

impl Checks<'_, '_> {
    fn balance(&mut self, path: &str, words: &Words) -> (Balance, Box<[Selector]>) {
        let plain = match words {
            Words::RoundRobin => Balance::RoundRobin,
            Words::LeastRequests => Balance::LeastRequests,
            Words::Random => Balance::Random,
            Words::PeakEwma => Balance::PeakEwma,
            Words::Sticky(_) => {
                self.error(join(path, "sticky"), "this stands in `sticky` already: name another balance");
                Balance::RoundRobin
            }
            Words::IpHash => {
                let table = Balance::ConsistentHash { algorithm: HashAlgorithm::Maglev, bounded: None };
                return (table, [Selector::Ip].into());
            }
            Words::Custom(words) => return self.custom(&join(path, "custom"), words),
            Words::ConsistentHash(words) => return self.hash(&join(path, "consistent_hash"), words),
        };
        (plain, Box::default())
    }

    fn hash(&mut self, path: &str, words: &ConsistentHash) -> (Balance, Box<[Selector]>) {
        let keys = self.keys(path, &words.key);
        if words.max_load.is_some_and(|load| !LOADS.contains(&load)) {
            let error = ConfigError::new(join(path, "max_load"), "a bound is 1 to 100 times the average");
            self.errors.push(error.with_hint("`1.25` lets an endpoint bear a quarter more than the average"));
        }
        let algorithm = match words.ring {
            Ring::Ketama => HashAlgorithm::Ketama,
            Ring::Maglev => HashAlgorithm::Maglev,
        };
        (Balance::ConsistentHash { algorithm, bounded: words.max_load }, keys)
    }

    fn keys(&mut self, path: &str, words: &Selectors) -> Box<[Selector]> {
        if words.0.is_empty() {
            self.error(join(path, "key"), "a key needs at least one word, like `header:x-user`");
        }
        words.0.clone().into()
    }

    fn custom(&mut self, path: &str, words: &CustomBalance) -> (Balance, Box<[Selector]>) {
        let keys = words.key.as_ref().map(|key| self.keys(path, key)).unwrap_or_default();
        let registry = self.inputs.registry;
        if let Some(factory) = registry.balancer(&words.name) {
            return (Balance::Custom(factory.clone()), keys);
        }
        let path = if words.key.is_some() { join(path, "name") } else { path.to_owned() };
        let error = unknown(path, "balancer", &words.name, registry.balancer_names());
        self.errors.push(match registry.balancer_names().next() {
            Some(_) => error,
            None => error.with_hint("a balancer is registered in code, with `Gateway::balancer`"),
        });
        (Balance::RoundRobin, keys)
    }

    fn sticky(&mut self, upstream: &str, path: &str, words: &StickyWords) -> Option<Sticky> {
        if http::HeaderName::try_from(&words.cookie).is_err() {
            self.error(join(path, "cookie"), format!("`{}` is not the name of a cookie", words.cookie));
        }
        let key = match &words.secret {
            // Nothing may be read that could be told.
            Some(source) if !self.inputs.certificates && !matches!(source, SecretSource::Word(_)) => {
                return None;
            }
            Some(source) => Arc::new(self.key(&join(path, "secret"), source)?),
            None => {
                let Some(fresh) = StickyKey::random() else {
                    self.error(path, "the system gives no random bytes for a key: name a `secret`");
                    return None;
                };
                self.inputs.state.adopt(StickyKey::key(upstream), || fresh)
            }
        };
        Some(Sticky::new(&*words.cookie, key))
    }

    fn key(&mut self, path: &str, source: &SecretSource) -> Option<StickyKey> {
        match secret(source, self.inputs.environment) {
            Ok(secret) if secret.expose().len() >= SECRET => Some(StickyKey::of_secret(secret.expose())),
            Ok(_) => {
                self.error(path, "a secret has at least 16 characters");
                None
            }
            Err(message) => {
                self.error(path, message);
                None
            }
        }
    }

    fn error(&mut self, path: impl Into<String>, message: impl Into<String>) {
        self.errors.push(ConfigError::new(path, message));
    }
}
