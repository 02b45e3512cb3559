//! What two crates that must not know each other have to say alike.

use k8s_openapi::api::core::v1::{Container, Pod, PodSpec};
use mainstay_image::digest::DigestError;
use mainstay_image::reference::{Reference, ReferenceError};
use proptest::prelude::*;

/// Whether the pod is pulled anew each time it starts, since its image's name stands for the newest.
fn is_pulled_always(image: &str) -> bool {
    let container = Container { image: Some(image.into()), ..Default::default() };
    let spec = PodSpec { containers: vec![container], ..Default::default() };
    let mut pod = Pod { spec: Some(spec), ..Default::default() };
    mainstay_pod::defaults::apply(&mut pod);
    let container = pod.spec.unwrap().containers.remove(0);
    container.image_pull_policy.as_deref() == Some("Always")
}

/// Holds the name that a manifest's policy follows from against the one that is pulled; says whether it
/// is one.
fn check(image: &str) -> bool {
    let latest = match image.parse::<Reference>() {
        Ok(reference) => reference.tag() == Some("latest"),
        // Kubernetes knows the algorithm; OCI's specification does not, and nothing is pulled by it.
        Err(ReferenceError::Digest { source: DigestError::UnknownAlgorithm(name), .. })
            if name == "sha384" =>
        {
            return true;
        }
        Err(_) => {
            assert!(!is_pulled_always(image), "{image:?} is not a name");
            return false;
        }
    };
    assert_eq!(is_pulled_always(image), latest, "{image:?}");
    true
}

/// One part after another in their order, each of which may be missing or wrong.
fn well_formed_or_nearly() -> impl Strategy<Value = String> {
    let domain = prop_oneof![
        Just(String::new()),
        "(localhost|a|A|docker\\.io|index\\.docker\\.io|b\\.c|\\[[a-f0-9:]{0,4}\\]|-)(:[0-9a]{0,4})?/",
    ];
    let component = prop_oneof![8 => "[a-z0-9]{1,3}([-_.]{1,3}[a-z0-9]{1,2})?", 1 => "[A-Za-z_]{0,2}", 1 => "[a-z]{238,256}"];
    let path = prop::collection::vec(component, 1..4).prop_map(|parts| parts.join("/"));
    let tag = prop_oneof![
        Just(String::new()),
        Just(":latest".to_owned()),
        ":[A-Za-z0-9_.-]{0,3}",
        ":[a-z]{127,129}",
    ];
    let digest = prop_oneof![
        4 => Just(String::new()),
        1 => "@sha(256:[0-9a-f]{64}|384:[0-9a-f]{96}|512:[0-9a-f]{128})",
        1 => "@(sha256|sha512|md5)?:?([0-9a-fA-F]{64,65}|[0-9a-f]{0,3})",
    ];
    (domain, path, tag, digest)
        .prop_map(|(domain, path, tag, digest)| domain + &path + &tag + &digest)
}

proptest! {
    #[test]
    fn an_image_means_the_same_to_a_manifest_and_to_a_pull(image in well_formed_or_nearly()) {
        check(&image);
    }

    #[test]
    fn no_text_is_an_image_to_one_of_them_only(image in "[aA0/:@._\\[\\]-]{0,12}(:?latest)?") {
        check(&image);
    }
}

#[test]
fn at_the_edges() {
    let of = |domain: &str, length: usize| format!("{domain}{}", "a".repeat(length));
    // `library/` is part of what must not be longer than 255 bytes, the registry is not.
    for (image, is_name) in [
        (of("", 247), true),
        (of("", 248), false),
        (of("index.docker.io/", 247), true),
        (of("index.docker.io/", 248), false),
        (of("registry.example/", 255), true),
        (of("registry.example/", 256), false),
        ("0".repeat(64), false),
        (format!("localhost/{}", "0".repeat(64)), true),
        (format!("a:latest@sha384:{}", "0".repeat(96)), true),
    ] {
        assert_eq!(check(&image), is_name, "{image}");
    }
}
