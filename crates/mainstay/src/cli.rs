//! Commands and their options.

mod check;
mod completion;
mod down;
mod exec;
mod hold;
mod image;
mod logs;
mod nfs;
mod pods;
mod restart;
mod run;
mod status;
mod token;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, Parser, Subcommand, ValueEnum};

use crate::instance::{DEFAULT_ROOT_DIR, DEFAULT_RUN_DIR, Instance};

/// Runs Kubernetes static pods on this machine: a Pod manifest put into a directory runs, taken
/// out it stops, broken it leaves what ran running.
#[derive(Debug, Parser)]
#[command(name = "mainstay", version, about, max_term_width = 100)]
pub(crate) struct Cli {
    #[command(flatten)]
    directories: Directories,
    #[command(subcommand)]
    command: Command,
}

/// Which instance is meant.
#[derive(Debug, Args)]
struct Directories {
    /// Everything durable: images, accepted pods, volumes. With `--run-dir` it says which
    /// instance is meant.
    #[arg(long, global = true, default_value = DEFAULT_ROOT_DIR, value_name = "DIR")]
    root_dir: PathBuf,
    /// Sockets and what may vanish at boot.
    #[arg(long, global = true, default_value = DEFAULT_RUN_DIR, value_name = "DIR")]
    run_dir: PathBuf,
}

#[derive(Debug, Subcommand)]
enum Command {
    Run(Box<run::Run>),
    Check(check::Check),
    Status(status::Status),
    Logs(logs::Logs),
    Exec(exec::Exec),
    Restart(restart::Restart),
    #[command(subcommand)]
    Image(image::Image),
    #[command(subcommand)]
    Token(token::Token),
    Down(down::Down),
    Completion(completion::Completion),
    #[command(hide = true)]
    Hold(hold::Hold),
    #[command(hide = true)]
    Nfs(nfs::Nfs),
}

/// How something is printed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
enum Output {
    /// For people.
    #[default]
    Text,
    /// For programs.
    Json,
}

/// What to do about unknown and duplicate fields, in kubectl's words.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
enum Validate {
    /// They refuse the manifest.
    #[default]
    #[value(alias = "true")]
    Strict,
    /// They are left out, with a warning.
    Warn,
    /// They are left out.
    #[value(alias = "false")]
    Ignore,
}

impl From<Validate> for mainstay_pod::Validation {
    fn from(validate: Validate) -> Self {
        match validate {
            Validate::Strict => Self::Strict,
            Validate::Warn => Self::Warn,
            Validate::Ignore => Self::Ignore,
        }
    }
}

impl Cli {
    /// Carries out the command.
    pub(crate) fn run(self) -> anyhow::Result<ExitCode> {
        let instance = Instance::new(&self.directories.root_dir, &self.directories.run_dir)?;
        match self.command {
            Command::Run(run) => run.run(instance),
            Command::Check(check) => check.run(),
            Command::Status(status) => status.run(&instance),
            Command::Logs(logs) => logs.run(&instance),
            Command::Exec(exec) => exec.run(&instance),
            Command::Restart(restart) => restart.run(&instance),
            Command::Image(image) => image.run(&instance),
            Command::Token(token) => token.run(&instance),
            Command::Down(down) => down.run(&instance),
            Command::Completion(completion) => Ok(completion.run()),
            Command::Hold(hold) => hold.run(),
            Command::Nfs(nfs) => nfs.run(),
        }
    }
}

/// A runtime for a command that waits for something.
fn runtime() -> anyhow::Result<tokio::runtime::Runtime> {
    Ok(tokio::runtime::Builder::new_current_thread().enable_all().build()?)
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn no_flag_is_there_twice() {
        Cli::command().debug_assert();
    }

    /// `/var/lib/kubelet/kubeadm-flags.env` of 1.33 and 1.36, and of somebody who adds some of his own, with the
    /// file of the systemd drop-in. Source: `buildKubeletArgsCommon` in
    /// `cmd/kubeadm/app/phases/kubelet/flags.go`.
    #[test]
    fn what_kubeadm_starts_a_kubelet_with_is_taken() {
        for line in [
            "--container-runtime-endpoint=unix:///var/run/containerd/containerd.sock \
             --pod-infra-container-image=registry.k8s.io/pause:3.10",
            "--container-runtime-endpoint=unix:///var/run/containerd/containerd.sock \
             --hostname-override=n1 \
             --register-with-taints=node-role.kubernetes.io/control-plane=:NoSchedule",
            "--node-ip=192.0.2.7,2001:db8::7 --cgroup-driver=systemd --v=2 --node-labels=a=b \
             --max-pods=200 --fail-swap-on=false",
            "",
        ] {
            let words = [
                "mainstay",
                "run",
                "--bootstrap-kubeconfig=/etc/kubernetes/bootstrap-kubelet.conf",
                "--kubeconfig=/etc/kubernetes/kubelet.conf",
                "--config=/var/lib/kubelet/config.yaml",
            ];
            let parsed = Cli::try_parse_from(words.into_iter().chain(line.split_whitespace()));
            assert!(parsed.is_ok(), "{line}: {}", parsed.unwrap_err());
        }
        for (arguments, expected) in [
            (["--kubeconfig=k", "--server=https://a:1"], "cannot be used with"),
            (["--kubeconfig=k", "--bind-address=0.0.0.0"], "cannot be used with"),
            (["--bootstrap-kubeconfig=b", "--max-pods=1"], "--kubeconfig <FILE>"),
        ] {
            let parsed = Cli::try_parse_from(["mainstay", "run"].into_iter().chain(arguments));
            let error = parsed.unwrap_err().to_string();
            assert!(error.contains(expected), "{error}");
        }
    }
}
