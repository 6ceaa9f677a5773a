//! Where accounts, certificates and keys are kept: in a folder, or in a store that machines share.

mod files;
mod shared;

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use aws_lc_rs::digest::{SHA256, digest};
use instant_acme::AccountCredentials;
use serde::{Deserialize, Serialize};

use super::error::Error;
use crate::stores::Redis;
use crate::tls::Certificate;

use files::Files;
pub(super) use shared::{Offer, Shared};

/// The place for what comes from one directory.
#[derive(Debug, Clone)]
pub enum Store {
    /// A folder.
    Files(Files),
    /// A part of a store that machines share.
    Shared(Shared),
}

/// Held by the one who orders. Given back when it is dropped, and when the process ends.
pub(super) enum Lock {
    Files(#[expect(dead_code, reason = "it is locked")] files::Lock),
    Shared(shared::Lease),
}

/// A certificate that was kept.
pub(super) struct Kept {
    pub(super) certificate: Arc<Certificate>,
    /// Key and chain in PEM, where the store is one that may forget.
    pub(super) text: Option<Arc<str>>,
}

/// What went wrong, kept.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Failed {
    /// How often in a row.
    pub(super) failures: u32,
    /// When to try again, in seconds since 1970.
    pub(super) retry_at: u64,
    /// What it was, the last time.
    pub(super) error: String,
}

impl Store {
    /// The place in a folder for what comes from the directory at `url`. Touches nothing.
    pub fn in_folder(root: &Path, url: &str) -> Self {
        Self::Files(Files::new(root, url))
    }

    /// The place in a store that machines share. Asks nobody.
    pub fn in_redis(redis: Arc<Redis>, url: &str) -> Self {
        Self::Shared(Shared::new(redis, &directory(url)))
    }

    /// Tells this place and these hosts from others.
    pub fn key(&self, hosts: &[Box<str>]) -> String {
        match self {
            Self::Files(files) => files.key(hosts),
            Self::Shared(shared) => shared.key(hosts),
        }
    }

    /// What machines share, when they do.
    pub(super) fn shared(&self) -> Option<&Shared> {
        match self {
            Self::Files(_) => None,
            Self::Shared(shared) => Some(shared),
        }
    }

    /// The certificate for these hosts, where that can be said without asking anybody.
    pub(super) fn at_hand(&self, hosts: &[Box<str>]) -> Option<Arc<Certificate>> {
        match self {
            Self::Files(files) => files.certificate(hosts),
            Self::Shared(_) => None,
        }
    }

    /// The certificate for these hosts, if it is there and any good.
    pub(super) async fn certificate(&self, hosts: &[Box<str>]) -> Result<Option<Kept>, Error> {
        match self {
            Self::Files(files) => {
                Ok(files.certificate(hosts).map(|certificate| Kept { certificate, text: None }))
            }
            Self::Shared(shared) => shared.certificate(hosts).await,
        }
    }

    /// Keeps a certificate with its key, both in PEM.
    pub(super) async fn keep_certificate(
        &self,
        hosts: &[Box<str>],
        key: &str,
        chain: &str,
        lock: &Lock,
    ) -> Result<(), Error> {
        match (self, lock) {
            (Self::Shared(shared), Lock::Shared(lease)) => {
                shared.keep_certificate(hosts, &format!("{key}{chain}"), lease).await
            }
            (Self::Files(files), _) => Ok(files.keep_certificate(hosts, key, chain)?),
            (Self::Shared(_), Lock::Files(_)) => Err(Error::Bug("the lock is another store's".into())),
        }
    }

    /// The account.
    pub(super) async fn account(&self) -> Result<Option<AccountCredentials>, Error> {
        match self {
            Self::Files(files) => Ok(files.account()?),
            Self::Shared(shared) => shared.account().await,
        }
    }

    pub(super) async fn keep_account(&self, account: &AccountCredentials, lock: &Lock) -> Result<(), Error> {
        match (self, lock) {
            (Self::Shared(shared), Lock::Shared(lease)) => shared.keep_account(account, lease).await,
            (Self::Files(files), _) => Ok(files.keep_account(account)?),
            (Self::Shared(_), Lock::Files(_)) => Err(Error::Bug("the lock is another store's".into())),
        }
    }

    /// Forgets the account, if it is still this one.
    pub(super) async fn forget_account(&self, id: &str) -> Result<(), Error> {
        match self {
            Self::Files(files) => Ok(files.forget_account(id)?),
            Self::Shared(shared) => shared.forget_account(id).await,
        }
    }

    /// What went wrong with these hosts, if something did.
    pub(super) async fn failed(&self, hosts: &[Box<str>]) -> Result<Option<Failed>, Error> {
        match self {
            Self::Files(files) => Ok(files.failed(hosts)),
            Self::Shared(shared) => shared.failed(hosts).await,
        }
    }

    pub(super) async fn keep_failed(
        &self,
        hosts: &[Box<str>],
        failed: Option<&Failed>,
        lock: &Lock,
    ) -> Result<(), Error> {
        match (self, lock) {
            (Self::Shared(shared), Lock::Shared(lease)) => shared.keep_failed(hosts, failed, lease).await,
            (Self::Files(files), _) => Ok(files.keep_failed(hosts, failed)?),
            (Self::Shared(_), Lock::Files(_)) => Err(Error::Bug("the lock is another store's".into())),
        }
    }

    /// The right to order for these hosts; `None` while another has it.
    pub(super) async fn lock(&self, hosts: &[Box<str>]) -> Result<Option<Lock>, Error> {
        match self {
            Self::Files(files) => Ok(files.lock(hosts)?.map(Lock::Files)),
            Self::Shared(shared) => Ok(shared.lock(hosts).await?.map(Lock::Shared)),
        }
    }

    /// The right to make the account; `None` while another has it.
    pub(super) async fn lock_account(&self) -> Result<Option<Lock>, Error> {
        match self {
            Self::Files(files) => Ok(files.lock_account()?.map(Lock::Files)),
            Self::Shared(shared) => Ok(shared.lock_account().await?.map(Lock::Shared)),
        }
    }
}

impl Failed {
    pub(super) fn retry_at(&self) -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_secs(self.retry_at)
    }
}

/// What the place of the directory at `url` is called.
fn directory(url: &str) -> String {
    let host = url.split("://").nth(1).and_then(|rest| rest.split(['/', ':']).next()).unwrap_or_default();
    format!("{}-{}", plain(host), short(url))
}

/// What is kept for these hosts, in order, is called.
fn name(hosts: &[Box<str>]) -> String {
    let first = hosts.first().map_or("", |host| host);
    let shown = plain(first.get(..64.min(first.len())).unwrap_or(first));
    format!("{shown}-{}", short(&hosts.join(",")))
}

fn plain(name: &str) -> String {
    let fit = |c: char| if c.is_ascii_alphanumeric() || matches!(c, '-' | '.') { c } else { '_' };
    name.chars().map(fit).collect()
}

fn short(text: &str) -> String {
    let digest = digest(&SHA256, text.as_bytes());
    digest.as_ref().iter().take(4).map(|byte| format!("{byte:02x}")).collect()
}
