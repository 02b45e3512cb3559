//! What kinds of containers a pod has, and what their ends lead to.
//!
//! Source: `pkg/api/v1/pod/util.go` (`ContainerShouldRestart`, `IsRestartableInitContainer`).

use k8s_openapi::api::core::v1::{
    Container, ContainerRestartRule, EphemeralContainer, PodSpec, Volume,
};

use crate::pod::{Pod, RestartPolicy};

/// What a container is to its pod.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub enum Role {
    /// It runs to its end before the next one starts: an init container.
    Init,
    /// It starts among the init containers and runs as long as the pod does: an init container with
    /// the restart policy `Always`.
    Sidecar,
    /// The pod runs for its sake.
    Main,
    /// Somebody added it to a pod that was there, to look into it: it is started once, and nothing waits for
    /// it.
    Ephemeral,
}

/// What a rule for exit codes asks for: restart, of the container alone.
const RESTART: &str = "Restart";

/// The same: restart, of all containers.
const RESTART_ALL: &str = "RestartAllContainers";

/// All containers that a pod starts by itself, in the order in which they do: init containers and sidecars,
/// then the others.
pub fn of(spec: &PodSpec) -> impl Iterator<Item = (Role, &Container)> {
    let init = spec.init_containers.iter().flatten().map(|it| match restarts_always(it) {
        true => (Role::Sidecar, it),
        false => (Role::Init, it),
    });
    init.chain(spec.containers.iter().map(|it| (Role::Main, it)))
}

/// Of an init container: whether it is a sidecar.
pub(crate) fn restarts_always(container: &Container) -> bool {
    container.restart_policy.as_deref() == Some("Always")
}

impl Pod {
    /// As [`of`].
    pub fn containers(&self) -> impl Iterator<Item = (Role, &Container)> {
        of(self.spec())
    }

    /// The container of this name, whatever its role.
    pub fn container(&self, name: &str) -> Option<(Role, &Container)> {
        let added = self.ephemeral_containers().iter().map(|it| (Role::Ephemeral, it));
        self.containers().chain(added).find(|(_, container)| container.name == name)
    }

    /// The volume of this name.
    pub fn volume(&self, name: &str) -> Option<&Volume> {
        self.spec().volumes.iter().flatten().find(|volume| volume.name == name)
    }

    /// The container whose processes an ephemeral container of this name is to see, if it says one
    /// (`targetContainerName`).
    pub fn target_of(&self, name: &str) -> Option<&str> {
        let mut added = self.spec().ephemeral_containers.iter().flatten();
        let target = added.find(|it| it.name == name)?.target_container_name.as_deref();
        target.filter(|target| !target.is_empty())
    }

    /// The same pod with these containers added, instead of those that were.
    #[must_use]
    pub fn with_ephemeral_containers(&self, added: Vec<EphemeralContainer>) -> Self {
        self.changed(|spec| spec.ephemeral_containers = (!added.is_empty()).then_some(added))
    }

    /// Whether it has containers that run before the others.
    pub fn has_init_containers(&self) -> bool {
        self.spec().init_containers.as_ref().is_some_and(|list| !list.is_empty())
    }

    /// Whether a container of the pod that ended with this exit code is started again.
    pub fn restarts(&self, role: Role, container: &Container, exit_code: i32) -> bool {
        if role == Role::Ephemeral || (role == Role::Init && exit_code == 0) {
            return false;
        }
        let policy = match &container.restart_policy {
            // Rules without a policy of the container's own are not looked at.
            Some(_)
                if rule(container, exit_code)
                    .is_some_and(|it| [RESTART, RESTART_ALL].contains(&it.action.as_str())) =>
            {
                return true;
            }
            Some(policy) => RestartPolicy::named(policy),
            None => None,
        };
        match policy.unwrap_or(self.restart_policy()) {
            RestartPolicy::Always => true,
            RestartPolicy::OnFailure => exit_code != 0,
            RestartPolicy::Never => false,
        }
    }
}

/// Whether all containers of the pod are started over after an end of this one.
pub fn restarts_all(container: &Container, exit_code: i32) -> bool {
    container.restart_policy.is_some()
        && rule(container, exit_code).is_some_and(|rule| rule.action == RESTART_ALL)
}

/// Whether there is an end of one of its containers after which all are started over
/// (`AllContainersCouldRestart`).
pub fn could_restart_all(spec: &PodSpec) -> bool {
    let mut rules = of(spec).flat_map(|(_, it)| it.restart_policy_rules.iter().flatten());
    rules.any(|rule| rule.action == RESTART_ALL)
}

/// The first rule that an exit code fits (`FindMatchingContainerRestartRule`).
fn rule(container: &Container, exit_code: i32) -> Option<&ContainerRestartRule> {
    container.restart_policy_rules.iter().flatten().find(|rule| {
        rule.exit_codes.as_ref().is_some_and(|codes| {
            let named = codes.values.iter().flatten().any(|code| *code == exit_code);
            match codes.operator.as_str() {
                "In" => named,
                "NotIn" => !named,
                _ => false,
            }
        })
    })
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use crate::{Entry, NodeName, ReadOptions, SourceKind, Validation, read};

    use super::*;

    fn pod(spec: &str) -> Arc<Pod> {
        let text = format!("apiVersion: v1\nkind: Pod\nmetadata: {{name: web}}\nspec: {spec}\n");
        let options = ReadOptions {
            validation: Validation::Strict,
            node_name: NodeName::new("n1").unwrap(),
            source: SourceKind::File,
            seen: String::new(),
        };
        match read("web.yaml", text.as_bytes(), &options).entries.remove(0) {
            Entry::Pod { pod, .. } => pod,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn containers_start_in_the_order_of_their_roles() {
        let pod = pod("{containers: [{name: a, image: i}], initContainers: [{name: b, image: i}, \
             {name: c, image: i, restartPolicy: Always}]}");
        let list: Vec<_> = pod.containers().map(|(role, it)| (role, it.name.as_str())).collect();
        assert_eq!(list, [(Role::Init, "b"), (Role::Sidecar, "c"), (Role::Main, "a")]);
        assert!(pod.has_init_containers());
        assert_eq!(pod.container("c").map(|(role, _)| role), Some(Role::Sidecar));
        assert_eq!(pod.container("d"), None);
    }

    #[test]
    fn a_container_that_was_added_is_none_that_the_pod_starts() {
        let added = |name: &str, target: Option<&str>| EphemeralContainer {
            name: name.to_owned(),
            image: Some("i".to_owned()),
            target_container_name: target.map(str::to_owned),
            ..EphemeralContainer::default()
        };
        let before = pod("{restartPolicy: Always, containers: [{name: a, image: i}]}");
        let pod = before.with_ephemeral_containers(vec![added("d", Some("a")), added("e", None)]);
        assert_eq!((pod.uid(), pod.containers().count()), (before.uid(), 1));
        let (role, container) = pod.container("d").unwrap();
        assert_eq!((role, container.image.as_deref()), (Role::Ephemeral, Some("i")));
        assert!((0..4).all(|code| !pod.restarts(role, container, code)));
        let targets = ["d", "e", "a"].map(|name| pod.target_of(name));
        assert_eq!(targets, [Some("a"), None, None]);
        assert_eq!(Pod::from_stored(&pod.to_stored()).unwrap(), pod);
        assert_eq!(pod.with_ephemeral_containers(Vec::new()), *before);
    }

    /// Which of the exit codes 0 to 3 a container named `x` is started again after.
    #[track_caller]
    fn check(policy: &str, init: &str, main: &str, expected: &[i32]) {
        let pod = pod(&format!(
            "{{restartPolicy: {policy}, initContainers: [{init}], containers: [{main}]}}"
        ));
        let (role, container) = pod.container("x").unwrap();
        let again: Vec<i32> = (0..4).filter(|code| pod.restarts(role, container, *code)).collect();
        assert_eq!(again, expected, "{policy} {init} {main}");
    }

    #[test]
    fn an_end_leads_to_a_restart_or_not_as_the_pod_the_container_and_its_rules_say() {
        let (plain, other) = ("{name: x, image: i}", "{name: other, image: i}");
        check("Always", "", plain, &[0, 1, 2, 3]);
        check("OnFailure", "", plain, &[1, 2, 3]);
        check("Never", "", plain, &[]);
        // What has prepared the pod is through.
        check("Always", plain, other, &[1, 2, 3]);
        check("OnFailure", plain, other, &[1, 2, 3]);
        check("Never", plain, other, &[]);
        let own = |policy: &str, rules: &str| {
            let rules = rules.split_terminator(';').map(|rule| {
                let (operator, values) = rule.split_once(' ').unwrap();
                format!(
                    "{{action: Restart, exitCodes: {{operator: {operator}, values: [{values}]}}}}"
                )
            });
            let rules = rules.collect::<Vec<_>>().join(", ");
            format!("{{name: x, image: i, restartPolicy: {policy}, restartPolicyRules: [{rules}]}}")
        };
        check("Never", &own("Always", ""), other, &[0, 1, 2, 3]);
        check("Never", "", &own("Always", ""), &[0, 1, 2, 3]);
        check("Always", "", &own("Never", ""), &[]);
        check("Never", &own("OnFailure", ""), other, &[1, 2, 3]);
        check("Never", "", &own("Never", "In 0,2"), &[0, 2]);
        check("Never", "", &own("OnFailure", "In 0"), &[0, 1, 2, 3]);
        check("Never", "", &own("Never", "NotIn 0,2"), &[1, 3]);
        check("Never", "", &own("Never", "In 3;NotIn 0,1"), &[2, 3]);
        let all = own("Never", "In 3").replace("action: Restart,", "action: RestartAllContainers,");
        check("Never", "", &all, &[3]);
        // No rule runs an init container again that has done its work.
        check("Never", &own("Never", "In 0,2"), other, &[2]);
    }
}
