//! Every namespace has a ConfigMap with what the API's certificate is verified with, for its pods.
//!
//! Source: `pkg/controller/certificates/rootcacertpublisher/publisher.go`.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::core::v1::{ConfigMap, Namespace};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use mainstay_client::{CallError, CallErrorKind};

use crate::context::Context;
use crate::informer::{Informer, ObjectKey};
use crate::informers::path;
use crate::namespaces::{is_active, written};
use crate::queue::Queue;

/// The ConfigMap's name.
const NAME: &str = "kube-root-ca.crt";
/// The key of the certificate.
const KEY: &str = "ca.crt";
/// What the ConfigMap says of itself.
const DESCRIPTION: (&str, &str) = (
    "kubernetes.io/description",
    "Contains a CA bundle that can be used to verify the kube-apiserver when using internal \
     endpoints such as the internal service IP or kubernetes.default.svc. No other usage is \
     guaranteed across distributions of Kubernetes clusters.",
);

/// What is to be written.
#[derive(Debug, PartialEq)]
enum Write {
    Create(ConfigMap),
    Update(ConfigMap),
}

fn decide(namespace: &Namespace, existing: Option<&ConfigMap>, root_ca: &str) -> Option<Write> {
    let data = BTreeMap::from([(KEY.to_owned(), root_ca.to_owned())]);
    let (key, text) = DESCRIPTION;
    let Some(existing) = existing else {
        let metadata = ObjectMeta {
            name: Some(NAME.to_owned()),
            namespace: namespace.metadata.name.clone(),
            annotations: Some(BTreeMap::from([(key.to_owned(), text.to_owned())])),
            ..ObjectMeta::default()
        };
        let made = ConfigMap { metadata, data: Some(data), ..ConfigMap::default() };
        return is_active(namespace).then_some(Write::Create(made));
    };
    let annotations = existing.metadata.annotations.as_ref();
    let described = annotations.and_then(|it| it.get(key)).is_some_and(|text| !text.is_empty());
    if existing.data.as_ref() == Some(&data) && described {
        return None;
    }
    let mut changed = existing.clone();
    changed.data = Some(data);
    let annotations = changed.metadata.annotations.get_or_insert_default();
    annotations.insert(key.to_owned(), text.to_owned());
    Some(Write::Update(changed))
}

pub(crate) async fn run(context: Context) {
    let namespaces = context.informers.of::<Namespace>();
    let maps = context.informers.named::<ConfigMap>(NAME);
    let queue = Arc::new(Queue::new("root_ca"));
    let _fed = [
        namespaces.feed(&queue, |change| change.new.map(|it| ObjectKey::of(&it.metadata).name)),
        maps.feed(&queue, |change| change.latest().map(|it| ObjectKey::of(&it.metadata).namespace)),
    ];
    namespaces.complete().await;
    maps.complete().await;
    queue.work(1, |name| sync(&context, &namespaces, &maps, name)).await;
}

async fn sync(
    context: &Context,
    namespaces: &Informer<Namespace>,
    maps: &Informer<ConfigMap>,
    name: String,
) -> Result<Option<Duration>, CallError> {
    let Some(namespace) = namespaces.get(&ObjectKey::new("", &name)) else { return Ok(None) };
    let existing = maps.get(&ObjectKey::new(&name, NAME));
    let answer = match decide(&namespace, existing.as_deref(), &context.facts.root_ca) {
        None => return Ok(None),
        Some(Write::Create(map)) => {
            context.calls.post::<ConfigMap, _>(&path::<ConfigMap>(&name, ""), &map).await
        }
        Some(Write::Update(map)) => {
            context.calls.put::<ConfigMap, _>(&path::<ConfigMap>(&name, NAME), &map).await
        }
    };
    match answer {
        // Whoever deleted it is heard of.
        Err(error) if error.kind == CallErrorKind::NotFound => Ok(None),
        answer => written(answer),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::namespaces::in_phase as namespace;

    #[test]
    fn the_certificate_is_what_it_should_be() {
        let active = namespace("Active");
        let Some(Write::Create(made)) = decide(&active, None, "PEM") else { panic!() };
        assert_eq!(made.data.as_ref().unwrap()[KEY], "PEM");
        assert_eq!(decide(&namespace("Terminating"), None, "PEM"), None);
        assert_eq!(decide(&active, Some(&made), "PEM"), None);
        // What was changed by somebody is as it should be again; what is his stays.
        let mut other = made.clone();
        other.metadata.labels = Some(BTreeMap::from([("own".into(), "label".into())]));
        other.data.as_mut().unwrap().insert("more".into(), String::new());
        let Some(Write::Update(mended)) = decide(&active, Some(&other), "PEM") else { panic!() };
        assert_eq!((&mended.data, &mended.metadata.labels), (&made.data, &other.metadata.labels));
        let mut undescribed = made.clone();
        undescribed.metadata.annotations = None;
        let update = decide(&active, Some(&undescribed), "PEM");
        assert_eq!(update, Some(Write::Update(made.clone())));
        let Some(Write::Update(renewed)) = decide(&active, Some(&made), "NEW") else { panic!() };
        assert_eq!(renewed.data.as_ref().unwrap()[KEY], "NEW");
    }
}
