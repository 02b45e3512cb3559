//! Between the contract's structs and the protocol's messages, in both directions.
//!
//! What a client sends and a server reads is in [`sandbox`], [`container`] and [`requests`], what
//! comes back in [`status`], [`stats`] and [`image`]. Nothing here looks at the machine or talks to
//! anybody.

mod container;
mod error;
mod image;
mod requests;
mod sandbox;
mod signal;
mod stats;
mod status;
#[cfg(test)]
mod tests;

use jiff::Timestamp;

pub(crate) use container::container_config;
pub(crate) use error::{error_of, status_of};
pub(crate) use requests::seconds;
pub(crate) use stats::container_stats;

/// A message of a peer that cannot be turned into what the contract has.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum ConvertError {
    /// A field that is needed is not there.
    #[error("{0} is missing")]
    Missing(&'static str),
    /// A field says what it cannot say.
    #[error("{field} cannot be {value:?}")]
    Invalid {
        /// Its name in the protocol.
        field: &'static str,
        /// What it says.
        value: String,
    },
    /// A field asks for what the contract has no word for.
    #[error("{0} is not supported")]
    Unsupported(&'static str),
}

type Result<T> = std::result::Result<T, ConvertError>;

fn invalid(field: &'static str, value: &dyn std::fmt::Display) -> ConvertError {
    ConvertError::Invalid { field, value: value.to_string() }
}

/// A number that has to fit.
fn number<T: TryFrom<i64>>(field: &'static str, value: i64) -> Result<T> {
    T::try_from(value).map_err(|_| invalid(field, &value))
}

/// A number that the protocol has no room for is as large as it can be.
fn signed(value: u64) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}

/// Nanoseconds since 1970; any number of them is within what a timestamp can say.
fn timestamp(nanoseconds: i64) -> Timestamp {
    Timestamp::from_nanosecond(nanoseconds.into()).unwrap_or_default()
}

/// The other way round; the protocol's end is in the year 2262.
pub(crate) fn nanoseconds(at: Timestamp) -> i64 {
    i64::try_from(at.as_nanosecond()).unwrap_or(i64::MAX)
}
