//! A part of a Redis server that machines share.
//!
//! ```text
//! portcullis:acme:{acme.example.com-1f2e3d4c}:account                     the account, in JSON
//!                                            :cert:www.example.com-5a6b7c8d      the key, then the chain
//!                                            :failed:www.example.com-5a6b7c8d    what went wrong, when to try again
//!                                            :lock:www.example.com-5a6b7c8d      who orders it
//!                                            :http:TOKEN                         answer to a question by HTTP
//!                                            :tls:www.example.com                answer to one in the handshake
//! ```
//!
//! Instead of `portcullis` they begin with the store's `prefix`.
//!
//! A lock is a lease: it ends by itself when its holder is gone. Whoever writes under one writes only while it is his,
//! which the server itself looks at: a holder that was asleep for too long overwrites nothing.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use instant_acme::AccountCredentials;
use redis::Cmd;
use tokio::task::JoinHandle;

use super::{Failed, Kept, name};
use crate::acme::error::Error;
use crate::stores::{self, Redis};
use crate::tls::{Certificate, Chain, Key};

/// How long a lock holds without word from its holder.
const LEASE: Duration = Duration::from_secs(30);
/// How long an answer to a directory is there at most, when nobody takes it back.
const OFFERED: Duration = Duration::from_secs(10 * 60);
/// What work in the background may take, however impatient clients are.
const PATIENCE: Duration = Duration::from_secs(1);

/// Whoever still has the lock writes (or removes, without a value).
const WRITE: &str = "if redis.call('get', KEYS[1]) ~= ARGV[1] then return 0 end \
                     if ARGV[2] then redis.call('set', KEYS[2], ARGV[2]) else redis.call('del', KEYS[2]) end \
                     return 1";
const EXTEND: &str = "if redis.call('get', KEYS[1]) == ARGV[1] then \
                      return redis.call('pexpire', KEYS[1], ARGV[2]) end return 0";
/// Removes what is still the same.
const REMOVE: &str =
    "if redis.call('get', KEYS[1]) == ARGV[1] then return redis.call('del', KEYS[1]) end return 0";

/// The keys of one directory.
#[derive(Debug, Clone)]
pub struct Shared {
    redis: Arc<Redis>,
    /// What all keys begin with. Its part in braces keeps them together in a cluster.
    prefix: Box<str>,
}

/// The right to order, for as long as this lives and the server hears of it.
pub struct Lease {
    entry: Entry,
    refreshing: JoinHandle<()>,
}

/// An answer that other machines can give for as long as this lives.
pub struct Offer(Entry);

/// A key with the value that is ours.
#[derive(Clone)]
struct Entry {
    shared: Shared,
    key: String,
    value: Vec<u8>,
}

impl Shared {
    pub(super) fn new(redis: Arc<Redis>, directory: &str) -> Self {
        let prefix = format!("{}:acme:{{{directory}}}:", redis.prefix()).into();
        Self { redis, prefix }
    }

    /// Waits until all that was let go is removed.
    pub(in crate::acme) async fn settled(&self) {
        self.redis.settled().await;
    }

    pub(super) fn key(&self, hosts: &[Box<str>]) -> String {
        format!("{} {}{}", self.redis.fingerprint(), self.prefix, name(hosts))
    }

    pub(super) async fn certificate(&self, hosts: &[Box<str>]) -> Result<Option<Kept>, Error> {
        let key = self.at("cert", &name(hosts));
        let Some(text) = self.get(&key).await? else { return Ok(None) };
        let place = format!("redis://{}/{key}", self.redis.place());
        let place = Path::new(&place);
        let read = || Certificate::new(Chain::read(&text, place)?, Key::read(&text, place)?);
        let certificate = read().map_err(|error| Error::Unusable(error.to_string()))?;
        if let Some(missing) = hosts.iter().find(|host| !certificate.hosts.contains(host)) {
            return Err(Error::Unusable(format!("{}: it does not name {missing}", place.display())));
        }
        let text = String::from_utf8(text).ok().map(Into::into);
        Ok(Some(Kept { certificate: Arc::new(certificate), text }))
    }

    pub(super) async fn keep_certificate(
        &self,
        hosts: &[Box<str>],
        text: &str,
        lease: &Lease,
    ) -> Result<(), Error> {
        self.write(lease, &self.at("cert", &name(hosts)), Some(text.as_bytes())).await
    }

    /// Puts a certificate back that the server has forgotten, unless there is another by now.
    pub(in crate::acme) async fn put_back(&self, hosts: &[Box<str>], text: &str) -> Result<(), Error> {
        let mut command = redis::cmd("SET");
        command.arg(self.at("cert", &name(hosts))).arg(text).arg("NX");
        let _: Option<String> = self.ask(&command).await?;
        Ok(())
    }

    pub(super) async fn account(&self) -> Result<Option<AccountCredentials>, Error> {
        let Some(text) = self.get(&self.at("account", "")).await? else { return Ok(None) };
        serde_json::from_slice(&text).map(Some).map_err(|error| Error::Store(error.into()))
    }

    pub(super) async fn keep_account(
        &self,
        account: &AccountCredentials,
        lease: &Lease,
    ) -> Result<(), Error> {
        let text = serde_json::to_vec(account).map_err(|error| Error::Store(error.into()))?;
        self.write(lease, &self.at("account", ""), Some(&text)).await
    }

    pub(super) async fn forget_account(&self, id: &str) -> Result<(), Error> {
        let key = self.at("account", "");
        let Some(value) = self.get(&key).await? else { return Ok(()) };
        let kept: serde_json::Value = serde_json::from_slice(&value).unwrap_or_default();
        if kept["id"] == id {
            Entry { shared: self.clone(), key, value }.remove().await?;
        }
        Ok(())
    }

    pub(super) async fn failed(&self, hosts: &[Box<str>]) -> Result<Option<Failed>, Error> {
        let text = self.get(&self.at("failed", &name(hosts))).await?;
        Ok(text.and_then(|text| serde_json::from_slice(&text).ok()))
    }

    pub(super) async fn keep_failed(
        &self,
        hosts: &[Box<str>],
        failed: Option<&Failed>,
        lease: &Lease,
    ) -> Result<(), Error> {
        let text = failed.map(serde_json::to_vec).transpose().map_err(|error| Error::Store(error.into()))?;
        self.write(lease, &self.at("failed", &name(hosts)), text.as_deref()).await
    }

    pub(super) async fn lock(&self, hosts: &[Box<str>]) -> Result<Option<Lease>, Error> {
        self.lease(&name(hosts)).await
    }

    pub(super) async fn lock_account(&self) -> Result<Option<Lease>, Error> {
        self.lease("account").await
    }

    async fn lease(&self, what: &str) -> Result<Option<Lease>, Error> {
        let value = uuid::Uuid::new_v4().simple().to_string().into_bytes();
        let entry = Entry { shared: self.clone(), key: self.at("lock", what), value };
        // Released even where the answer is lost on its way: by then it may be ours.
        let mut releasing = Releasing(Some(entry.clone()));
        let mut command = redis::cmd("SET");
        command.arg(&entry.key).arg(&entry.value).arg("NX").arg("PX").arg(millis(LEASE));
        let taken: Option<String> = self.ask(&command).await?;
        releasing.0 = None;
        Ok(taken.map(|_| Lease { refreshing: tokio::spawn(entry.clone().refresh()), entry }))
    }

    /// Has other machines answer over HTTP until the offer is dropped.
    pub(in crate::acme) async fn offer_http(&self, token: &str, authorization: &str) -> Result<Offer, Error> {
        self.offer(self.at("http", token), authorization.as_bytes()).await
    }

    /// Has other machines answer in the handshake until the offer is dropped.
    pub(in crate::acme) async fn offer_tls(&self, host: &str, digest: &[u8]) -> Result<Offer, Error> {
        self.offer(self.at("tls", host), digest).await
    }

    async fn offer(&self, key: String, value: &[u8]) -> Result<Offer, Error> {
        let offer = Offer(Entry { shared: self.clone(), key, value: value.to_owned() });
        let mut command = redis::cmd("SET");
        command.arg(&offer.0.key).arg(value).arg("PX").arg(millis(OFFERED));
        let _: String = self.ask(&command).await?;
        Ok(offer)
    }

    /// The key authorization for a token that another machine has offered. A stranger waits for it.
    pub(in crate::acme) async fn http(&self, token: &str) -> Result<Option<Vec<u8>>, stores::Error> {
        self.redis.ask(redis::cmd("GET").arg(self.at("http", token))).await
    }

    /// The digest of the key authorization for a host that another machine has offered. A stranger waits for it.
    pub(in crate::acme) async fn tls(&self, host: &str) -> Result<Option<Vec<u8>>, stores::Error> {
        self.redis.ask(redis::cmd("GET").arg(self.at("tls", host))).await
    }

    /// Writes, or removes, while the lease is ours.
    async fn write(&self, lease: &Lease, key: &str, value: Option<&[u8]>) -> Result<(), Error> {
        let mut command = redis::cmd("EVAL");
        command.arg(WRITE).arg(2).arg(&lease.entry.key).arg(key).arg(&lease.entry.value).arg(value);
        let written: u32 = self.ask(&command).await?;
        if written == 1 { Ok(()) } else { Err(Error::LostLock) }
    }

    async fn get(&self, key: &str) -> Result<Option<Vec<u8>>, Error> {
        self.ask(redis::cmd("GET").arg(key)).await
    }

    async fn ask<T: redis::FromRedisValue>(&self, command: &Cmd) -> Result<T, Error> {
        Ok(self.redis.ask_within(command, self.redis.timeout().max(PATIENCE)).await?)
    }

    fn at(&self, what: &str, whose: &str) -> String {
        let colon = if whose.is_empty() { "" } else { ":" };
        format!("{}{what}{colon}{whose}", self.prefix)
    }
}

impl Entry {
    /// Keeps a lock for as long as it is ours.
    async fn refresh(self) {
        loop {
            tokio::time::sleep(LEASE / 3).await;
            let mut command = redis::cmd("EVAL");
            command.arg(EXTEND).arg(1).arg(&self.key).arg(&self.value).arg(millis(LEASE));
            match self.shared.ask::<u32>(&command).await {
                Ok(1) => {}
                Ok(_) => return log::warn!("acme: {} is not ours any more", self.key),
                // Until it has run out there is time to try again.
                Err(error) => log::warn!("acme: {} is not kept: {error}", self.key),
            }
        }
    }

    async fn remove(&self) -> Result<(), Error> {
        let mut command = redis::cmd("EVAL");
        command.arg(REMOVE).arg(1).arg(&self.key).arg(&self.value);
        let _: u32 = self.shared.ask(&command).await?;
        Ok(())
    }

    /// Removes it without anyone waiting for that; what cannot be removed ends by itself.
    fn let_go(&self) {
        let entry = self.clone();
        self.shared.redis.aside(async move {
            if let Err(error) = entry.remove().await {
                log::debug!("acme: {} is left to run out: {error}", entry.key);
            }
        });
    }
}

/// A lock that is being asked for.
struct Releasing(Option<Entry>);

impl Drop for Releasing {
    fn drop(&mut self) {
        if let Some(entry) = &self.0 {
            entry.let_go();
        }
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        self.refreshing.abort();
        self.entry.let_go();
    }
}

impl Drop for Offer {
    fn drop(&mut self) {
        self.0.let_go();
    }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
