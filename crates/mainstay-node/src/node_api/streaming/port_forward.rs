//! `/portForward`

use http::request::Parts;
use mainstay_cri::Runtime;
use mainstay_sessions::SandboxPorts;

use super::super::auth::Denial;
use super::super::pods::Pods;
use super::super::route::Target;
use super::{NoSession, denial, find, forwarding, sandbox};

/// Reads a request for ports.
///
/// # Errors
///
/// 400 for ports that are none or a request that is no upgrade, 404 without such a pod, 500 when
/// the pod does not run.
pub(super) async fn port_forward(
    runtime: &dyn Runtime,
    pods: &dyn Pods,
    target: &Target,
    parts: &Parts,
    query: &[(String, String)],
) -> Result<SandboxPorts, NoSession> {
    let ports = ports(query)?;
    let pod = find(pods, target)?;
    if !pod.has_uid(&target.uid) {
        return Err(denial(404, "pod not found").into());
    }
    let negotiated = forwarding::negotiate(parts).map_err(NoSession::Refusal)?;
    negotiated.check_ports(&ports).map_err(NoSession::Refusal)?;
    let sandbox = sandbox(runtime, &pod).await.map_err(|error| denial(500, error.chain()))?;
    let sandbox = sandbox.ok_or_else(|| {
        denial(500, format!("pod not found (\"{}_{}\")", target.pod, target.namespace))
    })?;
    Ok(SandboxPorts { negotiated, sandbox: sandbox.sandbox.id, ports })
}

/// The ports that a query names. Source: `NewV4Options` in
/// `staging/src/k8s.io/cri-streaming/pkg/streaming/portforward/websocket.go`.
fn ports(query: &[(String, String)]) -> Result<Vec<u16>, Denial> {
    let mut ports = Vec::new();
    for (_, text) in query.iter().filter(|(name, _)| name == "port" || name == "ports") {
        if text.is_empty() {
            return Err(denial(400, "query parameter \"port\" cannot be empty"));
        }
        for part in text.split(',') {
            match part.parse() {
                Ok(0) => return Err(denial(400, format!("port \"{text}\" must be > 0"))),
                Ok(port) => ports.push(port),
                Err(_) => {
                    return Err(denial(400, format!("unable to parse \"{text}\" as a port")));
                }
            }
        }
    }
    Ok(ports)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ports_are_read_from_a_query() {
        let check = |values: &[&str], expected: Result<&[u16], &str>| {
            let query: Vec<_> =
                values.iter().map(|value| ("port".to_owned(), (*value).to_owned())).collect();
            let got = ports(&query).map_err(|denial| denial.message);
            assert_eq!(got, expected.map(<[u16]>::to_vec).map_err(str::to_owned), "{values:?}");
        };
        check(&[], Ok(&[]));
        check(&["80", "81,82"], Ok(&[80, 81, 82]));
        check(&[""], Err("query parameter \"port\" cannot be empty"));
        check(&["0"], Err("port \"0\" must be > 0"));
        check(&["65536"], Err("unable to parse \"65536\" as a port"));
        check(&["80,"], Err("unable to parse \"80,\" as a port"));
    }
}
