//! Grains of the machine: processors, memory, firmware, disks, and whether it is a machine at all.

use super::Host;
use crate::value::{Map, Value};

pub fn collect(host: &Host, grains: &mut Map) {
    cpu(host, grains);
    let memory = host.text("/proc/meminfo").unwrap_or_default();
    for (grain, field) in [("mem_total", "MemTotal:"), ("swap_total", "SwapTotal:")] {
        let kib = memory.lines().find_map(|l| l.strip_prefix(field)?.split_whitespace().next()?.parse::<i64>().ok());
        if let Some(kib) = kib {
            grains.insert(grain, kib / 1024);
        }
    }
    let dmi = |name: &str| host.line(&format!("/sys/class/dmi/id/{name}"));
    for (grain, file) in [
        ("biosversion", "bios_version"),
        ("biosvendor", "bios_vendor"),
        ("biosreleasedate", "bios_date"),
        ("manufacturer", "sys_vendor"),
        ("productname", "product_name"),
        ("boardname", "board_name"),
        ("serialnumber", "product_serial"),
    ] {
        if let Some(value) = dmi(file) {
            grains.insert(grain, value);
        }
    }
    if let Some(uuid) = dmi("product_uuid") {
        grains.insert("uuid", uuid.to_lowercase());
    }
    grains.insert("efi", host.exists("/sys/firmware/efi"));
    let variable = host.names("/sys/firmware/efi/efivars").into_iter().find(|n| n.starts_with("SecureBoot-"));
    let secure = variable.and_then(|n| std::fs::read(host.sys.path(&format!("/sys/firmware/efi/efivars/{n}"))).ok());
    grains.insert("efi-secure-boot", secure.is_some_and(|bytes| bytes.last() == Some(&1)));

    let (mut disks, mut ssds) = (Vec::new(), Vec::new());
    for name in host.names("/sys/block") {
        if ["ram", "loop", "zram"].iter().any(|kind| name.starts_with(kind)) {
            continue;
        }
        let spins = host.line(&format!("/sys/block/{name}/queue/rotational")).as_deref() != Some("0");
        if spins { &mut disks } else { &mut ssds }.push(Value::from(name));
    }
    grains.insert("disks", disks);
    grains.insert("ssds", ssds);

    let (kind, subtype) = virtualization(host, dmi);
    grains.insert("virtual", kind);
    if let Some(subtype) = subtype {
        grains.insert("virtual_subtype", subtype);
    }
}

fn cpu(host: &Host, grains: &mut Map) {
    let info = host.text("/proc/cpuinfo").unwrap_or_default();
    let fields = || info.lines().filter_map(|l| l.split_once(':')).map(|(name, value)| (name.trim(), value.trim()));
    let count = fields().filter(|(name, _)| *name == "processor").count();
    let last = |names: &[&str]| fields().filter(|(name, _)| names.contains(name)).map(|(_, value)| value).next_back();
    grains.insert("num_cpus", Value::Int(count as i64));
    grains.insert("cpu_model", last(&["model name", "Processor", "cpu", "vendor_id"]).unwrap_or("Unknown"));
    let flags = last(&["flags", "Features"]).unwrap_or_default();
    grains.insert("cpu_flags", flags.split_whitespace().map(Value::from).collect::<Vec<_>>());
}

/// Salt's `virtual` and `virtual_subtype`: containers first, then what the firmware says of itself.
fn virtualization(host: &Host, dmi: impl Fn(&str) -> Option<String>) -> (&'static str, Option<&'static str>) {
    let environment = host.text("/proc/1/environ").unwrap_or_default();
    let told = environment.split('\0').find_map(|v| v.strip_prefix("container=")).map(str::to_owned);
    match host.line("/run/systemd/container").or(told).as_deref() {
        Some("lxc" | "lxc-libvirt" | "lxd") => return ("container", Some("LXC")),
        Some("podman" | "oci") => return ("container", Some("Podman")),
        Some("docker") => return ("container", Some("Docker")),
        Some("systemd-nspawn") => return ("systemd-nspawn", None),
        Some(_) => return ("container", None),
        None => {}
    }
    if host.exists("/.dockerenv") {
        return ("container", Some("Docker"));
    }
    if host.exists("/run/.containerenv") {
        return ("container", Some("Podman"));
    }
    if host.exists("/proc/vz") && !host.exists("/proc/bc") {
        return ("openvzve", None);
    }
    let firmware: Vec<String> = ["product_name", "sys_vendor", "board_vendor", "bios_vendor"].iter().filter_map(|f| dmi(f)).collect();
    let says = |text: &str| firmware.iter().any(|f| f.starts_with(text));
    if says("VirtualBox") || says("innotek GmbH") {
        ("VirtualBox", None)
    } else if says("VMware") {
        ("VMware", None)
    } else if says("RHEV Hypervisor") {
        ("kvm", Some("rhev"))
    } else if says("oVirt") {
        ("kvm", Some("ovirt"))
    } else if says("Amazon EC2") {
        ("Nitro", Some("Amazon EC2"))
    } else if says("Google") {
        ("gce", None)
    } else if says("Virtual Machine") && says("Microsoft") {
        ("VirtualPC", None)
    } else if says("Parallels") {
        ("Parallels", None)
    } else if says("BHYVE") {
        ("bhyve", None)
    } else if says("Xen") || host.exists("/proc/xen/capabilities") {
        ("xen", Some("Xen HVM DomU"))
    } else if ["QEMU", "KVM", "Red Hat", "OpenStack", "KubeVirt", "Bochs"].iter().any(|f| says(f)) {
        ("kvm", None)
    } else if host.text("/proc/cpuinfo").is_some_and(|c| c.split_whitespace().any(|w| w == "hypervisor")) {
        // A hypervisor without firmware tables: firecracker and its like, all of them KVM.
        ("kvm", None)
    } else {
        ("physical", None)
    }
}
