//! The agent's end of the channel: one thread reads frames and sorts them, one keeps saying that the agent is there, and the worker
//! answers. Everything that comes in is input: what makes no sense ends the session with an error and nothing else.

use std::io::{Read, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, TrySendError, sync_channel};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, Weak};
use std::thread::Thread;
use std::time::{Duration, Instant};

use rustix::event::{EventfdFlags, eventfd};

use super::protocol::{Body, Frame, HEARTBEAT, MAGIC, Message, encode, read_frame, skip_to_magic};
use super::stuck::Watch;
use crate::diagnostic::{Code, Diagnostic, Result};
use crate::plan::Hash;
use crate::system::{Contents, Fetch};

/// Requests that may wait while one is served.
const QUEUE: usize = 16;
/// Pieces of contents that may wait to be written down.
const PIECES: usize = 16;
/// What may stand before the controller's magic.
const NOISE: usize = 1 << 16;
/// A content of this size or more goes to the disk as it comes.
const LARGE: u64 = 4 << 20;
/// How long the controller may take for the next piece.
const PATIENCE: Duration = Duration::from_secs(300);

/// What the threads share.
pub struct Wire {
    out: Mutex<Box<dyn Write + Send>>,
    /// The stream of the request that is served now; 0: none.
    current: AtomicU32,
    /// A stream that was cancelled before its turn came.
    early: AtomicU32,
    /// Stop before the next state.
    cancelled: Arc<AtomicBool>,
    /// End the command that runs, now.
    kill: Arc<AtomicBool>,
    /// The controller has gone, or speaks nonsense.
    gone: AtomicBool,
    /// A command stops with the session where it is all that the session is for.
    ends_with_session: AtomicBool,
    /// When the controller was last heard and how long it may be silent, while a run is under way that can cut the connection.
    contact: Mutex<Option<(Instant, Duration)>>,
    /// Where contents go, while somebody waits for them.
    arrivals: Mutex<Option<SyncSender<Arrival>>>,
    /// Rung when a request comes, for who waits for something else too.
    bell: Mutex<Option<Arc<OwnedFd>>>,
    /// The thread that says that a busy agent is there: it rests while nothing is served.
    heart: OnceLock<Thread>,
}

/// Rings at requests that come, and at the end of the session.
pub struct Bell<'w> {
    wire: &'w Wire,
    fd: Arc<OwnedFd>,
}

impl Bell<'_> {
    pub fn fd(&self) -> BorrowedFd<'_> {
        (*self.fd).as_fd()
    }

    pub fn hush(&self) {
        let _ = rustix::io::read(&*self.fd, &mut [0; 8]);
    }
}

impl Drop for Bell<'_> {
    fn drop(&mut self) {
        locked(&self.wire.bell).take();
    }
}

impl Drop for Wire {
    fn drop(&mut self) {
        self.wake_heart();
    }
}

/// What the controller sends when contents are asked for.
enum Arrival {
    Begin { hash: Hash, size: u64 },
    Piece(Vec<u8>),
    None { hash: Hash, reason: String },
}

impl Wire {
    pub fn new(out: Box<dyn Write + Send>, cancelled: Arc<AtomicBool>, kill: Arc<AtomicBool>) -> Arc<Wire> {
        Arc::new(Wire {
            out: Mutex::new(out),
            current: AtomicU32::new(0),
            early: AtomicU32::new(0),
            cancelled,
            kill,
            gone: AtomicBool::new(false),
            ends_with_session: AtomicBool::new(false),
            contact: Mutex::new(None),
            arrivals: Mutex::new(None),
            bell: Mutex::new(None),
            heart: OnceLock::new(),
        })
    }

    /// A bell that rings from now on. What has come before has to be looked for.
    pub fn bell(&self) -> Result<Bell<'_>> {
        let flags = EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK;
        let fd = Arc::new(eventfd(0, flags).map_err(|e| Diagnostic::io("wait for requests", &e.into()))?);
        *locked(&self.bell) = Some(fd.clone());
        self.ring();
        Ok(Bell { wire: self, fd })
    }

    fn ring(&self) {
        if let Some(fd) = &*locked(&self.bell) {
            let _ = rustix::io::write(&**fd, &1u64.to_ne_bytes());
        }
    }

    fn wake_heart(&self) {
        if let Some(heart) = self.heart.get() {
            heart.unpark();
        }
    }

    /// Says something. Nobody may be there to hear it: a run goes on to its next state, and its journal tells the rest.
    pub fn say(&self, stream: u32, body: Body) {
        let message = Message { stream, body };
        let frame = encode(&message).or_else(|e| {
            encode(&Message { stream, body: Body::Failed(Diagnostic::new(Code::Failed, format!("the host's answer cannot be sent: {e}"))) })
        });
        if let Ok(frame) = frame {
            let mut out = locked(&self.out);
            let _ = out.write_all(&frame).and_then(|()| out.flush());
        }
    }

    pub fn write_magic(&self) -> std::io::Result<()> {
        let mut out = locked(&self.out);
        out.write_all(MAGIC).and_then(|()| out.flush())
    }

    /// A request is being served from now on; a command alone (`ends_with_session`) is not worth finishing for nobody.
    pub fn begin(&self, stream: u32, ends_with_session: bool) {
        self.ends_with_session.store(ends_with_session, Ordering::SeqCst);
        self.cancelled.store(false, Ordering::SeqCst);
        self.kill.store(false, Ordering::SeqCst);
        self.current.store(stream, Ordering::SeqCst);
        self.wake_heart();
        // Looked at behind that, so that what came in between is not lost.
        if self.gone.load(Ordering::SeqCst) {
            self.stop();
        } else if self.early.swap(0, Ordering::SeqCst) == stream {
            self.cancel(stream);
        }
    }

    /// From now on the controller has to be heard from time to time, or what is under way is ended; `None`: not any more.
    pub fn expect_contact(&self, patience: Option<Duration>) {
        *locked(&self.contact) = patience.map(|patience| (Instant::now(), patience));
    }

    /// The connection may have been cut without anybody being told.
    fn mind_contact(&self) {
        if locked(&self.contact).is_some_and(|(heard, patience)| heard.elapsed() > patience) {
            self.cancelled.store(true, Ordering::SeqCst);
            self.kill.store(true, Ordering::SeqCst);
        }
    }

    /// Nobody is there any more: a run ends at its next state, a command now.
    fn stop(&self) {
        self.cancelled.store(true, Ordering::SeqCst);
        if self.ends_with_session.load(Ordering::SeqCst) {
            self.kill.store(true, Ordering::SeqCst);
        }
    }

    pub fn end(&self) {
        self.current.store(0, Ordering::SeqCst);
    }

    /// Reads from the controller until there is nothing more, and gives requests on to the worker.
    pub fn listen(&self, input: &mut impl Read, requests: SyncSender<Message>) {
        let end = match skip_to_magic(input, NOISE) {
            Ok((_, true)) => self.sort(input, &requests),
            // Nobody there, or something that is no controller: nothing to say to it.
            _ => Ok(()),
        };
        if let Err(error) = end {
            self.say(0, Body::Failed(*error));
        }
        self.gone.store(true, Ordering::SeqCst);
        self.stop();
        locked(&self.arrivals).take();
        drop(requests);
        self.ring();
    }

    fn sort(&self, input: &mut impl Read, requests: &SyncSender<Message>) -> Result<()> {
        while let Some(frame) = read_frame(input)? {
            if let Some((heard, _)) = &mut *locked(&self.contact) {
                *heard = Instant::now();
            }
            let message = match frame {
                Frame::Bytes(piece) => {
                    self.arrived(Arrival::Piece(piece));
                    continue;
                }
                Frame::Message(message) => message,
            };
            match message.body {
                Body::Content { hash, size } => self.arrived(Arrival::Begin { hash, size }),
                Body::NoContent { hash, reason } => self.arrived(Arrival::None { hash, reason }),
                Body::Cancel => self.cancel(message.stream),
                Body::Alive => {}
                _ => match requests.try_send(message) {
                    Ok(()) => self.ring(),
                    Err(TrySendError::Full(message)) => {
                        let why = Diagnostic::new(Code::Failed, "the host has too many requests waiting");
                        self.say(message.stream, Body::Failed(why));
                    }
                    Err(TrySendError::Disconnected(_)) => return Ok(()),
                },
            }
        }
        Ok(())
    }

    /// Asked once, it stops at the next state; asked twice, what runs is ended too.
    fn cancel(&self, stream: u32) {
        if stream != self.current.load(Ordering::SeqCst) {
            self.early.store(stream, Ordering::SeqCst);
        }
        if stream == self.current.load(Ordering::SeqCst) && stream != 0 {
            let again = self.cancelled.swap(true, Ordering::SeqCst);
            if again || self.ends_with_session.load(Ordering::SeqCst) {
                self.kill.store(true, Ordering::SeqCst);
            }
        }
    }

    /// Hands it to who waits. A content nobody has asked for is dropped.
    fn arrived(&self, arrival: Arrival) {
        let waiting = locked(&self.arrivals).clone();
        if let Some(waiting) = waiting {
            let _ = waiting.send(arrival);
        }
    }

    /// Says now and then that a busy agent is still there, as long as there is a session.
    /// One that hangs in a call of the system is given up: nothing else would end it.
    pub fn beat(session: &Weak<Wire>, mut worker: Watch) {
        if let Some(wire) = session.upgrade() {
            let _ = wire.heart.set(std::thread::current());
        }
        loop {
            std::thread::sleep(HEARTBEAT);
            let Some(wire) = session.upgrade() else { return };
            wire.mind_contact();
            let stream = wire.current.load(Ordering::SeqCst);
            match if stream == 0 { None } else { worker.hangs() } {
                Some(fault) => {
                    wire.say(stream, Body::Failed(fault));
                    #[expect(clippy::disallowed_methods, reason = "the worker never comes back, and with it goes the lock")]
                    std::process::exit(1);
                }
                None if stream == 0 => {
                    worker.rests();
                    drop(wire);
                    std::thread::park();
                }
                None => wire.say(stream, Body::Alive),
            }
        }
    }
}

/// Asks the controller for contents.
pub struct FromController(pub Arc<Wire>);

impl Fetch for FromController {
    fn fetch(&mut self, hashes: &[Hash], contents: &Contents) -> Result<()> {
        let wire = &self.0;
        if wire.gone.load(Ordering::SeqCst) {
            return Err(lost());
        }
        let (send, receive) = sync_channel(PIECES);
        *locked(&wire.arrivals) = Some(send);
        wire.say(wire.current.load(Ordering::SeqCst), Body::Need { hashes: hashes.to_vec() });
        let result = self.receive(hashes, contents, &receive);
        locked(&wire.arrivals).take();
        result
    }
}

impl FromController {
    fn receive(&self, hashes: &[Hash], contents: &Contents, arrivals: &Receiver<Arrival>) -> Result<()> {
        let mut waiting: Vec<&Hash> = hashes.iter().collect();
        let mut refused = None;
        while !waiting.is_empty() {
            match self.next(arrivals)? {
                Arrival::Begin { hash, size } => {
                    self.one(&hash, size, contents, arrivals)?;
                    waiting.retain(|h| **h != hash);
                }
                Arrival::None { hash, reason } => {
                    waiting.retain(|h| **h != hash);
                    refused.get_or_insert((hash, reason));
                }
                Arrival::Piece(_) => return Err(damaged("bytes came that were not announced")),
            }
        }
        match refused {
            Some((hash, reason)) => {
                Err(Diagnostic::new(Code::Failed, format!("the controller does not have the content {hash}")).detail(reason).into())
            }
            None => Ok(()),
        }
    }

    /// One announced content.
    fn one(&self, hash: &Hash, size: u64, contents: &Contents, arrivals: &Receiver<Arrival>) -> Result<()> {
        let mut left = size;
        let mut spooled = if size >= LARGE { contents.spool().ok() } else { None };
        let mut bytes = Vec::new();
        while left > 0 {
            let Arrival::Piece(piece) = self.next(arrivals)? else { return Err(damaged("a content ended before its end")) };
            left = left.checked_sub(piece.len() as u64).ok_or_else(|| damaged("a content is longer than announced"))?;
            match &mut spooled {
                Some(spooled) => spooled.write(&piece)?,
                None => bytes.extend_from_slice(&piece),
            }
        }
        match spooled {
            Some(spooled) => contents.spooled(spooled, hash),
            None if Hash::of(&bytes) == *hash => {
                contents.add(bytes);
                Ok(())
            }
            None => Err(damaged(format!("a content is not what it was announced as ({hash})"))),
        }
    }

    fn next(&self, arrivals: &Receiver<Arrival>) -> Result<Arrival> {
        let begun = Instant::now();
        loop {
            match arrivals.recv_timeout(Duration::from_millis(100)) {
                Ok(arrival) => return Ok(arrival),
                Err(RecvTimeoutError::Disconnected) => return Err(lost()),
                Err(RecvTimeoutError::Timeout) if self.0.cancelled.load(Ordering::SeqCst) => {
                    return Err(Diagnostic::new(Code::Interrupted, "stopped while contents were under way").into());
                }
                Err(RecvTimeoutError::Timeout) if begun.elapsed() > PATIENCE => return Err(lost()),
                Err(RecvTimeoutError::Timeout) => {}
            }
        }
    }
}

fn lost() -> crate::diagnostic::Error {
    Diagnostic::new(Code::Interrupted, "the controller went away while contents were under way").into()
}

fn damaged(why: impl std::fmt::Display) -> crate::diagnostic::Error {
    Diagnostic::new(Code::Damaged, format!("the conversation with the controller broke: {why}")).into()
}

/// A thread that panicked while it held the lock has not left half a frame: frames are written whole.
fn locked<T: ?Sized>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Standard output without the buffer and the lock of `std::io::stdout`.
pub fn standard_output() -> std::io::Result<Box<dyn Write + Send>> {
    Ok(Box::new(std::fs::File::from(std::io::stdout().as_fd().try_clone_to_owned()?)))
}

/// A queue for requests, as `listen` wants it.
pub fn queue() -> (SyncSender<Message>, Receiver<Message>) {
    sync_channel(QUEUE)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::system::{HostExec, System};
    use std::os::unix::net::UnixStream;

    /// Asks for two contents over a real pair of sockets; `answer` is all that the controller says.
    fn ask(answer: impl FnOnce(&mut UnixStream) + Send) -> (Result<()>, bool) {
        let root = tempfile::tempdir().unwrap();
        let sys = System::at(root.path(), Box::new(HostExec::new(root.path(), Arc::default())));
        let (mut ours, theirs) = UnixStream::pair().unwrap();
        let wire = Wire::new(Box::new(theirs.try_clone().unwrap()), sys.cancel_flag(), Arc::default());
        let listener = wire.clone();
        let thread = std::thread::spawn(move || listener.listen(&mut std::io::BufReader::new(theirs), queue().0));
        wire.begin(3, false);
        sys.contents().fetch_from(Box::new(FromController(wire.clone())));
        let wanted = [Hash::of(b"one"), Hash::of(&large())];
        std::thread::scope(|scope| {
            scope.spawn(move || {
                ours.write_all(MAGIC).unwrap();
                let asked = read_frame(&mut ours).unwrap();
                assert!(matches!(asked, Some(Frame::Message(Message { stream: 3, body: Body::Need { hashes } })) if hashes.len() == 2));
                answer(&mut ours);
            });
            let result = sys.contents().fetch(&wanted);
            let there = wanted.iter().all(|hash| sys.contents().bytes(hash).is_ok_and(|bytes| Hash::of(&bytes) == *hash));
            drop(sys);
            let _ = thread.join();
            (result, there)
        })
    }

    fn large() -> Vec<u8> {
        (0..5u32 << 20).map(|n| (n % 251) as u8).collect()
    }

    fn send(to: &mut UnixStream, hash: Hash, size: u64, pieces: &[&[u8]]) {
        to.write_all(&encode(&Message { stream: 3, body: Body::Content { hash, size } }).unwrap()).unwrap();
        for piece in pieces {
            // Whoever gets nonsense stops listening.
            let _ = super::super::protocol::write_bytes(to, 3, piece);
        }
    }

    #[test]
    fn contents_come_in_one_exchange_small_and_large() {
        let (result, there) = ask(|to| {
            let large = large();
            let pieces: Vec<&[u8]> = large.chunks(256 << 10).collect();
            send(to, Hash::of(&large), large.len() as u64, &pieces);
            send(to, Hash::of(b"one"), 3, &[b"o", b"ne"]);
        });
        assert!(result.is_ok() && there, "{result:?}");
    }

    #[test]
    fn false_contents_are_refused() {
        let damaged = |answer: fn(&mut UnixStream)| assert_eq!(ask(answer).0.unwrap_err().code, Code::Damaged);
        damaged(|to| send(to, Hash::of(b"one"), 3, &[b"two"]));
        damaged(|to| send(to, Hash::of(b"one"), 3, &[b"longer"]));
        damaged(|to| {
            send(to, Hash::of(b"one"), 3, &[b"o"]);
            send(to, Hash::of(b"one"), 3, &[]);
        });
        damaged(|to| super::super::protocol::write_bytes(to, 3, b"unannounced").unwrap());
    }

    #[test]
    fn a_cancel_counts_for_its_own_request_only_and_twice_for_more() {
        let (cancelled, kill) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicBool::new(false)));
        let wire = Wire::new(Box::new(std::io::sink()), cancelled.clone(), kill.clone());
        let state = || (cancelled.load(Ordering::SeqCst), kill.load(Ordering::SeqCst));
        wire.begin(1, false);
        wire.cancel(2);
        assert_eq!(state(), (false, false));
        wire.cancel(1);
        assert_eq!(state(), (true, false));
        wire.cancel(1);
        assert_eq!(state(), (true, true));
        wire.end();
        wire.begin(2, false);
        assert_eq!(state(), (true, false));
        wire.begin(3, true);
        assert_eq!(state(), (false, false));
        wire.listen(&mut &b""[..], queue().0);
        assert_eq!(state(), (true, true));
        wire.begin(4, false);
        assert_eq!(state(), (true, false));
    }

    #[test]
    fn a_controller_that_goes_or_has_nothing_is_an_error() {
        assert_eq!(ask(|_| {}).0.unwrap_err().code, Code::Interrupted);
        let none = |hash| Message { stream: 3, body: Body::NoContent { hash, reason: "the file is gone".into() } };
        let (result, _) = ask(|to| {
            to.write_all(&encode(&none(Hash::of(b"one"))).unwrap()).unwrap();
            to.write_all(&encode(&none(Hash::of(&large()))).unwrap()).unwrap();
        });
        let error = result.unwrap_err();
        assert_eq!((error.code, error.detail.as_str()), (Code::Failed, "the file is gone"));
    }
}
