//! `mainstay status`

use std::io::Write;
use std::process::ExitCode;

use anyhow::{Context, bail};
use bytes::Bytes;
use clap::Args;
use http_body_util::{BodyExt, Empty};
use hyper::Request;
use hyper_util::rt::TokioIo;
use mainstay_node::http::wire;

use super::Output;
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
        let body = super::runtime()?.block_on(ask(instance, "GET", "/status"))?;
        let mut status: wire::Status = serde_json::from_slice(&body).context(
            "the agent's answer is not understood; it is \
                                                   of another version",
        )?;
        if let Some(name) = &self.pod {
            status.pods.retain(|pod| is_named(pod, name, &status.node));
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
        let well = status.pods.iter().all(|pod| pod.problem.is_none())
            && status.manifests.is_empty()
            && status.sources.iter().all(|source| source.error.is_none());
        Ok(if well { ExitCode::SUCCESS } else { ExitCode::FAILURE })
    }
}

/// Whether a pod is meant by a name: with or without namespace, with or without the node's name.
pub(super) fn is_named(pod: &wire::Pod, wanted: &str, node: &str) -> bool {
    let (namespace, name) = match wanted.split_once('/') {
        Some((namespace, name)) => (Some(namespace), name),
        None => (None, wanted),
    };
    let short = pod.name.strip_suffix(&format!("-{node}")).unwrap_or(&pod.name);
    namespace.is_none_or(|it| it == pod.namespace) && (name == pod.name || name == short)
}

/// Asks the instance's agent.
pub(super) async fn ask(instance: &Instance, method: &str, path: &str) -> anyhow::Result<Bytes> {
    let socket = instance.control_socket();
    let stream = mainstay_linux::socket::connect(&socket).map_err(|error| {
        anyhow::anyhow!(
            "no agent runs for {} ({}: {error}); start it with `mainstay run`",
            instance.root_dir.display(),
            socket.display()
        )
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
    if rows.is_empty() {
        writeln!(out, "no pods")?;
    } else {
        table(out, ["NAMESPACE", "POD", "READY", "STATE", "RESTARTS", "IP"], &rows)?;
    }
    for pod in &status.pods {
        if let Some(problem) = &pod.problem {
            writeln!(out, "\n{}/{}: {problem}", pod.namespace, pod.name)?;
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
    for manifest in &status.manifests {
        writeln!(out, "\n{}", manifest.path)?;
        for note in &manifest.notes {
            writeln!(out, "  {note}")?;
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
