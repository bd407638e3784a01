//! file.serialize: a file with data in it, as YAML or JSON. The controller has made the text of the data; what is left is file.managed.

use super::managed::{self, Managed, Mode, What};
use super::place::{self, Owner};
use crate::diagnostic::Result;
use crate::function::args::Args;
use crate::function::{Arg, ArgKind, Entry, Function};
use crate::plan::Low;

pub const ENTRY: Entry = Entry {
    name: "file.serialize",
    doc: "A file with this data, as YAML or JSON.",
    args: &[
        super::NAME,
        Arg::new("dataset", ArgKind::Any, "", "The data. Example: {listen: 80, names: [a, b]}"),
        Arg::new("dataset_pillar", ArgKind::Str, "", "A pillar key whose value the data is."),
        Arg::new("serializer", ArgKind::Str, "yaml", "How it is written: yaml or json."),
        Arg::new("formatter", ArgKind::Str, "", "The older name of serializer."),
        Arg::new(
            "serializer_opts",
            ArgKind::Any,
            "",
            "yaml: default_flow_style, allow_unicode, indent, width, explicit_start; json: indent, sort_keys, ensure_ascii.",
        ),
        Arg::new("merge_if_exists", ArgKind::Bool, "False", "Whether the data is merged into what is in the file when the plan is made."),
        super::USER,
        super::GROUP,
        super::OWNER,
        Arg::new("mode", ArgKind::Mode, "", "The mode. New files get 0644 where it is not given."),
        super::MAKEDIRS,
        Arg::new("dir_mode", ArgKind::Mode, "", "The mode of directories that makedirs makes."),
        Arg::new("backup", ArgKind::Any, "", "`minion` keeps a copy of what was there, in /var/cache/basalt/file_backup."),
        super::SHOW_CHANGES,
        Arg::new("create", ArgKind::Bool, "True", "False: a file that is not there is not made."),
        Arg::new("encoding", ArgKind::Str, "", "utf-8; where it is given, yaml leaves all characters as they are."),
        Arg::new("tmp_dir", ArgKind::Str, "", "Accepted: check_cmd sees the new file beside the old one."),
        Arg::new("tmp_ext", ArgKind::Str, "", "Accepted, see tmp_dir."),
    ],
    watches: false,
    parse,
};

fn parse(low: &Low) -> Result<Box<dyn Function>> {
    let args = Args(low);
    let Some(content) = low.contents.iter().find(|content| content.name == "contents") else {
        return Err(args.error("the data of file.serialize was not written"));
    };
    if let Some(encoding) = args.str("encoding")?
        && !["utf-8", "utf8", "utf_8", ""].contains(&encoding.to_ascii_lowercase().as_str())
    {
        return Err(args.error(format!("encoding {encoding} is not known: files are written in utf-8")));
    }
    Ok(Box::new(Managed {
        path: place::name(&args)?,
        what: What::Content(content.clone()),
        mode: match Mode::parse(&args, "mode")? {
            Mode::Keep => return Err(args.error("mode: keep needs a source to keep the mode of, and there is only data")),
            mode => mode,
        },
        owner: Owner::parse(&args)?,
        makedirs: args.bool("makedirs", false)?.then_some(args.mode("dir_mode")?),
        replace: true,
        create: args.bool("create", true)?,
        follow: true,
        backup: managed::backup(&args)?,
    }))
}
