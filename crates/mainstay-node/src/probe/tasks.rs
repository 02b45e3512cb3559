//! What drives an HTTP/2 connection, as long as whoever asks is there.

use std::sync::{Arc, Mutex, PoisonError};

use tokio::task::JoinSet;

/// Clones share the tasks, which end with the last of them.
#[derive(Clone, Default)]
pub(super) struct Tasks(Arc<Mutex<JoinSet<()>>>);

impl<F: Future<Output = ()> + Send + 'static> hyper::rt::Executor<F> for Tasks {
    fn execute(&self, future: F) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).spawn(future);
    }
}

/// Does some work on a connection that has to be driven meanwhile.
pub(crate) async fn driven<C: Future, W: Future>(connection: C, work: W) -> W::Output {
    let (mut connection, mut work) = (std::pin::pin!(connection), std::pin::pin!(work));
    tokio::select! {
        biased;
        done = &mut work => done,
        // It may have said all by then.
        _ = &mut connection => work.await,
    }
}
