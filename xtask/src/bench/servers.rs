//! Other servers, as yardsticks: nginx for reads, etcd for durable writes.

use std::ffi::OsString;
use std::fs::{self, File};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, bail};

use crate::process;

/// How long one may take to start.
const PATIENCE: Duration = Duration::from_secs(30);

/// A server of somebody else's. It ends with this.
pub(crate) struct Server {
    name: &'static str,
    child: Child,
    pub(crate) port: u16,
}

impl Server {
    /// nginx that answers everything with so many bytes, over TLS with this certificate and key.
    pub(crate) fn nginx(
        tools: &Path,
        directory: &Path,
        [certificate, key]: &[PathBuf; 2],
        bytes: usize,
    ) -> anyhow::Result<Self> {
        let directory = directory.join("nginx");
        fs::create_dir_all(&directory)?;
        let port = free_port()?;
        let places = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"].map(|place| {
            let path = directory.join(place);
            format!("{place}_temp_path {};\n", path.display())
        });
        let configuration = format!(
            "daemon off;\nuser root;\nworker_processes auto;\npid {directory}/pid;\n\
             events {{}}\nhttp {{\n{places}access_log off;\ndefault_type application/json;\n\
             keepalive_requests 1000000000;\n\
             server {{\nlisten 127.0.0.1:{port} ssl;\nssl_protocols TLSv1.2 TLSv1.3;\n\
             ssl_certificate {certificate};\nssl_certificate_key {key};\n\
             location / {{ return 200 \"{answer}\"; }}\n}}\n}}\n",
            directory = directory.display(),
            places = places.concat(),
            certificate = certificate.display(),
            key = key.display(),
            answer = "x".repeat(bytes),
        );
        let file = directory.join("nginx.conf");
        fs::write(&file, configuration)?;
        let mut command = served_from(&tools.join("nginx"), "usr/sbin/nginx")?;
        command.arg("-p").arg(&directory).arg("-c").arg(&file).args(["-e", "stderr"]);
        Self::start("nginx", command, &directory, port)
    }

    /// etcd, over TLS with this certificate and key, with its data in `directory`.
    pub(crate) fn etcd(
        tools: &Path,
        directory: &Path,
        [certificate, key]: &[PathBuf; 2],
    ) -> anyhow::Result<Self> {
        let directory = directory.join("etcd");
        fs::create_dir_all(&directory)?;
        let (port, peers) = (free_port()?, free_port()?);
        let (url, peers) =
            (format!("https://127.0.0.1:{port}"), format!("http://127.0.0.1:{peers}"));
        let mut command = served_from(&tools.join("etcd"), "usr/bin/etcd")?;
        command.arg("--data-dir").arg(directory.join("data"));
        command.arg("--cert-file").arg(certificate).arg("--key-file").arg(key);
        command.args(["--listen-client-urls", &url, "--advertise-client-urls", &url]);
        command.args(["--listen-peer-urls", &peers, "--initial-advertise-peer-urls", &peers]);
        command.arg("--initial-cluster").arg(format!("default={peers}"));
        command.args(["--log-level", "error"]);
        Self::start("etcd", command, &directory, port)
    }

    fn start(
        name: &'static str,
        mut command: Command,
        directory: &Path,
        port: u16,
    ) -> anyhow::Result<Self> {
        let log = directory.join("log");
        let file = File::create(&log)?;
        command.stdin(Stdio::null()).stdout(file.try_clone()?).stderr(file);
        let child = command.spawn().with_context(|| format!("cannot start {name}"))?;
        let mut server = Self { name, child, port };
        let deadline = Instant::now() + PATIENCE;
        while TcpStream::connect((Ipv4Addr::LOCALHOST, port)).is_err() {
            let ended = server.child.try_wait()?;
            if ended.is_some() || Instant::now() > deadline {
                let said = fs::read_to_string(&log).unwrap_or_default();
                bail!("{name} does not listen; it says\n{said}");
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        Ok(server)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // nginx has children, which it ends itself.
        let ended = match self.child.try_wait() {
            Ok(Some(_)) => Ok(()),
            _ => process::terminate(&mut self.child).map(|_| ()),
        };
        if let Err(error) = ended {
            eprintln!("{} may still run: {error:#}", self.name);
        }
    }
}

/// A program from unpacked packages, with the libraries that lie there.
pub(crate) fn from_tree(tree: &Path, program: &str) -> anyhow::Result<Command> {
    let [loader, rest @ ..] = words(tree, program)?;
    let mut command = process::command(loader);
    command.args(rest);
    Ok(command)
}

/// The same, of one that also ends when this program is killed.
fn served_from(tree: &Path, program: &str) -> anyhow::Result<Command> {
    let mut command = process::command("setpriv");
    command.args(["--pdeathsig", "TERM"]).args(words(tree, program)?);
    Ok(command)
}

/// The loader of a tree, told where libraries are and what to run. Source: ld.so(8).
fn words(tree: &Path, program: &str) -> anyhow::Result<[OsString; 4]> {
    let tree = std::path::absolute(tree)?;
    let libraries = ["lib", "usr/lib"]
        .map(|directory| tree.join(format!("{directory}/{}-linux-gnu", std::env::consts::ARCH)));
    let listed = fs::read_dir(&libraries[0]);
    let listed = listed.with_context(|| format!("cannot list {}", libraries[0].display()))?;
    let names = listed.flatten().map(|entry| entry.file_name());
    let loader = names.filter(|name| name.to_string_lossy().starts_with("ld-linux")).min();
    let loader = loader.with_context(|| format!("{} has no loader", tree.display()))?;
    let loader = libraries[0].join(loader).into();
    let libraries = std::env::join_paths(&libraries)?;
    Ok([loader, "--library-path".into(), libraries, tree.join(program).into()])
}

/// A port that nobody has at the moment.
fn free_port() -> anyhow::Result<u16> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).context("there is no free port")?;
    Ok(listener.local_addr()?.port())
}
