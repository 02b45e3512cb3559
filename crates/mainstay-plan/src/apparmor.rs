//! Which profile of AppArmor a container has.
//!
//! Source: `pkg/security/apparmor/{helpers,validate}.go`.

use std::borrow::Cow;

use k8s_openapi::api::core::v1::{AppArmorProfile, Container};
use mainstay_pod::Pod;
use mainstay_pod::validate::Show as _;

use crate::admission::Rejection;

/// Before the name of a container; how it was said before there was a field. An API server makes the field of
/// it, and static pods have none.
const ANNOTATION: &str = "container.apparmor.security.beta.kubernetes.io/";

const RUNTIME_DEFAULT: &str = "RuntimeDefault";
pub(crate) const UNCONFINED: &str = "Unconfined";
const LOCALHOST: &str = "Localhost";

/// The profile of a container: its own, that of its annotation, that of its pod. Source: `GetProfile`.
pub(crate) fn profile_of<'a>(
    pod: &'a Pod,
    container: &'a Container,
) -> Option<Cow<'a, AppArmorProfile>> {
    let own = container.security_context.as_ref().and_then(|it| it.app_armor_profile.as_ref());
    let annotated = || {
        let annotations = pod.metadata().annotations.as_ref()?;
        of_annotation(annotations.get(&format!("{ANNOTATION}{}", container.name))?)
    };
    let shared = || pod.spec().security_context.as_ref()?.app_armor_profile.as_ref();
    own.map(Cow::Borrowed)
        .or_else(|| annotated().map(Cow::Owned))
        .or_else(|| shared().map(Cow::Borrowed))
}

fn of_annotation(value: &str) -> Option<AppArmorProfile> {
    let (type_, localhost_profile) = match value {
        "runtime/default" => (RUNTIME_DEFAULT, None),
        "unconfined" => (UNCONFINED, None),
        other => (LOCALHOST, Some(other.strip_prefix("localhost/")?.to_owned())),
    };
    Some(AppArmorProfile { type_: type_.to_owned(), localhost_profile })
}

/// Judges whether a kernel, with AppArmor or without, can hold a pod to its profiles. Source: `Validate`.
pub(crate) fn admit(pod: &Pod, enabled: bool) -> Result<(), Rejection> {
    let refuse =
        |why: &str| Err(Rejection::new("AppArmor", format!("Cannot enforce AppArmor: {why}")));
    let confines = |profile: &AppArmorProfile| profile.type_ != UNCONFINED;
    let shared = pod.spec().security_context.as_ref().and_then(|it| it.app_armor_profile.as_ref());
    let profiles = || pod.containers().filter_map(|(_, container)| profile_of(pod, container));
    if !enabled && (shared.is_some_and(confines) || profiles().any(|it| confines(&it))) {
        return refuse("AppArmor is not enabled on the host");
    }
    for profile in profiles().filter(|profile| profile.type_ == LOCALHOST) {
        let name = profile.localhost_profile.as_deref().unwrap_or_default();
        if name.trim().is_empty() {
            return refuse(&format!("invalid empty AppArmor profile name: {}", name.show()));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    fn pod(annotation: &str, of_pod: &str, of_container: &str) -> Arc<Pod> {
        let annotation = match annotation {
            "" => String::new(),
            value => format!(", annotations: {{{ANNOTATION}c: '{value}'}}"),
        };
        mainstay_testkit::pods::pod(&format!(
            "apiVersion: v1\nkind: Pod\nmetadata: {{name: p{annotation}}}\nspec:\n  \
             securityContext: {{{of_pod}}}\n  containers: [{{name: c, image: i, \
             securityContext: {{{of_container}}}}}]\n"
        ))
    }

    #[test]
    fn the_nearest_word_counts() {
        let default = "appArmorProfile: {type: RuntimeDefault}";
        let mine = "appArmorProfile: {type: Localhost, localhostProfile: mine}";
        for (annotation, of_pod, of_container, expected) in [
            ("", "", "", None),
            ("", default, "", Some(("RuntimeDefault", None))),
            ("", default, mine, Some(("Localhost", Some("mine")))),
            ("localhost/a/b", "", "", Some(("Localhost", Some("a/b")))),
        ] {
            let pod = pod(annotation, of_pod, of_container);
            let found = profile_of(&pod, &pod.spec().containers[0]);
            let found = found.as_deref().map(|it| (&*it.type_, it.localhost_profile.as_deref()));
            assert_eq!(found, expected, "{annotation} {of_pod} {of_container}");
        }
    }

    #[test]
    fn a_kernel_without_it_takes_no_pod_that_asks_for_it() {
        let default = "appArmorProfile: {type: RuntimeDefault}";
        let unconfined = "appArmorProfile: {type: Unconfined}";
        let why = "AppArmor: Cannot enforce AppArmor: AppArmor is not enabled on the host";
        let empty = "AppArmor: Cannot enforce AppArmor: invalid empty AppArmor profile name: \"\"";
        for (annotation, of_pod, of_container, without, with) in [
            ("", "", "", "", ""),
            ("", unconfined, "", "", ""),
            ("", default, unconfined, why, ""),
            ("", "", default, why, ""),
            ("unconfined", "", "", "", ""),
            ("runtime/default", "", "", why, ""),
            ("localhost/", "", "", why, empty),
        ] {
            let pod = pod(annotation, of_pod, of_container);
            for (enabled, expected) in [(false, without), (true, with)] {
                let verdict = admit(&pod, enabled);
                let said = verdict
                    .map_or_else(|it| format!("{}: {}", it.reason, it.message), |()| "".into());
                assert_eq!(said, expected, "{annotation} {of_pod} {of_container} {enabled}");
            }
        }
    }
}
