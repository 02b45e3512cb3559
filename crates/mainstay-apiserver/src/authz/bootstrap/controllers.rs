//! What each controller may do, as the service account of `kube-system` that it acts as.
//!
//! Source: `plugin/pkg/auth/authorizer/rbac/bootstrappolicy/controller_policy.go`. Those of controllers
//! that do not exist here are left out.

use super::roles::{ACCESS_REVIEWS, CERTIFICATES, EVENTS, READ, RuleText, named, on};

/// The roles, by the name of the account; `system:controller:` comes before it.
pub(super) const CONTROLLERS: &[(&str, &[RuleText])] = &[
    (
        "certificate-controller",
        &[
            on("get list watch delete", CERTIFICATES, "certificatesigningrequests"),
            on(
                "update",
                CERTIFICATES,
                "certificatesigningrequests/status certificatesigningrequests/approval",
            ),
            // Serving certificates too, which upstream leaves to people.
            named(
                "approve",
                CERTIFICATES,
                "signers",
                "kubernetes.io/kube-apiserver-client-kubelet kubernetes.io/kubelet-serving",
            ),
            named(
                "sign",
                CERTIFICATES,
                "signers",
                "kubernetes.io/kube-apiserver-client kubernetes.io/kube-apiserver-client-kubelet \
                 kubernetes.io/kubelet-serving",
            ),
            ACCESS_REVIEWS,
            EVENTS,
        ],
    ),
    (
        "daemon-set-controller",
        &[
            on(READ, "extensions apps", "daemonsets"),
            on("update", "extensions apps", "daemonsets/status"),
            on("update", "extensions apps", "daemonsets/finalizers"),
            on("list watch", "core", "nodes"),
            on("list watch create delete patch", "core", "pods"),
            on("create", "core", "pods/binding"),
            on("get list watch create delete update patch", "apps", "controllerrevisions"),
            EVENTS,
        ],
    ),
    (
        "deployment-controller",
        &[
            on("get list watch update", "extensions apps", "deployments"),
            on("update", "extensions apps", "deployments/status"),
            on("update", "extensions apps", "deployments/finalizers"),
            on("get list watch create update patch delete", "apps extensions", "replicasets"),
            on("get list watch update", "core", "pods"),
            EVENTS,
        ],
    ),
    (
        "disruption-controller",
        &[
            on(READ, "extensions apps", "deployments"),
            on(READ, "apps extensions", "replicasets"),
            on(READ, "core", "replicationcontrollers"),
            on(READ, "policy", "poddisruptionbudgets"),
            on(READ, "apps", "statefulsets"),
            on("update", "policy", "poddisruptionbudgets/status"),
            on("patch update", "core", "pods/status"),
            on("get", "*", "*/scale"),
            EVENTS,
        ],
    ),
    ("generic-garbage-collector", &[on("get list watch patch update delete", "*", "*"), EVENTS]),
    (
        "node-controller",
        &[
            on("get list watch update delete patch", "core", "nodes"),
            on("patch update", "core", "nodes/status"),
            on("patch update", "core", "pods/status"),
            on("list watch get delete", "core", "pods"),
            EVENTS,
        ],
    ),
    (
        "pod-garbage-collector",
        &[
            on("list watch delete", "core", "pods"),
            on(READ, "core", "nodes"),
            on("patch", "core", "pods/status"),
        ],
    ),
    (
        "replicaset-controller",
        &[
            on("get list watch update", "apps extensions", "replicasets"),
            on("update", "apps extensions", "replicasets/status"),
            on("update", "apps extensions", "replicasets/finalizers"),
            on("list watch patch create delete", "core", "pods"),
            EVENTS,
        ],
    ),
    ("root-ca-cert-publisher", &[on("create update", "core", "configmaps"), EVENTS]),
    ("service-account-controller", &[on("create", "core", "serviceaccounts"), EVENTS]),
];

/// The same for those that may do it in `kube-system` only.
pub(super) const SYSTEM_CONTROLLERS: &[(&str, &[RuleText])] =
    &[("token-cleaner", &[on("get list watch delete", "core", "secrets"), EVENTS])];
