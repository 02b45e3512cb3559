use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::sync::atomic::{AtomicBool, Ordering};

use super::*;

/// A volume beside what nobody may get at.
struct World {
    directory: tempfile::TempDir,
}

impl World {
    fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let world = Self { directory };
        fs::create_dir(world.volume()).unwrap();
        fs::set_permissions(world.volume(), fs::Permissions::from_mode(0o2775)).unwrap();
        fs::create_dir(world.at("host")).unwrap();
        fs::write(world.at("host/secret"), "secret").unwrap();
        world
    }

    fn at(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    fn volume(&self) -> PathBuf {
        self.at("volume")
    }

    fn open(&self, path: &str) -> io::Result<OwnedFd> {
        open(&open_directory(&self.volume())?, Path::new(path))
    }
}

#[test]
fn links_lead_nowhere_but_within_the_volume() {
    let world = World::new();
    let volume = world.volume();
    fs::create_dir_all(volume.join("real/inner")).unwrap();
    for (link, target) in [
        ("absolute", world.at("host")),
        ("up", "../host".into()),
        ("deep", "real/../../host".into()),
        ("root", "/".into()),
        ("proc", "/proc/self/root".into()),
        ("own", volume.join("real")),
        ("within", "real/inner".into()),
        ("dangling", "none".into()),
        ("out-dangling", "../none".into()),
        ("loop", "loop".into()),
    ] {
        symlink(target, volume.join(link)).unwrap();
    }
    for path in [
        "absolute",
        "absolute/secret",
        "absolute/new",
        "up",
        "up/new/deep",
        "deep/secret",
        "root/etc",
        "proc/etc",
        "own",
        "dangling",
        "dangling/new",
        "out-dangling",
        "out-dangling/new",
        "loop",
    ] {
        world.open(path).unwrap_err();
    }
    let inode = |file: OwnedFd| fstat(file).unwrap().st_ino;
    let inner = fs::metadata(volume.join("real/inner")).unwrap().ino();
    assert_eq!(inode(world.open("within").unwrap()), inner);
    let names = |path: &Path| fs::read_dir(path).unwrap().count();
    assert_eq!((names(&world.at("host")), names(world.directory.path())), (1, 2));
}

#[test]
fn what_is_missing_is_made_as_the_volume_is() {
    let world = World::new();
    world.open("a/b/c").unwrap();
    for path in ["a", "a/b", "a/b/c"] {
        let mode = fs::metadata(world.volume().join(path)).unwrap().mode() & 0o7777;
        assert_eq!(mode, 0o2775, "{path}");
    }
}

/// A container exchanges a directory for a link while its pod's next container is made.
#[test]
fn a_race_is_never_won() {
    let world = World::new();
    let (place, link) = (world.volume().join("place"), world.volume().join("link"));
    fs::create_dir(&place).unwrap();
    symlink("../host", &link).unwrap();
    let secret = fs::metadata(world.at("host/secret")).unwrap().ino();
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !done.load(Ordering::Relaxed) {
                let flags = rustix::fs::RenameFlags::EXCHANGE;
                let cwd = rustix::fs::CWD;
                rustix::fs::renameat_with(cwd, &place, cwd, &link, flags).unwrap();
            }
        });
        // Which of the two is there is up to the scheduler.
        let (mut tried, mut opened) = (0, 0);
        while tried < 2000 || opened == 0 {
            tried += 1;
            if let Ok(found) = world.open("place/secret") {
                assert_ne!(fstat(found).unwrap().st_ino, secret);
                opened += 1;
            }
        }
        done.store(true, Ordering::Relaxed);
    });
}
