//! What a journal must know and not say: commands and attributes with a secret in them stand in the run's keep, as the contents of files do,
//! and the journal has their hash.

use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::diagnostic::{Code, Diagnostic, Result};
use crate::plan::Hash;
use crate::secret::Mask;
use crate::system::journal::Noted;
use crate::system::{Command, System};
use crate::value::Attrs;

/// A command for the journal of this run; one that nobody will run again (`needed`) is not kept.
pub fn command(sys: &System, command: &Command, mask: &Mask, needed: bool) -> Result<Noted> {
    let stdin = String::from_utf8_lossy(&command.stdin);
    let texts = command.argv.iter().chain(command.env.iter().flat_map(|(name, value)| [name, value])).chain(&command.cwd);
    if !mask.holds_secret(&stdin) && !texts.into_iter().any(|text| mask.holds_secret(text)) {
        return Ok(Noted::Plain(command.clone()));
    }
    let argv: Vec<String> = command.argv.iter().map(|text| mask.text(text)).collect();
    if !needed {
        return Ok(Noted::Plain(Command { argv, ..Command::default() }));
    }
    Ok(Noted::Kept { kept: write(sys, command)?, shown: argv.join(" ") })
}

/// The command itself, wherever it is.
pub fn command_of(sys: &System, noted: &Noted) -> Result<Command> {
    match noted {
        Noted::Plain(command) => Ok(command.clone()),
        Noted::Kept { kept, .. } => read(sys, kept),
    }
}

/// The same command for the journal of another run, which has a keep of its own.
pub fn command_again(sys: &System, noted: &Noted) -> Result<Noted> {
    match noted {
        Noted::Plain(_) => Ok(noted.clone()),
        Noted::Kept { kept, shown } => Ok(Noted::Kept { kept: sys.keep_bytes(&sys.contents().bytes(kept)?)?, shown: shown.clone() }),
    }
}

pub fn attrs(sys: &System, attrs: &Attrs) -> Result<Hash> {
    write(sys, attrs)
}

pub fn attrs_of(sys: &System, kept: &Hash) -> Result<Attrs> {
    read(sys, kept)
}

fn write(sys: &System, thing: &impl Serialize) -> Result<Hash> {
    let json =
        serde_json::to_vec(thing).map_err(|e| Diagnostic::new(Code::Internal, format!("it cannot be written into the keep: {e}")))?;
    sys.keep_bytes(&json)
}

fn read<T: DeserializeOwned>(sys: &System, kept: &Hash) -> Result<T> {
    let read = |bytes: &[u8]| serde_json::from_slice(bytes);
    read(&sys.contents().bytes(kept)?).map_err(|e| Diagnostic::new(Code::Damaged, format!("{kept} in the keep cannot be read: {e}")).into())
}
