//! Every namespace has the account `default`, which pods have that name none.
//!
//! Source: `pkg/controller/serviceaccount/serviceaccounts_controller.go`.

use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::core::v1::{Namespace, ServiceAccount};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use mainstay_client::CallError;

use crate::context::Context;
use crate::informer::{Informer, ObjectKey};
use crate::informers::path;
use crate::namespaces::{is_active, written};
use crate::queue::Queue;

/// The account's name.
const DEFAULT: &str = "default";

/// The account that a namespace lacks. None is made in one that is being deleted.
fn decide(namespace: &Namespace, account: Option<&ServiceAccount>) -> Option<ServiceAccount> {
    if account.is_some() || !is_active(namespace) {
        return None;
    }
    Some(ServiceAccount {
        metadata: ObjectMeta {
            name: Some(DEFAULT.to_owned()),
            namespace: namespace.metadata.name.clone(),
            ..ObjectMeta::default()
        },
        ..ServiceAccount::default()
    })
}

pub(crate) async fn run(context: Context) {
    let namespaces = context.informers.of::<Namespace>();
    let accounts = context.informers.of::<ServiceAccount>();
    let queue = Arc::new(Queue::new("service_account"));
    let _fed = [
        namespaces.feed(&queue, |change| change.new.map(|it| ObjectKey::of(&it.metadata).name)),
        accounts.feed(&queue, |change| match change.new {
            None => change.old.map(|gone| ObjectKey::of(&gone.metadata).namespace),
            Some(_) => None,
        }),
    ];
    namespaces.complete().await;
    accounts.complete().await;
    queue.work(1, |name| sync(&context, &namespaces, &accounts, name)).await;
}

async fn sync(
    context: &Context,
    namespaces: &Informer<Namespace>,
    accounts: &Informer<ServiceAccount>,
    name: String,
) -> Result<Option<Duration>, CallError> {
    let Some(namespace) = namespaces.get(&ObjectKey::new("", &name)) else { return Ok(None) };
    let account = accounts.get(&ObjectKey::new(&name, DEFAULT));
    let Some(missing) = decide(&namespace, account.as_deref()) else { return Ok(None) };
    let path = path::<ServiceAccount>(&name, "");
    written(context.calls.post::<ServiceAccount, _>(&path, &missing).await)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::namespaces::in_phase as namespace;

    #[test]
    fn the_account_is_made_where_it_is_missing() {
        let made = decide(&namespace("Active"), None).unwrap();
        assert_eq!(ObjectKey::of(&made.metadata), ObjectKey::new("a", "default"));
        assert_eq!(decide(&namespace("Active"), Some(&made)), None);
        assert_eq!(decide(&namespace("Terminating"), None), None);
    }
}
