//! The decision itself.

use std::collections::BTreeSet;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::Container;
use mainstay_pod::Role;

use super::deadline::{deadline, is_exceeded};
use super::health::stop_given_up;
use super::order::{Round, begins_another, on_turn};
use super::restart::{Afterwards, Restarts, all_ended};
use super::state::{
    Action, ContainerPlan, EvictionCause, Goal, ImageMemory, Key, Memory, Plan, RunGoal,
    SeenContainer, SeenPod, SeenSandbox, StopReason, Waiting,
};
use super::tear_down;
use crate::ephemeral_storage::comes_back;
use crate::lifecycle;
use crate::resize::{self, Next};

/// No action that failed waits longer until it is tried again: the wait for images, 300 s.
const LONGEST_RETRY: SignedDuration = SignedDuration::from_secs(300);

/// Says what lies between what is seen and what should be, at this moment.
pub fn plan(goal: &Goal, seen: &SeenPod, memory: &Memory, now: Timestamp) -> Plan {
    let mut planner = Planner { seen, memory, now, plan: Plan::default() };
    match goal {
        Goal::Gone => planner.take_away(),
        Goal::Run(run) => planner.run(run),
        Goal::Stop { run, grace } => planner.stop(run, *grace),
    }
    planner.plan
}

struct Planner<'a> {
    seen: &'a SeenPod,
    memory: &'a Memory,
    now: Timestamp,
    plan: Plan,
}

impl Planner<'_> {
    /// Asks for an action, unless one with its key is in flight or has failed and is not due.
    fn ask(&mut self, action: Action) {
        let key = action.key();
        if self.memory.in_flight.contains(&key)
            || self.plan.actions.iter().any(|other| other.key() == key)
        {
            return;
        }
        match self.memory.failures.get(&key) {
            Some(failure) => match failure.retry_at {
                // One that is farther away was set by a clock that has been set back since.
                Some(due) if due > self.now && due.duration_since(self.now) <= LONGEST_RETRY => {
                    self.wake_at(due);
                }
                Some(_) => self.plan.actions.push(action),
                None => {}
            },
            None => self.plan.actions.push(action),
        }
    }

    fn wake_at(&mut self, due: Timestamp) {
        self.plan.wake_at = Some(self.plan.wake_at.map_or(due, |earlier| earlier.min(due)));
    }

    /// Nothing is to be left.
    fn take_away(&mut self) {
        for sandbox in &self.seen.sandboxes {
            self.tear_down(sandbox, sandbox.grace, false);
        }
        self.clean_up(None);
        self.plan.done = self.seen.sandboxes.is_empty()
            && self.memory.hosted.is_empty()
            && self.memory.in_flight.is_empty();
    }

    /// Nothing of the pod runs. Its newest sandbox is kept, for the logs and the ends of its
    /// containers.
    fn stop(&mut self, run: &RunGoal, grace: Duration) {
        let uid = run.pod.uid();
        let mut tells = true;
        for sandbox in &self.seen.sandboxes {
            if sandbox.uid == uid {
                self.tear_down(sandbox, grace, tells);
                tells = false;
            } else {
                self.tear_down(sandbox, sandbox.grace, false);
            }
        }
        self.clean_up(Some(uid));
        self.plan.done =
            self.is_idle() && !self.seen.sandboxes.iter().any(|it| it.uid == uid && it.is_alive());
    }

    fn tear_down(&mut self, sandbox: &SeenSandbox, grace: Duration, keep: bool) {
        // What is being made first comes to an end; then it is seen, and ended.
        if !self.is_idle() {
            return;
        }
        let steps = tear_down::steps(sandbox, grace, self.memory, self.now, keep);
        for action in steps.actions {
            self.ask(action);
        }
        if let Some(due) = steps.wake_at {
            self.wake_at(due);
        }
    }

    /// Removes what other versions than `kept` have on the host, once nothing of them runs.
    fn clean_up(&mut self, kept: Option<&str>) {
        for uid in &self.memory.hosted {
            let used = self.seen.sandboxes.iter().any(|sandbox| sandbox.uid == *uid);
            if Some(uid.as_str()) != kept && !used && self.is_idle() {
                self.ask(Action::CleanUp { uid: uid.clone() });
            }
        }
    }

    /// Whether neither a sandbox nor a container is being made.
    fn is_idle(&self) -> bool {
        let making = |key: &Key| matches!(key, Key::Sandbox | Key::Container(_));
        !self.memory.in_flight.iter().any(making)
    }

    fn run(&mut self, run: &RunGoal) {
        let uid = run.pod.uid();
        let is_current = |sandbox: &SeenSandbox| {
            run.is_own(&sandbox.uid, sandbox.incarnation)
                && sandbox.ready
                && !self.memory.stopping.contains_key(&sandbox.id)
        };
        // At most one is: a second one is only made when there is none. Newest first.
        let current = self.seen.sandboxes.iter().find(|sandbox| is_current(sandbox));
        let others: Vec<&SeenSandbox> = self
            .seen
            .sandboxes
            .iter()
            .filter(|sandbox| current.is_none_or(|current| current.id != sandbox.id))
            .collect();
        let history = History::of(self.seen, run);
        let restarts = Restarts::AsSaid(&run.pod, &self.memory.resized);

        // The newest sandbox of this version tells how its containers ended, until the next one
        // can tell more; and then what the run before the one of now came to, as long as that is in none other.
        let replaced = current.is_some_and(|current| self.is_complete(run, current));
        let before = others.iter().find(|other| run.is_own(&other.uid, other.incarnation));
        let before = before
            .filter(|before| current.is_some_and(|current| tells_before(before, current)))
            .map(|before| &before.id);
        // What was written down of it tells enough, when there is no room for more, or it had to go for room.
        let eviction = self.memory.eviction(run);
        // One that is started anew by itself begins with empty volumes.
        let for_room = eviction.is_some_and(|it| match it.cause {
            EvictionCause::Pressure => true,
            EvictionCause::Limit => comes_back(&run.pod),
            EvictionCause::Shutdown => false,
        });
        let given_up = (self.memory.reclaims || for_room) && self.memory.has_finished(run);
        for sandbox in &others {
            let newest = self.seen.sandboxes.iter().find(|other| other.uid == uid);
            let tells = newest.is_some_and(|newest| newest.id == sandbox.id)
                || (current.is_some() && !replaced && sandbox.uid == uid)
                || before == Some(&sandbox.id);
            let is_own = run.is_own(&sandbox.uid, sandbox.incarnation);
            let grace = eviction
                .filter(|_| is_own)
                .map_or(sandbox.grace, |eviction| eviction.grace.min(sandbox.grace));
            self.tear_down(sandbox, grace, tells && !given_up);
        }
        self.clean_up((!given_up).then_some(uid));

        if self.memory.has_finished(run) {
            if let Some(sandbox) = current {
                self.tear_down(sandbox, sandbox.grace, !given_up);
            }
            self.plan.done = self.plan.actions.is_empty() && self.memory.in_flight.is_empty();
            return;
        }
        if let Some(eviction) = eviction {
            self.end_early(run, current, eviction.grace);
            return;
        }
        if is_exceeded(run, restarts, self.seen, self.memory, self.now) {
            self.end_early(run, current, Duration::MAX);
            return;
        }
        if let Some(at) = all_ended(run, restarts, self.seen, self.memory, self.now) {
            self.conclude(run, current, at);
            return;
        }
        if let Some(deadline) = deadline(run, self.memory).filter(|it| *it > self.now) {
            self.wake_at(deadline);
        }
        let alive = others.iter().find(|sandbox| sandbox.is_alive());
        let round = Round::of(&run.pod, current, self.memory);
        let turn: Vec<_> = match alive {
            // So that a successor need not wait for them.
            Some(_) => run.pod.containers().collect(),
            None => on_turn(&run.pod, current, round, self.memory),
        };
        self.get_images(run, &turn, current, round, &history);
        if let Some(alive) = alive {
            self.plan.waiting = Some(Waiting::Predecessor { uid: alive.uid.clone() });
            return;
        }
        // A clearing that was begun for this version, when it was not wanted, comes to its end
        // first; then its place is made anew.
        let place = Key::Host(uid.to_owned());
        if self.memory.prepared.as_deref() != Some(uid) || self.memory.in_flight.contains(&place) {
            self.ask(Action::Prepare { uid: uid.to_owned() });
            return;
        }
        if self.memory.outdated {
            self.ask(Action::UpdateVolumes);
        }
        match current {
            None => {
                let attempts = self.seen.sandboxes.iter().filter(|sandbox| sandbox.uid == uid);
                let attempt = attempts.map(|sandbox| sandbox.attempt + 1).max().unwrap_or(0);
                self.ask(Action::RunSandbox { attempt });
            }
            Some(sandbox) => {
                self.run_ephemeral_containers(run, sandbox, &history);
                if !self.resize(run, sandbox) {
                    self.run_containers(run, &turn, sandbox, round, &history);
                }
            }
        }
    }

    /// Writes down the end of a pod, when also its sidecars have ended.
    fn conclude(&mut self, run: &RunGoal, current: Option<&SeenSandbox>, at: Timestamp) {
        let own = self.seen.sandboxes.iter().filter(|it| it.uid == run.pod.uid());
        if own.flat_map(|it| &it.containers).all(SeenContainer::has_ended) {
            self.ask(Action::RecordFinished { at });
        } else if let Some(sandbox) = current {
            self.tear_down(sandbox, sandbox.grace, true);
        }
    }

    /// Ends a pod whose deadline has passed or that is evicted, and then writes that down. Its newest sandbox
    /// is kept, as that of one that has come to its end by itself.
    fn end_early(&mut self, run: &RunGoal, current: Option<&SeenSandbox>, grace: Duration) {
        if let Some(sandbox) = current {
            self.tear_down(sandbox, sandbox.grace.min(grace), true);
        }
        let uid = run.pod.uid();
        let alive = self.seen.sandboxes.iter().any(|it| it.uid == uid && it.is_alive());
        if self.is_idle() && !alive {
            self.ask(Action::RecordFinished { at: self.now });
        }
    }

    /// Whether every container of the pod has been made in this sandbox.
    fn is_complete(&self, run: &RunGoal, sandbox: &SeenSandbox) -> bool {
        let made = |name: &str| sandbox.containers.iter().any(|container| container.name == name);
        run.pod.spec().containers.iter().all(|container| made(&container.name))
    }

    /// Sees to the images of the containers that are to be started, also while an older version
    /// is still ending.
    fn get_images(
        &mut self,
        run: &RunGoal,
        turn: &[(Role, &Container)],
        current: Option<&SeenSandbox>,
        round: Round,
        history: &History<'_>,
    ) {
        let restarts = Restarts::AsSaid(&run.pod, &self.memory.resized);
        for (role, container) in turn {
            let due = match history.counting(*role, &container.name, current, round) {
                None => true,
                Some(newest) => match restarts.after(*role, container, newest, self.now) {
                    Afterwards::Start(_) => true,
                    Afterwards::Nothing | Afterwards::Done | Afterwards::Wait(_) => false,
                },
            };
            if due && !self.memory.images.contains_key(&container.name) {
                self.ask(Action::EnsureImage { container: container.name.clone() });
            }
        }
    }

    /// Lets a pod have what it is allocated. Whether its control groups are being changed: what is started
    /// has to fit into them.
    fn resize(&mut self, run: &RunGoal, sandbox: &SeenSandbox) -> bool {
        let Some(resizing) = &self.memory.resizing else { return false };
        match resize::next(&run.pod, sandbox, resizing) {
            Next::Nothing => {}
            Next::Restart(ids) => {
                let grace = run.pod.termination_grace_period();
                for it in sandbox.containers.iter().filter(|it| ids.contains(&it.id)) {
                    let why = StopReason::Resized { container: it.name.clone() };
                    self.ask(tear_down::end(it, grace, why, self.memory, self.now));
                }
            }
            // What is being started comes first: nobody is in its group yet.
            Next::Resize(_) if self.is_starting() => return true,
            Next::Resize(resize) => self.ask(Action::Resize(resize)),
        }
        self.memory.in_flight.contains(&Key::Resize)
            || self.plan.actions.iter().any(|action| action.key() == Key::Resize)
    }

    /// Whether a container is being made, or about to be.
    fn is_starting(&self) -> bool {
        let starts = |action: &Action| matches!(action, Action::StartContainer { .. });
        !self.is_idle() || self.plan.actions.iter().any(starts)
    }

    fn run_containers(
        &mut self,
        run: &RunGoal,
        turn: &[(Role, &Container)],
        sandbox: &SeenSandbox,
        round: Round,
        history: &History<'_>,
    ) {
        let restarts = Restarts::AsSaid(&run.pod, &self.memory.resized);
        if self.is_started_over(run, round, sandbox) {
            return;
        }
        // Those after one that has something to do after its start wait until that is done, as a
        // kubelet starts one after the other.
        let mut held = false;
        for (role, container) in turn {
            let newest = history.counting(*role, &container.name, Some(sandbox), round);
            let has_hook = lifecycle::post_start(container).is_some();
            if self.is_in_flight(&container.name) {
                held |= has_hook;
            }
            let backoff = match newest {
                // One that ended too often has not improved by its sandbox's end, or that of the others.
                None => history.newest(&container.name).and_then(|it| {
                    match restarts.after(*role, container, it, self.now) {
                        Afterwards::Start(backoff) if sandbox.has(&it.id) => backoff,
                        _ => it.backoff,
                    }
                }),
                Some(newest) => {
                    if newest.state.never_ran() {
                        // Its start was lost with an agent; a new one is made in its place.
                        if !self.is_in_flight(&container.name) {
                            self.ask(Action::RemoveContainer { id: newest.id.clone() });
                        }
                        continue;
                    }
                    if self.is_ended(run, *role, container, newest) {
                        continue;
                    }
                    if self.is_after_start(container, newest) {
                        held = true;
                        continue;
                    }
                    match restarts.after(*role, container, newest, self.now) {
                        Afterwards::Nothing | Afterwards::Done => continue,
                        Afterwards::Wait(due) => {
                            self.wake_at(due);
                            continue;
                        }
                        Afterwards::Start(backoff) => backoff,
                    }
                }
            };
            if held {
                continue;
            }
            let failed = |key: Key| self.memory.failures.contains_key(&key);
            held |= has_hook
                && !failed(Key::Image(container.name.clone()))
                && !failed(Key::Container(container.name.clone()));
            let Some(ImageMemory::Ready(image)) = self.memory.images.get(&container.name) else {
                continue;
            };
            self.ask(Action::StartContainer {
                sandbox: sandbox.id.clone(),
                container: ContainerPlan {
                    name: container.name.clone(),
                    restart_count: history.count(&container.name),
                    round: round.number,
                    backoff,
                    image: image.clone(),
                },
            });
        }
        self.remove_old_containers(sandbox);
    }

    /// Starts what was added to the pod, each once, whatever the others do.
    ///
    /// Source: `computePodActions` in `pkg/kubelet/kuberuntime/kuberuntime_manager.go`.
    fn run_ephemeral_containers(
        &mut self,
        run: &RunGoal,
        sandbox: &SeenSandbox,
        history: &History<'_>,
    ) {
        for container in run.pod.ephemeral_containers() {
            let name = &container.name;
            match history.newest(name) {
                None if self.memory.spent.contains(name) => continue,
                None => {}
                // As of others, its start was lost with an agent.
                Some(seen) if seen.state.never_ran() => {
                    if !self.is_in_flight(name) {
                        self.ask(Action::RemoveContainer { id: seen.id.clone() });
                    }
                    continue;
                }
                Some(_) => continue,
            }
            let Some(ImageMemory::Ready(image)) = self.memory.images.get(name) else {
                self.ask(Action::EnsureImage { container: name.clone() });
                continue;
            };
            self.ask(Action::StartContainer {
                sandbox: sandbox.id.clone(),
                container: ContainerPlan {
                    name: name.clone(),
                    restart_count: 0,
                    round: 0,
                    backoff: None,
                    image: image.clone(),
                },
            });
        }
    }

    /// Whether all containers of a sandbox are being started over, and it is not time yet to start the
    /// first.
    fn is_started_over(&mut self, run: &RunGoal, round: Round, sandbox: &SeenSandbox) -> bool {
        if round.ends {
            tear_down::end_round(sandbox).into_iter().for_each(|action| self.ask(action));
            return true;
        }
        let restarts = Restarts::AsSaid(&run.pod, &self.memory.resized);
        let Some(last) = round.number.checked_sub(1) else { return false };
        if sandbox.containers.iter().any(|it| it.round == round.number) {
            return false;
        }
        // Whoever began it waits as it would alone.
        let sources = run.pod.containers().filter(|(_, it)| begins_another(it, sandbox, last));
        let mut waits = false;
        for (role, container) in sources {
            let Some(newest) = sandbox.newest(&container.name) else { continue };
            if let Afterwards::Wait(due) = restarts.after(role, container, newest, self.now) {
                self.wake_at(due);
                waits = true;
            }
        }
        waits
    }

    /// Ends a container that runs and is not to go on as it is; whether there was one.
    fn is_ended(
        &mut self,
        run: &RunGoal,
        role: Role,
        container: &Container,
        newest: &SeenContainer,
    ) -> bool {
        if newest.has_ended() {
            return false;
        }
        let hook_failed = self.memory.failures.contains_key(&Key::Hook(newest.id.clone()));
        let end = if hook_failed {
            Some((StopReason::PostStartFailed, run.pod.termination_grace_period()))
        } else {
            stop_given_up(run, container, role != Role::Main, newest, self.memory)
        };
        let Some((why, grace)) = end else { return false };
        self.ask(tear_down::end(newest, grace, why, self.memory, self.now));
        true
    }

    /// Does what is to be done after a container's start; whether there was anything.
    fn is_after_start(&mut self, container: &Container, newest: &SeenContainer) -> bool {
        let due = self.memory.post_start.contains(&newest.id) && !newest.has_ended();
        if due {
            let (id, container) = (newest.id.clone(), container.name.clone());
            self.ask(Action::PostStart { id, container });
        }
        due
    }

    fn is_in_flight(&self, container: &str) -> bool {
        self.memory.in_flight.contains(&Key::Container(container.to_owned()))
    }

    /// One ended container of each name is kept beside the newest, for its logs and its status.
    /// Source: `MaxPerPodContainer` of the kubelet, 1.
    fn remove_old_containers(&mut self, sandbox: &SeenSandbox) {
        let names: BTreeSet<&str> = sandbox.containers.iter().map(|c| c.name.as_str()).collect();
        for name in names {
            let mut of_name: Vec<&SeenContainer> =
                sandbox.containers.iter().filter(|container| container.name == name).collect();
            of_name.sort_by_key(|container| std::cmp::Reverse(container.restart_count));
            for old in of_name.iter().skip(2).filter(|container| container.has_ended()) {
                self.ask(Action::RemoveContainer { id: old.id.clone() });
            }
        }
    }
}

/// The containers of one version of a pod, over all its sandboxes.
struct History<'a> {
    /// Those that count for what comes next.
    containers: Vec<&'a SeenContainer>,
    /// All, for counting.
    ever: Vec<&'a SeenContainer>,
}

impl<'a> History<'a> {
    fn of(seen: &'a SeenPod, run: &RunGoal) -> Self {
        let ever = || seen.sandboxes.iter().filter(|sandbox| sandbox.uid == run.pod.uid());
        let own = ever().filter(|sandbox| run.is_own(&sandbox.uid, sandbox.incarnation));
        Self {
            containers: own.flat_map(|sandbox| &sandbox.containers).collect(),
            ever: ever().flat_map(|sandbox| &sandbox.containers).collect(),
        }
    }

    /// The container that counts for what comes next. What prepares a pod does it in each of its sandboxes
    /// anew; what has come to its end for good there, has so in the next one.
    fn counting(
        &self,
        role: Role,
        name: &str,
        sandbox: Option<&'a SeenSandbox>,
        round: Round,
    ) -> Option<&'a SeenContainer> {
        let newest = match role {
            Role::Init | Role::Sidecar => sandbox.and_then(|sandbox| sandbox.newest(name)),
            Role::Main | Role::Ephemeral => self.newest(name),
        };
        newest.filter(|it| !round.voids_in(sandbox, it))
    }

    fn newest(&self, name: &str) -> Option<&'a SeenContainer> {
        let of_name = self.containers.iter().filter(|container| container.name == name);
        of_name.max_by_key(|container| container.restart_count).copied()
    }

    /// How many of this name ran, as far as it is still known. One that never ran is replaced
    /// under its own number.
    fn count(&self, name: &str) -> u32 {
        let of_name = self.ever.iter().filter(|container| container.name == name);
        let next = |it: &&SeenContainer| it.restart_count + u32::from(!it.state.never_ran());
        of_name.map(next).max().unwrap_or(0)
    }
}

/// Whether some container has run in a sandbox once, so that the run before that is in an older one.
fn tells_before(older: &SeenSandbox, current: &SeenSandbox) -> bool {
    let mut ran = older.containers.iter().filter(|it| !it.ephemeral && !it.state.never_ran());
    ran.any(|before| current.containers.iter().filter(|it| it.name == before.name).count() == 1)
}

#[cfg(test)]
mod tests;
