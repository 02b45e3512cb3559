//! `mainstay run`

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context;
use clap::Args;
use mainstay_node::LogBounds;
use mainstay_plan::status::NodeAddresses;
use mainstay_pod::NodeName;
use tokio::signal::unix::{SignalKind, signal};

use super::Validate;
use crate::instance::Instance;
use crate::logging;
use crate::wiring::{NodeConfig, node};

/// Run the node: watch the manifests and keep their pods running.
///
/// It ends with SIGTERM or SIGINT; pods run on, and the next start finds them.
#[derive(Debug, Args)]
pub(super) struct Run {
    /// A directory with Pod manifests (*.yaml, *.yml, *.json), or one manifest. May be given
    /// several times.
    #[arg(long, value_name = "PATH", default_value = "/etc/mainstay/manifests")]
    pod_manifest_path: Vec<PathBuf>,
    /// The node's name, which pods' names end in. The host's name by default.
    #[arg(long, value_name = "NAME")]
    hostname_override: Option<String>,
    /// What to do about unknown and duplicate fields of a manifest.
    #[arg(long, value_enum, default_value_t)]
    validate: Validate,
}

/// How often manifests are looked at although nothing was heard of them.
const MANIFEST_INTERVAL: Duration = Duration::from_secs(5);

/// What one node has to do does not need more, and each has a stack.
const WORKERS: usize = 2;
const BLOCKING_THREADS: usize = 16;

impl Run {
    pub(super) fn run(self, instance: Instance) -> anyhow::Result<ExitCode> {
        logging::start();
        // What whoever started us left open is not for shims and pods.
        mainstay_linux::process::close_on_exec_from(3).context("cannot close inherited files")?;
        let node_name = match self.hostname_override {
            Some(name) => name,
            None => rustix::system::uname().nodename().to_string_lossy().into_owned(),
        };
        let node_name = NodeName::new(&node_name)?;
        let _ownership = instance.own()?;
        let config = NodeConfig {
            log_directory: instance.log_directory(),
            instance,
            node_name,
            manifest_paths: self.pod_manifest_path,
            validation: self.validate.into(),
            manifest_interval: MANIFEST_INTERVAL,
            log_bounds: LogBounds::default(),
            addresses: NodeAddresses::default(),
        };
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(WORKERS)
            .max_blocking_threads(BLOCKING_THREADS)
            .enable_all()
            .build()
            .context("cannot start")?;
        let result = runtime.block_on(async {
            let mut terminate = signal(SignalKind::terminate())?;
            let mut interrupt = signal(SignalKind::interrupt())?;
            let version = env!("CARGO_PKG_VERSION");
            tracing::info!(version, node = config.node_name.as_str(), "mainstay starts");
            let agent = node(config).await?;
            agent
                .run(async {
                    tokio::select! {
                        _ = terminate.recv() => {}
                        _ = interrupt.recv() => {}
                    }
                    tracing::info!("mainstay ends; pods run on");
                })
                .await;
            anyhow::Ok(())
        });
        // File work that is under way is not waited for: it can be done again.
        runtime.shutdown_background();
        result.map(|()| ExitCode::SUCCESS)
    }
}
