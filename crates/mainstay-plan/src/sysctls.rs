//! Kernel settings that pods may set in their own namespaces.
//!
//! Source: `pkg/kubelet/sysctl/{safe_sysctls,allowlist}.go`,
//! `staging/src/k8s.io/component-helpers/node/util/sysctl/namespace.go`.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::PodSpec;
use mainstay_pod::Pod;

use crate::admission::Rejection;

/// What is safe for all other pods of the machine. The oldest kernel that mainstay runs on keeps all of
/// them apart.
const SAFE: [&str; 12] = [
    "kernel.shm_rmid_forced",
    "net.ipv4.ip_local_port_range",
    "net.ipv4.ip_local_reserved_ports",
    "net.ipv4.ip_unprivileged_port_start",
    "net.ipv4.ping_group_range",
    "net.ipv4.tcp_fin_timeout",
    "net.ipv4.tcp_keepalive_intvl",
    "net.ipv4.tcp_keepalive_probes",
    "net.ipv4.tcp_keepalive_time",
    "net.ipv4.tcp_rmem",
    "net.ipv4.tcp_syncookies",
    "net.ipv4.tcp_wmem",
];

/// Names of the IPC namespace, besides those that begin with `fs.mqueue.`.
const IPC: [&str; 10] = [
    "kernel.msg",
    "kernel.msgmax",
    "kernel.msgmnb",
    "kernel.msgmni",
    "kernel.sem",
    "kernel.shm",
    "kernel.shm_rmid_forced",
    "kernel.shmall",
    "kernel.shmmax",
    "kernel.shmmni",
];

/// A namespace that keeps a setting apart from that of the machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Namespace {
    Ipc,
    Net,
}

/// Which settings pods may set.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AllowedSysctls(Vec<Pattern>);

/// A name, or the beginning of names.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Pattern {
    text: String,
    is_prefix: bool,
    namespace: Namespace,
}

impl Default for AllowedSysctls {
    /// Those that are safe.
    fn default() -> Self {
        Self::new(&[]).expect("all that are safe have a namespace")
    }
}

impl AllowedSysctls {
    /// Those that are safe, and these: `allowedUnsafeSysctls` of the configuration, names or beginnings
    /// of names that end in `*`.
    ///
    /// # Errors
    ///
    /// When one of them is not kept apart by a namespace, or is no name at all; the message names it.
    pub fn new(unsafe_ones: &[String]) -> Result<Self, String> {
        let safe = SAFE.iter().map(|name| (*name).to_owned());
        safe.chain(unsafe_ones.iter().cloned())
            .map(|text| Pattern::parse(&text))
            .collect::<Result<_, _>>()
            .map(Self)
    }

    /// Judges what a pod sets.
    ///
    /// # Errors
    ///
    /// The first setting that is not allowed, or not in the namespaces that the pod has for itself.
    pub fn admit(&self, spec: &PodSpec) -> Result<(), Rejection> {
        let sysctls = spec.security_context.as_ref().and_then(|it| it.sysctls.as_ref());
        for sysctl in sysctls.into_iter().flatten() {
            let name = normal(&sysctl.name);
            let why = match self.0.iter().find(|pattern| pattern.matches(&name)) {
                None => format!("{name:?} not allowlisted"),
                Some(pattern) => match pattern.namespace {
                    Namespace::Ipc if spec.host_ipc == Some(true) => {
                        format!("{name:?} not allowed with host IPC enabled")
                    }
                    Namespace::Net if spec.host_network == Some(true) => {
                        format!("{name:?} not allowed with host Net enabled")
                    }
                    Namespace::Ipc | Namespace::Net => continue,
                },
            };
            let message = format!("forbidden sysctl: {why}");
            return Err(Rejection { reason: "SysctlForbidden".to_owned(), message });
        }
        Ok(())
    }
}

impl Pattern {
    fn parse(text: &str) -> Result<Self, String> {
        let name = normal(text);
        let (known, is_prefix) = match name.split_once('*') {
            Some((known, "")) => (known.to_owned(), true),
            Some(_) => return Err(format!("{text:?} may have a * at its end only")),
            None => (name, false),
        };
        let allowed = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || "._-/".contains(c);
        if known.is_empty() || !known.chars().all(allowed) {
            return Err(format!("{text:?} is no name of a sysctl, nor the beginning of names"));
        }
        match namespace(&known) {
            Some(namespace) => Ok(Self { text: known, is_prefix, namespace }),
            None => Err(format!("the sysctls {known:?} are not known to be namespaced")),
        }
    }

    fn matches(&self, name: &str) -> bool {
        if self.is_prefix { name.starts_with(&self.text) } else { name == self.text }
    }
}

fn namespace(name: &str) -> Option<Namespace> {
    match name {
        _ if IPC.contains(&name) || name.starts_with("fs.mqueue.") => Some(Namespace::Ipc),
        _ if name.starts_with("net.") => Some(Namespace::Net),
        _ => None,
    }
}

/// What a pod sets, by name, with dots between the parts of a name.
pub(crate) fn of(pod: &Pod) -> BTreeMap<String, String> {
    let sysctls = pod.spec().security_context.as_ref().and_then(|it| it.sysctls.as_ref());
    let sysctls = sysctls.into_iter().flatten();
    sysctls.map(|sysctl| (normal(&sysctl.name), sysctl.value.clone())).collect()
}

/// With dots between its parts, whatever it was written with: the first separator says which one is
/// meant, and the other one is then a character of a name. Source: `NormalizeName`.
fn normal(name: &str) -> String {
    match name.find(['.', '/']) {
        Some(at) if name.as_bytes().get(at) == Some(&b'/') => name
            .chars()
            .map(|c| match c {
                '/' => '.',
                '.' => '/',
                other => other,
            })
            .collect(),
        _ => name.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn admit(allowed: &AllowedSysctls, spec: &str, name: &str) -> String {
        let pod = mainstay_testkit::pods::pod(&format!(
            "apiVersion: v1\nkind: Pod\nmetadata: {{name: p}}\nspec: {{{spec} containers: \
             [{{name: c, image: i}}], securityContext: {{sysctls: [{{name: {name}, value: '1'}}]}}}}"
        ));
        match allowed.admit(pod.spec()) {
            Ok(()) => String::new(),
            Err(Rejection { reason, message }) => format!("{reason}: {message}"),
        }
    }

    #[test]
    fn what_is_safe_is_allowed_and_what_the_owner_allows() {
        let unsafe_ones = ["kernel.msg*", "net.core.somaxconn", "net/ipv4/conf/*"];
        let unsafe_ones = unsafe_ones.map(str::to_owned);
        let more = AllowedSysctls::new(&unsafe_ones).unwrap();
        let safe = AllowedSysctls::default();
        let no =
            |name: &str| format!("SysctlForbidden: forbidden sysctl: {name:?} not allowlisted");
        for (name, by_default, with_more) in [
            ("net.ipv4.tcp_syncookies", String::new(), String::new()),
            ("net/ipv4/tcp_syncookies", String::new(), String::new()),
            ("kernel.shm_rmid_forced", String::new(), String::new()),
            ("net.core.somaxconn", no("net.core.somaxconn"), String::new()),
            ("net.core.somaxconn2", no("net.core.somaxconn2"), no("net.core.somaxconn2")),
            ("kernel.msgmax", no("kernel.msgmax"), String::new()),
            ("kernel.panic", no("kernel.panic"), no("kernel.panic")),
            ("net/ipv4/conf/eth0.1/mtu", no("net.ipv4.conf.eth0/1.mtu"), String::new()),
        ] {
            assert_eq!(admit(&safe, "", name), by_default, "{name}");
            assert_eq!(admit(&more, "", name), with_more, "{name}");
        }
    }

    #[test]
    fn the_machines_own_settings_are_not_set() {
        let all = AllowedSysctls::new(&["kernel.shm*".to_owned()]).unwrap();
        // Validation refuses the first by itself where the name is known to be one of a namespace.
        let spec = |spec: &str, name: &str| {
            let pod: k8s_openapi::api::core::v1::PodSpec =
                serde_json::from_value(serde_json::json!({
                    "containers": [], spec: true,
                    "securityContext": {"sysctls": [{"name": name, "value": "1"}]},
                }))
                .unwrap();
            all.admit(&pod).map_err(|rejection| rejection.message)
        };
        let refused = |name: &str, which: &str| {
            Err(format!("forbidden sysctl: {name:?} not allowed with host {which} enabled"))
        };
        let (net, ipc) = ("net.ipv4.tcp_rmem", "kernel.shmall");
        assert_eq!(spec("hostNetwork", net), refused(net, "Net"));
        assert_eq!(spec("hostIPC", ipc), refused(ipc, "IPC"));
        assert_eq!(spec("hostNetwork", ipc), Ok(()));
        assert_eq!(spec("hostIPC", net), Ok(()));
    }

    #[test]
    fn what_no_namespace_keeps_apart_cannot_be_allowed() {
        let parse = |text: &str| AllowedSysctls::new(&[text.to_owned()]);
        for text in ["kernel.panic", "vm.*", "", "*", "net.*.a", "net.IPV4", "kernel.shm_rmid"] {
            assert!(parse(text).is_err(), "{text}");
        }
        for text in ["net.*", "net.ipv4.conf.eth0.mtu", "fs.mqueue.*", "kernel.shm*", "kernel.sem"]
        {
            assert!(parse(text).is_ok(), "{text}");
        }
    }
}
