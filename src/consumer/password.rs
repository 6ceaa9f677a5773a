//! Passwords as they are kept.

use std::sync::Arc;
use std::time::SystemTime;

use argon2::password_hash::PasswordVerifier;
use argon2::password_hash::phc::PasswordHash;
use argon2::{Argon2, Params};
use aws_lc_rs::constant_time::verify_slices_are_equal;

use super::Consumer;
use super::index::is_over;

/// What checking one password may take: memory, passes over it, and doublings of the work.
const MOST_MEMORY_KIB: u32 = 256 << 10;
const MOST_WORK_KIB: u64 = 1 << 20;
const MOST_COST: u32 = 15;
const LEAST_COST: u32 = 4;
/// bcrypt looks at so many bytes of a password and no more: with a longer one, whatever begins like it would match.
const MOST_BCRYPT: usize = 72;

/// A name that a client can come with, and what its password has to match.
#[derive(Debug)]
pub struct Login {
    /// The name.
    pub username: Box<str>,
    /// Whose it is.
    pub consumer: Arc<Consumer>,
    /// What the password has to match.
    pub password: Password,
    /// Until when that holds.
    pub expires: Option<SystemTime>,
}

impl Login {
    /// Whether its time is over.
    pub fn is_over(&self) -> bool {
        is_over(self.expires)
    }
}

/// A password as it is kept.
pub struct Password(Kept);

enum Kept {
    Argon2(Box<str>),
    Bcrypt(Box<str>),
    /// A MAC under the process's own key, of a password that the configuration has in the clear.
    Sealed([u8; 32]),
}

/// Why a hash cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidHash {
    /// It is of no kind that is known here.
    #[error("this is not a hash of Argon2id (`$argon2id$…`) or bcrypt (`$2b$…`)")]
    Kind,
    /// It is broken.
    #[error("this hash of {0} is broken")]
    Broken(&'static str),
    /// Checking it would take too long, or too much memory.
    #[error("checking this hash of {0} takes too much: at most {1}")]
    Costly(&'static str, &'static str),
}

impl Password {
    /// Reads a hash as tools print it.
    ///
    /// # Errors
    ///
    /// Why it cannot be used.
    pub fn of_hash(text: &str) -> Result<Self, InvalidHash> {
        if text.starts_with("$argon2id$") {
            return argon2id(text).map(|()| Self(Kept::Argon2(text.into())));
        }
        if ["$2a$", "$2b$", "$2y$"].iter().any(|version| text.starts_with(version)) {
            let parts: bcrypt::HashParts = text.parse().map_err(|_| InvalidHash::Broken("bcrypt"))?;
            return match parts.get_cost() {
                ..LEAST_COST => Err(InvalidHash::Broken("bcrypt")),
                LEAST_COST..=MOST_COST => Ok(Self(Kept::Bcrypt(text.into()))),
                _ => Err(InvalidHash::Costly("bcrypt", "cost 15")),
            };
        }
        Err(InvalidHash::Kind)
    }

    pub(super) fn sealed(mac: [u8; 32]) -> Self {
        Self(Kept::Sealed(mac))
    }

    /// The MAC that a password has to have, if that is how it is kept.
    pub(super) fn seal(&self) -> Option<&[u8; 32]> {
        match &self.0 {
            Kept::Sealed(mac) => Some(mac),
            _ => None,
        }
    }

    /// What changes whenever the password does.
    pub(super) fn fingerprint(&self) -> &[u8] {
        match &self.0 {
            Kept::Argon2(hash) | Kept::Bcrypt(hash) => hash.as_bytes(),
            Kept::Sealed(mac) => mac,
        }
    }

    /// Whether it is this one, by a hash that is slow on purpose.
    pub(super) fn matches_slowly(&self, password: &[u8]) -> bool {
        match &self.0 {
            Kept::Argon2(hash) => {
                let same = |hash| Argon2::default().verify_password(password, &hash).is_ok();
                PasswordHash::new(hash).is_ok_and(same)
            }
            Kept::Bcrypt(hash) => {
                // However long it is, it takes as long.
                let same = bcrypt::verify(password, hash).unwrap_or(false);
                same && password.len() <= MOST_BCRYPT
            }
            Kept::Sealed(_) => false,
        }
    }
}

/// Compares in a time that tells nothing.
pub(super) fn is_same(mac: &[u8; 32], other: &[u8; 32]) -> bool {
    verify_slices_are_equal(mac, other).is_ok()
}

/// Whether a hash can be used.
fn argon2id(text: &str) -> Result<(), InvalidHash> {
    const KIND: &str = "Argon2id";
    let hash = PasswordHash::new(text).map_err(|_| InvalidHash::Broken(KIND))?;
    let params = Params::try_from(&hash).map_err(|_| InvalidHash::Broken(KIND))?;
    if hash.salt.is_none() || hash.hash.is_none() || hash.version.is_some_and(|version| version != 19) {
        return Err(InvalidHash::Broken(KIND));
    }
    let work = u64::from(params.m_cost()) * u64::from(params.t_cost());
    match params.m_cost() <= MOST_MEMORY_KIB && work <= MOST_WORK_KIB {
        true => Ok(()),
        false => Err(InvalidHash::Costly(KIND, "256 MiB, and 1 GiB in all passes")),
    }
}

impl std::fmt::Debug for Password {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("***")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ARGON2ID: &str = "$argon2id$v=19$m=64,t=1,p=1$c29tZXNhbHRzb21l$";
    const BCRYPT: &str = "$2b$04$abcdefghijklmnopqrstuu";

    #[test]
    fn hashes_that_tools_print_are_taken_and_match() {
        let bcrypt = bcrypt::hash("s3cret-password", 4).unwrap();
        let y = bcrypt.replacen("$2b$", "$2y$", 1);
        for hash in [testing::argon2id("s3cret-password").as_str(), &bcrypt, &y] {
            let password = Password::of_hash(hash).unwrap();
            assert!(password.matches_slowly(b"s3cret-password"), "{hash}");
            assert!(!password.matches_slowly(b"s3cret-passwor"), "{hash}");
            assert!(!password.matches_slowly(b""), "{hash}");
            assert!(!format!("{password:?}").contains('$'));
        }
    }

    #[test]
    fn bcrypt_matches_no_more_than_it_looks_at() {
        let longest = "p".repeat(72);
        let password = Password::of_hash(&bcrypt::hash(&longest, 4).unwrap()).unwrap();
        assert!(password.matches_slowly(longest.as_bytes()));
        assert!(!password.matches_slowly(format!("{longest}q").as_bytes()));
        assert!(!password.matches_slowly(&longest.as_bytes()[..71]));
    }

    #[test]
    fn other_hashes_are_refused_with_why() {
        let whole = testing::argon2id("x");
        for (hash, why) in [
            ("", InvalidHash::Kind),
            ("hunter2", InvalidHash::Kind),
            ("$apr1$abc$def", InvalidHash::Kind),
            ("{SHA}abc", InvalidHash::Kind),
            ("$argon2i$v=19$m=64,t=1,p=1$c29tZXNhbHRzb21l$abc", InvalidHash::Kind),
            ("$argon2id$", InvalidHash::Broken("Argon2id")),
            (ARGON2ID, InvalidHash::Broken("Argon2id")),
            (&whole.replace("v=19", "v=16"), InvalidHash::Broken("Argon2id")),
            (&whole.replace("m=64", "m=1"), InvalidHash::Broken("Argon2id")),
            (
                &whole.replace("m=64", "m=1000000"),
                InvalidHash::Costly("Argon2id", "256 MiB, and 1 GiB in all passes"),
            ),
            (
                &whole.replace("t=1", "t=90000000"),
                InvalidHash::Costly("Argon2id", "256 MiB, and 1 GiB in all passes"),
            ),
            (BCRYPT, InvalidHash::Broken("bcrypt")),
            (&bcrypt::hash("x", 4).unwrap().replacen("$04$", "$03$", 1), InvalidHash::Broken("bcrypt")),
            (
                &bcrypt::hash("x", 4).unwrap().replacen("$04$", "$16$", 1),
                InvalidHash::Costly("bcrypt", "cost 15"),
            ),
        ] {
            assert_eq!(Password::of_hash(hash).err(), Some(why), "{hash}");
        }
    }
}

#[cfg(test)]
pub(super) mod testing {
    use argon2::password_hash::PasswordHasher;
    use argon2::{Algorithm, Argon2, Params, Version};

    /// A hash that is quick to try.
    pub(in super::super) fn argon2id(password: &str) -> String {
        let quick = Argon2::new(Algorithm::Argon2id, Version::V0x13, Params::new(64, 1, 1, None).unwrap());
        quick.hash_password_with_salt(password.as_bytes(), b"some salt of ours").unwrap().to_string()
    }
}
