//! Writing events to an API.

use std::collections::VecDeque;
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Event, ObjectReference};
use tokio::sync::watch;
use tokio::time::Instant;

use super::{Correlator, EventQueue, Occurrence, Write};
use crate::{CallError, CallErrorKind, Calls, Trouble, wait_after};

/// Seconds that an event is worth writing. Source: `--event-ttl` of kube-apiserver.
const WORTH: i64 = 3600;

/// So many events are written at once, and then so many each second. Source: `eventBurst` and
/// `eventRecordQPS` of the kubelet's configuration.
const BURST: u32 = 100;
const PER_SECOND: u32 = 50;

/// How often an event is tried again that is refused for the namespace not being there: it is made
/// for the mirror pod.
const TRIES: u32 = 7;

/// How many wait for another try.
const LATER: usize = 64;

/// The longest wait for another try.
const LONGEST: Duration = Duration::from_secs(7);

/// An event to try again.
struct Later {
    at: Instant,
    tries: u32,
    write: Write,
}

/// Writes what is pushed into a queue, for ever, while the API is reachable. `involved` names what an
/// event is about.
pub async fn record<A>(
    calls: &Calls,
    mut correlator: Correlator,
    events: &EventQueue<A>,
    involved: impl Fn(A) -> ObjectReference,
    mut reachable: watch::Receiver<bool>,
) {
    events.open();
    let mut later: VecDeque<Later> = VecDeque::new();
    let mut budget = Budget::new();
    let mut trouble = Trouble::default();
    loop {
        // While the API is away the queue does the waiting.
        if reachable.wait_for(|reachable| *reachable).await.is_err() {
            return;
        }
        let due = later.iter().map(|later| later.at).min();
        let due = async {
            match due {
                Some(due) => tokio::time::sleep_until(due).await,
                None => std::future::pending().await,
            }
        };
        let (write, tries) = tokio::select! {
            // Cancel-safe: it takes an event only when it returns it.
            occurrence = events.next() => {
                let age = Timestamp::now().duration_since(occurrence.at).as_secs();
                if age > WORTH {
                    continue;
                }
                let Occurrence { about, warning, reason, message, at } = occurrence;
                let about = involved(about);
                match correlator.take(Occurrence { about, warning, reason, message, at }) {
                    Some(write) => (write, 0),
                    None => continue,
                }
            }
            () = due => {
                let now = Instant::now();
                let next = later.iter().position(|later| later.at <= now);
                match next.and_then(|next| later.remove(next)) {
                    Some(next) => (next.write, next.tries),
                    None => continue,
                }
            }
        };
        budget.spend().await;
        let Err(error) = send(calls, &write).await else {
            trouble.end();
            continue;
        };
        if error.kind != CallErrorKind::NotFound && trouble.is_news(&error) {
            tracing::warn!(error = error.message, "cannot write an event");
        }
        let again = match error.kind {
            CallErrorKind::NotFound | CallErrorKind::Away => tries < TRIES,
            CallErrorKind::AlreadyExists
            | CallErrorKind::Conflict
            | CallErrorKind::Gone
            | CallErrorKind::Refused => false,
        };
        if again {
            if later.len() == LATER {
                later.pop_front();
            }
            let at = Instant::now() + wait_after(tries + 1, LONGEST);
            later.push_back(Later { at, tries: tries + 1, write });
        }
    }
}

async fn send(calls: &Calls, write: &Write) -> Result<(), CallError> {
    let event = match write {
        Write::Create(event) | Write::Patch { whole: event, .. } => event,
    };
    let metadata = &event.metadata;
    let namespace = metadata.namespace.as_deref().unwrap_or_default();
    let collection = format!("/api/v1/namespaces/{namespace}/events");
    if let Write::Patch { patch, .. } = write {
        let name = metadata.name.as_deref().unwrap_or_default();
        match calls.patch::<Event>(&format!("{collection}/{name}"), patch).await {
            // It was kept for its time.
            Err(error) if error.kind == CallErrorKind::NotFound => {}
            answer => return answer.map(drop),
        }
    }
    calls.post::<Event, _>(&collection, &**event).await.map(drop)
}

/// What may be written at once.
struct Budget {
    left: u32,
    since: Instant,
}

impl Budget {
    fn new() -> Self {
        Self { left: BURST, since: Instant::now() }
    }

    async fn spend(&mut self) {
        let turn = Duration::from_secs(1) / PER_SECOND;
        let turns = self.since.elapsed().as_nanos() / turn.as_nanos();
        let turns = u32::try_from(turns).unwrap_or(BURST).min(BURST);
        if turns > 0 {
            self.left = (self.left + turns).min(BURST);
            self.since = Instant::now();
        }
        if self.left == 0 {
            tokio::time::sleep(turn).await;
            self.since = Instant::now();
        } else {
            self.left -= 1;
        }
    }
}
