//! What the ledger has of each pod, in memory too.

use std::collections::BTreeSet;
use std::sync::PoisonError;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::EphemeralContainer;
use mainstay_plan::pod::{PodKey, RunGoal, SeenPod};

use super::Performer;
use crate::ledger::{Added, Record};
use crate::sources::merge::key_of;

impl Performer {
    /// Changes what the ledger has of a goal's pod, if it has this incarnation of it: another one
    /// may have taken its place since the goal was looked at.
    pub(crate) fn amend(&self, run: &RunGoal, change: impl FnOnce(&mut Record)) {
        let key = key_of(&run.pod);
        let mut records = self.records.lock().unwrap_or_else(PoisonError::into_inner);
        let own = |record: &&mut Record| {
            record.pod.uid() == run.pod.uid() && record.incarnation == run.incarnation
        };
        if let Some(record) = records.get_mut(&key).filter(own) {
            change(record);
            self.ledger.put(&key, record.clone());
        }
    }

    /// What the ledger has of a pod.
    pub(crate) fn record(&self, key: &PodKey) -> Option<Record> {
        let records = self.records.lock().unwrap_or_else(PoisonError::into_inner);
        records.get(key).cloned()
    }

    /// Looks at what the ledger has of a pod.
    pub(in crate::worker) fn with_record<T>(
        &self,
        key: &PodKey,
        look: impl FnOnce(&Record) -> T,
    ) -> Option<T> {
        let records = self.records.lock().unwrap_or_else(PoisonError::into_inner);
        records.get(key).map(look)
    }

    /// When a goal's pod began, the same for every agent: when it was accepted, or its restart was asked for.
    /// A static pod of an earlier agent of which nothing is there any more, as after a restart of the
    /// machine, begins anew.
    pub(in crate::worker) fn beginning_of(
        &self,
        run: &RunGoal,
        seen: &SeenPod,
        now: Timestamp,
    ) -> Timestamp {
        let is_anew = run.pod.source().is_static()
            && self.inherited.contains(run.pod.uid())
            && seen.sandboxes.is_empty();
        let noted = self.with_record(&key_of(&run.pod), |record| {
            let is_valid = record.finished.is_some() || !is_anew;
            record.began.filter(|_| is_valid && record.pod.uid() == run.pod.uid())
        });
        noted.flatten().unwrap_or_else(|| {
            self.amend(run, |record| record.began = Some(now));
            now
        })
    }

    /// The pods that the ledger has.
    pub(crate) fn recorded(&self) -> Vec<PodKey> {
        let records = self.records.lock().unwrap_or_else(PoisonError::into_inner);
        records.keys().cloned().collect()
    }

    /// Lets the ledger have a pod as it is accepted now.
    pub(crate) fn accept(&self, key: &PodKey, record: Record) {
        let mut records = self.records.lock().unwrap_or_else(PoisonError::into_inner);
        records.insert(key.clone(), record.clone());
        self.ledger.put(key, record);
    }

    /// Lets the ledger know of containers that were added to this version of a pod.
    pub(crate) fn add_containers(&self, key: &PodKey, uid: &str, added: &[EphemeralContainer]) {
        let mut records = self.records.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(record) = records.get_mut(key).filter(|it| it.pod.uid() == uid) else { return };
        let known = |name: &str| record.added.iter().any(|it| it.container.name == name);
        let news = added.iter().filter(|it| !known(&it.name)).cloned();
        let news: Vec<_> = news.map(|container| Added { container, started: false }).collect();
        if !news.is_empty() {
            record.added.extend(news);
            self.ledger.put(key, record.clone());
        }
    }

    /// The containers that were added to a goal's pod and have been started, of which these are known to be;
    /// that must not be forgotten.
    pub(crate) fn note_spent(
        &self,
        run: &RunGoal,
        mut spent: BTreeSet<String>,
    ) -> BTreeSet<String> {
        let key = key_of(&run.pod);
        {
            let records = self.records.lock().unwrap_or_else(PoisonError::into_inner);
            let record = records.get(&key).filter(|record| record.pod.uid() == run.pod.uid());
            let Some(record) = record else { return spent };
            let noted = record.added.iter().filter(|it| it.started);
            let noted: BTreeSet<String> = noted.map(|it| it.container.name.clone()).collect();
            if spent.is_subset(&noted) {
                return noted;
            }
            spent.extend(noted);
        }
        let all = run.pod.spec().ephemeral_containers.clone().unwrap_or_default();
        self.add_containers(&key, run.pod.uid(), &all);
        self.amend(run, |record| {
            for added in &mut record.added {
                added.started |= spent.contains(&added.container.name);
            }
        });
        spent
    }

    /// Lets the ledger forget a pod.
    pub(crate) fn forget(&self, key: &PodKey) {
        let mut records = self.records.lock().unwrap_or_else(PoisonError::into_inner);
        if records.remove(key).is_some() {
            self.ledger.remove(key);
        }
        self.statuses.lock().unwrap_or_else(PoisonError::into_inner).remove(key);
    }

    /// What may run once only must not be forgotten to have run.
    pub(in crate::worker) fn note_start(&self, run: &RunGoal) {
        let noted = {
            let records = self.records.lock().unwrap_or_else(PoisonError::into_inner);
            records.get(&key_of(&run.pod)).is_none_or(|record| record.started)
        };
        if !noted {
            self.amend(run, |record| record.started = true);
        }
    }
}
