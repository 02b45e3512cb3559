//! Ending pods in their order when the machine is shut down.
//!
//! # Flow
//!
//! A thread ([`logind`]) holds a lock that delays a shutdown, and hears of one. Then one task gives one group of
//! pods after the other its turn ([`mainstay_plan::node_shutdown`]), which their workers hear of; when the last
//! one has ended, or has had its time, the lock is let go and the machine goes down. A shutdown that is called
//! off lets static pods run on at once.
//!
//! # Guarantees
//!
//! - Nothing about static pods is written down: they run again when the machine does.
//! - A machine without logind, or whose logind refuses, is told of once; its pods end with their service.
//!
//! Source: `pkg/kubelet/nodeshutdown/nodeshutdown_manager_linux.go`.

mod logind;

use std::path::PathBuf;
use std::sync::Arc;

use mainstay_plan::node_shutdown::{Periods, Shutdown};
use mainstay_plan::pod::{PodKey, SeenSandbox};
use mainstay_plan::status::is_over;
use tokio::sync::{mpsc, watch};
use tokio::time::timeout;

use crate::publish::{Board, EventKind};
use crate::worker::Performer;
use logind::Lock;

/// Source: `NodeShutdown` in `pkg/kubelet/events/event.go`.
const EVENT: &str = "NodeShutdown";

/// How a node is shut down gracefully.
#[derive(Clone, Debug)]
pub struct GracefulShutdown {
    /// How long pods have.
    pub periods: Arc<Periods>,
    /// The machine's message bus.
    pub bus: PathBuf,
    /// Where logind is told that it has to wait for so long, if it would not: a file in a directory of its
    /// settings.
    pub settings: PathBuf,
}

/// What it is done with.
pub(crate) struct NodeShutdown {
    pub(crate) performer: Arc<Performer>,
    pub(crate) board: watch::Receiver<Arc<Board>>,
    pub(crate) graceful: GracefulShutdown,
    /// Whether the machine is being shut down.
    pub(crate) shutting_down: watch::Sender<bool>,
}

impl NodeShutdown {
    /// Waits for shutdowns, for ever.
    ///
    /// # Errors
    ///
    /// When the thread that hears of them cannot be started.
    pub(crate) fn watch(self) -> std::io::Result<impl Future<Output = ()>> {
        let lock = Lock::default();
        let (heard, hears) = mpsc::unbounded_channel();
        let watch = logind::Watch {
            bus: self.graceful.bus.clone(),
            settings: self.graceful.settings.clone(),
            wanted: self.graceful.periods.total(),
            lock: lock.clone(),
            heard,
        };
        std::thread::Builder::new().name("logind".into()).spawn(move || watch.run())?;
        Ok(self.run(hears, lock))
    }

    async fn run(self, mut hears: mpsc::UnboundedReceiver<bool>, lock: Lock) {
        while until(&mut hears, true).await.is_some() {
            self.tell(true, "Shutdown manager detected shutdown event");
            // Cancel-safe: what has been asked of workers is taken back.
            let called_off = tokio::select! {
                () = self.end_pods() => {
                    tracing::info!("all pods have had their time; the machine may go down");
                    lock.release();
                    until(&mut hears, false).await
                }
                called_off = until(&mut hears, false) => called_off,
            };
            if called_off.is_none() {
                return;
            }
            self.performer.shut_down(None);
            self.tell(false, "Shutdown manager detected shutdown cancellation");
        }
    }

    fn tell(&self, shutting_down: bool, message: &str) {
        tracing::info!(shutting_down, "{message}");
        self.shutting_down.send_replace(shutting_down);
        self.performer.events.tell_node(EventKind::Normal, EVENT, message.to_owned());
    }

    /// Gives one group of pods after the other its turn.
    async fn end_pods(&self) {
        let mut shutdown = Shutdown::new(self.graceful.periods.clone());
        while let Some(time) = shutdown.advance() {
            let pods = self.pods_of(&shutdown);
            self.performer.shut_down(Some(shutdown.clone()));
            // A group that is empty is not waited for.
            let all = async {
                for key in &pods {
                    self.until_ended(key).await;
                }
            };
            if timeout(time, all).await.is_err() {
                tracing::warn!(
                    ?time,
                    "pods have not ended in the time that they have at a shutdown"
                );
            }
        }
    }

    /// The pods whose turn it is.
    fn pods_of(&self, shutdown: &Shutdown) -> Vec<PodKey> {
        let board = self.board.borrow();
        let reports = board.pods.values().filter_map(|entry| entry.report.as_deref());
        let turn = reports.filter(|it| shutdown.is_turn_of(&it.pod));
        turn.map(|it| it.key.clone()).collect()
    }

    /// Waits until nothing of a pod runs any more, and that of an API is known to have ended for good.
    async fn until_ended(&self, key: &PodKey) {
        let mut seen = self.performer.observer.subscribe(key);
        // The observer and the board outlive this.
        let _ = seen.wait_for(|seen| !seen.sandboxes.iter().any(SeenSandbox::is_alive)).await;
        let over = |board: &Arc<Board>| {
            let report = board.pods.get(key).and_then(|entry| entry.report.as_ref());
            report.is_none_or(|report| is_over(&report.status))
        };
        let _ = self.board.clone().wait_for(over).await;
    }
}

/// Waits until this is heard; `None` when nothing more will be.
async fn until(hears: &mut mpsc::UnboundedReceiver<bool>, what: bool) -> Option<()> {
    while let Some(heard) = hears.recv().await {
        if heard == what {
            return Some(());
        }
    }
    None
}
