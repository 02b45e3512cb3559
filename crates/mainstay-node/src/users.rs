//! Giving pods users of their own.

use std::fs;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::io;
use std::path::Path;

use mainstay_cri::{
    Error, ErrorKind, IdMapping, PodSandboxConfig, PodSandboxFilter, Result, Runtime, SandboxId,
};
use mainstay_plan::users;
use tokio::sync::Mutex;

/// Where others have their users from. Source: subuid(5), subgid(5).
const DELEGATED: [&str; 2] = ["/etc/subuid", "/etc/subgid"];

/// What is free is known from the sandboxes that there are.
pub(crate) struct Users {
    /// Where the search begins.
    seed: u32,
    /// From the choice until the sandbox is listed.
    turn: Mutex<()>,
}

impl Users {
    /// Of the instance that has its pods in this directory.
    pub(crate) fn new(directory: &Path) -> Self {
        let mut hasher = DefaultHasher::new();
        directory.hash(&mut hasher);
        let [a, b, c, d, ..] = hasher.finish().to_ne_bytes();
        Self { seed: u32::from_ne_bytes([a, b, c, d]), turn: Mutex::default() }
    }

    /// Makes a sandbox with users that nobody else has.
    pub(crate) async fn run_pod_sandbox(
        &self,
        runtime: &dyn Runtime,
        mut config: PodSandboxConfig,
    ) -> Result<SandboxId> {
        let _turn = self.turn.lock().await;
        let sandboxes = runtime.list_pod_sandboxes(&PodSandboxFilter::default()).await?;
        let mut taken: Vec<IdMapping> =
            sandboxes.iter().filter_map(|it| users::of(&it.annotations)).collect();
        taken.extend(runtime.others().await?.users);
        for file in DELEGATED {
            match fs::read_to_string(file) {
                Ok(text) => taken.extend(users::delegated(&text)),
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => {
                    let message = format!("cannot read {file} for users that are free");
                    return Err(Error::with_source(ErrorKind::Internal, message, error));
                }
            }
        }
        let range = users::choose(self.seed, &taken).ok_or_else(|| {
            let message = "no users are free for the pod (hostUsers: false); see /etc/subuid";
            Error::new(ErrorKind::ResourceExhausted, message)
        })?;
        users::give(range, &mut config);
        runtime.run_pod_sandbox(&config).await
    }
}
