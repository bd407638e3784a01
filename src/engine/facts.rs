//! What a machine is, as far as roles ask: its cores, memory and disks.

use super::session::Session;
use crate::agent::protocol::Call;
use crate::diagnostic::{Code, Diagnostic, Result};
use crate::fleet::role::Resources;
use crate::value::{Map, Value};

/// A machine sold as 8 GB reports some less: whole GB, rounded.
const KB: u64 = 1 << 10;
const MB: u64 = 1 << 20;

/// Asks a host. Its disks are what its mounted filesystems have, each device counted once.
pub async fn resources(session: &mut Session) -> Result<Resources> {
    let number = |name: &str| session.grains.all.get(name).and_then(Value::as_int).and_then(|n| u64::try_from(n).ok());
    let (cpu_cores, memory_mb) = (number("num_cpus").unwrap_or(0), number("mem_total").unwrap_or(0));
    let call = Call { function: "disk.usage".to_owned(), args: Vec::new(), kwargs: Map::new() };
    let Value::Map(usage) = session.ask_one(call).await? else {
        return Err(Diagnostic::new(Code::Failed, format!("{} does not tell how large its disks are", session.host.id)).into());
    };
    Ok(Resources { cpu_cores, memory_gb: (memory_mb + KB / 2) / KB, storage_gb: (disks(&usage) + MB / 2) / MB })
}

/// The sum of the filesystems on devices and of `/`, whatever that is on, in KB.
fn disks(usage: &Map) -> u64 {
    let mut devices: Vec<(&str, u64)> = usage
        .iter()
        .filter_map(|(place, found)| {
            let Value::Map(found) = found else { return None };
            let device = found
                .get("filesystem")
                .and_then(Value::as_str)
                .filter(|device| device.starts_with("/dev/") || place.as_str() == Some("/"))?;
            let blocks = found.get("1K-blocks").map(Value::to_text)?.parse().ok()?;
            Some((device, blocks))
        })
        .collect();
    devices.sort_unstable();
    devices.dedup_by_key(|(device, _)| *device);
    devices.iter().map(|(_, blocks)| blocks).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_device_counts_once_and_so_does_the_root_of_a_container() {
        let filesystem = |device: &str, blocks: &str| -> Value {
            Value::Map([("filesystem", Value::str(device)), ("1K-blocks", Value::str(blocks))].into_iter().collect())
        };
        let usage: Map = [
            ("/", filesystem("overlay", "1000")),
            ("/run", filesystem("tmpfs", "50")),
            ("/srv", filesystem("/dev/sdb1", "300")),
            ("/srv/again", filesystem("/dev/sdb1", "300")),
        ]
        .into_iter()
        .collect();
        assert_eq!(disks(&usage), 1300);
    }
}
