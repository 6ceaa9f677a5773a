//! Tickets with which clients resume their sessions (RFC 8446, section 2.2; RFC 5077), and the keys that seal them.
//!
//! 1. A key seals for [`ROTATION`], and opens for as long again. A ticket lives no longer than its key.
//! 2. A ticket is bound to the policy under which it was made: under another it is as good as none, and the client
//!    shows its certificate anew.
//! 3. Keys live in the state, so that they outlive reloads, and are handed to the new process at an upgrade. They are
//!    never written to a disk.

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use arc_swap::ArcSwap;
use aws_lc_rs::aead::{AES_256_GCM_SIV, Aad, NONCE_LEN, Nonce, RandomizedNonceKey};
use aws_lc_rs::rand;
use parking_lot::Mutex;
use rustls::server::ProducesTickets;
use serde::{Deserialize, Serialize};

/// How long a key seals.
const ROTATION: Duration = Duration::from_secs(4 * 60 * 60);
/// The length of a key's name, which tells it from others.
const NAME: usize = 16;

/// A key as it is handed over. It prints as nothing.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TicketKey {
    name: [u8; NAME],
    secret: [u8; 32],
    /// Seconds since 1970.
    made: u64,
}

/// The keys of one listener's tickets.
pub struct Tickets {
    ring: ArcSwap<Ring>,
    rotation: Mutex<()>,
}

/// The key that seals, if there is one, and the one before it.
#[derive(Default)]
struct Ring {
    keys: Vec<Arc<SealingKey>>,
}

struct SealingKey {
    words: TicketKey,
    aead: RandomizedNonceKey,
}

impl Tickets {
    /// The key under which the state keeps the tickets of a listener.
    pub fn key(listener: &str) -> String {
        format!("tickets of {listener}")
    }

    /// With a key of its own.
    pub fn fresh() -> Self {
        Self::inherited(&[])
    }

    /// With the keys of an older process, the youngest first.
    pub fn inherited(keys: &[TicketKey]) -> Self {
        let keys = keys.iter().filter_map(|words| SealingKey::new(words.clone())).map(Arc::new).collect();
        let tickets = Self { ring: ArcSwap::from_pointee(Ring { keys }), rotation: Mutex::new(()) };
        tickets.rotate(seconds(SystemTime::now()));
        tickets
    }

    /// The keys, to be handed over, the youngest first.
    pub fn keys(&self) -> Vec<TicketKey> {
        self.ring.load().keys.iter().map(|key| key.words.clone()).collect()
    }

    /// What makes tickets under one policy.
    pub(super) fn under(self: &Arc<Self>, policy: [u8; 32]) -> Arc<dyn ProducesTickets> {
        Arc::new(Bound { tickets: Arc::clone(self), policy })
    }

    /// Makes a new key when the youngest is too old to seal, and forgets those that are too old to open.
    fn rotate(&self, now: u64) {
        let is_due = || !self.ring.load().keys.first().is_some_and(|key| key.seals(now));
        if !is_due() {
            return;
        }
        let _one_at_a_time = self.rotation.lock();
        if !is_due() {
            return;
        }
        let old = self.ring.load();
        let keys = SealingKey::generate(now).map(Arc::new).into_iter();
        let keys = keys.chain(old.keys.iter().filter(|key| key.opens(now)).take(2).cloned());
        self.ring.store(Arc::new(Ring { keys: keys.collect() }));
    }

    fn seal(&self, plain: &[u8], policy: &[u8; 32], now: u64) -> Option<Vec<u8>> {
        self.rotate(now);
        let ring = self.ring.load();
        let key = ring.keys.first().filter(|key| key.seals(now))?;
        let mut sealed = plain.to_vec();
        let nonce = key.aead.seal_in_place_append_tag(key.bound_to(policy), &mut sealed).ok()?;
        Some([&key.words.name[..], nonce.as_ref(), &sealed].concat())
    }

    fn open(&self, ticket: &[u8], policy: &[u8; 32], now: u64) -> Option<Vec<u8>> {
        let (name, rest) = ticket.split_at_checked(NAME)?;
        let (nonce, sealed) = rest.split_at_checked(NONCE_LEN)?;
        let ring = self.ring.load();
        let key = ring.keys.iter().find(|key| key.words.name == name && key.opens(now))?;
        let nonce = Nonce::try_assume_unique_for_key(nonce).ok()?;
        let mut opened = sealed.to_vec();
        let length = key.aead.open_in_place(nonce, key.bound_to(policy), &mut opened).ok()?.len();
        opened.truncate(length);
        Some(opened)
    }
}

impl SealingKey {
    /// `None` when the system has no random bytes: then there are no tickets.
    fn generate(made: u64) -> Option<Self> {
        let (mut name, mut secret) = ([0; NAME], [0; 32]);
        rand::fill(&mut name).ok()?;
        rand::fill(&mut secret).ok()?;
        Self::new(TicketKey { name, secret, made })
    }

    fn new(words: TicketKey) -> Option<Self> {
        let aead = RandomizedNonceKey::new(&AES_256_GCM_SIV, &words.secret).ok()?;
        Some(Self { words, aead })
    }

    fn seals(&self, now: u64) -> bool {
        now.saturating_sub(self.words.made) < ROTATION.as_secs()
    }

    fn opens(&self, now: u64) -> bool {
        now.saturating_sub(self.words.made) < 2 * ROTATION.as_secs()
    }

    fn bound_to(&self, policy: &[u8; 32]) -> Aad<[u8; NAME + 32]> {
        let mut bound = [0; NAME + 32];
        bound[..NAME].copy_from_slice(&self.words.name);
        bound[NAME..].copy_from_slice(policy);
        Aad::from(bound)
    }
}

impl fmt::Debug for Tickets {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tickets").finish_non_exhaustive()
    }
}

impl fmt::Debug for TicketKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

/// Makes tickets that open under one policy only.
#[derive(Debug)]
struct Bound {
    tickets: Arc<Tickets>,
    policy: [u8; 32],
}

impl ProducesTickets for Bound {
    fn enabled(&self) -> bool {
        true
    }

    /// Every ticket opens for at least so long.
    fn lifetime(&self) -> u32 {
        u32::try_from(ROTATION.as_secs()).unwrap_or(u32::MAX)
    }

    fn encrypt(&self, plain: &[u8]) -> Option<Vec<u8>> {
        self.tickets.seal(plain, &self.policy, seconds(SystemTime::now()))
    }

    fn decrypt(&self, ticket: &[u8]) -> Option<Vec<u8>> {
        self.tickets.open(ticket, &self.policy, seconds(SystemTime::now()))
    }
}

fn seconds(time: SystemTime) -> u64 {
    time.duration_since(SystemTime::UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

#[cfg(test)]
mod tests {
    use super::*;

    const HERE: [u8; 32] = [1; 32];
    const THERE: [u8; 32] = [2; 32];

    #[test]
    fn a_ticket_opens_under_its_own_policy_alone() {
        let tickets = Tickets::fresh();
        let now = seconds(SystemTime::now());
        let ticket = tickets.seal(b"a session", &HERE, now).unwrap();
        assert_eq!(tickets.open(&ticket, &HERE, now).unwrap(), b"a session");
        assert_eq!(tickets.open(&ticket, &THERE, now), None);
        assert_eq!(Tickets::fresh().open(&ticket, &HERE, now), None, "another's keys");
        for end in 0..ticket.len() {
            assert_eq!(tickets.open(&ticket[..end], &HERE, now), None, "cut at {end}");
        }
        for at in 0..ticket.len() {
            let mut bent = ticket.clone();
            bent[at] ^= 1;
            assert_eq!(tickets.open(&bent, &HERE, now), None, "bent at {at}");
        }
    }

    #[test]
    fn keys_rotate_and_the_last_one_still_opens() {
        let tickets = Tickets::fresh();
        let now = seconds(SystemTime::now());
        let rotation = ROTATION.as_secs();
        let first = tickets.seal(b"1", &HERE, now).unwrap();
        let second = tickets.seal(b"2", &HERE, now + rotation).unwrap();
        assert_ne!(first[..NAME], second[..NAME]);
        assert_eq!(tickets.open(&first, &HERE, now + rotation).unwrap(), b"1");
        assert_eq!(tickets.open(&first, &HERE, now + 2 * rotation), None);
        assert_eq!(tickets.open(&second, &HERE, now + 2 * rotation).unwrap(), b"2");
        tickets.seal(b"3", &HERE, now + 2 * rotation).unwrap();
        assert_eq!(tickets.keys().len(), 2, "what opens no more is forgotten");
    }

    #[test]
    fn a_new_process_opens_what_the_old_one_sealed() {
        let old = Tickets::fresh();
        let now = seconds(SystemTime::now());
        let ticket = old.seal(b"a session", &HERE, now).unwrap();
        let words = serde_json::to_vec(&old.keys()).unwrap();
        let keys: Vec<TicketKey> = serde_json::from_slice(&words).unwrap();
        let new = Tickets::inherited(&keys);
        assert_eq!(new.open(&ticket, &HERE, now).unwrap(), b"a session");
        assert_eq!(new.keys(), old.keys());
        assert_eq!(format!("{old:?} {:?}", old.keys()), "Tickets { .. } [***]");
    }
}
