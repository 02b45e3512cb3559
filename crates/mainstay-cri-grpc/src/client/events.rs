//! What happens at the server: as it tells, or else by looking.
//!
//! Many servers do not tell, containerd before 1.7 among them. They are looked at as often as a kubelet does,
//! and what differs from the time before has happened. Source: `pkg/kubelet/pleg/generic.go`.

use std::collections::BTreeMap;
use std::sync::{Arc, PoisonError, Weak};
use std::time::Duration;

use futures_core::stream::BoxStream;
use futures_util::StreamExt;
use jiff::Timestamp;
use mainstay_cri::{
    ContainerEvent, ContainerEventKind, ContainerFilter, ContainerId, Error, ErrorKind,
    PodSandboxFilter, Result, SandboxId,
};
use mainstay_grpc::decode;
use tokio::task::AbortHandle;
use tokio::time::{MissedTickBehavior, interval, sleep};
use tokio_stream::wrappers::BroadcastStream;

use super::Remote;
use crate::convert::error_of;
use crate::methods::GET_CONTAINER_EVENTS;
use crate::wire;

/// How often is looked, and how soon again after a failure. Source: `genericPlegRelistPeriod` in
/// `pkg/kubelet/kubelet.go`.
const RELIST: Duration = Duration::from_secs(1);

/// What there was when it was looked: sandboxes and containers by their ids.
type Picture = BTreeMap<String, Item>;

#[derive(Clone, Debug, PartialEq, Eq)]
struct Item {
    sandbox: SandboxId,
    /// Whether it is the sandbox itself.
    is_sandbox: bool,
    /// In the protocol's numbers.
    state: i32,
}

/// What happens from now on.
pub(super) fn listen(remote: &Arc<Remote>) -> BoxStream<'static, ContainerEvent> {
    let stream = BroadcastStream::new(remote.events.subscribe());
    let mut following = remote.following.lock().unwrap_or_else(PoisonError::into_inner);
    if following.as_ref().is_none_or(AbortHandle::is_finished) {
        *following = Some(remote.tasks.spawn(follow(Arc::downgrade(remote))));
    }
    let lagged = || ContainerEvent::lagged(Timestamp::now());
    stream.map(move |event| event.unwrap_or_else(|_| lagged())).boxed()
}

/// Asks for ever. It keeps nothing alive for that.
async fn follow(remote: Weak<Remote>) {
    let mut was_away = false;
    loop {
        let told = match remote.upgrade() {
            Some(remote) => remote.listen_or_look(&mut was_away).await,
            None => return,
        };
        if let Err(error) = told {
            if !was_away {
                tracing::warn!(error = error.chain(), "cannot hear of what the runtime does");
            }
            was_away = true;
        }
        sleep(RELIST).await;
    }
}

impl Remote {
    /// Tells of what happens until the server is away.
    async fn listen_or_look(&self, was_away: &mut bool) -> Result<()> {
        let mut picture = self.picture().await?;
        if std::mem::take(was_away) {
            tracing::info!("the container runtime answers again");
            self.tell(ContainerEvent::lagged(Timestamp::now()));
        }
        match self.hear().await {
            Err(error) if error.kind == ErrorKind::Unimplemented => {}
            // What was between the two is looked for.
            other => {
                self.tell(ContainerEvent::lagged(Timestamp::now()));
                return other;
            }
        }
        let mut ticks = interval(RELIST);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            ticks.tick().await;
            let now = self.picture().await?;
            let at = Timestamp::now();
            changes(&picture, &now, at).into_iter().for_each(|event| self.tell(event));
            picture = now;
        }
    }

    /// Hears what the server tells by itself. CRI-O ends at once, without an error, if it is not configured to
    /// tell: so one that has told nothing does not. Source: `GetContainerEvents` in `server/container_events.go` of
    /// CRI-O, `enable_pod_events` in crio.conf(5).
    async fn hear(&self) -> Result<()> {
        let mut silent = true;
        let request = wire::GetEventsRequest {};
        let mut answers = self.channel.follow(GET_CONTAINER_EVENTS, &request).await?;
        while let Some(bytes) = answers.next().await.map_err(error_of)? {
            silent = false;
            let event: wire::ContainerEventResponse = decode(bytes).map_err(error_of)?;
            // Of one that is gone its labels may be gone, too; whoever asks for it learns that.
            let labels = event.pod_sandbox_status.as_ref().map(|status| &status.labels);
            if labels.is_none_or(|labels| labels.is_empty() || self.is_own(labels)) {
                self.tell(event.try_into()?);
            }
        }
        let kind = if silent { ErrorKind::Unimplemented } else { ErrorKind::Unavailable };
        Err(Error::new(kind, "the container runtime tells no more events"))
    }

    fn tell(&self, event: ContainerEvent) {
        // Nobody listening is fine.
        let _ = self.events.send(event);
    }

    async fn picture(&self) -> Result<Picture> {
        let mut picture = Picture::new();
        for sandbox in self.sandboxes(&PodSandboxFilter::default()).await? {
            let id = SandboxId(sandbox.id.clone());
            let item = Item { sandbox: id, is_sandbox: true, state: sandbox.state };
            picture.insert(sandbox.id, item);
        }
        for container in self.containers(&ContainerFilter::default()).await? {
            let sandbox = SandboxId(container.pod_sandbox_id);
            let item = Item { sandbox, is_sandbox: false, state: container.state };
            picture.insert(container.id, item);
        }
        Ok(picture)
    }
}

/// What must have happened from one picture to the next.
fn changes(before: &Picture, now: &Picture, at: Timestamp) -> Vec<ContainerEvent> {
    let event = |id: &String, item: &Item, kind| ContainerEvent {
        sandbox: item.sandbox.clone(),
        container: (!item.is_sandbox).then(|| ContainerId(id.clone())),
        kind,
        at,
    };
    let changed = now.iter().filter(|(id, item)| before.get(*id) != Some(*item));
    let changed = changed.map(|(id, item)| event(id, item, item.kind()));
    let gone = before.iter().filter(|(id, _)| !now.contains_key(*id));
    changed.chain(gone.map(|(id, item)| event(id, item, ContainerEventKind::Deleted))).collect()
}

impl Item {
    /// What led to such a state.
    fn kind(&self) -> ContainerEventKind {
        if self.is_sandbox {
            return match wire::PodSandboxState::try_from(self.state) {
                Ok(wire::PodSandboxState::Ready) => ContainerEventKind::Started,
                Ok(wire::PodSandboxState::NotReady) | Err(_) => ContainerEventKind::Stopped,
            };
        }
        match wire::ContainerState::try_from(self.state) {
            Ok(wire::ContainerState::Created) => ContainerEventKind::Created,
            Ok(wire::ContainerState::Running) => ContainerEventKind::Started,
            Ok(wire::ContainerState::Exited | wire::ContainerState::Unknown) | Err(_) => {
                ContainerEventKind::Stopped
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_differs_has_happened() {
        let picture = |items: &[(&str, bool, i32)]| -> Picture {
            let item = |&(id, is_sandbox, state): &(&str, bool, i32)| {
                (id.to_owned(), Item { sandbox: SandboxId("s".into()), is_sandbox, state })
            };
            items.iter().map(item).collect()
        };
        let check = |before: &[(&str, bool, i32)], now: &[(&str, bool, i32)]| -> Vec<String> {
            let events = changes(&picture(before), &picture(now), Timestamp::UNIX_EPOCH);
            let text = |event: &ContainerEvent| {
                let of = event.container.as_ref().map_or("sandbox", |id| id.0.as_str());
                format!("{of} {:?}", event.kind)
            };
            assert!(events.iter().all(|event| event.sandbox.0 == "s"));
            events.iter().map(text).collect()
        };
        let (ready, created, running, exited) = (("s", true, 0), 0, 1, 2);
        assert_eq!(check(&[], &[ready]), ["sandbox Started"]);
        assert_eq!(check(&[ready], &[ready, ("c", false, created)]), ["c Created"]);
        assert_eq!(check(&[("c", false, created)], &[("c", false, running)]), ["c Started"]);
        assert_eq!(check(&[("c", false, running)], &[("c", false, exited)]), ["c Stopped"]);
        assert_eq!(check(&[ready], &[("s", true, 1)]), ["sandbox Stopped"]);
        assert_eq!(check(&[ready, ("c", false, exited)], &[]), ["c Deleted", "sandbox Deleted"]);
        assert!(check(&[ready, ("c", false, running)], &[ready, ("c", false, running)]).is_empty());
    }
}
