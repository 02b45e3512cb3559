//! What is done in a container after its start and before its end.
//!
//! Source: `pkg/kubelet/lifecycle/handlers.go`, and `executePreStopHook` in
//! `pkg/kubelet/kuberuntime/kuberuntime_container.go`.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::core::v1::{Container, HTTPGetAction, LifecycleHandler};
use mainstay_cri::{ContainerId, ExecSyncRequest, Runtime};
use mainstay_plan::lifecycle;
use mainstay_plan::pod::{Goal, PodKey, RunGoal, SeenPod, SeenSandbox};
use mainstay_plan::probe::http_get;
use tokio::sync::watch;

use super::perform::{Done, PerformError, Performer, Retry, container};
use crate::probe::{self, PLAIN_ANSWER};
use crate::publish::{About, EventKind, about, about_seen};

/// Where a hook runs.
struct Place<'a> {
    key: &'a PodKey,
    id: &'a ContainerId,
    /// The container, for the names of its ports.
    container: &'a Container,
    /// Where the pod can be reached.
    address: Option<IpAddr>,
    about: About,
}

impl Performer {
    /// Does what is to be done after a container's start.
    pub(super) async fn post_start(
        &self,
        key: &PodKey,
        run: &RunGoal,
        seen: &SeenPod,
        id: &ContainerId,
        name: &str,
    ) -> Result<Done, PerformError> {
        let Some(container) = container(run, name) else { return Ok(Done::AsAsked) };
        let Some(handler) = lifecycle::post_start(container) else { return Ok(Done::AsAsked) };
        let address = seen.sandbox_of(id).and_then(|sandbox| self.address(Some(run), sandbox));
        let place = Place { key, id, container, address, about: about(&run.pod, Some(name)) };
        self.run_hook(&place, handler, None).await.map_err(|why| {
            tracing::debug!(pod = %key, container = name, why, "a postStart hook failed");
            PerformError {
                reason: "PostStartHookError",
                message: lifecycle::failure(handler, name, &run.pod, &why),
                retry: Retry::WhenChanged,
            }
        })?;
        Ok(Done::AsAsked)
    }

    /// Does what is to be done before a container's end, of whatever version of the pod. How it went
    /// changes nothing.
    pub(super) async fn pre_stop(
        &self,
        key: &PodKey,
        goal: &Goal,
        seen: &SeenPod,
        id: &ContainerId,
        hook: &str,
        grace: Duration,
    ) {
        let Some(sandbox) = seen.sandbox_of(id) else { return };
        let Some(ends) = sandbox.containers.iter().find(|it| it.id == *id) else { return };
        let run = goal.pod().filter(|run| run.pod.uid() == sandbox.uid);
        let about = about_seen(key, goal, sandbox, &ends.name);
        let place = Place {
            key,
            id,
            // Ports have been noted by their numbers.
            container: &Container::default(),
            address: self.address(run, sandbox),
            about,
        };
        let done = match lifecycle::read(hook) {
            Some(handler) => self.run_hook(&place, &handler, Some(grace)).await,
            None => Err("what is noted of it with the container is not a handler".to_owned()),
        };
        let Err(why) = done else { return };
        tracing::debug!(pod = %key, container = ends.name, why, "a preStop hook failed");
        let message = "PreStopHook failed".to_owned();
        let (kind, reason) = (EventKind::Warning, "FailedPreStopHook");
        self.events.announce(key, place.about, kind, reason, message);
    }

    /// Where a pod can be reached.
    fn address(&self, run: Option<&RunGoal>, sandbox: &SeenSandbox) -> Option<IpAddr> {
        // Of a version that is not known any more only the sandbox tells: with a network of its own it has addresses.
        let on_host = match run {
            Some(run) => run.pod.is_host_network(),
            None => sandbox.ready && sandbox.ips.is_empty(),
        };
        match on_host {
            true => self.node_addresses().ips.first().copied(),
            false => sandbox.ips.first().copied(),
        }
    }

    /// Runs a hook to its end, or to that of its container. `limit` is how long it is waited for.
    ///
    /// # Errors
    ///
    /// Why it failed. Events do not say it, since it may be a secret.
    async fn run_hook(
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
            // Given up by the others: the end of a container ends what runs in it.
            done = self.do_hook(place, handler) => done,
            () = ended => Ok(()),
            () = late => Ok(()),
        }
    }

    async fn do_hook(&self, place: &Place<'_>, handler: &LifecycleHandler) -> Result<(), String> {
        if let Some(exec) = &handler.exec {
            let command = exec.command.clone().unwrap_or_default();
            execute(&*self.runtime, place.id, command).await
        } else if let Some(get) = &handler.http_get {
            self.get(place, get).await
        } else if let Some(sleep) = &handler.sleep {
            let seconds = u64::try_from(sleep.seconds).unwrap_or_default();
            tokio::time::sleep(Duration::from_secs(seconds)).await;
            Ok(())
        } else {
            // As a kubelet has it, whose API takes no other kind but for the sake of the past.
            Err("it is of a kind that there is not; use exec, httpGet or sleep".to_owned())
        }
    }

    /// Source: `runHTTPHandler`.
    async fn get(&self, place: &Place<'_>, get: &HTTPGetAction) -> Result<(), String> {
        let named = get.host.as_ref().is_some_and(|host| !host.is_empty());
        let address = match place.address {
            Some(address) => address.to_string(),
            None if named => String::new(),
            None => return Err("the pod has no address".to_owned()),
        };
        let mut request = http_get(get, place.container, &address, "lifecycle")?;
        let tls = mainstay_pki::unverified_client().map_err(|error| mainstay_cri::chain(&error))?;
        let tls = Arc::new(tls);
        let answered = probe::reach(request.clone(), &tls).await;
        if !answered.as_ref().is_err_and(|why| why.ends_with(PLAIN_ANSWER)) {
            return answered;
        }
        request.tls = false;
        request.headers.retain(|(name, _)| !name.eq_ignore_ascii_case("authorization"));
        let server = request.authority.clone();
        if probe::reach(request, &tls).await.is_err() {
            return answered;
        }
        let message = format!(
            "request to HTTPS lifecycle hook {server} got HTTP response, retry with HTTP succeeded"
        );
        let reason = "LifecycleHTTPFallback";
        self.events.show(place.about.clone(), EventKind::Warning, reason, message);
        Ok(())
    }
}

async fn execute(
    runtime: &dyn Runtime,
    id: &ContainerId,
    command: Vec<String>,
) -> Result<(), String> {
    let line = command.join(" ");
    let request = ExecSyncRequest { container: id.clone(), command, timeout: None };
    let ended = runtime.exec_sync(&request).await;
    let ended = ended.map_err(|error| format!("{}, message: \"\"", error.chain()))?;
    if ended.exit_code == 0 {
        return Ok(());
    }
    let stderr = String::from_utf8_lossy(&ended.stderr).into_owned();
    let output = [ended.stdout, ended.stderr].concat();
    let output = String::from_utf8_lossy(&output);
    // In the kubelet's words.
    let code = ended.exit_code;
    Err(format!("command '{line}' exited with {code}: {stderr}, message: {output:?}"))
}

/// Resolves when a container does not run any more.
async fn ended(mut seen: watch::Receiver<Arc<SeenPod>>, id: &ContainerId) {
    let runs = |seen: &SeenPod| {
        let mut all = seen.sandboxes.iter().flat_map(|sandbox| &sandbox.containers);
        all.any(|container| container.id == *id && !container.has_ended())
    };
    if seen.wait_for(|seen| !runs(seen)).await.is_err() {
        std::future::pending::<()>().await;
    }
}
