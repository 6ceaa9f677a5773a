//! A folder on a disk.
//!
//! ```text
//! DIR/acme.example.com-1f2e3d4c/account.json
//!                               www.example.com-5a6b7c8d.pem      the key, then the chain
//!                               www.example.com-5a6b7c8d.failed   what went wrong, how often, when to try again
//!                               www.example.com-5a6b7c8d.lock     locked by whoever orders it
//! ```
//!
//! Folders are for the owner alone, and so are files. A file is written aside, brought to the disk and put in its place
//! whole; key and certificate are one file, so that they always fit.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use instant_acme::AccountCredentials;
use rustix::fs::{FlockOperation, flock};

use super::{Failed, directory, name};
use crate::tls::{Certificate, Chain, Key};

/// The folder of one directory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Files {
    folder: PathBuf,
}

/// Held by the one who orders. Given back when it is dropped, and when the process ends.
pub struct Lock(#[expect(dead_code, reason = "open, it is locked")] File);

impl Files {
    /// The place in `root` for what comes from the directory at `url`. Touches nothing.
    pub(super) fn new(root: &Path, url: &str) -> Self {
        Self { folder: root.join(directory(url)) }
    }

    /// Tells this place and these hosts from others.
    pub(super) fn key(&self, hosts: &[Box<str>]) -> String {
        self.path(&name(hosts)).display().to_string()
    }

    /// The certificate for these hosts, if it is there and any good.
    pub(super) fn certificate(&self, hosts: &[Box<str>]) -> Option<Arc<Certificate>> {
        let path = self.path(&format!("{}.pem", name(hosts)));
        if !path.exists() {
            return None;
        }
        let read = || Certificate::new(Chain::load(&path)?, Key::load(&path)?);
        let certificate = read().map(Arc::new).map_err(|error| log::warn!("acme: {error}")).ok()?;
        if let Some(missing) = hosts.iter().find(|host| !certificate.hosts.contains(host)) {
            log::warn!("acme: {}: it does not name {missing}", path.display());
            return None;
        }
        Some(certificate)
    }

    /// Keeps a certificate with its key, both in PEM.
    pub(super) fn keep_certificate(&self, hosts: &[Box<str>], key: &str, chain: &str) -> io::Result<()> {
        self.write(&format!("{}.pem", name(hosts)), format!("{key}{chain}").as_bytes())
    }

    /// The account.
    pub(super) fn account(&self) -> io::Result<Option<AccountCredentials>> {
        match fs::read(self.path(ACCOUNT)) {
            Ok(text) => serde_json::from_slice(&text).map(Some).map_err(io::Error::other),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    pub(super) fn keep_account(&self, account: &AccountCredentials) -> io::Result<()> {
        self.write(ACCOUNT, &serde_json::to_vec(account)?)
    }

    /// Forgets the account, if it is still this one.
    pub(super) fn forget_account(&self, id: &str) -> io::Result<()> {
        let kept: serde_json::Value = serde_json::from_slice(&fs::read(self.path(ACCOUNT))?)?;
        if kept["id"] == id { fs::remove_file(self.path(ACCOUNT)) } else { Ok(()) }
    }

    /// What went wrong with these hosts, if something did.
    pub(super) fn failed(&self, hosts: &[Box<str>]) -> Option<Failed> {
        serde_json::from_slice(&fs::read(self.path(&format!("{}.failed", name(hosts)))).ok()?).ok()
    }

    pub(super) fn keep_failed(&self, hosts: &[Box<str>], failed: Option<&Failed>) -> io::Result<()> {
        let file = format!("{}.failed", name(hosts));
        match failed {
            Some(failed) => self.write(&file, &serde_json::to_vec(failed)?),
            None => match fs::remove_file(self.path(&file)) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
                _ => Ok(()),
            },
        }
    }

    /// The right to order for these hosts; `None` while another has it.
    pub(super) fn lock(&self, hosts: &[Box<str>]) -> io::Result<Option<Lock>> {
        self.lock_file(&format!("{}.lock", name(hosts)))
    }

    /// The right to make the account; `None` while another has it.
    pub(super) fn lock_account(&self) -> io::Result<Option<Lock>> {
        self.lock_file("account.lock")
    }

    fn lock_file(&self, file: &str) -> io::Result<Option<Lock>> {
        self.make_folder()?;
        let path = self.path(file);
        let file = OpenOptions::new().create(true).truncate(false).write(true).mode(0o600).open(&path);
        let file = file.map_err(|error| named(&path, &error))?;
        match flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => Ok(Some(Lock(file))),
            Err(rustix::io::Errno::WOULDBLOCK) => Ok(None),
            Err(error) => Err(named(&path, &error.into())),
        }
    }

    /// Puts a file in its place, whole.
    fn write(&self, file: &str, bytes: &[u8]) -> io::Result<()> {
        self.make_folder()?;
        let path = self.path(file);
        let aside = self.path(&format!(".{file}.{}", std::process::id()));
        let write = || {
            let mut fresh =
                OpenOptions::new().create(true).truncate(true).write(true).mode(0o600).open(&aside)?;
            fresh.write_all(bytes)?;
            fresh.sync_all()?;
            fs::rename(&aside, &path)?;
            File::open(&self.folder)?.sync_all()
        };
        write().map_err(|error| named(&path, &error))
    }

    fn make_folder(&self) -> io::Result<()> {
        let made = fs::DirBuilder::new().recursive(true).mode(0o700).create(&self.folder);
        made.map_err(|error| named(&self.folder, &error))?;
        let data = fs::metadata(&self.folder)?;
        if data.permissions().mode() & 0o077 != 0 {
            let message = "others than its owner can get at it: `chmod 700` it";
            return Err(named(&self.folder, &io::Error::other(message)));
        }
        Ok(())
    }

    fn path(&self, file: &str) -> PathBuf {
        self.folder.join(file)
    }
}

const ACCOUNT: &str = "account.json";

fn named(path: &Path, error: &io::Error) -> io::Error {
    io::Error::new(error.kind(), format!("{}: {error}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hosts(names: &[&str]) -> Vec<Box<str>> {
        names.iter().map(|name| (*name).into()).collect()
    }

    #[test]
    fn what_is_kept_is_for_the_owner_alone_and_in_whole_files() {
        let root = tempfile::tempdir().unwrap();
        let store = Files::new(&root.path().join("acme"), "https://acme.test:14000/dir");
        let names = hosts(&["a.test", "b.test"]);
        let failed = Failed { failures: 2, retry_at: 7, error: "no".into() };
        store.keep_failed(&names, Some(&failed)).unwrap();
        assert_eq!(store.failed(&names), Some(failed));
        assert_eq!(store.failed(&hosts(&["a.test"])), None);
        let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!(mode(&store.folder), 0o700);
        let files: Vec<_> = fs::read_dir(&store.folder).unwrap().map(|file| file.unwrap().path()).collect();
        assert_eq!(files.len(), 1, "{files:?}");
        assert_eq!(mode(&files[0]), 0o600);
        store.keep_failed(&names, None).unwrap();
        store.keep_failed(&names, None).unwrap();
        assert_eq!(store.failed(&names), None);
    }

    #[test]
    fn one_at_a_time_has_the_lock() {
        let root = tempfile::tempdir().unwrap();
        let store = Files::new(root.path(), "https://acme.test/dir");
        let (a, b) = (hosts(&["a.test"]), hosts(&["b.test"]));
        let held = store.lock(&a).unwrap();
        assert!(held.is_some() && store.lock(&a).unwrap().is_none());
        assert!(store.lock(&b).unwrap().is_some());
        drop(held);
        assert!(store.lock(&a).unwrap().is_some());
    }

    #[test]
    fn a_folder_that_others_can_read_is_not_used() {
        let root = tempfile::tempdir().unwrap();
        let store = Files::new(root.path(), "https://acme.test/dir");
        fs::create_dir(&store.folder).unwrap();
        fs::set_permissions(&store.folder, fs::Permissions::from_mode(0o755)).unwrap();
        let error = store.lock_account().err().unwrap().to_string();
        assert!(error.contains("chmod 700"), "{error}");
    }
}
