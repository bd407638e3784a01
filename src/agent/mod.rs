//! The host side: takes requests over standard input, plans, applies and takes back, answers over standard output.
//!
//! Upper layers know of it only the `protocol`.

mod aside;
mod brought;
pub mod call;
mod command;
pub mod condition;
pub mod diff;
mod drift;
pub mod grains;
pub mod guard;
pub mod history;
mod keep;
pub mod lock;
pub mod planner;
mod probe;
pub mod projection;
pub mod protocol;
pub mod prune;
pub mod revert;
pub mod run;
pub mod serve;
mod stuck;
pub mod wire;

#[cfg(test)]
mod files_tests;
#[cfg(test)]
mod prune_tests;
#[cfg(test)]
mod revert_tests;
#[cfg(test)]
mod tests;
