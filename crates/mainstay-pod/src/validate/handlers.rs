//! Probes, lifecycle hooks and the handlers that both use.

use k8s_openapi::api::core::v1::{
    Container, ExecAction, GRPCAction, HTTPGetAction, LifecycleHandler, Probe, SleepAction,
    TCPSocketAction,
};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

use super::container::Around;
use super::metadata::non_negative;
use super::{Errors, Json, names, text};
use crate::path::Path;

const SIGNALS: [&str; 65] = [
    "SIGABRT",
    "SIGALRM",
    "SIGBUS",
    "SIGCHLD",
    "SIGCLD",
    "SIGCONT",
    "SIGFPE",
    "SIGHUP",
    "SIGILL",
    "SIGINT",
    "SIGIO",
    "SIGIOT",
    "SIGKILL",
    "SIGPIPE",
    "SIGPOLL",
    "SIGPROF",
    "SIGPWR",
    "SIGQUIT",
    "SIGRTMAX",
    "SIGRTMAX-1",
    "SIGRTMAX-10",
    "SIGRTMAX-11",
    "SIGRTMAX-12",
    "SIGRTMAX-13",
    "SIGRTMAX-14",
    "SIGRTMAX-2",
    "SIGRTMAX-3",
    "SIGRTMAX-4",
    "SIGRTMAX-5",
    "SIGRTMAX-6",
    "SIGRTMAX-7",
    "SIGRTMAX-8",
    "SIGRTMAX-9",
    "SIGRTMIN",
    "SIGRTMIN+1",
    "SIGRTMIN+10",
    "SIGRTMIN+11",
    "SIGRTMIN+12",
    "SIGRTMIN+13",
    "SIGRTMIN+14",
    "SIGRTMIN+15",
    "SIGRTMIN+2",
    "SIGRTMIN+3",
    "SIGRTMIN+4",
    "SIGRTMIN+5",
    "SIGRTMIN+6",
    "SIGRTMIN+7",
    "SIGRTMIN+8",
    "SIGRTMIN+9",
    "SIGSEGV",
    "SIGSTKFLT",
    "SIGSTOP",
    "SIGSYS",
    "SIGTERM",
    "SIGTRAP",
    "SIGTSTP",
    "SIGTTIN",
    "SIGTTOU",
    "SIGURG",
    "SIGUSR1",
    "SIGUSR2",
    "SIGVTALRM",
    "SIGWINCH",
    "SIGXCPU",
    "SIGXFSZ",
];

/// One way to do something in or to a container.
enum Action<'a> {
    Exec(&'a ExecAction),
    HttpGet(&'a HTTPGetAction),
    TcpSocket(&'a TCPSocketAction),
    Grpc(&'a GRPCAction),
    Sleep(&'a SleepAction),
}

/// What containers and sidecars may have, and plain init containers may not.
pub(super) fn lifecycle_and_probes(
    container: &Container,
    around: &Around<'_>,
    path: &Path<'_>,
    errors: &mut Errors,
) {
    if let Some(lifecycle) = &container.lifecycle {
        let path = path.field("lifecycle");
        let hooks = [("postStart", &lifecycle.post_start), ("preStop", &lifecycle.pre_stop)];
        for (field, hook) in hooks {
            if let Some(hook) = hook {
                handler(&Action::of_hook(hook), around.grace_period, &path.field(field), errors);
            }
        }
        if let Some(signal) = &lifecycle.stop_signal {
            stop_signal(signal, around.os, &path.field("stopSignal"), errors);
        }
    }
    if let Some(it) = &container.liveness_probe {
        let path = path.field("livenessProbe");
        probe(it, around, &path, errors);
        must_succeed_once(it, &path, errors);
    }
    if let Some(it) = &container.readiness_probe {
        let path = path.field("readinessProbe");
        probe(it, around, &path, errors);
        if let Some(period) = it.termination_grace_period_seconds {
            let message = "must not be set for readinessProbes";
            errors.invalid(&path.field("terminationGracePeriodSeconds"), period, message);
        }
    }
    if let Some(it) = &container.startup_probe {
        let path = path.field("startupProbe");
        probe(it, around, &path, errors);
        must_succeed_once(it, &path, errors);
    }
}

fn must_succeed_once(probe: &Probe, path: &Path<'_>, errors: &mut Errors) {
    let threshold = probe.success_threshold.unwrap_or(0);
    if threshold != 1 {
        errors.invalid(&path.field("successThreshold"), threshold, "must be 1");
    }
}

fn probe(probe: &Probe, around: &Around<'_>, path: &Path<'_>, errors: &mut Errors) {
    handler(&Action::of_probe(probe), around.grace_period, path, errors);
    let numbers = [
        ("initialDelaySeconds", probe.initial_delay_seconds),
        ("timeoutSeconds", probe.timeout_seconds),
        ("periodSeconds", probe.period_seconds),
        ("successThreshold", probe.success_threshold),
        ("failureThreshold", probe.failure_threshold),
    ];
    for (field, number) in numbers {
        non_negative(i64::from(number.unwrap_or(0)), &path.field(field), errors);
    }
    if let Some(period) = probe.termination_grace_period_seconds.filter(|period| *period <= 0) {
        errors.invalid(
            &path.field("terminationGracePeriodSeconds"),
            period,
            "must be greater than 0",
        );
    }
}

// === impl Action ===

impl<'a> Action<'a> {
    /// The actions of a probe, in the order in which Kubernetes looks at them.
    fn of_probe(probe: &'a Probe) -> Vec<Self> {
        let actions = [
            probe.exec.as_ref().map(Self::Exec),
            probe.http_get.as_ref().map(Self::HttpGet),
            probe.tcp_socket.as_ref().map(Self::TcpSocket),
            probe.grpc.as_ref().map(Self::Grpc),
        ];
        actions.into_iter().flatten().collect()
    }

    fn of_hook(hook: &'a LifecycleHandler) -> Vec<Self> {
        let actions = [
            hook.exec.as_ref().map(Self::Exec),
            hook.http_get.as_ref().map(Self::HttpGet),
            hook.tcp_socket.as_ref().map(Self::TcpSocket),
            hook.sleep.as_ref().map(Self::Sleep),
        ];
        actions.into_iter().flatten().collect()
    }

    const fn field(&self) -> &'static str {
        match self {
            Self::Exec(_) => "exec",
            Self::HttpGet(_) => "httpGet",
            Self::TcpSocket(_) => "tcpSocket",
            Self::Grpc(_) => "grpc",
            Self::Sleep(_) => "sleep",
        }
    }

    fn check(&self, grace_period: Option<i64>, path: &Path<'_>, errors: &mut Errors) {
        match self {
            Self::Exec(exec) => {
                if exec.command.as_ref().is_none_or(Vec::is_empty) {
                    errors.required(&path.field("command"), "");
                }
            }
            Self::HttpGet(get) => http_get(get, path, errors),
            Self::TcpSocket(tcp) => port(&tcp.port, &path.field("port"), errors),
            Self::Grpc(grpc) => port(&IntOrString::Int(grpc.port), &path.field("port"), errors),
            Self::Sleep(sleep) => {
                let within = |grace: &i64| (0..=*grace).contains(&sleep.seconds);
                if let Some(grace) = grace_period.filter(|grace| !within(grace)) {
                    let message = format!(
                        "must be non-negative and less than terminationGracePeriodSeconds ({grace})"
                    );
                    errors.invalid(path, sleep.seconds, &message);
                }
            }
        }
    }
}

/// `validateHandler`: the first action is checked, every other is one too many.
fn handler(
    actions: &[Action<'_>],
    grace_period: Option<i64>,
    path: &Path<'_>,
    errors: &mut Errors,
) {
    let Some((first, others)) = actions.split_first() else {
        errors.required(path, "must specify a handler type");
        return;
    };
    first.check(grace_period, &path.field(first.field()), errors);
    for other in others {
        errors.forbidden(&path.field(other.field()), "may not specify more than 1 handler type");
    }
}

fn http_get(get: &HTTPGetAction, path: &Path<'_>, errors: &mut Errors) {
    if text(get.path.as_ref()).is_empty() {
        errors.required(&path.field("path"), "");
    }
    port(&get.port, &path.field("port"), errors);
    errors.one_of(&path.field("scheme"), text(get.scheme.as_ref()), &["HTTP", "HTTPS"]);
    for header in get.http_headers.iter().flatten() {
        errors.invalid_all(
            &path.field("httpHeaders"),
            &header.name,
            names::header_name(&header.name),
        );
    }
}

/// A port by number or by name.
fn port(port: &IntOrString, path: &Path<'_>, errors: &mut Errors) {
    match port {
        IntOrString::Int(number) => {
            if let Some(message) = names::port_number(*number) {
                errors.invalid(path, *number, &message);
            }
        }
        IntOrString::String(name) => errors.invalid_all(path, name, names::port_name(name)),
    }
}

fn stop_signal(signal: &str, os: Option<&str>, path: &Path<'_>, errors: &mut Errors) {
    match os {
        None => errors.forbidden(path, "may not be set for containers with empty `spec.os.name`"),
        Some("windows") => errors.one_of(path, signal, &["SIGKILL", "SIGTERM"]),
        Some("linux") if !SIGNALS.contains(&signal) => {
            errors.not_supported(path, Json(signal), &SIGNALS);
        }
        Some(_) => {}
    }
}
