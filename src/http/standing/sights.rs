//! The data that is looked up for watches before they are shown: breakers, the last attempts at their heads,
//! polls, and whether their apps are served. A fixed number of reads for a whole page.

use std::collections::HashMap;

use tidings_actors::{
    model::sink::SinkAddress,
    ports::{App, AttemptRecord, BreakerRow, CursorStatus, GONE, StoreError, Watch},
    signals::polls::Polled,
    time::Timestamp,
};
use tidings_entity::id::{AppId, CursorId, SourceId, WatchId};

use crate::http::{
    bodies::{
        names::{AppFacts, Names},
        problem::{Kind, Problem},
    },
    front::Front,
    standing::Facts,
};

/// The data about some watches beside their rows, at one moment.
pub(crate) struct Sights {
    pub(crate) apps: HashMap<AppId, AppFacts>,
    pub(crate) breakers: Vec<BreakerRow>,
    pub(crate) tries: Vec<AttemptRecord>,
    polls: HashMap<SourceId, Polled>,
    /// When heads that cannot be taken are asked for again at the earliest, where they wait longer than a
    /// poll.
    again: HashMap<CursorId, Timestamp>,
    now: Timestamp,
}

impl Sights {
    /// Looks up the data for watches of one app.
    ///
    /// # Errors
    /// When the database does not answer.
    pub(crate) async fn of_app(front: &Front, app: &App, watches: &[Watch]) -> Result<Self, Problem> {
        let apps = HashMap::from([(app.id.clone(), AppFacts::of(app))]);
        Self::gather(front, apps, watches).await
    }

    /// Looks up the data for watches of any apps.
    ///
    /// # Errors
    /// When the database does not answer.
    pub(crate) async fn of_all(front: &Front, watches: &[Watch]) -> Result<Self, Problem> {
        let mut names = Names::of(front);
        let mut apps = HashMap::new();
        for watch in watches {
            apps.insert(watch.app.clone(), names.app(&watch.app).await?);
        }
        Self::gather(front, apps, watches).await
    }

    async fn gather(
        front: &Front,
        apps: HashMap<AppId, AppFacts>,
        watches: &[Watch],
    ) -> Result<Self, Problem> {
        let failed = |error: StoreError| Problem::of_store(error, Kind::NOT_REGISTERED);
        let breakers = front.store.breakers().await.map_err(failed)?;
        let is_open = |watch: &&Watch| watch.cursors.iter().any(|cursor| cursor.open.is_some());
        let open: Vec<WatchId> = watches.iter().filter(is_open).map(|watch| watch.id.clone()).collect();
        let tries = match open.is_empty() {
            true => Vec::new(),
            false => front.administration.attempts_at_heads(&open).await.map_err(failed)?,
        };
        let polls = watches.iter().filter_map(|watch| {
            let polled = front.handle.polled(&watch.source)?;
            Some((watch.source.clone(), polled))
        });
        let now = front.clock.now();
        let faulty = watches.iter().flat_map(|watch| watch.cursors.iter().map(move |cursor| (watch, cursor)));
        let again = faulty.filter(|(_, cursor)| cursor.fault.is_some()).filter_map(|(watch, cursor)| {
            let wait = front.git.asked_again_in(&watch.repository, cursor.head?)?;
            Some((cursor.id.clone(), now.after(wait)))
        });
        Ok(Self { apps, breakers, tries, polls: polls.collect(), again: again.collect(), now })
    }

    /// The facts about one of the watches.
    pub(crate) fn of<'s>(&'s self, watch: &'s Watch) -> Facts<'s> {
        let disabled = self.apps.get(&watch.app).and_then(|app| app.disabled.as_deref());
        let app_disabled = match &watch.sink {
            // If the app's own endpoint is gone, other sinks still work.
            Some(sink) => disabled.filter(|why| *why != GONE).or(sink.disabled.as_deref()),
            None => disabled,
        };
        Facts {
            watch,
            app_disabled,
            app_pulls: match &watch.sink {
                Some(sink) => sink.address == SinkAddress::Pull,
                None => self.apps.get(&watch.app).is_some_and(|app| app.pulls),
            },
            breakers: &self.breakers,
            tries: &self.tries,
            polled: self.polls.get(&watch.source),
            now: self.now,
        }
    }

    /// How its source is polled.
    pub(crate) fn polled(&self, watch: &Watch) -> Polled {
        self.polls.get(&watch.source).cloned().unwrap_or_default()
    }

    /// When the head of a branch is asked for again at the earliest, where it cannot be taken and the next
    /// poll is known.
    pub(crate) fn next_try(&self, watch: &Watch, cursor: &CursorStatus) -> Option<Timestamp> {
        let poll = self.polls.get(&watch.source)?.next?;
        Some(self.again.get(&cursor.id).map_or(poll, |again| poll.max(*again)))
    }
}
