//! What the kernel tells of changes in directories.
//!
//! Source: inotify(7).

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::path::Path;
use std::time::Duration;

use inotify::{EventMask, Inotify, WatchDescriptor, WatchMask};
use rustix::event::{PollFd, PollFlags, Timespec, poll};

use super::entry::Identity;
use super::settle::Heard;

/// Watches a directory and those below it, as far as the kernel lets us.
pub(super) struct Watch {
    inotify: Option<Inotify>,
    /// By directory within it: the descriptor, and what directory it was.
    armed: BTreeMap<String, (WatchDescriptor, Identity)>,
    /// Whether it has been said that there will be no events.
    complained: bool,
}

/// What was heard in one go.
#[derive(Default)]
pub(super) struct HeardNow {
    pub(super) events: Vec<Heard>,
    /// Events were lost, a directory changed under its name, or something else is only seen by
    /// looking.
    pub(super) look_again: bool,
}

impl Watch {
    pub(super) fn new() -> Self {
        let mut watch = Self { inotify: None, armed: BTreeMap::new(), complained: false };
        match Inotify::init() {
            Ok(inotify) => watch.inotify = Some(inotify),
            Err(error) => watch.complain(&error),
        }
        watch
    }

    /// Sees to it that a directory is watched: the one that has its name now. Returns whether it
    /// was not watched before.
    pub(super) fn arm(&mut self, root: &Path, within: &str) -> bool {
        let directory = if within.is_empty() { root.to_owned() } else { root.join(within) };
        let Some(inotify) = &self.inotify else { return false };
        let Ok(identity) = super::entry::identity(&directory) else { return false };
        if self.armed.get(within).is_some_and(|(_, known)| *known == identity) {
            return false;
        }
        let mask = WatchMask::CREATE
            | WatchMask::MODIFY
            | WatchMask::ATTRIB
            | WatchMask::CLOSE_WRITE
            | WatchMask::MOVED_FROM
            | WatchMask::MOVED_TO
            | WatchMask::DELETE
            | WatchMask::DELETE_SELF
            | WatchMask::MOVE_SELF
            | WatchMask::ONLYDIR;
        match inotify.watches().add(directory, mask) {
            Ok(descriptor) => {
                self.armed.insert(within.to_owned(), (descriptor, identity));
                self.complained = false;
                true
            }
            Err(error) => {
                self.complain(&error);
                false
            }
        }
    }

    /// Said once until it works again: the directories are looked at all the same.
    fn complain(&mut self, error: &std::io::Error) {
        if !std::mem::replace(&mut self.complained, true) {
            tracing::warn!(
                %error,
                "cannot watch the manifests; changes are seen every few seconds only \
                 (fs.inotify.max_user_watches and max_user_instances may be too low)"
            );
        }
    }

    /// Waits for events, at most for `timeout`.
    pub(super) fn wait(&mut self, timeout: Duration) -> HeardNow {
        let Some(inotify) = &mut self.inotify else {
            std::thread::sleep(timeout);
            return HeardNow::default();
        };
        let timeout = Timespec::try_from(timeout).ok();
        let mut descriptors = [PollFd::new(inotify, PollFlags::IN)];
        if !matches!(poll(&mut descriptors, timeout.as_ref()), Ok(1..)) {
            return HeardNow::default();
        }
        let mut buffer = [0; 16 << 10];
        let mut heard = HeardNow::default();
        let Ok(events) = inotify.read_events(&mut buffer) else {
            return HeardNow { look_again: true, ..heard };
        };
        for event in events {
            let whole = EventMask::DELETE_SELF
                | EventMask::MOVE_SELF
                | EventMask::UNMOUNT
                | EventMask::IGNORED
                | EventMask::Q_OVERFLOW;
            if event.mask.intersects(whole) {
                // The watch is of a directory that is not, or may not be, there any more.
                self.armed.retain(|_, (descriptor, _)| *descriptor != event.wd);
                heard.look_again = true;
                continue;
            }
            let Some(name) = event.name.and_then(OsStr::to_str) else { continue };
            // A directory came or went, or what the links of a mounted ConfigMap point to was
            // exchanged.
            if event.mask.contains(EventMask::ISDIR) || name == "..data" {
                heard.look_again = true;
                continue;
            }
            // One directory may have several names, by a mount.
            let armed = self.armed.iter().filter(|(_, (wd, _))| *wd == event.wd);
            for (within, _) in armed {
                let name = if within.is_empty() { name.into() } else { format!("{within}/{name}") };
                heard.events.push(tell(event.mask, name, event.cookie));
            }
        }
        heard
    }
}

fn tell(mask: EventMask, name: String, cookie: u32) -> Heard {
    if mask.contains(EventMask::MOVED_TO) {
        Heard::MovedTo { name, cookie }
    } else if mask.contains(EventMask::MOVED_FROM) {
        Heard::MovedFrom { name, cookie }
    } else if mask.contains(EventMask::DELETE) {
        Heard::Removed { name }
    } else if mask.contains(EventMask::CLOSE_WRITE) {
        Heard::Closed { name }
    } else if mask.contains(EventMask::ATTRIB) {
        Heard::Attributes { name }
    } else {
        Heard::Touched { name }
    }
}
