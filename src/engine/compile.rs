//! What the engine wants of the compiler, host by host: lows, the contents they name, the calls only the host can answer.

use std::sync::Arc;

use super::session::Blobs;
use crate::agent::protocol::{Answer, Call};
use crate::diagnostic::Diagnostic;
use crate::plan::Low;
use crate::value::Map;

/// What a host is to be.
#[derive(Default)]
pub struct Wanted {
    pub lows: Vec<Low>,
    pub blobs: Blobs,
    /// Texts that must not be shown anywhere.
    pub secrets: Vec<String>,
    /// Calls that stood in templates and were not among the answers: ask them and compile again.
    pub missing: Vec<Call>,
}

/// Calls that the host has answered.
pub type Answers = Vec<(Call, Answer)>;

/// What a compile gave, and the calls that are to be answered first; it counts for nothing while there are any.
pub type Attempt<T> = (Result<T, Vec<Diagnostic>>, Vec<Call>);

/// Compiles the tree of this command for one host. Pure: the same grains and answers give the same lows.
pub trait Compile: Send + Sync {
    fn compile(&self, id: &str, grains: &Map, answers: &Answers) -> Result<Wanted, Vec<Diagnostic>>;

    /// A host's pillar alone.
    fn pillar(&self, id: &str, grains: &Map, answers: &Answers) -> Attempt<Map>;
}

pub type Compiler = Arc<dyn Compile>;
