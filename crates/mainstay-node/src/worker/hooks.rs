//! What is done in a container after its start and before its end.
//!
//! Source: `pkg/kubelet/lifecycle/handlers.go`, and `executePreStopHook` in
//! `pkg/kubelet/kuberuntime/kuberuntime_container.go`.

use std::time::Duration;

use k8s_openapi::api::core::v1::LifecycleHandler;
use mainstay_cri::{ContainerId, ExecSyncRequest, Runtime};
use mainstay_plan::pod::{PodKey, SeenPod};
use tokio::sync::watch;

use super::perform::Performer;

/// Where a hook runs.
pub(super) struct Place<'a> {
    pub(super) key: &'a PodKey,
    pub(super) id: &'a ContainerId,
}

impl Performer {
    /// Runs a hook to its end, or to that of its container. `limit` is how long it is waited for.
    ///
    /// # Errors
    ///
    /// Why it failed. Events do not say it, since it may be a secret.
    pub(super) async fn run_hook(
        &self,
        place: &Place<'_>,
        handler: &LifecycleHandler,
        limit: Option<Duration>,
    ) -> Result<(), String> {
        let ended = ended(self.observer.subscribe(place.key), place.id);
        let late = async {
            match limit {
                Some(limit) => tokio::time::sleep(limit).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            // Given up by the others: the runtime kills a command whose time is over, and the end of a
            // container ends what runs in it.
            done = self.do_hook(place, handler, limit) => done,
            () = ended => Ok(()),
            () = late => Err("it has not ended within the grace period".to_owned()),
        }
    }

    async fn do_hook(
        &self,
        place: &Place<'_>,
        handler: &LifecycleHandler,
        limit: Option<Duration>,
    ) -> Result<(), String> {
        if let Some(exec) = &handler.exec {
            let command = exec.command.clone().unwrap_or_default();
            execute(&*self.runtime, place.id, command, limit).await
        } else if let Some(sleep) = &handler.sleep {
            let seconds = u64::try_from(sleep.seconds).unwrap_or_default();
            tokio::time::sleep(Duration::from_secs(seconds)).await;
            Ok(())
        } else {
            // As a kubelet has it, whose API takes no other kind but for the sake of the past.
            Err("it is of a kind that there is not; use exec or sleep".to_owned())
        }
    }
}

async fn execute(
    runtime: &dyn Runtime,
    id: &ContainerId,
    command: Vec<String>,
    timeout: Option<Duration>,
) -> Result<(), String> {
    let line = command.join(" ");
    let request = ExecSyncRequest { container: id.clone(), command, timeout };
    let ended = runtime.exec_sync(&request).await.map_err(|error| error.chain())?;
    if ended.exit_code == 0 {
        return Ok(());
    }
    let output = [ended.stdout, ended.stderr].concat();
    let output = String::from_utf8_lossy(&output);
    Err(format!("command {line:?} exited with {}: {output:?}", ended.exit_code))
}

/// Resolves when a container does not run any more.
async fn ended(mut seen: watch::Receiver<std::sync::Arc<SeenPod>>, id: &ContainerId) {
    let runs = |seen: &SeenPod| {
        let mut all = seen.sandboxes.iter().flat_map(|sandbox| &sandbox.containers);
        all.any(|container| container.id == *id && !container.has_ended())
    };
    if seen.wait_for(|seen| !runs(seen)).await.is_err() {
        std::future::pending::<()>().await;
    }
}
