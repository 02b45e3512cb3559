//! What broke is begun anew.

use std::fmt::Display;
use std::time::Duration;

use tokio::task::JoinSet;

/// How long what broke is left alone.
const PAUSE: Duration = Duration::from_secs(1);

/// Runs something that ends by itself only when it breaks.
pub(crate) async fn keep<F>(name: impl Display, begin: impl Fn() -> F)
where
    F: Future<Output = ()> + Send + 'static,
{
    loop {
        let mut run = JoinSet::new();
        run.spawn(begin());
        match run.join_next().await {
            Some(Err(error)) if error.is_panic() => {
                tracing::error!(%name, %error, "a controller broke, and begins anew");
                tokio::time::sleep(PAUSE).await;
            }
            _ => return,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn what_panics_begins_anew_and_what_ends_does_not() {
        let begun = Arc::new(AtomicUsize::new(0));
        let seen = begun.clone();
        keep("test", move || {
            let count = begun.fetch_add(1, Ordering::Relaxed);
            async move { assert!(count == 2, "broken") }
        })
        .await;
        assert_eq!(seen.load(Ordering::Relaxed), 3);
    }
}
