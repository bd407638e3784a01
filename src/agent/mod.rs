//! The host side: takes requests over standard input, plans, applies and takes back, answers over standard output.
//!
//! Upper layers know of it only the `protocol`.

pub mod grains;
pub mod history;
pub mod lock;
pub mod protocol;
pub mod revert;
pub mod serve;
pub mod wire;
