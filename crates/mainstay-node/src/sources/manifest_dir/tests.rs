//! On real directories, with the kernel's own events.

use std::collections::VecDeque;
use std::fs;
use std::os::unix::fs::symlink;

use rustix::fs::{CWD, RenameFlags, renameat_with};
use tempfile::TempDir;

use super::*;

/// Long enough that what is seen in a test was heard.
const NEVER: Duration = Duration::from_secs(3600);
/// Short enough to see what is not heard.
const OFTEN: Duration = Duration::from_millis(20);

struct Watched {
    directory: TempDir,
    batches: mpsc::UnboundedReceiver<Batch>,
    told: VecDeque<String>,
}

impl Watched {
    /// Watches what `of` names in a directory that `prepare` fills.
    fn start(of: &str, recursive: bool, rescan: Duration, prepare: impl FnOnce(&Path)) -> Self {
        let prepare = |path: &Path| {
            prepare(path);
            BTreeMap::new()
        };
        Self::start_after(of, recursive, rescan, prepare)
    }

    /// The same when there was an earlier agent; `prepare` tells what it knew.
    fn start_after(
        of: &str,
        recursive: bool,
        rescan: Duration,
        prepare: impl FnOnce(&Path) -> BTreeMap<PathBuf, Place>,
    ) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let known = prepare(directory.path());
        let path = directory.path().join(of);
        let (sender, batches) = mpsc::unbounded_channel();
        std::thread::spawn(move || watch(&path, recursive, rescan, &known, &sender));
        Self { directory, batches, told: VecDeque::new() }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// One batch, as lines.
    fn batch(&mut self) -> Vec<String> {
        let batch = self.batches.blocking_recv().unwrap();
        batch.iter().map(|change| self.line(change)).collect()
    }

    /// The next thing that is told, of whatever batch.
    fn next(&mut self) -> String {
        while self.told.is_empty() {
            let batch = self.batch();
            self.told.extend(batch);
        }
        self.told.pop_front().unwrap()
    }

    fn until_ready(&mut self) -> Vec<String> {
        let mut lines = Vec::new();
        loop {
            match self.next() {
                ready if ready == "ready" => return lines,
                line => lines.push(line),
            }
        }
    }

    fn line(&self, change: &Change) -> String {
        let short = |path: &Path| {
            let path = path.strip_prefix(self.directory.path()).unwrap_or(path);
            path.display().to_string()
        };
        match change {
            Change::Read { path, bytes, .. } => {
                format!("{}: {}", short(path), String::from_utf8_lossy(bytes))
            }
            Change::Unreadable { path, error } => format!("{} unreadable: {error}", short(path)),
            Change::Gone { path } => format!("{} gone", short(path)),
            Change::Ignored { names, .. } => format!("ignored {names:?}"),
            Change::Directory { path, error: Some(error) } => format!("{}: {error}", short(path)),
            Change::Directory { path, error: None } => format!("{} is back", short(path)),
            Change::Ready { .. } => "ready".to_owned(),
        }
    }
}

#[test]
fn what_is_there_at_the_start_is_read_in_order() {
    let mut watched = Watched::start("", false, NEVER, |path| {
        for name in ["b.yaml", "a.yml", "c.json", "c.json~", "note.txt", ".d.yaml"] {
            fs::write(path.join(name), name).unwrap();
        }
        fs::create_dir(path.join("e.yaml")).unwrap();
        symlink("nowhere", path.join("f.yaml")).unwrap();
    });
    let expected = [
        "ignored {\".d.yaml\", \"c.json~\", \"note.txt\"}",
        "a.yml: a.yml",
        "b.yaml: b.yaml",
        "c.json: c.json",
        "f.yaml unreadable: it is a link to nowhere",
    ];
    assert_eq!(watched.until_ready(), expected);
}

#[test]
fn changes_are_heard_and_a_rename_is_one_thing() {
    let mut watched = Watched::start("", false, NEVER, |_| ());
    watched.until_ready();
    fs::write(watched.path("a.yaml"), "one").unwrap();
    assert_eq!(watched.next(), "a.yaml: one");
    fs::write(watched.path("new"), "two").unwrap();
    fs::rename(watched.path("new"), watched.path("a.yaml")).unwrap();
    assert_eq!(watched.next(), "a.yaml: two");
    fs::rename(watched.path("a.yaml"), watched.path("b.yaml")).unwrap();
    assert_eq!(watched.batch(), ["b.yaml: two", "a.yaml gone"]);
    fs::remove_file(watched.path("b.yaml")).unwrap();
    assert_eq!(watched.next(), "b.yaml gone");
}

#[test]
fn an_editor_that_puts_the_old_version_aside_does_not_take_it_away() {
    let mut watched = Watched::start("", false, NEVER, |path| {
        fs::write(path.join("a.yaml"), "one").unwrap();
    });
    watched.until_ready();
    fs::rename(watched.path("a.yaml"), watched.path("a.yaml~")).unwrap();
    fs::write(watched.path("a.yaml"), "two").unwrap();
    assert_eq!(watched.next(), "a.yaml: two");
    // Put aside for good, it is gone.
    fs::rename(watched.path("a.yaml"), watched.path("a.yaml~")).unwrap();
    assert_eq!(watched.next(), "a.yaml gone");
}

#[test]
fn without_events_looking_is_enough() {
    let mut watched = Watched::start("later", false, OFTEN, |_| ());
    assert_eq!(watched.until_ready(), ["later: No such file or directory (os error 2)"]);
    fs::create_dir(watched.path("later")).unwrap();
    assert_eq!(watched.next(), "later is back");
    fs::write(watched.path("later/a.yaml"), "one").unwrap();
    assert_eq!(watched.next(), "later/a.yaml: one");
}

#[test]
fn a_directory_that_vanishes_or_is_another_one_takes_nothing_away() {
    let mut watched = Watched::start("d", false, OFTEN, |path| {
        fs::create_dir(path.join("d")).unwrap();
        fs::write(path.join("d/a.yaml"), "one").unwrap();
        fs::write(path.join("d/b.yaml"), "two").unwrap();
    });
    assert_eq!(watched.until_ready(), ["d/a.yaml: one", "d/b.yaml: two"]);
    fs::rename(watched.path("d"), watched.path("away")).unwrap();
    assert_eq!(watched.next(), "d: No such file or directory (os error 2)");
    // As when another file system is mounted over it.
    fs::create_dir(watched.path("d")).unwrap();
    let error = watched.next();
    assert!(error.starts_with("d: it is not the directory that the manifests were in"), "{error}");
    fs::remove_dir(watched.path("d")).unwrap();
    fs::rename(watched.path("away"), watched.path("d")).unwrap();
    while watched.next() != "d is back" {}
    // Now it is what it was, and what is missing in it was taken away.
    fs::remove_file(watched.path("d/a.yaml")).unwrap();
    assert_eq!(watched.next(), "d/a.yaml gone");
}

/// What an agent knew that saw these files where they are now.
fn known(files: &[PathBuf], root: &Path) -> BTreeMap<PathBuf, Place> {
    let place = |file: &PathBuf| {
        let name = file.strip_prefix(root).unwrap().to_str().unwrap();
        above(name).map(|within| entry::identity(&root.join(within)).unwrap()).collect()
    };
    files.iter().map(|file| (file.clone(), place(file))).collect()
}

#[test]
fn what_was_taken_away_while_no_agent_ran_is_gone_before_all_else() {
    let mut watched = Watched::start_after("", true, NEVER, |path| {
        fs::create_dir_all(path.join("x/y")).unwrap();
        let files = ["a.yaml", "b.yaml", "x/y/c.yaml"].map(|name| path.join(name));
        let known = known(&files, path);
        fs::write(&files[1], "two").unwrap();
        fs::remove_dir_all(path.join("x")).unwrap();
        known
    });
    assert_eq!(watched.until_ready(), ["b.yaml: two", "a.yaml gone", "x/y/c.yaml gone"]);
}

#[test]
fn a_disk_that_is_away_when_the_agent_starts_takes_nothing_away() {
    let mut watched = Watched::start_after("d", false, OFTEN, |path| {
        fs::create_dir(path.join("d")).unwrap();
        let files = ["a.yaml", "b.yaml"].map(|name| path.join("d").join(name));
        let known = known(&files, &path.join("d"));
        // As when the place where it is to be mounted is there and empty.
        fs::rename(path.join("d"), path.join("away")).unwrap();
        fs::create_dir(path.join("d")).unwrap();
        known
    });
    let [error] = &watched.until_ready()[..] else { panic!("more is told than an error") };
    assert!(error.starts_with("d: it is not the directory that the manifests were in"), "{error}");
    // With a manifest in it, it is the directory, and what is missing was taken away.
    fs::write(watched.path("d/b.yaml"), "two").unwrap();
    let mut told = [watched.next(), watched.next(), watched.next()];
    told.sort();
    assert_eq!(told, ["d is back", "d/a.yaml gone", "d/b.yaml: two"]);
}

#[test]
fn another_directory_with_the_same_files_is_the_one_from_then_on() {
    let mut watched = Watched::start("d", false, OFTEN, |path| {
        fs::write(path.join("file"), "one").unwrap();
        for directory in ["d", "e"].map(|name| path.join(name)) {
            fs::create_dir(&directory).unwrap();
            symlink("../file", directory.join("a.yaml")).unwrap();
        }
    });
    assert_eq!(watched.until_ready(), ["d/a.yaml: one"]);
    let (d, e) = (watched.path("d"), watched.path("e"));
    renameat_with(CWD, &d, CWD, &e, RenameFlags::EXCHANGE).unwrap();
    // Told again, since where it lies is to be remembered.
    assert_eq!(watched.next(), "d/a.yaml: one");
    fs::remove_file(d.join("a.yaml")).unwrap();
    assert_eq!(watched.next(), "d/a.yaml gone");
}

#[test]
fn a_disk_below_that_is_away_takes_nothing_away() {
    let mut watched = Watched::start("", true, OFTEN, |path| {
        fs::create_dir_all(path.join("x/y")).unwrap();
        fs::write(path.join("a.yaml"), "one").unwrap();
        fs::write(path.join("x/y/b.yaml"), "two").unwrap();
        fs::create_dir(path.join(".below")).unwrap();
    });
    assert_eq!(watched.until_ready(), ["a.yaml: one", "x/y/b.yaml: two"]);
    // At one moment, as when a disk is unmounted.
    let (x, below) = (watched.path("x"), watched.path(".below"));
    renameat_with(CWD, &x, CWD, &below, RenameFlags::EXCHANGE).unwrap();
    let told = watched.next();
    assert!(told.starts_with(": x is not the directory that the manifests were in"), "{told}");
    // Without the place where it was mounted, the directory above says what is in it.
    fs::remove_dir(&x).unwrap();
    let mut told = [watched.next(), watched.next()];
    told.sort();
    assert_eq!(told, [" is back", "x/y/b.yaml gone"]);
}

#[test]
fn a_single_file_can_be_watched() {
    let mut watched = Watched::start("a.yaml", false, NEVER, |path| {
        fs::write(path.join("a.yaml"), "one").unwrap();
        fs::write(path.join("b.yaml"), "other").unwrap();
    });
    assert_eq!(watched.until_ready(), ["a.yaml: one"]);
    fs::write(watched.path("b.yaml"), "changed").unwrap();
    fs::remove_file(watched.path("a.yaml")).unwrap();
    assert_eq!(watched.next(), "a.yaml gone");
}

#[test]
fn directories_below_count_when_asked_for() {
    let prepare = |path: &Path| {
        fs::create_dir_all(path.join("x/y")).unwrap();
        fs::create_dir_all(path.join(".hidden")).unwrap();
        fs::write(path.join("x/y/a.yaml"), "one").unwrap();
        fs::write(path.join(".hidden/b.yaml"), "two").unwrap();
    };
    let mut flat = Watched::start("", false, NEVER, prepare);
    assert_eq!(flat.until_ready(), [] as [&str; 0]);
    let mut watched = Watched::start("", true, NEVER, prepare);
    assert_eq!(watched.until_ready(), ["x/y/a.yaml: one"]);
    fs::write(watched.path("x/y/a.yaml"), "three").unwrap();
    assert_eq!(watched.next(), "x/y/a.yaml: three");
    fs::create_dir(watched.path("z")).unwrap();
    fs::write(watched.path("z/c.yaml"), "four").unwrap();
    assert_eq!(watched.next(), "z/c.yaml: four");
    fs::remove_dir_all(watched.path("x")).unwrap();
    assert_eq!(watched.next(), "x/y/a.yaml gone");
}

#[test]
fn the_links_of_a_mounted_config_map_are_followed() {
    // Source: `pkg/volume/util/atomic_writer.go`.
    let mut watched = Watched::start("", false, NEVER, |path| {
        fs::create_dir(path.join("..1")).unwrap();
        fs::write(path.join("..1/a.yaml"), "one").unwrap();
        symlink("..1", path.join("..data")).unwrap();
        symlink("..data/a.yaml", path.join("a.yaml")).unwrap();
    });
    watched.until_ready();
    fs::create_dir(watched.path("..2")).unwrap();
    fs::write(watched.path("..2/a.yaml"), "two").unwrap();
    symlink("..2", watched.path("..data_tmp")).unwrap();
    fs::rename(watched.path("..data_tmp"), watched.path("..data")).unwrap();
    loop {
        match watched.next() {
            line if line == "a.yaml: two" => break,
            line => assert!(line.starts_with("ignored"), "{line}"),
        }
    }
}

#[test]
fn what_is_not_a_regular_file_is_refused_and_holds_nothing_up() {
    let mut watched = Watched::start("", false, NEVER, |path| {
        let mode = rustix::fs::Mode::from_raw_mode(0o600);
        let fifo = path.join("a.yaml");
        rustix::fs::mknodat(rustix::fs::CWD, &fifo, rustix::fs::FileType::Fifo, mode, 0).unwrap();
        fs::write(path.join("b.yaml"), "two").unwrap();
    });
    let expected =
        ["a.yaml unreadable: it is not a regular file, and only those are read", "b.yaml: two"];
    assert_eq!(watched.until_ready(), expected);
}
