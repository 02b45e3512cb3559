//! `/healthz`, which tells the truth: the kubelet's is a ping.
//!
//! Source for the form: `staging/src/k8s.io/apiserver/pkg/server/healthz/healthz.go`. There the
//! reason of a failure is withheld; here it is told, since whoever may ask may know.

use std::fmt::Write;
use std::sync::Arc;

use http::StatusCode;
use tokio::sync::watch;

use crate::publish::Board;

/// One thing that has to be so.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Check {
    /// Its name in the answer.
    pub(crate) name: &'static str,
    /// Why it is not so, as one line.
    pub(crate) failure: Option<String>,
}

/// What is asked about health.
pub(crate) trait Health: Send + Sync {
    /// All checks, in the order in which they are told.
    fn checks(&self) -> Vec<Check>;
}

/// The health that can be seen on the board.
pub(crate) struct BoardHealth(pub(crate) watch::Receiver<Arc<Board>>);

impl Health for BoardHealth {
    fn checks(&self) -> Vec<Check> {
        // Without a sender nobody keeps the board any more.
        let kept = self.0.has_changed().is_ok();
        checks(&self.0.borrow().clone(), kept)
    }
}

fn checks(board: &Board, kept: bool) -> Vec<Check> {
    let check = |name, failure| Check { name, failure };
    let loop_failure = if !kept {
        Some("the agent is ending".to_owned())
    } else if !board.is_complete() {
        Some("the pods that were there at the start have not all been looked at yet".to_owned())
    } else {
        None
    };
    let not_so: Vec<String> = board
        .runtime
        .iter()
        .filter(|condition| !condition.status)
        .map(|condition| format!("{}: {}", condition.kind, condition.message))
        .collect();
    let unreadable: Vec<String> = board
        .notes
        .unreadable
        .iter()
        .map(|(path, error)| format!("{}: {error}", path.display()))
        .collect();
    let joined = |list: Vec<String>| (!list.is_empty()).then(|| list.join("; "));
    vec![
        check("ping", None),
        check("log", None),
        check("syncloop", loop_failure),
        check("runtime", joined(not_so)),
        check("manifests", joined(unreadable)),
    ]
}

/// The answer to a question after all checks, or after the one named `which`; `None` if there is
/// none of that name.
pub(super) fn answer(
    checks: &[Check],
    which: Option<&str>,
    query: &[(String, String)],
) -> Option<(StatusCode, String)> {
    if let Some(name) = which {
        let check = checks.iter().find(|check| check.name == name)?;
        return Some(match &check.failure {
            None => (StatusCode::OK, "ok".to_owned()),
            Some(failure) => {
                (StatusCode::INTERNAL_SERVER_ERROR, format!("internal server error: {failure}\n"))
            }
        });
    }
    let excluded: Vec<&str> = query
        .iter()
        .filter(|(name, _)| name == "exclude")
        .flat_map(|(_, names)| names.split(','))
        .collect();
    let mut lines = String::new();
    let mut failed = false;
    for Check { name, failure } in checks {
        // Writing to a string cannot fail.
        let _ = match failure {
            _ if excluded.contains(name) => writeln!(lines, "[+]{name} excluded: ok"),
            None => writeln!(lines, "[+]{name} ok"),
            Some(failure) => {
                failed = true;
                writeln!(lines, "[-]{name} failed: {}", failure.replace('\n', " "))
            }
        };
    }
    let unknown: Vec<String> = excluded
        .iter()
        .filter(|name| !checks.iter().any(|check| check.name == **name))
        .map(|name| format!("\"{name}\""))
        .collect();
    if !unknown.is_empty() {
        let unknown = unknown.join(",");
        let _ = writeln!(
            lines,
            "warn: some health checks cannot be excluded: no matches for {unknown}"
        );
    }
    if failed {
        return Some((StatusCode::INTERNAL_SERVER_ERROR, lines + "healthz check failed\n"));
    }
    let verbose = query.iter().any(|(name, _)| name == "verbose");
    Some((StatusCode::OK, if verbose { lines + "healthz check passed\n" } else { "ok".to_owned() }))
}

#[cfg(test)]
mod tests {
    use mainstay_cri::RuntimeCondition;

    use super::*;

    fn list(failure: Option<&str>) -> Vec<Check> {
        vec![
            Check { name: "ping", failure: None },
            Check { name: "runtime", failure: failure.map(str::to_owned) },
        ]
    }

    fn check(
        failure: Option<&str>,
        which: Option<&str>,
        query: &str,
        expected: Option<(u16, &str)>,
    ) {
        let query: Vec<(String, String)> =
            form_urlencoded::parse(query.as_bytes()).into_owned().collect();
        let got = answer(&list(failure), which, &query);
        let got = got.as_ref().map(|(status, text)| (status.as_u16(), text.as_str()));
        assert_eq!(got, expected, "{which:?} {query:?}");
    }

    #[test]
    fn the_answer_has_the_form_of_kubernetes() {
        check(None, None, "", Some((200, "ok")));
        let text = "[+]ping ok\n[+]runtime ok\nhealthz check passed\n";
        check(None, None, "verbose", Some((200, text)));
        let text = "[+]ping ok\n[-]runtime failed: it is gone\nhealthz check failed\n";
        check(Some("it is gone"), None, "", Some((500, text)));
        check(Some("it is gone"), None, "exclude=runtime", Some((200, "ok")));
        let text = "[+]ping ok\n[+]runtime ok\n\
                    warn: some health checks cannot be excluded: no matches for \"x\"\n\
                    healthz check passed\n";
        check(None, None, "exclude=x&verbose=1", Some((200, text)));
        check(Some("it is gone"), Some("ping"), "", Some((200, "ok")));
        let text = "internal server error: it is gone\n";
        check(Some("it is gone"), Some("runtime"), "", Some((500, text)));
        check(None, Some("other"), "", None);
    }

    #[test]
    fn what_is_wrong_is_seen_on_the_board() {
        let failures = |board: &Board, kept| {
            let failing = checks(board, kept).into_iter().filter(|it| it.failure.is_some());
            failing.map(|check| check.name).collect::<Vec<_>>()
        };
        let mut board = Board::default();
        assert_eq!(failures(&board, true), ["syncloop"]);
        assert_eq!(failures(&board, false), ["syncloop"]);
        board.runtime.push(RuntimeCondition {
            kind: "NetworkReady".into(),
            status: false,
            reason: "Failed".into(),
            message: "there is no bridge".into(),
        });
        board.notes.unreadable.insert("/manifests".into(), "it is gone".into());
        assert_eq!(failures(&board, true), ["syncloop", "runtime", "manifests"]);
        let told = checks(&board, true).into_iter().filter_map(|check| check.failure);
        let told: Vec<_> = told.skip(1).collect();
        assert_eq!(told, ["NetworkReady: there is no bridge", "/manifests: it is gone"]);
    }
}
