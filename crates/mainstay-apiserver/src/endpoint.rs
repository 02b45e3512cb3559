//! Where the API itself is reached: the endpoint of the Service `kubernetes`.
//!
//! Source: `pkg/controlplane/reconcilers/{instancecount,endpointsadapter}.go`.

use std::net::{IpAddr, SocketAddr};

use jiff::Timestamp;
use serde_json::{Value, json};

use crate::kind::Resource;
use crate::kinds;
use crate::object::Object;
use crate::pipeline::{Change, Writer};
use crate::request::DeleteOptions;
use crate::server::{ApiServer, Inner};
use crate::status::{ApiError, Result};

const NAMESPACE: &str = "default";
const NAME: &str = "kubernetes";

/// The address by which pods and other machines reach a server that listens at `bind`, on a node with these
/// addresses, the primary one first; `None` if nobody but this machine does.
pub fn reachable(bind: IpAddr, node: &[IpAddr]) -> Option<IpAddr> {
    let listens = |ip: &&IpAddr| match bind {
        // Of the second family, an unspecified address means both.
        IpAddr::V4(bind) if bind.is_unspecified() => ip.is_ipv4(),
        IpAddr::V6(bind) if bind.is_unspecified() => true,
        bind => **ip == bind,
    };
    let given = [bind];
    let mut candidates = node.iter().chain(given.iter().filter(|bind| !bind.is_unspecified()));
    candidates.find(|ip| listens(ip) && !ip.is_loopback()).copied()
}

impl ApiServer {
    /// Says in `default/kubernetes` where this server is reached, or that it is not, as [`reachable`] has
    /// it. The port is the one that it listens at.
    ///
    /// # Errors
    ///
    /// When the store does not work.
    pub async fn publish_endpoint(
        &self,
        endpoint: Option<SocketAddr>,
    ) -> std::result::Result<(), ApiError> {
        let slices = &kinds::ENDPOINT_SLICES;
        let Some(endpoint) = endpoint else {
            self.0.withdraw(&kinds::ENDPOINTS).await?;
            return self.0.withdraw(slices).await;
        };
        // An address of the other family needs another slice.
        let slice = slice(endpoint);
        let known = self.0.storage.find(slices, NAMESPACE, NAME).await?;
        if known.is_some_and(|it| it.object.at(&["addressType"]) != slice.at(&["addressType"])) {
            self.0.withdraw(slices).await?;
        }
        self.0.publish(&kinds::ENDPOINTS, &endpoints(endpoint)).await?;
        self.0.publish(slices, &slice).await
    }
}

impl Inner {
    async fn publish(&self, resource: &'static Resource, object: &Object) -> Result<()> {
        let user = self.system_user();
        let writer = Writer::system(&user, Timestamp::now());
        let change = Change {
            resource,
            namespace: NAMESPACE,
            name: NAME,
            subresource: "",
            may_create: true,
        };
        self.update(&change, &writer, |_| Ok(object.clone())).await.map(drop)
    }

    async fn withdraw(&self, resource: &'static Resource) -> Result<()> {
        let options = DeleteOptions::default();
        match self.delete(&self.system_user(), resource, NAMESPACE, NAME, &options).await {
            Err(error) if error.code != http::StatusCode::NOT_FOUND => Err(error),
            _ => Ok(()),
        }
    }
}

fn port(endpoint: SocketAddr) -> Value {
    json!({ "name": "https", "port": endpoint.port(), "protocol": "TCP" })
}

fn endpoints(endpoint: SocketAddr) -> Object {
    Object::from_json(json!({
        "metadata": {
            "name": NAME,
            "namespace": NAMESPACE,
            // The slice below is no copy that somebody makes of it.
            "labels": { "endpointslice.kubernetes.io/skip-mirror": "true" },
        },
        "subsets": [{ "addresses": [{ "ip": endpoint.ip() }], "ports": [port(endpoint)] }],
    }))
}

fn slice(endpoint: SocketAddr) -> Object {
    Object::from_json(json!({
        "metadata": {
            "name": NAME,
            "namespace": NAMESPACE,
            "labels": { "kubernetes.io/service-name": NAME },
        },
        "addressType": if endpoint.is_ipv4() { "IPv4" } else { "IPv6" },
        "endpoints": [{ "addresses": [endpoint.ip()], "conditions": { "ready": true } }],
        "ports": [port(endpoint)],
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_reaches_a_server() {
        let node = ["10.0.0.7", "fd00::7"];
        let cases: [(&str, &[&str], Option<&str>); 7] = [
            ("127.0.0.1", &node, None),
            ("0.0.0.0", &node, Some("10.0.0.7")),
            ("::", &node, Some("10.0.0.7")),
            ("0.0.0.0", &["127.0.0.1"], None),
            ("0.0.0.0", &["fd00::7"], None),
            ("fd00::7", &node, Some("fd00::7")),
            ("192.0.2.1", &node, Some("192.0.2.1")),
        ];
        for (bind, node, expected) in cases {
            let node: Vec<IpAddr> = node.iter().map(|ip| ip.parse().unwrap()).collect();
            let found = reachable(bind.parse().unwrap(), &node).map(|ip| ip.to_string());
            assert_eq!(found.as_deref(), expected, "{bind}");
        }
    }
}
