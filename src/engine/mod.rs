//! From a state repository to facts on many hosts: opens the repository, compiles for each host, plans, applies and takes back.
//!
//! The engine names neither ssh nor a store nor a clock, and prints nothing: connections come through `link::Connect`, and
//! everything worth telling goes to a `Sink` as an `Event`.

pub mod answers;
pub mod apply;
pub mod branch;
pub mod cluster;
pub mod commit;
pub mod compile;
pub mod decrypt;
pub mod difference;
pub mod download;
pub mod drift;
pub mod event;
pub mod facts;
pub mod grains;
pub mod guard;
pub mod history;
pub mod import;
pub mod link;
pub mod lone;
pub mod mine;
pub mod plan;
pub mod process;
pub mod repository;
pub mod rollback;
pub mod salt_master;
pub mod saved;
pub mod schedule;
pub mod session;
pub mod settings;
pub mod tree;
pub mod window;
