//! A client: what it asks, and what it is told.

use std::collections::BTreeSet;
use std::sync::Arc;

use anyhow::{Context, ensure};
use mainstay_e2e::api::Connection;
use serde_json::Value;

use super::generate::Known;
use super::object::{Owner, State};
use super::operation::{Action, Operation};
use super::step::{Answer, NEW_VERSION, Refusal};

/// What a server said.
pub(super) struct Said {
    pub(super) answer: Answer,
    pub(super) body: Value,
}

/// Carries an operation out.
pub(super) async fn ask(
    connection: &Arc<Connection>,
    namespace: &str,
    operation: &Operation,
) -> anyhow::Result<Said> {
    let request = operation.request(namespace);
    let (path, content_type) = (&request.path, request.content_type);
    let answer = connection.answer(request.method, path, content_type, request.body).await;
    let (code, body) = answer.with_context(|| format!("{operation:?}"))?;
    let body: Value = serde_json::from_slice(&body).with_context(|| format!("{body:?}"))?;
    let answer = match (code.is_success(), body["kind"].as_str()) {
        (true, Some("Status")) => {
            Answer::Gone(body["details"]["uid"].as_str().unwrap_or_default().to_owned())
        }
        (true, Some(kind)) => {
            ensure!(kind == operation.kind.kind, "{operation:?} is answered with {body}");
            Answer::Object(State::read(operation.kind, &body), code.as_u16() == 201)
        }
        _ => Answer::Refused(refusal(code.as_u16(), &body)),
    };
    Ok(Said { answer, body })
}

fn refusal(code: u16, status: &Value) -> Refusal {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let causes = status["details"]["causes"].as_array().into_iter().flatten();
    let causes: BTreeSet<_> =
        causes.map(|cause| (text(&cause["reason"]), text(&cause["field"]))).collect();
    let (reason, message) = (text(&status["reason"]), text(&status["message"]));
    Refusal { code, reason, message, causes }
}

impl Said {
    /// The object in the answer, which is not everywhere one that is there.
    pub(super) fn object(&self) -> Option<&State> {
        match &self.answer {
            Answer::Object(state, _) => Some(state),
            Answer::Gone(_) | Answer::Refused(_) => None,
        }
    }

    /// Remembers what it says of a name.
    pub(super) fn remember(&self, operation: &Operation, known: &mut Known) {
        match &self.answer {
            Answer::Object(state, _) => {
                if state.version != 0 && !operation.dry_run {
                    known.saw(&self.body);
                }
                if matches!(operation.action, Action::Delete(_)) && state.ending.is_none() {
                    known.missed();
                }
            }
            Answer::Gone(_) => known.missed(),
            Answer::Refused(refusal) if refusal.code == 404 => known.missed(),
            Answer::Refused(_) => {}
        }
    }
}

/// Whether an answer is what the model says.
pub(super) fn agrees(said: &Answer, expected: &Answer) -> bool {
    match (said, expected) {
        (Answer::Object(said, created), Answer::Object(expected, creates)) => {
            created == creates && *said == known(expected, said)
        }
        (Answer::Refused(said), Answer::Refused(expected)) => {
            let same = expected.message.is_empty() || said.message == expected.message;
            said.code == expected.code
                && said.reason == expected.reason
                && (said.causes == expected.causes)
                && same
        }
        (said, expected) => said == expected,
    }
}

/// What the model says, with what it cannot know before it is told.
pub(super) fn known(expected: &State, told: &State) -> State {
    let mut state = expected.clone();
    if state.version == NEW_VERSION {
        state.version = told.version;
    }
    if state.uid.is_empty() {
        state.uid.clone_from(&told.uid);
        state.created.clone_from(&told.created);
    }
    if state.ending.is_some() && state.ends.is_empty() {
        state.ends.clone_from(&told.ends);
    }
    state
}

/// What an answer says, and what the model does, where that is not the same; a line for each.
pub(super) fn differences(said: &Answer, expected: &Answer) -> String {
    match (said, expected) {
        (Answer::Object(said, created), Answer::Object(expected, creates)) => {
            let expected = known(expected, said);
            let mut text = facts(said, *created)
                .difference(&facts(&expected, *creates))
                .fold(String::new(), |text, fact| text + "+ " + fact + "\n");
            for fact in facts(&expected, *creates).difference(&facts(said, *created)) {
                text = text + "- " + fact + "\n";
            }
            text
        }
        (said, expected) => format!("+ {said:?}\n- {expected:?}\n"),
    }
}

/// An object in words.
fn facts(state: &State, created: bool) -> BTreeSet<String> {
    let State { uid, created: since, version, generation, ending, ends, fields, owners } = state;
    let mut facts = BTreeSet::from([
        format!("made by this: {created}"),
        format!("uid {uid} since {since} at {version}, generation {generation:?}"),
        format!("ending {ending:?} {ends}"),
    ]);
    facts.extend(fields.iter().map(|(path, value)| format!("{} = {value}", path.join("."))));
    for (Owner { manager, operation, subresource }, set) in owners {
        let owned = set
            .iter()
            .map(|path| format!("{manager} {operation} {subresource} owns {}", path.join(".")));
        facts.extend(owned);
    }
    facts
}
