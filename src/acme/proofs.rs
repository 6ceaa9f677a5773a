//! What is answered to directories: for what is under way here, and for what another machine has under way.

use std::sync::Arc;
use std::time::{Duration, Instant};

use ahash::HashMap;
use parking_lot::Mutex;
use rustls::ServerConfig;
use tokio::sync::Semaphore;

use super::challenges::{Challenges, proof};
use super::managed::Managed;
use super::store::Shared;
use crate::stores;

/// Questions to stores at once: strangers can have them asked.
const AT_ONCE: usize = 16;
/// How long a token may be.
const LONGEST_TOKEN: usize = 128;
/// How long a key authorization may be: a token, a dot and a thumbprint.
const LONGEST_AUTHORIZATION: usize = 2 * LONGEST_TOKEN;
/// The length of a SHA-256.
const DIGEST: usize = 32;
/// How often failures are told.
const TELL: Duration = Duration::from_secs(60);

/// What is answered to directories under one configuration.
#[derive(Debug)]
pub struct Proofs {
    here: Arc<Challenges>,
    /// Where other machines put their answers, by the hosts that are theirs as well as ours.
    elsewhere: HashMap<Box<str>, Vec<Shared>>,
}

impl Proofs {
    /// Answers for the hosts of these certificates.
    pub fn new(here: Arc<Challenges>, wanted: &[Managed]) -> Self {
        let mut elsewhere: HashMap<Box<str>, Vec<Shared>> = HashMap::default();
        for managed in wanted {
            let Some(shared) = managed.directory.store.shared() else { continue };
            for host in managed.progress.issued().hosts() {
                elsewhere.entry(host.clone()).or_default().push(shared.clone());
            }
        }
        Self { here, elsewhere }
    }

    /// What is under way here.
    pub fn here(&self) -> &Arc<Challenges> {
        &self.here
    }

    /// Whether a question for this token may be one that another machine can answer.
    pub fn is_elsewhere(&self, token: &str) -> bool {
        !self.elsewhere.is_empty() && is_token(token) && self.here.http(token).is_none()
    }

    /// The key authorization for a token of a host, as another machine has it.
    pub async fn http_elsewhere(&self, host: &str, token: &str) -> Option<Box<str>> {
        let stores = self.elsewhere.get(host).filter(|_| is_token(token))?;
        for shared in stores {
            let found = self.here.questions.ask(host, shared.http(token)).await.flatten();
            let authorization = found.and_then(|found| authorization(found, token));
            if authorization.is_some() {
                return authorization;
            }
        }
        None
    }

    /// What to greet a directory with that asks for a host.
    pub async fn tls(&self, host: &str) -> Option<Arc<ServerConfig>> {
        if let Some(here) = self.here.tls(host) {
            return Some(here);
        }
        let host = host.to_ascii_lowercase();
        for shared in self.elsewhere.get(host.as_str())? {
            let found = self.here.questions.ask(&host, shared.tls(&host)).await.flatten();
            if let Some(digest) = found.filter(|digest| digest.len() == DIGEST) {
                return proof(&host, &digest).map(Arc::new).ok();
            }
        }
        None
    }
}

/// Questions to stores that strangers have asked.
#[derive(Debug)]
pub(super) struct Questions {
    room: Semaphore,
    failed: Mutex<Failures>,
}

#[derive(Debug, Default)]
struct Failures {
    /// Since they were told last.
    count: u64,
    told: Option<Instant>,
}

impl Default for Questions {
    fn default() -> Self {
        Self { room: Semaphore::new(AT_ONCE), failed: Mutex::default() }
    }
}

impl Questions {
    /// What a store says; `None` when it is not asked, or has no answer.
    async fn ask<T>(
        &self,
        host: &str,
        question: impl Future<Output = Result<Option<T>, stores::Error>>,
    ) -> Option<Option<T>> {
        let Ok(_room) = self.room.try_acquire() else {
            self.failed(host, &"too many questions at once");
            return None;
        };
        question.await.map_err(|error| self.failed(host, &error)).ok()
    }

    /// Counts a failure, and tells of them now and then.
    fn failed(&self, host: &str, error: &dyn std::fmt::Display) {
        let mut failed = self.failed.lock();
        failed.count += 1;
        if failed.told.is_some_and(|told| told.elapsed() < TELL) {
            return;
        }
        let count = std::mem::take(&mut failed.count);
        failed.told = Some(Instant::now());
        drop(failed);
        log::warn!(
            "acme: {count} questions for proofs of other machines failed, the last for {host}: {error}"
        );
    }
}

/// Whether a word can be a token (RFC 8555, section 8.3).
fn is_token(word: &str) -> bool {
    (1..=LONGEST_TOKEN).contains(&word.len()) && word.bytes().all(is_base64url)
}

/// What a store has for a token, when it is a key authorization (RFC 8555, section 8.1): nothing else is sent on.
fn authorization(found: Vec<u8>, token: &str) -> Option<Box<str>> {
    let text = String::from_utf8(found).ok().filter(|text| text.len() <= LONGEST_AUTHORIZATION)?;
    let thumbprint = text.strip_prefix(token)?.strip_prefix('.')?;
    thumbprint.bytes().all(is_base64url).then(|| text.into())
}

fn is_base64url(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_'
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_can_be_a_token_is_asked_for() {
        assert!(is_token("evaGxfADs6pSRb2LAv9IZf17Dt3juxGJ-PCt92wr-oA"));
        let long = "a".repeat(LONGEST_TOKEN + 1);
        for word in ["", "a/b", "a.b", "a*", "a b", "{x}", "ä", &long] {
            assert!(!is_token(word), "{word}");
        }
    }

    #[test]
    fn only_an_authorization_of_the_token_is_sent_on() {
        let read = |text: &str| authorization(text.as_bytes().to_vec(), "token");
        assert_eq!(read("token.thumb-print_1").as_deref(), Some("token.thumb-print_1"));
        for text in ["", "token", "other.thumb", "token.<script>", &format!("token.{}", "a".repeat(300))] {
            assert_eq!(read(text), None, "{text}");
        }
    }

    #[tokio::test]
    async fn questions_are_bounded_and_failures_told_now_and_then() {
        let questions = Questions::default();
        let room = questions.room.try_acquire_many(AT_ONCE as u32).unwrap();
        assert_eq!(questions.ask("a.test", async { Ok(Some(1)) }).await, None);
        assert_eq!(questions.ask("a.test", async { Ok(Some(1)) }).await, None);
        assert_eq!(questions.failed.lock().count, 1, "the first was told, the second is counted");
        drop(room);
        assert_eq!(questions.ask("a.test", async { Ok(Some(1)) }).await, Some(Some(1)));
    }
}
