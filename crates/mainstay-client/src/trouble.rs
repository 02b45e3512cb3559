//! What fails again and again.

use std::time::Duration;

use crate::CallError;

/// The first wait after something failed.
const FIRST_WAIT: Duration = Duration::from_millis(100);

/// The longest wait after an API did not answer. A short one, so that what it shows is right within a
/// second of its return; one request a second is no burden to anybody.
pub const LONGEST_AWAY: Duration = Duration::from_millis(800);

/// The longest wait after an API refused something. Source: the cap of the kubelet's registration,
/// `pkg/kubelet/kubelet_node_status.go`.
pub const LONGEST_REFUSED: Duration = Duration::from_secs(7);

/// What stands in the way of one thing: how often it failed in a row, and what was said of it.
#[derive(Debug, Default)]
pub struct Trouble {
    count: u32,
    said: Option<String>,
}

impl Trouble {
    /// Whether a failure is another one than was said last. It is to be said then.
    pub fn is_news(&mut self, error: &CallError) -> bool {
        let news = self.said.as_ref() != Some(&error.message);
        if news {
            self.said = Some(error.message.clone());
        }
        news
    }

    /// Takes in how something went. Answers the failure, if that is to be said.
    pub fn news<'a>(&mut self, how: Result<(), &'a CallError>) -> Option<&'a CallError> {
        match how {
            Ok(()) => {
                self.unsay();
                None
            }
            Err(error) => self.is_news(error).then_some(error),
        }
    }

    /// Counts a failure; answers how long to wait after it.
    pub fn count(&mut self, longest: Duration) -> Duration {
        self.count += 1;
        wait_after(self.count, longest)
    }

    /// Counts from the beginning again.
    pub fn recount(&mut self) {
        self.count = 0;
    }

    /// Forgets what was said; answers whether anything was.
    pub fn unsay(&mut self) -> bool {
        self.said.take().is_some()
    }

    /// It went well. Answers whether a failure was said before.
    pub fn end(&mut self) -> bool {
        self.recount();
        self.unsay()
    }
}

/// How long to wait after something failed so many times in a row.
pub fn wait_after(failures: u32, longest: Duration) -> Duration {
    let doubled = FIRST_WAIT.saturating_mul(1 << failures.saturating_sub(1).min(10));
    doubled.min(longest)
}
