//! What a command in the lab said, and one that still runs.

use std::os::unix::process::ExitStatusExt;
use std::process::{Child, Command, Stdio};

/// What a finished command left. The checks give themselves back, so they chain.
#[derive(Debug, Clone)]
pub struct Output {
    /// The exit code; none when a signal ended it.
    pub code: Option<i32>,
    pub signal: Option<i32>,
    pub stdout: String,
    pub stderr: String,
    what: String,
}

impl Output {
    pub(crate) fn new(what: String, output: std::process::Output) -> Output {
        let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
        let (code, signal) = (output.status.code(), output.status.signal());
        Output { code, signal, stdout: text(output.stdout), stderr: text(output.stderr), what }
    }

    #[track_caller]
    pub fn ok(self) -> Output {
        self.code(0)
    }

    /// The exit code must be this one.
    #[track_caller]
    pub fn code(self, code: i32) -> Output {
        assert!(self.code == Some(code), "expected exit code {code}\n{self}");
        self
    }

    /// Standard output must contain this.
    #[track_caller]
    pub fn says(self, text: &str) -> Output {
        assert!(self.stdout.contains(text), "standard output does not contain {text:?}\n{self}");
        self
    }

    /// Standard error must contain this.
    #[track_caller]
    pub fn complains(self, text: &str) -> Output {
        assert!(self.stderr.contains(text), "standard error does not contain {text:?}\n{self}");
        self
    }
}

impl std::fmt::Display for Output {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Output { what, code, signal, stdout, stderr } = self;
        write!(f, "$ {what}\nexit code {code:?}, signal {signal:?}\n--- stdout\n{stdout}\n--- stderr\n{stderr}\n---")
    }
}

/// A program on the controller that was started and not waited for. Dropped, it is killed.
pub struct Running {
    what: String,
    child: Option<Child>,
    pid: u32,
}

impl Running {
    pub(crate) fn spawn(mut command: Command) -> Running {
        // The words after nsenter's and the shell's own: the program and its arguments.
        let words: Vec<String> = command.get_args().skip_while(|a| *a != "sh").map(|a| a.to_string_lossy().into_owned()).skip(5).collect();
        let child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("nsenter starts");
        // nsenter stays outside and waits; the program itself is its child, and may be gone already.
        let pid = (0..200)
            .find_map(|_| {
                std::thread::sleep(std::time::Duration::from_millis(1));
                super::host::children(child.id()).first().copied()
            })
            .unwrap_or_default();
        Running { what: words.join(" "), child: Some(child), pid }
    }

    /// The program's own process number, as the test sees it; 0 when it had ended before anyone could look.
    pub fn pid(&self) -> u32 {
        self.pid
    }

    pub fn signal(&self, signal: rustix::process::Signal) {
        super::host::signal(self.pid, signal);
    }

    /// Its standard output, to be read while it runs.
    pub fn stdout(&mut self) -> std::process::ChildStdout {
        self.child.as_mut().and_then(|child| child.stdout.take()).expect("standard output, once")
    }

    pub fn wait(mut self) -> Output {
        let output = self.child.take().unwrap().wait_with_output().unwrap();
        Output::new(std::mem::take(&mut self.what), output)
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if let Some(mut child) = self.child.take() {
            if self.pid != 0 {
                super::host::signal(self.pid, rustix::process::Signal::KILL);
            }
            let _ = child.wait();
        }
    }
}
