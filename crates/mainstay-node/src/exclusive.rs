//! Which pods need something of the machine for themselves, for as long as none of them has a sandbox that says so.
//!
//! Who may have it is decided by [`mainstay_plan::exclusive`]; what has a sandbox is known to the [`Observer`].
//!
//! # Flow
//!
//! The supervisor tells of the pods that it accepts ([`Exclusives::expect`]) before any of them is begun, so that
//! their order counts and not who is faster. Before a sandbox is made, what it needs is claimed
//! ([`Exclusives::claim`]); until it is seen that is the [`Making`]'s. A pod that cannot begin for another reason
//! is in nobody's way ([`Exclusives::release`]). Those that wait hear of each change ([`Observer::freed`]).

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use jiff::Timestamp;
use mainstay_plan::exclusive::{Claim, Conflict, Exclusive, Standing, accepted, admit};
use mainstay_plan::pod::PodKey;
use mainstay_pod::Pod;

use crate::observe::Observer;
use crate::publish::node::huge_pages;

/// The pods that need something for themselves.
pub(crate) struct Exclusives {
    observer: Arc<Observer>,
    wants: Mutex<BTreeMap<PodKey, Want>>,
}

struct Want {
    what: Exclusive,
    /// When the pod was accepted, if that is known.
    since: Option<Timestamp>,
    /// Whether its sandbox is being made.
    is_making: bool,
}

/// A sandbox that is being made. Dropped, it has failed, and the pod is in nobody's way any more.
pub(crate) struct Making<'a> {
    all: &'a Exclusives,
    key: &'a PodKey,
    is_made: bool,
}

impl Exclusives {
    pub(crate) fn new(observer: Arc<Observer>) -> Self {
        Self { observer, wants: Mutex::default() }
    }

    /// A pod is to begin.
    pub(crate) fn expect(&self, key: &PodKey, pod: &Pod) {
        let (what, since) = (Exclusive::of(pod), accepted(pod));
        if what.is_empty() {
            return self.release(key);
        }
        self.lock().insert(key.clone(), Want { what, since, is_making: false });
        // What it had is not what it has now.
        self.observer.tell_of_freed();
    }

    /// Takes what a sandbox needs that is made next. Looks how many huge pages there are, if it needs some.
    ///
    /// # Errors
    ///
    /// When some of it is another pod's, or not there; then it is this one's turn later.
    pub(crate) fn claim<'a>(&'a self, key: &'a PodKey, pod: &Pod) -> Result<Making<'a>, Conflict> {
        let (what, since) = (Exclusive::of(pod), accepted(pod));
        if what.is_empty() {
            return Ok(Making { all: self, key, is_made: false });
        }
        let pages = if what.huge_pages.is_empty() { BTreeMap::new() } else { huge_pages() };
        let mut wants = self.lock();
        let had = self.observer.exclusives();
        // A sandbox that is being made may be seen already.
        let is_making = |key: &PodKey| wants.get(key).is_some_and(|want| want.is_making);
        let had = had.iter().filter(|(key, _)| !is_making(key));
        let had = had.map(|(key, what)| Claim { key, what, standing: Standing::Has });
        let wanted = wants.iter().map(|(key, want)| {
            let standing = if want.is_making { Standing::Has } else { Standing::Wants(want.since) };
            Claim { key, what: &want.what, standing }
        });
        let others: Vec<Claim<'_>> = had.chain(wanted).collect();
        let admitted = admit(key, since, &what, &others, &pages);
        let is_making = admitted.is_ok();
        let let_go = if let Err(Conflict::HugePages { .. }) = admitted {
            // It may wait for ever, and nobody has to wait for its ports until then.
            wants.remove(key).is_some()
        } else {
            wants.insert(key.clone(), Want { what, since, is_making });
            false
        };
        drop(wants);
        if let_go {
            self.observer.tell_of_freed();
        }
        admitted.map(|()| Making { all: self, key, is_made: false })
    }

    /// A pod does not begin, or has gone. What it has a sandbox for stays its own.
    pub(crate) fn release(&self, key: &PodKey) {
        if self.lock().remove(key).is_some() {
            self.observer.tell_of_freed();
        }
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<PodKey, Want>> {
        self.wants.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Making<'_> {
    /// The sandbox is there, and is seen. If it goes, its pod is still to have another one.
    pub(crate) fn made(mut self) {
        self.is_made = true;
    }
}

impl Drop for Making<'_> {
    fn drop(&mut self) {
        let mut wants = self.all.lock();
        match wants.get_mut(self.key) {
            Some(want) if self.is_made => want.is_making = false,
            Some(_) => drop(wants.remove(self.key)),
            None => return,
        }
        drop(wants);
        self.all.observer.tell_of_freed();
    }
}

#[cfg(test)]
mod tests {
    use mainstay_cri::Runtime;
    use mainstay_plan::labels;
    use mainstay_plan::translate::NodeFacts;
    use mainstay_testkit::contract::Sample;
    use mainstay_testkit::pods::pod;
    use mainstay_testkit::runtime::FakeRuntime;

    use super::*;
    use crate::sources::merge::key_of;

    fn with_port(name: &str) -> Arc<Pod> {
        pod(&format!(
            "apiVersion: v1\nkind: Pod\nmetadata: {{name: {name}}}\nspec:\n  hostNetwork: true\n  \
             containers: [{{name: c, image: i, ports: [{{containerPort: 80}}]}}]\n"
        ))
    }

    fn hears(changes: &mut tokio::sync::watch::Receiver<u64>) -> bool {
        let heard = changes.has_changed().unwrap();
        changes.mark_unchanged();
        heard
    }

    #[tokio::test]
    async fn a_port_is_that_of_whoever_makes_a_sandbox_and_then_of_the_sandbox() {
        let root = tempfile::tempdir().unwrap();
        let runtime = FakeRuntime::default();
        let observer = Arc::new(Observer::new(Arc::new(runtime.clone()), NodeFacts::default()));
        let exclusives = Exclusives::new(observer.clone());
        let (a, b) = (with_port("a"), with_port("b"));
        let (key_a, key_b) = (key_of(&a), key_of(&b));
        let why = |claimed: Result<Making<'_>, Conflict>| claimed.err().map(|it| it.to_string());
        let mut changes = observer.freed();
        exclusives.expect(&key_a, &a);
        exclusives.expect(&key_b, &b);
        let first = "host port 80/TCP is for pod default/a-n1, which was accepted first";
        assert_eq!(why(exclusives.claim(&key_b, &b)).as_deref(), Some(first));
        // One that cannot begin is in nobody's way, and comes back when it can.
        hears(&mut changes);
        exclusives.release(&key_a);
        assert!(hears(&mut changes));
        drop(exclusives.claim(&key_b, &b).unwrap());
        assert!(hears(&mut changes));
        let making = exclusives.claim(&key_a, &a).unwrap();
        let in_use = "host port 80/TCP is in use by pod default/a-n1";
        assert_eq!(why(exclusives.claim(&key_b, &b)).as_deref(), Some(in_use));
        // As it is made.
        let mut sample = Sample::new("t", root.path());
        sample.sandbox.metadata.name = key_a.name.clone();
        sample.sandbox.metadata.namespace = key_a.namespace.clone();
        sample.sandbox.labels.insert(labels::SOURCE.into(), "file".into());
        sample.sandbox.annotations.insert(labels::HOST_PORTS.into(), "80/TCP".into());
        let id = runtime.run_pod_sandbox(&sample.sandbox).await.unwrap();
        observer.refresh(&id).await.unwrap();
        making.made();
        // Its manifest goes, and it does later.
        exclusives.release(&key_a);
        hears(&mut changes);
        assert_eq!(why(exclusives.claim(&key_b, &b)).as_deref(), Some(in_use));
        runtime.stop_pod_sandbox(&id).await.unwrap();
        observer.refresh(&id).await.unwrap();
        assert!(hears(&mut changes));
        exclusives.claim(&key_b, &b).unwrap().made();
        // If that goes again, it is still before one that was accepted later.
        let first = first.replace("default/a", "default/b");
        let later = a.as_ref().clone().with_config_seen("2100-01-01T00:00:00Z");
        assert_eq!(why(exclusives.claim(&key_a, &later)), Some(first));
    }

    #[tokio::test]
    async fn a_pod_that_waits_for_huge_pages_wakes_nobody_by_that() {
        let observer =
            Arc::new(Observer::new(Arc::new(FakeRuntime::default()), NodeFacts::default()));
        let exclusives = Exclusives::new(observer.clone());
        let big =
            pod("apiVersion: v1\nkind: Pod\nmetadata: {name: big}\nspec:\n  hostNetwork: true\n  \
             containers: [{name: c, image: i, ports: [{containerPort: 80}], \
             resources: {limits: {cpu: 1, hugepages-2Mi: 1Pi}}}]\n");
        let (key, web) = (key_of(&big), with_port("web"));
        let (mut changes, web_key) = (observer.freed(), key_of(&web));
        exclusives.expect(&key, &big);
        exclusives.expect(&web_key, &web);
        hears(&mut changes);
        // Its port is free at once, and then nothing changes however often it looks.
        for heard in [true, false, false] {
            assert!(exclusives.claim(&key, &big).is_err());
            assert_eq!(hears(&mut changes), heard);
        }
        exclusives.claim(&web_key, &web).unwrap().made();
    }
}
