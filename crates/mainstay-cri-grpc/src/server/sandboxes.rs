//! Sandboxes.

use std::fs;
use std::io;
use std::sync::Arc;

use jiff::Timestamp;
use mainstay_cri::{DnsConfig, Error, ErrorKind, PodSandboxConfig, PodSandboxFilter, SandboxId};

use super::{Answer, Server, failed, invalid, is_meant, needed};
use crate::convert::nanoseconds;
use crate::files::blocking;
use crate::wire;

/// Where the machine's own name servers are.
const RESOLV_CONF: &str = "/etc/resolv.conf";

impl Server {
    pub(super) async fn run_pod_sandbox(
        self: Arc<Self>,
        request: wire::RunPodSandboxRequest,
    ) -> Answer<wire::RunPodSandboxResponse> {
        check_handler(&request.runtime_handler)?;
        let mut config = PodSandboxConfig::try_from(needed("config", request.config)?)?;
        if config.dns == DnsConfig::default() {
            // Source: `setupSandboxFiles` of containerd.
            config.dns = blocking(machines_dns).await.map_err(failed)?;
        }
        if config.hostname.is_empty() {
            // The same place.
            let name = rustix::system::uname().nodename().to_string_lossy().into_owned();
            config.hostname = name;
        }
        let id = self.runtime.run_pod_sandbox(&config).await.map_err(failed)?;
        Ok(wire::RunPodSandboxResponse { pod_sandbox_id: id.0 })
    }

    pub(super) async fn stop_pod_sandbox(
        self: Arc<Self>,
        request: wire::StopPodSandboxRequest,
    ) -> Answer<wire::StopPodSandboxResponse> {
        let id = SandboxId(request.pod_sandbox_id);
        self.runtime.stop_pod_sandbox(&id).await.map_err(failed)?;
        Ok(wire::StopPodSandboxResponse {})
    }

    pub(super) async fn remove_pod_sandbox(
        self: Arc<Self>,
        request: wire::RemovePodSandboxRequest,
    ) -> Answer<wire::RemovePodSandboxResponse> {
        let id = SandboxId(request.pod_sandbox_id);
        self.runtime.remove_pod_sandbox(&id).await.map_err(failed)?;
        Ok(wire::RemovePodSandboxResponse {})
    }

    pub(super) async fn pod_sandbox_status(
        self: Arc<Self>,
        request: wire::PodSandboxStatusRequest,
    ) -> Answer<wire::PodSandboxStatusResponse> {
        let id = SandboxId(request.pod_sandbox_id);
        let status = self.runtime.pod_sandbox_status(&id).await.map_err(failed)?;
        Ok(wire::PodSandboxStatusResponse {
            status: Some((&status).into()),
            containers_statuses: status.containers.iter().map(Into::into).collect(),
            timestamp: nanoseconds(Timestamp::now()),
            ..Default::default()
        })
    }

    pub(super) async fn list_pod_sandbox(
        self: Arc<Self>,
        request: wire::ListPodSandboxRequest,
    ) -> Answer<wire::ListPodSandboxResponse> {
        let filter = request.filter.unwrap_or_default();
        let labels = PodSandboxFilter { labels: filter.label_selector };
        let listed = self.runtime.list_pod_sandboxes(&labels).await.map_err(failed)?;
        let items = listed.iter().map(wire::PodSandbox::from).filter(|sandbox| {
            let state = filter.state.as_ref();
            is_meant(&sandbox.id, &filter.id) && state.is_none_or(|it| it.state == sandbox.state)
        });
        Ok(wire::ListPodSandboxResponse { items: items.collect() })
    }

    /// The pod's own control group is the client's, who has changed it already.
    pub(super) async fn update_pod_sandbox_resources(
        self: Arc<Self>,
        request: wire::UpdatePodSandboxResourcesRequest,
    ) -> Answer<wire::UpdatePodSandboxResourcesResponse> {
        let id = SandboxId(request.pod_sandbox_id);
        self.runtime.pod_sandbox_status(&id).await.map_err(failed)?;
        Ok(wire::UpdatePodSandboxResourcesResponse {})
    }
}

/// There is one way to run a pod.
pub(super) fn check_handler(name: &str) -> Answer<()> {
    match name {
        "" => Ok(()),
        name => Err(invalid(format!("no runtime for {name:?} is configured"))),
    }
}

/// What the machine itself asks for names; one without such a file asks nobody.
fn machines_dns() -> mainstay_cri::Result<DnsConfig> {
    match fs::read_to_string(RESOLV_CONF) {
        Ok(text) => Ok(dns(&text)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(DnsConfig::default()),
        Err(error) => {
            let message = format!("cannot read {RESOLV_CONF}");
            Err(Error::with_source(ErrorKind::Internal, message, error))
        }
    }
}

/// Source: resolv.conf(5).
fn dns(text: &str) -> DnsConfig {
    let mut dns = DnsConfig::default();
    for line in text.lines() {
        let mut words = line.split_whitespace().map(str::to_owned);
        match words.next().as_deref() {
            Some("nameserver") => dns.servers.extend(words.next()),
            // The last one counts.
            Some("search" | "domain") => dns.searches = words.collect(),
            Some("options") => dns.options.extend(words),
            _ => {}
        }
    }
    dns
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_machines_own_file_is_understood() {
        let text = "# comment\nnameserver 10.0.0.1\nsearch a\nsearch b c\n\nnameserver fd00::1\n\
                    options ndots:2\noptions edns0 trust-ad\nsortlist x\n";
        let expected = DnsConfig {
            servers: vec!["10.0.0.1".into(), "fd00::1".into()],
            searches: vec!["b".into(), "c".into()],
            options: vec!["ndots:2".into(), "edns0".into(), "trust-ad".into()],
        };
        assert_eq!(dns(text), expected);
        assert_eq!(dns(""), DnsConfig::default());
    }
}
