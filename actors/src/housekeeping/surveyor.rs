//! Looks at how everything is and hands the numbers to the meter: totals, lag and letters from rows,
//! what mirrors take, lines at Git hosts, the tree itself. Whoever scrapes reads the last look, so
//! that a scrape costs no query, and many scrapers no more than one. Supervised by `housekeeping`,
//! restarted after a failure. A crash loses one look. A look that failed leaves the numbers of the last
//! one; how old they are is one of the numbers.

use std::time::Duration;

use tokio::time::Instant;
use tracing::warn;

use super::Chore;
use crate::{context::Context, ports::Survey, tasks::in_time};

/// Measures how everything is.
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
    // What rows say one of all replicas tells, so that their numbers may be summed.
    let (totals, backlog) = if context.shards.leads() {
        let totals = in_time(context.store.totals(at)).await.map_err(|error| error.to_string())?;
        (totals, in_time(context.store.backlog(at)).await.map_err(|error| error.to_string())?)
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
