//! Where the API itself is reached: the endpoint of the Service `kubernetes`.
//!
//! Servers that share a store each say where they are, for a short time and again and again, and each sees to
//! it that the endpoint is all of them.
//!
//! Source: `pkg/controlplane/reconcilers/{instancecount,lease,endpointsadapter}.go`.

use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use jiff::Timestamp;
use mainstay_store::{Durability, Expect, ListOptions, Write};
use serde_json::{Value, json};

use crate::kind::Resource;
use crate::kinds;
use crate::object::Object;
use crate::pipeline::{Change, Writer};
use crate::request::DeleteOptions;
use crate::server::{ApiServer, Inner};
use crate::status::Result;

const NAMESPACE: &str = "default";
const NAME: &str = "kubernetes";

/// What the keys begin with at which servers that share a store say where they are. Source:
/// `apiserver-lease-reconciler` in `pkg/controlplane/instance.go`.
const SERVERS: &str = "masterleases/";

/// How long that counts. Source: `DefaultEndpointReconcilerTTL`.
const SERVER_TTL: Duration = Duration::from_secs(15);

/// How often it is said. Source: `DefaultEndpointReconcilerInterval`.
const SERVER_INTERVAL: Duration = Duration::from_secs(10);

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
    /// it. The port is the one that it listens at. Ends only if no other server shares the store.
    pub async fn keep_endpoint(&self, endpoint: Option<SocketAddr>) {
        let mut told = None;
        loop {
            let error = self.0.say_endpoint(endpoint).await.err().map(|error| error.message);
            if let Some(error) = &error
                && told.as_ref() != Some(error)
            {
                tracing::warn!(error, "cannot say in default/kubernetes where the API is");
            }
            told = error;
            if !self.is_shared() {
                return;
            }
            tokio::time::sleep(SERVER_INTERVAL).await;
        }
    }
}

impl Inner {
    async fn say_endpoint(&self, endpoint: Option<SocketAddr>) -> Result<()> {
        let servers = match self.storage.store.is_shared() {
            true => self.servers(endpoint).await?,
            false => endpoint.into_iter().collect(),
        };
        let slices = &kinds::ENDPOINT_SLICES;
        let Some(first) = servers.first() else {
            self.withdraw(&kinds::ENDPOINTS).await?;
            return self.withdraw(slices).await;
        };
        // An address of the other family needs another slice.
        let slice = slice(*first, &servers);
        let known = self.storage.find(slices, NAMESPACE, NAME).await?;
        if known.is_some_and(|it| it.object.at(&["addressType"]) != slice.at(&["addressType"])) {
            self.withdraw(slices).await?;
        }
        self.publish(&kinds::ENDPOINTS, &endpoints(&servers)).await?;
        self.publish(slices, &slice).await
    }

    /// All servers of the store, after it was said where this one is.
    async fn servers(&self, this: Option<SocketAddr>) -> Result<BTreeSet<SocketAddr>> {
        let store = &self.storage.store;
        if let Some(this) = this {
            let write = Write {
                key: format!("{SERVERS}{this}").into(),
                expect: Expect::Any,
                change: mainstay_store::Change::Put("{}".into()),
                ttl: Some(SERVER_TTL),
            };
            store.commit(vec![write], Durability::Lazy).await?;
        }
        let said = store.list(SERVERS, &ListOptions::default()).await?;
        let address = |key: &str| key.strip_prefix(SERVERS)?.parse().ok();
        Ok(said.entries.iter().filter_map(|entry| address(&entry.key)).collect())
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

fn port(port: u16) -> Value {
    json!({ "name": "https", "port": port, "protocol": "TCP" })
}

fn endpoints(servers: &BTreeSet<SocketAddr>) -> Object {
    let ports: BTreeSet<u16> = servers.iter().map(SocketAddr::port).collect();
    let subset = |at: u16| {
        let servers = servers.iter().filter(|server| server.port() == at);
        let addresses = servers.map(|server| json!({ "ip": server.ip() }));
        json!({ "addresses": addresses.collect::<Vec<_>>(), "ports": [port(at)] })
    };
    Object::from_json(json!({
        "metadata": {
            "name": NAME,
            "namespace": NAMESPACE,
            // The slice below is no copy that somebody makes of it.
            "labels": { "endpointslice.kubernetes.io/skip-mirror": "true" },
        },
        "subsets": ports.into_iter().map(subset).collect::<Vec<_>>(),
    }))
}

/// A slice has one family and one port: those of the first server.
fn slice(first: SocketAddr, servers: &BTreeSet<SocketAddr>) -> Object {
    let fits =
        |server: &&SocketAddr| server.is_ipv4() == first.is_ipv4() && server.port() == first.port();
    let endpoints = servers
        .iter()
        .filter(fits)
        .map(|server| json!({ "addresses": [server.ip()], "conditions": { "ready": true } }));
    Object::from_json(json!({
        "metadata": {
            "name": NAME,
            "namespace": NAMESPACE,
            "labels": { "kubernetes.io/service-name": NAME },
        },
        "addressType": if first.is_ipv4() { "IPv4" } else { "IPv6" },
        "endpoints": endpoints.collect::<Vec<_>>(),
        "ports": [port(first.port())],
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
    #[test]
    fn the_endpoint_is_all_servers() {
        let servers = ["10.0.0.8:6443", "10.0.0.7:6443", "10.0.0.9:7443", "[fd00::7]:6443"];
        let servers: BTreeSet<SocketAddr> = servers.iter().map(|it| it.parse().unwrap()).collect();
        let subsets = endpoints(&servers).list_at(&["subsets"]).to_vec();
        let port = |number: u16| json!([{ "name": "https", "port": number, "protocol": "TCP" }]);
        let expected = [
            json!({
                "addresses": [{ "ip": "10.0.0.7" }, { "ip": "10.0.0.8" }, { "ip": "fd00::7" }],
                "ports": port(6443),
            }),
            json!({ "addresses": [{ "ip": "10.0.0.9" }], "ports": port(7443) }),
        ];
        assert_eq!(subsets, expected);
        let slice = slice(*servers.first().unwrap(), &servers);
        let addresses: Vec<_> =
            slice.list_at(&["endpoints"]).iter().map(|it| &it["addresses"][0]).collect();
        assert_eq!(addresses, ["10.0.0.7", "10.0.0.8"]);
        assert_eq!(slice.str_at(&["addressType"]), "IPv4");
        assert_eq!(slice.at(&["ports"]), Some(&port(6443)));
    }
}
