//! That the API is away is told once, however many follow it.

use std::sync::{Mutex, PoisonError};

use mainstay_client::CallError;

/// How many cannot follow it.
#[derive(Debug, Default)]
pub(crate) struct Outage(Mutex<usize>);

/// What one of them knows.
#[derive(Debug, Default)]
pub(crate) struct Away(Mutex<bool>);

impl Away {
    /// Takes in how an answer was.
    pub(crate) fn answered(&self, how: Result<(), &CallError>, outage: &Outage) {
        let mut away = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let mut count = outage.0.lock().unwrap_or_else(PoisonError::into_inner);
        match how {
            Err(error) if !*away => {
                if *count == 0 {
                    tracing::warn!(error = error.message, "controllers cannot follow the API");
                }
                *count += 1;
            }
            Ok(()) if *away => {
                *count -= 1;
                if *count == 0 {
                    tracing::info!("controllers follow the API again");
                }
            }
            Ok(()) | Err(_) => {}
        }
        *away = how.is_err();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_over_when_everybody_follows_again() {
        let (outage, one, two) = (Outage::default(), Away::default(), Away::default());
        let error = CallError::refused("no".into());
        let count = || *outage.0.lock().unwrap();
        for (who, how, expected) in [
            (&one, Ok(()), 0),
            (&one, Err(&error), 1),
            (&one, Err(&error), 1),
            (&two, Err(&error), 2),
            (&one, Ok(()), 1),
            (&one, Ok(()), 1),
            (&two, Ok(()), 0),
        ] {
            who.answered(how, &outage);
            assert_eq!(count(), expected);
        }
    }
}
