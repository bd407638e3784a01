//! Answers what ssh asks: basalt itself is the program that ssh starts as SSH_ASKPASS.
//!
//! The helper passes ssh's question on over a socket in a private directory and prints the answer. So a secret is in no argument, no
//! environment and no file, and ssh never asks at the terminal: what is not a question for a known secret is refused, and remembered for the
//! error message. Unknown host keys are such questions; their fingerprint stands in them.

use std::ffi::OsStr;
use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::{Arc, Mutex, PoisonError};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{UnixListener, UnixStream};

use crate::fleet::Secret;

/// Names the socket for the helper.
pub const SOCKET: &str = "BASALT_ASKPASS";

/// When this process was started by ssh to ask something: does that, and gives the exit code. To be called before anything else.
pub fn as_helper() -> Option<ExitCode> {
    let socket = std::env::var_os(SOCKET)?;
    let question = std::env::args_os().nth(1).unwrap_or_default();
    let answered = answer_of(&socket, &question)
        .is_ok_and(|answer| !answer.is_empty() && std::io::stdout().write_all(&answer).and_then(|()| std::io::stdout().flush()).is_ok());
    Some(if answered { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn answer_of(socket: &OsStr, question: &OsStr) -> std::io::Result<Vec<u8>> {
    let mut stream = std::os::unix::net::UnixStream::connect(socket)?;
    stream.write_all(question.as_encoded_bytes())?;
    stream.shutdown(std::net::Shutdown::Write)?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer)?;
    Ok(answer)
}

/// The other end of the helper, for one login.
pub struct Answers {
    socket: PathBuf,
    asked: Arc<Mutex<Vec<String>>>,
    serving: tokio::task::JoinHandle<()>,
}

impl Answers {
    pub fn serve(socket: PathBuf, password: Option<Secret>, key_password: Option<Secret>) -> std::io::Result<Answers> {
        // One may be left of a process that was killed and had our number.
        let _ = std::fs::remove_file(&socket);
        let listener = UnixListener::bind(&socket)?;
        let asked = Arc::new(Mutex::new(Vec::new()));
        let serving = tokio::spawn(answer_all(listener, asked.clone(), password, key_password));
        Ok(Answers { socket, asked, serving })
    }

    pub fn socket(&self) -> &Path {
        &self.socket
    }

    /// What was asked.
    pub fn asked(&self) -> Vec<String> {
        self.asked.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl Drop for Answers {
    fn drop(&mut self) {
        self.serving.abort();
        let _ = std::fs::remove_file(&self.socket);
    }
}

async fn answer_all(
    listener: UnixListener,
    asked: Arc<Mutex<Vec<String>>>,
    mut password: Option<Secret>,
    mut key_password: Option<Secret>,
) {
    let me = rustix::process::getuid().as_raw();
    while let Ok((mut stream, _)) = listener.accept().await {
        if stream.peer_cred().is_ok_and(|peer| peer.uid() == me || peer.uid() == 0)
            && let Some(question) = question(&mut stream).await
        {
            // Each is given once: who asks again did not like it.
            let answer = match kind(&question) {
                Kind::Passphrase => key_password.take(),
                Kind::Password => password.take(),
                Kind::Other => None,
            };
            asked.lock().unwrap_or_else(PoisonError::into_inner).push(question);
            if let Some(Secret(answer)) = answer {
                let _ = stream.write_all(format!("{answer}\n").as_bytes()).await;
            }
        }
    }
}

async fn question(stream: &mut UnixStream) -> Option<String> {
    let mut text = Vec::new();
    stream.take(16 << 10).read_to_end(&mut text).await.ok()?;
    Some(String::from_utf8_lossy(&text).into_owned())
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Passphrase,
    Password,
    Other,
}

pub fn kind(question: &str) -> Kind {
    let lower = question.to_lowercase();
    if lower.contains("(yes/no") || lower.contains("authenticity of host") {
        Kind::Other
    } else if lower.contains("passphrase") {
        Kind::Passphrase
    } else if lower.contains("password") {
        Kind::Password
    } else {
        Kind::Other
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn questions_are_told_apart() {
        assert_eq!(kind("Enter passphrase for key '/root/.ssh/id_ed25519': "), Kind::Passphrase);
        assert_eq!(kind("me@host's password: "), Kind::Password);
        assert_eq!(kind("(me@host) Password: "), Kind::Password);
        assert_eq!(kind("The authenticity of host 'password' can't be established.\nAre you sure (yes/no/[fingerprint])? "), Kind::Other);
        assert_eq!(kind("Enter PIN for authenticator: "), Kind::Other);
    }

    #[tokio::test]
    async fn a_secret_is_given_once_and_what_is_asked_is_remembered() {
        let dir = tempfile::tempdir().unwrap();
        let socket = dir.path().join("s");
        let answers = Answers::serve(socket.clone(), Some(Secret("geheim".into())), None).unwrap();
        let mut got = Vec::new();
        for question in ["yes or no (yes/no)?", "me@h's password: ", "me@h's password: "] {
            let path = socket.clone();
            got.push(tokio::task::spawn_blocking(move || answer_of(path.as_os_str(), question.as_ref()).unwrap()).await.unwrap());
        }
        assert_eq!(got, [b"".to_vec(), b"geheim\n".to_vec(), b"".to_vec()]);
        assert_eq!(answers.asked().len(), 3);
        drop(answers);
        assert!(!socket.exists());
    }
}
