//! A session: says hello, then serves the controller's requests one after the other until the controller goes.

use std::io::Read;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::sync::mpsc::Receiver;
use std::time::Duration;

use super::guard::{self, Guard};
use super::lock::Lock;
use super::planner::{self, Plan};
use super::protocol::{Applied, ApplyRequest, Body, CheckRequest, Hello, Message, SILENCE, VERSION};
use super::stuck::Watch;
use super::wire::{FromController, Wire, queue};
use super::{drift, grains, history, revert, run};
use crate::diagnostic::{Code, Diagnostic, Result};
use crate::plan::HostPlan;
use crate::secret::Mask;
use crate::system::{Command, HostExec, System};

/// Serves standard input and output, or a test's pipes, for the host below `root`.
pub fn serve(root: &Path, mut input: impl Read + Send + 'static, output: Box<dyn std::io::Write + Send>) -> Result<()> {
    let kill = Arc::new(AtomicBool::new(false));
    let sys = System::at(root, Box::new(HostExec::new(root, kill.clone())));
    #[cfg(debug_assertions)]
    if let Some(mutation) = std::env::var("BASALT_FAULT_KILL").ok().and_then(|n| n.parse().ok()) {
        sys.kill_at(mutation);
    }
    let wire = Wire::new(output, sys.cancel_flag(), kill);
    let (send, requests) = queue();
    // The hello is on its way before anything is waited for: it costs no round trip.
    let hello = Hello {
        protocol: VERSION,
        version: env!("CARGO_PKG_VERSION").into(),
        grains: grains::collect(&sys),
        grain_files: grains::files(&sys),
        generation: sys.generation().unwrap_or(0),
        uid: rustix::process::geteuid().as_raw(),
    };
    wire.write_magic().map_err(|e| Diagnostic::io("greet the controller", &e))?;
    wire.say(0, Body::Hello(hello));
    sys.contents().fetch_from(Box::new(FromController(wire.clone())));
    let listener = wire.clone();
    std::thread::spawn(move || listener.listen(&mut input, send));
    let heart = Arc::downgrade(&wire);
    let worker = Watch::this_thread(sys.last_place());
    std::thread::spawn(move || Wire::beat(&heart, worker));

    let mut session = Session { sys, wire: wire.clone(), kept: None, lock: None };
    let mut next = None;
    while let Some(request) = next.take().or_else(|| requests.recv().ok()) {
        let stream = request.stream;
        wire.begin(stream, matches!(request.body, Body::Exec { .. } | Body::Ask { .. }));
        let answer = match request.body {
            Body::Watch => session.watch(stream, &requests).map(|request| {
                next = request;
                None
            }),
            body => session.answer(stream, body).map(Some),
        };
        if let Some(answer) = answer.unwrap_or_else(|error| Some(Body::Failed(*error))) {
            wire.say(stream, answer);
        }
        wire.end();
    }
    Ok(())
}

/// What a session remembers from one request to the next.
struct Session {
    sys: System,
    wire: Arc<Wire>,
    kept: Option<Kept>,
    lock: Option<Lock>,
}

/// The plan that was shown last.
enum Kept {
    Plan(Box<Plan>),
    Rollback(Box<revert::Rollback>),
}

impl Kept {
    fn plan(&self) -> &HostPlan {
        match self {
            Kept::Plan(plan) => &plan.host,
            Kept::Rollback(rollback) => &rollback.plan,
        }
    }

    /// For what is told while it is carried out.
    fn mask(&self) -> Mask {
        match self {
            Kept::Plan(plan) => plan.mask.clone(),
            // What a rollback tells stands in the journals as it may be told.
            Kept::Rollback(_) => Mask::default(),
        }
    }
}

impl Session {
    fn answer(&mut self, stream: u32, request: Body) -> Result<Body> {
        match request {
            Body::Plan(request) => {
                let plan = planner::plan(&self.sys, request)?;
                let host = plan.host.clone();
                self.kept = Some(Kept::Plan(Box::new(plan)));
                Ok(Body::Planned(host))
            }
            Body::PlanRollback(request) => {
                let rollback = revert::plan(&self.sys, &request)?;
                let plan = rollback.plan.clone();
                self.kept = Some(Kept::Rollback(Box::new(rollback)));
                Ok(Body::Planned(plan))
            }
            Body::Check(request) => self.check(&request),
            Body::Apply(request) => self.apply(stream, &request).map(Body::Applied),
            Body::Confirm { run, keep } => guard::confirm(&self.sys, &run, keep).map(Body::Settled),
            Body::Runs => Ok(Body::History { runs: history::runs(&self.sys)? }),
            Body::Ask { calls, grains } => {
                Ok(Body::Answers { answers: calls.iter().map(|call| super::call::answer(&self.sys, call, &grains)).collect() })
            }
            Body::Exec { argv, shell, timeout_ms } => self.exec(stream, argv, shell, timeout_ms),
            other => Err(Diagnostic::new(Code::Damaged, format!("the controller asked for what is no request: {}", name(&other))).into()),
        }
    }

    /// Watches what the kept plan stands on, until the next request.
    fn watch(&self, stream: u32, requests: &Receiver<Message>) -> Result<Option<Message>> {
        match &self.kept {
            Some(Kept::Plan(plan)) => drift::watch(&self.sys, plan, &self.wire, stream, requests),
            _ => Err(no_plan().into()),
        }
    }

    fn check(&mut self, request: &CheckRequest) -> Result<Body> {
        let kept = self.kept.as_ref().ok_or_else(no_plan)?;
        match &mut self.lock {
            Some(lock) => lock.name(&request.run).map_err(|e| Diagnostic::io("name the lock's owner", &e))?,
            None => {
                self.lock = Some(Lock::take(&self.sys, &request.run, Duration::from_secs(request.lock_timeout))?);
                // Who holds the lock has reached the host: what an earlier guard left undone when it went is not to come back at a boot.
                guard::forget(&self.sys);
            }
        }
        let checked = match kept {
            Kept::Plan(plan) => run::check(&self.sys, plan),
            Kept::Rollback(rollback) => revert::check(&self.sys, rollback),
        };
        if checked.is_err() {
            self.lock = None;
        }
        checked.map(|()| Body::Checked).map_err(|fault| kept.mask().diagnostic(*fault).into())
    }

    fn apply(&mut self, stream: u32, request: &ApplyRequest) -> Result<Applied> {
        let Some(lock) = &self.lock else {
            return Err(Diagnostic::new(Code::Internal, "the host is not locked for this run").into());
        };
        // A plan is carried out once: what it stands on is gone afterwards.
        let kept = self.kept.take().ok_or_else(no_plan)?;
        if kept.plan().fingerprint != request.fingerprint {
            return Err(Diagnostic::new(Code::Stale, "the plan to apply is not the one this host made last").hint("plan again").into());
        }
        let guard = match request.guard.filter(|_| kept.plan().is_guarded()) {
            Some(seconds) => {
                self.wire.expect_contact(Some(SILENCE.max(Duration::from_secs(seconds))));
                Some(Guard::start(&self.sys, &request.run, seconds, lock)?)
            }
            None => None,
        };
        let wire = self.wire.clone();
        let mut tell = |body: Body| wire.say(stream, body);
        let mask = kept.mask();
        let applied = match kept {
            Kept::Plan(plan) => run::apply(&self.sys, &plan, &request.run, &mut tell),
            Kept::Rollback(rollback) => revert::apply(&self.sys, *rollback, &request.run, &mut tell),
        };
        if applied.is_err() {
            self.sys.abandon();
        }
        if let Some(guard) = guard {
            self.wire.expect_contact(None);
            if let Some(lock) = self.lock.take() {
                lock.give();
            }
            // A run that was stopped is not to be confirmed half done: its guard takes it back at once.
            match applied.is_ok() && !self.sys.cancelled() {
                true => guard.ended(),
                false => drop(guard),
            }
        }
        applied.map_err(|fault| mask.diagnostic(*fault).into())
    }

    fn exec(&mut self, stream: u32, argv: Vec<String>, shell: bool, timeout_ms: Option<u64>) -> Result<Body> {
        let argv = if shell { vec!["/bin/sh".into(), "-c".into(), argv.join(" ")] } else { argv };
        let command = Command { timeout: timeout_ms.map(Duration::from_millis), ..Command::new(argv) };
        let mut lines = Lines::default();
        let wire = &self.wire;
        let output = self.sys.run_streaming(&command, &mut |piece| {
            lines.add(piece, &mut |text| wire.say(stream, Body::Line { text, error: false }));
        })?;
        lines.rest(&mut |text| wire.say(stream, Body::Line { text, error: false }));
        if output.timed_out {
            let seconds = timeout_ms.unwrap_or_default() / 1000;
            return Err(Diagnostic::new(Code::Interrupted, format!("the command did not end within {seconds} s and was ended")).into());
        }
        Ok(Body::Exited { status: output.status })
    }
}

fn no_plan() -> Diagnostic {
    Diagnostic::new(Code::Internal, "no plan has been made in this session")
}

/// The first word of what a message is, as it stands on the wire.
fn name(body: &Body) -> String {
    let text = serde_json::to_string(body).unwrap_or_default();
    text.chars().filter(|c| !matches!(c, '{' | '"')).take_while(|c| c.is_alphanumeric() || *c == '_').collect()
}

/// Makes lines of pieces of output.
#[derive(Default)]
pub struct Lines {
    partly: Vec<u8>,
}

impl Lines {
    /// A line without an end is passed on when it is as long as this.
    const LONG: usize = 64 << 10;

    pub fn add(&mut self, piece: &[u8], line: &mut dyn FnMut(String)) {
        for part in piece.split_inclusive(|b| *b == b'\n') {
            self.partly.extend_from_slice(part);
            if part.ends_with(b"\n") || self.partly.len() >= Lines::LONG {
                self.pass(line);
            }
        }
    }

    /// What is left at the end.
    pub fn rest(&mut self, line: &mut dyn FnMut(String)) {
        if !self.partly.is_empty() {
            self.pass(line);
        }
    }

    fn pass(&mut self, line: &mut dyn FnMut(String)) {
        let text = std::mem::take(&mut self.partly);
        line(String::from_utf8_lossy(text.strip_suffix(b"\n").unwrap_or(&text)).into_owned());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::agent::protocol::{Frame, MAGIC, PlanRequest, RollbackRequest, encode, read_frame, skip_to_magic, write_bytes};
    use crate::plan::Hash;
    use std::io::{BufReader, Write};
    use std::os::unix::net::UnixStream;
    use std::thread::JoinHandle;
    use std::time::Instant;

    /// A session with an agent in a thread, on an empty root.
    struct Controller {
        _root: tempfile::TempDir,
        input: BufReader<UnixStream>,
        output: UnixStream,
        agent: JoinHandle<Result<()>>,
    }

    fn connect() -> Controller {
        let root = tempfile::tempdir().unwrap();
        let (ours, theirs) = UnixStream::pair().unwrap();
        let (place, reader, writer) = (root.path().to_owned(), theirs.try_clone().unwrap(), theirs);
        let agent = std::thread::spawn(move || serve(&place, reader, Box::new(writer)));
        Controller { _root: root, input: BufReader::new(ours.try_clone().unwrap()), output: ours, agent }
    }

    impl Controller {
        fn greet(mut self) -> Controller {
            assert!(skip_to_magic(&mut self.input, 100).unwrap().1);
            self.output.write_all(b"noise of a shell\n").unwrap();
            self.output.write_all(MAGIC).unwrap();
            assert!(matches!(self.hear(), Some(Body::Hello(hello)) if hello.generation == 0));
            self
        }

        fn say(&mut self, stream: u32, body: Body) {
            self.output.write_all(&encode(&Message { stream, body }).unwrap()).unwrap();
        }

        fn hear(&mut self) -> Option<Body> {
            match read_frame(&mut self.input) {
                Ok(None) => None,
                Ok(Some(Frame::Message(message))) => Some(message.body),
                // A socket that is closed with unread nonsense in it is reset.
                Err(error) if error.summary.contains("reset by peer") => None,
                other => panic!("{other:?}"),
            }
        }

        /// Closes our side and hears the rest; the agent must end by itself, without a panic.
        fn part(mut self) -> Vec<Body> {
            self.output.shutdown(std::net::Shutdown::Write).unwrap();
            let rest = std::iter::from_fn(|| self.hear()).collect();
            drop(self.input);
            drop(self.output);
            self.agent.join().expect("no panic").unwrap();
            rest
        }
    }

    fn exec(script: &str) -> Body {
        Body::Exec { argv: vec![script.into()], shell: true, timeout_ms: None }
    }

    #[test]
    fn requests_are_answered_in_turn() {
        let mut c = connect().greet();
        c.say(1, Body::Runs);
        c.say(2, Body::PlanRollback(RollbackRequest { run: "run-1".into(), with_later: false, destroy_data: false }));
        assert_eq!(c.hear(), Some(Body::History { runs: vec![] }));
        assert!(matches!(c.hear(), Some(Body::Failed(why)) if why.summary == "this host knows no run run-1"));
        assert_eq!(c.part(), []);
    }

    #[test]
    fn what_makes_no_sense_gets_a_clean_error() {
        let mut c = connect().greet();
        c.say(1, Body::Checked);
        assert!(matches!(c.hear(), Some(Body::Failed(why)) if why.code == Code::Damaged && why.summary.ends_with("no request: checked")));
        write_bytes(&mut c.output, 9, b"bytes for nobody").unwrap();
        c.say(9, Body::Content { hash: Hash("../../etc/passwd".into()), size: u64::MAX });
        c.say(9, Body::Cancel);
        c.say(2, Body::Runs);
        assert!(matches!(c.hear(), Some(Body::History { .. })));
        c.output.write_all(b"\xff\xff\xff\xff\0\0\0\0\0 and more").unwrap();
        assert!(matches!(&c.part()[..], [Body::Failed(why)] if why.code == Code::Damaged));
    }

    #[test]
    fn a_watch_lasts_until_the_next_request_and_tells_meanwhile() {
        let mut c = connect().greet();
        let root = c._root.path().to_owned();
        std::fs::create_dir(root.join("etc")).unwrap();
        c.say(1, Body::Watch);
        assert!(matches!(c.hear(), Some(Body::Failed(why)) if why.summary.contains("no plan")));
        let lows = crate::agent::tests::lows(r#"a file.managed {"name": "/etc/a", "contents": "x"}"#);
        let plan = || Body::Plan(PlanRequest { lows: lows.clone(), ..PlanRequest::default() });
        for round in 0..2 {
            c.say(2, plan());
            assert!(matches!(c.hear(), Some(Body::Planned(_))));
            // What happens between the plan and the watch is not lost.
            std::fs::write(root.join("etc/a"), format!("{round}")).unwrap();
            c.say(3, Body::Watch);
            assert!(matches!(c.hear(), Some(Body::Watching(watching)) if watching.watched > 0 && watching.unwatched.is_empty()));
            assert!(matches!(c.hear(), Some(Body::Drifted { touched }) if touched[0].key.name == "/etc/a"));
            std::fs::remove_file(root.join("etc/a")).unwrap();
            assert!(matches!(c.hear(), Some(Body::Drifted { touched }) if touched[0].states[0].id == "a"));
        }
        assert!(c.part().is_empty());
    }

    #[test]
    fn no_bytes_make_it_panic() {
        // A small generator: the same noise each time.
        let mut seed = 7u64;
        let mut random = move |below: usize| {
            seed = seed.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
            (seed >> 33) as usize % below
        };
        let good: Vec<u8> = [Body::Runs, Body::Cancel, Body::Content { hash: Hash::of(b"x"), size: 3 }, Body::Alive]
            .into_iter()
            .flat_map(|body| encode(&Message { stream: 1, body }).unwrap())
            .collect();
        for _ in 0..60 {
            let mut bytes = good.clone();
            for _ in 0..=random(4) {
                let at = random(bytes.len());
                bytes[at] = random(256) as u8;
            }
            bytes.truncate(random(bytes.len()) + 1);
            let mut c = connect().greet();
            // It may end the session before it has read everything.
            let _ = c.output.write_all(&bytes);
            c.part();
        }
    }

    #[test]
    fn a_command_streams_its_lines_and_ends_with_the_session() {
        let mut c = connect();
        // Below another root a command needs a chroot with a shell in it: this one runs where there is none.
        c = c.greet();
        c.say(1, exec("true"));
        assert!(matches!(c.hear(), Some(Body::Failed(why)) if why.summary.starts_with("cannot run /bin/sh")));
        let mut lines = Vec::new();
        let mut l = Lines::default();
        l.add(b"one\ntw", &mut |t| lines.push(t));
        l.add(b"o\nrest\xff", &mut |t| lines.push(t));
        l.rest(&mut |t| lines.push(t));
        assert_eq!(lines, ["one", "two", "rest\u{fffd}"]);
        let begun = Instant::now();
        c.part();
        assert!(begun.elapsed() < Duration::from_secs(3));
    }
}
