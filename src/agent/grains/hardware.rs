//! Grains of the machine: processors, memory, firmware, disks, and whether it is a machine at all.

use super::Host;
use crate::value::{Map, Value};

pub fn collect(host: &Host, grains: &mut Map) {
    cpu(host, grains);
    gpus(host, grains);
    let memory = host.text("/proc/meminfo").unwrap_or_default();
    for (grain, field) in [("mem_total", "MemTotal:"), ("swap_total", "SwapTotal:")] {
        let kib = memory.lines().find_map(|l| l.strip_prefix(field)?.split_whitespace().next()?.parse::<i64>().ok());
        grains.insert(grain, kib.unwrap_or(0) / 1024);
    }
    device_tree(host, grains);
    let text = |name: &str| host.text(&format!("/sys/class/dmi/id/{name}")).map(|t| t.trim().to_owned());
    let dmi = |name: &str| text(name).filter(|t| !t.is_empty());
    for (grain, file) in [
        ("biosversion", "bios_version"),
        ("biosvendor", "bios_vendor"),
        ("biosreleasedate", "bios_date"),
        ("manufacturer", "sys_vendor"),
        ("productname", "product_name"),
        ("boardname", "board_name"),
        ("serialnumber", "product_serial"),
    ] {
        if let Some(value) = text(file) {
            grains.insert(grain, value);
        }
    }
    if let Some(uuid) = text("product_uuid") {
        grains.insert("uuid", uuid.to_lowercase());
    }
    grains.insert("efi", host.exists("/sys/firmware/efi/efivars") || host.exists("/sys/firmware/efi/vars"));
    let variable = host.names("/sys/firmware/efi/efivars").into_iter().find(|n| n.starts_with("SecureBoot-"));
    let secure = variable.and_then(|n| std::fs::read(host.sys.path(&format!("/sys/firmware/efi/efivars/{n}"))).ok());
    grains.insert("efi-secure-boot", secure.is_some_and(|bytes| bytes.last() == Some(&1)));

    let (mut disks, mut ssds) = (Vec::new(), Vec::new());
    for name in host.names("/sys/block") {
        let device = std::fs::read_link(host.sys.path(&format!("/sys/block/{name}"))).unwrap_or_default();
        if device.starts_with("../devices/virtual") {
            continue;
        }
        match host.line(&format!("/sys/block/{name}/queue/rotational")).as_deref() {
            Some("0") => ssds.push(Value::from(name)),
            Some("1") => disks.push(Value::from(name)),
            _ => {}
        }
    }
    grains.insert("disks", disks);
    grains.insert("ssds", ssds);

    let (mut kind, mut subtype) = virtualization(host, dmi);
    let group = host.text("/proc/1/cgroup").unwrap_or_default();
    if group.contains(":/lxc/") {
        (kind, subtype) = ("container", Some("LXC"));
    } else if group.contains(":/kubepods/") {
        subtype = Some("kubernetes");
    } else if group.contains(":/libpod_parent/") {
        subtype = Some("libpod");
    } else if [":/system.slice/docker", ":/docker/", ":/docker-ce/"].iter().any(|g| group.contains(g)) {
        (kind, subtype) = ("container", Some("Docker"));
    } else if chroot(host) {
        subtype = subtype.or(Some("chroot"));
    }
    if subtype.is_some() && kind == "physical" {
        kind = "virtual";
    }
    grains.insert("virtual", kind);
    if let Some(subtype) = subtype {
        grains.insert("virtual_subtype", subtype);
    }
}

fn cpu(host: &Host, grains: &mut Map) {
    let info = host.text("/proc/cpuinfo").unwrap_or_default();
    let (mut count, mut model, mut flags) = (0, "Unknown", "");
    for (name, value) in info.lines().filter_map(|l| l.split_once(':')).map(|(name, value)| (name.trim(), value.trim())) {
        // A value ends at the next colon, as Salt reads it.
        let value = value.split(':').next().unwrap_or_default().trim();
        match name {
            "processor" => count += 1,
            "# processors" => count = value.parse().unwrap_or(count),
            "vendor_id" | "model name" | "cpu" => model = value,
            "flags" | "Features" => flags = value,
            "Processor" => (model, count) = (value.split('-').next().unwrap_or_default(), 1),
            _ => {}
        }
    }
    grains.insert("num_cpus", Value::Int(count));
    grains.insert("cpu_model", model);
    grains.insert("cpu_flags", flags.split_whitespace().map(Value::from).collect::<Vec<_>>());
}

/// Boards without firmware tables say in their device tree what they are.
fn device_tree(host: &Host, grains: &mut Map) {
    let of =
        |name: &str| host.text(&format!("/proc/device-tree/{name}")).map(|t| t.trim_end_matches('\0').to_owned()).filter(|t| !t.is_empty());
    if let Some(model) = of("model") {
        match model.split_once(',') {
            Some((maker, product)) => {
                grains.insert("manufacturer", maker);
                grains.insert("productname", product);
            }
            None => drop(grains.insert("productname", model)),
        }
    }
    if let Some(serial) = of("serial-number").or_else(|| of("system-id")) {
        grains.insert("serialnumber", serial);
    }
}

/// Salt asks `lspci`; it knows nothing where that is missing.
fn gpus(host: &Host, grains: &mut Map) {
    const VENDORS: [&str; 8] = ["nvidia", "amd", "ati", "intel", "cirrus logic", "vmware", "matrox", "aspeed"];
    let mut gpus = Vec::new();
    if host.program("lspci") {
        let mut list = None;
        for device in host.names("/sys/bus/pci/devices") {
            let of = |file: &str| {
                host.line(&format!("/sys/bus/pci/devices/{device}/{file}")).and_then(|l| l.strip_prefix("0x").map(str::to_owned))
            };
            // Display controllers but plain "others", and processing accelerators.
            let class = of("class").unwrap_or_default();
            if !["0300", "0302", "0380", "1200"].iter().any(|c| class.starts_with(c)) {
                continue;
            }
            let list = list.get_or_insert_with(|| {
                let places = ["/usr/share/misc/pci.ids", "/usr/share/hwdata/pci.ids", "/usr/share/pci.ids"];
                places.iter().find_map(|p| host.text(p)).unwrap_or_default()
            });
            let (vendor, model) = pci_name(list, &of("vendor").unwrap_or_default(), &of("device").unwrap_or_default());
            let lower = vendor.to_lowercase();
            let known = VENDORS.into_iter().find(|v| lower.split(|c: char| !c.is_ascii_alphanumeric()).any(|word| word == *v));
            let gpu: Map = [("vendor", known.unwrap_or("unknown").to_owned()), ("model", model)].into_iter().collect();
            gpus.push(Value::Map(gpu));
        }
    }
    grains.insert("num_gpus", Value::Int(gpus.len() as i64));
    grains.insert("gpus", gpus);
}

/// The names of a vendor and its device in the list that `lspci` reads: devices stand indented below their vendor.
fn pci_name(list: &str, vendor: &str, device: &str) -> (String, String) {
    let mut lines = list.lines().skip_while(|line| line.strip_prefix(vendor).is_none_or(|rest| !rest.starts_with("  ")));
    let name = lines.next().and_then(|line| line.get(vendor.len()..)).map(|n| n.trim().to_owned());
    let own = lines.take_while(|line| line.starts_with(['\t', '#']));
    let model = own.filter_map(|line| line.strip_prefix('\t')?.strip_prefix(device)).map(|n| n.trim().to_owned()).next();
    (name.unwrap_or_else(|| format!("Vendor {vendor}")), model.unwrap_or_else(|| format!("Device {device}")))
}

/// Whether the first process has another root than this one.
fn chroot(host: &Host) -> bool {
    use std::os::unix::fs::MetadataExt;
    let of = |path: &str| std::fs::metadata(host.sys.path(path)).ok().map(|m| (m.dev(), m.ino()));
    of("/proc/1/root/.").is_some_and(|first| of("/") != Some(first))
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
