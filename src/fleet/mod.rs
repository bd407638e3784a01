//! Which hosts there are and which of them are meant.

pub mod roster;
pub mod target;

pub use roster::{Host, Roster, Secret};
pub use target::{Form, Target};
