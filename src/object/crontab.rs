//! The crontab of a user: one file below the spool directory of the host's cron, as a whole.
//!
//! Attributes: `content` (hash), and as they are found, for restoring: `mode user group`. Cron sees a new file by itself: it watches
//! the directory that the file is renamed into.

use super::{Object, Progress, Sign};
use crate::diagnostic::{Code, Diagnostic, Result};
use crate::plan::{Hash, Key, Kind};
use crate::system::{FileKind, Meta, System};
use crate::value::{Attrs, Value, attributes};

/// Debian and Alpine, SUSE, RHEL and Arch.
const SPOOLS: [&str; 3] = ["/var/spool/cron/crontabs", "/var/spool/cron/tabs", "/var/spool/cron"];

pub struct Crontab {
    user: String,
}

impl Crontab {
    pub fn new(user: &str) -> Crontab {
        Crontab { user: user.to_owned() }
    }

    /// Where the file is or would be; `None`: no cron has a spool here.
    fn path(&self, sys: &System) -> Result<Option<String>> {
        if self.user.is_empty() || self.user.starts_with('.') || self.user.contains('/') {
            return Err(Diagnostic::new(Code::Failed, format!("{:?} cannot be the name of a crontab's user", self.user)).into());
        }
        for spool in SPOOLS {
            if sys.stat(&sys.resolve(spool))?.is_some_and(|s| s.kind == FileKind::Directory) {
                return Ok(Some(format!("{}/{}", sys.resolve(spool), self.user)));
            }
        }
        Ok(None)
    }
}

impl Object for Crontab {
    fn key(&self) -> Key {
        Key::new(Kind::Crontab, &self.user)
    }

    fn read(&self, sys: &System) -> Result<Attrs> {
        let Some(path) = self.path(sys)? else { return Ok(Attrs::new()) };
        let (Some(stat), Some(hash)) = (sys.stat(&path)?, sys.hash(&path)?) else { return Ok(Attrs::new()) };
        sys.note_file(&hash, &path);
        Ok(attributes([
            ("content".into(), Value::Str(hash.0)),
            ("mode".into(), format!("{:04o}", stat.mode).into()),
            ("user".into(), sys.user_name(stat.uid).into()),
            ("group".into(), sys.group_name(stat.gid).into()),
        ]))
    }

    fn signs(&self, _sys: &System) -> Result<Vec<Sign>> {
        Ok(Sign::paths(SPOOLS.iter().map(|spool| format!("{spool}/{}", self.user))))
    }

    fn keep(&self, sys: &System, from: &Attrs, _to: &Attrs) -> Result<()> {
        match (self.path(sys)?, from.get("content").and_then(Value::as_str)) {
            (Some(path), Some(hash)) => sys.keep_content(&Hash(hash.to_owned()), &path),
            _ => Ok(()),
        }
    }

    fn sweep(&self, sys: &System) -> Result<()> {
        self.path(sys)?.map_or(Ok(()), |path| sys.sweep(&path))
    }

    fn set(&self, sys: &System, from: &Attrs, to: &Attrs, _progress: &mut Progress) -> Result<Attrs> {
        let path = self.path(sys)?.ok_or_else(|| {
            Diagnostic::new(Code::Failed, "no directory of crontabs is here")
                .detail(format!("looked for {}", SPOOLS.join(", ")))
                .hint("install a cron first (Debian: cron, RHEL: cronie)")
        })?;
        if to.is_empty() {
            if !from.is_empty() {
                sys.remove_file(&path)?;
            }
            return Ok(Attrs::new());
        }
        let wanted = |name: &str| to.get(name).or_else(|| from.get(name)).and_then(Value::as_str);
        let Some(content) = wanted("content") else { return self.read(sys) };
        let missing = |what: &str, name: &str| Diagnostic::new(Code::Failed, format!("{what} {name} is not available"));
        let number = |name: &str| name.parse::<u32>().ok();
        let owner = wanted("user").unwrap_or(&self.user);
        let uid = sys.uid(owner)?.or_else(|| number(owner)).ok_or_else(|| missing("user", owner))?;
        // Debian's crontab program reads by the group crontab; elsewhere the user's own group stands there.
        let gid = match wanted("group") {
            Some(group) => sys.gid(group)?.or_else(|| number(group)).ok_or_else(|| missing("group", group))?,
            None => match sys.gid("crontab")? {
                Some(gid) => gid,
                None => sys.user(owner)?.map_or(0, |u| u.gid),
            },
        };
        let mode = wanted("mode").and_then(|m| u32::from_str_radix(m, 8).ok()).unwrap_or(0o600);
        sys.write_file(&path, &Hash(content.to_owned()), &Meta { mode, uid, gid, ..Meta::default() })?;
        self.read(sys)
    }

    fn describe(&self, sys: &System, from: &Attrs, to: &Attrs) -> String {
        let text = |attrs: &Attrs| {
            let hash = attrs.get("content").and_then(Value::as_str)?;
            sys.contents().bytes(&Hash(hash.to_owned())).ok().map(|b| String::from_utf8_lossy(&b).into_owned())
        };
        let (old, new) = (text(from).unwrap_or_default(), text(to).unwrap_or_default());
        super::unified::unified(&old, &new, None)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::system::{Command, Exec, Output};

    struct Nothing;
    impl Exec for Nothing {
        fn run(&self, command: &Command, _: &mut dyn FnMut(&[u8])) -> Result<Output> {
            panic!("a crontab needs no command, not {:?}", command.argv)
        }
    }

    fn root() -> (tempfile::TempDir, System) {
        use std::os::unix::fs::MetadataExt;
        let dir = tempfile::tempdir().unwrap();
        let me = std::fs::metadata(dir.path()).unwrap();
        std::fs::create_dir_all(dir.path().join("var/spool/cron/crontabs")).unwrap();
        std::fs::create_dir(dir.path().join("etc")).unwrap();
        let line = format!("me:x:{}:{}::/:/bin/sh\n", me.uid(), me.gid());
        std::fs::write(dir.path().join("etc/passwd"), line).unwrap();
        std::fs::write(dir.path().join("etc/group"), format!("me:x:{}:\n", me.gid())).unwrap();
        let sys = System::at(dir.path(), Box::new(Nothing));
        (dir, sys)
    }

    #[test]
    fn a_users_name_leads_nowhere_else() {
        let (_dir, sys) = root();
        for name in ["", "..", "a/b", ".hidden"] {
            assert!(Crontab::new(name).read(&sys).is_err(), "{name}");
        }
    }
}
