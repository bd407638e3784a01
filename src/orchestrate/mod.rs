//! Orchestration: an SLS whose states are jobs over many hosts (`salt.state`, `salt.function`, …), carried out from the controller in Salt's order.
//!
//! - [`job`]: what a state of such an SLS asks for, read from its arguments.
//! - [`run`]: the jobs one after the other, as their requisites say.
//! - [`condition`]: whether a job runs at all, and whether it succeeded.
//! - [`event`]: events that are fired; [`wait`]: waiting for them.
//! - [`record`]: what the store remembers, so that a run that stopped goes on where it was, and can be taken back as one.

pub mod condition;
pub mod event;
pub mod job;
pub mod record;
pub mod run;
pub mod wait;

pub use event::Bell;
pub use job::{Job, Task, jobs};
pub use record::{Record, Standing, are_of};
pub use run::{Ground, Orchestrated, carry_out};
