//! Drift as it happens, on real hosts: an agent with an open session tells what is touched, by its key and the states that speak of it, and
//! says nothing while nothing happens.

mod lab;

use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use basalt::diagnostic::Diagnostic;
use basalt::engine::answers::Asking;
use basalt::engine::compile::{Answers, Attempt, Compile, Wanted};
use basalt::engine::drift::{News, Told, watch};
use basalt::engine::event::Event;
use basalt::engine::link::{Connect, Errors, Link, Opening, Wire};
use basalt::engine::mine::{Memory, Mine};
use basalt::engine::plan::{Work, compiling};
use basalt::engine::session::Stop;
use basalt::fleet::Host;
use basalt::plan::Low;
use basalt::value::{Map, Value};
use lab::{Lab, Spec};
use tokio::sync::mpsc::{Receiver, channel};

/// States, one a line: `ID FUNCTION {arguments}`.
struct Fixed(&'static str);

impl Compile for Fixed {
    fn compile(&self, _id: &str, _grains: &Map, _answers: &Answers) -> Result<Wanted, Vec<Diagnostic>> {
        let low = |line: &str| -> Low {
            let (id, rest) = line.trim().split_once(' ').unwrap();
            let (function, args) = rest.split_once(' ').unwrap();
            let (state, fun) = function.split_once('.').unwrap();
            let args: serde_json::Value = serde_json::from_str(args).unwrap();
            let low = serde_json::json!({"id": id, "sls": "s", "state": state, "fun": fun, "name": args["name"], "args": args});
            serde_json::from_value(low).unwrap()
        };
        Ok(Wanted { lows: self.0.lines().filter(|line| !line.trim().is_empty()).map(low).collect(), ..Wanted::default() })
    }

    fn pillar(&self, _id: &str, _grains: &Map, _answers: &Answers) -> Attempt<Map> {
        (Ok(Map::new()), Vec::new())
    }
}

/// The agent that an earlier command has brought to the host, over ssh.
struct Agent(std::sync::Mutex<Command>);

impl Agent {
    fn of(lab: &Lab, host: &str) -> Agent {
        lab.commit("nothing");
        lab.basalt(["call", host, "test.ping"]).ok();
        let mut command = lab.command(&lab.state(), "ssh");
        command.args([host, "exec $(ls -t /var/cache/basalt/basalt-agent-* | head -n 1) serve"]);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        Agent(std::sync::Mutex::new(command))
    }
}

impl Connect for Agent {
    fn open<'a>(&'a self, _host: &'a Host) -> Opening<'a> {
        let mut child = self.0.lock().unwrap().spawn().unwrap();
        let input = tokio::process::ChildStdin::from_std(child.stdin.take().unwrap()).unwrap();
        let output = tokio::process::ChildStdout::from_std(child.stdout.take().unwrap()).unwrap();
        let end = async move {
            let ended = tokio::task::spawn_blocking(move || child.wait()).await.unwrap();
            format!("{ended:?}")
        };
        Box::pin(Link::greet(Wire::new(input, output, Errors::default(), end)))
    }
}

struct Forgetful;

impl Memory for Forgetful {
    fn recall(&self, _host: &str, _what: &str) -> Option<(u64, Value)> {
        None
    }
    fn keep(&self, _host: &str, _what: &str, _said: &Value) {}
}

fn asking(connect: Agent, states: &'static str, stop: Stop) -> Asking {
    let work = Work {
        connect: Arc::new(connect),
        sink: Arc::new(|_: Event<'_>| {}),
        stop,
        parallel: 1,
        run_timeout: Duration::from_secs(120),
        commands: true,
        key: "".into(),
        compiling: compiling(),
        mine: Arc::new(Mine::new(Vec::new(), Map::new(), Arc::new(Forgetful))),
        origin: "".into(),
        prune: None,
    };
    Asking { work, compiler: Arc::new(Fixed(states)), mine: true }
}

/// What is told within so many seconds, as `key state,state`; waits no longer than for the first that `wanted` begins.
async fn told(news: &mut Receiver<Told>, seconds: u64, wanted: &str) -> Vec<String> {
    let mut all = Vec::new();
    let end = tokio::time::Instant::now() + Duration::from_secs(seconds);
    while let Ok(Some(told)) = tokio::time::timeout_at(end, news.recv()).await {
        assert_eq!(told.host, "h1");
        let News::Drifted(touched) = told.news else { panic!("{told:?}") };
        for touched in touched {
            let ids: Vec<&str> = touched.states.iter().map(|state| state.id.as_str()).collect();
            all.push(format!("{} {}", touched.key, ids.join(",")));
        }
        if !wanted.is_empty() && all.iter().any(|told| told == wanted) {
            break;
        }
    }
    all
}

const STATES: &str = r#"
    conf file.managed {"name": "/etc/app.conf", "contents": "hello", "mode": "0644"}
    hosts host.present {"name": "db1", "ip": "10.0.0.7"}
    cron service.running {"name": "cron", "enable": true}
    tick service.running {"name": "tick.timer"}
    shell pkg.installed {"name": "tcsh"}
    clerk user.present {"name": "clerk", "shell": "/bin/bash"}
    data mount.mounted {"name": "/srv/data", "device": "tmpfs", "fstype": "tmpfs", "persist": false}
    forward sysctl.present {"name": "net.ipv4.ip_forward", "value": 1}
"#;

/// What somebody does on the host, and what is told of it.
const TOUCHES: &[(&str, &str)] = &[
    ("echo more >> /etc/app.conf", "file:/etc/app.conf conf"),
    ("sed -i s/more/less/ /etc/app.conf", "file:/etc/app.conf conf"),
    ("chmod 600 /etc/app.conf", "file:/etc/app.conf conf"),
    ("sed -i /db1/d /etc/hosts", "file:/etc/hosts hosts"),
    ("systemctl stop cron", "service:cron.service cron"),
    ("systemctl start cron", "service:cron.service cron"),
    ("systemctl disable cron", "service:cron.service cron"),
    ("systemctl stop tick.timer", "service:tick.timer tick"),
    ("dpkg --remove tcsh", "packages:apt shell"),
    ("usermod -s /bin/sh clerk", "user:clerk clerk"),
    ("umount /srv/data", "mount:/srv/data data"),
];

#[tokio::test(flavor = "multi_thread")]
async fn whatever_is_touched_on_a_host_is_told_with_its_key_and_a_quiet_host_tells_nothing() {
    if !lab::required() {
        return;
    }
    let lab = Lab::hosts(1);
    let host = &lab["h1"];
    host.sh("echo hello > /etc/app.conf; echo 10.0.0.7 db1 >> /etc/hosts; mkdir /srv/data; mount -t tmpfs tmpfs /srv/data
             printf '[Timer]\\nOnCalendar=yearly\\n' > /etc/systemd/system/tick.timer
             printf '[Service]\\nExecStart=/bin/true\\n' > /etc/systemd/system/tick.service
             systemctl daemon-reload; systemctl start tick.timer")
        .ok();
    let (pull, stop) = Stop::new();
    let (tell, mut news) = channel(8);
    let watching = tokio::spawn(watch(asking(Agent::of(&lab, "h1"), STATES, stop), Host::new("h1", "h1"), tell));

    let Some(Told { news: News::Planned(plan), .. }) = news.recv().await else { panic!("no plan: {:?}", watching.await) };
    let changes: Vec<&str> = plan.steps.iter().map(|step| step.id.as_str()).collect();
    let Some(Told { news: News::Watching(watch), .. }) = news.recv().await else { panic!("no watch") };
    let unwatched: Vec<&str> = watch.unwatched.iter().map(|unwatched| unwatched.what.as_str()).collect();
    assert_eq!((changes.as_slice(), unwatched.as_slice()), (&["forward"][..], &["sysctl:net.ipv4.ip_forward"][..]), "{plan:?} {watch:?}");

    assert!(told(&mut news, 2, "").await.is_empty(), "nothing has happened");
    for (script, wanted) in TOUCHES {
        host.sh(script).ok();
        let told = told(&mut news, 20, wanted).await;
        assert!(told.iter().any(|told| told == wanted), "{script}: {told:?}");
        assert!(told.iter().all(|told| told == wanted), "{script}: {told:?}");
    }
    // Touched, and the same as before; a file and a unit that nobody manages.
    host.sh("touch /etc/app.conf; cp -p /etc/passwd /etc/p; mv /etc/p /etc/passwd; echo x > /etc/other; systemd-run true").ok();
    assert!(told(&mut news, 2, "").await.is_empty());

    pull.send(1).unwrap();
    watching.await.unwrap().unwrap();
}

/// The session ends when the host goes, and says so; then it can be begun anew.
#[tokio::test(flavor = "multi_thread")]
async fn a_host_that_goes_ends_the_watch() {
    if !lab::required() {
        return;
    }
    let lab = Lab::light(1);
    let host = &lab["h1"];
    host.sh("echo hello > /etc/app.conf").ok();
    let states = r#"conf file.managed {"name": "/etc/app.conf", "contents": "hello"}"#;
    let (_pull, stop) = Stop::new();
    let (tell, mut news) = channel(8);
    let watching = tokio::spawn(watch(asking(Agent::of(&lab, "h1"), states, stop), Host::new("h1", "h1"), tell));
    assert!(matches!(news.recv().await, Some(Told { news: News::Planned(_), .. })));
    assert!(matches!(news.recv().await, Some(Told { news: News::Watching(watch), .. }) if watch.unwatched.is_empty()));
    // Longer than a host that works may be silent.
    assert!(told(&mut news, 35, "").await.is_empty());
    host.sh("echo more >> /etc/app.conf").ok();
    assert_eq!(told(&mut news, 20, "file:/etc/app.conf conf").await, ["file:/etc/app.conf conf"]);
    host.kill();
    let fault = watching.await.unwrap().unwrap_err();
    assert!(fault.to_string().contains("connection ended"), "{fault}");
}

/// What reads rpm's database writes beside it: that is no news, and no reason to read it again and again.
#[tokio::test(flavor = "multi_thread")]
async fn packages_of_dnf_are_told_and_reading_them_is_no_news() {
    if !lab::required() {
        return;
    }
    let lab = Lab::start(vec![Spec::dnf("h1")]);
    let host = &lab["h1"];
    host.sh("dnf -q -y install lab-tool lab-leaf-1.0 >/dev/null").ok();
    let (pull, stop) = Stop::new();
    let (tell, mut news) = channel(8);
    let states = r#"tool pkg.installed {"name": "lab-tool"}"#;
    let watching = tokio::spawn(watch(asking(Agent::of(&lab, "h1"), states, stop), Host::new("h1", "h1"), tell));
    assert!(matches!(news.recv().await, Some(Told { news: News::Planned(plan), .. }) if plan.steps.is_empty()));
    assert!(matches!(news.recv().await, Some(Told { news: News::Watching(watch), .. }) if watch.unwatched.is_empty()));
    host.sh("rpm -qa; dnf -q -C repoquery --installed; rpm -e lab-leaf").ok();
    assert!(told(&mut news, 5, "").await.is_empty(), "nobody minds lab-leaf");
    host.sh("rpm -e lab-tool").ok();
    assert_eq!(told(&mut news, 20, "packages:dnf tool").await, ["packages:dnf tool"]);
    assert!(told(&mut news, 3, "").await.is_empty());
    pull.send(1).unwrap();
    watching.await.unwrap().unwrap();
}
