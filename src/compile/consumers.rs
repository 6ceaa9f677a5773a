//! `consumers`: who clients are, and what proves it. No error says a word of a secret.

use std::collections::HashSet;
use std::path::Path;
use std::sync::Arc;

use super::Compiler;
use super::listeners::secret;
use crate::config::{ApiKey, ApiKeyWords, BasicLogin, Consumer as Words, SecretSource};
use crate::consumer::{
    Builder, Consumer, Consumers, Credential, Digest, InvalidHash, Login, MOST_KEY, Password, Passwords,
};
use crate::document::ConfigError;
use crate::types::Moment;

/// The fewest characters of a key, and of a password.
const LEAST_KEY: usize = 16;
const LEAST_PASSWORD: usize = 8;
const MOST_USERNAME: usize = 255;
const MOST_PASSWORD: usize = 1024;

impl Compiler<'_> {
    pub(super) fn consumers(&mut self) -> Arc<Consumers> {
        let config = self.config;
        let mut index = match config.consumers.is_empty() {
            true => Builder::default(),
            false => Builder::new(self.inputs.state.adopt(Passwords::KEY, Passwords::default)),
        };
        index.incomplete(config.unread.touches("consumers") || config.unread.section());
        for (at, words) in config.consumers.iter().enumerate() {
            self.consumer(&format!("consumers[{at}]"), words, &mut index);
        }
        Arc::new(index.build())
    }

    fn consumer(&mut self, path: &str, words: &Words, index: &mut Builder) {
        self.check_name(format!("{path}.name"), &words.name);
        let mut groups = HashSet::new();
        for (at, group) in words.groups.iter().enumerate() {
            let path = format!("{path}.groups[{at}]");
            if !groups.insert(group) {
                self.error(path, format!("the group `{group}` is there twice"));
            } else {
                self.check_name(path, group);
            }
        }
        let consumer = Consumer::new(words.name.as_str(), words.groups.iter().map(String::as_str));
        let consumer = Arc::new(consumer.counted(self.inputs.metrics.consumer(&words.name)));
        if !index.consumer(Arc::clone(&consumer)) {
            return self
                .error(format!("{path}.name"), format!("another consumer is called `{}`", words.name));
        }
        for (at, key) in words.api_keys.iter().enumerate() {
            self.key(&format!("{path}.api_keys[{at}]"), key, &consumer, index);
        }
        for (at, login) in words.basic.iter().enumerate() {
            self.login(&format!("{path}.basic[{at}]"), login, &consumer, index);
        }
    }

    fn key(&mut self, path: &str, words: &ApiKey, consumer: &Arc<Consumer>, index: &mut Builder) {
        let mut credential = Credential { name: None, expires: None };
        let source = match words {
            ApiKey::Word(word) => SecretSource::Word(word.clone()),
            ApiKey::Words(words) => {
                let ApiKeyWords { sha256, key, env, file, expires, name } = &**words;
                credential.name = name.as_deref().map(Into::into);
                credential.expires = expires.as_ref().map(Moment::time);
                match (sha256, key, env, file) {
                    (Some(hex), ..) => return self.hashed(path, hex.expose(), credential, consumer, index),
                    (_, Some(key), ..) => SecretSource::Word(key.clone()),
                    (_, _, Some(env), _) => SecretSource::Env { env: env.clone() },
                    (.., Some(file)) => SecretSource::File { file: file.clone() },
                    // Such a key is not read.
                    (None, None, None, None) => return,
                }
            }
        };
        let Some(key) = self.word(path, &source) else { return };
        let fault = match key.as_str() {
            "" => "a key cannot be empty",
            key if !key.bytes().all(|byte| byte.is_ascii_graphic()) => {
                "a key is made of visible ASCII characters, without spaces: others do not come through everywhere"
            }
            key if key.len() < LEAST_KEY => "a key has at least 16 characters: shorter ones can be guessed",
            key if key.len() > MOST_KEY => "a key has at most 1024 characters",
            _ => return self.add(path, Digest::of(key.as_bytes()), credential, consumer, index),
        };
        self.error(path, fault);
    }

    /// A key that is given by its hash.
    fn hashed(
        &mut self,
        path: &str,
        hex: &str,
        credential: Credential,
        consumer: &Arc<Consumer>,
        index: &mut Builder,
    ) {
        let path = format!("{path}.sha256");
        match Digest::from_hex(hex) {
            None => self.errors.push(
                ConfigError::new(path, "this is no SHA-256: that has 64 hexadecimal digits")
                    .with_hint("`printf %s KEY | sha256sum` prints it"),
            ),
            Some(digest) if [&b""[..], b"\n"].map(Digest::of).contains(&digest) => {
                self.error(path, "this is the SHA-256 of nothing");
            }
            Some(digest) => self.add(&path, digest, credential, consumer, index),
        }
    }

    fn add(
        &mut self,
        path: &str,
        digest: Digest,
        credential: Credential,
        consumer: &Arc<Consumer>,
        index: &mut Builder,
    ) {
        if let Err(other) = index.key(consumer, digest, credential) {
            let message = match other == consumer.name {
                true => "this key is there twice".to_owned(),
                false => format!("the consumer `{other}` has this key, too"),
            };
            self.error(path, message);
        }
    }

    fn login(&mut self, path: &str, words: &BasicLogin, consumer: &Arc<Consumer>, index: &mut Builder) {
        let username = words.username.as_str();
        let fault = match username {
            "" => Some("a name cannot be empty"),
            name if name.contains(':') => Some("a name has no `:`, which ends it in a request (RFC 7617)"),
            name if name.chars().any(char::is_control) => Some("a name has no control characters"),
            name if name.len() > MOST_USERNAME => Some("a name has at most 255 bytes"),
            _ => None,
        };
        if let Some(fault) = fault {
            self.error(format!("{path}.username"), fault);
        }
        let password = match (&words.password_hash, &words.password) {
            (Some(hash), None) => self.password_hash(&format!("{path}.password_hash"), hash),
            (None, Some(password)) => self.password(&format!("{path}.password"), password, index),
            _ => return self.error(path, "a login has one of `password_hash` and `password`"),
        };
        let (Some(password), None) = (password, fault) else { return };
        let expires = words.expires.as_ref().map(Moment::time);
        let login = Login { username: username.into(), consumer: Arc::clone(consumer), password, expires };
        if let Err(other) = index.login(login) {
            let message = match other == consumer.name {
                true => format!("the name `{username}` is there twice"),
                false => format!("the consumer `{other}` has the name `{username}`, too"),
            };
            self.error(format!("{path}.username"), message);
        }
    }

    fn password_hash(&mut self, path: &str, source: &SecretSource) -> Option<Password> {
        let hash = self.word(path, source)?;
        let told = |error: InvalidHash| {
            let known = ConfigError::new(path, error.to_string());
            self.errors.push(match error {
                InvalidHash::Costly(..) | InvalidHash::Broken(_) => known,
                InvalidHash::Kind => {
                    known.with_hint("`htpasswd -nbB NAME PASSWORD` prints one of bcrypt after the colon")
                }
            });
        };
        Password::of_hash(&hash).map_err(told).ok()
    }

    fn password(&mut self, path: &str, source: &SecretSource, index: &Builder) -> Option<Password> {
        let password = self.word(path, source)?;
        let fault = match password.as_str() {
            "" => "a password cannot be empty",
            word if word.chars().any(char::is_control) => "a password has no control characters",
            word if word.chars().count() < LEAST_PASSWORD => "a password has at least 8 characters",
            word if word.len() > MOST_PASSWORD => "a password has at most 1024 bytes",
            word => return Some(index.seal(word)),
        };
        self.error(path, fault);
        None
    }

    /// A secret. Where nothing may be read that could be told, only those that the text has itself.
    fn word(&mut self, path: &str, source: &SecretSource) -> Option<String> {
        if !self.inputs.certificates && !matches!(source, SecretSource::Word(_)) {
            return None;
        }
        let word = secret(source, self.inputs.environment);
        word.map(|word| word.expose().to_owned()).map_err(|message| self.error(path, message)).ok()
    }
}

/// The files that keep secrets of a consumer, for a watcher.
pub fn consumer_files(consumer: &Words) -> impl Iterator<Item = &Path> {
    let keys = consumer.api_keys.iter().filter_map(|key| match key {
        ApiKey::Words(words) => words.file.as_deref(),
        ApiKey::Word(_) => None,
    });
    let sources = consumer.basic.iter().flat_map(|login| [&login.password_hash, &login.password]);
    let of_logins = sources.flatten().filter_map(|source| match source {
        SecretSource::File { file } => Some(file.as_path()),
        _ => None,
    });
    keys.chain(of_logins)
}
