//! Which hosts there are and which of them are meant.

pub mod roster;

pub use roster::{Host, Roster, Secret};
pub mod target;
