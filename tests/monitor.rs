//! The storage monitor as the sample's states deploy it, in its sandbox: a real small filesystem is filled until each tier acts. What is preserved,
//! critical, young or open stays.

mod lab;

use std::path::Path;
use std::time::{Duration, Instant};

use lab::host::Spec;
use lab::{Host, Lab};
use serde_json::Value;

const DATA: &str = "/srv/data";

/// What pillar says: an edge node of two (70 75 80 83 86 90) whose logs and temporary files are on the small filesystem too.
const PILLAR: &str = "
role: edge
scale: small
storage:
  log_paths: [/var/log, /srv/data/log]
  temporary_paths: [/srv/data/tmp]
  critical: [/etc, '*.key']
  important: [/var/log, /srv/data/log]
  expendable: [/srv/data/tmp]
  stop_services: [lab-service, not-there]
  preserve_paths: [/etc, '/srv/data/*/keep']
  metrics: /var/lib/prometheus/node-exporter/eos-storage.prom
";

fn lab() -> Lab {
    let lab = Lab::start(vec![Spec::systemd("h1").disks(&["64m"])]);
    let package = Path::new(env!("CARGO_MANIFEST_DIR"));
    for folder in ["states/basalt", "states/storage", "states/storage/files"] {
        for file in std::fs::read_dir(package.join(folder)).unwrap().map(|entry| entry.unwrap().path()).filter(|path| path.is_file()) {
            lab.write(file.strip_prefix(package).unwrap().to_str().unwrap(), &std::fs::read_to_string(&file).unwrap());
        }
    }
    lab.write("states/top.sls", "base:\n  '*': [storage]\n");
    lab.write("pillar/top.sls", "base:\n  '*': [storage]\n");
    lab.write("pillar/storage.sls", PILLAR);
    lab.commit("storage operations");
    let host = &lab["h1"];
    let disk = &host.disks()[0];
    host.sh(&format!(
        "mkfs.ext4 -q -m 0 {disk}; mkdir -p {DATA} /var/lib/prometheus/node-exporter; mount {disk} {DATA}; apt-get -qq install lab-service"
    ))
    .ok();
    host.sh(&format!("mkdir -p {DATA}/log/keep {DATA}/tmp/keep; systemctl is-active lab-service")).ok();
    lab
}

/// A file of so many megabytes, last touched so many days ago.
fn file(host: &Host, path: &str, megabytes: u32, days: u32) {
    host.sh(&format!("head -c {megabytes}M /dev/zero >{DATA}/{path}; touch -d '{days} days ago' {DATA}/{path}")).ok();
}

/// Fills the filesystem to this percentage with a file that has no class.
fn fill(host: &Host, percent: u32) {
    let script = format!(
        "rm -f {DATA}/filler; sync; set -- $(stat -f -c '%b %f %a %S' {DATA})
        head -c $(( ({percent} * ($1 - $2 + $3) / 100 - ($1 - $2)) * $4 + 2 * $4 )) /dev/zero >{DATA}/filler; sync"
    );
    host.sh(&script).ok();
}

/// One pass of the daemon in its sandbox: the events it tells, of the small filesystem.
fn pass(host: &Host) -> Vec<Value> {
    host.sh("rm -f /var/lib/prometheus/node-exporter/*; systemctl reset-failed eos-storage-monitor; systemctl restart eos-storage-monitor")
        .ok();
    let limit = Instant::now() + Duration::from_secs(30);
    // The metrics are what it writes last.
    while host.sh("test -e /var/lib/prometheus/node-exporter/eos-storage.prom").code != Some(0) {
        assert!(
            Instant::now() < limit,
            "no pass: {}",
            host.sh("systemctl status eos-storage-monitor; journalctl -u eos-storage-monitor").stdout
        );
        std::thread::sleep(Duration::from_millis(50));
    }
    let text = host
        .sh("journalctl --sync; journalctl -o cat _SYSTEMD_INVOCATION_ID=$(systemctl show -p InvocationID --value eos-storage-monitor)")
        .ok()
        .stdout;
    events(&text)
}

fn events(text: &str) -> Vec<Value> {
    let all = text.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
    all.filter(|event| event["mount"] == DATA || event["event"] == "error").collect()
}

/// The tiers that the events name, in their order.
fn tiers(events: &[Value]) -> Vec<String> {
    events.iter().filter(|event| event["event"] == "tier").map(|event| event["tier"].as_str().unwrap_or("none").to_owned()).collect()
}

fn actions(events: &[Value]) -> Vec<String> {
    events.iter().filter(|event| event["event"] == "action").map(|event| event["action"].as_str().unwrap().to_owned()).collect()
}

/// What is below the small filesystem, without the filler.
fn files(host: &Host) -> String {
    host.sh(&format!("cd {DATA}; find log tmp -type f | sort | tr '\\n' ' '")).ok().stdout.trim().to_owned()
}

#[test]
fn a_small_filesystem_is_filled_until_each_tier_acts_and_what_is_preserved_stays() {
    if !lab::required() {
        return;
    }
    let lab = lab();
    let host = &lab["h1"];
    let before = host.fingerprint_root();
    lab.basalt(["apply", "--yes"]).code(0);
    lab.basalt(["plan", "--detailed-exitcode"]).code(0);

    // Nothing to do, then a word of warning.
    assert_eq!(pass(host), Vec::<Value>::new());
    fill(host, 71);
    assert_eq!(tiers(&pass(host)), ["warning"]);

    // Old logs are compressed: not those that are preserved, young, or open.
    for (path, days) in [("log/app.log", 10), ("log/keep/app.log", 10), ("log/young.log", 2), ("log/open.log", 10), ("log/other.log", 10)] {
        file(host, path, 2, days);
    }
    file(host, "log/x.key", 1, 90);
    host.sh(&format!("exec 9>>{DATA}/log/open.log; setsid sleep 600 </dev/null >/dev/null 2>&1 & echo $! >/run/writer")).ok();
    fill(host, 76);
    let dry = host.sh("/usr/local/sbin/basalt-agent monitor --dry-run").ok();
    assert!(dry.stdout.contains("\"dry_run\":true,\"what\":[\"/srv/data/log/app.log\",\"/srv/data/log/other.log\"]"), "{dry}");
    let told = pass(host);
    assert_eq!(
        (tiers(&told), actions(&told)),
        (vec!["compress".to_owned(), "warning".to_owned()], vec!["compress".to_owned()]),
        "{told:#?}"
    );
    assert_eq!(files(host), "log/app.log.gz log/keep/app.log log/open.log log/other.log.gz log/x.key log/young.log");
    assert_eq!(
        host.sh(&format!("gzip -cd {DATA}/log/app.log.gz | wc -c; find {DATA}/log/app.log.gz -mtime +8")).ok().stdout,
        "2097152\n/srv/data/log/app.log.gz\n"
    );

    // Temporary files and very old logs go.
    for (path, days) in
        [("tmp/old", 10), ("tmp/keep/old", 10), ("tmp/young", 1), ("tmp/old.key", 10), ("log/app.log.1", 40), ("log/keep/app.log.1", 40)]
    {
        file(host, path, 1, days);
    }
    host.sh(&format!("ln -s /etc {DATA}/tmp/link; touch -h -d '10 days ago' {DATA}/tmp/link")).ok();
    fill(host, 82);
    let told = pass(host);
    assert_eq!(actions(&told), ["temporary", "old_logs"], "{told:#?}");
    let left = "log/app.log.gz log/keep/app.log log/keep/app.log.1 log/open.log log/other.log.gz log/x.key log/young.log tmp/keep/old tmp/old.key tmp/young";
    assert_eq!(files(host), left);

    // A service that can be missed is stopped. It stays stopped: the next apply may start it.
    fill(host, 84);
    let told = pass(host);
    assert_eq!((tiers(&told), actions(&told)), (vec!["degraded".to_owned()], vec!["stop".to_owned()]), "{told:#?}");
    assert_eq!(host.sh("systemctl is-active lab-service").stdout, "inactive\n");

    // Logs of yesterday go.
    fill(host, 87);
    let told = pass(host);
    assert_eq!(actions(&told), ["logs"], "{told:#?}");
    assert_eq!(files(host), left.replace("log/app.log.gz ", "").replace("log/other.log.gz ", "").replace(" log/young.log", ""));

    // A person is needed, and told so, until it is over.
    fill(host, 92);
    let told = pass(host);
    assert!(told.iter().any(|event| event["event"] == "critical"), "{told:#?}");
    host.sh("grep -q 'A person is needed' /var/lib/eos/storage/critical-srv-data; /usr/local/sbin/basalt-agent monitor").code(3);
    host.sh("grep 'tier{mount=\"/srv/data\"} 6' /var/lib/prometheus/node-exporter/eos-storage.prom").ok();
    host.sh(&format!("rm {DATA}/filler")).ok();
    assert_eq!(tiers(&pass(host)), ["none"]);
    host.sh("! test -e /var/lib/eos/storage/critical-srv-data").ok();

    // Its own history tells when it will be full.
    let history = "now=$(date +%s); for d in 6 5 4 3 2 1; do echo $((now - d * 86400)) $((50000000 - d * 4000000)) /srv/data; done";
    host.sh(&format!("{{ {history}; }} >/var/lib/eos/storage/history")).ok();
    fill(host, 60);
    let told = pass(host);
    assert!(
        told.iter().any(|event| event["event"] == "forecast" && event["full_in_days"].as_f64().is_some_and(|days| days < 30.0)),
        "{told:#?}"
    );

    // A preserved path, a link and somebody else's file: all still there. Then everything that was deployed goes.
    host.sh(&format!("test -L {DATA}/tmp/link && test -e {DATA}/tmp/keep/old && test -e /etc/passwd")).ok();
    lab.basalt(["rollback", "--yes"]).code(0);
    host.sh("kill $(cat /run/writer); systemctl start lab-service; rm -rf /var/lib/eos /var/lib/prometheus/node-exporter/*").ok();
    let after = host.fingerprint_root();
    let diff: String = before.diff(&after).lines().filter(|line| !line.contains("/srv/data")).map(|line| format!("{line}\n")).collect();
    assert_eq!(diff, "");
}
