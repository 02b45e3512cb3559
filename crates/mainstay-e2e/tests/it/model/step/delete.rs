//! What deleting makes of an object.

use super::super::object::{State, owned};
use super::super::operation::{Delete, Operation};
use super::{Answer, NEW_VERSION, Outcome, Refusal};

pub(super) fn delete(
    before: &State,
    operation: &Operation,
    options: &Delete,
) -> Result<Outcome, Refusal> {
    let other_uid = options.uid.as_ref().is_some_and(|uid| *uid != before.uid);
    if other_uid || options.version.is_some_and(|version| version != before.version) {
        return Err(Refusal::conflict(operation));
    }
    let unchanged = |state: &State| Outcome {
        answer: Answer::Object(state.clone(), false),
        writes: Vec::new(),
    };
    let mut new = before.clone();
    let mut graceful = None;
    match before.ending {
        None if operation.kind.is_graceful => {
            graceful = Some(grace(before, options));
            new.ending = graceful;
            new.ends.clear();
            new.generation = new.generation.map(|generation| generation + 1);
        }
        // The time is over, or there was none to have.
        None | Some(0) => {}
        Some(left) => match options.grace {
            Some(seconds) if seconds < left => {
                graceful = Some(seconds);
                new.ending = graceful;
                new.ends.clear();
            }
            _ => return Ok(unchanged(before)),
        },
    }
    if new.has_finalizers() && graceful.is_none() {
        if before.ending.is_none() {
            new.generation = new.generation.map(|generation| generation + 1);
        }
        if before.ending != Some(0) {
            new.ends.clear();
        }
        new.ending = Some(0);
    }
    let stays = new.has_finalizers() || graceful.is_some_and(|seconds| seconds > 0);
    if stays && new == *before {
        return Ok(unchanged(before));
    }
    if graceful.is_some() || stays {
        new.version = if operation.dry_run { before.version } else { NEW_VERSION };
    }
    if stays {
        let answer = Answer::Object(new.clone(), false);
        return Ok(Outcome { answer, writes: vec![Some(new)] });
    }
    // What has a grace period is marked first, though it goes at once.
    let marked = graceful.is_some().then(|| Some(new.clone()));
    // How it was stored, at the version at which it is gone.
    let last = if graceful.is_some() { new } else { before.clone() };
    let version = if operation.dry_run { before.version } else { NEW_VERSION };
    let answer = match operation.kind.is_graceful {
        true => Answer::Object(State { version, ..last }, false),
        false => Answer::Gone(before.uid.clone()),
    };
    Ok(Outcome { answer, writes: marked.into_iter().chain([None]).collect() })
}

/// How long a pod may take, in seconds.
fn grace(pod: &State, options: &Delete) -> i64 {
    let ended = matches!(pod.text(&["status", "phase"]), Some("Failed" | "Succeeded"));
    if ended || pod.text(&["spec", "nodeName"]).is_none() {
        return 0;
    }
    let own = pod.fields.get(&owned(&["spec", "terminationGracePeriodSeconds"]));
    options.grace.or(own.and_then(serde_json::Value::as_i64)).unwrap_or(0)
}
