//! Sticky sessions: a client comes back to the endpoint that it was sent to first, by a cookie.
//!
//! 1. The cookie's value is base64url of a tag of 8 bytes and a signature of 16.
//! 2. The tag stands for the endpoint's address and is made with the key: it tells nothing of the address, and it is the
//!    same in every gateway with the key.
//! 3. What is not signed with the key is taken for no cookie. What is signed but of an endpoint that is gone finds nobody.
//! 4. Both are HMAC-SHA256, cut; a client's guess is compared in constant time.

use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;

use aws_lc_rs::constant_time::verify_slices_are_equal;
use aws_lc_rs::hmac::{Context, HMAC_SHA256, Key};
use aws_lc_rs::{digest, rand};
use base64::Engine;
use base64::prelude::BASE64_URL_SAFE_NO_PAD as BASE64;

use super::{Endpoint, EndpointId};

/// How an upstream's sessions stick.
#[derive(Debug)]
pub struct Sticky {
    name: String,
    key: Arc<StickyKey>,
}

/// What cookies are signed with. It prints as nothing.
pub struct StickyKey {
    key: Key,
    /// What it was made of, where that is not a secret.
    bytes: Option<[u8; 32]>,
}

/// What each message begins with, so that no tag is ever a signature.
const OF_TAGS: &[u8] = b"portcullis sticky tag\0";
const OF_SIGNATURES: &[u8] = b"portcullis sticky signature\0";

const TAG: usize = 8;
const SIGNATURE: usize = 16;
/// Of the value: base64 makes 4 letters of 3 bytes.
const LETTERS: usize = (TAG + SIGNATURE) / 3 * 4;

impl Sticky {
    /// A cookie of this name, which is to be a token, signed with this key.
    pub fn new(name: impl Into<String>, key: Arc<StickyKey>) -> Self {
        Self { name: name.into(), key }
    }

    /// The cookie's name.
    pub fn name(&self) -> &str {
        &self.name
    }

    pub(super) fn key(&self) -> &StickyKey {
        &self.key
    }

    /// The value that leads to an endpoint.
    pub fn mint(&self, endpoint: SocketAddr) -> String {
        let tag = self.tag(endpoint).to_be_bytes();
        let mut value = [0; TAG + SIGNATURE];
        value[..TAG].copy_from_slice(&tag);
        value[TAG..].copy_from_slice(&self.sign(tag));
        BASE64.encode(value)
    }

    /// The `Set-Cookie` field that leads to an endpoint, for as long as the browser runs (RFC 6265, section 4.1).
    /// `secure` keeps it from being sent in the clear.
    pub fn set_cookie(&self, endpoint: SocketAddr, secure: bool) -> String {
        let secure = if secure { "; Secure" } else { "" };
        format!("{}={}; Path=/; HttpOnly; SameSite=Lax{secure}", self.name, self.mint(endpoint))
    }

    /// The tag in a cookie's value; `None` when it was not minted with this key.
    pub fn read(&self, value: &str) -> Option<u64> {
        if value.len() != LETTERS {
            return None;
        }
        let mut bytes = [0; TAG + SIGNATURE];
        BASE64.decode_slice(value, &mut bytes).ok()?;
        let (tag, signature) = bytes.split_first_chunk::<TAG>()?;
        verify_slices_are_equal(&self.sign(*tag), signature).ok()?;
        Some(u64::from_be_bytes(*tag))
    }

    /// The tag of an endpoint.
    pub fn tag(&self, endpoint: SocketAddr) -> u64 {
        u64::from_be_bytes(self.hmac(OF_TAGS, endpoint.to_string().as_bytes()))
    }

    fn sign(&self, tag: [u8; TAG]) -> [u8; SIGNATURE] {
        self.hmac(OF_SIGNATURES, &tag)
    }

    /// The first bytes of an HMAC.
    fn hmac<const N: usize>(&self, purpose: &[u8], message: &[u8]) -> [u8; N] {
        let mut context = Context::with_key(&self.key.key);
        context.update(purpose);
        context.update(message);
        context.sign().as_ref().first_chunk().copied().unwrap_or([0; N])
    }
}

impl StickyKey {
    /// The key under which the state keeps that of an upstream.
    pub fn key(upstream: &str) -> String {
        format!("sticky {upstream}")
    }

    /// The key of these bytes.
    pub fn new(bytes: &[u8; 32]) -> Self {
        Self { key: Key::new(HMAC_SHA256, bytes), bytes: Some(*bytes) }
    }

    /// The key of a secret of any length (its SHA-256): the same in every gateway that has the secret.
    pub fn of_secret(secret: &str) -> Self {
        let digest = digest::digest(&digest::SHA256, secret.as_bytes());
        Self { key: Key::new(HMAC_SHA256, digest.as_ref()), bytes: None }
    }

    /// A new key; `None` when the system has no random bytes.
    pub fn random() -> Option<Self> {
        let mut bytes = [0; 32];
        rand::fill(&mut bytes).ok()?;
        Some(Self::new(&bytes))
    }

    /// What it was made of, to be handed over; `None` where a secret says so, which whoever comes next has, too.
    pub(super) fn bytes(&self) -> Option<[u8; 32]> {
        self.bytes
    }
}

impl fmt::Debug for StickyKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

/// The endpoints of a set by their tags.
#[derive(Debug, Default)]
pub(super) struct Tags(Box<[(u64, EndpointId)]>);

impl Tags {
    pub(super) fn new<'a>(sticky: &Sticky, endpoints: impl Iterator<Item = &'a Endpoint>) -> Self {
        let mut tags: Vec<_> =
            endpoints.map(|endpoint| (sticky.tag(endpoint.address()), endpoint.id())).collect();
        tags.sort_unstable_by_key(|(tag, _)| *tag);
        Self(tags.into())
    }

    pub(super) fn get(&self, tag: u64) -> Option<EndpointId> {
        let at = self.0.binary_search_by_key(&tag, |(tag, _)| *tag).ok()?;
        self.0.get(at).map(|(_, id)| *id)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn address(port: u16) -> SocketAddr {
        ([10, 0, 0, 1], port).into()
    }

    fn signed_with(key: u8) -> Sticky {
        Sticky::new("lb", Arc::new(StickyKey::new(&[key; 32])))
    }

    #[test]
    fn a_cookie_leads_back() {
        let sticky = signed_with(7);
        let value = sticky.mint(address(80));
        assert_eq!(value.len(), LETTERS);
        assert_eq!(sticky.read(&value), Some(sticky.tag(address(80))));
        assert_ne!(sticky.tag(address(80)), sticky.tag(address(81)));
        let other = signed_with(8);
        assert_eq!(other.read(&value), None, "another key");
        assert_ne!(
            other.tag(address(80)),
            sticky.tag(address(80)),
            "an address cannot be looked up by its tag"
        );
    }

    #[test]
    fn the_field_says_how_it_is_kept() {
        let field = signed_with(7).set_cookie(address(80), true);
        let (cookie, attributes) = field.split_once("; ").unwrap();
        assert_eq!(cookie, format!("lb={}", signed_with(7).mint(address(80))));
        assert_eq!(attributes, "Path=/; HttpOnly; SameSite=Lax; Secure");
        assert!(!signed_with(7).set_cookie(address(80), false).contains("Secure"));
    }

    #[test]
    fn the_key_is_not_shown() {
        assert!(!format!("{:?}", signed_with(7)).contains("7, 7"));
    }

    /// Every gateway with the key reads every other's cookies, of any version.
    #[test]
    fn a_value_is_for_ever() {
        assert_eq!(signed_with(7).mint(address(80)), "ZiqJzdY97PRVfaLjSW_mtykiK6KsuJAI");
        let of_secret = Sticky::new("lb", Arc::new(StickyKey::of_secret("a secret of the fleet")));
        assert_eq!(of_secret.mint(address(80)), "C3ZWEZSixa3EB8CxMrdF5xnHiQpIZyro");
    }

    proptest! {
        #[test]
        fn whatever_is_changed_is_refused(bit in 0..(TAG + SIGNATURE) * 8) {
            let sticky = signed_with(7);
            let mut bytes = BASE64.decode(sticky.mint(address(80))).unwrap();
            bytes[bit / 8] ^= 1 << (bit % 8);
            prop_assert_eq!(sticky.read(&BASE64.encode(bytes)), None);
        }

        #[test]
        fn whatever_is_sent_is_no_panic(value in any::<String>(), letters in "[A-Za-z0-9_=+/-]{30,34}") {
            let sticky = signed_with(7);
            prop_assert_eq!(sticky.read(&value), None);
            prop_assert_eq!(sticky.read(&letters), None);
        }
    }
}
