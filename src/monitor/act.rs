//! What the monitor does to files: walks folders without following links or leaving their filesystem, compresses logs, removes what is old. Every step is
//! taken from an open folder, so that nobody who may write in `/tmp` can lead it elsewhere; what a process has open stays.

use std::collections::HashSet;
use std::ffi::CStr;
use std::fs::File;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::MetadataExt;
use std::process::Stdio;

use rustix::fs::{AtFlags, Dir, FileType, Gid, Mode, OFlags, RenameFlags, Stat, Timespec, Timestamps, Uid};
use rustix::io::Errno;

/// Folders this deep are not looked into any more.
const DEEPEST: usize = 64;
/// So many errors of an action are told, and so many paths of one that is only shown.
const TOLD: usize = 20;

/// What an action came to.
#[derive(Debug, Default)]
pub struct Report {
    pub files: u64,
    /// What the files took.
    pub bytes: u64,
    /// What would be done, of an action that is only shown.
    pub paths: Vec<String>,
    pub errors: Vec<String>,
}

impl Report {
    pub fn error(&mut self, what: impl Into<String>) {
        if self.errors.len() < TOLD {
            self.errors.push(what.into());
        }
    }

    fn done(&mut self, path: &str, stat: &Stat, shown: bool) {
        self.files += 1;
        self.bytes += bytes(stat);
        if shown && self.paths.len() < TOLD {
            self.paths.push(path.to_owned());
        }
    }
}

/// What a file takes on its filesystem.
fn bytes(stat: &Stat) -> u64 {
    stat.st_blocks.max(0) as u64 * 512
}

/// The later of reading and writing.
pub fn used_at(stat: &Stat) -> u64 {
    stat.st_mtime.max(stat.st_atime).max(0) as u64
}

pub fn written_at(stat: &Stat) -> u64 {
    stat.st_mtime.max(0) as u64
}

/// A regular file that was found, in its open folder.
pub struct Found<'a> {
    folder: BorrowedFd<'a>,
    name: &'a CStr,
    pub path: String,
    pub stat: Stat,
}

impl Found<'_> {
    pub fn name(&self) -> &str {
        self.path.rsplit('/').next().unwrap_or_default()
    }
}

/// Opens a folder, no part of whose path is a link.
fn open_folder(path: &str) -> rustix::io::Result<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let mut folder = rustix::fs::open("/", flags, Mode::empty())?;
    for part in path.split('/').filter(|part| !part.is_empty()) {
        folder = rustix::fs::openat(&folder, part, flags, Mode::empty())?;
    }
    Ok(folder)
}

/// The path that a folder really has, where there is one.
pub fn real(path: &str) -> Option<String> {
    std::fs::canonicalize(path).ok().filter(|path| path.is_dir()).and_then(|path| path.to_str().map(str::to_owned))
}

/// Visits all regular files below a folder that is where it says it is. Folders for which `enter` says no are passed over with all in them.
pub fn walk(path: &str, enter: &dyn Fn(&str) -> bool, report: &mut Report, visit: &mut dyn FnMut(&Found, &mut Report)) {
    let opened = open_folder(path).and_then(|folder| Ok((rustix::fs::fstat(&folder)?.st_dev, folder)));
    match opened {
        Ok((device, folder)) if enter(path) => below(folder, path, device, 0, enter, report, visit),
        Ok(_) | Err(Errno::NOENT) => {}
        Err(e) => report.error(format!("{path} cannot be opened: {e}")),
    }
}

fn below(
    folder: OwnedFd,
    path: &str,
    device: u64,
    depth: usize,
    enter: &dyn Fn(&str) -> bool,
    report: &mut Report,
    visit: &mut dyn FnMut(&Found, &mut Report),
) {
    let entries = match Dir::read_from(&folder) {
        Ok(entries) => entries,
        Err(e) => return report.error(format!("{path} cannot be read: {e}")),
    };
    // All names first: what is removed and made meanwhile does not confuse the reading.
    let mut entries: Vec<_> = entries.flatten().collect();
    entries.sort_by(|a, b| a.file_name().cmp(b.file_name()));
    for entry in entries {
        let name = entry.file_name();
        // A name that is no text could not be judged by its class.
        let Some(text) = name.to_str().ok().filter(|text| *text != "." && *text != "..") else { continue };
        let own = format!("{path}/{text}");
        let Ok(stat) = rustix::fs::statat(&folder, name, AtFlags::SYMLINK_NOFOLLOW) else { continue };
        match FileType::from_raw_mode(stat.st_mode) {
            FileType::RegularFile => visit(&Found { folder: folder.as_fd(), name, path: own, stat }, report),
            FileType::Directory if stat.st_dev == device && depth < DEEPEST && enter(&own) => {
                let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
                match rustix::fs::openat(&folder, name, flags, Mode::empty()) {
                    Ok(child) => below(child, &own, device, depth + 1, enter, report, visit),
                    Err(e) => report.error(format!("{own} cannot be opened: {e}")),
                }
            }
            _ => {}
        }
    }
}

/// The files that processes have open: what is removed of them would free nothing, and what is compressed would lose what is yet written.
pub fn open_files() -> HashSet<(u64, u64)> {
    let mut open = HashSet::new();
    let number = |name: &std::ffi::OsStr| name.to_str().is_some_and(|name| name.bytes().all(|b| b.is_ascii_digit()));
    for process in std::fs::read_dir("/proc").into_iter().flatten().flatten().filter(|entry| number(&entry.file_name())) {
        for file in std::fs::read_dir(process.path().join("fd")).into_iter().flatten().flatten() {
            if let Ok(meta) = std::fs::metadata(file.path())
                && meta.is_file()
            {
                open.insert((meta.dev(), meta.ino()));
            }
        }
    }
    open
}

/// Removes a file, unless it is another than the one that was found.
pub fn remove(found: &Found, dry: bool, report: &mut Report) {
    let same = |now: &Stat| (now.st_ino, now.st_mtime, now.st_size) == (found.stat.st_ino, found.stat.st_mtime, found.stat.st_size);
    let removed = match rustix::fs::statat(found.folder, found.name, AtFlags::SYMLINK_NOFOLLOW) {
        Ok(now) if !same(&now) => return,
        Ok(_) if dry => Ok(()),
        Ok(_) => rustix::fs::unlinkat(found.folder, found.name, AtFlags::empty()),
        Err(e) => Err(e),
    };
    match removed {
        Ok(()) => report.done(&found.path, &found.stat, dry),
        Err(e) => report.error(format!("{} cannot be removed: {e}", found.path)),
    }
}

/// Cuts a file to nothing: who writes to it goes on at its end.
pub fn cut(found: &Found, dry: bool, report: &mut Report) {
    let flags = OFlags::WRONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let cut = if dry {
        Ok(())
    } else {
        rustix::fs::openat(found.folder, found.name, flags, Mode::empty()).and_then(|file| rustix::fs::ftruncate(file, 0))
    };
    match cut {
        Ok(()) => report.done(&found.path, &found.stat, dry),
        Err(e) => report.error(format!("{} cannot be cut: {e}", found.path)),
    }
}

/// Puts `NAME.gz` in the place of a file, with its owner, mode and times. The file goes last, and only if nobody has written to it meanwhile.
pub fn compress(found: &Found, dry: bool, report: &mut Report) {
    let compressed = if dry { Ok(true) } else { compressed(found) };
    match compressed {
        Ok(true) => report.done(&found.path, &found.stat, dry),
        Ok(false) => {}
        Err(why) => report.error(format!("{} cannot be compressed: {why}", found.path)),
    }
}

fn compressed(found: &Found) -> Result<bool, String> {
    let said = |e: Errno| e.to_string();
    let name = found.name();
    let (part, target) = (format!(".{name}.gz.part"), format!("{name}.gz"));
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let from = rustix::fs::openat(found.folder, found.name, flags, Mode::empty()).map_err(said)?;
    let before = rustix::fs::fstat(&from).map_err(said)?;
    let there = rustix::fs::statat(found.folder, &target, AtFlags::SYMLINK_NOFOLLOW).is_ok();
    if before.st_ino != found.stat.st_ino || before.st_nlink != 1 || there {
        return Ok(false);
    }
    // What a pass that was killed has left.
    let _ = rustix::fs::unlinkat(found.folder, &part, AtFlags::empty());
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let to = rustix::fs::openat(found.folder, &part, flags, Mode::RUSR | Mode::WUSR).map_err(said)?;
    let done = fill(&from, &to, &before).and_then(|()| {
        // By its name: it may have been written to, or put aside.
        let now = rustix::fs::statat(found.folder, found.name, AtFlags::SYMLINK_NOFOLLOW).map_err(said)?;
        let seen = |stat: &Stat| (stat.st_ino, stat.st_size, stat.st_mtime, stat.st_mtime_nsec);
        if seen(&now) != seen(&before) {
            return Ok(false);
        }
        rustix::fs::renameat_with(found.folder, &part, found.folder, &target, RenameFlags::NOREPLACE).map_err(said)?;
        rustix::fs::unlinkat(found.folder, found.name, AtFlags::empty()).map_err(said)?;
        Ok(true)
    });
    if done != Ok(true) {
        let _ = rustix::fs::unlinkat(found.folder, &part, AtFlags::empty());
    }
    done
}

fn fill(from: &OwnedFd, to: &OwnedFd, stat: &Stat) -> Result<(), String> {
    let said = |e: Errno| e.to_string();
    let copy = |fd: &OwnedFd| fd.try_clone().map(File::from).map(Stdio::from).map_err(|e| e.to_string());
    let mut gzip = std::process::Command::new("gzip");
    gzip.args(["-c", "-n"]).stdin(copy(from)?).stdout(copy(to)?).stderr(Stdio::piped());
    let output = gzip.spawn().and_then(std::process::Child::wait_with_output).map_err(|e| format!("gzip does not start: {e}"))?;
    if !output.status.success() {
        return Err(format!("gzip: {}", String::from_utf8_lossy(&output.stderr).trim()));
    }
    rustix::fs::fsync(to).map_err(said)?;
    rustix::fs::fchown(to, Some(Uid::from_raw(stat.st_uid)), Some(Gid::from_raw(stat.st_gid))).map_err(said)?;
    rustix::fs::fchmod(to, Mode::from_raw_mode(stat.st_mode)).map_err(said)?;
    let time = |seconds: i64, nanoseconds: u64| Timespec { tv_sec: seconds, tv_nsec: nanoseconds as _ };
    let times =
        Timestamps { last_access: time(stat.st_atime, stat.st_atime_nsec), last_modification: time(stat.st_mtime, stat.st_mtime_nsec) };
    rustix::fs::futimens(to, &times).map_err(said)
}
