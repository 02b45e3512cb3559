//! The table of roles, and whom they are bound to.

/// A rule, in words.
pub(super) struct RuleText {
    pub(super) verbs: &'static str,
    /// `core` for the group without a name.
    pub(super) groups: &'static str,
    pub(super) resources: &'static str,
    pub(super) names: &'static str,
    pub(super) urls: &'static str,
}

pub(super) const READ: &str = "get list watch";
const WRITE: &str = "create update patch delete deletecollection";
const READ_WRITE: &str = "get list watch create update patch delete deletecollection";
const READ_UPDATE: &str = "get list watch update patch";

const AUTHENTICATION: &str = "authentication.k8s.io";
const AUTHORIZATION: &str = "authorization.k8s.io";
pub(super) const CERTIFICATES: &str = "certificates.k8s.io";
const COORDINATION: &str = "coordination.k8s.io";
const DISCOVERY: &str = "discovery.k8s.io";
const NETWORKING: &str = "networking.k8s.io";
const RESOURCE: &str = "resource.k8s.io";
const STORAGE: &str = "storage.k8s.io";

pub(super) const fn on(
    verbs: &'static str,
    groups: &'static str,
    resources: &'static str,
) -> RuleText {
    RuleText { verbs, groups, resources, names: "", urls: "" }
}

pub(super) const fn named(
    verbs: &'static str,
    groups: &'static str,
    resources: &'static str,
    names: &'static str,
) -> RuleText {
    RuleText { verbs, groups, resources, names, urls: "" }
}

const fn get(urls: &'static str) -> RuleText {
    RuleText { verbs: "get", groups: "", resources: "", names: "", urls }
}

pub(super) const EVENTS: RuleText = on("create patch update", "core events.k8s.io", "events");
const TOKEN_REVIEWS: RuleText = on("create", AUTHENTICATION, "tokenreviews");
pub(super) const ACCESS_REVIEWS: RuleText = on("create", AUTHORIZATION, "subjectaccessreviews");

/// The roles, but for those that are gathered from others.
pub(super) const ROLES: &[(&str, &[RuleText])] = &[
    (
        "cluster-admin",
        &[
            on("*", "*", "*"),
            RuleText { verbs: "*", groups: "", resources: "", names: "", urls: "*" },
        ],
    ),
    (
        "system:discovery",
        &[get(
            "/livez /readyz /healthz /version /version/ /openapi /openapi/* /api /api/* /apis /apis/*",
        )],
    ),
    (
        "system:monitoring",
        &[
            get(
                "/metrics /metrics/slis /livez /readyz /healthz /livez/* /readyz/* /healthz/* /flagz /statusz",
            ),
            on("get", "core", "nodes/metrics"),
        ],
    ),
    (
        "system:basic-user",
        &[
            on("create", AUTHORIZATION, "selfsubjectaccessreviews selfsubjectrulesreviews"),
            on("create", AUTHENTICATION, "selfsubjectreviews"),
        ],
    ),
    ("system:public-info-viewer", &[get("/livez /readyz /healthz /version /version/")]),
    (
        "system:aggregate-to-admin",
        &[
            on("create", AUTHORIZATION, "localsubjectaccessreviews"),
            on(READ_WRITE, "rbac.authorization.k8s.io", "roles rolebindings"),
        ],
    ),
    ("system:aggregate-to-edit", EDIT),
    ("system:aggregate-to-view", VIEW),
    (
        "system:heapster",
        &[on(READ, "core", "events pods nodes namespaces"), on(READ, "extensions", "deployments")],
    ),
    ("system:node", NODE),
    (
        "system:node-problem-detector",
        &[on("get", "core", "nodes"), on("patch", "core", "nodes/status"), EVENTS],
    ),
    (
        "system:node-bootstrapper",
        &[on("create get list watch", CERTIFICATES, "certificatesigningrequests")],
    ),
    ("system:auth-delegator", &[TOKEN_REVIEWS, ACCESS_REVIEWS]),
    ("system:kube-aggregator", &[on(READ, "core", "services endpoints")]),
    (
        "system:kube-controller-manager",
        &[
            EVENTS,
            on("create", COORDINATION, "leases"),
            named("get update", COORDINATION, "leases", "kube-controller-manager"),
            on("create", "core", "secrets serviceaccounts"),
            on("delete", "core", "secrets"),
            on("get", "core", "namespaces secrets serviceaccounts configmaps"),
            on("update", "core", "secrets serviceaccounts"),
            TOKEN_REVIEWS,
            ACCESS_REVIEWS,
            on("list watch", "*", "*"),
            on("create", "core", "serviceaccounts/token"),
        ],
    ),
    ("system:kube-dns", &[on("list watch", "core", "endpoints services")]),
    (
        "system:persistent-volume-provisioner",
        &[
            on("get list watch create delete", "core", "persistentvolumes"),
            on("get list watch update", "core", "persistentvolumeclaims"),
            on(READ, STORAGE, "storageclasses"),
            on("watch", "core", "events"),
            EVENTS,
        ],
    ),
    (
        "system:certificates.k8s.io:certificatesigningrequests:nodeclient",
        &[on("create", CERTIFICATES, "certificatesigningrequests/nodeclient")],
    ),
    (
        "system:certificates.k8s.io:certificatesigningrequests:selfnodeclient",
        &[on("create", CERTIFICATES, "certificatesigningrequests/selfnodeclient")],
    ),
    (
        "system:volume-scheduler",
        &[
            on(READ_UPDATE, "core", "persistentvolumes"),
            on(READ, STORAGE, "storageclasses"),
            on(READ_UPDATE, "core", "persistentvolumeclaims"),
        ],
    ),
    (
        "system:certificates.k8s.io:legacy-unknown-approver",
        &[named("approve", CERTIFICATES, "signers", "kubernetes.io/legacy-unknown")],
    ),
    (
        "system:certificates.k8s.io:kubelet-serving-approver",
        &[named("approve", CERTIFICATES, "signers", "kubernetes.io/kubelet-serving")],
    ),
    (
        "system:certificates.k8s.io:kube-apiserver-client-approver",
        &[named("approve", CERTIFICATES, "signers", "kubernetes.io/kube-apiserver-client")],
    ),
    (
        "system:certificates.k8s.io:kube-apiserver-client-kubelet-approver",
        &[named("approve", CERTIFICATES, "signers", "kubernetes.io/kube-apiserver-client-kubelet")],
    ),
    (
        "system:service-account-issuer-discovery",
        &[get("/.well-known/openid-configuration /.well-known/openid-configuration/ \
               /openid/v1/jwks /openid/v1/jwks/")],
    ),
    (
        "system:kubelet-api-admin",
        &[
            on(READ, "core", "nodes"),
            on("proxy", "core", "nodes"),
            on("*", "core", "nodes/proxy nodes/metrics nodes/stats nodes/log"),
            on("*", "core", "nodes/pods nodes/healthz nodes/configz"),
        ],
    ),
    (
        "system:node-proxier",
        &[
            on("list watch", "core", "services endpoints"),
            on(READ, "core", "nodes"),
            EVENTS,
            on("list watch", NETWORKING, "servicecidrs"),
            on("list watch", DISCOVERY, "endpointslices"),
        ],
    ),
    ("system:kube-scheduler", SCHEDULER),
    // Not of Kubernetes, where the ways between pods of different nodes are somebody else's matter:
    // here each node makes its own.
    ("mainstay:routes", &[on("list watch", "core", "nodes")]),
];

/// Whom the roles of the same names are bound to.
pub(super) const BINDINGS: &[(&str, &[&str])] = &[
    ("cluster-admin", &["Group system:masters"]),
    ("system:monitoring", &["Group system:monitoring"]),
    ("system:discovery", &["Group system:authenticated"]),
    ("system:basic-user", &["Group system:authenticated"]),
    ("system:public-info-viewer", &["Group system:authenticated", "Group system:unauthenticated"]),
    ("system:node-proxier", &["User system:kube-proxy"]),
    ("system:kube-controller-manager", &["User system:kube-controller-manager"]),
    ("system:kube-dns", &["ServiceAccount kube-system/kube-dns"]),
    ("system:kube-scheduler", &["User system:kube-scheduler"]),
    ("system:volume-scheduler", &["User system:kube-scheduler"]),
    ("mainstay:routes", &["Group system:nodes"]),
    ("system:node", &[]),
    // Those of nodes that join, as kubeadm makes them. Source: `cmd/kubeadm/app/phases/bootstraptoken`.
    ("system:node-bootstrapper", &["Group system:bootstrappers"]),
    (
        "system:certificates.k8s.io:certificatesigningrequests:nodeclient",
        &["Group system:bootstrappers"],
    ),
    (
        "system:certificates.k8s.io:certificatesigningrequests:selfnodeclient",
        &["Group system:nodes"],
    ),
    ("system:service-account-issuer-discovery", &["Group system:serviceaccounts"]),
];

const VIEW: &[RuleText] = &[
    on(
        READ,
        "core",
        "pods replicationcontrollers replicationcontrollers/scale serviceaccounts services \
         services/status endpoints persistentvolumeclaims persistentvolumeclaims/status configmaps",
    ),
    on(
        READ,
        "core",
        "limitranges resourcequotas bindings pods/status resourcequotas/status namespaces/status \
         replicationcontrollers/status pods/log",
    ),
    on(READ, "core", "namespaces"),
    on(READ, "core events.k8s.io", "events"),
    on(READ, DISCOVERY, "endpointslices"),
    on(
        READ,
        "apps",
        "controllerrevisions statefulsets statefulsets/status statefulsets/scale daemonsets \
         daemonsets/status deployments deployments/status deployments/scale replicasets \
         replicasets/status replicasets/scale",
    ),
    on(READ, "autoscaling", "horizontalpodautoscalers horizontalpodautoscalers/status"),
    on(READ, "batch", "jobs cronjobs cronjobs/status jobs/status"),
    on(
        READ,
        "extensions",
        "daemonsets daemonsets/status deployments deployments/scale deployments/status ingresses \
         ingresses/status replicasets replicasets/scale replicasets/status \
         replicationcontrollers/scale networkpolicies",
    ),
    on(READ, "policy", "poddisruptionbudgets poddisruptionbudgets/status"),
    on(READ, NETWORKING, "networkpolicies ingresses ingresses/status"),
    on(READ, RESOURCE, "resourceclaims resourceclaims/status resourceclaimtemplates"),
];

const EDIT: &[RuleText] = &[
    on(READ, "core", "pods/attach pods/proxy pods/exec pods/portforward secrets services/proxy"),
    on("impersonate", "core", "serviceaccounts"),
    on(WRITE, "core", "pods pods/attach pods/proxy pods/exec pods/portforward"),
    on("create", "core", "pods/eviction"),
    on(
        WRITE,
        "core",
        "replicationcontrollers replicationcontrollers/scale serviceaccounts services services/proxy \
         persistentvolumeclaims configmaps secrets",
    ),
    on("create", "core", "serviceaccounts/token"),
    on(WRITE, "core events.k8s.io", "events"),
    on(
        WRITE,
        "apps",
        "statefulsets statefulsets/scale daemonsets deployments deployments/scale \
         deployments/rollback replicasets replicasets/scale",
    ),
    on(WRITE, "autoscaling", "horizontalpodautoscalers"),
    on(WRITE, "batch", "jobs cronjobs"),
    on(
        WRITE,
        "extensions",
        "daemonsets deployments deployments/scale deployments/rollback ingresses replicasets \
         replicasets/scale replicationcontrollers/scale networkpolicies",
    ),
    on(WRITE, "policy", "poddisruptionbudgets"),
    on(WRITE, NETWORKING, "networkpolicies ingresses"),
    on(READ_WRITE, COORDINATION, "leases"),
    on(WRITE, RESOURCE, "resourceclaims resourceclaimtemplates"),
];

/// What all nodes may do.
pub(super) const NODE: &[RuleText] = &[
    TOKEN_REVIEWS,
    on("create", AUTHORIZATION, "subjectaccessreviews localsubjectaccessreviews"),
    on(READ, "core", "services"),
    on("create get list watch", "core", "nodes"),
    on("update patch", "core", "nodes/status"),
    on("update patch", "core", "nodes"),
    EVENTS,
    on(READ, "core", "pods"),
    on("create delete", "core", "pods"),
    on("update patch", "core", "pods/status"),
    on("create", "core", "pods/eviction"),
    on(READ, "core", "secrets configmaps"),
    on("get", "core", "persistentvolumeclaims persistentvolumes"),
    on("get", "core", "endpoints"),
    on("create get list watch", CERTIFICATES, "certificatesigningrequests"),
    on("get create update patch delete", COORDINATION, "leases"),
    on("get", STORAGE, "volumeattachments"),
    on("create", "core", "serviceaccounts/token"),
    on("get update patch", "core", "persistentvolumeclaims/status"),
    on(READ, STORAGE, "csidrivers"),
    on("get create update patch delete", STORAGE, "csinodes"),
    on(READ, "node.k8s.io", "runtimeclasses"),
    on("get", RESOURCE, "resourceclaims"),
    on("deletecollection", RESOURCE, "resourceslices"),
    on("get", "core", "serviceaccounts"),
];

const SCHEDULER: &[RuleText] = &[
    EVENTS,
    on("create", COORDINATION, "leases"),
    named("get update list watch", COORDINATION, "leases", "kube-scheduler"),
    on(READ_WRITE, COORDINATION, "leasecandidates"),
    on(READ, "core", "nodes"),
    on("get list watch delete", "core", "pods"),
    on("create", "core", "pods/binding bindings"),
    on("patch update", "core", "pods/status"),
    on(READ, "core", "services replicationcontrollers"),
    on(READ, "apps extensions", "replicasets"),
    on(READ, "apps", "statefulsets"),
    on(READ, "policy", "poddisruptionbudgets"),
    on(READ, "core", "persistentvolumeclaims persistentvolumes"),
    TOKEN_REVIEWS,
    ACCESS_REVIEWS,
    on(READ, STORAGE, "csinodes"),
    on(READ, STORAGE, "volumeattachments"),
    on(READ, "core", "namespaces"),
    on(READ, STORAGE, "csidrivers"),
    on(READ, STORAGE, "csistoragecapacities"),
    on(READ, RESOURCE, "deviceclasses"),
    on(READ_UPDATE, RESOURCE, "resourceclaims"),
    on(READ_UPDATE, RESOURCE, "resourceclaims/status"),
    on("update", "core", "pods/finalizers"),
    on(READ, RESOURCE, "resourceslices"),
    on("create delete", RESOURCE, "resourceclaims"),
    on("update patch", RESOURCE, "resourceclaims/binding"),
];
