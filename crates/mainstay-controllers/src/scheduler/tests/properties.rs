//! What holds whatever nodes and pods there are.

use mainstay_pod::scheduling::host_ports::conflict;
use proptest::prelude::*;

use super::*;
use crate::scheduler::resource::Capacity;
use crate::scheduler::testing::merged;

#[derive(Clone, Debug)]
struct Wanted {
    cpu: u8,
    memory: u8,
    port: Option<u8>,
    spread: bool,
    apart: bool,
    priority: i32,
}

fn wanted() -> impl Strategy<Value = Wanted> {
    let port = proptest::option::weighted(0.3, 0..3_u8);
    (0..30_u8, 0..40_u8, port, any::<bool>(), proptest::bool::weighted(0.2), 0..3_i32).prop_map(
        |(cpu, memory, port, spread, apart, priority)| Wanted {
            cpu,
            memory,
            port,
            spread,
            apart,
            priority,
        },
    )
}

fn made(index: usize, wanted: &Wanted) -> PodInfo {
    let Wanted { cpu, memory, port, spread, apart, priority } = wanted;
    let mut spec = requesting(&format!("{cpu}00m"), &format!("{memory}00Mi"));
    if let Some(port) = port {
        let port = json!({"containerPort": 80, "hostPort": 8000 + u16::from(*port)});
        spec["containers"][0]["ports"] = json!([port]);
    }
    let selector = json!({"matchLabels": {"app": "x"}});
    if *spread {
        spec["topologySpreadConstraints"] = json!([{
            "maxSkew": 1, "topologyKey": "zone", "whenUnsatisfiable": "DoNotSchedule",
            "labelSelector": selector,
        }]);
    }
    if *apart {
        let term = json!({"labelSelector": selector, "topologyKey": "kubernetes.io/hostname"});
        let required = "requiredDuringSchedulingIgnoredDuringExecution";
        spec["affinity"] = json!({"podAntiAffinity": {required: [term]}});
    }
    spec["priority"] = json!(priority);
    let labels = json!({"metadata": {"labels": {"app": if *spread { "x" } else { "y" }}}});
    pod(&format!("p{index}"), merged(json!({"spec": spec}), labels))
}

/// Whether no node has more on it than it can have.
fn holds(snapshot: &Snapshot) -> Result<(), TestCaseError> {
    for (_, info, node) in snapshot.nodes() {
        let capacity = Capacity::of(node);
        let pods: Vec<&PodInfo> = info.pods().map(|pod| &**pod).collect();
        let sum = |of: fn(&PodInfo) -> i64| pods.iter().map(|pod| of(pod)).sum::<i64>();
        prop_assert!(sum(|pod| pod.requests.cpu) <= capacity.resources.cpu);
        prop_assert!(sum(|pod| pod.requests.memory) <= capacity.resources.memory);
        prop_assert_eq!(sum(|pod| pod.requests.cpu), info.requested.cpu);
        prop_assert_eq!(sum(|pod| pod.scored[1]), info.scored[1]);
        prop_assert!(i64::try_from(pods.len()).unwrap() <= capacity.pods);
        for (index, one) in pods.iter().enumerate() {
            for other in pods.iter().skip(index + 1) {
                let ports = one
                    .host_ports
                    .iter()
                    .flat_map(|one| other.host_ports.iter().map(move |other| conflict(one, other)));
                prop_assert!(!ports.into_iter().any(|conflicting| conflicting));
                for (one, other) in [(one, other), (other, one)] {
                    let apart = &one.kind.terms.required_anti;
                    prop_assert!(
                        !apart.iter().any(|it| it.matches(&other.kind, &snapshot.namespaces))
                    );
                }
            }
        }
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

    #[test]
    fn what_is_bound_fits(pods in proptest::collection::vec(wanted(), 1..60), seed: u64) {
        let zone = |zone: &str| json!({"metadata": {"labels": {"zone": zone}}});
        let nodes = [("a", "1"), ("b", "1"), ("c", "2")].map(|(name, of)| node(name, zone(of)));
        let mut snapshot = snapshot(nodes, []);
        for (index, wanted) in pods.iter().enumerate() {
            let pod = made(index, wanted);
            let seed = mix(seed.wrapping_add(u64::try_from(index).unwrap()));
            match schedule(&pod, &snapshot, seed) {
                Outcome::Node(name) => {
                    snapshot.add_pod(pod, &name);
                }
                Outcome::NoNodes => prop_assert!(false, "there are nodes"),
                Outcome::Unschedulable(error) => {
                    if let Preemption::Node { name, victims } =
                        preempt(&pod, &snapshot, &error, seed)
                    {
                        prop_assert!(!victims.is_empty());
                        prop_assert!(victims.iter().all(|victim| victim.priority < pod.priority));
                        for victim in victims {
                            snapshot.remove_pod(&victim.uid);
                        }
                        let slot = snapshot.named(&name).unwrap();
                        let (info, node) = snapshot.at(slot).unwrap();
                        prop_assert_eq!(Filters::new(&pod, &snapshot).check(info, node), Ok(()));
                        snapshot.add_pod(pod, &name);
                    }
                }
            }
            holds(&snapshot)?;
        }
        for index in 0..pods.len() {
            snapshot.remove_pod(&format!("p{index}"));
        }
        prop_assert_eq!(snapshot.kinds.all().count(), 0);
        prop_assert!(snapshot.nodes().all(|(_, info, _)| info.requested.is_nothing()));
    }
}
