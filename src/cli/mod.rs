//! The command line: one short file per command over a silent library.
pub mod print;
mod progress;
