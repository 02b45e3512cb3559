//! The JSON schemas that k8s-openapi carries, and what of a field's schema the table keeps.

use std::collections::BTreeMap;

use k8s_openapi::Resource;
use k8s_openapi::api::{
    apps::v1 as apps, authentication::v1 as authentication, authorization::v1 as authorization,
    autoscaling::v1 as autoscaling, certificates::v1 as certificates,
    coordination::v1 as coordination, core::v1 as core, discovery::v1 as discovery,
    events::v1 as events, node::v1 as node, policy::v1 as policy, rbac::v1 as rbac,
    scheduling::v1 as scheduling,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1 as meta;
use schemars::{JsonSchema, SchemaGenerator};
use serde_json::Value;

const PREFIX: &str = "#/$defs/";

/// All types and the kinds among them.
pub(crate) struct Schemas {
    /// Objects with properties, by name such as `io.k8s.api.core.v1.Pod`.
    pub(crate) types: BTreeMap<String, Value>,
    /// Group, version and kind, and the name of the type.
    pub(crate) kinds: BTreeMap<(String, String, String), String>,
    /// Types that are no objects with properties, such as quantities.
    pub(crate) special: BTreeMap<String, Value>,
}

/// The type of a field. The innermost is a scalar or a type's name, around it up to two containers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Shape {
    Scalar(&'static str),
    Object(String),
    List(Box<Shape>),
    Map(Box<Shape>),
}

/// Reads the schemas of the kinds that mainstay knows and of everything in them.
pub(crate) fn read() -> Schemas {
    let mut generator = SchemaGenerator::default();
    let mut kinds = BTreeMap::new();
    macro_rules! kinds {
        ($($kind:ty),* $(,)?) => {$(
            generator.subschema_for::<$kind>();
            let key = (<$kind>::GROUP.to_owned(), <$kind>::VERSION.to_owned(), <$kind>::KIND.to_owned());
            kinds.insert(key, <$kind>::schema_name().into_owned());
        )*};
    }
    kinds!(
        core::Binding,
        core::ConfigMap,
        core::Endpoints,
        core::Event,
        core::Namespace,
        core::Node,
        core::Pod,
        core::Secret,
        core::Service,
        core::ServiceAccount,
        events::Event,
        coordination::Lease,
        apps::ControllerRevision,
        apps::DaemonSet,
        apps::Deployment,
        apps::ReplicaSet,
        autoscaling::Scale,
        policy::Eviction,
        policy::PodDisruptionBudget,
        scheduling::PriorityClass,
        node::RuntimeClass,
        discovery::EndpointSlice,
        rbac::ClusterRole,
        rbac::ClusterRoleBinding,
        rbac::Role,
        rbac::RoleBinding,
        certificates::CertificateSigningRequest,
        authentication::SelfSubjectReview,
        authentication::TokenRequest,
        authentication::TokenReview,
        authorization::LocalSubjectAccessReview,
        authorization::SelfSubjectAccessReview,
        authorization::SelfSubjectRulesReview,
        authorization::SubjectAccessReview,
        meta::Status,
    );
    generator.subschema_for::<meta::DeleteOptions>();
    let name = meta::DeleteOptions::schema_name().into_owned();
    kinds.insert((String::new(), "v1".to_owned(), "DeleteOptions".to_owned()), name);

    let definitions = generator.definitions().iter();
    let (types, special) = definitions
        .map(|(name, schema)| (name.clone(), schema.clone()))
        .partition(|(_, schema)| schema.get("properties").is_some());
    Schemas { types, kinds, special }
}

/// The fields of a type's schema, by name.
pub(crate) fn fields(schema: &Value) -> BTreeMap<&String, &Value> {
    schema["properties"].as_object().expect("filtered by the reader").iter().collect()
}

impl Schemas {
    pub(crate) fn shape(&self, schema: &Value) -> Shape {
        if let Some(reference) = schema.get("$ref").and_then(Value::as_str) {
            let name = reference.strip_prefix(PREFIX).expect("references are local");
            return match name {
                "io.k8s.apimachinery.pkg.api.resource.Quantity" => Shape::Scalar("QUANTITY"),
                "io.k8s.apimachinery.pkg.util.intstr.IntOrString" => Shape::Scalar("INT_OR_STRING"),
                "io.k8s.apimachinery.pkg.apis.meta.v1.Time" => Shape::Scalar("TIME"),
                "io.k8s.apimachinery.pkg.apis.meta.v1.MicroTime" => Shape::Scalar("MICRO_TIME"),
                "io.k8s.apimachinery.pkg.apis.meta.v1.FieldsV1"
                | "io.k8s.apimachinery.pkg.runtime.RawExtension" => Shape::Scalar("ANY"),
                _ if self.types.contains_key(name) => Shape::Object(name.to_owned()),
                _ => panic!(
                    "a definition of a kind that is not known: {name} {:?}",
                    self.special[name]
                ),
            };
        }
        let inner = |key: &str| Box::new(self.shape(&schema[key]));
        match (schema["type"].as_str(), schema["format"].as_str()) {
            (Some("string"), None) => Shape::Scalar("STRING"),
            (Some("string"), Some("byte")) => Shape::Scalar("BYTES"),
            (Some("boolean"), None) => Shape::Scalar("BOOL"),
            (Some("integer"), Some("int32")) => Shape::Scalar("INT32"),
            (Some("integer"), Some("int64")) => Shape::Scalar("INT64"),
            (Some("array"), None) => Shape::List(inner("items")),
            (Some("object"), None) if schema.get("additionalProperties").is_some() => {
                Shape::Map(inner("additionalProperties"))
            }
            other => panic!("a schema of a kind that is not known: {other:?} {schema}"),
        }
    }
}
