//! What a pod is called on the network.
//!
//! Source: `pkg/kubelet/kubelet_pods.go`, `GeneratePodHostNameAndDomain`, and
//! `pkg/kubelet/util/util.go`, `GetNodenameForKernel`.

use mainstay_pod::Pod;

use super::TranslateError;

/// What the kernel takes.
const LONGEST: usize = 64;

/// A pod's host name and the domain that it is in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HostName {
    /// The name in its domain, which `/etc/hosts` has.
    pub name: String,
    /// The domain; empty if the pod is in none.
    pub domain: String,
}

impl HostName {
    /// As the pod says, in a cluster whose names end in `cluster_domain`.
    pub fn of(pod: &Pod, cluster_domain: &str) -> Self {
        let spec = pod.spec();
        let written = |field: &Option<String>| field.clone().filter(|text| !text.is_empty());
        if let Some(name) = written(&spec.hostname_override) {
            return Self { name: cut(&name), domain: String::new() };
        }
        let name = written(&spec.hostname).unwrap_or_else(|| pod.name().to_owned());
        let domain = written(&spec.subdomain)
            .map(|subdomain| format!("{subdomain}.{}.svc.{cluster_domain}", pod.namespace()));
        Self { name: cut(&name), domain: domain.unwrap_or_default() }
    }

    /// With the domain, if there is one.
    pub fn full(&self) -> String {
        let Self { name, domain } = self;
        if domain.is_empty() { name.clone() } else { format!("{name}.{domain}") }
    }

    /// What the pod's own kernel namespace says.
    pub(super) fn of_kernel(&self, pod: &Pod) -> Result<String, TranslateError> {
        if pod.spec().set_hostname_as_fqdn != Some(true) {
            return Ok(self.name.clone());
        }
        let full = self.full();
        if full.len() > LONGEST { Err(TranslateError::LongName(full)) } else { Ok(full) }
    }
}

/// Source: `truncatePodHostnameIfNeeded`.
fn cut(name: &str) -> String {
    // Names are ASCII, as validation sees to.
    let first = name.chars().take(LONGEST - 1).collect::<String>();
    if first.len() < name.len() { first.trim_end_matches(['-', '.']).to_owned() } else { first }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The name, the domain and what the kernel is told, of a pod `web` in namespace `ns`.
    fn names(spec: &str, cluster_domain: &str) -> (String, String, String) {
        let pod = mainstay_testkit::pods::pod(&format!(
            "apiVersion: v1\nkind: Pod\nmetadata: {{name: web, namespace: ns}}\n\
             spec: {{containers: [{{name: c, image: i}}], {spec}}}"
        ));
        let names = HostName::of(&pod, cluster_domain);
        let kernel = names.of_kernel(&pod).unwrap_or_else(|error| error.to_string());
        (names.name, names.domain, kernel)
    }

    #[test]
    fn a_pod_is_called_as_it_says() {
        let long = "b".repeat(63);
        for (spec, name, domain, kernel) in [
            ("hostNetwork: false", "web-n1", "", "web-n1"),
            ("hostname: db", "db", "", "db"),
            ("subdomain: sub", "web-n1", "sub.ns.svc.cluster.local", "web-n1"),
            ("hostname: db, setHostnameAsFQDN: true", "db", "", "db"),
            (
                "hostname: db, subdomain: sub, setHostnameAsFQDN: true",
                "db",
                "sub.ns.svc.cluster.local",
                "db.sub.ns.svc.cluster.local",
            ),
            ("hostname: db, subdomain: sub, hostnameOverride: a.b", "a.b", "", "a.b"),
            (
                &format!("hostname: {long}, subdomain: s, setHostnameAsFQDN: true"),
                &long,
                "s.ns.svc.cluster.local",
                &format!(
                    "failed to construct FQDN from pod hostname and cluster domain, FQDN {long}.\
                     s.ns.svc.cluster.local is too long (64 characters is the max, 86 characters \
                     requested)"
                ),
            ),
        ] {
            let expected = (name.to_owned(), domain.to_owned(), kernel.to_owned());
            assert_eq!(names(spec, "cluster.local"), expected, "{spec}");
        }
        // Without a domain of the cluster, as with a kubelet.
        assert_eq!(names("subdomain: sub", "").1, "sub.ns.svc.");
    }

    #[test]
    fn names_are_cut_to_what_the_kernel_takes() {
        assert_eq!(cut(&"a".repeat(70)), "a".repeat(63));
        assert_eq!(cut(&"a".repeat(63)), "a".repeat(63));
        // What is left must not end in a dash.
        assert_eq!(cut(&format!("{}-b", "a".repeat(62))), "a".repeat(62));
    }
}
