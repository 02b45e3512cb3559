//! How a pod resolves names.
//!
//! Source: `pkg/kubelet/network/dns/dns.go`.

use std::net::IpAddr;

use k8s_openapi::api::core::v1::PodDNSConfig;
use mainstay_cri::DnsConfig;
use mainstay_pod::Pod;

use crate::translate::HostName;

/// Source: `MaxDNSNameservers` in `pkg/apis/core/validation/validation.go`, as the next two.
const MAX_SERVERS: usize = 3;
const MAX_SEARCHES: usize = 32;
/// Characters, with the spaces between.
const MAX_SEARCH_LIST: usize = 2048;
/// Characters of one search path: some resolvers end at a longer one.
const MAX_SEARCH: usize = 253;

/// The DNS of the cluster that the node is in, if it is in one.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ClusterDns {
    /// Its servers: `clusterDNS` of the configuration.
    pub servers: Vec<IpAddr>,
    /// What the names of the cluster end in: `clusterDomain` of the configuration.
    pub domain: String,
}

/// What a pod's `/etc/resolv.conf` says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PodDns {
    /// It.
    pub config: DnsConfig,
    /// What was left out of it and why, for events with the reason `DNSConfigForming`.
    pub omitted: Vec<String>,
}

/// Reads a file of the form of resolv.conf(5). What is not understood is passed over.
///
/// Source: `parseResolvConf`.
pub fn parse(text: &str) -> DnsConfig {
    let mut dns = DnsConfig::default();
    for line in text.lines() {
        let mut words = line.split_whitespace();
        match words.next() {
            Some("nameserver") => dns.servers.extend(words.next().map(str::to_owned)),
            // The last one counts. With and without a dot at its end it is the same domain.
            Some("search") => {
                let words = words.filter(|word| *word != ".");
                dns.searches = words.map(|it| it.strip_suffix('.').unwrap_or(it).into()).collect();
            }
            Some("options") => words.for_each(|word| set_option(&mut dns.options, word)),
            _ => {}
        }
    }
    dns
}

/// Whether a pod would like to ask the cluster's servers.
pub fn is_in_cluster(pod: &Pod) -> bool {
    match pod.spec().dns_policy.as_deref() {
        Some("None" | "Default") => false,
        Some("ClusterFirstWithHostNet") => true,
        _ => !pod.is_host_network(),
    }
}

/// What the pod is called by the other pods of its node, below the domain of all names; the name that its
/// addresses are called first. It is called where a Service of its name would be, so that a name is found in
/// the same way whether one pod has it or many: `web.default.svc`.
///
/// A static pod, which has the name of its node at the end of its own, is also called as its manifest says. Of
/// pods with a subdomain those names are there that a headless Service gives.
pub fn names(pod: &Pod, node_name: &str) -> Vec<String> {
    let namespace = pod.namespace();
    let end = format!("-{node_name}");
    let written = pod.name().strip_suffix(&end).filter(|_| pod.source().is_static());
    let mut names: Vec<String> =
        written.into_iter().chain([pod.name()]).map(|it| format!("{it}.{namespace}.svc")).collect();
    if let Some(subdomain) = pod.spec().subdomain.as_deref().filter(|it| !it.is_empty()) {
        let HostName { name, .. } = HostName::of(pod, "");
        names.push(format!("{name}.{subdomain}.{namespace}.svc"));
        names.push(format!("{subdomain}.{namespace}.svc"));
    }
    without_duplicates(&mut names);
    names
}

/// What a pod gets on a node whose own settings are `host`.
pub fn of_pod(pod: &Pod, host: DnsConfig, cluster: &ClusterDns) -> PodDns {
    let policy = pod.spec().dns_policy.as_deref();
    let in_cluster = is_in_cluster(pod);
    let mut dns = match policy {
        Some("None") => DnsConfig::default(),
        _ if in_cluster && !cluster.servers.is_empty() => of_cluster(pod, host, cluster),
        // Also of those who would like a cluster's, where there is none.
        _ => host,
    };
    if let Some(own) = &pod.spec().dns_config {
        add(&mut dns, own);
    }
    fit(dns)
}

fn of_cluster(pod: &Pod, host: DnsConfig, cluster: &ClusterDns) -> DnsConfig {
    let domain = &cluster.domain;
    let mut searches = Vec::new();
    if !domain.is_empty() {
        searches.push(format!("{}.svc.{domain}", pod.namespace()));
        searches.push(format!("svc.{domain}"));
        searches.push(domain.clone());
    }
    searches.extend(host.searches);
    without_duplicates(&mut searches);
    DnsConfig {
        servers: cluster.servers.iter().map(ToString::to_string).collect(),
        searches,
        options: vec!["ndots:5".to_owned()],
    }
}

/// Source: `appendDNSConfig`.
fn add(dns: &mut DnsConfig, own: &PodDNSConfig) {
    dns.servers.extend(own.nameservers.iter().flatten().cloned());
    without_duplicates(&mut dns.servers);
    dns.searches.extend(own.searches.iter().flatten().cloned());
    without_duplicates(&mut dns.searches);
    for option in own.options.iter().flatten() {
        let name = option.name.as_deref().unwrap_or_default();
        match option.value.as_deref().filter(|value| !value.is_empty()) {
            Some(value) => set_option(&mut dns.options, &format!("{name}:{value}")),
            None => set_option(&mut dns.options, name),
        }
    }
}

/// Sets an option such as `ndots:2`, in the place of one of the same name if there is one.
fn set_option(options: &mut Vec<String>, option: &str) {
    let name = |option: &str| option.split(':').next().unwrap_or_default().to_owned();
    match options.iter_mut().find(|known| name(known) == name(option)) {
        Some(known) => option.clone_into(known),
        None => options.push(option.to_owned()),
    }
}

fn without_duplicates(list: &mut Vec<String>) {
    let mut seen = std::collections::BTreeSet::new();
    list.retain(|text| seen.insert(text.clone()));
}

/// Source: `formDNSConfigFitsLimits`.
fn fit(mut config: DnsConfig) -> PodDns {
    let mut omitted = Vec::new();
    if config.servers.len() > MAX_SERVERS {
        config.servers.truncate(MAX_SERVERS);
        omitted.push(format!(
            "Nameserver limits were exceeded, some nameservers have been omitted, the applied \
             nameserver line is: {}",
            config.servers.join(" ")
        ));
    }
    let searches = &mut config.searches;
    let before = searches.len();
    searches.truncate(MAX_SEARCHES);
    searches.retain(|search| search.len() <= MAX_SEARCH);
    let mut length = 0;
    let fits = |search: &String| {
        length += search.len() + usize::from(length > 0);
        length <= MAX_SEARCH_LIST
    };
    let fitting = searches.iter().map(fits).take_while(|fits| *fits).count();
    searches.truncate(fitting);
    if searches.len() < before {
        omitted.push(format!(
            "Search Line limits were exceeded, some search paths have been omitted, the applied \
             search line is: {}",
            searches.join(" ")
        ));
    }
    PodDns { config, omitted }
}

#[cfg(test)]
mod tests;
