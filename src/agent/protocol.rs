//! What controller and agent say to each other over one SSH channel.
//!
//! A channel is a stream of frames: length of the body and stream id (4 bytes each, big endian), kind (1 byte), body. Kind 0 is a message in JSON, kind 1 is a
//! piece of the content that the last `Content` message announced. Before the first frame each side may see noise (login banners,
//! what `.bashrc` prints): both start with `MAGIC` and ignore whatever comes before the other's.
//!
//! Every request carries a stream id, and everything that belongs to it carries the same id; events may come at any time.
//! A host that says nothing for `SILENCE` is lost: a busy agent sends `Alive` every `HEARTBEAT`.

use std::io::{Read, Write};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::diagnostic::{Code, Diagnostic, Result};
pub use crate::plan::RunHeader;
use crate::plan::{Hash, HostPlan, Low, Outcome, Tally};
use crate::value::{Map, Value};

/// Both sides speak the same build (the agent is found by its content hash); the number is a last line of defence.
pub const VERSION: u32 = 1;
pub const MAGIC: &[u8] = b"\n\x01basalt\x02\n";
pub const HEARTBEAT: Duration = Duration::from_secs(5);
pub const SILENCE: Duration = Duration::from_secs(30);
/// No frame is longer; a length beyond it is noise or malice.
pub const MAX_FRAME: usize = 64 << 20;
/// Contents travel in pieces of this size.
pub const PIECE: usize = 256 << 10;

#[derive(Clone, Debug, PartialEq)]
pub enum Frame {
    Message(Message),
    Bytes(Vec<u8>),
}

/// A message and the request it belongs to. Stream 0 belongs to none.
#[derive(Clone, Debug, PartialEq)]
pub struct Message {
    pub stream: u32,
    pub body: Body,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Body {
    // Requests ------------------------------------------------------------------------------------------------------------------
    /// Compare with these lows. Answered by `Planned`; the agent keeps the plan for `Check` and `Apply`.
    Plan(PlanRequest),
    /// Take the host's lock in the name of this run (held until the session ends) and read again everything the kept plan stands
    /// on. Sent to all hosts before the first is touched. Answered by `Checked`, or `Failed` with the code `locked` or `stale`.
    Check(CheckRequest),
    /// Carry the kept plan out, if its fingerprint is this one and, read once more, nothing has changed. Needs the lock of a
    /// `Check`. Answered by events, then `Applied`.
    Apply(ApplyRequest),
    /// What taking runs back would change. Answered by `Planned`; the agent keeps the plan for `Apply`.
    PlanRollback(RollbackRequest),
    /// This is a new connection: the run that waits to be confirmed is, or (`keep` false) is to be taken back at once. Answered by `Settled`,
    /// when it is clear which way that went.
    Confirm {
        run: String,
        keep: bool,
    },
    /// Tell when something is touched that the kept plan stands on. Answered by `Watching`, and by `Drifted` whenever that happens, until the
    /// next request or the end of the session. Meanwhile the agent may be silent for as long as nothing happens.
    Watch,
    /// The runs in this host's journal, newest first. Answered by `History`.
    Runs,
    /// Execution functions (`file.file_exists`, `pkg.version` …). Answered by `Answers`.
    Ask {
        calls: Vec<Call>,
        /// The grains that the controller lays over the host's own: what `grains.get` of a call sees.
        #[serde(default, skip_serializing_if = "Map::is_empty")]
        grains: Map,
    },
    /// Run a command and stream its output. Answered by `Line`s, then `Exited`.
    Exec {
        argv: Vec<String>,
        shell: bool,
        timeout_ms: Option<u64>,
    },
    /// Stop the request of this stream at the next state.
    Cancel,
    /// The next `size` bytes in byte frames are this content.
    Content {
        hash: Hash,
        size: u64,
    },
    /// The controller does not have that content (any more).
    NoContent {
        hash: Hash,
        reason: String,
    },

    // Answers and events --------------------------------------------------------------------------------------------------------
    // The agent only says them; without what reads the large ones it is smaller.
    /// The agent's first message, asked by nobody.
    #[cfg_attr(not(feature = "language"), serde(skip_deserializing))]
    Hello(Hello),
    /// Contents that the plan or run needs now.
    Need {
        hashes: Vec<Hash>,
    },
    #[cfg_attr(not(feature = "language"), serde(skip_deserializing))]
    Planned(HostPlan),
    Checked,
    /// A low's turn has come.
    Started {
        low: usize,
    },
    /// A line of output of what runs now; secrets masked. `error` tells standard error where it is known.
    Line {
        text: String,
        #[serde(default)]
        error: bool,
    },
    Done(Outcome),
    #[cfg_attr(not(feature = "language"), serde(skip_deserializing))]
    Applied(Applied),
    #[cfg_attr(not(feature = "language"), serde(skip_deserializing))]
    Settled(Settled),
    /// The watch stands; said again where something can be watched no longer.
    #[cfg_attr(not(feature = "language"), serde(skip_deserializing))]
    Watching(Watching),
    /// These are not any more what they were when they were read last.
    #[cfg_attr(not(feature = "language"), serde(skip_deserializing))]
    Drifted {
        touched: Vec<Touched>,
    },
    #[cfg_attr(not(feature = "language"), serde(skip_deserializing))]
    History {
        runs: Vec<RunRecord>,
    },
    #[cfg_attr(not(feature = "language"), serde(skip_deserializing))]
    Answers {
        answers: Vec<Answer>,
    },
    Exited {
        status: i32,
    },
    /// The request failed as a whole.
    #[cfg_attr(not(feature = "language"), serde(skip_deserializing))]
    Failed(Diagnostic),
    /// Still there.
    Alive,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Hello {
    pub protocol: u32,
    pub version: String,
    pub grains: Map,
    /// What the host's owner has set for Salt, as it stands in the files.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub grain_files: Vec<GrainFile>,
    /// How many runs this host has seen.
    pub generation: u64,
    /// 0 is root.
    pub uid: u32,
}

/// A file of `/etc/salt` that sets grains.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct GrainFile {
    pub path: String,
    pub text: String,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct PlanRequest {
    pub lows: Vec<Low>,
    /// Texts that must not appear in any diff, output line or comment.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub secrets: Vec<String>,
    /// Goes into the plan's fingerprint, where there are secrets.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub key: String,
    /// Whether conditions may run commands that are not among the known probes.
    pub commands: bool,
    /// Commands that templates ran on this host before: they are listed beside those of conditions.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub ran: Vec<String>,
    /// The grains that the controller lays over the host's own, for conditions that call `grains.get`.
    #[serde(default, skip_serializing_if = "Map::is_empty")]
    pub grains: Map,
    /// The state repository, by what is the same in all its clones: whose things a run makes. Empty: nothing is remembered.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub origin: String,
    /// The lows are all that is described for the host: what basalt made and they do not speak of goes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub prune: Option<Prune>,
}

/// `--prune`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Prune {
    /// What destroys data goes too (`Object::destroys`), and packages are purged.
    pub destroy_data: bool,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct CheckRequest {
    /// Stands in the lock: another run that is refused names it.
    pub run: RunHeader,
    /// Seconds to wait for another run to end; 0 refuses at once.
    #[serde(default)]
    pub lock_timeout: u64,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ApplyRequest {
    pub fingerprint: Hash,
    /// Becomes the journal's header.
    pub run: RunHeader,
    /// For a plan that can cut the connection: so many seconds from the end of the run the host takes it back, unless it is confirmed.
    /// While it is under way the controller says `Alive` every `HEARTBEAT`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub guard: Option<u64>,
}

/// What became of a guarded run.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Settled {
    /// It stays, as it ended.
    Confirmed(Applied),
    /// The host took it back by a run of its own; `whole`: nothing of it is left.
    TakenBack { by: String, tally: Tally, whole: bool },
    /// The host knows no such run: nothing was changed.
    NotBegun,
}

/// What a watch comes to.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Watching {
    /// How many things are watched.
    pub watched: usize,
    /// What nothing tells of: a timer has to look.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub unwatched: Vec<Unwatched>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Unwatched {
    /// The key of an object, or a command that decides; secrets masked.
    pub what: String,
    pub why: String,
}

/// Something that differs from what it was. Names alone: never what is in it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Touched {
    pub key: crate::plan::Key,
    /// The states that speak of it or whose conditions look at it, in their order.
    pub states: Vec<StateName>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StateName {
    pub sls: String,
    pub id: String,
    /// `file.managed`.
    pub state: String,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RollbackRequest {
    /// The run to take back.
    pub run: String,
    /// Also take back later runs that touched the same keys.
    pub with_later: bool,
    /// Also take back what destroys data (`Object::destroys`).
    #[serde(default)]
    pub destroy_data: bool,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Applied {
    pub tally: Tally,
    /// Stopped before its end (cancel, failhard): why.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stopped: Option<String>,
    pub generation: u64,
}

/// A run as the host's journal knows it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RunRecord {
    pub header: RunHeader,
    pub state: RunState,
    pub tally: Tally,
    /// Seconds since the epoch, by the host's clock; 0 where it did not end.
    pub ended: u64,
    /// Objects it changed, as keys.
    pub keys: Vec<crate::plan::Key>,
    /// The run that took this one back.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rolled_back_by: Option<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RunState {
    /// Under way now.
    Running,
    /// Ended by itself, all states done.
    Done,
    /// Ended by itself, some state failed.
    Failed,
    /// Stopped between two states by the user or a deadline.
    Stopped,
    /// Agent, connection, controller or power went in the middle.
    Broken,
}

/// An execution function call as templates and `basalt call` make it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Call {
    pub function: String,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub args: Vec<Value>,
    #[serde(default, skip_serializing_if = "Map::is_empty")]
    pub kwargs: Map,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Answer {
    Value(Value),
    Error(Diagnostic),
}

/// Length of the body (4), stream (4), kind (1).
pub const HEAD: usize = 9;

pub fn write_message(out: &mut impl Write, message: &Message) -> std::io::Result<()> {
    out.write_all(&encode(message)?)
}

pub fn write_bytes(out: &mut impl Write, stream: u32, piece: &[u8]) -> std::io::Result<()> {
    out.write_all(&head(piece.len(), stream, 1)?)?;
    out.write_all(piece)
}

/// A message as one frame, ready for the wire.
pub fn encode(message: &Message) -> std::io::Result<Vec<u8>> {
    let mut frame = vec![0; HEAD];
    serde_json::to_writer(&mut frame, &message.body)?;
    let head = head(frame.len() - HEAD, message.stream, 0)?;
    frame.splice(..HEAD, head);
    Ok(frame)
}

fn head(length: usize, stream: u32, kind: u8) -> std::io::Result<[u8; HEAD]> {
    let length = u32::try_from(length).ok().filter(|l| *l as usize <= MAX_FRAME).ok_or_else(|| std::io::Error::other("frame too long"))?;
    let mut head = [0; HEAD];
    head[..4].copy_from_slice(&length.to_be_bytes());
    head[4..8].copy_from_slice(&stream.to_be_bytes());
    head[8] = kind;
    Ok(head)
}

/// What a frame's head says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Head {
    pub length: usize,
    pub stream: u32,
    pub bytes: bool,
}

impl Head {
    pub fn parse(head: [u8; HEAD]) -> Result<Head> {
        let [a, b, c, d, e, f, g, h, kind] = head;
        let length = u32::from_be_bytes([a, b, c, d]) as usize;
        if length > MAX_FRAME || kind > 1 {
            return Err(damaged("a frame's head makes no sense").into());
        }
        Ok(Head { length, stream: u32::from_be_bytes([e, f, g, h]), bytes: kind == 1 })
    }

    /// The frame with this head and body.
    pub fn frame(self, body: Vec<u8>) -> Result<Frame> {
        if self.bytes {
            return Ok(Frame::Bytes(body));
        }
        let body = serde_json::from_slice(&body).map_err(|e| damaged(format!("a message cannot be read: {e}")))?;
        Ok(Frame::Message(Message { stream: self.stream, body }))
    }
}

/// The next frame; `None` at the end of the stream. A stream that ends within a frame is damaged.
pub fn read_frame(input: &mut impl Read) -> Result<Option<Frame>> {
    let mut head = [0; HEAD];
    let mut filled = 0;
    while let Some(rest @ [_, ..]) = head.get_mut(filled..) {
        match input.read(rest) {
            Ok(0) if filled == 0 => return Ok(None),
            Ok(0) => return Err(damaged("the stream ended within a frame").into()),
            Ok(n) => filled += n,
            Err(e) if e.kind() == std::io::ErrorKind::Interrupted => {}
            Err(e) => return Err(Diagnostic::io("read from the channel", &e).into()),
        }
    }
    let head = Head::parse(head)?;
    let mut body = Vec::new();
    input.take(head.length as u64).read_to_end(&mut body).map_err(|e| Diagnostic::io("read from the channel", &e))?;
    if body.len() < head.length {
        return Err(damaged("the stream ended within a frame").into());
    }
    head.frame(body).map(Some)
}

/// Reads on until just behind `MAGIC`; gives what came before it (at most `limit` bytes are looked at). `None` at the end of the stream.
pub fn skip_to_magic(input: &mut impl Read, limit: usize) -> std::io::Result<(Vec<u8>, bool)> {
    let mut seen = Vec::new();
    let mut byte = [0];
    while seen.len() < limit {
        if input.read(&mut byte)? == 0 {
            return Ok((seen, false));
        }
        seen.push(byte[0]);
        if seen.ends_with(MAGIC) {
            seen.truncate(seen.len() - MAGIC.len());
            return Ok((seen, true));
        }
    }
    Ok((seen, false))
}

fn damaged(why: impl Into<String>) -> Diagnostic {
    Diagnostic::new(Code::Damaged, format!("the conversation with the host broke: {}", why.into()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_and_bytes_come_back_as_they_went() {
        let mut wire = Vec::new();
        let message = Message { stream: 7, body: Body::Need { hashes: vec![Hash::of(b"x")] } };
        write_message(&mut wire, &message).unwrap();
        write_bytes(&mut wire, 7, b"abc").unwrap();
        write_message(&mut wire, &Message { stream: 0, body: Body::Alive }).unwrap();
        let mut input = wire.as_slice();
        assert_eq!(read_frame(&mut input).unwrap(), Some(Frame::Message(message)));
        assert_eq!(read_frame(&mut input).unwrap(), Some(Frame::Bytes(b"abc".to_vec())));
        assert_eq!(read_frame(&mut input).unwrap(), Some(Frame::Message(Message { stream: 0, body: Body::Alive })));
        assert_eq!(read_frame(&mut input).unwrap(), None);
    }

    #[test]
    fn every_cut_of_a_stream_is_an_error_or_an_end_and_no_panic() {
        let mut wire = Vec::new();
        write_message(&mut wire, &Message { stream: 1, body: Body::Plan(PlanRequest::default()) }).unwrap();
        for cut in 1..wire.len() {
            assert_eq!(read_frame(&mut &wire[..cut]).unwrap_err().code, Code::Damaged);
        }
        assert_eq!(read_frame(&mut &b"\xff\xff\xff\xff\0\0\0\0\0"[..]).unwrap_err().code, Code::Damaged);
    }

    #[test]
    fn noise_before_the_magic_is_given_back() {
        let mut wire = b"Welcome!\n".to_vec();
        wire.extend_from_slice(MAGIC);
        wire.extend_from_slice(b"rest");
        let mut input = wire.as_slice();
        assert_eq!(skip_to_magic(&mut input, 1 << 16).unwrap(), (b"Welcome!\n".to_vec(), true));
        assert_eq!(input, b"rest");
    }
}
