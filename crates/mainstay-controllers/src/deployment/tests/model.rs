//! Whole rollouts, with ReplicaSets that do what they are told in whatever order.

use proptest::prelude::*;

use super::*;

/// A cluster in which nothing goes wrong but that everything takes a while.
struct Model {
    deployment: Deployment,
    sets: Vec<ReplicaSet>,
    now: i64,
}

impl Model {
    fn new(deployment: Deployment, sets: Vec<ReplicaSet>) -> Self {
        Self { deployment, sets, now: 100 }
    }

    /// Decides, and does that; answers whether there was anything to do.
    fn sync(&mut self) -> bool {
        self.now += 1;
        let decision = decide_without_pods(&self.deployment, &self.sets, at(self.now));
        for write in &decision.writes {
            match write {
                Write::Create(made) => {
                    let mut made = (**made).clone();
                    made.metadata.uid = made.metadata.name.clone();
                    made.metadata.creation_timestamp =
                        Some(k8s_openapi::apimachinery::pkg::apis::meta::v1::Time(at(self.now)));
                    self.sets.push(made);
                }
                Write::Update { set, annotations, min_ready_seconds } => {
                    let set = self.set(sets::name(set));
                    set.metadata.annotations.get_or_insert_default().extend(annotations.clone());
                    if min_ready_seconds.is_some() {
                        set.spec.as_mut().unwrap().min_ready_seconds = *min_ready_seconds;
                    }
                }
                Write::Scale { set, from, to, annotations } => {
                    let set = self.set(sets::name(set));
                    assert_eq!(sets::size(set), *from);
                    set.spec.as_mut().unwrap().replicas = Some(i32::try_from(*to).unwrap());
                    set.metadata.annotations.get_or_insert_default().extend(annotations.clone());
                }
                Write::Delete(set) => {
                    self.sets.retain(|it| it.metadata.uid != set.metadata.uid);
                }
                Write::Status { status, revision } => {
                    self.deployment.status = Some((**status).clone());
                    let annotations = self.deployment.metadata.annotations.get_or_insert_default();
                    annotations.extend(
                        revision.iter().map(|it| (annotations::REVISION.to_owned(), it.clone())),
                    );
                }
            }
        }
        !decision.writes.is_empty()
    }

    fn set(&mut self, name: &str) -> &mut ReplicaSet {
        self.sets.iter_mut().find(|set| sets::name(set) == name).unwrap()
    }

    /// One of the ReplicaSets makes, deletes or makes available one pod; answers whether one could.
    fn work(&mut self, choice: usize) -> bool {
        let count = self.sets.len();
        (0..count).any(|offset| {
            let set = &mut self.sets[(choice + offset) % count];
            let size = i32::try_from(sets::size(set)).unwrap();
            let status = set.status.get_or_insert_default();
            let (ready, observed) = (status.ready_replicas, status.observed_generation);
            let available = ready.unwrap_or_default();
            let [replicas, available] = match status.replicas {
                actual if actual > size => [actual - 1, available.min(actual - 1)],
                actual if available < actual && choice.is_multiple_of(2) => [actual, available + 1],
                actual if actual < size => [actual + 1, available],
                actual if available < actual => [actual, available + 1],
                _ if observed == Some(1) => return false,
                actual => [actual, available],
            };
            status.replicas = replicas;
            status.ready_replicas = Some(available);
            status.available_replicas = Some(available);
            status.observed_generation = Some(1);
            status.terminating_replicas = Some(0);
            set.metadata.generation = Some(1);
            true
        })
    }

    fn total(&self, count: impl Fn(&ReplicaSet) -> i64) -> i64 {
        self.sets.iter().map(count).sum()
    }

    /// Goes on until nothing is to be done any more, checking at each step.
    fn settle(&mut self, choices: &[usize], check: impl Fn(&Self)) {
        for step in 0..2000 {
            let has_decided = self.sync();
            check(self);
            let choice = choices[step % choices.len()];
            if !self.work(choice) && !has_decided {
                return;
            }
            check(self);
        }
        panic!("this never ends: {:#?}", self.sets);
    }

    /// Whether all is as it should be in the end.
    fn assert_done(&self) {
        let wanted = strategy::Strategy::of(&self.deployment).wanted;
        let active: Vec<_> = self.sets.iter().filter(|set| sets::is_active(set)).collect();
        assert_eq!(self.total(sets::available), wanted);
        assert_eq!(active.len(), usize::from(wanted > 0));
        let status = self.deployment.status.as_ref().unwrap();
        assert!(status::is_complete(&self.deployment, status), "{status:?}");
        assert_eq!(conditions::progress(status), Some(reason::DONE));
    }
}

#[test]
fn a_rollout_is_told_step_by_step() {
    let mut model = Model::new(rolling(2, &json!(1), &json!(0)), Vec::new());
    model.settle(&[0], |_| {});
    model.assert_done();
    let revision = |model: &Model| {
        sets::annotation(&model.deployment.metadata, annotations::REVISION).map(str::to_owned)
    };
    assert_eq!(revision(&model).as_deref(), Some("1"));
    let first = sets::name(&model.sets[0]).to_owned();
    let spec = model.deployment.spec.as_mut().unwrap();
    spec.template = serde_json::from_value(template("newer")).unwrap();
    model.deployment.metadata.generation = Some(2);
    model.settle(&[0], |_| {});
    model.assert_done();
    assert_eq!((model.sets.len(), revision(&model).as_deref()), (2, Some("2")));
    // And back.
    let spec = model.deployment.spec.as_mut().unwrap();
    spec.template = serde_json::from_value(template("new")).unwrap();
    spec.revision_history_limit = Some(0);
    model.deployment.metadata.generation = Some(3);
    model.settle(&[0], |_| {});
    model.assert_done();
    assert_eq!((model.sets.len(), revision(&model).as_deref()), (1, Some("3")));
    assert_eq!(sets::name(&model.sets[0]), first);
    let history = sets::annotation(&model.sets[0].metadata, annotations::HISTORY);
    assert_eq!(history, Some("1"));
    let done = format!("ReplicaSet {first:?} has successfully progressed.");
    let expected = [
        ["Available", "True", "MinimumReplicasAvailable", "Deployment has minimum availability."],
        ["Progressing", "True", "NewReplicaSetAvailable", &*done],
    ];
    assert_eq!(conditions_of(model.deployment.status.as_ref().unwrap()), expected);
}

proptest! {
    #[test]
    fn there_are_never_too_many_pods_nor_too_few(
        wanted in 0..12_i32,
        surge in prop_oneof![(0..5_i32).prop_map(Value::from), Just(json!("25%"))],
        unavailable in prop_oneof![(0..5_i32).prop_map(Value::from), Just(json!("25%"))],
        choices in prop::collection::vec(0..6_usize, 1..20),
    ) {
        let old = sized(set("old", 1, [wanted; 3]), i64::from(wanted), i64::from(wanted));
        let mut model = Model::new(rolling(wanted, &surge, &unavailable), vec![old]);
        let strategy = strategy::Strategy::of(&model.deployment);
        model.settle(&choices, |model| {
            assert!(model.total(sets::size) <= strategy.most());
            assert!(model.total(sets::available) >= strategy.fewest_available());
        });
        model.assert_done();
    }

    #[test]
    fn it_ends_however_it_is_scaled_on_the_way(
        before in 0..12_i32,
        after in 0..12_i32,
        is_recreated: bool,
        when in 0..30_usize,
        choices in prop::collection::vec(0..6_usize, 1..20),
    ) {
        let old = sized(set("old", 1, [before; 3]), i64::from(before), i64::from(before));
        let deployment = match is_recreated {
            true => deployment(&json!({ "strategy": { "type": "Recreate" }, "replicas": before })),
            false => rolling(before, &json!("25%"), &json!("25%")),
        };
        let mut model = Model::new(deployment, vec![old]);
        for step in 0..when {
            model.sync();
            model.work(choices[step % choices.len()]);
        }
        model.deployment.spec.as_mut().unwrap().replicas = Some(after);
        model.deployment.metadata.generation = Some(2);
        model.settle(&choices, |_| {});
        model.assert_done();
    }
}
