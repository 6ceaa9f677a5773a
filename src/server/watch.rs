//! Reloads when the configuration's files change.
//!
//! 1. Directories are watched, not files: editors and Kubernetes put a new file in the old one's place, the latter
//!    by swapping a link in the directory where the file was named.
//! 2. What counts is whether a configuration file differs in name, time, size or inode from when it was read: a log
//!    that is written in the same directory is no change.
//! 3. After each reload the files that are named then are watched, where they are then.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::sync::{Arc, Weak};
use std::time::Duration;

use notify::{RecommendedWatcher, RecursiveMode, Watcher};
use parking_lot::Mutex;

use super::Reloader;

/// Changes that come closer together than this are one.
const SETTLE: Duration = Duration::from_millis(100);

/// Watches while it lives.
pub(super) struct Watch {
    _watcher: Arc<Mutex<RecommendedWatcher>>,
}

/// The files of a configuration as they were when it was read.
pub(super) struct Seen {
    folders: BTreeSet<PathBuf>,
    stamps: Stamps,
}

/// What tells one state of a file from another: its time, size and inode.
type Stamp = (i64, i64, u64, u64);
type Stamps = BTreeMap<PathBuf, Option<Stamp>>;

impl Seen {
    /// Notes the state of `files`. That of the first one was noted `before` it was read: what is written to it in the
    /// meantime is a change.
    pub(super) fn new(files: &[PathBuf], before: Option<Stamp>) -> Self {
        let folders = folders(files);
        let mut stamps = stamps(files, &folders);
        if let Some(first) = files.first() {
            stamps.insert(first.clone(), before);
        }
        Self { folders, stamps }
    }
}

/// Starts watching the files of the configuration, if it has any.
pub(super) fn start(seen: Seen, reloader: &Arc<Reloader>) -> Option<Watch> {
    if seen.stamps.is_empty() {
        return None;
    }
    let (sender, changes) = channel();
    let started = notify::recommended_watcher(move |event: notify::Result<notify::Event>| {
        if event.is_ok_and(|event| !event.kind.is_access()) {
            // Nobody listens any more when the gateway ends.
            let _ = sender.send(());
        }
    })
    .and_then(|mut watcher| {
        seen.folders.iter().try_for_each(|folder| watcher.watch(folder, RecursiveMode::NonRecursive))?;
        Ok(watcher)
    });
    let unwatched = |error: &dyn std::fmt::Display| log::warn!("changed files will not be noticed: {error}");
    let watcher = started.map_err(|error| unwatched(&error)).ok()?;
    let watcher = Arc::new(Mutex::new(watcher));
    let follower = Follower { seen, watcher: Arc::downgrade(&watcher), reloader: Arc::clone(reloader) };
    let spawned = std::thread::Builder::new().name("watch".into()).spawn(move || follower.follow(&changes));
    spawned.map_err(|error| unwatched(&error)).ok()?;
    Some(Watch { _watcher: watcher })
}

/// Where the files are named, and where they are.
fn folders(files: &[PathBuf]) -> BTreeSet<PathBuf> {
    let named = files.iter().filter_map(|file| Some(std::path::absolute(file).ok()?.parent()?.to_owned()));
    let real = files.iter().filter_map(|file| Some(file.canonicalize().ok()?.parent()?.to_owned()));
    named.chain(real).collect()
}

fn stamps(files: &[PathBuf], folders: &BTreeSet<PathBuf>) -> Stamps {
    let listed = folders.iter().filter_map(|folder| fs::read_dir(folder).ok()).flatten();
    let listed = listed.filter_map(|entry| Some(entry.ok()?.path()));
    let configs = listed.filter(|path| is_config(path));
    files
        .iter()
        .cloned()
        .chain(configs)
        .map(|path| (stamp(&path), path))
        .map(|(stamp, path)| (path, stamp))
        .collect()
}

fn is_config(path: &Path) -> bool {
    path.extension().is_some_and(|extension| extension == "yaml" || extension == "yml" || extension == "json")
}

/// The state of a file; `None` when it is not there.
pub(super) fn stamp(path: &Path) -> Option<Stamp> {
    let data = fs::metadata(path).ok()?;
    Some((data.mtime(), data.mtime_nsec(), data.size(), data.ino()))
}

/// Follows the changes of some files.
struct Follower {
    seen: Seen,
    /// Gone when the gateway is.
    watcher: Weak<Mutex<RecommendedWatcher>>,
    reloader: Arc<Reloader>,
}

impl Follower {
    /// Ends when the watcher is gone.
    fn follow(mut self, changes: &Receiver<()>) {
        loop {
            // The first look is for what changed before the watch began.
            self.look();
            if changes.recv().is_err() {
                return;
            }
            loop {
                match changes.recv_timeout(SETTLE) {
                    Ok(()) => {}
                    Err(RecvTimeoutError::Timeout) => break,
                    Err(RecvTimeoutError::Disconnected) => return,
                }
            }
        }
    }

    fn look(&mut self) {
        let stamps = stamps(&self.reloader.files(), &self.seen.folders);
        if stamps == self.seen.stamps {
            return;
        }
        self.seen.stamps = stamps;
        match self.reloader.reload_aside() {
            // The outcome is told by the reload itself.
            Ok(reload) => drop(reload.join()),
            Err(error) => log::error!("cannot reload: {error}"),
        }
        self.widen();
    }

    /// Watches what the configuration names now. Of what was watched before, the state before the reload counts.
    fn widen(&mut self) {
        let files = self.reloader.files();
        let folders = folders(&files);
        if let Some(watcher) = self.watcher.upgrade() {
            let mut watcher = watcher.lock();
            for gone in self.seen.folders.difference(&folders) {
                // It may have been removed.
                let _ = watcher.unwatch(gone);
            }
            for new in folders.difference(&self.seen.folders) {
                if let Err(error) = watcher.watch(new, RecursiveMode::NonRecursive) {
                    log::warn!("changes in {} will not be noticed: {error}", new.display());
                }
            }
        }
        let mut before = std::mem::take(&mut self.seen.stamps);
        let kept = |(path, now)| {
            let stamp = before.remove(&path).unwrap_or(now);
            (path, stamp)
        };
        self.seen = Seen { stamps: stamps(&files, &folders).into_iter().map(kept).collect(), folders };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_log_in_the_same_folder_is_no_change_and_a_swapped_link_is() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        for version in ["one", "two"] {
            fs::create_dir(at(version)).unwrap();
            fs::write(at(version).join("p.yaml"), version).unwrap();
        }
        std::os::unix::fs::symlink(at("one"), at("data")).unwrap();
        std::os::unix::fs::symlink(at("data").join("p.yaml"), at("p.yaml")).unwrap();
        let files = [at("p.yaml")];
        let folders = folders(&files);
        assert!(folders.contains(folder.path()) && folders.contains(&at("one").canonicalize().unwrap()));
        let before = stamps(&files, &folders);
        fs::write(at("access.log"), "a line").unwrap();
        assert_eq!(stamps(&files, &folders), before);
        fs::remove_file(at("data")).unwrap();
        std::os::unix::fs::symlink(at("two"), at("data")).unwrap();
        assert_ne!(stamps(&files, &folders), before);
    }
}
