//! What is done with an nfs volume in a process of its own.

use std::ffi::OsString;
use std::fs::DirBuilder;
use std::io;
use std::net::{SocketAddr, ToSocketAddrs, UdpSocket};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use mainstay_linux::mount::{self, Attributes};
use mainstay_linux::path::open_directory;
use rustix::io::Errno;

use super::super::sub_path;

/// The server's port. Of older servers the kernel asks their port mapper.
const PORT: u16 = 2049;

/// In the order in which they are tried, as by mount.nfs(8).
const VERSIONS: [&str; 4] = ["4.2", "4.1", "4.0", "3"];

/// Something that may have to wait for a server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NfsHelper {
    /// Mount a directory.
    Mount {
        /// A name or an address.
        server: String,
        /// As the server exports it.
        path: String,
        /// Where; made if it is missing.
        target: PathBuf,
        /// Whether nothing can be written through it.
        readonly: bool,
    },
    /// Ask the server, and make a part of a volume if it is missing.
    Look {
        /// Where it is mounted.
        volume: PathBuf,
        /// What below it.
        part: Option<PathBuf>,
    },
    /// Unmount.
    Unmount {
        /// What.
        target: PathBuf,
        /// Without waiting for what is under way.
        force: bool,
    },
}

impl NfsHelper {
    /// As arguments of a program.
    pub fn arguments(&self) -> Vec<OsString> {
        match self {
            Self::Mount { server, path, target, readonly } => {
                let word = if *readonly { "mount-ro" } else { "mount" };
                vec![word.into(), server.into(), path.into(), target.into()]
            }
            Self::Look { volume, part } => {
                let part = part.iter().map(|part| part.clone().into_os_string());
                [OsString::from("look"), volume.into()].into_iter().chain(part).collect()
            }
            Self::Unmount { target, force } => {
                vec![if *force { "unmount-force" } else { "unmount" }.into(), target.into()]
            }
        }
    }

    /// The other way round.
    pub fn parse(arguments: &[OsString]) -> Option<Self> {
        let (word, rest) = arguments.split_first()?;
        let (word, text) = (word.to_str()?, |text: &OsString| text.clone().into_string().ok());
        Some(match (word, rest) {
            ("mount" | "mount-ro", [server, path, target]) => Self::Mount {
                server: text(server)?,
                path: text(path)?,
                target: target.into(),
                readonly: word == "mount-ro",
            },
            ("look", [volume]) => Self::Look { volume: volume.into(), part: None },
            ("look", [volume, part]) => {
                Self::Look { volume: volume.into(), part: Some(part.into()) }
            }
            ("unmount" | "unmount-force", [target]) => {
                Self::Unmount { target: target.into(), force: word == "unmount-force" }
            }
            _ => return None,
        })
    }
}

/// Does it, for as long as it takes.
///
/// # Errors
///
/// What the kernel or the server says.
pub fn help(task: &NfsHelper) -> io::Result<()> {
    match task {
        NfsHelper::Mount { server, path, target, readonly } => {
            mount_from(server, path, target, *readonly)
        }
        NfsHelper::Look { volume, part } => {
            rustix::fs::statfs(volume)?;
            part.as_ref().map_or(Ok(()), |part| sub_path::prepare(volume, part))
        }
        NfsHelper::Unmount { target, force: false } => mount::unmount(target),
        NfsHelper::Unmount { target, force: true } => mount::abandon(target),
    }
}

fn mount_from(server: &str, path: &str, target: &Path, readonly: bool) -> io::Result<()> {
    DirBuilder::new().recursive(true).mode(0o750).create(target)?;
    let unknown = |error: io::Error| {
        io::Error::new(error.kind(), format!("cannot find the server {server:?}: {error}"))
    };
    // With the brackets of a URL too.
    let host = server.trim_start_matches('[').trim_end_matches(']');
    let addresses: Vec<_> = (host, PORT).to_socket_addrs().map_err(unknown)?.collect();
    let mut last = unknown(io::Error::other("it has no address"));
    for address in addresses {
        match new_mount(host, path, address, readonly) {
            Ok(mounted) => return mount::attach(mounted, open_directory(target)?),
            Err(error) => last = error,
        }
    }
    Err(last)
}

/// Mounts with the newest version that the server speaks.
fn new_mount(
    host: &str,
    path: &str,
    address: SocketAddr,
    readonly: bool,
) -> io::Result<std::os::fd::OwnedFd> {
    let attributes = Attributes { readonly, ..Attributes::default() };
    let mut last = io::Error::from(Errno::PROTONOSUPPORT);
    for version in VERSIONS {
        match mount::new("nfs", &options(host, path, address, version)?, attributes) {
            Err(error) if speaks_another(&error) => last = error,
            Err(error) if Errno::from_io_error(&error) == Some(Errno::NODEV) => {
                let why = "this kernel has no client for NFS; its module nfs is missing";
                return Err(io::Error::new(io::ErrorKind::Unsupported, why));
            }
            other => return other,
        }
    }
    Err(last)
}

/// Whether the server, or the kernel, does not know the version.
fn speaks_another(error: &io::Error) -> bool {
    matches!(Errno::from_io_error(error), Some(Errno::PROTONOSUPPORT | Errno::INVAL))
}

fn options(
    host: &str,
    path: &str,
    address: SocketAddr,
    version: &str,
) -> io::Result<Vec<(String, String)>> {
    let (host, any, protocol) = match address {
        SocketAddr::V4(_) => (host.to_owned(), "0.0.0.0:0", "tcp"),
        SocketAddr::V6(_) => (format!("[{host}]"), "[::]:0", "tcp6"),
    };
    // The address that the server sees of this machine; nothing is sent.
    let own = UdpSocket::bind(any)?;
    own.connect(address)?;
    let own = own.local_addr()?.ip().to_string();
    let options = [
        ("source", format!("{host}:{path}")),
        ("vers", version.to_owned()),
        ("addr", address.ip().to_string()),
        ("clientaddr", own),
        ("proto", protocol.to_owned()),
    ];
    Ok(options.map(|(name, value)| (name.to_owned(), value)).into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arguments_are_understood_as_they_were_meant() {
        let mount = |readonly| NfsHelper::Mount {
            server: "fd00::1".into(),
            path: "/a b".into(),
            target: "/t".into(),
            readonly,
        };
        let look = |part: Option<&str>| NfsHelper::Look {
            volume: "/v".into(),
            part: part.map(PathBuf::from),
        };
        let unmount = |force| NfsHelper::Unmount { target: "/t".into(), force };
        for task in [
            mount(true),
            mount(false),
            look(None),
            look(Some("a/b")),
            unmount(true),
            unmount(false),
        ] {
            assert_eq!(NfsHelper::parse(&task.arguments()), Some(task));
        }
        for odd in [&[][..], &["mount".into()], &["fetch".into(), "x".into()]] {
            assert_eq!(NfsHelper::parse(odd), None);
        }
    }

    #[test]
    fn the_kernel_is_told_where_the_server_is() {
        let of = |host, address: &str| {
            let options = options(host, "/x", address.parse().unwrap(), "4.2").unwrap();
            options
                .iter()
                .map(|(name, value)| format!("{name}={value}"))
                .collect::<Vec<_>>()
                .join(",")
        };
        assert_eq!(
            of("server", "127.0.0.1:2049"),
            "source=server:/x,vers=4.2,addr=127.0.0.1,clientaddr=127.0.0.1,proto=tcp"
        );
        assert_eq!(
            of("::1", "[::1]:2049"),
            "source=[::1]:/x,vers=4.2,addr=::1,clientaddr=::1,proto=tcp6"
        );
    }

    /// Here the kernel has no client, or there is no server; neither hangs.
    #[test]
    fn what_cannot_be_mounted_says_why() {
        if !mainstay_testkit::tools::is_root() {
            return;
        }
        let directory = tempfile::tempdir().unwrap();
        let target = directory.path().join("volume");
        let refused = mount_from("127.0.0.1", "/x", &target, false).unwrap_err().to_string();
        let known = ["no client for NFS", "refused", "not supported"];
        assert!(known.iter().any(|it| refused.contains(it)), "{refused}");
        let unknown = mount_from("no.such.server.invalid", "/x", &target, false).unwrap_err();
        assert!(unknown.to_string().starts_with("cannot find the server"), "{unknown}");
    }
}
