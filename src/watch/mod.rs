//! What goes on by itself: hosts are brought back to what git says without anybody asking.
//!
//! - [`recovery`]: hosts that are away or fail, and when they are tried again.
//! - [`up`]: where nodes that have come up say so.

pub mod recovery;
pub mod up;
