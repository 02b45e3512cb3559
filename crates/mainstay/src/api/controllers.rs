//! The API as the controllers of this process see it.

use std::hash::{BuildHasher as _, Hasher as _, RandomState};
use std::sync::{Arc, OnceLock};

use http::Request;
use mainstay_apiserver::{ApiServer, User};
use mainstay_client::Calls;
use mainstay_controllers::{Clients, Facts, Selection};
use tokio::sync::watch;
use tower::{ServiceExt as _, service_fn};

use super::LateApi;

/// Runs the controllers from when the API is there, and keeps house in it; of several servers of one store
/// one does. Never ends. `facts` are there before the server is.
pub(super) async fn run(
    mut server: watch::Receiver<Option<ApiServer>>,
    facts: Arc<OnceLock<Facts>>,
    node_name: String,
    selection: Selection,
) {
    let clients = Shared::of(server.clone());
    let Ok(Some(server)) = server.wait_for(Option::is_some).await.map(|it| it.clone()) else {
        return;
    };
    let facts = facts.get().cloned().unwrap_or_default();
    let work = || async {
        let controllers = mainstay_controllers::run(&clients, facts.clone(), &selection);
        tokio::join!(controllers, server.keep_house());
    };
    if server.is_shared() {
        let identity = format!("{node_name}_{:016x}", RandomState::new().build_hasher().finish());
        mainstay_controllers::lead(&clients, &identity, work).await;
    } else {
        work().await;
    }
}

/// One client for all of them. Requests carry the user whose they are; one without is nobody's.
struct Shared(kube::Client);

impl Shared {
    fn of(server: watch::Receiver<Option<ApiServer>>) -> Self {
        let service = service_fn(move |mut request: Request<kube::client::Body>| {
            let user = request.extensions_mut().remove().unwrap_or_default();
            LateApi::new(server.clone(), user).oneshot(request)
        });
        Self(kube::Client::new(service, "default"))
    }
}

impl Clients for Shared {
    fn calls(&self, user: &str, agent: &str) -> Calls {
        Calls::new(self.0.clone(), agent).carrying(as_user(user))
    }
}

/// A user as it would be if it showed its certificate or its token.
fn as_user(name: &str) -> User {
    let mut groups = vec!["system:authenticated".to_owned()];
    if let Some((namespace, _)) =
        name.strip_prefix("system:serviceaccount:").and_then(|it| it.split_once(':'))
    {
        groups.push("system:serviceaccounts".to_owned());
        groups.push(format!("system:serviceaccounts:{namespace}"));
    }
    User { name: name.to_owned(), groups, ..User::default() }
}
