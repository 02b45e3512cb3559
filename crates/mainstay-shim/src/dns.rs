//! Names of sandboxes, asked for over DNS: what is answered, what is somebody else's to answer, and what
//! nobody gets an answer to.
//!
//! Source: RFC 1035; RFC 2308 for names that are not there; RFC 6891 for EDNS.
//!
//! Whatever is read here was written by a container or by whoever sends packets to this machine. Of a
//! question no more is read than its header, the question itself, and whether it carries EDNS; of another
//! server's answer only whether it belongs to the question. Both are passed on as they are.

mod answer;
mod fuzz;
mod message;
mod name;
mod names;
mod resolv_conf;

pub use answer::{Decision, Transport, answer};
pub use fuzz::fuzz;
pub use message::{Edns, Malformed, Question, belongs, code, failure, is_failure, with_id};
pub use name::Name;
pub use names::Names;
pub use resolv_conf::servers;

/// The port that is asked.
pub const PORT: u16 = 53;

/// The longest question that is looked at, in bytes. Real ones have less than 512.
pub const LONGEST_QUESTION: usize = 4096;
