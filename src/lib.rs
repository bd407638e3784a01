//! basalt: Salt's state language without Salt.
//!
//! ```text
//! git tree ─► render ─► high data ─► low chunks ─► plan ─► apply ─► journal ─► rollback
//! ```
//!
//! The crate's map, in the order in which modules may know each other (imports point to the left only; `tests/layers.rs` holds it):
//!
//! `value diagnostic secret budget yaml plan ← system ← object ← announce, monitor, function ← agent ← fleet ← lang ← engine ← remote, store ← orchestrate, enrol ← watch ← cli`
//!
//! Everything up to `agent` is also the host side (`basalt-agent`); the rest needs the feature `controller`. Its part
//! `language` alone compiles trees; it is what fuzzing builds.

pub mod agent;
pub mod announce;
#[cfg(feature = "language")]
pub mod budget;
#[cfg(feature = "controller")]
pub mod cli;
pub mod diagnostic;
#[cfg(feature = "controller")]
pub mod engine;
#[cfg(feature = "controller")]
pub mod enrol;
#[cfg(feature = "language")]
pub mod fleet;
pub mod function;
#[cfg(feature = "language")]
pub mod lang;
pub mod monitor;
pub mod object;
#[cfg(feature = "controller")]
pub mod orchestrate;
pub mod plan;
#[cfg(feature = "controller")]
pub mod remote;
pub mod secret;
#[cfg(feature = "controller")]
pub mod store;
pub mod system;
pub mod value;
#[cfg(feature = "controller")]
pub mod watch;
#[cfg(feature = "language")]
pub mod yaml;
