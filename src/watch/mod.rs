//! What goes on by itself: hosts are brought back to what git says without anybody asking.
//!
//! - [`recovery`]: hosts that are away or fail, and when they are tried again.

pub mod recovery;
