//! A client of the API that measures what `wrk` cannot, for `cargo xtask bench`.
//!
//! One job comes in as JSON on the standard input, one answer goes out as JSON on the standard
//! output. It has one thread, so that on a small machine the server has the other processor, and
//! ends by itself.

mod mirrors;
mod scale;
mod watchers;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::{Duration, Instant, SystemTime};

use anyhow::{Context, bail};
use hyper::{Method, StatusCode};
use serde::Deserialize;
use serde_json::{Value, json};

use mainstay_e2e::api::{Api, Connection};

/// How long a job may take. Longer than any does, since what is asked for is waited for.
const PATIENCE: Duration = Duration::from_secs(300);
/// How long nothing is done between two looks whether the API is there.
const LOOK: Duration = Duration::from_millis(1);

/// Where the mirrors are; other pods are in other namespaces.
const MIRRORS: &str = "/api/v1/namespaces/default/pods";

/// What there is to do, and where.
#[derive(Deserialize)]
struct Job {
    #[serde(flatten)]
    instance: Instance,
    work: Work,
}

/// An instance of mainstay, and who asks it. It need not run yet.
#[derive(Deserialize)]
struct Instance {
    root_dir: PathBuf,
    run_dir: PathBuf,
    token: String,
}

#[derive(Deserialize)]
#[serde(tag = "do", rename_all = "snake_case")]
enum Work {
    /// Waits for an API that need not be there yet: when `/readyz` was answered with `ok`, in
    /// milliseconds since the epoch.
    Ready,
    /// Asks once: how many bytes the answer has.
    Get {
        path: String,
    },
    /// Makes objects, one after the other: how many bytes the last answer has.
    Create {
        objects: Vec<NewObject>,
    },
    /// Waits for an API that is not there, and then for mirrors of these containers, by the names of
    /// their pods, and no others: the milliseconds between.
    Return {
        mirrors: BTreeMap<String, Vec<String>>,
    },
    Scale(scale::Job),
    Drain(scale::Drain),
    Watchers(watchers::Job),
    Mirrors(mirrors::Job),
}

/// An object, and the collection that it is to be in.
#[derive(Deserialize)]
struct NewObject {
    path: String,
    object: Value,
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> anyhow::Result<()> {
    let job: Job = serde_json::from_reader(std::io::stdin()).context("this is not a job")?;
    let answer = tokio::time::timeout(PATIENCE, job.work.carry_out(&job.instance)).await;
    let answer = answer.with_context(|| format!("this takes longer than {PATIENCE:?}"))??;
    println!("{answer}");
    Ok(())
}

// === impl Instance ===

impl Instance {
    async fn connect(&self) -> anyhow::Result<Connection> {
        Api::of_instance(&self.root_dir, &self.run_dir, &self.token)?.connect().await
    }
}

// === impl Work ===

impl Work {
    async fn carry_out(self, api: &Instance) -> anyhow::Result<Value> {
        match self {
            Self::Ready => {
                ready(api).await?;
                let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
                Ok(json!(milliseconds(now.context("the clock is before 1970")?)))
            }
            Self::Return { mirrors } => {
                let connection = ready(api).await?;
                let start = Instant::now();
                while mirrors_on(&connection).await? != mirrors {
                    tokio::time::sleep(LOOK).await;
                }
                Ok(json!(milliseconds(start.elapsed())))
            }
            Self::Get { path } => {
                let body = api.connect().await?.done(Method::GET, &path, "", Vec::new()).await?;
                Ok(json!(body.len()))
            }
            Self::Create { objects } => create(&api.connect().await?, objects).await,
            Self::Scale(job) => job.carry_out(api).await,
            Self::Drain(job) => job.carry_out(api).await,
            Self::Watchers(job) => job.carry_out(api).await,
            Self::Mirrors(job) => job.carry_out(api).await,
        }
    }
}

/// A connection to an API that is there, when it is.
async fn ready(api: &Instance) -> anyhow::Result<Connection> {
    loop {
        // A port of the agent before may still be written down.
        if let Ok(connection) = api.connect().await
            && let Ok(()) = ready_on(&connection).await
        {
            return Ok(connection);
        }
        tokio::time::sleep(LOOK).await;
    }
}

/// # Errors
///
/// When the server cannot be asked any more.
async fn ready_on(connection: &Connection) -> anyhow::Result<()> {
    loop {
        match connection.answer(Method::GET, "/readyz", "", Vec::new()).await? {
            (StatusCode::OK, body) if &*body == b"ok" => return Ok(()),
            _ => tokio::time::sleep(LOOK).await,
        }
    }
}

/// The ids of the containers of all pods.
async fn mirrors_on(connection: &Connection) -> anyhow::Result<BTreeMap<String, Vec<String>>> {
    let body = connection.done(Method::GET, MIRRORS, "", Vec::new()).await?;
    let list: Value = serde_json::from_slice(&body).context("a list is no JSON")?;
    let items = list["items"].as_array().into_iter().flatten();
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let mirror = |pod: &Value| {
        let containers = pod["status"]["containerStatuses"].as_array().into_iter().flatten();
        let ids = containers.map(|container| text(&container["containerID"])).collect();
        (text(&pod["metadata"]["name"]), ids)
    };
    Ok(items.map(mirror).collect())
}

async fn create(connection: &Connection, objects: Vec<NewObject>) -> anyhow::Result<Value> {
    let mut size = 0;
    for NewObject { path, object } in objects {
        let body = serde_json::to_vec(&object)?;
        size = connection.done(Method::POST, &path, "application/json", body).await?.len();
    }
    if size == 0 {
        bail!("there is nothing to create");
    }
    Ok(json!(size))
}

fn milliseconds(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1000.0
}
