//! Following an API's pods of this node.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use k8s_openapi::api::core::v1::Pod as KubernetesPod;
use mainstay_client::{Collection, Sink};

use super::{ApiPods, CallError, Calls, Trouble};

/// How long one watch lasts: one that is wedged is found out by then.
const WATCH: Duration = Duration::from_secs(120);

/// Takes in what is heard.
struct Heard {
    pods: Arc<ApiPods>,
    trouble: Mutex<Trouble>,
}

/// Follows the pods of a node for ever.
pub(crate) async fn follow(calls: Calls, node: String, pods: Arc<ApiPods>) {
    let collection = Collection {
        path: "/api/v1/pods".to_owned(),
        query: format!("fieldSelector=spec.nodeName%3D{node}"),
        metadata_only: false,
        lasting: WATCH,
    };
    let heard = Heard { pods, trouble: Mutex::default() };
    mainstay_client::follow(&calls, &collection, &heard).await;
}

impl Sink<KubernetesPod> for Heard {
    fn replace(&self, listed: Vec<KubernetesPod>, version: &str) {
        self.pods.replace(listed, version.parse().ok());
    }

    fn heard(&self, pod: KubernetesPod) {
        self.pods.heard(pod);
    }

    fn deleted(&self, pod: KubernetesPod) {
        self.pods.deleted(&pod);
    }

    fn answered(&self, how: Result<(), &CallError>) {
        let mut trouble = self.trouble.lock().unwrap_or_else(PoisonError::into_inner);
        match how {
            Ok(()) if trouble.unsay() => tracing::info!("the API answers again"),
            Ok(()) => {}
            Err(error) if trouble.is_news(error) => {
                tracing::warn!(error = error.message, "cannot follow the pods of the API");
            }
            Err(_) => {}
        }
        self.pods.set_reachable(how.is_ok());
    }
}

#[cfg(test)]
mod tests {
    use tokio::task::JoinSet;
    use tokio::time::Instant;

    use super::*;
    use crate::publish::api::calls;
    use crate::publish::api::fake::FakeApi;

    #[tokio::test(start_paused = true)]
    async fn watches_that_end_at_once_are_begun_more_and_more_rarely() {
        let api = FakeApi::new();
        api.end_watches();
        let began = Instant::now();
        let mut tasks = JoinSet::new();
        let pods = Arc::new(ApiPods::new());
        tasks.spawn(follow(calls(api.client()), "n1".to_owned(), pods));
        api.until(|api| api.watches() >= 5).await;
        // 100, 200, 400 and 800 milliseconds.
        assert_eq!(began.elapsed().as_millis() / 100, 15);
    }
}
