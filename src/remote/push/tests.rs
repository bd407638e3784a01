//! The script on every POSIX shell that is here, with a shell script in the agent's place.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use tokio::process::Command;

use super::*;
use crate::agent::protocol::{Body, Hello, Message, encode};
use crate::remote::local::spawn;

/// A program that does what the agent does at its start: `--probe` succeeds, otherwise magic and hello, and then it repeats its arguments.
fn agent(marker: &str) -> Agents {
    let hello = Hello { protocol: 1, version: marker.into(), grains: Default::default(), grain_files: vec![], generation: 0, uid: 0 };
    let frame = encode(&Message { stream: 0, body: Body::Hello(hello) }).unwrap();
    let octal: String = [MAGIC, &frame].concat().iter().map(|byte| format!("\\{byte:03o}")).collect();
    let script =
        format!("#!/bin/sh\n[ \"$1\" = --probe ] && exit 0\nprintf '{octal}'\necho \"args:$* umask:$(umask)\" >&2\nexec cat >/dev/null\n");
    // Larger than a pipe holds.
    let script = script + &"# padding\n".repeat(30_000);
    let machine = std::process::Command::new("uname").arg("-sm").output().unwrap().stdout;
    let mut agents = Agents::default();
    agents.add(String::from_utf8(machine).unwrap().trim(), script.into_bytes());
    agents
}

struct Place(tempfile::TempDir);

impl Place {
    fn new() -> Place {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join("home")).unwrap();
        Place(dir)
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    /// The command under `shell -c`, as a login shell would run it.
    fn wire(&self, shell: &[&str], host: &Host, agents: &Agents, path: Option<&Path>) -> Wire {
        let mut line = command(host, agents, false);
        // The last resorts are this machine's own: keep them out.
        for own in ["/run/user/$u", "/var/tmp", "/dev/shm"] {
            line = line.replace(own, &format!("{}/no", self.0.path().display()));
        }
        line = line.replace(" /tmp/", &format!(" {}/no/", self.0.path().display()));
        let mut command = Command::new(shell[0]);
        command.args(&shell[1..]).arg("-c").arg(line).env("HOME", self.path("home")).env("BASALT_CACHE", self.path("cache"));
        if let Some(path) = path {
            command.env("PATH", path);
        }
        spawn(command, Duration::from_secs(10)).unwrap()
    }

    async fn start(&self, shell: &[&str], agents: &Agents) -> Result<Link> {
        let host = Host::new("h", "h");
        start(self.wire(shell, &host, agents, None), &host, agents, None).await
    }

    fn cached(&self, dir: &str) -> Vec<String> {
        let Ok(entries) = fs::read_dir(self.path(dir)) else { return Vec::new() };
        entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
    }
}

/// Shells that are installed here, and those in directories that `BASALT_TEST_SHELLS` names.
fn shells() -> Vec<Vec<String>> {
    let extra = std::env::var("BASALT_TEST_SHELLS").unwrap_or_default();
    let dirs: Vec<&str> = extra.split(':').chain(["/bin", "/usr/bin"]).filter(|dir| !dir.is_empty()).collect();
    let mut out = Vec::new();
    for name in ["sh", "dash", "bash", "busybox", "mksh", "zsh", "fish", "tcsh"] {
        if let Some(found) = dirs.iter().map(|dir| format!("{dir}/{name}")).find(|path| Path::new(path).exists()) {
            out.push(if name == "busybox" { vec![found, "sh".into()] } else { vec![found] });
        }
    }
    out
}

#[tokio::test]
async fn every_shell_gets_the_agent_once_and_then_finds_it() {
    for shell in shells() {
        let shell: Vec<&str> = shell.iter().map(String::as_str).collect();
        let (place, agents) = (Place::new(), agent("one"));
        for turn in 0..2 {
            let link = place.start(&shell, &agents).await.unwrap_or_else(|e| panic!("{shell:?}: {e} {}", e.detail));
            assert_eq!(link.hello.version, "one");
            link.close().await;
            if turn == 0 {
                let name = format!("basalt-agent-{}", short(&agents.0[0].hash));
                assert_eq!(place.cached("cache"), std::slice::from_ref(&name), "{shell:?}");
                let meta = fs::metadata(place.path("cache").join(name)).unwrap();
                assert_eq!((meta.mode() & 0o7777, meta.len()), (0o700, agents.0[0].bytes.len() as u64));
                assert_eq!(fs::metadata(place.path("cache")).unwrap().mode() & 0o7777, 0o700);
            }
        }
    }
}

#[tokio::test]
async fn arguments_arrive_and_the_umask_is_the_login_shell_s() {
    let (place, agents) = (Place::new(), agent("x"));
    let host = Host { root: Some("/srv/a-b_c".into()), ..Host::new("h", "h") };
    let link = start(place.wire(&["sh"], &host, &agents, None), &host, &agents, None).await.unwrap();
    let errors = link.errors();
    link.close().await;
    let umask = std::process::Command::new("sh").args(["-c", "umask"]).output().unwrap().stdout;
    let expected = format!("args:--root /srv/a-b_c umask:{}", String::from_utf8(umask).unwrap().trim());
    // Standard error is collected beside the conversation and may come a moment after its end.
    for _ in 0..200 {
        if errors.text().contains(&expected) {
            return;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("{expected:?} is not in {:?}", errors.text());
}

#[tokio::test]
async fn a_host_without_sha256sum_and_head_works_too() {
    let (place, agents) = (Place::new(), agent("bare"));
    let bin = place.path("bin");
    fs::create_dir(&bin).unwrap();
    for tool in ["sh", "uname", "id", "mkdir", "chmod", "ls", "cat", "dd", "wc", "mv", "rm", "find"] {
        let found = ["/bin", "/usr/bin"].iter().map(|dir| Path::new(dir).join(tool)).find(|path| path.exists()).unwrap();
        std::os::unix::fs::symlink(found, bin.join(tool)).unwrap();
    }
    let host = Host::new("h", "h");
    let wire = place.wire(&["/bin/sh"], &host, &agents, Some(&bin));
    assert_eq!(start(wire, &host, &agents, None).await.unwrap().hello.version, "bare");
}

#[tokio::test]
async fn a_place_that_will_not_do_gives_way_to_the_next() {
    let agents = agent("x");
    // Not a directory.
    let place = Place::new();
    fs::write(place.path("cache"), "").unwrap();
    assert!(place.start(&["sh"], &agents).await.is_ok());
    assert_eq!(place.cached("home/.cache/basalt").len(), 1);
    // A symbolic link, which somebody else could have laid.
    let place = Place::new();
    fs::create_dir(place.path("elsewhere")).unwrap();
    std::os::unix::fs::symlink(place.path("elsewhere"), place.path("cache")).unwrap();
    assert!(place.start(&["sh"], &agents).await.is_ok());
    assert_eq!((place.cached("elsewhere").len(), place.cached("home/.cache/basalt").len()), (0, 1));
    // A full disk.
    if Path::new("/dev/full").exists() {
        let place = Place::new();
        let tools = place.path("tools");
        fs::create_dir(&tools).unwrap();
        fs::write(
            tools.join("cat"),
            "#!/bin/sh\ncase $(readlink /proc/$$/fd/1) in *cache/basalt-agent*) exec /bin/cat >/dev/full;; esac\nexec /bin/cat\n",
        )
        .unwrap();
        fs::set_permissions(tools.join("cat"), fs::Permissions::from_mode(0o755)).unwrap();
        let path = format!("{}:/usr/bin:/bin", tools.display());
        let host = Host::new("h", "h");
        let link = start(place.wire(&["sh"], &host, &agents, Some(Path::new(&path))), &host, &agents, None).await.unwrap();
        assert_eq!(link.hello.version, "x");
        assert_eq!((place.cached("cache").len(), place.cached("home/.cache/basalt").len()), (0, 1));
    }
}

#[tokio::test]
async fn when_no_place_will_do_all_reasons_are_told() {
    let (place, agents) = (Place::new(), agent("x"));
    fs::write(place.path("cache"), "").unwrap();
    fs::write(place.path("home/.cache"), "").unwrap();
    let error = place.start(&["sh"], &agents).await.err().unwrap();
    assert_eq!((error.code, error.summary.as_str()), (Code::Unreachable, "the agent found no place on the host"));
    assert!(error.detail.contains(&format!("{}: ", place.path("cache").display())), "{}", error.detail);
}

#[tokio::test]
async fn an_agent_that_arrives_damaged_is_not_run() {
    let place = Place::new();
    let mut agents = agent("x");
    let host = Host::new("h", "h");
    let wire = place.wire(&["sh"], &host, &agents, None);
    agents.0[0].bytes.to_mut()[5000] ^= 1;
    let error = start(wire, &host, &agents, None).await.err().unwrap();
    assert!(error.detail.contains("it arrived damaged"), "{}", error.detail);
    assert!(place.cached("cache").is_empty());
}

#[tokio::test]
async fn a_machine_without_an_agent_is_told_with_what_there_is() {
    let place = Place::new();
    let mut agents = Agents::default();
    agents.add("Linux riscv128", b"x".as_slice());
    let error = place.start(&["sh"], &agents).await.err().unwrap();
    assert!(error.summary.starts_with("basalt carries no agent for this host: it is "), "{}", error.summary);
    assert_eq!(error.detail, "it carries agents for Linux riscv128");
}

#[tokio::test]
async fn old_agents_go_and_recent_ones_stay() {
    let (place, agents) = (Place::new(), agent("x"));
    fs::create_dir(place.path("cache")).unwrap();
    for (name, days) in [("basalt-agent-old", 9), ("basalt-agent-new", 1), ("other", 90)] {
        let file = fs::File::create(place.path("cache").join(name)).unwrap();
        let then = std::time::SystemTime::now() - Duration::from_secs(days * 86_400);
        file.set_times(fs::FileTimes::new().set_accessed(then).set_modified(then)).unwrap();
    }
    place.start(&["sh"], &agents).await.unwrap();
    let mut left = place.cached("cache");
    left.sort();
    assert_eq!(left.len(), 3);
    assert!(left.iter().any(|name| name == "basalt-agent-new") && left.iter().any(|name| name == "other"));
}

#[tokio::test]
async fn a_shell_that_refuses_is_told_with_its_words() {
    let agents = agent("x");
    let host = Host::new("h", "h");
    let mut command = Command::new("sh");
    command.args(["-c", "echo This account is currently not available.; exit 1"]);
    let error = start(spawn(command, Duration::from_secs(5)).unwrap(), &host, &agents, None).await.err().unwrap();
    assert_eq!(error.summary, "the agent did not start");
    assert!(error.detail.contains("status 1") && error.detail.contains("currently not available"), "{}", error.detail);
    assert!(error.hint.as_deref().is_some_and(|hint| hint.contains("shell")));
}

/// A `sudo` that does as the real one does with `-S`: asks twice, reads its standard input bytewise, and knows one password.
#[tokio::test]
async fn sudo_gets_its_password_when_it_asks_and_a_wrong_one_is_an_error() {
    let (place, agents) = (Place::new(), agent("root"));
    let tools = place.path("tools");
    fs::create_dir(&tools).unwrap();
    let sudo = "#!/bin/sh\nfor i in 1 2 3; do printf '%s' \"$3\" >&2; read -r p || exit 1; if [ \"$p\" = right ]; then shift 7; exec \"$@\"; fi; echo 'Sorry, try again.' >&2; done\n";
    fs::write(tools.join("sudo"), sudo).unwrap();
    fs::set_permissions(tools.join("sudo"), fs::Permissions::from_mode(0o755)).unwrap();
    let host = Host { sudo: true, user: Some("me".into()), ..Host::new("h", "h") };
    for (password, works) in [("right", true), ("wrong", false)] {
        let mut command = Command::new("sh");
        let path = format!("{}:/usr/bin:/bin", tools.display());
        command.arg("-c").arg(super::command(&host, &agents, true)).env("PATH", path);
        command.env("HOME", place.path("home")).env("BASALT_CACHE", place.path("cache"));
        let wire = spawn(command, Duration::from_secs(10)).unwrap();
        match start(wire, &host, &agents, Some(&Secret(password.into()))).await {
            Ok(link) => assert!(works && link.hello.version == "root"),
            Err(error) => {
                assert!(!works, "{error} {}", error.detail);
                assert_eq!(error.summary, "sudo does not accept the password of me");
            }
        }
    }
}

#[tokio::test]
async fn a_host_that_says_nothing_is_given_up() {
    let mut command = Command::new("sleep");
    command.arg("60");
    let host = Host::new("h", "h");
    let begun = std::time::Instant::now();
    let error = start(spawn(command, Duration::from_millis(300)).unwrap(), &host, &agent("x"), None).await.err().unwrap();
    assert!(error.summary.contains("said nothing") && begun.elapsed() < Duration::from_secs(3));
}
