//! The data that is looked up for watches before they are shown: breakers, the last attempts at their heads,
//! polls, and whether their apps are served. A fixed number of reads for a whole page.

use std::collections::HashMap;

use tidings_actors::{
    model::sink::SinkAddress,
    ports::{App, AttemptRecord, BranchTasks, BreakerRow, CursorStatus, GONE, StoreError, Watch},
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
    repositories::standing::Facts,
};

/// The data about some watches beside their rows, at one moment.
pub(crate) struct Sights {
    pub(crate) apps: HashMap<AppId, AppFacts>,
    pub(crate) breakers: Vec<BreakerRow>,
    pub(crate) tries: Vec<AttemptRecord>,
    polls: HashMap<SourceId, Polled>,
    /// The tasks of branches whose changes become tasks.
    tasks: HashMap<CursorId, BranchTasks>,
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
        let (polls, again) = (polls.collect(), again.collect());
        let tasks = tasks_of(front, watches).await.map_err(failed)?;
        Ok(Self { apps, breakers, tries, polls, tasks, again, now })
    }

    /// The tasks of a branch, where its changes become tasks.
    pub(crate) fn tasks_of(&self, cursor: &CursorId) -> Option<&BranchTasks> {
        self.tasks.get(cursor)
    }

    /// The facts about one of the watches.
    pub(crate) fn of<'s>(&'s self, watch: &'s Watch) -> Facts<'s> {
        let disabled = self.apps.get(&watch.app).and_then(|app| app.disabled.as_deref());
        let app_disabled = match &watch.sink {
            // If the app's own endpoint is gone, other sinks still work.
            Some(_) => disabled.filter(|why| *why != GONE),
            None => disabled,
        };
        Facts {
            watch,
            app_disabled,
            app_pulls: match &watch.sink {
                Some(sink) => sink.address == SinkAddress::Pull,
                None => self.apps.get(&watch.app).is_some_and(|app| app.pulls),
            },
            unclaimed: self.unclaimed(watch),
            breakers: &self.breakers,
            tries: &self.tries,
            polled: self.polls.get(&watch.source),
            now: self.now,
        }
    }

    /// The number of tasks of a watch that wait, if workers have none of its tasks; otherwise 0.
    fn unclaimed(&self, watch: &Watch) -> u64 {
        let (mut waiting, mut claimed) = (0, 0);
        for tasks in watch.cursors.iter().filter_map(|cursor| self.tasks_of(&cursor.id)) {
            waiting += tasks.unfinished.saturating_sub(tasks.aside);
            claimed += tasks.claimed;
        }
        if claimed > 0 { 0 } else { waiting }
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

/// The tasks of the branches of these watches, where changes become tasks.
async fn tasks_of(front: &Front, watches: &[Watch]) -> Result<HashMap<CursorId, BranchTasks>, StoreError> {
    let is_meant = |watch: &&Watch| watch.sink.as_ref().is_some_and(|sink| sink.address.command().is_some());
    let cursors = watches.iter().filter(is_meant).flat_map(|watch| &watch.cursors);
    let cursors: Vec<CursorId> = cursors.map(|cursor| cursor.id.clone()).collect();
    let found = front.tasks.tasks_of_branches(&cursors).await?;
    Ok(found.into_iter().map(|tasks| (tasks.cursor.clone(), tasks)).collect())
}
