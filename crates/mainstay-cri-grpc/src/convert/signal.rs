//! Signals have numbers of their own in the protocol: their places in an enumeration.

use super::{ConvertError, invalid};

/// The names by the protocol's numbers, from 1 on; 0 is the image's own. Source: `Signal`. Those of real
/// time follow: [`REAL_TIME`].
const NAMES: [&str; 34] = [
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

/// The number of SIGRTMIN. SIGRTMIN+1 to SIGRTMIN+15 come after it, then SIGRTMAX-14 to SIGRTMAX.
const REAL_TIME: i32 = 35;
const REAL_TIME_MAX: i32 = 65;

/// The protocol's number of a signal; 0 for none. `None` for what is no signal's name.
pub(crate) fn signal_number(name: Option<&str>) -> Option<i32> {
    let Some(name) = name else { return Some(0) };
    if let Some(at) = NAMES.iter().position(|known| *known == name) {
        return i32::try_from(at + 1).ok();
    }
    let offset = |text: &str, sign| match text.strip_prefix(sign) {
        Some(number) => number.parse::<i32>().ok(),
        None => text.is_empty().then_some(0),
    };
    if let Some(after) = name.strip_prefix("SIGRTMIN") {
        return offset(after, '+').filter(|it| (0..=15).contains(it)).map(|it| REAL_TIME + it);
    }
    let before = name.strip_prefix("SIGRTMAX")?;
    offset(before, '-').filter(|it| (0..=14).contains(it)).map(|it| REAL_TIME_MAX - it)
}

/// The name of a signal by the protocol's number.
pub(super) fn signal_name(number: i32) -> Result<Option<String>, ConvertError> {
    let name = match number {
        0 => return Ok(None),
        REAL_TIME => "SIGRTMIN".to_owned(),
        36..=50 => format!("SIGRTMIN+{}", number - REAL_TIME),
        51..REAL_TIME_MAX => format!("SIGRTMAX-{}", REAL_TIME_MAX - number),
        REAL_TIME_MAX => "SIGRTMAX".to_owned(),
        _ => {
            let at = usize::try_from(number - 1).ok().and_then(|at| NAMES.get(at));
            at.ok_or_else(|| invalid("stop_signal", &number))?.to_string()
        }
    };
    Ok(Some(name))
}
