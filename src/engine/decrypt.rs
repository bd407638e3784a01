//! Decrypts with the user's own programs (gpg and its agent, age, sops) and keys: the message on standard input, no shell, a time limit.
//!
//! A message is decrypted once in a command, however many hosts use it and threads ask. Once a program has not answered in time it is not
//! asked again: whoever waits for a passphrase that nobody types does so once.

use std::collections::HashMap;
use std::io::{Read, Write};
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use super::settings::Settings;
use crate::diagnostic::{Code, Diagnostic, Result};
use crate::lang::decrypt::{Cipher, Decrypt};

/// Long enough to type a passphrase into gpg's dialogue.
const PATIENCE: u64 = 60;

/// What a message says, once somebody has asked; whoever wants it meanwhile waits.
type Said = Mutex<Option<Result<Arc<str>>>>;

pub struct Programs {
    gpg_keydir: Option<String>,
    age_identity: Vec<String>,
    patience: Duration,
    said: Mutex<HashMap<(Cipher, String), Arc<Said>>>,
    /// Why a program is not asked any more.
    hopeless: Mutex<HashMap<Cipher, Diagnostic>>,
}

impl Programs {
    pub fn new(settings: &Settings) -> Programs {
        Programs {
            gpg_keydir: settings.gpg_keydir.clone(),
            age_identity: settings.age_identity.clone().unwrap_or_default(),
            patience: Duration::from_secs(settings.decrypt_timeout.unwrap_or(PATIENCE)),
            said: Mutex::default(),
            hopeless: Mutex::default(),
        }
    }

    fn argv(&self, cipher: Cipher) -> Result<Vec<String>> {
        let words = |words: &[&str]| words.iter().map(|word| (*word).to_owned()).collect::<Vec<_>>();
        Ok(match cipher {
            Cipher::Gpg => {
                let mut argv = words(&["gpg", "--batch", "--no-tty"]);
                argv.extend(self.gpg_keydir.iter().flat_map(|dir| ["--homedir".to_owned(), at_home(dir)]));
                argv.push("--decrypt".into());
                argv
            }
            Cipher::Age if self.age_identity.is_empty() => {
                let error = Diagnostic::new(Code::Template, "a value is encrypted with age, and no identity is named to decrypt it with");
                return Err(error.hint("name its file in BASALT_AGE_IDENTITY, or as age_identity in ~/.config/basalt/config.yaml").into());
            }
            Cipher::Age => {
                let identities = self.age_identity.iter().flat_map(|file| ["-i".to_owned(), at_home(file)]);
                words(&["age", "-d"]).into_iter().chain(identities).collect()
            }
            Cipher::Sops => words(&["sops", "-d", "--input-type", "yaml", "--output-type", "yaml", "/dev/stdin"]),
        })
    }

    fn run(&self, cipher: Cipher, message: &str) -> Result<Arc<str>> {
        if let Some(why) = self.hopeless.lock().unwrap_or_else(PoisonError::into_inner).get(&cipher) {
            return Err(why.clone().into());
        }
        let name = cipher.name();
        let give_up = |why: Diagnostic| {
            self.hopeless.lock().unwrap_or_else(PoisonError::into_inner).insert(cipher, why.clone());
            Box::new(why)
        };
        let argv = self.argv(cipher)?;
        let ended = match ask(&argv, message, self.patience) {
            Ok(Some(ended)) => ended,
            Ok(None) => {
                let why = format!("{name} did not decrypt a value within {} s and was ended", self.patience.as_secs());
                return Err(give_up(Diagnostic::new(Code::Template, why).hint(match cipher {
                    Cipher::Gpg => "it may have waited for a passphrase: decrypt one such value by hand, and gpg-agent remembers it",
                    _ => "try it by hand; decrypt_timeout in basalt.yaml gives it longer",
                })));
            }
            Err(error) => {
                let why = Diagnostic::new(Code::Template, format!("a value is encrypted with {name}, and {name} cannot be run: {error}"));
                return Err(give_up(
                    why.hint(format!("install {name} on this machine: it decrypts with your keys, which basalt never sees")),
                ));
            }
        };
        let failed = |why: String| {
            let error = Diagnostic::new(Code::Template, format!("{name} cannot decrypt a value: {why}")).detail(ended.errors.trim());
            Box::new(error.hint(advice(cipher, &ended.errors)))
        };
        if !ended.success {
            return Err(failed(reason(cipher, &ended.errors)));
        }
        match String::from_utf8(ended.output) {
            Ok(text) if text.is_empty() => Err(failed("it says nothing".into())),
            Ok(text) => Ok(text.into()),
            Err(_) => Err(failed("what it says is no text".into())),
        }
    }
}

impl Decrypt for Programs {
    fn decrypt(&self, cipher: Cipher, message: &str) -> Result<Arc<str>> {
        let place = self.said.lock().unwrap_or_else(PoisonError::into_inner).entry((cipher, message.to_owned())).or_default().clone();
        let mut place = place.lock().unwrap_or_else(PoisonError::into_inner);
        place.get_or_insert_with(|| self.run(cipher, message)).clone()
    }
}

/// The line of a program that says most.
fn reason(cipher: Cipher, errors: &str) -> String {
    let lines = || errors.lines().map(|line| line.trim().trim_start_matches(&format!("{}: ", cipher.name())));
    let telling = ["public key decryption failed", "No secret key", "error:", "failed"];
    let found = telling.iter().find_map(|word| lines().find(|line| line.contains(word))).or_else(|| lines().rfind(|line| !line.is_empty()));
    found.unwrap_or("it does not say why").to_owned()
}

fn advice(cipher: Cipher, errors: &str) -> &'static str {
    let says = |words: &[&str]| words.iter().any(|word| errors.contains(word));
    match cipher {
        // The key is there, and its passphrase is not.
        Cipher::Gpg if says(&["public key decryption failed"]) => {
            "decrypt one such value by hand (gpg --decrypt), and gpg-agent remembers the passphrase"
        }
        Cipher::Gpg if says(&["No secret key"]) => {
            "the private key is not among yours: import it (gpg --import), or name its folder as gpg_keydir in the settings"
        }
        Cipher::Gpg => "what `gpg --decrypt` says of it by hand is what basalt sees",
        Cipher::Age => {
            "the identity (BASALT_AGE_IDENTITY, age_identity) must be one that the value was encrypted for, without a passphrase"
        }
        Cipher::Sops => "what `sops -d FILE` says of it by hand is what basalt sees",
    }
}

/// `~/` is the user's home.
fn at_home(path: &str) -> String {
    match (path.strip_prefix("~/"), std::env::var_os("HOME")) {
        (Some(rest), Some(home)) => PathBuf::from(home).join(rest).display().to_string(),
        _ => path.to_owned(),
    }
}

struct Ended {
    success: bool,
    output: Vec<u8>,
    errors: String,
}

/// Runs a program with the user's environment and without a terminal to ask at. `None`: it took too long and was ended.
fn ask(argv: &[String], input: &str, patience: Duration) -> std::io::Result<Option<Ended>> {
    let (program, args) = argv.split_first().ok_or(std::io::ErrorKind::NotFound)?;
    let mut command = Command::new(program);
    // Its words are read: in English, whatever the user's language is.
    command.env_remove("LC_ALL").env("LC_MESSAGES", "C");
    command.args(args).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    // SAFETY: a system call alone between fork and exec.
    unsafe { command.pre_exec(|| rustix::process::setsid().map(drop).map_err(Into::into)) };
    let mut child = command.spawn()?;
    let stdin = child.stdin.take();
    let input = input.as_bytes().to_vec();
    // One that does not want to hear it all says so itself.
    let writer = std::thread::spawn(move || stdin.map(|mut stdin| stdin.write_all(&input)));
    let (output, errors) = (reader(child.stdout.take()), reader(child.stderr.take()));
    let deadline = Instant::now() + patience;
    let mut pause = Duration::from_millis(1);
    let status = loop {
        if let Some(status) = child.try_wait()? {
            break status;
        }
        if Instant::now() >= deadline {
            end(&mut child);
            return Ok(None);
        }
        std::thread::sleep(pause);
        pause = (pause * 2).min(Duration::from_millis(20));
    };
    let _ = writer.join();
    let (output, errors) = (output.join().unwrap_or_default(), errors.join().unwrap_or_default());
    Ok(Some(Ended { success: status.success(), output, errors: String::from_utf8_lossy(&errors).into_owned() }))
}

fn reader(pipe: Option<impl Read + Send + 'static>) -> JoinHandle<Vec<u8>> {
    std::thread::spawn(move || {
        let mut bytes = Vec::new();
        if let Some(mut pipe) = pipe {
            let _ = pipe.read_to_end(&mut bytes);
        }
        bytes
    })
}

/// Ends a program with what it started.
fn end(child: &mut Child) {
    let _ = rustix::process::kill_process_group(rustix::process::Pid::from_child(child), rustix::process::Signal::KILL);
    let _ = child.wait();
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sh(script: &str) -> Vec<String> {
        ["sh", "-c", script].map(str::to_owned).to_vec()
    }

    #[test]
    fn a_program_gets_the_message_and_no_terminal() {
        let ended =
            ask(&sh("cat; ( : </dev/tty ) 2>/dev/null || echo no terminal; echo why >&2; exit 3"), "hello\n", Duration::from_secs(10));
        let ended = ended.unwrap().unwrap();
        assert_eq!((ended.success, ended.output.as_slice(), ended.errors.as_str()), (false, &b"hello\nno terminal\n"[..], "why\n"));
        // One that reads nothing of a long message.
        assert!(ask(&sh("true"), &"x".repeat(1 << 20), Duration::from_secs(10)).unwrap().unwrap().success);
        assert!(ask(&["/no/such/program".to_owned()], "", Duration::from_secs(1)).is_err());
    }

    #[test]
    fn one_that_hangs_is_ended_with_its_children() {
        let begun = Instant::now();
        assert!(ask(&sh("sleep 100 & sleep 100"), "", Duration::from_millis(100)).unwrap().is_none());
        assert!(begun.elapsed() < Duration::from_secs(3));
    }

    #[test]
    fn what_a_program_says_becomes_a_reason() {
        let gpg = "gpg: encrypted with rsa3072 key, ID 12\n      \"x <x@y>\"\ngpg: decryption failed: No secret key\n";
        assert_eq!(reason(Cipher::Gpg, gpg), "decryption failed: No secret key");
        assert_eq!(
            reason(Cipher::Age, "age: error: no identity matched any of the recipients\nage: report …"),
            "error: no identity matched any of the recipients"
        );
        assert_eq!(reason(Cipher::Sops, ""), "it does not say why");
    }
}
