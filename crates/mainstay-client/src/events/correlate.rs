//! From what happens to Event objects: the same again is counted, what resembles it too often is
//! combined, and what never stops is left out.
//!
//! Source: `staging/src/k8s.io/client-go/tools/record/{event,events_cache}.go`.

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Event, EventSource, ObjectReference};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, Time};
use serde_json::{Value, json};

use super::recent::Recent;

/// From so many messages of one reason on they are combined. Source: `defaultAggregateMaxEvents`.
const COMBINED: usize = 10;
/// Seconds after which nothing is combined with what was before. Source:
/// `defaultAggregateIntervalInSeconds`.
const INTERVAL: i64 = 600;
/// Events about one object that are let through at once. Source: `defaultSpamBurst`.
const BURST: i64 = 25;
/// Seconds until one more is. Source: `defaultSpamQPS`.
const REFILL: i64 = 300;
/// Bytes of a message that are kept. Source: `NoteLengthLimit` in
/// `pkg/apis/core/validation/events.go`.
const LONGEST: usize = 1024;
/// The longest name of an object.
const LONGEST_NAME: usize = 253;
/// Where events are about what is in no namespace.
const NAMESPACE: &str = "default";

/// Something that happened.
#[derive(Clone, Debug, PartialEq)]
pub struct Occurrence<A = ObjectReference> {
    /// What it happened to.
    pub about: A,
    /// Whether something is not as it should be.
    pub warning: bool,
    /// One word.
    pub reason: String,
    /// A sentence.
    pub message: String,
    /// When.
    pub at: Timestamp,
}

/// What is to be written.
#[derive(Clone, Debug, PartialEq)]
pub enum Write {
    /// A new event.
    Create(Box<Event>),
    /// One that was written before happened again.
    Patch {
        /// A strategic merge patch.
        patch: Value,
        /// All of it, in case the one that was written before is gone.
        whole: Box<Event>,
    },
}

/// Remembers what was told lately.
#[derive(Debug)]
pub struct Correlator {
    component: String,
    host: Option<String>,
    similar: Recent<Similar>,
    told: Recent<Told>,
    budgets: Recent<Budget>,
}

/// Messages about one thing for one reason.
#[derive(Debug, Default)]
struct Similar {
    /// The marks of different ones; no more than [`COMBINED`].
    messages: Vec<u64>,
    last: Timestamp,
}

/// An event that was written.
#[derive(Clone, Debug)]
struct Told {
    name: String,
    count: i32,
    first: Timestamp,
}

/// What may still be told about one thing.
#[derive(Debug)]
struct Budget {
    /// Seconds' worth of events.
    credit: i64,
    last: Timestamp,
}

impl Correlator {
    /// `component` is who tells, such as `kubelet`, which tools look for; `host` the node that it is
    /// on, if that matters.
    pub fn new(component: &str, host: Option<&str>) -> Self {
        Self {
            component: component.to_owned(),
            host: host.map(str::to_owned),
            similar: Recent::new(),
            told: Recent::new(),
            budgets: Recent::new(),
        }
    }

    /// What is to be written about an occurrence; `None` if it is one too many.
    pub fn take(&mut self, mut occurrence: Occurrence) -> Option<Write> {
        cut(&mut occurrence.message, LONGEST);
        let key = self.combine(&mut occurrence);
        let known = self.told.get(&key).cloned();
        let event = self.event(&occurrence, known.as_ref());
        let told = Told {
            name: event.metadata.name.clone().unwrap_or_default(),
            count: event.count.unwrap_or(1),
            first: known.as_ref().map_or(occurrence.at, |known| known.first),
        };
        self.told.put(&key, told);
        if !self.afford(&occurrence) {
            return None;
        }
        let whole = Box::new(event);
        Some(match known {
            None => Write::Create(whole),
            Some(_) => {
                let patch = json!({
                    "count": whole.count,
                    "lastTimestamp": whole.last_timestamp,
                    "message": whole.message,
                });
                Write::Patch { patch, whole }
            }
        })
    }

    /// Says what an occurrence is counted with. One of too many different ones is changed to stand
    /// for all of them.
    fn combine(&mut self, occurrence: &mut Occurrence) -> String {
        let (warning, reason) = (occurrence.warning, &occurrence.reason);
        let group = format!("{} {warning} {reason}", thing(&occurrence.about, false));
        let message = self.similar.mark(&occurrence.message);
        let similar = self.similar.get_or_default(&group);
        if seconds(similar.last, occurrence.at) > INTERVAL {
            similar.messages.clear();
        }
        similar.last = occurrence.at;
        if !similar.messages.contains(&message) {
            similar.messages.push(message);
        }
        if similar.messages.len() < COMBINED {
            let thing = thing(&occurrence.about, true);
            return format!("{thing} {warning} {reason} {}", occurrence.message);
        }
        similar.messages.remove(0);
        occurrence.message.insert_str(0, "(combined from similar events): ");
        cut(&mut occurrence.message, LONGEST);
        group
    }

    /// Whether there is room for one more about this thing.
    fn afford(&mut self, occurrence: &Occurrence) -> bool {
        let key = format!("{} {}", thing(&occurrence.about, false), occurrence.warning);
        let full = BURST * REFILL;
        let fresh = || Budget { credit: full, last: occurrence.at };
        let budget = self.budgets.get_or_insert(&key, fresh);
        let since = seconds(budget.last, occurrence.at);
        budget.credit = (budget.credit + since).min(full);
        budget.last = occurrence.at;
        let affordable = budget.credit >= REFILL;
        if affordable {
            budget.credit -= REFILL;
        }
        affordable
    }

    fn event(&self, occurrence: &Occurrence, known: Option<&Told>) -> Event {
        let involved = occurrence.about.clone();
        let namespace = involved.namespace.clone().unwrap_or_else(|| NAMESPACE.to_owned());
        let involved_name = involved.name.clone().unwrap_or_default();
        let name = known.map_or_else(|| name(&involved_name, occurrence.at), |it| it.name.clone());
        let first = known.map_or(occurrence.at, |known| known.first);
        Event {
            metadata: ObjectMeta {
                name: Some(name),
                namespace: Some(namespace),
                ..ObjectMeta::default()
            },
            involved_object: involved,
            type_: Some(if occurrence.warning { "Warning" } else { "Normal" }.to_owned()),
            reason: Some(occurrence.reason.clone()),
            message: Some(occurrence.message.clone()),
            count: Some(known.map_or(1, |known| known.count.saturating_add(1))),
            first_timestamp: Some(Time(first)),
            last_timestamp: Some(Time(occurrence.at)),
            source: Some(EventSource {
                component: Some(self.component.clone()),
                host: self.host.clone(),
            }),
            reporting_component: Some(self.component.clone()),
            reporting_instance: self.host.clone(),
            ..Event::default()
        }
    }
}

/// Tells one thing from others; `whole` also from other parts of it.
fn thing(about: &ObjectReference, whole: bool) -> String {
    let field = about.field_path.as_ref().filter(|_| whole);
    let parts = [&about.kind, &about.namespace, &about.name, &about.uid];
    let parts = parts.into_iter().map(|part| part.as_deref().unwrap_or_default());
    let parts: Vec<&str> = parts.chain(field.map(String::as_str)).collect();
    parts.join("/")
}

/// Source: `GenerateEventName` in `staging/src/k8s.io/client-go/tools/internal/events`.
fn name(involved: &str, at: Timestamp) -> String {
    let suffix = format!(".{:x}", at.as_nanosecond());
    let mut name = involved.to_owned();
    cut(&mut name, LONGEST_NAME.saturating_sub(suffix.len()));
    // A name's parts end in a letter or a digit.
    name.truncate(name.trim_end_matches(['-', '.']).len());
    name + &suffix
}

fn cut(text: &mut String, longest: usize) {
    if text.len() > longest {
        text.truncate(text.floor_char_boundary(longest));
    }
}

/// From one moment to a later one; nothing when the clock was set back.
fn seconds(from: Timestamp, to: Timestamp) -> i64 {
    to.duration_since(from).as_secs().max(0)
}

#[cfg(test)]
mod tests;
