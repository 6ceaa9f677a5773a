//! The checking of passwords.
//!
//! 1. A hash that is slow on purpose is computed beside the workers, few at once, and few requests wait for their turn:
//!    who tries passwords takes neither all threads nor all memory. The others are told to come again.
//! 2. What was right is remembered for a while, as a MAC over the name, the password and the hash: with another hash it
//!    is worth nothing. What was wrong is not.
//! 3. Requests that come with the same name and password at the same time are one check.

use std::collections::HashMap;
use std::sync::{Arc, Weak};
use std::thread::available_parallelism;
use std::time::{Duration, Instant};

use aws_lc_rs::hmac::{Context, HMAC_SHA256, Key};
use aws_lc_rs::rand;
use parking_lot::Mutex;
use tokio::sync::{OnceCell, OwnedSemaphorePermit, Semaphore};

use super::password::is_same;
use super::{Consumers, Login, Password};

/// How long what was right is remembered.
const REMEMBERED: Duration = Duration::from_secs(120);
/// Of how many.
const MOST: usize = 16 * MOST_IN_SHARD;
const MOST_IN_SHARD: usize = 1024;
const SHARDS: usize = MOST / MOST_IN_SHARD;
/// How many may wait for each that is checked.
const WAITING: usize = 32;
/// The number of checks under way at which those are forgotten that nobody waits for.
const SWEEP: usize = 256;

type Mark = [u8; 32];

/// Checks passwords, and remembers for a while what was right.
pub struct Passwords {
    secret: Key,
    right: [Mutex<HashMap<Mark, Instant>>; SHARDS],
    under_way: Mutex<HashMap<Mark, Weak<OnceCell<bool>>>>,
    /// For all that are checked or wait.
    places: Arc<Semaphore>,
    /// For those that are checked.
    turns: Arc<Semaphore>,
}

/// Too many passwords are being checked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("too many passwords are being checked")]
pub struct Busy;

impl Passwords {
    /// The key under which it outlives a snapshot.
    pub const KEY: &'static str = "passwords";

    /// With half of the machine's cores.
    pub fn new() -> Self {
        let turns = available_parallelism().map_or(1, |cores| cores.get().div_ceil(2));
        Self::bounded(turns, turns * WAITING)
    }

    /// So many at once, and so many that wait.
    pub fn bounded(turns: usize, waiting: usize) -> Self {
        let mut secret = [0; 32];
        // Without random bytes there is no TLS either. The key of zeros still keeps nothing in the clear.
        let _ = rand::fill(&mut secret);
        Self {
            secret: Key::new(HMAC_SHA256, &secret),
            right: std::array::from_fn(|_| Mutex::default()),
            under_way: Mutex::default(),
            places: Arc::new(Semaphore::new(turns + waiting)),
            turns: Arc::new(Semaphore::new(turns)),
        }
    }

    /// A password that the configuration has in the clear, as it is kept.
    pub fn seal(&self, password: &str) -> Password {
        Password::sealed(self.mac(&[b"sealed", password.as_bytes()]))
    }

    /// The login of this name and password. A name that nobody has is checked against somebody else's hash, always the
    /// same one for the same name, so that it takes as long.
    ///
    /// # Errors
    ///
    /// When it would have to wait too long for an answer.
    pub async fn check<'c>(
        &self,
        consumers: &'c Consumers,
        username: &str,
        password: &[u8],
    ) -> Result<Option<&'c Arc<Login>>, Busy> {
        // Made for every name, for the time it takes.
        let [a, b, c, d, e, f, g, h, ..] = self.mac(&[b"decoy", username.as_bytes()]);
        let decoy = consumers.any_login(u64::from_be_bytes([a, b, c, d, e, f, g, h]));
        let own = consumers.login(username);
        let Some(login) = own.or(decoy) else { return Ok(None) };
        if let Some(seal) = login.password.seal() {
            let right = is_same(seal, &self.mac(&[b"sealed", password]));
            return Ok(own.filter(|_| right));
        }
        let mark = self.mac(&[b"right", username.as_bytes(), login.password.fingerprint(), password]);
        if self.remembers(&mark, Instant::now()) {
            return Ok(own);
        }
        let right = Box::pin(self.check_slowly(login, own.is_some(), mark, password)).await?;
        Ok(own.filter(|_| right))
    }

    async fn check_slowly(
        &self,
        login: &Arc<Login>,
        own: bool,
        mark: Mark,
        password: &[u8],
    ) -> Result<bool, Busy> {
        let check = self.under_way(mark);
        let right = check.get_or_try_init(|| self.turn(login, password)).await.copied()?;
        if right && own {
            self.remember(mark, Instant::now());
        }
        self.under_way.lock().remove(&mark);
        Ok(right)
    }

    /// Waits for a turn and takes it. What has begun goes on to its end, whoever waits for it: the place is taken so long.
    async fn turn(&self, login: &Arc<Login>, password: &[u8]) -> Result<bool, Busy> {
        let place = Arc::clone(&self.places).try_acquire_owned().map_err(|_| Busy)?;
        let turn = Arc::clone(&self.turns).acquire_owned().await.map_err(|_| Busy)?;
        let held: [OwnedSemaphorePermit; 2] = [place, turn];
        let (login, password) = (Arc::clone(login), password.to_vec());
        let work = move || {
            let right = login.password.matches_slowly(&password);
            drop(held);
            right
        };
        tokio::task::spawn_blocking(work).await.map_err(|_| Busy)
    }

    /// The check under way of what this mark stands for.
    fn under_way(&self, mark: Mark) -> Arc<OnceCell<bool>> {
        let mut under_way = self.under_way.lock();
        if let Some(check) = under_way.get(&mark).and_then(Weak::upgrade) {
            return check;
        }
        if under_way.len() >= SWEEP {
            under_way.retain(|_, check| check.strong_count() > 0);
        }
        let check = Arc::default();
        under_way.insert(mark, Arc::downgrade(&check));
        check
    }

    fn remembers(&self, mark: &Mark, now: Instant) -> bool {
        self.shard(mark).lock().get(mark).is_some_and(|until| *until > now)
    }

    fn remember(&self, mark: Mark, now: Instant) {
        let mut right = self.shard(&mark).lock();
        if right.len() >= MOST_IN_SHARD {
            right.retain(|_, until| *until > now);
        }
        if right.len() >= MOST_IN_SHARD
            && let Some(first) = right.iter().min_by_key(|(_, until)| **until).map(|(mark, _)| *mark)
        {
            right.remove(&first);
        }
        right.insert(mark, now + REMEMBERED);
    }

    fn shard(&self, mark: &Mark) -> &Mutex<HashMap<Mark, Instant>> {
        &self.right[usize::from(mark[0]) % SHARDS]
    }

    /// The MAC over these parts, each with its length.
    fn mac(&self, parts: &[&[u8]]) -> Mark {
        let mut context = Context::with_key(&self.secret);
        for part in parts {
            context.update(&u64::try_from(part.len()).unwrap_or(u64::MAX).to_be_bytes());
            context.update(part);
        }
        let mut mark = [0; 32];
        mark.copy_from_slice(context.sign().as_ref());
        mark
    }
}

impl Default for Passwords {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::super::password::testing::argon2id;
    use super::super::{Builder, Consumer};
    use super::*;

    /// Logins by name and what their password has to match.
    fn consumers(logins: Vec<(&str, Password)>) -> Consumers {
        let mut builder = Builder::default();
        let consumer = Arc::new(Consumer::new("c", [""; 0]));
        builder.consumer(Arc::clone(&consumer));
        for (username, password) in logins {
            let consumer = Arc::clone(&consumer);
            builder.login(Login { username: username.into(), consumer, password, expires: None }).unwrap();
        }
        builder.build()
    }

    fn hashed(password: &str) -> Password {
        Password::of_hash(&argon2id(password)).unwrap()
    }

    #[tokio::test]
    async fn only_the_right_password_of_the_name_is_taken() {
        let passwords = Passwords::new();
        let bcrypt = Password::of_hash(&bcrypt::hash("three", 4).unwrap()).unwrap();
        let all = consumers(vec![("a", hashed("one")), ("b", passwords.seal("two")), ("c", bcrypt)]);
        for (username, password, right) in [
            ("a", "one", true),
            ("a", "two", false),
            ("b", "two", true),
            ("b", "one", false),
            ("c", "three", true),
            ("c", "", false),
            ("d", "one", false),
            ("d", "two", false),
            ("d", "three", false),
            ("", "", false),
        ] {
            // The second time from memory.
            for _ in 0..2 {
                let found = passwords.check(&all, username, password.as_bytes()).await.unwrap();
                assert_eq!(
                    found.map(|login| &*login.username),
                    right.then_some(username),
                    "{username} {password}"
                );
            }
        }
        assert_eq!(remembered(&passwords), 2, "what is right and was slow");
        assert_eq!(passwords.check(&Consumers::default(), "a", b"one").await.unwrap().map(|_| ()), None);
    }

    fn remembered(passwords: &Passwords) -> usize {
        passwords.right.iter().map(|shard| shard.lock().len()).sum()
    }

    #[tokio::test]
    async fn what_was_right_for_one_hash_is_not_for_the_next() {
        let passwords = Passwords::new();
        assert!(
            passwords.check(&consumers(vec![("a", hashed("one"))]), "a", b"one").await.unwrap().is_some()
        );
        let changed = consumers(vec![("a", hashed("another"))]);
        assert!(passwords.check(&changed, "a", b"one").await.unwrap().is_none());
        let gone = consumers(vec![("b", hashed("one"))]);
        assert!(passwords.check(&gone, "a", b"one").await.unwrap().is_none());
    }

    #[tokio::test]
    async fn more_than_may_wait_are_sent_away_and_the_same_question_waits_once() {
        let passwords = Arc::new(Passwords::bounded(1, 1));
        let all = Arc::new(consumers(vec![("a", hashed("one"))]));
        let turn = Arc::clone(&passwords.turns).acquire_owned().await.unwrap();
        let answers = Arc::new(AtomicUsize::new(0));
        let ask = |password: &'static str| {
            let (passwords, all, answers) = (Arc::clone(&passwords), Arc::clone(&all), Arc::clone(&answers));
            tokio::spawn(async move {
                let right =
                    passwords.check(&all, "a", password.as_bytes()).await.map(|found| found.is_some());
                answers.fetch_add(1, Ordering::Relaxed);
                right
            })
        };
        let same: Vec<_> = (0..10).map(|_| ask("one")).collect();
        let other = ask("two");
        while passwords.places.available_permits() > 0 {
            tokio::task::yield_now().await;
        }
        assert_eq!(ask("three").await.unwrap(), Err(Busy));
        assert_eq!(answers.load(Ordering::Relaxed), 1);
        drop(turn);
        for asked in same {
            assert_eq!(asked.await.unwrap(), Ok(true));
        }
        assert_eq!(other.await.unwrap(), Ok(false));
        assert_eq!(ask("three").await.unwrap(), Ok(false), "there is room again");
        assert!(passwords.under_way.lock().is_empty());
    }

    #[test]
    fn what_is_remembered_is_bounded_and_forgotten_in_time() {
        let passwords = Passwords::new();
        let now = Instant::now();
        let mark = |number: usize| passwords.mac(&[&number.to_be_bytes()]);
        for number in 0..MOST + MOST / 2 {
            passwords.remember(mark(number), now + Duration::from_millis(u64::try_from(number).unwrap()));
        }
        assert!(remembered(&passwords) <= MOST);
        let last = mark(MOST + MOST / 2 - 1);
        assert!(passwords.remembers(&last, now + REMEMBERED));
        assert!(!passwords.remembers(&mark(0), now));
        assert!(!passwords.remembers(&last, now + 2 * REMEMBERED));
    }

    #[test]
    fn parts_of_a_mac_do_not_run_together() {
        let passwords = Passwords::new();
        assert_ne!(passwords.mac(&[b"ab", b"c"]), passwords.mac(&[b"a", b"bc"]));
    }
}
