//! `mainstay restart`

use std::process::ExitCode;

use anyhow::{Context, bail};
use clap::Args;
use mainstay_node::http::wire;

use super::pods::is_meant;
use super::status::ask;
use crate::instance::Instance;

/// Stop a pod, with its grace period, and start it anew from its manifest.
#[derive(Debug, Args)]
pub(super) struct Restart {
    /// The pod's name, with or without the node's name; NAMESPACE/NAME where there are several.
    pod: String,
}

impl Restart {
    pub(super) fn run(self, instance: &Instance) -> anyhow::Result<ExitCode> {
        super::runtime()?.block_on(async {
            let body = ask(instance, "GET", "/status").await?;
            let status: wire::Status = serde_json::from_slice(&body)
                .context("the agent's answer is not understood; it is of another version")?;
            let meant: Vec<&wire::Pod> = status
                .pods
                .iter()
                .filter(|pod| is_meant(&self.pod, &pod.namespace, &pod.name, &status.node))
                .collect();
            let pod = match meant.as_slice() {
                [] => bail!("there is no pod {}; `mainstay status` lists them", self.pod),
                [pod] => pod,
                [first, second, ..] => bail!(
                    "{:?} may be {}/{} or {}/{}; name one of them",
                    self.pod,
                    first.namespace,
                    first.name,
                    second.namespace,
                    second.name
                ),
            };
            let path = format!("/pods/{}/{}/restart", pod.namespace, pod.name);
            ask(instance, "POST", &path).await?;
            println!("pod {}/{} is being restarted", pod.namespace, pod.name);
            Ok(ExitCode::SUCCESS)
        })
    }
}
