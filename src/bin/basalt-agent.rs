//! The host side of basalt: serves one controller over standard input and output, then ends. Nothing of it stays on the host but the
//! journal of its runs.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use basalt::agent::{guard, serve, wire};
use basalt::diagnostic::{Diagnostic, Result};

const HELP: &str = "basalt-agent [serve] [--root DIR]   serve a controller over standard input and output
basalt-agent monitor [--config FILE] [--daemon] [--dry-run]   keep filesystems from filling up (storage-ops.yaml)
basalt-agent announce --to ADDRESS[:PORT]… --key FILE --id ID   say that this node has come up, until a controller acknowledges
basalt-agent guard [--boot]         watch over a run that can cut the connection | take it back after a boot
basalt-agent --version | --probe    say the version | do nothing (can programs run here?)";

fn main() -> ExitCode {
    let mut root = PathBuf::from("/");
    let mut serves = serve_standard_input as fn(&Path) -> Result<()>;
    let mut args = std::env::args().skip(1);
    while let Some(arg) = args.next() {
        match arg.as_str() {
            "serve" => {}
            "monitor" => return monitor(args),
            "announce" => return announce(args),
            "guard" => serves = guard::watch,
            "--boot" => serves = guard::boot,
            "--root" => match args.next() {
                Some(dir) => root = dir.into(),
                None => return wrong("--root needs a directory"),
            },
            "--version" => {
                println!("basalt-agent {}", env!("CARGO_PKG_VERSION"));
                return ExitCode::SUCCESS;
            }
            "--probe" => return ExitCode::SUCCESS,
            "--help" | "-h" => {
                println!("{HELP}");
                return ExitCode::SUCCESS;
            }
            _ => return wrong(&format!("unknown argument {arg}")),
        }
    }
    // A session that is cut must not take a run down in the middle of a state. (A closed pipe is ignored by Rust itself.)
    // SAFETY: no handler is given.
    unsafe { libc::signal(libc::SIGHUP, libc::SIG_IGN) };
    let root = match root.canonicalize() {
        Ok(root) if root.is_dir() => root,
        Ok(root) => return wrong(&format!("{} is no directory", root.display())),
        Err(e) => return wrong(&format!("cannot use {} as the root: {e}", root.display())),
    };
    match serves(&root) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => wrong(&error.summary),
    }
}

fn monitor(words: impl Iterator<Item = String>) -> ExitCode {
    match basalt::monitor::Options::parse(words).map(|options| basalt::monitor::run(&options, &mut std::io::stdout())) {
        Ok(Ok(false)) => ExitCode::SUCCESS,
        Ok(Ok(true)) => ExitCode::from(3),
        Ok(Err(error)) => wrong(&match &error.span {
            Some(span) => format!("{span}: {}", error.summary),
            None => error.summary.clone(),
        }),
        Err(why) => wrong(&why),
    }
}

fn announce(words: impl Iterator<Item = String>) -> ExitCode {
    match basalt::announce::Options::parse(words).map(|options| basalt::announce::run(&options)) {
        Ok(Ok(controller)) => {
            println!("{controller} knows that this node has come up");
            ExitCode::SUCCESS
        }
        Ok(Err(error)) => wrong(&error.summary),
        Err(why) => wrong(&why),
    }
}

fn serve_standard_input(root: &Path) -> Result<()> {
    let output = wire::standard_output().map_err(|e| Diagnostic::io("open standard output", &e))?;
    serve::serve(root, std::io::BufReader::new(std::io::stdin()), output)
}

fn wrong(why: &str) -> ExitCode {
    eprintln!("basalt-agent: {why}");
    ExitCode::FAILURE
}
