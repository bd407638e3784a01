//! Hosts that tell what is touched: one open session each, begun anew behind every turn of the host, so that what basalt does itself is no news.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::task::AbortHandle;
use tokio::time::{Instant, sleep};

use crate::engine::answers::Asking;
use crate::engine::drift::{News, Told, watch};
use crate::engine::event::Event;
use crate::fleet::Host;
use crate::plan::HostPlan;
use crate::watch::cause::{Cause, Causes};

/// A session that ended sooner is not begun again at once; and a host whose plan is another one each time is not looked at more often.
const PATIENCE: Duration = Duration::from_secs(60);

pub struct Hints {
    causes: Causes,
    hosts: Mutex<HashMap<String, Open>>,
}

#[derive(Default)]
struct Open {
    session: Option<AbortHandle>,
    /// When its plan alone was a reason to look at it.
    looked: Option<Instant>,
}

impl Hints {
    pub fn new(causes: Causes) -> Arc<Hints> {
        Arc::new(Hints { causes, hosts: Mutex::default() })
    }

    fn hosts(&self) -> MutexGuard<'_, HashMap<String, Open>> {
        self.hosts.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn end(&self, host: &str) {
        if let Some(session) = self.hosts().get_mut(host).and_then(|open| open.session.take()) {
            session.abort();
        }
    }

    /// `is_news`: whether a plan says something that is not known.
    pub fn begin(self: &Arc<Self>, host: Host, mut asking: Asking, is_news: impl Fn(&HostPlan) -> bool + Send + Sync + 'static) {
        self.end(&host.id);
        asking.work.sink = Arc::new(|_: Event<'_>| {});
        let (hints, id) = (self.clone(), host.id.clone());
        let session = tokio::spawn(async move { hints.listen(host, asking, is_news).await });
        self.hosts().entry(id).or_default().session = Some(session.abort_handle());
    }

    async fn listen(&self, host: Host, asking: Asking, is_news: impl Fn(&HostPlan) -> bool + Send + Sync) {
        let (id, began) = (host.id.clone(), Instant::now());
        let (tell, mut told) = mpsc::channel(16);
        let session = watch(asking, host, tell);
        let hear = async {
            while let Some(Told { news, .. }) = told.recv().await {
                let touched = match news {
                    News::Planned(plan) => {
                        if !is_news(&plan) || !self.may_look(&id) {
                            continue;
                        }
                        Vec::new()
                    }
                    News::Watching(_) => continue,
                    News::Drifted(touched) => touched.iter().map(|touched| touched.key.to_string()).collect(),
                };
                // Nobody listens any more once the watch is over.
                let _ = self.causes.send(Cause::Drift { host: id.clone(), touched }).await;
            }
        };
        let (ended, ()) = tokio::join!(session, hear);
        if ended.is_ok() {
            return;
        }
        // The host is away, or cannot do that: a look says which.
        sleep((PATIENCE * 5).saturating_sub(began.elapsed()).min(PATIENCE)).await;
        let _ = self.causes.send(Cause::Drift { host: id, touched: Vec::new() }).await;
    }

    fn may_look(&self, host: &str) -> bool {
        let mut hosts = self.hosts();
        let open = hosts.entry(host.to_owned()).or_default();
        let may = open.looked.is_none_or(|looked| looked.elapsed() >= PATIENCE);
        if may {
            open.looked = Some(Instant::now());
        }
        may
    }
}
