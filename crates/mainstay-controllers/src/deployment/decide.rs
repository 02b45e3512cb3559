//! What is to be written for a Deployment next.
//!
//! Source: `syncDeployment` in `pkg/controller/deployment/deployment_controller.go`, and
//! `pkg/controller/deployment/{sync,recreate}.go`.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::apps::v1::{Deployment, DeploymentStatus, ReplicaSet};

use super::conditions::{self, PROGRESSING, condition, reason};
use super::strategy::Strategy;
use super::{annotations, proportion, rolling, sets, status, template};
use crate::pods::{self, Pod};

/// What is to be done.
#[derive(Debug, PartialEq)]
pub(super) struct Decision {
    /// In this order; when one cannot be done, those after it are not either.
    pub(super) writes: Vec<Write>,
    /// After what time it is to be decided again, if nothing happens before.
    pub(super) again: Option<Duration>,
}

#[derive(Debug, PartialEq)]
pub(super) enum Write {
    Create(Box<ReplicaSet>),
    /// The new ReplicaSet becomes as the Deployment is but for its size.
    Update {
        set: Arc<ReplicaSet>,
        annotations: BTreeMap<String, String>,
        min_ready_seconds: Option<i32>,
    },
    Scale {
        set: Arc<ReplicaSet>,
        from: i64,
        to: i64,
        annotations: BTreeMap<String, String>,
    },
    Delete(Arc<ReplicaSet>),
    /// The status, and the revision on the Deployment.
    Status {
        status: Box<DeploymentStatus>,
        revision: Option<String>,
    },
}

/// `sets` are those that are controlled; `pods_of` answers the pods that one of them controls.
pub(super) fn decide(
    deployment: &Deployment,
    sets: Vec<Arc<ReplicaSet>>,
    pods_of: impl Fn(&ReplicaSet) -> Vec<Arc<Pod>>,
    now: Timestamp,
) -> Decision {
    let mut rollout = Rollout::new(deployment, sets, now);
    if deployment.metadata.deletion_timestamp.is_some() {
        rollout.update_new();
        return rollout.end(Progress::Unwatched);
    }
    let is_paused = deployment.spec.as_ref().and_then(|spec| spec.paused) == Some(true);
    rollout.note_pause(is_paused);
    rollout.update_new();
    if is_paused || rollout.is_resized() {
        proportion::scale(&mut rollout);
        if is_paused {
            rollout.clean_up();
        }
        return rollout.end(Progress::Unwatched);
    }
    match rollout.strategy.recreate {
        true => rollout.recreate(pods_of),
        false => rolling::step(&mut rollout),
    }
    rollout.end(Progress::Watched)
}

/// Whether somebody waits for pods to be replaced.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Progress {
    Watched,
    Unwatched,
}

/// What is there, and what has been decided so far.
pub(super) struct Rollout<'a> {
    deployment: &'a Deployment,
    pub(super) strategy: Strategy,
    /// The oldest that has the template as it is now.
    pub(super) new: Option<Arc<ReplicaSet>>,
    /// All others, the oldest first.
    pub(super) old: Vec<Arc<ReplicaSet>>,
    /// As it was read, with the conditions that have come about since.
    status: DeploymentStatus,
    revision: Option<String>,
    writes: Vec<Write>,
    now: Timestamp,
}

impl<'a> Rollout<'a> {
    fn new(deployment: &'a Deployment, mut old: Vec<Arc<ReplicaSet>>, now: Timestamp) -> Self {
        old.sort_by(|one, other| sets::age(one).cmp(&sets::age(other)));
        let new = old.iter().position(|set| {
            let of_set = set.spec.as_ref().and_then(|spec| spec.template.as_ref());
            let ours = deployment.spec.as_ref().map(|spec| &spec.template);
            of_set.zip(ours).is_some_and(|(one, other)| template::is_same(one, other))
        });
        Self {
            deployment,
            strategy: Strategy::of(deployment),
            new: new.map(|at| old.remove(at)),
            old,
            status: deployment.status.clone().unwrap_or_default(),
            revision: None,
            writes: Vec::new(),
            now,
        }
    }

    /// All ReplicaSets, the new one last.
    pub(super) fn all(&self) -> Vec<Arc<ReplicaSet>> {
        self.old.iter().chain(&self.new).cloned().collect()
    }

    /// Whether nobody waits any more for what was begun, as of the last look.
    pub(super) fn is_complete(&self) -> bool {
        status::is_complete(self.deployment, &self.status)
    }

    /// How many pods there were, as of the last look.
    pub(super) fn last_count(&self) -> i64 {
        self.status.replicas.unwrap_or_default().into()
    }

    /// A pause does not count as lack of progress. Source: `checkPausedConditions`.
    fn note_pause(&mut self, is_paused: bool) {
        let progress = conditions::progress(&self.status);
        if progress == Some(reason::TIMED_OUT) {
            return;
        }
        match (is_paused, progress == Some(reason::PAUSED)) {
            (true, false) => self.tell("Unknown", reason::PAUSED, "Deployment is paused".into()),
            (false, true) => self.tell("Unknown", reason::RESUMED, "Deployment is resumed".into()),
            (true, true) | (false, false) => {}
        }
    }

    /// Says how it gets on, if somebody waits for that.
    fn tell(&mut self, is: &str, reason: &str, message: String) {
        if status::deadline(self.deployment).is_some() {
            let progress = condition(PROGRESSING, is, reason, message, self.now);
            conditions::set(&mut self.status, progress);
        }
    }

    /// Has the new ReplicaSet, if there is one, have the revision and what else is copied to it.
    /// Source: `getNewReplicaSet`.
    fn update_new(&mut self) {
        let Some(new) = self.new.clone() else { return };
        let annotations = annotations::of_new(self.deployment, &new.metadata, self.next_revision());
        let seconds = |seconds: Option<i32>| seconds.unwrap_or_default();
        let wanted = seconds(self.deployment.spec.as_ref().and_then(|it| it.min_ready_seconds));
        let there = seconds(new.spec.as_ref().and_then(|spec| spec.min_ready_seconds));
        let revision = annotations.get(annotations::REVISION).map(String::as_str);
        let revision = revision.or(sets::annotation(&new.metadata, annotations::REVISION));
        self.revision = revision.map(str::to_owned);
        if !annotations.is_empty() || wanted != there {
            self.writes.push(Write::Update {
                set: new.clone(),
                annotations,
                min_ready_seconds: (wanted != there).then_some(wanted),
            });
        }
        if conditions::find(&self.status, PROGRESSING).is_none() {
            let message = format!("Found new replica set {:?}", sets::name(&new));
            self.tell("True", reason::FOUND, message);
        }
    }

    fn next_revision(&self) -> i64 {
        annotations::highest(self.old.iter().map(|set| &**set)).saturating_add(1)
    }

    /// The new ReplicaSet, which is made if it is not there.
    pub(super) fn new_or_create(&mut self) -> Arc<ReplicaSet> {
        if let Some(new) = &self.new {
            return new.clone();
        }
        let revision = self.next_revision();
        let mut annotations = annotations::of_new(self.deployment, &Default::default(), revision);
        annotations.extend(annotations::of_size(&self.strategy));
        let size = rolling::new_size(&self.strategy, &self.old, 0);
        let new = template::new_set(self.deployment, size, annotations);
        let message = format!("Created new replica set {:?}", sets::name(&new));
        self.tell("True", reason::CREATED, message);
        self.revision = Some(revision.to_string());
        self.writes.push(Write::Create(Box::new(new.clone())));
        self.new.insert(Arc::new(new)).clone()
    }

    /// Whether somebody has changed how many pods there should be. Source: `isScalingEvent`.
    fn is_resized(&self) -> bool {
        let all = self.all();
        let active = all.iter().filter(|set| sets::is_active(set));
        let mut desired = active.filter_map(|set| sets::number(set, annotations::DESIRED));
        desired.any(|desired| desired != self.strategy.wanted)
    }

    /// Scales a ReplicaSet; answers whether it has another size then. Source: `scaleReplicaSet`.
    pub(super) fn scale(&mut self, set: &Arc<ReplicaSet>, to: i64) -> bool {
        self.scale_from(set, sets::size(set), to)
    }

    /// As [`scale`](Self::scale), for one that has been decided to have this size already.
    pub(super) fn scale_from(&mut self, set: &Arc<ReplicaSet>, from: i64, to: i64) -> bool {
        if from != to {
            let annotations = annotations::of_size(&self.strategy);
            let annotations = sets::lacking(&set.metadata, annotations);
            self.writes.push(Write::Scale { set: set.clone(), from, to, annotations });
        }
        from != to
    }

    /// Scales a ReplicaSet, or has it at least know how large the Deployment is.
    pub(super) fn resize(&mut self, set: &Arc<ReplicaSet>, to: i64) {
        let annotations = sets::lacking(&set.metadata, annotations::of_size(&self.strategy));
        let from = sets::size(set);
        if from != to || !annotations.is_empty() {
            self.writes.push(Write::Scale { set: set.clone(), from, to, annotations });
        }
    }

    /// All old pods go before the first new one comes. Source: `rolloutRecreate`.
    fn recreate(&mut self, pods_of: impl Fn(&ReplicaSet) -> Vec<Arc<Pod>>) {
        let mut is_shrinking = false;
        for set in self.old.clone() {
            is_shrinking |= self.scale(&set, 0);
        }
        let is_left = |set: &Arc<ReplicaSet>| {
            sets::actual(set) > 0 || pods_of(set).iter().any(|pod| !pods::is_over(pod))
        };
        if is_shrinking || self.old.iter().any(is_left) {
            return;
        }
        let new = self.new_or_create();
        self.scale(&new, self.strategy.wanted);
        if self.is_complete() {
            self.clean_up();
        }
    }

    /// Deletes the oldest of the old ReplicaSets that nobody needs to go back to. Source:
    /// `cleanupDeployment`.
    pub(super) fn clean_up(&mut self) {
        let limit = self.deployment.spec.as_ref().and_then(|spec| spec.revision_history_limit);
        let Some(limit) = limit.filter(|limit| *limit != i32::MAX) else { return };
        let is_there = |set: &&Arc<ReplicaSet>| set.metadata.deletion_timestamp.is_none();
        let mut there: Vec<_> = self.old.iter().filter(is_there).cloned().collect();
        let key = |set: &Arc<ReplicaSet>| annotations::revision_of(&set.metadata).unwrap_or(0);
        // Those of one revision stay in the order of their age.
        there.sort_by_key(key);
        let surplus = there.len().saturating_sub(usize::try_from(limit).unwrap_or_default());
        for set in there.into_iter().take(surplus) {
            let observed = set.status.as_ref().and_then(|status| status.observed_generation);
            let is_observed = observed >= set.metadata.generation;
            if !sets::is_active(&set) && sets::actual(&set) == 0 && is_observed {
                self.writes.push(Write::Delete(set));
            }
        }
    }

    fn end(mut self, progress: Progress) -> Decision {
        let (all, new) = (self.all(), self.new.as_deref());
        let (deployment, before, now) = (self.deployment, &self.status, self.now);
        let mut status = status::counted(deployment, &all, new, before, now);
        if progress == Progress::Watched {
            status::watch_progress(&mut status, deployment, &all, new, before, now);
        }
        let again = match progress {
            Progress::Watched => status::next_check(deployment, &status, now),
            Progress::Unwatched => None,
        };
        let there = sets::annotation(&deployment.metadata, annotations::REVISION);
        let revision = self.revision.filter(|revision| there != Some(revision));
        let is_same = match &deployment.status {
            Some(there) => status::is_same(there, &status),
            None => false,
        };
        if !is_same || revision.is_some() {
            self.writes.push(Write::Status { status: Box::new(status), revision });
        }
        Decision { writes: self.writes, again }
    }
}
