//! `basalt key`: machines that ask to join without a token, and the yes or no to them.

use clap::{Args, Subcommand};
use serde_json::json;
use sha2::{Digest, Sha256};

use super::context::{now, store_of};
use super::print::{Color, Printer, clean, count};
use super::{Ended, RepositoryArgs, ShowArgs};
use crate::enrol::desk::{Request, Standing, all, decide};
use crate::enrol::device::Device;
use crate::function::base64;

#[derive(Subcommand)]
pub enum KeyCommand {
    /// The machines that ask, with the fingerprints of their ssh host keys
    List(ShowArgs),
    /// Let a machine in: the controller that listens goes on with it
    Accept(KeyDecideArgs),
    /// Turn a machine away
    Reject(KeyDecideArgs),
}

impl KeyCommand {
    pub fn json(&self) -> bool {
        matches!(self, KeyCommand::List(args) if args.json)
    }
}

#[derive(Args)]
pub struct KeyDecideArgs {
    /// The name that it would like
    name: String,
    #[command(flatten)]
    repository: RepositoryArgs,
}

pub fn run(command: KeyCommand, color: Color) -> Ended {
    let printer = Printer::new(command.json(), color);
    match command {
        KeyCommand::List(args) => {
            let requests = all(store_of(&args.repository)?.as_ref(), now())?;
            requests.iter().for_each(|request| tell(&printer, request));
            if requests.is_empty() {
                printer.say("No machine asks to join.");
            }
        }
        KeyCommand::Accept(args) => {
            let request = decide(store_of(&args.repository)?.as_ref(), &args.name, Standing::Accepted, now())?;
            printer.say(&format!("{} may join; the controller that listens goes on with it.", request.registration.id));
        }
        KeyCommand::Reject(args) => {
            let request = decide(store_of(&args.repository)?.as_ref(), &args.name, Standing::Rejected, now())?;
            printer.say(&format!("{} is turned away.", request.registration.id));
        }
    }
    Ok(0)
}

fn tell(printer: &Printer, request: &Request) {
    let registration = &request.registration;
    let prints: Vec<String> = registration.host_keys.iter().map(|key| fingerprint(key)).collect();
    printer.json(&json!({
        "type": "request", "node": registration.id, "state": request.standing.name(), "from": request.from, "asked": request.asked,
        "host_keys": prints, "registration": registration,
    }));
    printer.say(&format!(
        "{}  {}  from {}  {} CPU cores, {} GB of memory, {} GB of disk",
        clean(&registration.id),
        request.standing.name(),
        request.from,
        registration.cpu_cores,
        registration.memory_gb,
        registration.storage_gb
    ));
    prints.iter().for_each(|print| printer.say(&format!("    {}", clean(print))));
    devices(printer, &registration.devices);
}

/// Disks, and why one cannot be used.
pub fn devices(printer: &Printer, devices: &[Device]) {
    let free = devices.iter().filter(|device| device.rejected.is_empty()).count();
    if !devices.is_empty() {
        printer.say(&format!("    {}, {free} of use:", count(devices.len(), "disk")));
    }
    for device in devices {
        let why: Vec<&str> = device.rejected.iter().map(|why| why.name()).collect();
        let why = if why.is_empty() { "free".to_owned() } else { why.join(", ") };
        printer.say(&format!("      {}  {} GB  {why}", clean(&device.name), device.size_gb));
    }
}

/// As `ssh-keygen -l` prints it.
fn fingerprint(key: &str) -> String {
    let (kind, encoded) = key.split_once(' ').unwrap_or((key, ""));
    let digest = base64::decode(encoded).map(|bytes| base64::encode(&Sha256::digest(&bytes)));
    format!("{kind} SHA256:{}", digest.as_deref().unwrap_or("?").trim_end_matches('='))
}
