//! Telling people what happened, as Event objects.
//!
//! # Guarantees
//!
//! - Nobody who tells an event waits for it to be written.
//! - What waits has bounds: while the API is away the oldest are dropped, and what is older than an
//!   hour, which is how long an API keeps events, is not written any more.
//! - The same again is counted, what resembles it too often is combined, and what never stops is left
//!   out.
//!
//! Source: `staging/src/k8s.io/client-go/tools/record`.

mod correlate;
mod queue;
mod recent;
mod record;

pub use correlate::{Correlator, Occurrence, Write};
pub use queue::EventQueue;
pub use record::record;
