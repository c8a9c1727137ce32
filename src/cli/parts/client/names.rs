//! Names where the API wants ids: an app by its name; a watch by its `watch_name`, by the name or address of
//! its repository, or as `tidings repository list` prints its repository.

use serde_json::Value;
use tidings_actors::ports::Location;
use tidings_entity::id::{AppId, WatchId};

use super::{Client, without_user};
use crate::cli::{Code, Failure, listing, output::shown};
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

    /// The id of a watch of the app that is named by its id, as `tidings repository list` prints its
    /// repository, by its `watch_name`, or by `owner/name` or the address of its repository.
    ///
    /// # Errors
    /// If no watch of the app has this name, or several have it.
    pub(in crate::cli) async fn watch(&self, named: &str) -> Result<WatchId, Failure> {
        if let Ok(id) = named.parse() {
            return Ok(id);
        }
        one_of(&self.list(&["api", "repositories"], &[]).await?, named)
    }
}

/// The id of the watch with this name. A name in a failure may be an address with a password.
fn one_of(watches: &[Value], named: &str) -> Result<WatchId, Failure> {
    let (lines, meant) = (listing::lines(watches), key(named));
    let mut found: Vec<&Value> = lines.iter().filter(|line| line["repository"] == named).collect();
    if found.is_empty() {
        let pairs = lines.iter().zip(watches);
        let of_repository = pairs.filter(|(_, watch)| is_of(watch, named, meant.as_deref()));
        found = of_repository.map(|(line, _)| line).collect();
    }
    match found[..] {
        [] => {
            let text = format!(
                "no watch of the app has the id or watch_name {:?} or is of a repository with that name \
                 or address; `tidings repository list` lists them",
                without_user(named)
            );
            Err(Failure::new(Code::Data, text))
        }
        [line] => parsed(&line["repository_id"]),
        ref several => {
            let ids = some(several.iter().map(|line| described(line)));
            let text = format!("several watches of the app are of {named:?}: {ids}; give the id of one");
            Err(Failure::new(Code::Data, text))
        }
    }
}

/// `repo_... (o/r (deploy), main)`
fn described(line: &Value) -> String {
    let [id, repository, branch] = ["repository_id", "repository", "branch"].map(|name| shown(&line[name]));
    format!("{id} ({repository}, {branch})")
}

/// Whether a watch has this `watch_name`, or is for the repository with this name or this key of its address.
fn is_of(watch: &Value, named: &str, meant: Option<&str>) -> bool {
    let text = |name: &str| watch[name].as_str().unwrap_or_default();
    let (owner, name, address) = (text("owner"), text("name"), text("github_url"));
    let alias = text("watch_name");
    (!alias.is_empty() && named == alias)
        || named == name
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

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn id(number: u8) -> String {
        format!("repo_01ARZ3NDEKTSV4RRFFQ69G5FA{number}")
    }

    fn watch(number: u8, repository: &str, alias: &str, branch: &str) -> Value {
        let (owner, name) = repository.rsplit_once('/').expect("two parts");
        json!({ "repository_id": id(number), "repository": repository, "owner": owner, "name": name,
            "github_url": format!("https://git.example/{repository}"), "watch_name": alias,
            "selector": { "kind": "branch", "value": branch } })
    }

    #[test]
    fn a_watch_is_named_as_it_is_listed_by_its_own_name_or_by_its_repository() {
        let watches = [
            watch(1, "o/r", "", "main"),
            watch(2, "o/r", "deploy", "main"),
            watch(3, "/srv/git/site", "", "main"),
            watch(4, "/srv/git/site", "", "next"),
        ];
        for (named, number) in [("o/r", 1), ("o/r (deploy)", 2), ("deploy", 2)] {
            assert_eq!(one_of(&watches, named).expect(named).to_string(), id(number), "{named}");
        }
        let several = one_of(&watches, "/srv/git/site").expect_err("two branches").message;
        for part in [id(3), id(4), "(/srv/git/site, main)".into(), "(/srv/git/site, next)".into()] {
            assert!(several.contains(&part), "{several}");
        }
        let by_address = one_of(&watches, "https://git.example/o/r").expect_err("two watches").message;
        assert!(by_address.contains("(o/r (deploy), main)"), "{by_address}");
        assert!(one_of(&watches, "o/s").is_err());
        for address in ["https://me:hush@git.example/o/r", "https//me:hu/hush@git.example/o/r"] {
            let said = one_of(&watches, address).expect_err("an address with a password").message;
            assert!(said.contains("@git.example/o/r") && !said.contains("hush"), "{said}");
        }
        assert!(one_of(&watches, "").is_err(), "no watch_name is no name");
    }
}
