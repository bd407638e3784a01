//! What goes on by itself: hosts are brought back to what git says without anybody asking.
//!
//! ```text
//! edit, commit, timer, drift, a host that comes up ─► one channel ─► what it means for each host ─► decisions ─► a task a host ─► outcome ─┐
//!                                                                             ▲                                                            │
//!                                                                             └────────────────────────────────────────────────────────────┘
//! ```
//!
//! - [`cause`]: what makes the watch look.
//! - [`decide`]: what is done about it; pure.
//! - [`run`]: the loop that has the two meet, and the tasks.
//! - [`recovery`]: hosts that are away or fail, and when they are tried again.
//! - [`up`]: where nodes that have come up say so.

pub mod cause;
pub mod decide;
pub mod recovery;
pub mod run;
pub mod up;
