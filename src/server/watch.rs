//! Reloads when the configuration's files change.
//!
//! 1. Directories are watched, not files: editors and Kubernetes put a new file in the old one's place, the latter
//!    by swapping a link in the directory where the file was named. Any link that leads to a file may be swapped, so
//!    the directory of each is watched; where they lead is found out anew after each change.
//! 2. What counts is whether a configuration file differs in name, time, size or inode: a log that is written in the
//!    same directory is no change, and wakes nobody.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsString;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Component, Path, PathBuf};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use notify::event::{EventKind, ModifyKind};
use notify::{Event, RecommendedWatcher, RecursiveMode, Watcher};
use parking_lot::Mutex;

use super::Reloader;

/// Changes that come closer together than this are one.
const SETTLE: Duration = Duration::from_millis(100);
/// The longest that changes are waited out: a directory where files come and go all the time never settles.
const SETTLED_BY: Duration = Duration::from_secs(1);
/// The most links on the way to one file: the kernel follows no more.
const LINKS: usize = 40;

/// Watches while it lives.
pub(super) struct Watch {
    _watcher: Arc<Mutex<RecommendedWatcher>>,
}

/// The configuration's files, as they were when they were read.
#[derive(Debug, Default, Clone)]
pub(super) struct Seen {
    files: BTreeSet<PathBuf>,
    /// Where the files are named, and where they are: what is new there counts.
    folders: BTreeSet<PathBuf>,
    /// The same, and where the links are that lead from one to the other.
    watched: BTreeSet<PathBuf>,
    stamps: Stamps,
}

/// What configuration files are called, where they are named and where they are.
type Names = BTreeSet<OsString>;

/// What tells one state of a file from another: its time, size and inode.
type Stamp = (i64, i64, u64, u64);
type Stamps = BTreeMap<PathBuf, Option<Stamp>>;

/// Reloads when a file is no longer as `seen`.
pub(super) fn start(seen: Seen, reloader: &Arc<Reloader>) -> Option<Watch> {
    if seen.files.is_empty() {
        return None;
    }
    let unwatched = |error: &dyn std::fmt::Display| log::warn!("changed files will not be noticed: {error}");
    let (sender, changes) = channel();
    let names = Arc::new(Mutex::new(seen.names()));
    let known = Arc::clone(&names);
    let watcher = notify::recommended_watcher(move |event: notify::Result<Event>| {
        if event.is_ok_and(|event| may_matter(&event, &known.lock())) {
            // Nobody listens any more when the gateway ends.
            let _ = sender.send(());
        }
    });
    let mut watcher = watcher.map_err(|error| unwatched(&error)).ok()?;
    watch(&mut watcher, &seen.watched);
    let watcher = Arc::new(Mutex::new(watcher));
    let follower =
        Follower { seen, names, watcher: Arc::downgrade(&watcher), reloader: Arc::clone(reloader) };
    let spawned = std::thread::Builder::new().name("watch".into()).spawn(move || follower.follow(&changes));
    spawned.map_err(|error| unwatched(&error)).ok()?;
    Some(Watch { _watcher: watcher })
}

fn watch<'f>(watcher: &mut RecommendedWatcher, folders: impl IntoIterator<Item = &'f PathBuf>) {
    for folder in folders {
        if let Err(error) = watcher.watch(folder, RecursiveMode::NonRecursive) {
            log::warn!("changed files in {} will not be noticed: {error}", folder.display());
        }
    }
}

impl Seen {
    /// Adds files: call it for the main one before it is read, since what changes while it is read counts.
    /// Returns the folders that are to be watched from now on.
    pub(super) fn add<'f>(&mut self, files: impl IntoIterator<Item = &'f Path>) -> BTreeSet<PathBuf> {
        let files: BTreeSet<_> = files.into_iter().map(Path::to_owned).collect();
        let files: BTreeSet<_> = files.difference(&self.files).cloned().collect();
        self.files.extend(files.iter().cloned());
        let folders = folders(&self.files);
        let added = folders.difference(&self.folders).cloned().collect();
        self.stamps.retain(|path, _| {
            self.files.contains(path) || path.parent().is_some_and(|folder| folders.contains(folder))
        });
        self.stamps.extend(stamps(&files, &added));
        let mut watched = folders.clone();
        self.files.iter().for_each(|file| links(file, &mut watched));
        let fresh = watched.difference(&self.watched).cloned().collect();
        (self.folders, self.watched) = (folders, watched);
        fresh
    }

    fn names(&self) -> Names {
        let real = self.files.iter().filter_map(|file| file.canonicalize().ok());
        let paths = self.files.iter().cloned().chain(real);
        paths.filter_map(|path| path.file_name().map(OsString::from)).collect()
    }

    /// Looks again. Says whether anything has changed.
    fn has_changed(&mut self) -> bool {
        let stamps = stamps(&self.files, &self.folders);
        let changed = stamps != self.stamps;
        self.stamps = stamps;
        changed
    }
}

/// Where the files are named, and where they are.
fn folders(files: &BTreeSet<PathBuf>) -> BTreeSet<PathBuf> {
    let named = files.iter().filter_map(|file| Some(std::path::absolute(file).ok()?.parent()?.to_owned()));
    let real = files.iter().filter_map(|file| Some(file.canonicalize().ok()?.parent()?.to_owned()));
    named.chain(real).collect()
}

/// Adds the folder of every link on the way to a file, be it to the file or to a folder above it.
fn links(file: &Path, folders: &mut BTreeSet<PathBuf>) {
    let Ok(mut ahead) = std::path::absolute(file) else { return };
    let mut at = PathBuf::new();
    let mut left = LINKS;
    loop {
        let mut steps = ahead.components();
        let Some(step) = steps.next() else { return };
        let rest = steps.as_path();
        ahead = match fs::read_link(at.join(step)) {
            Ok(_) if left == 0 => return,
            Ok(target) => {
                left -= 1;
                folders.insert(at.clone());
                target.join(rest)
            }
            Err(_) => {
                match step {
                    Component::CurDir => {}
                    Component::ParentDir => drop(at.pop()),
                    step => at.push(step),
                }
                rest.to_owned()
            }
        };
    }
}

fn stamps(files: &BTreeSet<PathBuf>, folders: &BTreeSet<PathBuf>) -> Stamps {
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

/// Whether it is worth a look. Bytes written to a file that is not ours are not: a log beside ours is written many
/// times a second. Whatever comes, goes or is renamed may be a link that a file of ours is reached by.
fn may_matter(event: &Event, names: &Names) -> bool {
    match event.kind {
        EventKind::Access(_) => false,
        EventKind::Modify(ModifyKind::Data(_)) => event
            .paths
            .iter()
            .any(|path| is_config(path) || path.file_name().is_none_or(|name| names.contains(name))),
        _ => true,
    }
}

/// Follows the changes of some files.
struct Follower {
    seen: Seen,
    /// Shared with the watcher.
    names: Arc<Mutex<Names>>,
    watcher: Weak<Mutex<RecommendedWatcher>>,
    reloader: Arc<Reloader>,
}

impl Follower {
    /// Ends when the watcher is gone.
    fn follow(mut self, changes: &Receiver<()>) {
        // What changed before anything was watched.
        self.look();
        while changes.recv().is_ok() {
            let until = Instant::now() + SETTLED_BY;
            while Instant::now() < until {
                match changes.recv_timeout(SETTLE) {
                    Ok(()) => {}
                    Err(RecvTimeoutError::Timeout) => break,
                    Err(RecvTimeoutError::Disconnected) => return,
                }
            }
            self.look();
        }
    }

    fn look(&mut self) {
        self.tell_names();
        if !self.seen.has_changed() {
            return;
        }
        loop {
            // The outcome is told by the reload itself.
            let _ = self.reloader.reload_aside();
            let known = self.seen.files.len();
            let files = self.reloader.files();
            let before = self.seen.watched.clone();
            let folders = self.seen.add(files.iter().map(PathBuf::as_path));
            self.tell_names();
            if let Some(watcher) = self.watcher.upgrade() {
                let mut watcher = watcher.lock();
                watch(&mut watcher, &folders);
                for folder in before.difference(&self.seen.watched) {
                    // One that was removed is watched no more as it is.
                    let _ = watcher.unwatch(folder);
                }
            }
            // What is new to the configuration may have changed between its reading and the watching: once more.
            let may_have_changed =
                self.seen.files.len() > known || !folders.is_empty() && self.seen.has_changed();
            if !may_have_changed {
                return;
            }
        }
    }

    /// Before each look: what is written after it must be noticed, and a link may lead to another name by now.
    fn tell_names(&self) {
        let names = self.seen.names();
        *self.names.lock() = names;
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
        let mut seen = Seen::default();
        let folders = seen.add([at("p.yaml").as_path()]);
        assert!(folders.contains(folder.path()) && folders.contains(&at("one").canonicalize().unwrap()));
        fs::write(at("access.log"), "a line").unwrap();
        assert!(!seen.has_changed());
        fs::remove_file(at("data")).unwrap();
        std::os::unix::fs::symlink(at("two"), at("data")).unwrap();
        assert!(seen.has_changed());
        assert!(!seen.has_changed());
    }

    #[test]
    fn the_folder_of_every_link_is_watched_and_rings_end() {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path().canonicalize().unwrap();
        let at = |name: &str| root.join(name);
        for name in ["a", "b/c", "d"] {
            fs::create_dir_all(at(name)).unwrap();
        }
        fs::write(at("b/c/file"), "").unwrap();
        std::os::unix::fs::symlink("./a/link", at("p.yaml")).unwrap();
        std::os::unix::fs::symlink("../d/folder/file", at("a/link")).unwrap();
        std::os::unix::fs::symlink(at("b/c"), at("d/folder")).unwrap();
        let watched = |name: &str| Seen::default().add([at(name).as_path()]);
        assert!(watched("p.yaml").is_superset(&["", "a", "d", "b/c"].map(|name| root.join(name)).into()));

        std::os::unix::fs::symlink("two", at("one")).unwrap();
        std::os::unix::fs::symlink("one", at("two")).unwrap();
        assert_eq!(watched("one").len(), 1);
    }

    #[test]
    fn a_log_written_in_the_same_folder_wakes_nobody() {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path().canonicalize().unwrap();
        let at = |name: &str| root.join(name);
        for name in ["access.log", "p.yaml", "new.yaml", "real.conf"] {
            fs::write(at(name), "").unwrap();
        }
        std::os::unix::fs::symlink(at("real.conf"), at("routes.conf")).unwrap();
        let mut seen = Seen::default();
        seen.add([at("p.yaml").as_path(), &at("routes.conf")]);
        let names = seen.names();
        let (sender, events) = channel();
        let mut watcher = notify::recommended_watcher(sender).unwrap();
        watch(&mut watcher, &seen.folders);

        let append = |name: &str| {
            let mut file = fs::OpenOptions::new().append(true).open(at(name)).unwrap();
            std::io::Write::write_all(&mut file, b"a line\n").unwrap();
        };
        ["access.log", "p.yaml", "new.yaml", "real.conf", "access.log"].into_iter().for_each(append);
        fs::rename(at("routes.conf"), at("moved")).unwrap();
        fs::create_dir(at("last")).unwrap();

        let mut woken = BTreeSet::new();
        let mut logged = 0;
        loop {
            let event = events.recv_timeout(Duration::from_secs(10)).unwrap().unwrap();
            let here = event.paths.iter().filter_map(|path| path.file_name()?.to_str());
            let here: Vec<_> = here.map(str::to_owned).collect();
            logged += usize::from(here == ["access.log"]);
            let last = here.iter().any(|name| name == "last");
            if may_matter(&event, &names) {
                woken.extend(here);
            }
            if last {
                break;
            }
        }
        assert!(logged > 0);
        assert_eq!(
            woken.iter().map(String::as_str).collect::<Vec<_>>(),
            ["last", "moved", "new.yaml", "p.yaml", "real.conf", "routes.conf"]
        );
    }

    #[test]
    fn files_added_later_leave_what_was_seen_before() {
        let folder = tempfile::tempdir().unwrap();
        let (main, other) = (folder.path().join("p.yaml"), folder.path().join("routes/r.conf"));
        fs::create_dir(folder.path().join("routes")).unwrap();
        fs::write(&main, "1").unwrap();
        fs::write(&other, "1").unwrap();
        let mut seen = Seen::default();
        assert_eq!(seen.add([main.as_path()]).len(), 1);
        fs::write(&main, "12").unwrap();
        assert_eq!(seen.add([main.as_path(), &other]).len(), 1);
        assert!(seen.has_changed(), "the main file changed while it was read");
        fs::write(&other, "12").unwrap();
        assert!(seen.has_changed());
    }
}
