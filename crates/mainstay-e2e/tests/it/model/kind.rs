//! The kinds of the model: what of them is changed, and what the API makes of it.

use std::fmt;

use serde_json::{Value, json};

/// A kind, as far as the model knows it.
pub(super) struct Kind {
    pub(super) kind: &'static str,
    /// Empty for the core group.
    pub(super) group: &'static str,
    pub(super) plural: &'static str,
    /// What is changed of its objects, beside [`METADATA`].
    pub(super) fields: &'static [Field],
    /// Maps and sets that are there when something is in them, beside those of the metadata.
    pub(super) containers: &'static [&'static [&'static str]],
    /// Whether what was replaced need not be there before.
    pub(super) creates_on_update: bool,
    /// Whether what is replaced need not say which version it was made from.
    pub(super) unconditional_update: bool,
    /// Whether its objects count the versions of what is wanted.
    pub(super) has_generation: bool,
    pub(super) has_status: bool,
    /// Parts of the metadata that a write of the status leaves as they are.
    pub(super) status_keeps: &'static [&'static str],
    /// Whether [`Self::fields`] are all that somebody can own.
    pub(super) tracks_all: bool,
    /// Whether its objects may take their time to end.
    pub(super) is_graceful: bool,
}

/// A field with a value of its own.
pub(super) struct Field {
    /// Names; `k:` and the keys of an element of a list, `v:` and an element of a set.
    pub(super) path: &'static [&'static str],
    /// What it may be, in JSON.
    pub(super) values: &'static [&'static str],
    /// What it must not be.
    pub(super) refused: &'static [&'static str],
    /// How it is if nobody says it, and whether that is so at any time or in new objects only.
    pub(super) default: Option<(&'static str, Default)>,
    /// Whether an object without it is refused.
    pub(super) is_required: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Default {
    Always,
    AtFirst,
}

const FIELD: Field =
    Field { path: &[], values: &[], refused: &[], default: None, is_required: false };

/// What every kind has. Of finalizers there is one: their order, which tells versions apart, follows
/// from nothing that is asked for.
pub(super) const METADATA: &[Field] = &[
    Field {
        path: &["metadata", "labels", "color"],
        values: &[r#""red""#, r#""green""#, r#""blue""#],
        refused: &[r#""not a label""#],
        ..FIELD
    },
    Field { path: &["metadata", "labels", "size"], values: &[r#""1""#, r#""2""#], ..FIELD },
    Field { path: &["metadata", "annotations", "note"], values: &[r#""a""#, r#""b""#], ..FIELD },
    Field {
        path: &["metadata", "finalizers", "v:example.com/a"],
        values: &[r#""example.com/a""#],
        ..FIELD
    },
];

/// The containers that every kind has.
pub(super) const METADATA_CONTAINERS: &[&[&str]] =
    &[&["metadata", "labels"], &["metadata", "annotations"], &FINALIZERS];

pub(super) const FINALIZERS: [&str; 2] = ["metadata", "finalizers"];
/// The only container of a pod.
pub(super) const CONTAINER: &str = r#"k:{"name":"c"}"#;

const PLAIN: Kind = Kind {
    kind: "",
    group: "",
    plural: "",
    fields: &[],
    containers: &[],
    creates_on_update: false,
    unconditional_update: true,
    has_generation: false,
    has_status: false,
    status_keeps: &[],
    tracks_all: false,
    is_graceful: false,
};

pub(super) const KINDS: &[Kind] = &[
    Kind {
        kind: "ConfigMap",
        plural: "configmaps",
        fields: &[
            Field { path: &["data", "a"], values: &[r#""1""#, r#""2""#], ..FIELD },
            Field { path: &["data", "b"], values: &[r#""1""#, r#""2""#, r#""3""#], ..FIELD },
            Field { path: &["immutable"], values: &["false", "false", "false", "true"], ..FIELD },
        ],
        containers: &[&["data"]],
        tracks_all: true,
        ..PLAIN
    },
    Kind {
        kind: "Lease",
        group: "coordination.k8s.io",
        plural: "leases",
        fields: &[
            Field { path: &["spec", "holderIdentity"], values: &[r#""x""#, r#""y""#], ..FIELD },
            Field {
                path: &["spec", "leaseDurationSeconds"],
                values: &["10", "20"],
                refused: &["0", "-1"],
                ..FIELD
            },
            Field {
                path: &["spec", "leaseTransitions"],
                values: &["0", "1", "2"],
                refused: &["-1"],
                ..FIELD
            },
        ],
        creates_on_update: true,
        unconditional_update: false,
        tracks_all: true,
        ..PLAIN
    },
    Kind {
        kind: "Deployment",
        group: "apps",
        plural: "deployments",
        fields: &[
            Field {
                path: &["spec", "replicas"],
                values: &["0", "1", "2", "3"],
                refused: &["-1"],
                default: Some(("1", Default::Always)),
                ..FIELD
            },
            Field {
                path: &["spec", "minReadySeconds"],
                values: &["5", "6"],
                refused: &["-1"],
                ..FIELD
            },
            Field { path: &["spec", "paused"], values: &["true"], ..FIELD },
            Field {
                path: &["spec", "template", "metadata", "annotations", "run"],
                values: &[r#""1""#, r#""2""#],
                ..FIELD
            },
            Field {
                path: &["spec", "template", "spec", "containers", CONTAINER, "image"],
                values: &[r#""x:1""#, r#""x:2""#],
                is_required: true,
                ..FIELD
            },
            Field { path: &["status", "observedGeneration"], values: &["1", "2"], ..FIELD },
            Field {
                path: &["status", "replicas"],
                values: &["1", "2", "3"],
                refused: &["-1"],
                ..FIELD
            },
            Field { path: &["status", "readyReplicas"], values: &["1", "2"], ..FIELD },
        ],
        containers: &[&["spec", "template", "metadata", "annotations"]],
        has_generation: true,
        has_status: true,
        status_keeps: &["labels"],
        ..PLAIN
    },
    Kind {
        kind: "Pod",
        plural: "pods",
        fields: &[
            Field { path: &["spec", "nodeName"], values: &[r#""nowhere""#], ..FIELD },
            Field {
                path: &["spec", "activeDeadlineSeconds"],
                values: &["1000", "2000"],
                refused: &["0"],
                ..FIELD
            },
            Field {
                path: &["spec", "terminationGracePeriodSeconds"],
                values: &["600", "6000"],
                default: Some(("30", Default::Always)),
                ..FIELD
            },
            Field {
                path: &["spec", "containers", CONTAINER, "image"],
                values: &[r#""x:1""#, r#""x:2""#],
                is_required: true,
                ..FIELD
            },
            Field {
                path: &["status", "phase"],
                values: &[r#""Running""#, r#""Running""#, r#""Failed""#],
                default: Some((r#""Pending""#, Default::AtFirst)),
                ..FIELD
            },
            Field { path: &["status", "message"], values: &[r#""m""#, r#""n""#], ..FIELD },
        ],
        has_generation: true,
        has_status: true,
        is_graceful: true,
        ..PLAIN
    },
];

// === impl Kind ===

impl fmt::Debug for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.kind)
    }
}

impl Kind {
    /// The path of what there is of it in a namespace.
    pub(super) fn collection(&self, namespace: &str) -> String {
        let prefix = if self.group.is_empty() { "/api" } else { "/apis" };
        format!("{prefix}/{}/namespaces/{namespace}/{}", self.api_version(), self.plural)
    }

    pub(super) fn api_version(&self) -> String {
        match self.group {
            "" => "v1".to_owned(),
            group => format!("{group}/v1"),
        }
    }

    /// What it is called in messages.
    pub(super) fn qualified(&self) -> String {
        match self.group {
            "" => self.plural.to_owned(),
            group => format!("{}.{group}", self.plural),
        }
    }

    /// All that is changed of it.
    pub(super) fn fields(&self) -> impl Iterator<Item = &'static Field> {
        METADATA.iter().chain(self.fields)
    }

    pub(super) fn field(&self, path: &[String]) -> Option<&'static Field> {
        self.fields().find(|field| field.path == path)
    }

    /// Whether something is a map or a set that is there when something is in it.
    pub(super) fn is_container(&self, path: &[String]) -> bool {
        METADATA_CONTAINERS.iter().chain(self.containers).any(|container| *container == path)
    }

    /// Whether the model knows who owns a field.
    pub(super) fn tracks(&self, path: &[String]) -> bool {
        let set = path.len() == 3 && path[..2] == FINALIZERS;
        set || self.is_container(path) || self.field(path).is_some()
    }

    /// An object with what no change changes.
    pub(super) fn template(&self, name: &str) -> Value {
        let mut object = json!({
            "kind": self.kind, "apiVersion": self.api_version(), "metadata": { "name": name },
        });
        let pod = json!({ "containers": [{ "name": "c" }] });
        match self.kind {
            "Deployment" => {
                object["spec"] = json!({
                    "selector": { "matchLabels": { "app": "x" } },
                    "template": { "metadata": { "labels": { "app": "x" } }, "spec": pod },
                });
            }
            "Pod" => {
                object["spec"] = pod;
                // Nobody may give it a node.
                object["spec"]["schedulerName"] = "nobody".into();
                // Nor a volume whose name is made up.
                object["spec"]["automountServiceAccountToken"] = false.into();
            }
            _ => {}
        }
        object
    }
}
