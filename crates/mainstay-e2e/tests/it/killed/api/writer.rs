//! Clients that write, and what they may expect to find.

use std::sync::Arc;

use anyhow::{bail, ensure};
use hyper::Method;
use serde_json::{Value, json};

use super::{CONFIG_MAPS, LEASES, PODS, Session, World, version};

/// Something that was written, or may have been.
#[derive(Clone, Copy, Debug)]
pub(super) struct Write {
    /// What is there then, which no other write of this name puts there; `None` if nothing is.
    pub(super) value: Option<u64>,
    /// The version that it was answered with; 0 if it was answered without one.
    pub(super) version: Option<u64>,
}

/// Writes one object again and again: each time another value, and sometimes nothing.
pub(super) struct Writer {
    world: Arc<World>,
    name: String,
    writes: Vec<Write>,
}

/// Writes a lease and a pod's status in turns, which are not waited for until they are on the disk.
pub(super) struct Lazy {
    world: Arc<World>,
    /// Versions and values, of the lease and of the pod.
    answered: [Vec<(u64, u64)>; 2],
}

/// How many values are written before nothing is.
const VALUES: u64 = 11;

// === impl Writer ===

impl Writer {
    pub(super) fn new(world: Arc<World>, name: String) -> Self {
        Self { world, name, writes: Vec::new() }
    }

    /// All that it wrote, in order.
    pub(super) async fn writes(mut self) -> anyhow::Result<(String, Vec<Write>)> {
        let mut value = 0;
        while !self.world.has_enough() {
            let session = self.world.connect().await;
            // What an agent before has answered is not told by what comes later.
            let Ok(there) = session.values().await else { continue };
            check(&self.name, &self.writes, there.get(&self.name).copied())?;
            while !self.world.has_enough() {
                value += 1;
                let value = Some(value).filter(|value| value % VALUES != 0);
                let answer = self.write(&session, value).await;
                let Some((code, body)) = answer else {
                    self.writes.push(Write { value, version: None });
                    break;
                };
                // What nobody knew was there was not.
                let gone = value.is_none() && code == 404;
                ensure!(gone || (200..300).contains(&code), "{} {value:?}: {body}", self.name);
                let version = Some(version(&body)).filter(|_| !gone);
                self.writes.push(Write { value, version });
                self.world.answered(&session, version);
            }
        }
        Ok((self.name, self.writes))
    }

    async fn write(&self, session: &Session, value: Option<u64>) -> Option<(u16, Value)> {
        let path = format!("{CONFIG_MAPS}/{}", self.name);
        let Some(value) = value else {
            return session.ask(Method::DELETE, &path, &Value::Null).await;
        };
        let object = json!({
            "apiVersion": "v1",
            "kind": "ConfigMap",
            "metadata": { "name": self.name },
            "data": { "value": value.to_string() },
        });
        let path = format!("{path}?fieldManager=writer&force=true");
        session.ask(Method::PATCH, &path, &object).await
    }
}

/// Checks what is there after all: what was answered last, or what came later.
pub(super) fn check(name: &str, writes: &[Write], there: Option<u64>) -> anyhow::Result<()> {
    let answered = writes.iter().rposition(|write| write.version.is_some());
    let late = &writes[answered.unwrap_or(0)..];
    let is_one = late.iter().any(|write| write.value == there);
    let is_new = answered.is_none() && there.is_none();
    ensure!(is_one || is_new, "{name} is {there:?}, and has to be one of {late:?}");
    let versions: Vec<u64> = writes.iter().filter_map(|write| write.version).collect();
    let versions: Vec<u64> = versions.into_iter().filter(|version| *version != 0).collect();
    ensure!(versions.is_sorted_by(|a, b| a < b), "{name} has got the versions {versions:?}");
    Ok(())
}

// === impl Lazy ===

impl Lazy {
    const LEASE: &str = "lazy";

    pub(super) fn new(world: Arc<World>) -> Self {
        Self { world, answered: [Vec::new(), Vec::new()] }
    }

    /// Writes until it is enough, and looks after each agent what is left.
    pub(super) async fn write(mut self) -> anyhow::Result<()> {
        self.begin().await?;
        while !self.world.has_enough() {
            let session = self.world.connect().await;
            let Ok([lease, pod]) = Self::read(&session).await else { continue };
            self.check(session.agent, lease, pod)?;
            let mut value = lease.max(pod) + 1;
            // The lease is first, and may be ahead by one.
            let mut next = usize::from(lease > pod);
            value -= u64::from(next == 1);
            while !self.world.has_enough() {
                let Some((code, body)) = Self::put(&session, next, value).await else { break };
                ensure!((200..300).contains(&code), "{body}");
                self.answered[next].push((version(&body), value));
                self.world.answered(&session, None);
                value += u64::from(next == 1);
                next = 1 - next;
            }
        }
        Ok(())
    }

    async fn begin(&self) -> anyhow::Result<()> {
        let lease = json!({ "metadata": { "name": Self::LEASE }, "spec": {} });
        let pod = json!({
            "metadata": { "name": Self::LEASE },
            // Nobody gives it a node.
            "spec": { "schedulerName": "nobody", "containers": [{ "name": "c", "image": "c" }] },
        });
        loop {
            let session = self.world.connect().await;
            for (path, object) in [(LEASES, &lease), (PODS, &pod)] {
                // It may be there already, if nobody answered.
                session.ask(Method::POST, path, object).await;
            }
            if Self::read(&session).await.is_ok() {
                return Ok(());
            }
        }
    }

    async fn put(session: &Session, which: usize, value: u64) -> Option<(u16, Value)> {
        let name = Self::LEASE;
        let (path, patch) = match which {
            0 => (format!("{LEASES}/{name}"), json!({ "spec": { "leaseTransitions": value } })),
            _ => {
                let message = json!({ "status": { "message": value.to_string() } });
                (format!("{PODS}/{name}/status"), message)
            }
        };
        session.ask(Method::PATCH, &path, &patch).await
    }

    /// What is there, of the lease and of the pod.
    async fn read(session: &Session) -> anyhow::Result<[u64; 2]> {
        let name = Self::LEASE;
        let lease = session.done(Method::GET, &format!("{LEASES}/{name}"), &Value::Null).await?;
        let pod = session.done(Method::GET, &format!("{PODS}/{name}"), &Value::Null).await?;
        let message = pod["status"]["message"].as_str().unwrap_or("0");
        Ok([lease["spec"]["leaseTransitions"].as_u64().unwrap_or(0), message.parse()?])
    }

    /// Checks what an agent has found: all up to some write, and that is none before what lasts.
    fn check(&mut self, agent: usize, lease: u64, pod: u64) -> anyhow::Result<()> {
        if lease != pod && lease != pod + 1 {
            bail!("the order of writes is lost: {lease} was written, and {pod} after it");
        }
        let durable = self.world.durable_before(agent);
        for (found, answered) in [lease, pod].into_iter().zip(&mut self.answered) {
            let lasting = answered.iter().filter(|(version, _)| *version < durable);
            let least = lasting.map(|(_, value)| *value).max().unwrap_or(0);
            ensure!(
                found >= least,
                "{found} is there, and {least} was written before what lasts, at {durable}"
            );
            // What is lost is written again, with another version.
            answered.retain(|(_, value)| *value <= found);
        }
        Ok(())
    }
}
