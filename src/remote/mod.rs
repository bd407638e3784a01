//! The ways to a host: the user's own OpenSSH, or a process on this machine. Both start the agent with `push` and hand back a `Link`.

pub mod local;
pub mod push;

pub use push::{Agent, Agents};
