//! Connections over a real sshd: a throwaway one of the test's own, on a loopback port, with its own keys and configuration.
//!
//! Login shells other than this user's are put between with ForceCommand. `BASALT_TEST_SHELLS` names directories with more of them.

#![cfg(feature = "controller")]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test that cannot go on panics")]

use std::fs;
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use basalt::agent::protocol::{Body, Message};
use basalt::diagnostic::{Code, Error};
use basalt::engine::link::{Connect, Link};
use basalt::fleet::{Host, Secret};
use basalt::remote::ssh::Ssh;
use basalt::remote::{Agents, Settings};

/// Whether there is what the tests need. With `CI=true` it must be there.
fn able() -> bool {
    let missing = if !Path::new("/usr/sbin/sshd").exists() {
        "there is no sshd"
    } else if Agents::carried().0.is_empty() {
        "this build carries no agent (BASALT_SKIP_AGENT)"
    } else {
        return true;
    };
    assert!(std::env::var("CI").as_deref() != Ok("true"), "sshd is required with CI=true, but {missing}");
    eprintln!("skipped: {missing}");
    false
}

struct Sshd {
    dir: tempfile::TempDir,
    listener: Child,
    port: u16,
    ssh: Ssh,
}

impl Sshd {
    /// One that lets the key `user` in, with more lines of configuration.
    fn start(more: &str) -> Sshd {
        let dir = tempfile::Builder::new().prefix("bs").tempdir().unwrap();
        for key in ["host", "user", "stranger"] {
            keygen(&["-t", "ed25519", "-N", "", "-f", &path(&dir, key)]);
        }
        fs::copy(dir.path().join("user.pub"), dir.path().join("authorized")).unwrap();
        fs::create_dir(dir.path().join("sockets")).unwrap();
        // sshd's own privilege separation wants this empty directory when it is started as root.
        let _ = fs::create_dir("/run/sshd");
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let config = format!(
            "Port {port}\nListenAddress 127.0.0.1\nHostKey {host}\nAuthorizedKeysFile {keys}\nUsePAM no\nStrictModes no\nPidFile none\n\
             PasswordAuthentication no\nKbdInteractiveAuthentication no\nSetEnv BASALT_CACHE={cache} HOME={home}\n{more}\n",
            host = path(&dir, "host"),
            keys = path(&dir, "authorized"),
            cache = path(&dir, "cache"),
            home = dir.path().display(),
        );
        fs::write(dir.path().join("config"), config).unwrap();
        let log = fs::File::create(dir.path().join("log")).unwrap();
        let listener = Command::new("/usr/sbin/sshd")
            .args(["-D", "-e", "-f", &path(&dir, "config")])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .unwrap();
        let begun = Instant::now();
        while TcpStream::connect(("127.0.0.1", port)).is_err() {
            assert!(begun.elapsed() < Duration::from_secs(20), "{}", fs::read_to_string(dir.path().join("log")).unwrap());
            std::thread::sleep(Duration::from_millis(10));
        }
        let known = fs::read_to_string(dir.path().join("host.pub")).unwrap();
        fs::write(dir.path().join("known"), format!("[127.0.0.1]:{port} {known}")).unwrap();
        let mut settings = Settings::new(Agents::carried());
        settings.silence = Duration::from_secs(20);
        let ssh = ssh(&dir, settings);
        Sshd { dir, listener, port, ssh }
    }

    fn host(&self) -> Host {
        let mut host = Host::new("h1", "127.0.0.1");
        host.port = Some(self.port);
        host.key = Some(path(&self.dir, "user"));
        host.timeout = Some(Duration::from_secs(10));
        let known = format!("UserKnownHostsFile={}", path(&self.dir, "known"));
        host.ssh_options = [&known, "GlobalKnownHostsFile=/dev/null", "IdentityAgent=none", "IdentitiesOnly=yes"].map(str::to_owned).into();
        let root = self.dir.path().join("root");
        fs::create_dir_all(&root).unwrap();
        host.root = Some(root.display().to_string());
        host
    }

    async fn open(&self, host: &Host) -> Link {
        self.ssh.open(host).await.unwrap_or_else(|error| panic!("{error}\n{}\nsshd: {}", error.detail, self.log()))
    }

    async fn refused(&self, host: &Host) -> Error {
        self.ssh.open(host).await.err().expect("it was let in")
    }

    fn log(&self) -> String {
        fs::read_to_string(self.dir.path().join("log")).unwrap()
    }

    fn logins(&self) -> usize {
        self.log().matches("Accepted publickey").count()
    }

    fn masters(&self) -> Vec<PathBuf> {
        let entries = fs::read_dir(self.dir.path().join("sockets")).unwrap().map(|entry| entry.unwrap().path());
        entries.filter(|path| path.extension().is_none()).collect()
    }
}

impl Drop for Sshd {
    fn drop(&mut self) {
        for socket in self.masters() {
            control(&socket, "exit");
        }
        let _ = self.listener.kill();
        let _ = self.listener.wait();
    }
}

fn ssh(dir: &tempfile::TempDir, settings: Settings) -> Ssh {
    Ssh::at(settings, Ok(dir.path().join("sockets")), env!("CARGO_BIN_EXE_basalt").into())
}

fn path(dir: &tempfile::TempDir, name: &str) -> String {
    dir.path().join(name).display().to_string()
}

fn keygen(args: &[&str]) -> String {
    let output = Command::new("ssh-keygen").arg("-q").args(args).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

fn control(socket: &Path, what: &str) -> String {
    let output = Command::new("ssh").arg("-S").arg(socket).args(["-O", what, "x"]).stdin(Stdio::null()).output().unwrap();
    String::from_utf8(output.stderr).unwrap()
}

async fn speaks(mut link: Link) {
    link.send(1, Body::Runs).await.unwrap();
    let Message { stream, body } = link.next().await.unwrap();
    assert!(matches!((stream, &body), (1, Body::History { .. })), "{body:?}");
    link.close().await;
}

#[tokio::test]
async fn a_login_serves_many_calls_and_the_agent_is_sent_once() {
    if !able() {
        return;
    }
    let sshd = Sshd::start("");
    let host = sshd.host();
    let first = sshd.open(&host).await;
    assert_eq!(first.hello.version, env!("CARGO_PKG_VERSION"));
    speaks(first).await;
    let agent = fs::read_dir(sshd.dir.path().join("cache")).unwrap().next().unwrap().unwrap();
    let sent = agent.metadata().unwrap().modified().unwrap();
    // Another program, a moment later.
    let again = ssh(&sshd.dir, Settings::new(Agents::carried()));
    let (one, two) = tokio::join!(again.open(&host), sshd.ssh.open(&host));
    speaks(one.unwrap()).await;
    speaks(two.unwrap()).await;
    assert_eq!((sshd.logins(), agent.metadata().unwrap().modified().unwrap()), (1, sent));
}

#[tokio::test]
async fn two_that_connect_at_the_same_time_share_one_login() {
    if !able() {
        return;
    }
    let sshd = Sshd::start("");
    let (one, two) = (sshd.host(), Host { id: "h2".into(), ..sshd.host() });
    let other = ssh(&sshd.dir, Settings::new(Agents::carried()));
    let (a, b, c) = tokio::join!(sshd.ssh.open(&one), sshd.ssh.open(&two), other.open(&one));
    for link in [a, b, c] {
        speaks(link.unwrap()).await;
    }
    assert_eq!((sshd.logins(), sshd.masters().len()), (1, 1));
}

#[tokio::test]
async fn a_master_that_was_killed_is_replaced() {
    if !able() {
        return;
    }
    let sshd = Sshd::start("");
    let host = sshd.host();
    speaks(sshd.open(&host).await).await;
    let socket = sshd.masters().remove(0);
    let told = control(&socket, "check");
    let pid: i32 = told.split("pid=").nth(1).and_then(|rest| rest.split(')').next()).unwrap_or_else(|| panic!("{told}")).parse().unwrap();
    rustix::process::kill_process(rustix::process::Pid::from_raw(pid).unwrap(), rustix::process::Signal::KILL).unwrap();
    assert!(socket.exists());
    speaks(sshd.open(&host).await).await;
    assert_eq!(sshd.logins(), 2);
}

#[tokio::test]
async fn a_wrong_key_is_told_with_what_the_host_accepts() {
    if !able() {
        return;
    }
    let sshd = Sshd::start("");
    let error = sshd.refused(&Host { key: Some(path(&sshd.dir, "stranger")), user: Some("root".into()), ..sshd.host() }).await;
    assert_eq!((error.code, error.summary.as_str()), (Code::Unreachable, "127.0.0.1 does not let root in (it accepts publickey)"));
    assert!(error.hint.as_ref().unwrap().contains("priv"));
}

#[tokio::test]
async fn a_key_with_a_passphrase_takes_it_from_the_roster() {
    if !able() {
        return;
    }
    let sshd = Sshd::start("");
    keygen(&["-p", "-P", "", "-N", "two words", "-f", &path(&sshd.dir, "user")]);
    let error = sshd.refused(&sshd.host()).await;
    assert!(error.hint.as_ref().unwrap().contains("has a passphrase"), "{error:?}");
    let error = sshd.refused(&Host { key_password: Some(Secret("wrong".into())), ..sshd.host() }).await;
    assert!(error.hint.as_ref().unwrap().contains("priv_passwd"), "{error:?}");
    speaks(sshd.open(&Host { key_password: Some(Secret("two words".into())), ..sshd.host() }).await).await;
}

#[tokio::test]
async fn an_unknown_host_key_is_refused_with_its_fingerprint() {
    if !able() {
        return;
    }
    let sshd = Sshd::start("");
    fs::write(sshd.dir.path().join("known"), "").unwrap();
    let error = sshd.refused(&sshd.host()).await;
    let shown = keygen(&["-l", "-f", &path(&sshd.dir, "host.pub")]);
    let fingerprint = shown.split(' ').find(|word| word.starts_with("SHA256:")).unwrap();
    assert_eq!((error.code, error.summary.as_str()), (Code::HostKey, "the host key of 127.0.0.1 is not known"));
    assert!(error.detail.contains(fingerprint), "{}", error.detail);
    assert_eq!(fs::read_to_string(sshd.dir.path().join("known")).unwrap(), "");
    assert_eq!(sshd.logins(), 0);
    // Where the user's own configuration says so, a new key is taken.
    let mut host = sshd.host();
    host.ssh_options.push("StrictHostKeyChecking=accept-new".into());
    speaks(sshd.open(&host).await).await;
}

#[tokio::test]
async fn a_changed_host_key_is_refused_with_the_way_to_take_the_new_one() {
    if !able() {
        return;
    }
    let sshd = Sshd::start("");
    let other = fs::read_to_string(sshd.dir.path().join("stranger.pub")).unwrap();
    fs::write(sshd.dir.path().join("known"), format!("[127.0.0.1]:{} {other}", sshd.port)).unwrap();
    for more in ["StrictHostKeyChecking=ask", "StrictHostKeyChecking=yes", "StrictHostKeyChecking=accept-new"] {
        let mut host = sshd.host();
        host.ssh_options.push(more.into());
        let error = sshd.refused(&host).await;
        assert_eq!((error.code, error.summary.as_str()), (Code::HostKey, "the host key of 127.0.0.1 is another than the known one"));
        assert!(error.detail.contains("SHA256:") && error.detail.contains("known:1"), "{}", error.detail);
        assert!(error.hint.as_ref().unwrap().contains(&format!("ssh-keygen -R '[127.0.0.1]:{}'", sshd.port)));
    }
    assert_eq!(sshd.logins(), 0);
}

#[tokio::test]
async fn banners_and_noisy_login_scripts_do_not_matter() {
    if !able() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("banner"), "Authorised use only.\nbasalt-push fail x\n".repeat(50)).unwrap();
    let noise = "ForceCommand echo Welcome; printf 'no end of line'; echo warning >&2; sh -c \"$SSH_ORIGINAL_COMMAND\"";
    let sshd = Sshd::start(&format!("Banner {}\n{noise}", path(&dir, "banner")));
    for _ in 0..2 {
        speaks(sshd.open(&sshd.host()).await).await;
    }
}

#[tokio::test]
async fn login_shells_that_are_not_posix_work() {
    if !able() {
        return;
    }
    let extra = std::env::var("BASALT_TEST_SHELLS").unwrap_or_default();
    for name in ["fish", "tcsh", "csh", "rbash", "zsh", "mksh"] {
        let dirs = extra.split(':').chain(["/bin", "/usr/bin"]).filter(|dir| !dir.is_empty());
        let Some(shell) = dirs.map(|dir| format!("{dir}/{name}")).find(|path| Path::new(path).exists()) else { continue };
        let sshd = Sshd::start(&format!("ForceCommand {shell} -c \"$SSH_ORIGINAL_COMMAND\""));
        for _ in 0..2 {
            speaks(sshd.open(&sshd.host()).await).await;
        }
    }
}

#[tokio::test]
async fn an_account_without_a_shell_is_told() {
    if !able() {
        return;
    }
    let sshd = Sshd::start("ForceCommand echo 'This account is currently not available.'; exit 1");
    let error = sshd.refused(&sshd.host()).await;
    assert_eq!((error.code, error.summary.as_str()), (Code::Unreachable, "the agent did not start"));
    assert!(error.detail.contains("status 1") && error.detail.contains("not available"), "{}", error.detail);
    assert!(error.hint.as_ref().unwrap().contains("shell"));
}

#[tokio::test]
async fn a_host_that_hangs_is_given_up_in_time() {
    if !able() {
        return;
    }
    // A port that takes connections and never speaks.
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let sshd = Sshd::start("ForceCommand sleep 30");
    let host = Host { port: Some(silent.local_addr().unwrap().port()), timeout: Some(Duration::from_secs(1)), ..sshd.host() };
    let begun = Instant::now();
    let error = sshd.refused(&host).await;
    assert!(error.summary.contains("does not answer"), "{error:?}");
    assert!(begun.elapsed() < Duration::from_secs(5));
    // A login shell that never gets to the command.
    let mut settings = Settings::new(Agents::carried());
    settings.silence = Duration::from_secs(1);
    let begun = Instant::now();
    let error = ssh(&sshd.dir, settings).open(&sshd.host()).await.err().unwrap();
    assert!(error.summary.contains("said nothing for 1 s"), "{error:?}");
    assert!(begun.elapsed() < Duration::from_secs(8));
}

#[tokio::test]
async fn what_is_not_there_is_told_apart() {
    if !able() {
        return;
    }
    let sshd = Sshd::start("");
    let closed = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    for (host, part) in [
        (Host { port: Some(closed), ..sshd.host() }, "refuses the connection"),
        // No name server is asked for such a name.
        (Host { address: "no..such".into(), ..sshd.host() }, "the name no..such cannot be resolved"),
        (Host { ssh_options: vec!["Bogus=1".into()], ..sshd.host() }, "ssh does not accept its configuration"),
    ] {
        let error = sshd.refused(&host).await;
        assert!(error.summary.contains(part) && error.hint.is_some() && error.code == Code::Unreachable, "{error:?}");
    }
}
