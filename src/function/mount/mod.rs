//! mount.*: what is mounted and swapped to now, and what `/etc/fstab` says of it. The two are objects of their own: the running mount, and
//! the file.
//!
//! A mount point is looked at only where nothing is mounted: a network mount whose server is gone holds no plan up.

mod device;
mod fstab;
mod options;

use self::device::Device;
use self::options::Options;
use super::args::Args;
use super::edit::TextFile;
use super::file::place;
use super::{Arg, ArgKind, Entry, Function, Run, There, Want};
use crate::diagnostic::Result;
use crate::plan::{Key, Kind, Low};
use crate::system::Command;
use crate::value::{Attrs, Value, attributes};

const CONFIG: Arg = Arg::new("config", ArgKind::Str, "/etc/fstab", "The file of entries.");
const MATCH: Arg = Arg::new(
    "match_on",
    ArgKind::Strs,
    "auto",
    "Fields by which the entry is found; auto: name for network and memory filesystems and btrfs, else device.",
);
const USER: Arg = Arg::new("user", ArgKind::Str, "", "Accepted without effect: root mounts.");
const PERSIST: &str = "Whether the file of entries has it too.";

const MOUNTED: &[Arg] = &[
    Arg::new("name", ArgKind::Str, "", "The mount point."),
    Arg::new("device", ArgKind::Str, "", "The device, `UUID=…`, `LABEL=…`, a directory for `bind`, or what the filesystem calls a source."),
    Arg::new("fstype", ArgKind::Str, "", "The filesystem."),
    Arg::new("mkmnt", ArgKind::Bool, "False", "Make the mount point where it is missing."),
    Arg::new(
        "opts",
        ArgKind::Strs,
        "defaults",
        "Options, as a list or with commas. It is mounted anew with them where the kernel does not show one.",
    ),
    Arg::new("dump", ArgKind::Int, "0", "The entry's field for dump."),
    Arg::new("pass_num", ArgKind::Int, "0", "The entry's place in the order of checks."),
    CONFIG,
    Arg::new("persist", ArgKind::Bool, "True", PERSIST),
    Arg::new("mount", ArgKind::Bool, "True", "Whether it is mounted now."),
    USER,
    MATCH,
    Arg::new("device_name_regex", ArgKind::Strs, "", "Devices that may be mounted in its place."),
    Arg::new("extra_mount_invisible_options", ArgKind::Strs, "", "Options that the kernel does not show."),
    Arg::new("extra_mount_invisible_keys", ArgKind::Strs, "", "Options with a value that the kernel does not show."),
    Arg::new("extra_mount_ignore_fs_keys", ArgKind::Map, "", "Options by filesystem that may differ."),
    Arg::new("extra_mount_translate_options", ArgKind::Map, "", "Options that the kernel shows otherwise."),
    Arg::new("hidden_opts", ArgKind::Strs, "", "Options that do not count."),
    Arg::new("bind_mount_copy_active_opts", ArgKind::Bool, "", "Accepted without effect: they are not copied into the file of entries."),
];

const UNMOUNTED: &[Arg] = &[
    Arg::new("name", ArgKind::Str, "", "The mount point."),
    Arg::new("device", ArgKind::Str, "", "Only where this device is mounted there."),
    CONFIG,
    Arg::new("persist", ArgKind::Bool, "False", "Whether it goes from the file of entries too."),
    USER,
];

const SWAP: &[Arg] = &[
    Arg::new("name", ArgKind::Str, "", "The device or file, already made swap."),
    Arg::new("persist", ArgKind::Bool, "True", PERSIST),
    CONFIG,
];

const PRESENT: &[Arg] = &[
    Arg::new("name", ArgKind::Str, "", "The device, as the entry has it."),
    Arg::new("fs_file", ArgKind::Str, "", "The mount point."),
    Arg::new("fs_vfstype", ArgKind::Str, "", "The filesystem."),
    Arg::new("fs_mntops", ArgKind::Strs, "defaults", "Its options."),
    Arg::new("fs_freq", ArgKind::Int, "0", "The entry's field for dump."),
    Arg::new("fs_passno", ArgKind::Int, "0", "The entry's place in the order of checks."),
    MOUNT_BY,
    CONFIG,
    Arg::new("mount", ArgKind::Bool, "True", "Mount it when the entry is new."),
    MATCH,
    Arg::new("not_change", ArgKind::Bool, "False", "Leave an entry that is there as it is."),
    Arg::new("fs_mount", ArgKind::Bool, "True", "Accepted without effect: of AIX."),
];
const MOUNT_BY: Arg = Arg::new("mount_by", ArgKind::Str, "", "Write the device as its uuid, label, partuuid or partlabel.");
const ABSENT: &[Arg] = &[
    Arg::new("name", ArgKind::Str, "", "The device, as the entry has it."),
    Arg::new("fs_file", ArgKind::Str, "", "The mount point."),
    MOUNT_BY,
    CONFIG,
];

pub const FUNCTIONS: &[Entry] = &[
    Entry {
        name: "mount.fstab_absent",
        doc: "A file of entries has none for a mount point.",
        args: ABSENT,
        watches: false,
        parse: fstab_absent,
    },
    Entry {
        name: "mount.fstab_present",
        doc: "A file of entries has one for a mount point.",
        args: PRESENT,
        watches: false,
        parse: fstab_present,
    },
    Entry { name: "mount.mounted", doc: "A filesystem is mounted, now and after a boot.", args: MOUNTED, watches: true, parse: mounted },
    Entry { name: "mount.swap", doc: "A device or file is swapped to.", args: SWAP, watches: false, parse: swap },
    Entry { name: "mount.unmounted", doc: "Nothing is mounted at a path.", args: UNMOUNTED, watches: false, parse: unmounted },
];

fn key(path: &str) -> Key {
    Key::new(Kind::Mount, path)
}

/// A state that needs an argument.
fn needed(args: &Args, name: &str) -> Result<String> {
    let given = args.str(name)?.filter(|text| !text.is_empty());
    given.ok_or_else(|| args.error(format!("Must provide {name} to {}", args.0.function())))
}

/// A list, or one text with commas.
fn words(args: &Args, name: &str, default: &str) -> Result<Vec<String>> {
    let given = args.strs(name)?;
    let given = if given.is_empty() { vec![default.to_owned()] } else { given };
    Ok(given.iter().flat_map(|text| text.split(',')).map(str::trim).filter(|word| !word.is_empty()).map(str::to_owned).collect())
}

/// The path of a file of entries.
fn config(args: &Args) -> Result<String> {
    place::absolute(args, "config", &args.str("config")?.unwrap_or_else(|| "/etc/fstab".to_owned()))
}

fn number(args: &Args, name: &str) -> Result<String> {
    Ok(args.int(name)?.unwrap_or(0).to_string())
}

/// Where a mount point is: a link to one is followed where nothing is mounted at the link itself.
fn place_of(there: &dyn There, path: &str) -> Result<String> {
    if there.get(&key(path)).is_empty() { place::follow(there, path) } else { Ok(path.to_owned()) }
}

fn place_keys(there: &dyn There, path: &str) -> Vec<Key> {
    let mut keys = vec![key(path)];
    if there.get(&key(path)).is_empty() {
        keys.extend(place::follow_keys(there, path));
        keys.extend(place::follow(there, path).map(|real| key(&real)));
    }
    keys
}

struct Mounted {
    path: String,
    device: Device,
    fstype: String,
    options: Options,
    mkmnt: bool,
    mount: bool,
    persist: Option<Persist>,
}

/// An entry of a file.
struct Persist {
    config: String,
    entry: fstab::Entry,
    criteria: Vec<usize>,
    not_change: bool,
}

impl Persist {
    fn edit(&self, text: &str) -> fstab::Edit {
        fstab::with(text, &self.entry, &self.criteria, self.not_change)
    }

    fn wants(&self, there: &dyn There) -> Result<Vec<(Key, Attrs)>> {
        edited(there, &self.config, |text| match self.edit(text) {
            fstab::Edit::Present => text.to_owned(),
            fstab::Edit::New(new) | fstab::Edit::Changed(new) => new,
        })
    }
}

fn file_of_entries(path: &str) -> TextFile {
    TextFile::new(path).with_directories()
}

fn text_of(there: &dyn There, path: &str) -> Result<String> {
    Ok(file_of_entries(path).text(there)?.unwrap_or_default())
}

/// A file of entries with another text.
fn edited(there: &dyn There, path: &str, edit: impl FnOnce(&str) -> String) -> Result<Vec<(Key, Attrs)>> {
    match file_of_entries(path).want(there, |text| Ok(edit(text)))? {
        Want::Is(wants) => Ok(wants),
        _ => Ok(Vec::new()),
    }
}

fn mounted(low: &Low) -> Result<Box<dyn Function>> {
    let args = Args(low);
    let path = place::name(&args)?;
    let (device, fstype) = (needed(&args, "device")?, needed(&args, "fstype")?);
    let opts = words(&args, "opts", "defaults")?;
    if device.starts_with('-') || fstype.starts_with('-') {
        return Err(args.error("a device or filesystem does not begin with -"));
    }
    let persist = Persist {
        config: config(&args)?,
        entry: fstab::Entry([
            fstab::escape(&device),
            fstab::escape(&path),
            fstype.clone(),
            fstab::escape(&opts.join(",")),
            number(&args, "dump")?,
            number(&args, "pass_num")?,
        ]),
        criteria: fstab::criteria(&args.strs("match_on")?, &fstype)?,
        not_change: false,
    };
    Ok(Box::new(Mounted {
        device: Device::new(&args, &device, opts.iter().any(|o| o == "bind" || o == "rbind"))?,
        options: Options::new(&args, opts, &fstype)?,
        path,
        fstype,
        mkmnt: args.bool("mkmnt", false)?,
        mount: args.bool("mount", true)?,
        persist: args.bool("persist", true)?.then_some(persist),
    }))
}

impl Mounted {
    /// What mounting it anew takes.
    fn source(&self) -> Attrs {
        attributes([
            ("source".to_owned(), Value::str(&self.device.source)),
            ("type".to_owned(), Value::str(&self.fstype)),
            ("opts".to_owned(), Value::Str(self.options.for_mount())),
        ])
    }

    /// What is wanted of the running mount.
    fn now(&self, there: &dyn There, path: &str) -> Result<Option<Attrs>> {
        let now = there.get(&key(path));
        if !now.is_empty() && self.device.is(there, &now)? {
            let old = match &self.persist {
                Some(persist) => fstab::options(&text_of(there, &persist.config)?, &persist.entry.0[1]),
                None => None,
            };
            let missing = self.options.missing(&now, old.as_deref());
            if missing.is_empty() {
                return Ok(None);
            }
            // A remount leaves the times alone where it is told nothing of them.
            let times = [("no more noatime", "relatime"), ("no more nodiratime", "diratime")];
            let told = times.iter().filter(|(gone, _)| missing.iter().any(|m| m == gone)).map(|(_, instead)| (*instead).to_owned());
            let opts = std::iter::once(self.options.for_mount()).chain(told).collect::<Vec<_>>().join(",");
            let again = ["nfs", "cvfs"].contains(&self.fstype.as_str()) || self.fstype.starts_with("fuse");
            return Ok(Some(match again {
                true => self.source().into_iter().chain([("again".to_owned(), Value::Bool(true))]).collect(),
                false => attributes([("opts".to_owned(), Value::Str(opts))]),
            }));
        }
        let mut wanted = self.source();
        if let Some(shown) = self.device.shown(there) {
            wanted.insert("device".into(), Value::Str(shown));
        } else if !now.is_empty() {
            // What the kernel will call it is not known; that it is another is.
            wanted.insert("device".into(), Value::str(&self.device.source));
        }
        if self.device.is_fresh(there) {
            wanted.insert("fresh".into(), Value::Bool(true));
        }
        Ok(Some(wanted))
    }
}

impl Function for Mounted {
    fn objects(&self, there: &dyn There) -> Result<Vec<Key>> {
        let mut keys = place_keys(there, &self.path);
        let place = place_of(there, &self.path)?;
        if there.get(&key(&place)).is_empty() {
            keys.extend(place::parent_keys(there, &place, self.mkmnt));
        }
        keys.extend(self.device.keys(there, &there.get(&key(&place))));
        if let Some(persist) = &self.persist {
            keys.extend(file_of_entries(&persist.config).keys(there)?);
        }
        Ok(keys)
    }

    fn want(&self, there: &dyn There) -> Result<Want> {
        let path = place_of(there, &self.path)?;
        let mut wants = Vec::new();
        if there.get(&key(&path)).is_empty() {
            match place::kind(&there.get(&place::key(&path))) {
                Some("directory" | "file") => {}
                Some(other) => return Err(place::failed(format!("{path} is {}, not a directory", place::named(other))).into()),
                None if self.mkmnt => {
                    let made = place::attrs([("kind", "directory"), ("mode", place::NEW_DIRECTORY)]);
                    wants.extend(place::parents(there, &path, Some(&made))?);
                    wants.push((place::key(&path), made));
                }
                None if there.uncertain() => {}
                None if self.mount => {
                    return Err(place::failed("Mount directory is not present").hint("`mkmnt: True` makes it").into());
                }
                None => {}
            }
        }
        if self.mount {
            wants.extend(self.now(there, &path)?.map(|wanted| (key(&path), wanted)));
        }
        if let Some(persist) = &self.persist {
            wants.extend(persist.wants(there)?);
        }
        Ok(if wants.is_empty() { Want::Nothing("Target was already mounted".into()) } else { Want::Is(wants) })
    }

    fn react(&self, there: &dyn There, _cause: &str) -> Result<Option<Want>> {
        let path = place_of(there, &self.path)?;
        let opts = [self.options.for_mount(), "remount".to_owned()].join(",");
        let argv = ["mount", "-o", &opts, "-t", &self.fstype, &self.device.source, &path];
        Ok(Some(Want::Run(Run::new(Command::new(argv), format!("mount -o {opts} {path}")))))
    }
}

struct Unmounted {
    path: String,
    device: Option<Device>,
    config: Option<String>,
}

fn unmounted(low: &Low) -> Result<Box<dyn Function>> {
    let args = Args(low);
    Ok(Box::new(Unmounted {
        path: place::name(&args)?,
        device: args.str("device")?.filter(|d| !d.is_empty()).map(|device| Device::new(&args, &device, false)).transpose()?,
        config: args.bool("persist", false)?.then(|| config(&args)).transpose()?,
    }))
}

impl Function for Unmounted {
    fn objects(&self, there: &dyn There) -> Result<Vec<Key>> {
        let mut keys = vec![key(&self.path)];
        keys.extend(self.device.iter().flat_map(|device| device.keys(there, &there.get(&key(&self.path)))));
        if let Some(config) = &self.config {
            keys.extend(file_of_entries(config).keys(there)?);
        }
        Ok(keys)
    }

    fn want(&self, there: &dyn There) -> Result<Want> {
        let now = there.get(&key(&self.path));
        let mut wants = Vec::new();
        let meant = match &self.device {
            Some(device) => device.is(there, &now)?,
            None => true,
        };
        if !now.is_empty() && meant {
            wants.push((key(&self.path), Attrs::new()));
        }
        if let Some(config) = &self.config {
            let device = self.device.as_ref().map(|device| fstab::escape(&device.source));
            wants.extend(edited(there, config, |text| fstab::without(text, &fstab::escape(&self.path), device.as_deref()))?);
        }
        Ok(if wants.is_empty() { Want::Nothing("Target was already unmounted".into()) } else { Want::Is(wants) })
    }
}

struct Swap {
    device: String,
    persist: Option<Persist>,
}

fn swap(low: &Low) -> Result<Box<dyn Function>> {
    let args = Args(low);
    let device = place::name(&args)?;
    let entry = [fstab::escape(&device).as_str(), "none", "swap", "defaults", "0", "0"].map(str::to_owned);
    let persist =
        Persist { config: config(&args)?, entry: fstab::Entry(entry), criteria: fstab::criteria(&[], "swap")?, not_change: false };
    Ok(Box::new(Swap { device, persist: args.bool("persist", true)?.then_some(persist) }))
}

impl Function for Swap {
    fn objects(&self, there: &dyn There) -> Result<Vec<Key>> {
        let mut keys = vec![Key::new(Kind::Swap, &self.device), place::key(&self.device)];
        if let Some(persist) = &self.persist {
            keys.extend(file_of_entries(&persist.config).keys(there)?);
        }
        Ok(keys)
    }

    fn want(&self, there: &dyn There) -> Result<Want> {
        let swap = Key::new(Kind::Swap, &self.device);
        let mut wants = Vec::new();
        if there.get(&swap).is_empty() {
            if there.get(&place::key(&self.device)).is_empty() && !there.uncertain() {
                return Err(place::failed(format!("{} does not exist", self.device)).hint("make the file or device before it").into());
            }
            wants.push((swap, attributes([("active".to_owned(), Value::Bool(true))])));
        }
        if let Some(persist) = &self.persist {
            wants.extend(persist.wants(there)?);
        }
        Ok(if wants.is_empty() { Want::Nothing(format!("Swap {} already active", self.device)) } else { Want::Is(wants) })
    }
}

/// `mount_by`: the entry names the device by what is on it.
fn by(args: &Args) -> Result<Option<String>> {
    let kinds = ["device", "label", "uuid", "partlabel", "partuuid"];
    let kind = args.str("mount_by")?.map(|kind| kind.to_ascii_lowercase());
    match kind {
        Some(kind) if !kinds.contains(&kind.as_str()) => {
            Err(args.error(format!("mount_by is one of {}, found {kind:?}", kinds.join(", "))))
        }
        kind => Ok(kind.filter(|kind| kind != "device")),
    }
}

struct InFstab {
    spec: String,
    by: Option<String>,
    path: String,
    /// Nothing where the entry is to go.
    persist: Option<Persist>,
    config: String,
    mount: Option<(String, String)>,
}

fn fstab_present(low: &Low) -> Result<Box<dyn Function>> {
    let args = Args(low);
    let (spec, fstype) = (args.name(), needed(&args, "fs_vfstype")?);
    let path = needed(&args, "fs_file")?;
    let path = if path.len() > 1 { path.trim_end_matches('/').to_owned() } else { path };
    let opts = words(&args, "fs_mntops", "defaults")?.join(",");
    let entry = fstab::Entry([
        fstab::escape(&spec),
        fstab::escape(&path),
        fstype.clone(),
        fstab::escape(&opts),
        number(&args, "fs_freq")?,
        number(&args, "fs_passno")?,
    ]);
    let criteria = fstab::criteria(&args.strs("match_on")?, &fstype)?;
    // Swap and the like have no place.
    let mount = args.bool("mount", true)? && path.starts_with('/');
    Ok(Box::new(InFstab {
        by: by(&args)?,
        spec,
        persist: Some(Persist { config: config(&args)?, entry, criteria, not_change: args.bool("not_change", false)? }),
        config: config(&args)?,
        mount: mount.then_some((fstype, opts)),
        path,
    }))
}

fn fstab_absent(low: &Low) -> Result<Box<dyn Function>> {
    let args = Args(low);
    let path = needed(&args, "fs_file")?;
    let path = if path.len() > 1 { path.trim_end_matches('/').to_owned() } else { path };
    Ok(Box::new(InFstab { by: by(&args)?, spec: args.name(), path, persist: None, config: config(&args)?, mount: None }))
}

impl InFstab {
    fn device(&self) -> Key {
        Key::new(Kind::Blockdev, &self.spec)
    }

    /// The first field of the entry.
    fn field(&self, there: &dyn There) -> Result<Option<String>> {
        let Some(by) = &self.by else { return Ok(Some(fstab::escape(&self.spec))) };
        let name = format!("{}=", by.to_ascii_uppercase());
        if self.spec.starts_with(&name) {
            return Ok(Some(self.spec.clone()));
        }
        match there.get(&self.device()).get(by) {
            Some(id) => Ok(Some(format!("{name}{}", fstab::escape(&id.to_text())))),
            None if there.uncertain() || there.get(&self.device()).contains_key("fresh") => Ok(None),
            None => Err(place::failed(format!("Device {} cannot be converted to {by}", self.spec))
                .hint("give the path of a device that has one")
                .into()),
        }
    }
}

impl Function for InFstab {
    fn objects(&self, there: &dyn There) -> Result<Vec<Key>> {
        let mut keys = file_of_entries(&self.config).keys(there)?;
        keys.extend(self.by.as_ref().filter(|_| self.spec.starts_with('/')).map(|_| self.device()));
        keys.extend(self.mount.iter().map(|_| key(&self.path)));
        Ok(keys)
    }

    fn want(&self, there: &dyn There) -> Result<Want> {
        let Some(field) = self.field(there)? else {
            return Ok(Want::Unknown(format!("the {} of {} is known when it is made", self.by.as_deref().unwrap_or_default(), self.spec)));
        };
        let Some(persist) = &self.persist else {
            let wants = edited(there, &self.config, |text| fstab::without(text, &fstab::escape(&self.path), Some(&field)))?;
            let absent = || Want::Nothing(format!("{} entry is already missing in {}.", self.path, self.config));
            return Ok(if wants.is_empty() { absent() } else { Want::Is(wants) });
        };
        let mut entry = persist.entry.clone();
        entry.0[0].clone_from(&field);
        let persist = Persist { config: persist.config.clone(), entry, criteria: persist.criteria.clone(), not_change: persist.not_change };
        let edit = persist.edit(&text_of(there, &self.config)?);
        if edit == fstab::Edit::Present {
            return Ok(Want::Nothing(format!("{} entry is already in {}.", self.path, self.config)));
        }
        let mut wants = persist.wants(there)?;
        if let Some((fstype, opts)) =
            self.mount.as_ref().filter(|_| matches!(edit, fstab::Edit::New(_)) && there.get(&key(&self.path)).is_empty())
        {
            let text = |name: &str, value: &str| (name.to_owned(), Value::str(value));
            wants.push((key(&self.path), attributes([text("source", &self.spec), text("type", fstype), text("opts", opts)])));
        }
        Ok(Want::Is(wants))
    }
}

#[cfg(test)]
mod tests;
