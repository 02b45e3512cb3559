//! `mainstay status`

use std::io::{self, Write};
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context, bail};
use bytes::Bytes;
use clap::Args;
use http_body_util::{BodyExt, Empty};
use hyper::Request;
use hyper_util::rt::TokioIo;
use k8s_openapi::api::core::v1::PodStatus;
use mainstay_cri::{ContainerStatus, PodSandboxState};
use mainstay_node::http::wire;
use mainstay_plan::labels;

use super::Output;
use super::pods::{self, is_meant};
use crate::instance::Instance;

/// Show what runs, what does not, and why.
///
/// Exit status 0 when all is as it should be, 1 when something is not or no agent runs.
#[derive(Debug, Args)]
pub(super) struct Status {
    /// One pod, with its events: its name, with or without the node's name and the namespace.
    pod: Option<String>,
    /// How to print it.
    #[arg(short, long, value_enum, default_value_t)]
    output: Output,
}

impl Status {
    pub(super) fn run(self, instance: &Instance) -> anyhow::Result<ExitCode> {
        let mut status = super::runtime()?.block_on(look(instance))?;
        if let Some(name) = &self.pod {
            let node = status.node.clone();
            status.pods.retain(|pod| is_meant(name, &pod.namespace, &pod.name, &node));
            if let Some(missing) = status.runtime.iter().find(|_| is_blind(&status)) {
                bail!("{}", missing.message);
            }
            if status.pods.is_empty() {
                bail!("there is no pod {name}; `mainstay status` lists those that there are");
            }
        }
        let mut out = std::io::stdout().lock();
        match self.output {
            Output::Json => {
                serde_json::to_writer_pretty(&mut out, &status)?;
                writeln!(out)?;
            }
            Output::Text => print(&mut out, &status, self.pod.is_some())?,
        }
        Ok(if is_all_well(&status) { ExitCode::SUCCESS } else { ExitCode::FAILURE })
    }
}

/// Whether neither an agent nor a runtime tells which pods there are.
fn is_blind(status: &wire::Status) -> bool {
    !status.agent && status.runtime.iter().any(|condition| !condition.status)
}

/// Whether all is as it should be. What was adjusted in a manifest is worth a note and no more.
fn is_all_well(status: &wire::Status) -> bool {
    status.agent
        && status.pods.iter().all(is_well)
        && status.manifests.iter().flat_map(|it| &it.notes).all(|note| !note.is_error())
        && status.sources.iter().all(|source| source.error.is_none())
        && status.runtime.iter().all(|condition| condition.status)
}

/// Whether a pod is as it should be: it runs, or it ran to its end with success.
fn is_well(pod: &wire::Pod) -> bool {
    pod.problem.is_none() && (pod.ready == pod.containers || pod.state == "Completed")
}

/// What the agent says, or, if there is none, what can be seen without it.
async fn look(instance: &Instance) -> anyhow::Result<wire::Status> {
    match ask(instance, "GET", "/status").await {
        Ok(body) => serde_json::from_slice(&body)
            .context("the agent's answer is not understood; it is of another version"),
        Err(error) if error.is::<NoAgent>() => see(instance).await,
        Err(error) => Err(error),
    }
}

/// What runs, as far as it can be seen without an agent.
async fn see(instance: &Instance) -> anyhow::Result<wire::Status> {
    let mut status = wire::Status::default();
    let Some(runtime) = pods::visit(instance).await? else { return Ok(status) };
    let seen = match pods::sandboxes(&*runtime).await {
        Err(error) if pods::is_away(&error) => {
            let (kind, message) = ("RuntimeReady".to_owned(), format!("{error:#}"));
            status.runtime.push(wire::Condition { kind, status: false, message });
            return Ok(status);
        }
        seen => seen?,
    };
    for seen in seen {
        let sandbox = &seen.sandbox;
        if let Some(node) = sandbox.annotations.get(labels::NODE_NAME) {
            status.node.clone_from(node);
        }
        let running = seen.containers.iter().filter(|it| pods::is_running(it)).count();
        let ready = sandbox.state == PodSandboxState::Ready;
        status.pods.push(wire::Pod {
            namespace: sandbox.metadata.namespace.clone(),
            name: sandbox.metadata.name.clone(),
            uid: sandbox.metadata.uid.clone(),
            state: if ready { "Running" } else { "NotReady" }.to_owned(),
            ready: running,
            containers: seen.containers.len(),
            restarts: seen.containers.iter().filter_map(restarts).sum(),
            status: PodStatus {
                pod_ip: seen.ips.first().map(ToString::to_string),
                ..PodStatus::default()
            },
            ..wire::Pod::default()
        });
    }
    Ok(status)
}

fn restarts(container: &ContainerStatus) -> Option<i32> {
    container.annotations.get(labels::RESTART_COUNT)?.parse().ok()
}

/// Nobody listens on the control socket.
#[derive(Debug, thiserror::Error)]
#[error("no agent runs for {}; start it with `mainstay run`", root_dir.display())]
struct NoAgent {
    root_dir: PathBuf,
    #[source]
    source: io::Error,
}

/// Asks the instance's agent.
pub(super) async fn ask(instance: &Instance, method: &str, path: &str) -> anyhow::Result<Bytes> {
    let socket = instance.control_socket();
    let stream =
        mainstay_linux::socket::connect(&socket).map_err(|source| match source.kind() {
            io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused => {
                NoAgent { root_dir: instance.root_dir.clone(), source }.into()
            }
            _ => anyhow::Error::from(source).context(format!("cannot ask {}", socket.display())),
        })?;
    stream.set_nonblocking(true)?;
    let stream = tokio::net::UnixStream::from_std(stream)?;
    let (mut sender, connection) =
        hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
    let request = Request::builder()
        .method(method)
        .uri(path)
        .header("host", "mainstay")
        .body(Empty::<Bytes>::new())?;
    let answer = async {
        let response = sender.send_request(request).await?;
        let status = response.status();
        let body = response.into_body().collect().await?.to_bytes();
        if !status.is_success() {
            bail!("{}", String::from_utf8_lossy(&body));
        }
        Ok(body)
    };
    tokio::select! {
        answer = answer => answer,
        ended = connection => {
            ended?;
            bail!("the agent ended the conversation")
        }
    }
}

fn print(out: &mut impl Write, status: &wire::Status, detailed: bool) -> std::io::Result<()> {
    let rows: Vec<[String; 6]> = status
        .pods
        .iter()
        .map(|pod| {
            [
                pod.namespace.clone(),
                pod.name.clone(),
                format!("{}/{}", pod.ready, pod.containers),
                pod.state.clone(),
                pod.restarts.to_string(),
                pod.status.pod_ip.clone().unwrap_or_else(|| "-".to_owned()),
            ]
        })
        .collect();
    if !status.agent {
        writeln!(out, "no agent runs; what runs, runs on, and nothing new is started\n")?;
    }
    if rows.is_empty() {
        if !is_blind(status) {
            writeln!(out, "no pods")?;
        }
    } else {
        table(out, ["NAMESPACE", "POD", "READY", "STATE", "RESTARTS", "IP"], &rows)?;
    }
    for pod in &status.pods {
        if let Some(problem) = &pod.problem {
            writeln!(out, "\n{}/{}: {problem}", pod.namespace, pod.name)?;
        }
        if let Some(warning) = &pod.warning {
            writeln!(out, "\n{}/{}: {warning}", pod.namespace, pod.name)?;
        }
        if detailed {
            writeln!(out, "\nmanifest: {}", pod.manifest.as_deref().unwrap_or("-"))?;
            for event in &pod.events {
                let times = if event.count > 1 {
                    format!(" ({} times)", event.count)
                } else {
                    String::new()
                };
                let (kind, reason, message) = (&event.kind, &event.reason, &event.message);
                writeln!(out, "{}  {kind}  {reason}: {message}{times}", event.last)?;
            }
        }
    }
    if detailed {
        return Ok(());
    }
    for condition in status.runtime.iter().filter(|it| !it.message.is_empty()) {
        writeln!(out, "\n{}: {}", condition.kind, condition.message)?;
    }
    for manifest in &status.manifests {
        writeln!(out, "\n{}", manifest.path)?;
        for note in &manifest.notes {
            writeln!(out, "  {}", note.message)?;
        }
    }
    for source in &status.sources {
        if let Some(error) = &source.error {
            writeln!(out, "\n{}: cannot be looked at: {error}", source.path)?;
        }
        if !source.ignored.is_empty() {
            writeln!(
                out,
                "\n{}: not read, by their names: {}",
                source.path,
                source.ignored.join(", ")
            )?;
        }
    }
    Ok(())
}

/// Columns, as wide as their widest cell.
pub(super) fn table<const N: usize>(
    out: &mut impl Write,
    head: [&str; N],
    rows: &[[String; N]],
) -> std::io::Result<()> {
    let width = |n: usize| {
        let cells = rows.iter().map(|row| row[n].chars().count());
        cells.chain([head[n].len()]).max().unwrap_or(0)
    };
    let widths: Vec<usize> = (0..N).map(width).collect();
    let mut line = |cells: &[String]| {
        let padded: Vec<String> =
            cells.iter().zip(&widths).map(|(cell, width)| format!("{cell:width$}")).collect();
        writeln!(out, "{}", padded.join("  ").trim_end())
    };
    line(&head.map(str::to_owned))?;
    rows.iter().try_for_each(|row| line(row))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn warnings_about_manifests_are_no_failure() {
        let with = |severity: &str| {
            let note = wire::Note { severity: severity.to_owned(), message: "a note".into() };
            let manifests = vec![wire::Manifest { path: "web.yaml".into(), notes: vec![note] }];
            wire::Status { agent: true, manifests, ..wire::Status::default() }
        };
        assert!(is_all_well(&with("warning")));
        assert!(!is_all_well(&with("error")));
        assert!(!is_all_well(&wire::Status { agent: false, ..with("warning") }));
    }
}
