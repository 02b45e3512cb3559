use std::borrow::Cow;
use std::os::unix::fs::MetadataExt;
use std::sync::atomic::{AtomicBool, Ordering};

use mainstay_plan::projection::File as Made;
use mainstay_testkit::tools;

use super::*;

fn files(list: &[(&str, &str, u32)]) -> Files<'static> {
    let file = |(path, content, mode): &(&str, &str, u32)| {
        let content = Cow::Owned(content.as_bytes().to_vec());
        ((*path).to_owned(), Made { content, mode: *mode, owner: None })
    };
    list.iter().map(file).collect()
}

fn put(directory: &Path, files: &Files<'_>, group: Option<u32>) {
    let wanted = Wanted { directory, in_memory: false, mount_points: &[], files, group };
    prepare(&wanted).unwrap();
}

/// All names in a volume's directory, with what links lead to.
fn names(directory: &Path) -> Vec<String> {
    let entries = fs::read_dir(directory).unwrap().map(|entry| entry.unwrap());
    let name = |entry: fs::DirEntry| {
        let name = entry.file_name().into_string().unwrap();
        match fs::read_link(entry.path()) {
            Ok(_) if name == DATA => name,
            Ok(target) => format!("{name} -> {}", target.display()),
            Err(_) if name.starts_with("..") => "version".to_owned(),
            Err(_) => name,
        }
    };
    let mut names: Vec<String> = entries.map(name).collect();
    names.sort();
    names
}

fn read(path: PathBuf) -> String {
    fs::read_to_string(path).unwrap()
}

#[test]
fn files_come_change_and_go() {
    let directory = tempfile::tempdir().unwrap();
    let volume = directory.path().join("volume");
    assert!(!is_there(&volume));
    put(&volume, &files(&[("a", "1", 0o644), ("d/b", "2", 0o400), ("d/e/c", "3", 0o777)]), None);
    assert!(is_there(&volume));
    assert_eq!(names(&volume), ["..data", "a -> ..data/a", "d -> ..data/d", "version"]);
    for (path, mode) in
        [("a", 0o644), ("d/b", 0o400), ("d/e/c", 0o777), ("d", 0o755), ("d/e", 0o755)]
    {
        assert_eq!(fs::metadata(volume.join(path)).unwrap().mode() & 0o7777, mode, "{path}");
    }
    let version = fs::read_link(volume.join(DATA)).unwrap();
    put(&volume, &files(&[("a", "1", 0o644), ("d/b", "2", 0o400), ("d/e/c", "3", 0o777)]), None);
    assert_eq!(fs::read_link(volume.join(DATA)).unwrap(), version);
    put(&volume, &files(&[("a", "new", 0o644), ("f", "4", 0o600)]), None);
    assert_eq!(names(&volume), ["..data", "a -> ..data/a", "f -> ..data/f", "version"]);
    assert_eq!(read(volume.join("a")), "new");
    put(&volume, &files(&[]), None);
    assert_eq!(names(&volume), ["..data", "version"]);
}

/// What an agent that was killed, or a machine without power, can leave.
#[test]
fn what_was_cut_off_is_made_whole() {
    let directory = tempfile::tempdir().unwrap();
    let volume = directory.path().join("volume");
    let all = files(&[("a", "whole", 0o644), ("d/b", "too", 0o644)]);
    let cuts: [&dyn Fn(); 7] = [
        &|| fs::write(volume.join("a"), "").unwrap(),
        &|| fs::remove_file(volume.join("..data/d/b")).unwrap(),
        &|| fs::remove_file(volume.join("a")).unwrap(),
        &|| fs::remove_file(volume.join(DATA)).unwrap(),
        &|| symlink("..lost", volume.join(STAGED)).unwrap(),
        &|| fs::create_dir(volume.join("..2020_half")).unwrap(),
        &|| {
            let version = fs::read_link(volume.join(DATA)).unwrap();
            fs::remove_dir_all(volume.join(version)).unwrap();
        },
    ];
    for cut in cuts {
        put(&volume, &all, None);
        cut();
        put(&volume, &all, None);
        let staged = fs::symlink_metadata(volume.join(STAGED)).is_ok();
        assert_eq!(
            (read(volume.join("a")), read(volume.join("d/b"))),
            ("whole".into(), "too".into())
        );
        let mut expected = vec!["..data", "a -> ..data/a", "d -> ..data/d", "version"];
        if staged {
            expected.insert(1, "..data_tmp -> ..lost");
        }
        assert_eq!(names(&volume), expected);
    }
    put(&volume, &files(&[("a", "x", 0o644)]), None);
    assert_eq!(names(&volume), ["..data", "a -> ..data/a", "version"]);
}

#[test]
fn directories_that_others_are_mounted_at_are_there() {
    let directory = tempfile::tempdir().unwrap();
    let volume = directory.path().join("volume");
    let files = files(&[("a", "1", 0o644), ("ssl", "file", 0o644)]);
    let mount_points = ["ssl".to_owned(), "x/y".to_owned()];
    for _ in 0..2 {
        let mount_points = &mount_points;
        let wanted = Wanted {
            directory: &volume,
            in_memory: false,
            mount_points,
            files: &files,
            group: None,
        };
        prepare(&wanted).unwrap();
        assert!(volume.join("ssl").is_dir() && volume.join("x/y").is_dir());
    }
}

#[test]
fn the_pods_group_may_read_all() {
    if !tools::is_root() {
        return;
    }
    let directory = tempfile::tempdir().unwrap();
    let volume = directory.path().join("volume");
    put(&volume, &files(&[("d/a", "1", 0o400)]), Some(1234));
    for (path, mode) in [("", 0o2777), ("..data", 0o2755), ("d", 0o2755), ("d/a", 0o440)] {
        let status = fs::metadata(volume.join(path)).unwrap();
        assert_eq!((status.mode() & 0o7777, status.gid()), (mode, 1234), "{path}");
    }
}

#[test]
fn readers_see_whole_versions_only() {
    let directory = tempfile::tempdir().unwrap();
    let volume = directory.path().join("volume");
    let version = |n: usize| {
        let text = format!("{n}\n").repeat(3000);
        files(&[("a", &text, 0o644), ("b", &text, 0o644)])
    };
    put(&volume, &version(0), None);
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let reader = scope.spawn(|| {
            let mut seen = BTreeSet::new();
            while !done.load(Ordering::Relaxed) {
                // One that is being removed is not there any more, or is there whole.
                let Ok(open) = mainstay_linux::path::open_directory(&volume.join(DATA)) else {
                    continue;
                };
                let at = mainstay_linux::path::of_descriptor(&open);
                let text = |name| fs::read_to_string(at.join(name));
                if let (Ok(a), Ok(b)) = (text("a"), text("b")) {
                    assert_eq!(a, b);
                    assert_eq!(a.lines().count(), 3000);
                    seen.insert(a.lines().next().unwrap().to_owned());
                }
            }
            seen.len()
        });
        for n in 1..300 {
            put(&volume, &version(n), None);
        }
        done.store(true, Ordering::Relaxed);
        assert!(reader.join().unwrap() > 0);
    });
}
