//! Reloads when the configuration's files change.
//!
//! 1. Directories are watched, not files: editors and Kubernetes put a new file in the old one's place, the latter
//!    by swapping a link in the directory where the file was named.
//! 2. What counts is whether a configuration file differs in name, time, size or inode: a log that is written in the
//!    same directory is no change.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::Duration;

use notify::{RecommendedWatcher, RecursiveMode, Watcher};

use super::{Reloader, Source};

/// Changes that come closer together than this are one.
const SETTLE: Duration = Duration::from_millis(100);

/// Watches while it lives.
pub(super) struct Watch {
    _watcher: RecommendedWatcher,
}

/// Starts watching the files of the configuration, if it has any; `files` are those that were read.
pub(super) fn start(source: &Source, files: &[PathBuf], reloader: &Arc<Reloader>) -> Option<Watch> {
    source.path()?;
    let folders = folders(files);
    let stamps = stamps(files, &folders);
    let (sender, changes) = channel();
    let started = notify::recommended_watcher(move |event: notify::Result<notify::Event>| {
        if event.is_ok_and(|event| !event.kind.is_access()) {
            // Nobody listens any more when the gateway ends.
            let _ = sender.send(());
        }
    })
    .and_then(|mut watcher| {
        folders.iter().try_for_each(|folder| watcher.watch(folder, RecursiveMode::NonRecursive))?;
        Ok(watcher)
    });
    let unwatched = |error: &dyn std::fmt::Display| log::warn!("changed files will not be noticed: {error}");
    let watcher = started.map_err(|error| unwatched(&error)).ok()?;
    let follower = Follower { files: files.to_vec(), folders, stamps, reloader: Arc::clone(reloader) };
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

/// What tells one state of a file from another: its time, size and inode.
type Stamp = (i64, i64, u64, u64);

fn stamps(files: &[PathBuf], folders: &BTreeSet<PathBuf>) -> BTreeMap<PathBuf, Option<Stamp>> {
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

fn stamp(path: &Path) -> Option<Stamp> {
    let data = fs::metadata(path).ok()?;
    Some((data.mtime(), data.mtime_nsec(), data.size(), data.ino()))
}

/// Follows the changes of some files.
struct Follower {
    files: Vec<PathBuf>,
    folders: BTreeSet<PathBuf>,
    stamps: BTreeMap<PathBuf, Option<Stamp>>,
    reloader: Arc<Reloader>,
}

impl Follower {
    /// Ends when the watcher is gone.
    fn follow(mut self, changes: &Receiver<()>) {
        while changes.recv().is_ok() {
            loop {
                match changes.recv_timeout(SETTLE) {
                    Ok(()) => {}
                    Err(RecvTimeoutError::Timeout) => break,
                    Err(RecvTimeoutError::Disconnected) => return,
                }
            }
            let stamps = stamps(&self.files, &self.folders);
            if stamps != self.stamps {
                self.stamps = stamps;
                self.reload();
            }
        }
    }

    fn reload(&self) {
        match self.reloader.reload_aside() {
            // The outcome is told by the reload itself.
            Ok(reload) => drop(reload.join()),
            Err(error) => log::error!("cannot reload: {error}"),
        }
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
