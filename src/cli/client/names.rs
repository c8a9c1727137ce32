//! Names where the API wants ids: an app by its name, a watch by the name or address of its repository.

use serde_json::Value;
use tidings_actors::ports::Location;
use tidings_entity::id::{AppId, WatchId};

use super::{
    super::{Code, Failure, output::shown},
    Client,
};
use crate::git::address::Address;

/// Most ids that a failure names.
const NAMED_MAX: usize = 5;

/// The message for an unknown app, with the command that lists all apps.
pub(super) fn no_app(named: &str) -> String {
    format!("no app has the id or name {named:?}; `tidings app list` lists them")
}

impl Client {
    /// The id of an app that is named by its id or by its name.
    ///
    /// # Errors
    /// No app has the name, or several have it.
    pub(in crate::cli) async fn app(&self, named: &str) -> Result<AppId, Failure> {
        if let Ok(id) = named.parse() {
            return Ok(id);
        }
        // Lists for the staff are requested without `--for`, so this call does not recurse further.
        let apps = Box::pin(self.list(&["api", "admin", "apps"], &[])).await?;
        let found = apps.iter().filter(|app| app["app_name"] == named);
        match found.map(|app| &app["app_id"]).collect::<Vec<_>>()[..] {
            [] => Err(Failure::new(Code::Data, no_app(named))),
            [id] => parsed(id),
            ref ids => {
                let ids = some(ids.iter().map(|id| shown(id)));
                let text = format!("several apps have the name {named:?}: {ids}; give the id of one");
                Err(Failure::new(Code::Data, text))
            }
        }
    }

    /// The id of a watch of the app that is named by its id, or by `owner/name` or the address of its
    /// repository.
    ///
    /// # Errors
    /// If no watch of the app is for this repository, or several are.
    pub(in crate::cli) async fn watch(&self, named: &str) -> Result<WatchId, Failure> {
        if let Ok(id) = named.parse() {
            return Ok(id);
        }
        let watches = self.list(&["api", "repositories"], &[]).await?;
        let meant = key(named);
        let found = watches.iter().filter(|watch| is_of(watch, named, meant.as_deref()));
        match found.collect::<Vec<_>>()[..] {
            [] => {
                let text = format!(
                    "no watch of the app has the id {named:?} or is of a repository with that name or \
                     address; `tidings repository list` lists them"
                );
                Err(Failure::new(Code::Data, text))
            }
            [watch] => parsed(&watch["repository_id"]),
            ref several => {
                let ids = some(several.iter().map(|watch| shown(&watch["repository_id"])));
                let text = format!("several watches of the app are of {named:?}: {ids}; give the id of one");
                Err(Failure::new(Code::Data, text))
            }
        }
    }
}

/// Whether a watch is for the repository with this name, or with this key of its address.
fn is_of(watch: &Value, named: &str, meant: Option<&str>) -> bool {
    let text = |name: &str| watch[name].as_str().unwrap_or_default();
    let (owner, name, address) = (text("owner"), text("name"), text("github_url"));
    named == name
        || named == address
        || named.strip_suffix(name).is_some_and(|before| before.strip_suffix('/') == Some(owner))
        || meant.is_some_and(|meant| key(address).as_deref() == Some(meant))
}

/// The part that all spellings of a web address share.
fn key(address: &str) -> Option<String> {
    let address = Address::parse(address, false, true).ok()?;
    matches!(address.location, Location::Http(_)).then_some(address.normalised)
}

fn parsed<T: std::str::FromStr>(id: &Value) -> Result<T, Failure> {
    let id = id.as_str().and_then(|id| id.parse().ok());
    id.ok_or_else(|| Failure::new(Code::Unavailable, "this server does not speak this API"))
}

/// The first of the ids, and how many more there are.
fn some(ids: impl ExactSizeIterator<Item = String>) -> String {
    let more = ids.len().saturating_sub(NAMED_MAX);
    let shown = ids.take(NAMED_MAX).collect::<Vec<_>>().join(", ");
    if more == 0 { shown } else { format!("{shown} and {more} more") }
}
