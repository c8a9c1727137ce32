//! How hard one host may be pressed: so many requests at the same time and so many per second,
//! whatever the number of repositories it serves.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
};

use tidings_actors::ports::GitError;
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore},
    time::{Duration, Instant, sleep_until},
};
use url::Url;

use crate::settings::git::GitSettings;

/// Above this many hosts the idle ones are forgotten.
const HOSTS_KEPT: usize = 4_096;

/// The budgets of all hosts.
pub(super) struct Hosts {
    concurrency: usize,
    interval: Duration,
    burst: u32,
    budgets: Mutex<HashMap<String, Arc<Budget>>>,
}

struct Budget {
    permits: Arc<Semaphore>,
    /// When the next request would be due if all came evenly.
    due: Mutex<Instant>,
}

impl Hosts {
    pub(super) fn new(settings: &GitSettings) -> Self {
        Self {
            concurrency: settings.host_concurrency as usize,
            interval: settings.host_rate.interval(),
            burst: settings.host_rate.burst(),
            budgets: Mutex::default(),
        }
    }

    /// Waits until one more request may go to the host of `url`; holding the permit means that
    /// the request is under way.
    ///
    /// # Errors
    /// [`GitError::Cancelled`] when the process is stopping.
    pub(super) async fn enter(&self, url: &Url) -> Result<OwnedSemaphorePermit, GitError> {
        let budget = self.budget(url);
        let permit = Arc::clone(&budget.permits).acquire_owned().await.map_err(|_| GitError::Cancelled)?;
        sleep_until(self.reserve(&budget, Instant::now())).await;
        Ok(permit)
    }

    fn budget(&self, url: &Url) -> Arc<Budget> {
        let host =
            format!("{}:{}", url.host_str().unwrap_or_default(), url.port_or_known_default().unwrap_or(0));
        let mut budgets = self.budgets.lock().unwrap_or_else(PoisonError::into_inner);
        if budgets.len() >= HOSTS_KEPT {
            let now = Instant::now();
            budgets.retain(|_, budget| {
                let due = *budget.due.lock().unwrap_or_else(PoisonError::into_inner);
                Arc::strong_count(budget) > 1 || due > now
            });
        }
        let fresh = || {
            let permits = Arc::new(Semaphore::new(self.concurrency));
            Arc::new(Budget { permits, due: Mutex::new(Instant::now()) })
        };
        Arc::clone(budgets.entry(host).or_insert_with(fresh))
    }

    /// Takes the next place in the row of requests and says when it comes up.
    fn reserve(&self, budget: &Budget, now: Instant) -> Instant {
        let mut due = budget.due.lock().unwrap_or_else(PoisonError::into_inner);
        let mine = (*due).max(now);
        *due = mine + self.interval;
        let ahead = self.interval * (self.burst - 1);
        mine.checked_sub(ahead).unwrap_or(now).max(now)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_burst_goes_at_once_and_the_rest_evenly() {
        let settings = GitSettings { host_rate: "10/s".parse().expect("valid"), ..GitSettings::default() };
        let hosts = Hosts::new(&settings);
        let budget = hosts.budget(&Url::parse("https://a.example/x").expect("valid"));
        let now = Instant::now();
        let waits: Vec<_> =
            (0..13).map(|_| (hosts.reserve(&budget, now) - now).as_millis().div_ceil(50) * 50).collect();
        assert_eq!(waits[..10], [0; 10]);
        assert_eq!(waits[10..], [100, 200, 300]);
    }

    #[test]
    fn hosts_do_not_share_a_budget() {
        let hosts = Hosts::new(&GitSettings::default());
        let budget = |url| hosts.budget(&Url::parse(url).expect("valid"));
        assert!(Arc::ptr_eq(&budget("https://a.example/x"), &budget("https://a.example:443/y")));
        assert!(!Arc::ptr_eq(&budget("https://a.example/x"), &budget("https://b.example/x")));
    }
}
