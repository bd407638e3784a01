//! How a machine that nobody knows becomes a node: over TLS, by a token that is shown once, or by a yes at the controller.
//!
//! ```text
//! joiner                                   controller
//!   Register {token, facts, host keys} ──►   the token holds, the name is free: Welcome {ticket, ssh key}
//!   installs the key for root                (without a token: Pending {ticket}; asks again until somebody accepts)
//!   Ready {ticket} ──────────────────────►   over ssh with the host keys that it was told: plan, commit, apply
//!                         Joined {role} ◄─   or Failed {why}: the commit and everything else taken back
//! ```
//!
//! Both ends know each other: the token names the controller's key, so nobody in between can be it, and the machine's host keys come over that
//! connection, so the ssh that follows asks nobody. What comes in is checked in [`message`] before anything is made of it.
//!
//! - [`token`]: tokens, and what the store keeps of them.
//! - [`wire`]: TLS with bare keys, one question and one answer a connection.
//! - [`message`]: what is asked and answered.
//! - [`desk`]: what the controller makes of it.
//! - [`discover`]: finding a controller without knowing its address.
//! - [`check`]: what a machine must have before it becomes a node.
//! - [`device`]: the disks of a machine, and why one cannot be used.

pub mod check;
pub mod desk;
pub mod device;
pub mod discover;
pub mod message;
pub mod token;
pub mod wire;
