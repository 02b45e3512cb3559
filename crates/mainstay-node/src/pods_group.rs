//! The control group above all pods, which holds them to what they can have.
//!
//! Source: `enforceNodeAllocatableCgroups` in `pkg/kubelet/cm/node_container_manager_linux.go`.

use std::fmt::Debug;
use std::sync::Arc;
use std::time::Duration;

use mainstay_linux::cgroup::{CgroupError, Hierarchies, Limits};
use mainstay_plan::allocatable::NodeLimits;

use crate::publish::{EventKind, Events};

/// How long after a limit could not be set it is tried again: pods may use more than it says until some of
/// them have been ended for want of memory.
const AGAIN: Duration = Duration::from_secs(60);

/// Whoever sets the limits of that group.
pub trait PodsGroup: Debug + Send + Sync {
    /// Sets them. May block.
    ///
    /// # Errors
    ///
    /// Why it cannot.
    fn limit(&self, limits: NodeLimits) -> Result<(), String>;

    /// Hears how long pods have at most to end, for whoever ends them when the machine goes. May block.
    ///
    /// # Errors
    ///
    /// Why it cannot be kept.
    fn keep_longest_grace(&self, longest: Duration) -> Result<(), String>;

    /// What the group is called.
    fn name(&self) -> String;
}

/// A group that is mainstay's own, by its path from the root of each hierarchy.
#[derive(Debug)]
pub struct OwnGroup(pub String);

impl PodsGroup for OwnGroup {
    fn limit(&self, limits: NodeLimits) -> Result<(), String> {
        let set = || -> Result<(), CgroupError> {
            let hierarchies = Hierarchies::mounted()?;
            let group = hierarchies.at(&self.0);
            group.create()?;
            group.limit(&Limits {
                cpu_shares: Some(limits.cpu_shares),
                memory: Some(limits.memory),
                pids: limits.pids,
                ..Limits::default()
            })
        };
        set().map_err(|error| mainstay_cri::chain(&error))
    }

    /// Nobody ends them then but the machine's own init.
    fn keep_longest_grace(&self, _: Duration) -> Result<(), String> {
        Ok(())
    }

    fn name(&self) -> String {
        self.0.clone()
    }
}

/// Sees to it that a limit ends nothing that runs: where there is more memory in use than it allows, version 2 of
/// control groups kills until there is not. A kubelet finds that out as its pods do.
fn has_room(group: &str, limits: NodeLimits) -> Result<(), String> {
    let used = || {
        let hierarchies = Hierarchies::mounted().ok()?;
        Some(hierarchies.at(group).usage().memory?.working_set())
    };
    match used() {
        Some(used) if used > limits.memory => {
            Err(format!("pods use {used} bytes of memory, and are to have {}", limits.memory))
        }
        _ => Ok(()),
    }
}

/// Sets the limits, until it succeeds. Never ends.
pub(crate) async fn keep(group: Arc<dyn PodsGroup>, limits: NodeLimits, events: Events) {
    let mut told = String::new();
    loop {
        let setting = group.clone();
        let set = tokio::task::spawn_blocking(move || {
            has_room(&setting.name(), limits)?;
            setting.limit(limits)
        });
        let set = set.await;
        let Err(error) = set.unwrap_or_else(|error| Err(error.to_string())) else { break };
        let name = group.name();
        let message = format!("Failed to update Node Allocatable Limits {name:?}: {error}");
        if told != error {
            tracing::warn!("{message}; pods run without them, and it is tried again");
            told = error;
        }
        events.tell_node(EventKind::Warning, "FailedNodeAllocatableEnforcement", message);
        tokio::time::sleep(AGAIN).await;
    }
    let message = "Updated Node Allocatable limit across pods".to_owned();
    events.tell_node(EventKind::Normal, "NodeAllocatableEnforced", message);
    std::future::pending::<()>().await;
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use tokio::task::JoinSet;

    use super::*;

    /// Refuses so often.
    #[derive(Debug)]
    struct Stubborn(Mutex<u32>);

    impl PodsGroup for Stubborn {
        fn limit(&self, _: NodeLimits) -> Result<(), String> {
            let mut left = self.0.lock().unwrap();
            match left.checked_sub(1) {
                None => Ok(()),
                Some(less) => {
                    *left = less;
                    Err("busy".to_owned())
                }
            }
        }

        fn keep_longest_grace(&self, _: Duration) -> Result<(), String> {
            Ok(())
        }

        fn name(&self) -> String {
            "/g".to_owned()
        }
    }

    #[tokio::test(start_paused = true)]
    async fn limits_are_set_as_soon_as_they_can_be() {
        let events = Events::default();
        let limits = NodeLimits { cpu_shares: 2, memory: 1, pids: None };
        let group = Arc::new(Stubborn(Mutex::new(2)));
        events.queue().open();
        let mut tasks = JoinSet::new();
        tasks.spawn(keep(group, limits, events.clone()));
        let failed = "Failed to update Node Allocatable Limits \"/g\": busy";
        let expected = [failed, failed, "Updated Node Allocatable limit across pods"];
        for expected in expected {
            assert_eq!(events.queue().next().await.message, expected);
        }
    }
}
