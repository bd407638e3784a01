//! Which hosts there are and which of them are meant.

pub mod cluster;
pub mod process;
pub mod role;
pub mod roster;
mod strict;
pub mod target;

pub use roster::{Host, Roster, Secret};
pub use target::{Form, Target};
