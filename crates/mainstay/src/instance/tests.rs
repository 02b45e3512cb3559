use std::os::unix::fs::symlink;
use std::time::Duration;

use expect_test::{Expect, expect};
use mainstay_node::PodsGroup;

use super::*;
use crate::systemd::DelegatedGroup;

/// An instance whose directories are not there yet.
fn instance(directory: &Path) -> Instance {
    Instance::new(&directory.join("root"), &directory.join("run")).unwrap()
}

fn node(instance: &Instance) -> NodeRecord {
    NodeRecord {
        root_dir: instance.root_dir.clone(),
        run_dir: instance.run_dir.clone(),
        node_name: "n1".into(),
        cgroup_root: "/mainstay.slice/mainstay-pods.service".into(),
        runtime_socket: None,
        log_directory: "/var/log/elsewhere".into(),
    }
}

fn mode(path: &Path) -> u32 {
    fs::metadata(path).unwrap().permissions().mode() & 0o7777
}

#[test]
fn an_instance_is_the_same_one_however_it_is_spelled() {
    let directory = tempfile::tempdir().unwrap();
    let real = directory.path().canonicalize().unwrap().join("real");
    let link = directory.path().join("link");
    fs::create_dir(&real).unwrap();
    symlink("real", &link).unwrap();
    let new = |base: &Path| Instance::new(&base.join("root"), &base.join("a/run")).unwrap();
    let check = || {
        assert_eq!(new(&link).root_dir, real.join("root"));
        assert_eq!(new(&link).run_dir, real.join("a/run"));
        assert_eq!(new(&link).name(), new(&real).name());
        assert_eq!(Instance::new(&link, &link).unwrap().root_dir.as_os_str(), real.as_os_str());
    };
    check();
    fs::create_dir(real.join("root")).unwrap();
    check();
}

#[test]
fn the_default_root_directory_keeps_its_names_behind_a_link() {
    let directory = tempfile::tempdir().unwrap();
    let (disk, default) = (directory.path().join("disk"), directory.path().join("default"));
    fs::create_dir(&disk).unwrap();
    symlink(&disk, &default).unwrap();
    let new = |root: &Path| Instance::with_default(root, &default.join("run"), &default).unwrap();
    for root in [&default, &disk] {
        let instance = new(root);
        assert_eq!(instance.root_dir, disk.canonicalize().unwrap());
        assert_eq!(instance.name(), "mainstay");
        assert_eq!(instance.log_directory(), Path::new("/var/log/pods"));
    }
    assert_ne!(new(&disk.join("other")).name(), "mainstay");
}

#[test]
fn what_was_there_keeps_its_rights() {
    let directory = tempfile::tempdir().unwrap();
    let instance = instance(directory.path());
    fs::create_dir(&instance.root_dir).unwrap();
    fs::set_permissions(&instance.root_dir, fs::Permissions::from_mode(0o1777)).unwrap();
    let _ownership = instance.own().unwrap();
    assert_eq!((mode(&instance.root_dir), mode(&instance.run_dir)), (0o1777, 0o711));
    assert!(instance.own().unwrap_err().to_string().contains("is in use by another mainstay"));
}

#[test]
fn how_a_node_was_run_is_known_from_either_directory_and_never_forgotten() {
    let directory = tempfile::tempdir().unwrap();
    let instance = instance(directory.path());
    assert_eq!(instance.node().unwrap().cgroup_root, instance.cgroup_root());
    assert!(!instance.exists(), "looking makes nothing");
    let ownership = instance.own().unwrap();
    assert_eq!(instance.node().unwrap().log_directory, instance.log_directory());
    instance.remember(&node(&instance)).unwrap();
    drop(ownership);
    // Neither a pull nor the next owner takes it for a new one.
    instance.create().unwrap();
    drop(instance.own().unwrap());
    for gone in [&instance.run_dir, &instance.root_dir] {
        assert_eq!(instance.node().unwrap(), node(&instance));
        fs::remove_dir_all(gone).unwrap();
    }
}

#[test]
fn records_that_are_not_understood_are_refused() {
    let directory = tempfile::tempdir().unwrap();
    let instance = instance(directory.path());
    instance.create().unwrap();
    let check = |text: &str, expected: Expect| {
        fs::write(instance.root_dir.join("instance.json"), text).unwrap();
        let error = format!("{:#}", instance.node().unwrap_err());
        expected.assert_eq(&error.replace(instance.root_dir.to_str().unwrap(), "ROOT"));
    };
    check(
        r#"{"version":2,"node":null}"#,
        expect!["ROOT/instance.json is of version 2, and this mainstay knows 1; use a newer one"],
    );
    check(
        "",
        expect![
            "ROOT/instance.json is damaged; remove it, and `mainstay run` writes it anew: EOF while parsing a value at line 1 column 0"
        ],
    );
}

#[test]
fn directories_of_somebody_else_are_refused() {
    let directory = tempfile::tempdir().unwrap();
    let base = directory.path().canonicalize().unwrap();
    let here = instance(&base);
    let refusal = |instance: &Instance, expected: Expect| {
        let error = instance.verify_own().unwrap_err().to_string();
        expected.assert_eq(&error.replace(base.to_str().unwrap(), "DIR"));
    };
    here.verify_own().unwrap();
    fs::create_dir_all(here.root_dir.join("images")).unwrap();
    refusal(
        &here,
        expect![
            "DIR/root has files and no instance.json, so it is not known to be mainstay's, and is left alone; is it the directory that `mainstay run` was given?"
        ],
    );
    fs::remove_dir(here.root_dir.join("images")).unwrap();
    let ownership = here.own().unwrap();
    here.verify_own().unwrap();
    here.remember(&node(&here)).unwrap();
    drop(ownership);
    here.verify_own().unwrap();
    // After the machine was restarted.
    fs::rename(&here.run_dir, base.join("run-2")).unwrap();
    here.verify_own().unwrap();
    let other = Instance::new(&base.join("root-2"), &base.join("run-2")).unwrap();
    refusal(
        &other,
        expect![
            "DIR/run-2 belongs with DIR/root, and not with DIR/root-2; give the --root-dir and the --run-dir that `mainstay run` was given"
        ],
    );
    let mixed = Instance::new(&base.join("root"), &base.join("run-2")).unwrap();
    refusal(
        &mixed,
        expect![
            "DIR/root belongs with DIR/run, and not with DIR/run-2; give the --root-dir and the --run-dir that `mainstay run` was given"
        ],
    );
    // It was moved to another disk, with a link where it was.
    fs::create_dir(base.join("disk")).unwrap();
    fs::rename(base.join("root"), base.join("disk/root")).unwrap();
    symlink("disk/root", base.join("root")).unwrap();
    fs::rename(base.join("run-2"), base.join("run")).unwrap();
    instance(&base).verify_own().unwrap();
    // A disk that is mounted there has this.
    fs::create_dir_all(base.join("root-3/lost+found")).unwrap();
    Instance::new(&base.join("root-3"), &base.join("run-3")).unwrap().verify_own().unwrap();
}

#[test]
fn what_is_not_mainstays_is_not_removed_and_removal_can_be_repeated() {
    let directory = tempfile::tempdir().unwrap();
    let instance = instance(directory.path());
    let _ownership = instance.own().unwrap();
    instance.remember(&node(&instance)).unwrap();
    for name in ["store/layers", "ledger", "images", "log/pods", "family photos"] {
        fs::create_dir_all(instance.root_dir.join(name)).unwrap();
    }
    fs::write(instance.root_dir.join("network.tmp"), "half").unwrap();
    fs::create_dir(instance.run_dir.join("sandboxes")).unwrap();
    let grace = Duration::from_secs(60);
    DelegatedGroup(instance.clone()).keep_longest_grace(grace).unwrap();
    fs::write(instance.run_dir.join("longest-grace.new"), "6").unwrap();
    instance.remove_run_dir().unwrap();
    for _ in 0..2 {
        let error = instance.remove_root_dir().unwrap_err().to_string();
        assert!(error.contains("has what is not mainstay's: family photos; take it"), "{error}");
        let left = names_in(&instance.root_dir).unwrap();
        assert_eq!(left, ["family photos", "instance.json", "lock"]);
        instance.verify_own().unwrap();
    }
    fs::remove_dir(instance.root_dir.join("family photos")).unwrap();
    // As it is when a removal was interrupted between its last steps.
    fs::remove_file(instance.root_dir.join("instance.json")).unwrap();
    instance.verify_own().unwrap();
    instance.remove_root_dir().unwrap();
    instance.remove_root_dir().unwrap();
    assert!(!instance.exists());
}
