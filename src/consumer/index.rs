//! The consumers of one configuration, found by what they prove.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::SystemTime;

use ahash::AHashMap;
use aws_lc_rs::constant_time::verify_slices_are_equal;
use aws_lc_rs::digest::{SHA256, digest};

use super::{Busy, Consumer, Login, Password, Passwords};

/// The longest key in bytes: more is not worth hashing.
pub const MOST_KEY: usize = 1024;

/// The SHA-256 of a key.
#[derive(Debug, Clone, Copy, Eq)]
pub struct Digest([u8; 32]);

impl Digest {
    /// That of a key.
    pub fn of(key: &[u8]) -> Self {
        let mut bytes = [0; 32];
        bytes.copy_from_slice(digest(&SHA256, key).as_ref());
        Self(bytes)
    }

    /// Reads 64 hexadecimal digits.
    pub fn from_hex(text: &str) -> Option<Self> {
        let digit = |byte: u8| char::from(byte).to_digit(16).and_then(|digit| u8::try_from(digit).ok());
        let (pairs, rest) = text.as_bytes().as_chunks::<2>();
        if pairs.len() != 32 || !rest.is_empty() {
            return None;
        }
        let mut bytes = [0; 32];
        for (byte, [high, low]) in bytes.iter_mut().zip(pairs) {
            *byte = digit(*high)? << 4 | digit(*low)?;
        }
        Some(Self(bytes))
    }
}

impl PartialEq for Digest {
    fn eq(&self, other: &Self) -> bool {
        verify_slices_are_equal(&self.0, &other.0).is_ok()
    }
}

impl std::hash::Hash for Digest {
    fn hash<H: std::hash::Hasher>(&self, state: &mut H) {
        state.write(&self.0);
    }
}

/// Every consumer, immutable.
#[derive(Default)]
pub struct Consumers {
    /// Whether some could not be read: that is told elsewhere.
    pub incomplete: bool,
    passwords: Arc<Passwords>,
    by_name: BTreeMap<Arc<str>, Entry>,
    keys: AHashMap<Digest, Key>,
    logins: AHashMap<Box<str>, Arc<Login>>,
    /// The logins in a certain order.
    listed: Box<[Arc<Login>]>,
}

/// A consumer, and what is known of its credentials.
#[derive(Debug)]
pub struct Entry {
    /// The consumer.
    pub consumer: Arc<Consumer>,
    /// Its keys.
    pub api_keys: Vec<Credential>,
    /// Its names with passwords.
    pub basic: Vec<Credential>,
}

/// What may be shown of a credential.
#[derive(Debug, Clone)]
pub struct Credential {
    /// What it is called, if anything.
    pub name: Option<Box<str>>,
    /// From when on it is refused.
    pub expires: Option<SystemTime>,
}

#[derive(Debug)]
struct Key {
    consumer: Arc<Consumer>,
    expires: Option<SystemTime>,
}

/// What became of the look for a key.
#[derive(Debug)]
pub enum Lookup<'c> {
    /// Whose it is.
    Of(&'c Arc<Consumer>),
    /// It was somebody's, once.
    Expired,
    /// It is nobody's.
    Unknown,
}

impl Consumers {
    /// Whose key it is.
    pub fn by_key(&self, key: &[u8]) -> Lookup<'_> {
        if key.len() > MOST_KEY {
            return Lookup::Unknown;
        }
        match self.keys.get(&Digest::of(key)) {
            Some(found) if is_over(found.expires) => Lookup::Expired,
            Some(found) => Lookup::Of(&found.consumer),
            None => Lookup::Unknown,
        }
    }

    /// Whose name and password these are.
    ///
    /// # Errors
    ///
    /// When checking them would have to wait too long.
    pub async fn by_password(&self, username: &str, password: &[u8]) -> Result<Option<&Arc<Login>>, Busy> {
        self.passwords.check(self, username, password).await
    }

    /// The login of a name.
    pub(super) fn login(&self, username: &str) -> Option<&Arc<Login>> {
        self.logins.get(username)
    }

    /// A login for a number, whatever it is: the same for the same.
    pub(super) fn any_login(&self, number: u64) -> Option<&Arc<Login>> {
        let count = u64::try_from(self.listed.len()).ok()?;
        self.listed.get(usize::try_from(number.checked_rem(count)?).ok()?)
    }

    /// The consumer of a name.
    pub fn named(&self, name: &str) -> Option<&Arc<Consumer>> {
        self.by_name.get(name).map(|entry| &entry.consumer)
    }

    /// All of them by name.
    pub fn entries(&self) -> impl ExactSizeIterator<Item = &Entry> {
        self.by_name.values()
    }
}

/// Whether that is past. The clock is read only where something ends.
pub(super) fn is_over(expires: Option<SystemTime>) -> bool {
    expires.is_some_and(|expires| expires <= SystemTime::now())
}

/// The index in the making.
#[derive(Default)]
pub struct Builder(Consumers);

impl Builder {
    /// An index whose passwords are checked by these.
    pub fn new(passwords: Arc<Passwords>) -> Self {
        Self(Consumers { passwords, ..Consumers::default() })
    }

    /// A password in the clear, as it is kept.
    pub fn seal(&self, password: &str) -> Password {
        self.0.passwords.seal(password)
    }

    /// Notes that some consumers could not be read.
    pub fn incomplete(&mut self, incomplete: bool) {
        self.0.incomplete = incomplete;
    }

    /// Adds a consumer; `false` when there is one of this name.
    pub fn consumer(&mut self, consumer: Arc<Consumer>) -> bool {
        let name = Arc::clone(&consumer.name);
        let new = !self.0.by_name.contains_key(&name);
        if new {
            self.0.by_name.insert(name, Entry { consumer, api_keys: Vec::new(), basic: Vec::new() });
        }
        new
    }

    /// Adds a key of a consumer.
    ///
    /// # Errors
    ///
    /// The name of who has it already.
    pub fn key(
        &mut self,
        consumer: &Arc<Consumer>,
        digest: Digest,
        credential: Credential,
    ) -> Result<(), Arc<str>> {
        if let Some(key) = self.0.keys.get(&digest) {
            return Err(Arc::clone(&key.consumer.name));
        }
        let expires = credential.expires;
        self.0.keys.insert(digest, Key { consumer: Arc::clone(consumer), expires });
        if let Some(entry) = self.0.by_name.get_mut(&consumer.name) {
            entry.api_keys.push(credential);
        }
        Ok(())
    }

    /// Adds a name and a password of a consumer.
    ///
    /// # Errors
    ///
    /// The name of the consumer who has this name already.
    pub fn login(&mut self, login: Login) -> Result<(), Arc<str>> {
        if let Some(login) = self.0.logins.get(&login.username) {
            return Err(Arc::clone(&login.consumer.name));
        }
        if let Some(entry) = self.0.by_name.get_mut(&login.consumer.name) {
            let name = Some(login.username.clone());
            entry.basic.push(Credential { name, expires: login.expires });
        }
        self.0.logins.insert(login.username.clone(), Arc::new(login));
        Ok(())
    }

    /// The index.
    pub fn build(mut self) -> Consumers {
        let mut listed: Vec<_> = self.0.logins.values().map(Arc::clone).collect();
        listed.sort_unstable_by(|a, b| a.username.cmp(&b.username));
        self.0.listed = listed.into();
        self.0
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn groupless(name: &str) -> Arc<Consumer> {
        Arc::new(Consumer::new(name, [""; 0]))
    }

    #[test]
    fn a_key_is_found_by_its_digest_until_it_expires() {
        let mut builder = Builder::default();
        let until = |expires| Credential { name: None, expires };
        let (a, b) = (groupless("a"), groupless("b"));
        assert!(builder.consumer(Arc::clone(&a)) && builder.consumer(Arc::clone(&b)));
        assert!(!builder.consumer(groupless("a")));
        let now = SystemTime::now();
        let hour = Duration::from_secs(3600);
        builder.key(&a, Digest::of(b"one"), until(None)).unwrap();
        builder.key(&a, Digest::of(b"two"), until(Some(now - hour))).unwrap();
        builder.key(&b, Digest::of(b"three"), until(Some(now + hour))).unwrap();
        assert_eq!(&*builder.key(&b, Digest::of(b"one"), until(None)).unwrap_err(), "a");
        let consumers = builder.build();
        assert!(matches!(consumers.by_key(b"one"), Lookup::Of(found) if Arc::ptr_eq(found, &a)));
        assert!(matches!(consumers.by_key(b"two"), Lookup::Expired));
        assert!(matches!(consumers.by_key(b"three"), Lookup::Of(found) if *found.name == *"b"));
        assert!(matches!(consumers.by_key(b"One"), Lookup::Unknown));
        assert!(matches!(consumers.by_key(&[b'x'; MOST_KEY + 1]), Lookup::Unknown));
        let entries: Vec<_> = consumers.entries().collect();
        assert_eq!(entries[0].api_keys.len(), 2);
        assert_eq!(entries[1].api_keys[0].expires, Some(now + hour));
    }

    #[test]
    fn a_digest_is_read_as_tools_print_it() {
        let hex = "2cf24dba5fb0a30e26e83b2ac5b9e29e1b161e5c1fa7425e73043362938b9824";
        assert_eq!(Digest::from_hex(hex), Some(Digest::of(b"hello")));
        assert_eq!(Digest::from_hex(&hex.to_uppercase()), Some(Digest::of(b"hello")));
        for bad in
            ["", "2cf2", &hex[1..], &format!("{hex}0"), &hex.replace('2', "g"), &hex.replacen("2c", "é", 1)]
        {
            assert_eq!(Digest::from_hex(bad), None, "{bad}");
        }
    }
}
