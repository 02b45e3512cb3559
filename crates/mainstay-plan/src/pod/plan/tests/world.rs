//! Random histories: whatever happens, and in whatever order, the rules hold and the goal is
//! reached.
//!
//! The world has a runtime in which actions begin, end and fail at any time, containers that end
//! by themselves, an agent that forgets, a machine that reboots, and somebody who changes the goal.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use mainstay_cri::{ContainerId, ContainerState, SandboxId};
use mainstay_pod::{Pod, RestartPolicy};
use mainstay_testkit::pods::pod;
use proptest::prelude::*;

use crate::pod::{
    Action, Failure, Finished, Goal, ImageMemory, Memory, RunGoal, SeenContainer, SeenPod,
    SeenSandbox, has_started, plan, was_interrupted,
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
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        8 => Just(Step::Plan),
        8 => (0..8usize).prop_map(Step::Succeed),
        1 => (0..8usize).prop_map(Step::Fail),
        2 => (0..8usize, 0..2i32).prop_map(|(which, code)| Step::End(which, code)),
        1 => (0..4usize).prop_map(Step::KillShim),
        2 => any::<u8>().prop_map(Step::Wait),
        2 => (0..4usize).prop_map(Step::Want),
        1 => Just(Step::Restart),
        1 => any::<bool>().prop_map(Step::KillAgent),
        1 => Just(Step::Reboot),
        1 => any::<u16>().prop_map(Step::SetBack),
        1 => Just(Step::Stick),
        1 => Just(Step::Change),
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
    now: Timestamp,
    ids: u32,
    stuck: BTreeSet<SandboxId>,
}

impl World {
    fn new(policy: &str) -> Self {
        let version = |label: &str| {
            pod(&format!(
                "apiVersion: v1\nkind: Pod\nmetadata: {{name: p, labels: {{v: {label}}}}}\nspec: \
                 {{restartPolicy: {policy}, containers: [{{name: a, image: i}}, \
                 {{name: b, image: i}}]}}"
            ))
        };
        Self {
            versions: vec![version("one"), version("two"), version("three")],
            goal: Goal::Gone,
            seen: SeenPod::default(),
            memory: Memory::default(),
            under_way: Vec::new(),
            started: false,
            finished: None,
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
        let retry_at = self.now.checked_add(Duration::from_secs(1)).ok();
        let failure = Failure { reason: "X".into(), message: "x".into(), count: 1, retry_at };
        self.memory.failures.insert(action.key(), failure);
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

    fn running(&mut self) -> impl Iterator<Item = &mut SeenContainer> {
        let all = self.seen.sandboxes.iter_mut().flat_map(|sandbox| &mut sandbox.containers);
        all.filter(|container| matches!(container.state, ContainerState::Running { .. }))
    }

    fn plan(&mut self) {
        self.memory.turn_to(&self.goal);
        self.memory.forget_gone(&self.seen);
        if let Goal::Run(run) = &self.goal {
            self.started |= has_started(run, &self.seen);
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
            let stops = match &action {
                Action::StopSandbox { id } | Action::RemoveSandbox { id } => Some(id.clone()),
                Action::StopContainer { id, .. } => self.sandbox_of(id).map(|it| it.id.clone()),
                _ => None,
            };
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

    fn carry_out(&mut self, action: &Action, goal: &Goal) {
        self.tick();
        let now = self.now;
        match action {
            Action::Prepare { uid } => {
                self.memory.hosted.insert(uid.clone());
            }
            Action::UpdateVolumes | Action::EnsureImage { .. } | Action::RecordFinished { .. } => {}
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
                    containers: vec![],
                };
                self.seen.sandboxes.insert(0, sandbox);
            }
            Action::StartContainer { sandbox, container } => {
                let id = ContainerId(self.id());
                let target = self.seen.sandboxes.iter_mut().find(|it| it.id == *sandbox);
                let Some(target) = target.filter(|it| it.ready) else { return };
                target.containers.push(SeenContainer {
                    id,
                    name: container.name.clone(),
                    restart_count: container.restart_count,
                    state: ContainerState::Running { started_at: now },
                    backoff: container.backoff,
                    image: "i".into(),
                    image_ref: "i".into(),
                    termination_message: None,
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
            Action::StartContainer { container, .. } => {
                self.memory.images.remove(&container.name);
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
        let running =
            own.clone().flat_map(|it| &it.containers).filter(|it| !it.has_ended()).count();
        let only = self.memory.hosted.iter().all(|uid| uid == run.pod.uid() || stays(uid));
        let finished = self.memory.has_finished(run);
        match run.pod.restart_policy() {
            RestartPolicy::Always => running == 2 && only,
            // Those that ended well stay ended.
            RestartPolicy::OnFailure | RestartPolicy::Never => {
                only && (finished && running == 0 || !finished && running > 0)
            }
        }
    }
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
        steps in prop::collection::vec(step(), 0..60),
    ) {
        let mut world = World::new(policy);
        for step in &steps {
            world.step(step);
        }
        world.settle();
    }
}
