//! `cargo xtask test-tools`: the programs, directory trees and images that tests use.
//!
//! They are unpacked from Debian's packages into a directory of their own, where
//! `mainstay_testkit::tools` finds them. What is there already is left alone, so that a second run
//! needs no network, unless it was made by another recipe than the present one.

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};

use anyhow::{Context, ensure};

use crate::debian::{self, Packaged, Scratch};
use crate::image::Image;
use crate::process;

/// To be raised with whatever changes what is made: the functions here and in `crate::image`.
const RECIPE: u32 = 1;

/// Names another directory than `target/test-tools`, absolutely.
pub(crate) const DIRECTORY: &str = "MAINSTAY_TEST_TOOLS";

/// Programs that tests start as an operator would, and that start nothing when installed.
const PROGRAMS: &[Packaged<'_>] = &[
    ("ip", "iproute2"),
    ("iptables", "iptables"),
    ("iptables-legacy", "iptables"),
    ("nft", "nftables"),
    ("setpriv", "util-linux"),
];

const BUSYBOX: Tool = Tool {
    name: "busybox",
    packages: &["busybox-static"],
    make: |from, to, _| copy(&from.join("bin/busybox"), to),
};
const BUSYBOX_IMAGE: Tool = Tool { name: "images/busybox.tar", packages: &[], make: busybox_image };
/// What the benchmark needs besides, and no test.
const WRK: Tool = Tool {
    name: "wrk",
    packages: &["wrk", "libluajit2-5.1-2", "libc6", "libgcc-s1", "libssl3"],
    make: |from, to, _| take(from, to),
};
/// Debian's CNI plugins, which are never installed: whoever has them would use them.
const CNI: Tool = Tool {
    name: "cni",
    packages: &["containernetworking-plugins"],
    make: |from, to, _| take(&from.join("usr/lib/cni"), to),
};
/// What has a program see another time, if the loader of that program finds it.
const FAKETIME: Tool = Tool {
    name: "libfaketime.so.1",
    packages: &["libfaketime"],
    make: |from, to, _| {
        let libraries = from.join("usr/lib");
        let library = |entry: fs::DirEntry| entry.path().join("faketime/libfaketimeMT.so.1");
        let mut found = fs::read_dir(&libraries)?.flatten().map(library).filter(|it| it.exists());
        copy(&found.next().with_context(|| format!("none is in {}", libraries.display()))?, to)
    },
};
/// A container runtime that others have made, with what it runs. Its networks are made by [`CNI`].
const CONTAINERD: Tool = Tool {
    name: "containerd",
    packages: &["containerd", "runc", "libseccomp2"],
    make: |from, to, _| take(from, to),
};
/// What it makes sandboxes of.
const PAUSE_IMAGE: Tool = Tool { name: "images/pause.tar", packages: &[], make: pause_image };
/// What the others need stands before them.
const TOOLS: &[Tool] = &[
    BUSYBOX,
    BUSYBOX_IMAGE,
    Tool {
        name: "kubectl",
        packages: &["kubernetes-client"],
        make: |from, to, _| copy(&from.join("usr/bin/kubectl"), to),
    },
    Tool {
        name: "docker-registry",
        packages: &["docker-registry"],
        make: |from, to, _| copy(&from.join("usr/bin/docker-registry"), to),
    },
    Tool {
        name: "nginx",
        // The libraries are those that the package and they themselves depend on.
        packages: &[
            "nginx",
            "nginx-common",
            "libc6",
            "libcrypt1",
            "libpcre2-8-0",
            "libssl3",
            "zlib1g",
        ],
        make: |from, to, _| nginx_tree(from).and_then(|()| take(from, to)),
    },
    Tool {
        name: "images/nginx.tar",
        packages: &[],
        make: |_, to, tools| {
            // It takes SIGTERM for an order to drop its connections.
            let command = &["nginx", "-g", "daemon off;"];
            Image { name: "local/nginx:1", command, stop_signal: "SIGQUIT" }
                .write(&tools.join("nginx"), to)
        },
    },
    Tool {
        name: "etcd",
        packages: &["etcd-server", "etcd-client", "libc6"],
        make: |from, to, _| tree(from).and_then(|()| take(from, to)),
    },
    Tool {
        name: "images/etcd.tar",
        packages: &[],
        make: |_, to, tools| {
            Image { name: "local/etcd:1", command: &["etcd"], stop_signal: "SIGTERM" }
                .write(&tools.join("etcd"), to)
        },
    },
];

/// Something that is made from packages, or from what was made before.
struct Tool {
    /// Its path in the directory of tools.
    name: &'static str,
    packages: &'static [&'static str],
    /// Makes it from the unpacked packages: from there, to here; and where the other tools are.
    make: fn(&Path, &Path, &Path) -> anyhow::Result<()>,
}

/// Brings everything.
pub(crate) fn bring() -> anyhow::Result<()> {
    debian::install(PROGRAMS)?;
    let directory = directory()?;
    let _lock = lock(&directory)?;
    TOOLS.iter().try_for_each(|tool| tool.bring(&directory, &recipe()))?;
    // Nothing is made from them.
    for tool in [CNI, FAKETIME, CONTAINERD, PAUSE_IMAGE] {
        tool.bring(&directory, &format!("{RECIPE}\n{}", tool.line()))?;
    }
    Ok(())
}

/// Brings what the benchmark needs, and says where it is.
pub(crate) fn bring_for_bench() -> anyhow::Result<PathBuf> {
    let directory = directory()?;
    let _lock = lock(&directory)?;
    let also = TOOLS.iter().filter(|tool| ["etcd", "nginx"].contains(&tool.name));
    also.clone().try_for_each(|tool| tool.bring(&directory, &recipe()))?;
    // Nothing is made from it.
    WRK.bring(&directory, &format!("{RECIPE}\n{}", WRK.line()))?;
    Ok(directory)
}

/// Brings containerd with what it runs, and says where it is.
pub(crate) fn bring_containerd() -> anyhow::Result<PathBuf> {
    let directory = directory()?;
    let _lock = lock(&directory)?;
    [BUSYBOX, BUSYBOX_IMAGE].iter().try_for_each(|tool| tool.bring(&directory, &recipe()))?;
    // Nothing is made from them.
    for tool in [CNI, CONTAINERD, PAUSE_IMAGE] {
        tool.bring(&directory, &format!("{RECIPE}\n{}", tool.line()))?;
    }
    Ok(directory)
}

/// Brings the image of busybox only, and says where it is.
pub(crate) fn bring_busybox_image() -> anyhow::Result<PathBuf> {
    let directory = directory()?;
    let _lock = lock(&directory)?;
    BUSYBOX.bring(&directory, &recipe())?;
    BUSYBOX_IMAGE.bring(&directory, &recipe())?;
    Ok(directory.join(BUSYBOX_IMAGE.name))
}

fn directory() -> anyhow::Result<PathBuf> {
    match std::env::var_os(DIRECTORY).map(PathBuf::from) {
        Some(directory) => {
            ensure!(directory.is_absolute(), "${DIRECTORY} has to be an absolute path");
            Ok(directory)
        }
        None => std::path::absolute("target/test-tools").context("there is no current directory"),
    }
}

/// Waits until nobody else brings anything there.
fn lock(directory: &Path) -> anyhow::Result<fs::File> {
    let context = || format!("cannot use {}", directory.display());
    fs::create_dir_all(directory.join("images")).with_context(context)?;
    let file = fs::File::create(directory.join(".lock")).with_context(context)?;
    file.lock().with_context(context)?;
    Ok(file)
}

// === impl Tool ===

impl Tool {
    /// Makes it, unless it is there and was made by the same recipe.
    fn bring(&self, directory: &Path, recipe: &str) -> anyhow::Result<()> {
        let path = directory.join(self.name);
        let record = directory.join(".recipes").join(self.name);
        if path.exists() && fs::read_to_string(&record).is_ok_and(|made_by| made_by == recipe) {
            return Ok(());
        }
        println!("bringing {}", path.display());
        let unpacked = Scratch::new(&directory.join(".unpacked"))?;
        debian::unpack(self.packages, unpacked.path())?;
        // Only what is whole gets the name.
        let made = Scratch::new(&directory.join(".made"))?;
        let whole = made.path().join("whole");
        (self.make)(unpacked.path(), &whole, directory)
            .and_then(|()| if path.is_dir() { debian::remove(&path) } else { Ok(()) })
            .and_then(|()| take(&whole, &path))
            .with_context(|| format!("cannot make {}", path.display()))?;
        record
            .parent()
            .map_or(Ok(()), fs::create_dir_all)
            .and_then(|()| fs::write(&record, recipe))
            .with_context(|| format!("cannot write {}", record.display()))
    }

    /// What is in a recipe of it.
    fn line(&self) -> String {
        format!("{}: {}\n", self.name, self.packages.join(" "))
    }
}

/// How everything is made. One for all, since images are made from what was made before.
fn recipe() -> String {
    let tools: String = TOOLS.iter().map(Tool::line).collect();
    format!("{RECIPE}\n{tools}")
}

/// Gives what was made its name.
fn take(from: &Path, to: &Path) -> anyhow::Result<()> {
    fs::rename(from, to)
        .with_context(|| format!("cannot rename {} to {}", from.display(), to.display()))
}

fn copy(from: &Path, to: &Path) -> anyhow::Result<()> {
    fs::copy(from, to).with_context(|| format!("cannot copy {}", from.display()))?;
    Ok(())
}

/// An image whose program does nothing for ever.
fn pause_image(root: &Path, to: &Path, tools: &Path) -> anyhow::Result<()> {
    fs::create_dir(root.join("bin"))?;
    copy(&tools.join(BUSYBOX.name), &root.join("bin/sleep"))?;
    Image { name: "local/pause:1", command: &["/bin/sleep", "infinity"], stop_signal: "SIGKILL" }
        .write(root, to)
}

/// An image of busybox: every applet in `/bin`.
fn busybox_image(root: &Path, to: &Path, tools: &Path) -> anyhow::Result<()> {
    let busybox = tools.join(BUSYBOX.name);
    let applets = process::output(process::command(&busybox).arg("--list"))?;
    let bin = root.join("bin");
    fs::create_dir(&bin)?;
    copy(&busybox, &bin.join("busybox"))?;
    for applet in applets.lines().filter(|applet| *applet != "busybox") {
        symlink("busybox", bin.join(applet))?;
    }
    accounts(root)?;
    Image { name: "local/busybox:1", command: &["sh"], stop_signal: "SIGTERM" }.write(root, to)
}

/// Makes of unpacked packages a root directory for an image: without what its programs never read,
/// and with what the packages' scripts would have made.
fn tree(root: &Path) -> anyhow::Result<()> {
    let character_sets = format!("usr/lib/{}-linux-gnu/gconv", std::env::consts::ARCH);
    for unread in ["usr/share/doc", "usr/share/lintian", "usr/share/man", &character_sets] {
        debian::remove(&root.join(unread))?;
    }
    accounts(root)
}

/// Users, groups, and the directory that everybody may write to.
fn accounts(root: &Path) -> anyhow::Result<()> {
    let users = "root:x:0:0:root:/root:/bin/sh\n\
                 www-data:x:33:33:www-data:/var/www:/bin/sh\n\
                 nobody:x:65534:65534:nobody:/nonexistent:/bin/sh\n";
    let groups = "root:x:0:\nwww-data:x:33:\nnogroup:x:65534:\n";
    for directory in ["etc", "root", "run", "tmp", "var"] {
        fs::create_dir_all(root.join(directory))?;
    }
    fs::write(root.join("etc/passwd"), users)?;
    fs::write(root.join("etc/group"), groups)?;
    fs::set_permissions(root.join("tmp"), fs::Permissions::from_mode(0o1777))?;
    Ok(())
}

/// nginx as its package's script leaves it: with the default site on port 80, which logs to where
/// containers log.
fn nginx_tree(root: &Path) -> anyhow::Result<()> {
    tree(root)?;
    symlink("../sites-available/default", root.join("etc/nginx/sites-enabled/default"))?;
    fs::create_dir_all(root.join("var/www"))?;
    fs::rename(root.join("usr/share/nginx/html"), root.join("var/www/html"))?;
    symlink("/dev/stdout", root.join("var/log/nginx/access.log"))?;
    symlink("/dev/stderr", root.join("var/log/nginx/error.log"))?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_another_recipe_made_is_made_anew() {
        let path = std::env::temp_dir().join(format!("mainstay-recipes-{}", std::process::id()));
        let scratch = Scratch::new(&path).unwrap();
        let tool = Tool {
            name: "images/tree",
            packages: &[],
            make: |_, to, _| Ok(fs::create_dir(to).and_then(|()| fs::write(to.join("new"), ""))?),
        };
        let tree = path.join("images/tree");
        fs::create_dir_all(&tree).unwrap();
        fs::write(tree.join("old"), "").unwrap();
        let made = || [tree.join("old").exists(), tree.join("new").exists()];

        tool.bring(scratch.path(), "1").unwrap();
        assert_eq!(made(), [false, true]);
        fs::write(tree.join("old"), "").unwrap();
        tool.bring(scratch.path(), "1").unwrap();
        assert_eq!(made(), [true, true]);
        tool.bring(scratch.path(), "2").unwrap();
        assert_eq!(made(), [false, true]);
    }
}
