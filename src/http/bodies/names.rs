//! The names of apps and repositories, shown beside their ids. Each is looked up once per answer.

use std::collections::HashMap;

use tidings_actors::{
    model::sink::SinkAddress,
    ports::{App, StoreError, Watch},
};
use tidings_entity::id::{AppId, WatchId};
use url::Url;

use super::problem::{Kind, Problem};
use crate::http::front::Front;

/// The fault of a `repository_id` that the app has not.
pub(crate) const NOT_WATCHED: &str = "names no repository of this app (GET /api/repositories lists them)";

/// The facts that lists show of an app. An app that was erased meanwhile has no name.
#[derive(Clone, Default)]
pub(crate) struct AppFacts {
    pub(crate) name: String,
    /// Why the app is disabled; `None` while it is served.
    pub(crate) disabled: Option<String>,
    /// Whether the app pulls its changes.
    pub(crate) pulls: bool,
}

impl AppFacts {
    pub(crate) fn of(app: &App) -> Self {
        Self {
            name: app.name.clone(),
            disabled: app.disabled.clone(),
            pulls: app.receives_at == SinkAddress::Pull,
        }
    }
}

/// The names that were looked up for one answer.
pub(crate) struct Names<'f> {
    front: &'f Front,
    apps: HashMap<AppId, AppFacts>,
    repositories: HashMap<WatchId, Option<String>>,
}

impl<'f> Names<'f> {
    /// None are known yet.
    pub(crate) fn of(front: &'f Front) -> Self {
        Self { front, apps: HashMap::new(), repositories: HashMap::new() }
    }

    /// Looks up an app.
    ///
    /// # Errors
    /// When the database does not answer.
    pub(crate) async fn app(&mut self, id: &AppId) -> Result<AppFacts, Problem> {
        if let Some(known) = self.apps.get(id) {
            return Ok(known.clone());
        }
        let app = self.front.store.app(id).await;
        let app = app.map_err(|error| Problem::of_store(error, Kind::NO_APP))?;
        let facts = app.as_ref().map_or_else(AppFacts::default, AppFacts::of);
        self.apps.insert(id.clone(), facts.clone());
        Ok(facts)
    }

    /// Looks up the repository of a watch; `None` if the watch was removed.
    ///
    /// # Errors
    /// When the database does not answer.
    pub(crate) async fn repository(&mut self, app: &AppId, id: &WatchId) -> Result<Option<String>, Problem> {
        if let Some(known) = self.repositories.get(id) {
            return Ok(known.clone());
        }
        let name = match self.front.store.watch(app, id).await {
            Ok(watch) => Some(repository_name(&watch)),
            Err(StoreError::NotFound) => None,
            Err(error) => return Err(Problem::of_store(error, Kind::NOT_REGISTERED)),
        };
        self.repositories.insert(id.clone(), name.clone());
        Ok(name)
    }
}

/// `owner/name`; of a repository on this machine its path.
pub(crate) fn repository_name(watch: &Watch) -> String {
    local_path(&watch.url).unwrap_or_else(|| format!("{}/{}", watch.facts.owner, watch.facts.name))
}

/// The path behind the normalised address of a repository on this machine.
fn local_path(url: &str) -> Option<String> {
    let url = Url::parse(url).ok().filter(|url| url.scheme() == "file")?;
    Some(url.to_file_path().ok()?.display().to_string())
}
