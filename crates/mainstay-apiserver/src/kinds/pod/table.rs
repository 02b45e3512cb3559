//! The row of a pod. Source: `printPod` in `pkg/printers/internalversion/printers.go`.

use jiff::Timestamp;
use serde_json::{Value, json};

use crate::kind::{AGE, Column, NAME, column, wide};
use crate::kinds::rules::{at, number, text};
use crate::object::Object;
use crate::table::{self, or_none};

pub(super) const COLUMNS: &[Column] = &[
    NAME,
    column("Ready", "string", "The aggregate readiness state of this pod for accepting traffic."),
    column("Status", "string", "The aggregate status of the containers in this pod."),
    column(
        "Restarts",
        "string",
        "The number of times the containers in this pod have been restarted and when the last container \
         in this pod has restarted.",
    ),
    AGE,
    wide("IP", "string", "The first of the pod's addresses."),
    wide("Node", "string", "The node that the pod has been bound to."),
    wide("Nominated Node", "string", "The node on which room is being made for the pod."),
    wide("Readiness Gates", "string", "How many of the conditions that make the pod ready hold."),
];

/// Restarts and the last of them.
#[derive(Clone, Copy, Default)]
struct Restarts {
    count: i64,
    last: Option<Timestamp>,
}

/// What the containers add up to.
struct Summary {
    reason: String,
    ready: usize,
    total: usize,
    restarts: Restarts,
}

pub(super) fn row(object: &Object, now: Timestamp) -> Vec<Value> {
    let summary = summary(object);
    let restarts = match (summary.restarts.count, summary.restarts.last) {
        (0, _) | (_, None) => summary.restarts.count.to_string(),
        (count, Some(last)) => {
            let ago = now.as_second().saturating_sub(last.as_second());
            format!("{count} ({} ago)", table::human_duration(ago))
        }
    };
    let ips = object.list_at(&["status", "podIPs"]);
    let ip = ips.first().map_or("", |ip| text(ip, "ip"));
    vec![
        object.name().into(),
        format!("{}/{}", summary.ready, summary.total).into(),
        summary.reason.into(),
        restarts.into(),
        table::age(object, now),
        or_none(ip),
        or_none(object.str_at(&["spec", "nodeName"])),
        or_none(object.str_at(&["status", "nominatedNodeName"])),
        or_none(&gates(object)),
    ]
}

/// Source: `podSuccessConditions`, `podFailedConditions`.
pub(super) fn conditions(object: &Object) -> Vec<Value> {
    let message = match object.str_at(&["status", "phase"]) {
        "Succeeded" => "The pod has completed successfully.",
        "Failed" => "The pod failed.",
        _ => return Vec::new(),
    };
    let phase = object.str_at(&["status", "phase"]);
    vec![json!({ "type": "Completed", "status": "True", "reason": phase, "message": message })]
}

fn flag(value: &Value, key: &str) -> bool {
    *at(value, key) == true
}

fn has_condition(object: &Object, kind: &str) -> bool {
    let conditions = object.list_at(&["status", "conditions"]);
    conditions.iter().any(|it| text(it, "type") == kind && text(it, "status") == "True")
}

fn summary(object: &Object) -> Summary {
    let init = object.list_at(&["spec", "initContainers"]);
    let is_sidecar = |name: &str| {
        init.iter().any(|it| text(it, "name") == name && text(it, "restartPolicy") == "Always")
    };
    let sidecars = init.iter().filter(|it| text(it, "restartPolicy") == "Always").count();
    let mut summary = Summary {
        reason: match object.str_at(&["status", "reason"]) {
            "" => object.str_at(&["status", "phase"]).to_owned(),
            reason => reason.to_owned(),
        },
        ready: 0,
        total: object.list_at(&["spec", "containers"]).len() + sidecars,
        restarts: Restarts::default(),
    };
    let gated = object
        .list_at(&["status", "conditions"])
        .iter()
        .any(|it| text(it, "type") == "PodScheduled" && text(it, "reason") == "SchedulingGated");
    if gated {
        summary.reason = "SchedulingGated".to_owned();
    }
    let mut of_sidecars = Restarts::default();
    let mut initializing = false;
    for (done, status) in object.list_at(&["status", "initContainerStatuses"]).iter().enumerate() {
        let sidecar = is_sidecar(text(status, "name"));
        summary.restarts.add(status);
        if sidecar {
            of_sidecars.add(status);
        }
        let ended = status.pointer("/state/terminated");
        let waiting = status.pointer("/state/waiting").map_or("", |it| text(it, "reason"));
        summary.reason = match ended {
            Some(end) if number(end, "exitCode") == 0 => continue,
            _ if sidecar && flag(status, "started") => {
                summary.ready += usize::from(flag(status, "ready"));
                continue;
            }
            Some(end) => format!("Init:{}", end_reason(end)),
            None if !waiting.is_empty() && waiting != "PodInitializing" => {
                format!("Init:{waiting}")
            }
            None => format!("Init:{done}/{}", init.len()),
        };
        initializing = true;
        break;
    }
    if !initializing || has_condition(object, "Initialized") {
        summary.restarts = of_sidecars;
        summary.containers(object);
    }
    if object.is_terminating() {
        let phase = object.str_at(&["status", "phase"]);
        if object.str_at(&["status", "reason"]) == "NodeLost" {
            summary.reason = "Unknown".to_owned();
        } else if !matches!(phase, "Succeeded" | "Failed") {
            summary.reason = "Terminating".to_owned();
        }
    }
    summary
}

impl Summary {
    fn containers(&mut self, object: &Object) {
        let mut running = false;
        let mut failed = String::new();
        for status in object.list_at(&["status", "containerStatuses"]).iter().rev() {
            self.restarts.add(status);
            let waiting = status.pointer("/state/waiting").map_or("", |it| text(it, "reason"));
            if !waiting.is_empty() {
                self.reason = waiting.to_owned();
            } else if let Some(end) = status.pointer("/state/terminated") {
                self.reason = end_reason(end);
                if number(end, "exitCode") != 0 {
                    failed.clone_from(&self.reason);
                }
            } else if flag(status, "ready") && status.pointer("/state/running").is_some() {
                running = true;
                self.ready += 1;
            }
        }
        if self.reason == "Completed" {
            if running && has_condition(object, "Ready") {
                self.reason = "Running".to_owned();
            } else if !failed.is_empty() {
                self.reason = failed;
            } else if running {
                self.reason = "NotReady".to_owned();
            }
        }
    }
}

impl Restarts {
    fn add(&mut self, status: &Value) {
        self.count += number(status, "restartCount");
        let last = status.pointer("/lastState/terminated/finishedAt").and_then(Value::as_str);
        self.last = self.last.max(last.and_then(|time| time.parse().ok()));
    }
}

fn end_reason(end: &Value) -> String {
    match (text(end, "reason"), number(end, "signal")) {
        ("", 0) => format!("ExitCode:{}", number(end, "exitCode")),
        ("", signal) => format!("Signal:{signal}"),
        (reason, _) => reason.to_owned(),
    }
}

fn gates(object: &Object) -> String {
    let gates = object.list_at(&["spec", "readinessGates"]);
    if gates.is_empty() {
        return String::new();
    }
    let holds =
        gates.iter().filter(|gate| has_condition(object, text(gate, "conditionType"))).count();
    format!("{holds}/{}", gates.len())
}
