//! What the engine knows of a connection: a `Connect` opens a `Link` to a host's agent, messages go out and come in.
//!
//! Whoever opens links brings a `Wire` (boxed streams, what the other side wrote to its standard error, how it ended) and finds the agent's
//! `MAGIC` on it; from there on everything about frames and deadlines is here.

use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::sync::Notify;
use tokio::time::timeout;

use crate::agent::protocol::{self, Body, Frame, HEAD, Head, Hello, MAGIC, MAX_FRAME, Message, PIECE, SILENCE, VERSION};
use crate::diagnostic::{Code, Diagnostic, Result};
use crate::fleet::Host;
use crate::plan::Hash;

/// What may come before the agent's `MAGIC`: banners and what login scripts print.
const NOISE: usize = 1 << 20;
/// How much of the other side's standard error is kept for error messages.
const ERRORS: usize = 16 << 10;
/// How long the end of a conversation is waited for.
const PARTING: Duration = Duration::from_secs(3);

pub type Opening<'a> = Pin<Box<dyn Future<Output = Result<Link>> + Send + 'a>>;

pub trait Connect: Send + Sync {
    /// Starts the agent on the host and shakes hands with it.
    fn open<'a>(&'a self, host: &'a Host) -> Opening<'a>;

    /// The same over a connection of its own, which nothing that is open already helps to come about.
    fn open_anew<'a>(&'a self, host: &'a Host) -> Opening<'a> {
        self.open(host)
    }
}

/// The last of what the other side wrote to its standard error.
#[derive(Clone, Default)]
pub struct Errors(Arc<Collected>);

#[derive(Default)]
struct Collected {
    text: Mutex<Vec<u8>>,
    more: Notify,
}

impl Errors {
    /// Collects until the stream ends.
    pub async fn collect(self, mut from: impl AsyncRead + Unpin) {
        let mut piece = [0; 4096];
        while let Ok(n @ 1..) = from.read(&mut piece).await {
            self.push(piece.get(..n).unwrap_or_default());
        }
    }

    fn push(&self, bytes: &[u8]) {
        let mut kept = self.kept();
        kept.extend_from_slice(bytes);
        let excess = kept.len().saturating_sub(ERRORS);
        kept.drain(..excess);
        self.0.more.notify_waiters();
    }

    /// Waits until `needle` has come that often.
    pub async fn seen(&self, needle: &str, times: usize) {
        loop {
            let more = self.0.more.notified();
            if self.kept().windows(needle.len().max(1)).filter(|window| *window == needle.as_bytes()).count() >= times {
                return;
            }
            more.await;
        }
    }

    pub fn text(&self) -> String {
        printable(&self.kept())
    }

    fn kept(&self) -> MutexGuard<'_, Vec<u8>> {
        self.0.text.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Text from a host, fit for a terminal: no control characters but line breaks, no blank ends.
pub fn printable(bytes: &[u8]) -> String {
    let text = String::from_utf8_lossy(bytes);
    let clean: String = text.chars().filter(|c| *c == '\n' || *c == '\t' || !c.is_control()).collect();
    clean.trim().to_owned()
}

/// Two streams to a process on a host. Dropping it ends the process (or at least its input).
pub struct Wire {
    pub input: Box<dyn AsyncWrite + Send + Unpin>,
    pub output: Box<dyn AsyncRead + Send + Unpin>,
    pub errors: Errors,
    /// Resolves when the process has ended, to the way it ended ("exit status 1").
    pub end: Pin<Box<dyn Future<Output = String> + Send>>,
    /// How long the other side may say nothing at all.
    pub silence: Duration,
    /// Came in and is not used up yet.
    buffer: Vec<u8>,
}

impl Wire {
    pub fn new(
        input: impl AsyncWrite + Send + Unpin + 'static,
        output: impl AsyncRead + Send + Unpin + 'static,
        errors: Errors,
        end: impl Future<Output = String> + Send + 'static,
    ) -> Wire {
        let (input, output, end) = (Box::new(input), Box::new(output), Box::pin(end));
        Wire { input, output, errors, end, silence: SILENCE, buffer: Vec::new() }
    }

    /// Reads on until one of the marks stands in what came; gives which one and what stood before it, and uses both up. An end of
    /// the stream or silence is an error.
    pub async fn until(&mut self, marks: &[&[u8]]) -> Result<(usize, Vec<u8>)> {
        let mut searched = 0;
        loop {
            let found = marks.iter().enumerate().filter_map(|(i, mark)| Some((find(&self.buffer, mark, searched)?, i))).min();
            if let Some((at, which)) = found {
                let length = marks.get(which).map_or(0, |mark| mark.len());
                let mut noise: Vec<u8> = self.buffer.drain(..at + length).collect();
                noise.truncate(at);
                return Ok((which, noise));
            }
            if self.buffer.len() > NOISE {
                return Err(self.broken("the host prints without end instead of starting the agent").await);
            }
            let longest = marks.iter().map(|mark| mark.len()).max().unwrap_or(0);
            searched = self.buffer.len().saturating_sub(longest);
            if !self.fill().await? {
                return Err(self.broken("the agent did not start").await);
            }
        }
    }

    /// One read into the buffer. False at the end of the stream. Loses nothing when it is dropped.
    async fn fill(&mut self) -> Result<bool> {
        self.buffer.reserve(64 << 10);
        match timeout(self.silence, self.output.read_buf(&mut self.buffer)).await {
            Ok(Ok(n)) => Ok(n > 0),
            Ok(Err(error)) => Err(self.broken(&format!("the connection broke: {error}")).await),
            Err(_) => Err(self.silent()),
        }
    }

    /// Writes all of it, and goes on reading meanwhile: two sides that only write would wait for each other for ever.
    pub async fn write(&mut self, mut bytes: &[u8]) -> Result<()> {
        while !bytes.is_empty() {
            let room = self.buffer.len() <= MAX_FRAME;
            self.buffer.reserve(4096);
            let step = timeout(self.silence, async {
                tokio::select! {
                    biased;
                    written = self.input.write(bytes) => written.map(Some),
                    read = self.output.read_buf(&mut self.buffer), if room => match read {
                        Ok(0) => Err(std::io::ErrorKind::UnexpectedEof.into()),
                        other => other.map(|_| None),
                    },
                }
            });
            match step.await {
                Ok(Ok(Some(0))) => return Err(self.broken("the connection broke").await),
                Ok(Ok(Some(written))) => bytes = bytes.get(written..).unwrap_or_default(),
                Ok(Ok(None)) => {}
                Ok(Err(error)) => return Err(self.broken(&format!("the connection broke: {error}")).await),
                Err(_) => return Err(self.silent()),
            }
        }
        match timeout(self.silence, self.input.flush()).await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(error)) => Err(self.broken(&format!("the connection broke: {error}")).await),
            Err(_) => Err(self.silent()),
        }
    }

    /// An error with all that is known of the end of the process.
    pub async fn broken(&mut self, what: &str) -> Box<Diagnostic> {
        let mut detail = Vec::new();
        if let Ok(end) = timeout(PARTING, &mut self.end).await {
            detail.push(end);
        }
        // What is left in the error stream comes a moment after the end.
        tokio::time::sleep(Duration::from_millis(20)).await;
        detail.extend([self.errors.text(), printable(self.buffer.get(..self.buffer.len().min(2000)).unwrap_or_default())]);
        detail.retain(|part| !part.is_empty());
        Diagnostic::new(Code::Unreachable, what).detail(detail.join("\n")).into()
    }

    fn silent(&self) -> Box<Diagnostic> {
        Diagnostic::new(Code::Unreachable, format!("the host has said nothing for {} s", self.silence.as_secs().max(1)))
            .detail(self.errors.text())
            .hint("it hangs, or the network between has gone; what it was doing stands in its journal (basalt runs)")
            .into()
    }
}

fn find(haystack: &[u8], needle: &[u8], from: usize) -> Option<usize> {
    let rest = haystack.get(from..)?;
    rest.windows(needle.len().max(1)).position(|window| window == needle).map(|at| at + from)
}

/// An open conversation with a host's agent.
pub struct Link {
    pub hello: Hello,
    wire: Wire,
    /// Ours goes out with the first request, so that it costs no packet of its own.
    greeted: bool,
}

impl Link {
    /// Waits for the agent's `MAGIC` and its hello.
    pub async fn greet(mut wire: Wire) -> Result<Link> {
        wire.until(&[MAGIC]).await?;
        Link::after_magic(wire).await
    }

    /// The agent's `MAGIC` was read already.
    pub async fn after_magic(mut wire: Wire) -> Result<Link> {
        let hello = match next(&mut wire).await? {
            Message { body: Body::Hello(hello), .. } => hello,
            Message { body: Body::Failed(diagnostic), .. } => return Err(diagnostic.into()),
            _ => return Err(Diagnostic::new(Code::Damaged, "the agent did not begin with its hello").into()),
        };
        if hello.protocol != VERSION {
            let what = format!("the agent speaks protocol {} (basalt {}), and this is {VERSION}", hello.protocol, hello.version);
            return Err(Diagnostic::new(Code::Unreachable, what).into());
        }
        Ok(Link { hello, wire, greeted: false })
    }

    /// Sends a message. Not to be dropped half way.
    pub async fn send(&mut self, stream: u32, body: Body) -> Result<()> {
        let frame = protocol::encode(&Message { stream, body }).map_err(|e| Diagnostic::io("encode a message", &e))?;
        self.write(&frame).await
    }

    /// Sends a content, announced and in pieces.
    pub async fn send_content(&mut self, stream: u32, hash: Hash, bytes: &[u8]) -> Result<()> {
        let announcement = Message { stream, body: Body::Content { hash, size: bytes.len() as u64 } };
        let mut out = protocol::encode(&announcement).map_err(|e| Diagnostic::io("encode a message", &e))?;
        for piece in bytes.chunks(PIECE) {
            protocol::write_bytes(&mut out, stream, piece).map_err(|e| Diagnostic::io("encode a content", &e))?;
            if out.len() >= PIECE {
                self.write(&out).await?;
                out.clear();
            }
        }
        self.write(&out).await
    }

    async fn write(&mut self, bytes: &[u8]) -> Result<()> {
        if self.greeted {
            return self.wire.write(bytes).await;
        }
        self.greeted = true;
        self.wire.write(&[MAGIC, bytes].concat()).await
    }

    /// What the agent wrote to its standard error.
    pub fn errors(&self) -> Errors {
        self.wire.errors.clone()
    }

    /// The next message that says something. Loses nothing when it is dropped half way, so it can stand in a `select!`.
    pub async fn next(&mut self) -> Result<Message> {
        next(&mut self.wire).await
    }

    /// From now on the host may say nothing for as long as it likes: whether it is still there is the transport's to find out.
    pub fn be_patient(&mut self) {
        self.wire.silence = Duration::MAX;
    }

    /// Says that nothing more will come and waits a moment for the agent to end.
    pub async fn close(mut self) {
        let _ = timeout(PARTING, self.wire.input.shutdown()).await;
        drop(std::mem::replace(&mut self.wire.input, Box::new(tokio::io::sink())));
        let _ = timeout(PARTING, &mut self.wire.end).await;
    }
}

async fn next(wire: &mut Wire) -> Result<Message> {
    loop {
        match take(&mut wire.buffer)? {
            Some(Frame::Message(Message { body: Body::Alive, .. })) => {}
            Some(Frame::Message(message)) => return Ok(message),
            Some(Frame::Bytes(_)) => return Err(Diagnostic::new(Code::Damaged, "the agent sent bytes that nobody asked for").into()),
            None => {
                if !wire.fill().await? {
                    return Err(wire.broken("the agent is gone: the connection ended in the middle").await);
                }
            }
        }
    }
}

/// The first frame of the buffer, when all of it is there.
fn take(buffer: &mut Vec<u8>) -> Result<Option<Frame>> {
    let Some(head) = buffer.first_chunk::<HEAD>() else { return Ok(None) };
    let head = Head::parse(*head)?;
    let Some(body) = buffer.get(HEAD..HEAD + head.length) else { return Ok(None) };
    let frame = head.frame(body.to_vec())?;
    buffer.drain(..HEAD + head.length);
    Ok(Some(frame))
}
