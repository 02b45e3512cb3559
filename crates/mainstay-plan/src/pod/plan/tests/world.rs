//! Random histories: whatever happens, and in whatever order, the rules hold and the goal is
//! reached.
//!
//! The world has a runtime in which actions begin, end and fail at any time, containers that end
//! by themselves, an agent that forgets, a machine that reboots, and somebody who changes the goal.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Container, EphemeralContainer};
use mainstay_cri::{ContainerId, ContainerState, SandboxId};
use mainstay_pod::{Pod, Role};
use mainstay_testkit::pods::pod;
use proptest::prelude::*;

use crate::lifecycle;
use crate::pod::{
    Action, Ending, Eviction, EvictionCause, Failure, Finished, Goal, Health, ImageMemory, Key,
    Memory, RunGoal, SeenContainer, SeenPod, SeenSandbox, StopReason, has_started, plan, spent,
    was_interrupted,
};

/// One thing that happens. Numbers choose among what there is.
#[derive(Clone, Debug)]
enum Step {
    /// The worker looks and begins what it is told to.
    Plan,
    /// An action that is under way ends well.
    Succeed(usize),
    /// An action that is under way fails.
    Fail(usize),
    /// A container ends by itself.
    End(usize, i32),
    /// The startup probe of a container succeeds.
    Probe(usize),
    /// A probe gives up a container.
    GiveUp(usize),
    /// A shim is killed.
    KillShim(usize),
    /// Time goes by.
    Wait(u8),
    /// Another version is wanted, or none.
    Want(usize),
    /// Its restart is asked for.
    Restart,
    /// The agent is killed and starts again. What was under way may have happened or not.
    KillAgent(bool),
    /// The machine loses its power and boots.
    Reboot,
    /// The clock is set back.
    SetBack(u16),
    /// From now on the sandboxes that are there cannot be removed.
    Stick,
    /// What the pod refers to changes.
    Change,
    /// Somebody adds a container to the pod, to look into it.
    Add,
    /// The pod is to be ended, since it or its node has too little of something.
    Evict,
    /// The disk is short from now on, or is not any more.
    Shorten(bool),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        8 => Just(Step::Plan),
        8 => (0..8usize).prop_map(Step::Succeed),
        1 => (0..8usize).prop_map(Step::Fail),
        2 => (0..8usize, 0..2i32).prop_map(|(which, code)| Step::End(which, code)),
        2 => (0..8usize).prop_map(Step::Probe),
        1 => (0..8usize).prop_map(Step::GiveUp),
        1 => (0..4usize).prop_map(Step::KillShim),
        2 => any::<u8>().prop_map(Step::Wait),
        2 => (0..4usize).prop_map(Step::Want),
        1 => Just(Step::Restart),
        1 => any::<bool>().prop_map(Step::KillAgent),
        1 => Just(Step::Reboot),
        1 => any::<u16>().prop_map(Step::SetBack),
        1 => Just(Step::Stick),
        1 => Just(Step::Change),
        1 => Just(Step::Add),
        1 => Just(Step::Evict),
        1 => any::<bool>().prop_map(Step::Shorten),
    ]
}

struct World {
    versions: Vec<Arc<Pod>>,
    goal: Goal,
    seen: SeenPod,
    memory: Memory,
    /// Each with the goal that it was asked for.
    under_way: Vec<(Action, Goal)>,
    /// What the ledger has of the goal's pod: whether a container of it ran, and its end for good.
    started: bool,
    finished: Option<Finished>,
    /// The same: which containers that were added to it ran.
    spent: BTreeSet<String>,
    now: Timestamp,
    ids: u32,
    stuck: BTreeSet<SandboxId>,
}

/// Containers before the main ones: `i` runs to its end, `o` too and only once, `s` is a sidecar and `p`
/// one with a startup probe. With `r` all are started over when `b` has failed.
const SHAPES: [&str; 9] = ["", "i", "s", "o", "isj", "pi", "isp", "r", "isr"];

/// A pod with the main containers `a`, and `b` which has its own restart policy in some shapes; in some
/// `a` and `s` have hooks.
fn version(policy: &str, shape: &str, label: &str) -> Arc<Pod> {
    let hooks = match shape.len() {
        3 => ", lifecycle: {postStart: {sleep: {seconds: 1}}, preStop: {sleep: {seconds: 1}}}",
        _ => "",
    };
    let init = shape.chars().filter(|name| *name != 'r').map(|name| match name {
        's' => format!("{{name: {name}, image: i, restartPolicy: Always{hooks}}}"),
        'p' => {
            let probe = "startupProbe: {tcpSocket: {port: 1}}";
            format!("{{name: {name}, image: i, restartPolicy: Always, {probe}}}")
        }
        'o' => format!("{{name: {name}, image: i, restartPolicy: Never}}"),
        _ => format!("{{name: {name}, image: i}}"),
    });
    let init = init.collect::<Vec<_>>().join(", ");
    let own = match (shape.starts_with('s'), shape.ends_with('r')) {
        (true, _) => ", restartPolicy: OnFailure",
        (_, true) => {
            ", restartPolicy: Never, restartPolicyRules: [{action: RestartAllContainers, \
             exitCodes: {operator: In, values: [1]}}]"
        }
        _ => "",
    };
    pod(&format!(
        "apiVersion: v1\nkind: Pod\nmetadata: {{name: p, labels: {{v: {label}}}}}\nspec: \
         {{restartPolicy: {policy}, initContainers: [{init}], \
         containers: [{{name: a, image: i{hooks}}}, {{name: b, image: i{own}, \
         livenessProbe: {{tcpSocket: {{port: 1}}}}}}]}}"
    ))
}

/// Three versions of a pod, read once.
fn versions(policy: &str, shape: &str) -> Vec<Arc<Pod>> {
    static KNOWN: Mutex<BTreeMap<String, Vec<Arc<Pod>>>> = Mutex::new(BTreeMap::new());
    let mut known = KNOWN.lock().unwrap_or_else(PoisonError::into_inner);
    let read = || ["one", "two", "three"].map(|label| version(policy, shape, label)).to_vec();
    known.entry(format!("{policy} {shape}")).or_insert_with(read).clone()
}

impl World {
    fn new(policy: &str, shape: &str) -> Self {
        Self {
            versions: versions(policy, shape),
            goal: Goal::Gone,
            seen: SeenPod::default(),
            memory: Memory::default(),
            under_way: Vec::new(),
            started: false,
            finished: None,
            spent: BTreeSet::new(),
            now: Timestamp::from_second(1_000_000).unwrap(),
            ids: 0,
            stuck: BTreeSet::new(),
        }
    }

    fn id(&mut self) -> String {
        self.ids += 1;
        format!("{:04}", self.ids)
    }

    fn step(&mut self, step: &Step) {
        match step {
            Step::Plan => self.plan(),
            Step::Succeed(which) => {
                if !self.under_way.is_empty() {
                    let (action, goal) = self.under_way.remove(which % self.under_way.len());
                    self.end_action(action, &goal);
                }
            }
            Step::Fail(which) => {
                if !self.under_way.is_empty() {
                    let (action, _) = self.under_way.remove(which % self.under_way.len());
                    self.fail(&action);
                }
            }
            Step::End(which, code) => {
                let now = self.now;
                let mut running: Vec<&mut SeenContainer> = self.running().collect();
                let count = running.len();
                if count > 0 {
                    end(running[which % count], *code, now);
                }
            }
            Step::Probe(which) => {
                let ids: Vec<ContainerId> = self.running().map(|it| it.id.clone()).collect();
                if let Some(id) = ids.get(*which) {
                    self.succeed_probes(id.clone());
                }
            }
            Step::GiveUp(which) => {
                let running: Vec<ContainerId> = self.running().map(|it| it.id.clone()).collect();
                if let Some(id) = running.get(which % running.len().max(1)) {
                    let health = Health { started: true, ready: false, alive: false };
                    self.memory.health.insert(id.clone(), health);
                }
            }
            Step::KillShim(which) => {
                let count = self.seen.sandboxes.len();
                if count > 0 {
                    self.end_sandbox(&self.seen.sandboxes[which % count].id.clone());
                }
            }
            Step::Wait(seconds) => {
                let wait = Duration::from_secs(u64::from(*seconds));
                self.now = self.now.checked_add(wait).unwrap();
            }
            Step::Want(which) => {
                // A version that comes back after it was gone, or after another one, is new.
                self.goal = match self.versions.get(*which).cloned() {
                    Some(pod) => {
                        let same =
                            matches!(&self.goal, Goal::Run(run) if run.pod.uid() == pod.uid());
                        if same {
                            return;
                        }
                        (self.started, self.finished) = (false, None);
                        self.spent.clear();
                        let incarnation = Some(self.incarnation());
                        Goal::Run(RunGoal { pod, incarnation })
                    }
                    None => Goal::Gone,
                };
            }
            Step::Restart => {
                let incarnation = self.incarnation();
                if let Goal::Run(run) = &mut self.goal {
                    run.incarnation = Some(incarnation);
                    (self.started, self.finished) = (false, None);
                }
            }
            Step::KillAgent(happened) => {
                for (action, goal) in std::mem::take(&mut self.under_way) {
                    if *happened && !self.is_stuck(&action) {
                        self.carry_out(&action, &goal);
                    }
                }
                self.restart_agent();
            }
            Step::Reboot => {
                self.under_way.clear();
                self.seen = SeenPod::default();
                self.stuck.clear();
                self.restart_agent();
            }
            Step::SetBack(seconds) => {
                let back = Duration::from_secs(u64::from(*seconds));
                self.now = self.now.checked_sub(back).unwrap();
            }
            Step::Change => {
                self.memory.retry_sources(self.now);
                self.memory.outdated = true;
            }
            Step::Add => {
                if let Goal::Run(run) = &mut self.goal {
                    let mut all = run.pod.spec().ephemeral_containers.clone().unwrap_or_default();
                    let name = format!("e{}", all.len());
                    all.push(EphemeralContainer { name, ..EphemeralContainer::default() });
                    run.pod = Arc::new(run.pod.with_ephemeral_containers(all));
                }
            }
            Step::Evict => {
                if let Goal::Run(run) = &self.goal {
                    self.memory.evicted = Some(Eviction {
                        uid: run.pod.uid().to_owned(),
                        incarnation: run.incarnation,
                        message: "x".into(),
                        grace: Duration::from_secs(1),
                        cause: EvictionCause::Pressure,
                    });
                }
            }
            Step::Shorten(is_short) => self.memory.reclaims = *is_short,
            Step::Stick => {
                self.stuck.extend(self.seen.sandboxes.iter().map(|sandbox| sandbox.id.clone()));
            }
        }
        self.check();
    }

    /// Another one at each call, whatever the clock says.
    fn incarnation(&mut self) -> Timestamp {
        self.ids += 1;
        Timestamp::from_second(i64::from(self.ids)).unwrap()
    }

    fn is_stuck(&self, action: &Action) -> bool {
        matches!(action, Action::RemoveSandbox { id } if self.stuck.contains(id))
    }

    fn end_action(&mut self, action: Action, goal: &Goal) {
        if self.is_stuck(&action) {
            self.fail(&action);
        } else {
            self.carry_out(&action, goal);
            self.take_in(action, goal);
        }
    }

    fn fail(&mut self, action: &Action) {
        self.memory.in_flight.remove(&action.key());
        self.memory.outdated |= *action == Action::UpdateVolumes;
        self.note_pre_stop(action);
        // What is done before an end does not fail; and of what ends nobody wants to know.
        let ends = |id| self.memory.ending.contains_key(id);
        if matches!(action, Action::PreStop { .. })
            || matches!(action, Action::PostStart { id, .. } if ends(id))
        {
            return;
        }
        let retry_at = self.now.checked_add(Duration::from_secs(1)).ok();
        let failure = Failure { reason: "X".into(), message: "x".into(), count: 1, retry_at };
        self.memory.failures.insert(action.key(), failure);
    }

    fn note_pre_stop(&mut self, action: &Action) {
        if let Action::PreStop { id, .. } = action
            && let Some(ending) = self.memory.ending.get_mut(id)
        {
            ending.pre_stopped = true;
        }
    }

    /// Moments are told apart.
    fn tick(&mut self) {
        self.now = self.now.checked_add(Duration::from_millis(1)).unwrap();
    }

    fn restart_agent(&mut self) {
        let hosted = self.memory.hosted.clone();
        if let Goal::Run(run) = &self.goal
            && self.finished.is_none()
            && was_interrupted(run.pod.restart_policy(), self.started, &self.seen)
        {
            self.finished = Some(finished(run));
        }
        self.memory = Memory { hosted, finished: self.finished.clone(), ..Memory::default() };
    }

    fn succeed_probes(&mut self, id: ContainerId) {
        self.memory.health.insert(id, Health { started: true, ready: true, alive: true });
    }

    fn running(&mut self) -> impl Iterator<Item = &mut SeenContainer> {
        let all = self.seen.sandboxes.iter_mut().flat_map(|sandbox| &mut sandbox.containers);
        all.filter(|container| matches!(container.state, ContainerState::Running { .. }))
    }

    fn plan(&mut self) {
        self.memory.turn_to(&self.goal);
        self.memory.forget_gone(&self.seen);
        if let Goal::Run(run) = &self.goal {
            self.started |= has_started(run, &self.seen);
            self.spent.append(&mut spent(run, &self.seen));
            self.memory.spent.clone_from(&self.spent);
        }
        let plan = plan(&self.goal, &self.seen, &self.memory, self.now);
        for action in plan.actions {
            let fresh = self.memory.in_flight.insert(action.key());
            assert!(fresh, "{action:?} is under way already");
            if action == Action::UpdateVolumes {
                let prepared = self.memory.prepared.as_deref();
                assert_eq!(prepared, self.goal.pod().map(|run| run.pod.uid()), "before Prepare");
                self.memory.outdated = false;
            }
            self.check_start(&action);
            self.check_order(&action);
            self.check_stop(&action);
            let stops = match &action {
                Action::StopSandbox { id } | Action::RemoveSandbox { id } => Some(id.clone()),
                Action::PreStop { id, why: StopReason::PodEnds, .. }
                | Action::StopContainer { id, why: Some(StopReason::PodEnds), .. } => {
                    self.sandbox_of(id).map(|it| it.id.clone())
                }
                _ => None,
            };
            if let Action::PreStop { id, .. } | Action::StopContainer { id, .. } = &action {
                let ending = Ending { since: self.now, pre_stopped: false };
                self.memory.ending.entry(id.clone()).or_insert(ending);
            }
            if let Some(id) = stops {
                self.memory.stopping.entry(id).or_insert(self.now);
            }
            self.under_way.push((action, self.goal.clone()));
        }
    }

    fn sandbox_of(&mut self, id: &ContainerId) -> Option<&mut SeenSandbox> {
        let has = |sandbox: &&mut SeenSandbox| sandbox.containers.iter().any(|it| it.id == *id);
        self.seen.sandboxes.iter_mut().find(has)
    }

    /// A start is only asked for when nothing else of the pod is alive, and the pod has not ended
    /// for good.
    fn check_start(&self, action: &Action) {
        let own = match action {
            Action::RunSandbox { .. } => None,
            Action::StartContainer { sandbox, .. } => Some(sandbox),
            _ => return,
        };
        assert_eq!(self.finished, None, "{action:?}");
        let others = self.seen.sandboxes.iter().filter(|it| Some(&it.id) != own);
        for other in others {
            assert!(!other.is_alive(), "{action:?} beside {other:?}");
        }
    }

    /// Nothing is started before its time: what comes before it in the pod is through, in this sandbox; and
    /// nothing that was through once is done again, but what is to be there all the time.
    fn check_order(&self, action: &Action) {
        let Action::StartContainer { sandbox, container } = action else { return };
        let Goal::Run(run) = &self.goal else { panic!("{action:?} of a pod that is to end") };
        let sandbox = self.seen.sandboxes.iter().find(|it| it.id == *sandbox).unwrap();
        if let Some((Role::Ephemeral, _)) = run.pod.container(&container.name) {
            assert!(!self.spent.contains(&container.name), "{action:?} again");
            return;
        }
        let all: Vec<_> = run.pod.containers().collect();
        let made =
            |at: usize| sandbox.newest(&all[at].1.name).filter(|it| it.round == container.round);
        let others = sandbox.containers.iter().filter(|it| !it.ephemeral);
        let mut old = others.filter(|it| it.round < container.round);
        assert!(old.all(SeenContainer::has_ended), "{action:?} beside the last round");
        let own = all.iter().position(|(_, it)| it.name == container.name).unwrap();
        let role = all[own].0;
        let Some(last) = (0..all.len()).rfind(|at| made(*at).is_some()) else {
            assert!(own == 0 || (role == Role::Main && all[0].0 == Role::Main), "{action:?}");
            return;
        };
        let newest = made(last).unwrap();
        let through = match all[last].0 {
            Role::Main | Role::Ephemeral => true,
            Role::Sidecar => self.memory.has_started(all[last].1, newest),
            Role::Init => matches!(newest.state, ContainerState::Exited { exit_code: 0, .. }),
        };
        let main = |at: usize| all.get(at).is_some_and(|(role, _)| *role == Role::Main);
        let is_next = through && (own == last + 1 || role == Role::Main && main(last + 1));
        let again = match role {
            Role::Init => own == last && !through,
            Role::Sidecar => own <= last,
            Role::Main => all[last].0 == Role::Main,
            Role::Ephemeral => false,
        };
        assert!(is_next || again, "{action:?} in {sandbox:#?}");
        for (_, before) in all.iter().take(own) {
            let starting = self.memory.in_flight.contains(&Key::Container(before.name.clone()));
            let awaited = sandbox.newest(&before.name).is_some_and(|it| {
                !it.has_ended()
                    && self.memory.post_start.contains(&it.id)
                    && !self.memory.failures.contains_key(&Key::Hook(it.id.clone()))
            });
            let waits = lifecycle::post_start(before).is_some() && starting || awaited;
            assert!(!waits, "{action:?} before what {} does after its start", before.name);
        }
    }

    /// A sidecar is ended after those that it is there for, as long as there is time.
    fn check_stop(&self, action: &Action) {
        let Action::StopContainer { id, why, .. } = action else { return };
        let now = self.now;
        let pre_stopped = self.memory.ending.get(id).is_some_and(|it| it.pre_stopped);
        let sandbox = self.seen.sandbox_of(id).unwrap();
        let stopping = self.memory.stopping.get(&sandbox.id);
        if !matches!(why, Some(StopReason::PodEnds)) && (why.is_some() || stopping.is_none()) {
            return;
        }
        let since = stopping.copied().unwrap_or(now);
        let late = now.duration_since(since) >= sandbox.grace.try_into().unwrap();
        let own = sandbox.containers.iter().find(|it| it.id == *id).unwrap();
        assert!(own.pre_stop.is_none() || pre_stopped || late, "{action:?} before what is to be");
        let rank = |it: &SeenContainer| {
            sandbox.sidecars.iter().position(|name| *name == it.name).map_or(usize::MAX, |at| at)
        };
        let mut others = sandbox.containers.iter().filter(|it| !it.ephemeral);
        let later = others.any(|it| !it.has_ended() && rank(it) > rank(own));
        assert!(late || !later, "{action:?} in {sandbox:#?}");
    }

    fn carry_out(&mut self, action: &Action, goal: &Goal) {
        self.tick();
        let now = self.now;
        match action {
            Action::Prepare { uid } => {
                self.memory.hosted.insert(uid.clone());
            }
            Action::UpdateVolumes
            | Action::Resize(_)
            | Action::EnsureImage { .. }
            | Action::RecordFinished { .. }
            | Action::PostStart { .. }
            | Action::PreStop { .. } => {}
            Action::RunSandbox { attempt } => {
                // The goal may have changed since; the sandbox is of the one that it was asked for.
                let Goal::Run(run) = goal else { return };
                let sandbox = SeenSandbox {
                    id: SandboxId(self.id()),
                    uid: run.pod.uid().to_owned(),
                    incarnation: run.incarnation,
                    attempt: *attempt,
                    ready: true,
                    created_at: now,
                    ips: vec![],
                    grace: Duration::from_secs(5),
                    exclusive: crate::exclusive::Exclusive::default(),
                    sidecars: run
                        .pod
                        .containers()
                        .filter(|(role, _)| *role == Role::Sidecar)
                        .map(|(_, it)| it.name.clone())
                        .collect(),
                    containers: vec![],
                };
                self.seen.sandboxes.insert(0, sandbox);
            }
            Action::StartContainer { sandbox, container } => {
                let id = ContainerId(self.id());
                let target = self.seen.sandboxes.iter_mut().find(|it| it.id == *sandbox);
                let Some(target) = target.filter(|it| it.ready) else { return };
                let Goal::Run(run) = goal else { return };
                let pre_stop = note(&run.pod, &container.name);
                let role = run.pod.container(&container.name).map(|(role, _)| role);
                let ephemeral = role == Some(Role::Ephemeral);
                target.containers.push(SeenContainer {
                    id,
                    name: container.name.clone(),
                    restart_count: container.restart_count,
                    round: container.round,
                    ephemeral,
                    state: ContainerState::Running { started_at: now },
                    backoff: container.backoff,
                    image: "i".into(),
                    image_ref: "i".into(),
                    pre_stop,
                    termination_message: None,
                    user: None,
                });
            }
            Action::StopContainer { id, .. } => {
                if let Some(sandbox) = self.sandbox_of(id) {
                    let container = sandbox.containers.iter_mut().find(|it| it.id == *id);
                    container.into_iter().for_each(|container| end(container, 143, now));
                }
            }
            Action::RemoveContainer { id } => {
                if let Some(sandbox) = self.sandbox_of(id) {
                    sandbox.containers.retain(|it| it.id != *id);
                }
            }
            Action::StopSandbox { id } => self.end_sandbox(id),
            Action::RemoveSandbox { id } => {
                self.end_sandbox(id);
                self.seen.sandboxes.retain(|it| it.id != *id);
            }
            Action::CleanUp { uid } => {
                let used = self.seen.sandboxes.iter().any(|it| it.uid == *uid);
                assert!(!used, "the place of {uid} is cleared under it");
                self.memory.hosted.remove(uid);
            }
        }
    }

    fn end_sandbox(&mut self, id: &SandboxId) {
        let now = self.now;
        for sandbox in self.seen.sandboxes.iter_mut().filter(|it| it.id == *id) {
            sandbox.ready = false;
            sandbox.containers.iter_mut().for_each(|container| end(container, 137, now));
        }
    }

    /// As the worker takes in what succeeded.
    fn take_in(&mut self, action: Action, goal: &Goal) {
        let key = action.key();
        self.memory.in_flight.remove(&key);
        self.memory.failures.remove(&key);
        self.note_pre_stop(&action);
        let Goal::Run(run) = goal else {
            if let Action::CleanUp { uid } = action {
                self.memory.forget_place(&uid);
            }
            return;
        };
        match action {
            Action::Prepare { uid } => self.memory.prepared = Some(uid),
            Action::EnsureImage { container }
                if self.memory.version.as_deref() == Some(run.pod.uid()) =>
            {
                self.memory.images.insert(container, ImageMemory::Ready("i".into()));
            }
            Action::StartContainer { sandbox, container } => {
                self.memory.images.remove(&container.name);
                let sandbox = self.seen.sandboxes.iter().find(|it| it.id == sandbox);
                let made = sandbox.and_then(|sandbox| sandbox.newest(&container.name));
                let has_hook = run
                    .pod
                    .container(&container.name)
                    .is_some_and(|(_, container)| lifecycle::post_start(container).is_some());
                let started = made.filter(|_| has_hook).map(|made| made.id.clone());
                self.memory.post_start.extend(started);
            }
            Action::PostStart { id, .. } => {
                self.memory.post_start.remove(&id);
            }
            Action::RecordFinished { .. } => {
                self.memory.finished = Some(finished(run));
                // The ledger takes it only if it is of what it has.
                let own = |goal: &Goal| {
                    matches!(goal, Goal::Run(now) if now.pod.uid() == run.pod.uid()
                    && now.incarnation == run.incarnation)
                };
                if own(&self.goal) {
                    self.finished = Some(finished(run));
                }
            }
            Action::CleanUp { uid } => self.memory.forget_place(&uid),
            _ => {}
        }
    }

    /// What must hold at every moment.
    fn check(&self) {
        let mut alive = BTreeSet::new();
        let mut names = BTreeSet::new();
        for sandbox in &self.seen.sandboxes {
            for container in sandbox.containers.iter().filter(|it| !it.has_ended()) {
                alive.insert((sandbox.uid.clone(), sandbox.id.clone()));
                let twice = !names.insert((sandbox.uid.clone(), container.name.clone()));
                assert!(!twice, "{} runs twice: {:#?}", container.name, self.seen);
            }
        }
        assert!(alive.len() <= 1, "two versions at once: {:#?}", self.seen);
    }

    /// From here on all goes well and nobody interferes: the goal is reached, and soon.
    fn settle(&mut self) {
        for _ in 0..300 {
            self.plan();
            self.check();
            if self.under_way.is_empty() {
                if self.is_reached() {
                    return;
                }
                self.go_on();
                // Only time can help.
                self.now = self.now.checked_add(Duration::from_secs(30)).unwrap();
            }
            while let Some((action, goal)) = self.under_way.pop() {
                self.end_action(action, &goal);
                self.check();
            }
        }
        panic!("not reached: {:#?} {:#?}", self.seen, self.memory);
    }

    /// What prepares a pod comes to its end, and sidecars come to be ready.
    fn go_on(&mut self) {
        let now = self.now;
        let is_init = |name: &str| ["i", "j", "o"].contains(&name);
        for container in self.running().filter(|it| is_init(&it.name)) {
            end(container, 0, now);
        }
        let ids: Vec<ContainerId> = self.running().map(|it| it.id.clone()).collect();
        ids.into_iter().for_each(|id| self.succeed_probes(id));
    }

    fn is_reached(&self) -> bool {
        // What cannot be removed stays, and its place on the host with it.
        let stays = |uid: &String| {
            let stuck = |it: &SeenSandbox| it.uid == *uid && self.stuck.contains(&it.id);
            self.seen.sandboxes.iter().any(stuck)
        };
        let Goal::Run(run) = &self.goal else {
            let all = self.seen.sandboxes.iter().all(|it| !it.is_alive() && stays(&it.uid));
            return all && self.memory.hosted.iter().all(stays);
        };
        let own = self.seen.sandboxes.iter().filter(|it| it.uid == run.pod.uid());
        let own: Vec<_> = own.flat_map(|it| &it.containers).collect();
        let runs = |name: &str| own.iter().any(|it| it.name == name && !it.has_ended());
        if !self.memory.hosted.iter().all(|uid| uid == run.pod.uid() || stays(uid)) {
            return false;
        }
        if self.memory.has_finished(run) {
            return own.iter().all(|it| it.has_ended());
        }
        // Those that have ended for good stay ended, but one has not.
        let is_over = |container: &Container| {
            let of_name = own.iter().filter(|it| it.name == container.name);
            of_name.max_by_key(|it| it.restart_count).is_some_and(|newest| match newest.state {
                ContainerState::Exited { exit_code, .. } => {
                    !run.pod.restarts(Role::Main, container, exit_code)
                }
                _ => false,
            })
        };
        let added = run.pod.ephemeral_containers();
        if !added.iter().all(|it| self.spent.contains(&it.name)) {
            return false;
        }
        let mut one = false;
        let all = run.pod.containers().all(|(role, container)| match role {
            Role::Init => !own.iter().any(|it| {
                it.name == container.name && matches!(it.state, ContainerState::Running { .. })
            }),
            Role::Sidecar => runs(&container.name),
            Role::Main => {
                one |= runs(&container.name);
                runs(&container.name) || is_over(container)
            }
            Role::Ephemeral => true,
        });
        all && one
    }
}

/// What is noted with a container of this name of what is done before its end.
fn note(pod: &Pod, name: &str) -> Option<Arc<str>> {
    let (_, container) = pod.container(name)?;
    let handler = lifecycle::pre_stop(container)?;
    Some(lifecycle::note(handler, container).into())
}

fn finished(run: &RunGoal) -> Finished {
    Finished { uid: run.pod.uid().to_owned(), incarnation: run.incarnation }
}

fn end(container: &mut SeenContainer, exit_code: i32, now: Timestamp) {
    let started_at = match container.state {
        ContainerState::Running { started_at } => Some(started_at),
        ContainerState::Created => None,
        ContainerState::Exited { .. } => return,
    };
    container.state = ContainerState::Exited {
        started_at,
        finished_at: now,
        exit_code,
        reason: "Error".into(),
        message: String::new(),
    };
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 3000, ..ProptestConfig::default() })]

    #[test]
    fn whatever_happens_the_rules_hold_and_the_goal_is_reached(
        policy in prop::sample::select(vec!["Always", "OnFailure", "Never"]),
        shape in prop::sample::select(SHAPES.to_vec()),
        steps in prop::collection::vec(step(), 0..60),
    ) {
        let mut world = World::new(policy, shape);
        for step in &steps {
            world.step(step);
        }
        world.settle();
    }
}

/// What a container can be seen as; `p` may run without having started.
const STATES: [&str; 6] = ["none", "created", "running", "starting", "ended 0", "ended 1"];

/// Every picture that there can be of a pod's containers is followed by an end: it is as it should be, or
/// nothing of it is left. And on the way no rule is broken.
#[test]
fn from_every_combination_of_states_a_pod_comes_to_where_it_should_be() {
    let pods = [("isp", ["i", "s", "p", "a"]), ("isr", ["i", "s", "a", "b"])];
    for (shape, names) in pods {
        for policy in ["Always", "OnFailure", "Never"] {
            for which in 0..STATES.len().pow(4) {
                let at = |n: u32| STATES[which / STATES.len().pow(n) % STATES.len()];
                for wanted in [0, 1, 3] {
                    let mut world = World::new(policy, shape);
                    world.seen_as(names.into_iter().zip([at(0), at(1), at(2), at(3)]));
                    world.step(&Step::Want(wanted));
                    world.settle();
                }
            }
        }
    }
}

impl World {
    /// Wants the first version, with a sandbox in which there are these containers.
    fn seen_as<'a>(&mut self, containers: impl Iterator<Item = (&'a str, &'a str)>) {
        self.step(&Step::Want(0));
        self.memory.turn_to(&self.goal);
        let uid = self.versions[0].uid().to_owned();
        self.memory.prepared = Some(uid.clone());
        self.memory.hosted.insert(uid);
        let goal = self.goal.clone();
        self.carry_out(&Action::RunSandbox { attempt: 0 }, &goal);
        containers.for_each(|(name, state)| self.put(name, state));
    }

    /// Puts a container in the sandbox, as it is seen.
    fn put(&mut self, name: &str, state: &str) {
        let (id, now) = (ContainerId(self.id()), self.now);
        let running = ContainerState::Running { started_at: now };
        let mut container = SeenContainer {
            id: id.clone(),
            name: name.into(),
            restart_count: 0,
            round: 0,
            ephemeral: false,
            state: running,
            backoff: None,
            image: "i".into(),
            image_ref: "i".into(),
            pre_stop: note(&self.versions[0], name),
            termination_message: None,
            user: None,
        };
        match state {
            "none" => return,
            "created" => container.state = ContainerState::Created,
            "running" => self.succeed_probes(id),
            "ended 0" => end(&mut container, 0, now),
            "ended 1" => end(&mut container, 1, now),
            _ => {}
        }
        self.seen.sandboxes[0].containers.push(container);
    }
}
