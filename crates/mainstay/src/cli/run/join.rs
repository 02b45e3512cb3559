//! Which API a node belongs to, if it is to have none of its own.

use std::net::IpAddr;

use anyhow::Context;
use clap::Args;
use mainstay_pki::JoinToken;
use mainstay_pod::NodeName;
use mainstay_proxy::Proxies;

use crate::api::remote::Server;
use crate::api::{ClusterConfig, JoinConfig, MemberConfig};
use crate::config::Config;
use crate::instance::Instance;

/// Which API the node joins, if it is not to have one of its own. An empty name of a file is none.
#[derive(Debug, Args)]
pub(super) struct JoinFlags {
    /// Be a node of the API of another mainstay, such as https://192.0.2.10:6443, and have none of
    /// one's own. Static pods run whether it answers or not.
    #[arg(
        long,
        value_name = "URL",
        conflicts_with_all = [
            "bind_address", "secure_port", "write_kubeconfig", "tls_san", "controllers",
            "cluster_signing_duration", "node_monitor_grace_period", "token_auth_file", "store",
        ],
    )]
    server: Option<Server>,
    /// What `mainstay token create` printed on the machine with the API: it says whom to trust there
    /// and lets the node ask for its certificate. Not needed any more once the node has joined.
    #[arg(
        long,
        value_name = "TOKEN",
        requires = "server",
        env = "MAINSTAY_TOKEN",
        hide_env_values = true
    )]
    token: Option<JoinToken>,
    /// Be a node of the cluster that a kubeconfig's current context names, with the credentials that it has,
    /// and have no API of one's own. Static pods run whether that cluster's API answers or not.
    #[arg(
        long,
        value_name = "FILE",
        conflicts_with_all = [
            "server", "bind_address", "secure_port", "write_kubeconfig", "tls_san",
            "controllers", "cluster_signing_duration", "node_monitor_grace_period",
            "token_auth_file", "store",
        ],
    )]
    kubeconfig: Option<String>,
    /// A kubeconfig that is used to ask for a client certificate, where the other one is not there or its
    /// certificate has ended. The other one is written then.
    #[arg(long, value_name = "FILE", requires = "kubeconfig")]
    bootstrap_kubeconfig: Option<String>,
    /// Where certificates that the cluster signs are kept. Default: the directory of the
    /// kubelet-client-current.pem that the kubeconfig names, else ROOT-DIR/kubelet.
    #[arg(long, value_name = "DIR")]
    cert_dir: Option<String>,
}

impl JoinFlags {
    /// What is said for a node of any cluster, and this is to be none.
    pub(super) fn in_vain(&self, config: &Config) -> Vec<&'static str> {
        let is_member = file(self.kubeconfig.as_ref()).is_some();
        let names = [
            (config.server.auth.client_ca.is_some(), "authentication.x509.clientCAFile"),
            (file(self.cert_dir.as_ref()).is_some(), "--cert-dir"),
        ];
        let in_vain = names.into_iter().filter(|(is_said, _)| *is_said && !is_member);
        in_vain.map(|(_, name)| name).collect()
    }

    /// Whose node it is to be, if not its own.
    pub(super) fn resolve(
        self,
        node_name: &NodeName,
        node_ips: &[IpAddr],
        config: &Config,
        instance: &Instance,
        proxies: &Proxies,
    ) -> anyhow::Result<Option<ClusterConfig>> {
        if let Some(member) = self.member(node_name, node_ips, config, instance, proxies)? {
            return Ok(Some(ClusterConfig::Member(member)));
        }
        Ok(self.server.map(|server| {
            ClusterConfig::Joined(JoinConfig {
                node_name: node_name.as_str().to_owned(),
                node_ips: node_ips.to_vec(),
                server,
                token: self.token,
                node_server: config.server.clone(),
                root_dir: instance.root_dir.clone(),
                run_dir: instance.run_dir.clone(),
            })
        }))
    }

    /// As a node of any cluster, if it is to be one.
    fn member(
        &self,
        node_name: &NodeName,
        node_ips: &[IpAddr],
        config: &Config,
        instance: &Instance,
        proxies: &Proxies,
    ) -> anyhow::Result<Option<MemberConfig>> {
        let path = |name: &Option<String>| {
            let path = file(name.as_ref()).map(std::path::absolute).transpose();
            path.with_context(|| format!("cannot use {name:?}"))
        };
        let Some(kubeconfig) = path(&self.kubeconfig)? else { return Ok(None) };
        Ok(Some(MemberConfig {
            node_name: node_name.as_str().to_owned(),
            node_ips: node_ips.to_vec(),
            kubeconfig,
            proxies: proxies.clone(),
            bootstrap: path(&self.bootstrap_kubeconfig)?,
            certificates: path(&self.cert_dir)?,
            rotates: config.rotates_certificates,
            asks_for_serving: config.asks_for_serving,
            node_server: config.server.clone(),
            root_dir: instance.root_dir.clone(),
            run_dir: instance.run_dir.clone(),
        }))
    }
}

/// A file that is named.
fn file(name: Option<&String>) -> Option<&str> {
    name.map(String::as_str).filter(|name| !name.is_empty())
}
