//! As much of D-Bus as it takes to hear from systemd that a unit starts or stops: the handshake, a few calls without answers, and of what
//! comes in the path of the object that it is about.
//!
//! The system's bus passes on only what was asked for; systemd's own socket, where there is no bus, tells of all units.

use std::collections::BTreeMap;
use std::io::{ErrorKind, Read, Write};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixStream;
use std::time::Duration;

use crate::system::System;

const BUS: &str = "/run/dbus/system_bus_socket";
const SYSTEMD: &str = "/run/systemd/private";
/// How long the handshake may take.
const PATIENCE: Duration = Duration::from_secs(2);
/// What systemd says of a unit fits well into this.
const LARGEST: usize = 1 << 20;
const PLACE: &str = "/org/freedesktop/systemd1/unit/";
const CALL: u8 = 1;
/// No answer is wanted.
const SILENT: u8 = 1;

pub struct Bus {
    stream: UnixStream,
    /// A bus has to be told what to pass on.
    asks: bool,
    serial: u32,
    /// Came in and is no whole message yet.
    buffer: Vec<u8>,
    /// Units by the path of their object.
    units: BTreeMap<String, String>,
}

impl Bus {
    pub fn connect(sys: &System) -> Result<Bus, String> {
        let mut why = String::new();
        for (path, asks) in [(BUS, true), (SYSTEMD, false)] {
            match shake_hands(sys, path) {
                Ok(stream) => {
                    let mut bus = Bus { stream, asks, serial: 0, buffer: Vec::new(), units: BTreeMap::new() };
                    let begun = if asks { bus.begin() } else { Ok(()) };
                    match begun.and_then(|()| bus.stream.set_nonblocking(true)) {
                        Ok(()) => return Ok(bus),
                        Err(e) => why = e.to_string(),
                    }
                }
                Err(e) => why = e.to_string(),
            }
        }
        Err(format!("systemd does not tell of its units here ({why})"))
    }

    pub fn fd(&self) -> BorrowedFd<'_> {
        self.stream.as_fd()
    }

    /// Tells of this unit from now on.
    pub fn watch(&mut self, unit: &str) -> Result<(), String> {
        let path = object(unit);
        if self.units.insert(path.clone(), unit.to_owned()).is_some() || !self.asks {
            return Ok(());
        }
        let rule = format!("type='signal',sender='org.freedesktop.systemd1',interface='org.freedesktop.DBus.Properties',path='{path}'");
        self.call(["org.freedesktop.DBus", "/org/freedesktop/DBus", "org.freedesktop.DBus", "AddMatch"], Some(&rule))
            .map_err(|e| format!("the system's bus does not listen ({e})"))
    }

    /// The units that something happened to since the last call. `None`: nobody is there any more.
    pub fn touched(&mut self) -> Option<Vec<String>> {
        let mut piece = [0; 4096];
        let open = loop {
            match self.stream.read(&mut piece) {
                Ok(0) => break false,
                Ok(n) => self.buffer.extend_from_slice(piece.get(..n)?),
                Err(e) if e.kind() == ErrorKind::WouldBlock => break true,
                Err(e) if e.kind() == ErrorKind::Interrupted => {}
                Err(_) => break false,
            }
        };
        let mut found = Vec::new();
        while let Some(length) = length(&self.buffer)? {
            let message: Vec<u8> = self.buffer.drain(..length).collect();
            found.extend(path_of(&message).and_then(|path| self.units.get(path)).cloned());
        }
        (open || !found.is_empty()).then_some(found)
    }

    fn begin(&mut self) -> std::io::Result<()> {
        self.call(["org.freedesktop.DBus", "/org/freedesktop/DBus", "org.freedesktop.DBus", "Hello"], None)?;
        self.call(["org.freedesktop.systemd1", "/org/freedesktop/systemd1", "org.freedesktop.systemd1.Manager", "Subscribe"], None)
    }

    /// Calls a method: destination, path, interface, name.
    fn call(&mut self, to: [&str; 4], text: Option<&str>) -> std::io::Result<()> {
        self.serial += 1;
        let [destination, path, interface, member] = to;
        let mut body = Vec::new();
        let mut fields = Vec::new();
        for (code, kind, value) in [(1, b'o', path), (2, b's', interface), (3, b's', member), (6, b's', destination)] {
            pad(&mut fields, 8);
            fields.extend([code, 1, kind, 0]);
            string(&mut fields, value);
        }
        if let Some(text) = text {
            pad(&mut fields, 8);
            fields.extend([8, 1, b'g', 0, 1, b's', 0]);
            string(&mut body, text);
        }
        let mut message = vec![b'l', CALL, SILENT, 1];
        // Lengths are those of a few names.
        for number in [body.len() as u32, self.serial, fields.len() as u32] {
            message.extend(number.to_le_bytes());
        }
        message.extend(fields);
        pad(&mut message, 8);
        message.extend(body);
        self.stream.write_all(&message)
    }
}

/// Says who we are, as a user of this machine.
fn shake_hands(sys: &System, path: &str) -> std::io::Result<UnixStream> {
    let mut stream = UnixStream::connect(sys.followed(path))?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    let id: String = rustix::process::geteuid().as_raw().to_string().bytes().map(|digit| format!("{digit:02x}")).collect();
    stream.write_all(format!("\0AUTH EXTERNAL {id}\r\n").as_bytes())?;
    let mut answer = Vec::new();
    let mut byte = [0];
    while !answer.ends_with(b"\r\n") && answer.len() < 512 {
        stream.read_exact(&mut byte)?;
        answer.extend(byte);
    }
    if !answer.starts_with(b"OK") {
        return Err(std::io::Error::other("it does not let us in"));
    }
    stream.write_all(b"BEGIN\r\n")?;
    Ok(stream)
}

/// The path of a unit's object: what is neither letter nor digit, and a digit in front, by its number.
fn object(unit: &str) -> String {
    let mut path = PLACE.to_owned();
    for (at, byte) in unit.bytes().enumerate() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' => path.push(char::from(byte)),
            b'0'..=b'9' if at > 0 => path.push(char::from(byte)),
            other => path.push_str(&format!("_{other:02x}")),
        }
    }
    path
}

fn pad(bytes: &mut Vec<u8>, to: usize) {
    bytes.resize(bytes.len().next_multiple_of(to), 0);
}

fn string(bytes: &mut Vec<u8>, text: &str) {
    pad(bytes, 4);
    bytes.extend((text.len() as u32).to_le_bytes());
    bytes.extend(text.as_bytes());
    bytes.push(0);
}

/// A number of a message, in the order of bytes that its sender has.
fn number(message: &[u8], at: usize) -> Option<usize> {
    let bytes: [u8; 4] = message.get(at..at + 4)?.try_into().ok()?;
    Some(if message.first() == Some(&b'B') { u32::from_be_bytes(bytes) } else { u32::from_le_bytes(bytes) } as usize)
}

/// How long the first message is; `Some(None)`: it has not come whole. `None`: it makes no sense.
fn length(buffer: &[u8]) -> Option<Option<usize>> {
    let (Some(body), Some(fields)) = (number(buffer, 4), number(buffer, 12)) else { return Some(None) };
    let length = 16usize.checked_add(fields)?.checked_next_multiple_of(8)?.checked_add(body)?;
    if length > LARGEST {
        return None;
    }
    Some((length <= buffer.len()).then_some(length))
}

/// The object that a message is about.
fn path_of(message: &[u8]) -> Option<&str> {
    let end = 16 + number(message, 12)?;
    let mut at = 16;
    while at < end {
        at = at.next_multiple_of(8);
        let (code, kind) = (*message.get(at)?, *message.get(at + 2)?);
        at += 4;
        match kind {
            b's' | b'o' => {
                at = at.next_multiple_of(4);
                let length = number(message, at)?;
                let text = message.get(at + 4..(at + 4).checked_add(length)?)?;
                if code == 1 {
                    return std::str::from_utf8(text).ok();
                }
                at += 4 + length + 1;
            }
            b'g' => at += usize::from(*message.get(at)?) + 2,
            b'u' => at = at.next_multiple_of(4) + 4,
            _ => return None,
        }
    }
    None
}
