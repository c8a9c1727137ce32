//! Surveys the installation and passes the numbers to the meter: totals, lag and letters from rows, the size
//! of mirrors, the lines at Git hosts, and the tree itself. Scrapes read the last survey, so that they cost
//! no query, however many there are. Supervised by `housekeeping`, restarted after a failure. A crash loses
//! one survey. A failed survey leaves the numbers of the last one, and their age is one of the numbers.

use std::time::Duration;

use tokio::time::Instant;
use tracing::warn;

use super::Chore;
use crate::{context::Context, ports::Survey, supervision::tasks::in_time};

/// The chore that surveys the installation.
pub struct Surveyor;

impl Chore for Surveyor {
    const FIRST: Duration = Duration::ZERO;

    async fn run(context: &Context) -> Duration {
        match survey(context).await {
            Ok(survey) => context.meter.surveyed(survey),
            Err(reason) => warn!("how everything is could not be measured: {reason}"),
        }
        context.policy.survey_interval
    }
}

async fn survey(context: &Context) -> Result<Survey, String> {
    let (at, began) = (context.now(), Instant::now());
    // One of all replicas reports the numbers from rows, so that the numbers of replicas may be summed.
    let (totals, backlog) = if context.shards.leads() {
        let totals = in_time(context.store.totals(at)).await.map_err(|error| error.to_string())?;
        let mut backlog = in_time(context.store.backlog(at)).await.map_err(|error| error.to_string())?;
        let queues = &context.policy.queues;
        if !queues.is_empty() {
            let depths = in_time(context.store.depths(queues)).await;
            backlog.tasks_of = depths.map_err(|error| error.to_string())?;
        }
        (totals, backlog)
    } else {
        Default::default()
    };
    let mut storage = context.git.storage().await.map_err(|error| error.to_string())?;
    if context.policy.mirrors_shared && !context.shards.leads() {
        // Sums over replicas are right.
        (storage.mirrors, storage.mirror_bytes) = (0, 0);
    }
    let (hosts, tree) = (context.git.hosts().survey(), context.directory.survey());
    Ok(Survey { at, took: began.elapsed(), totals, backlog, storage, hosts, tree })
}
