use super::{ListType, Omit, Shape, kinds, named, of, table};

fn field(owner: &str, name: &str) -> &'static super::Field {
    named(owner).unwrap().field(name).unwrap()
}

#[test]
fn every_kind_has_its_metadata() {
    for (group, version, kind) in kinds() {
        let of = of(group, version, kind).unwrap();
        assert_eq!(of.go_name(), kind);
        assert!(of.field("metadata").is_some() || kind == "DeleteOptions", "{of:?}");
        assert!(matches!(of.field("apiVersion").unwrap().shape(), Shape::String));
    }
    assert!(of("", "v1", "PodTemplate").is_none());
    assert!(of("apps", "v1beta1", "Deployment").is_none());
}

#[test]
fn types_and_fields_are_sorted_and_shapes_resolve() {
    assert!(table::TYPES.is_sorted_by_key(super::Type::name));
    let mut objects = 0;
    for known in &table::TYPES {
        assert!(known.fields().is_sorted_by_key(super::Field::name), "{known:?}");
        for field in known.fields() {
            let mut shape = field.shape();
            while let Shape::List(item) | Shape::Map(item) = shape {
                shape = item.shape();
            }
            let go = field.go_type();
            match shape {
                Shape::Object(inner) => {
                    objects += 1;
                    assert!(go.ends_with(&format!(".{}", inner.go_name())), "{known:?} {field:?}");
                }
                Shape::Any => {
                    assert!(go == "runtime.RawExtension" || go == "v1.FieldsV1", "{field:?}");
                }
                Shape::Bytes => assert!(go.ends_with("[]uint8")),
                Shape::Int32 => assert!(go.ends_with("int32"), "{field:?}"),
                Shape::Int64 => assert!(go.ends_with("int64"), "{field:?}"),
                Shape::Bool => assert!(go.ends_with("bool")),
                _ => {}
            }
            if let Some(default) = field.default() {
                serde_json::from_str::<serde_json::Value>(default).unwrap();
            }
        }
    }
    assert!(objects > 300);
}

#[test]
fn facts_are_those_of_kubernetes() {
    let containers = field("io.k8s.api.core.v1.PodSpec", "containers");
    assert!(containers.is_required());
    assert_eq!(containers.omit(), Omit::Never);
    assert_eq!(containers.patch_merge_key(), "name");
    assert!(containers.patch_strategy().merge);
    assert_eq!(containers.patch_strategy_text(), "merge");
    let Shape::List(item) = containers.shape() else { panic!("not a list") };
    let Shape::Object(container) = item.shape() else { panic!("not an object") };
    assert_eq!(container.name(), "io.k8s.api.core.v1.Container");

    let keys = |owner, name| match field(owner, name).list_type() {
        ListType::Map(keys) => keys.iter().collect::<Vec<_>>(),
        other => panic!("{other:?}"),
    };
    assert_eq!(keys("io.k8s.api.core.v1.PodSpec", "containers"), ["name"]);
    assert_eq!(keys("io.k8s.api.core.v1.Container", "ports"), ["containerPort", "protocol"]);
    assert_eq!(field("io.k8s.api.core.v1.ContainerPort", "protocol").default(), Some("\"TCP\""));
    assert_eq!(field("io.k8s.api.core.v1.Container", "ports").patch_merge_key(), "containerPort");
    let volumes = field("io.k8s.api.core.v1.PodSpec", "volumes");
    assert_eq!(volumes.patch_strategy_text(), "merge,retainKeys");
    assert_eq!(field("io.k8s.api.core.v1.Volume", "emptyDir").embedded_in(), "VolumeSource");
    let metadata = named("io.k8s.apimachinery.pkg.apis.meta.v1.ObjectMeta").unwrap();
    assert_eq!(metadata.field("finalizers").unwrap().list_type(), ListType::Set);
    assert_eq!(metadata.field("creationTimestamp").unwrap().omit(), Omit::Zero);
    assert!(metadata.field("deletionTimestamp").unwrap().is_pointer());
    assert!(named("io.k8s.apimachinery.pkg.apis.meta.v1.LabelSelector").unwrap().is_atomic());
    assert!(field("io.k8s.api.core.v1.PodSpec", "nodeSelector").is_atomic());
    let selector = field("io.k8s.api.policy.v1.PodDisruptionBudgetSpec", "selector");
    assert!(selector.patch_strategy().replace);

    let extra = field("io.k8s.api.authentication.v1.UserInfo", "extra");
    let Shape::Map(item) = extra.shape() else { panic!("not a map") };
    let Shape::List(item) = item.shape() else { panic!("not a list") };
    assert_eq!(item.shape(), Shape::String);
}
