//! The watches: one app each, over every protocol, mode and view, all of one repository.

use std::collections::BTreeMap;

use serde_json::{Value, json};
use tidings_entity::id::ObjectId;

use super::{expected::Lens, history::RELEASES, objects::Files};
use crate::support::{api::App, server::Server, subscriber::Subscriber};

/// How the repository is reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Way {
    /// Over http, with version 2 of the protocol.
    Two,
    /// The same at a host of which nobody sees everything.
    Narrow,
    /// Over http at a host that does not know version 2.
    Zero,
    /// A local repository, by the path of its folder.
    Path,
}

/// A watch and what its app was told.
pub(super) struct Watch {
    pub(super) name: &'static str,
    pub(super) way: Way,
    pub(super) lens: Lens,
    pub(super) app: App,
    pub(super) id: String,
    pub(super) subscriber: Subscriber,
    /// The branches that it may follow.
    pub(super) branches: &'static [&'static str],
    /// What it held of each branch when everything was last at rest.
    pub(super) held: BTreeMap<&'static str, Option<ObjectId>>,
    /// What its app has of each branch, made from events alone.
    pub(super) has: BTreeMap<&'static str, Files>,
}

/// Names, ways, modes, what else is said at the registration, and which paths that lets through.
type Kind = (&'static str, Way, &'static str, Value, fn(&[u8]) -> bool);

fn everything(_: &[u8]) -> bool {
    true
}

fn docs(path: &[u8]) -> bool {
    path.starts_with(b"docs/")
}

fn no_docs_and_binaries(path: &[u8]) -> bool {
    !docs(path) && !path.ends_with(b".bin")
}

fn sources(path: &[u8]) -> bool {
    path.starts_with(b"src/") || (!path.contains(&b'/') && path.ends_with(b".md"))
}

fn kinds() -> Vec<Kind> {
    let nothing = json!({});
    let docs_alone = json!({ "include": ["docs/**"] });
    let excludes = json!({ "exclude": ["docs/", "**/*.bin"] });
    let sources_alone = json!({ "include": ["src/**", "*.md"], "symlinks": "send" });
    let links = json!({ "symlinks": "send" });
    let names = json!({ "content": "none", "symlinks": "send" });
    let small = json!({ "max_size": 1_000 });
    let releases = json!({ "branch": "release/*", "on_branch_gone": "delete" });
    vec![
        ("v2 net", Way::Two, "net", nothing.clone(), everything),
        ("v2 every", Way::Two, "every", links.clone(), everything),
        ("v2 net phased", Way::Two, "net", small, everything),
        ("v2 every excludes", Way::Two, "every", excludes.clone(), no_docs_and_binaries),
        ("v2 pattern", Way::Two, "net", releases.clone(), everything),
        ("narrow net", Way::Narrow, "net", docs_alone.clone(), docs),
        ("narrow every", Way::Narrow, "every", sources_alone.clone(), sources),
        ("narrow net names", Way::Narrow, "net", names.clone(), everything),
        ("v0 net", Way::Zero, "net", links.clone(), everything),
        ("v0 every", Way::Zero, "every", nothing, everything),
        ("v0 net excludes", Way::Zero, "net", excludes, no_docs_and_binaries),
        ("path net", Way::Path, "net", links, everything),
        ("path every", Way::Path, "every", sources_alone, sources),
        ("path every names", Way::Path, "every", names, everything),
        ("path pattern", Way::Path, "net", releases, everything),
    ]
}

/// All of them, registered; `url` says where the repository is on each way.
pub(super) fn register(server: &Server, url: impl Fn(Way) -> String) -> Vec<Watch> {
    let register = |(name, way, mode, mut body, admits): Kind| {
        let subscriber = Subscriber::start();
        let is_pattern = body["branch"].is_string();
        let is_phased = name.ends_with("phased");
        {
            let mut model = subscriber.model();
            (model.by_branch, model.phased) = (is_pattern, is_phased);
        }
        let order = if is_phased { "phased" } else { "strict" };
        let delivery = json!({ "multi_branch": is_pattern, "order": order });
        let app = App::onboard_with(server, &subscriber, &json!({ "delivery": delivery }));
        let lens = Lens {
            is_every: mode == "every",
            symlinks: body["symlinks"] == "send",
            content: body["content"] != "none",
            max_size: body["max_size"].as_u64().unwrap_or(u64::MAX),
            admits,
        };
        if !is_pattern {
            body["branch"] = json!("main");
        }
        (body["url"], body["mode"]) = (json!(url(way)), json!(mode));
        let id = app.watch_with(server, &body);
        let branches: &[&str] = if is_pattern { &RELEASES } else { &["main"] };
        Watch { name, way, lens, app, id, subscriber, branches, held: BTreeMap::new(), has: BTreeMap::new() }
    };
    kinds().into_iter().map(register).collect()
}

impl Watch {
    /// What it still waits for, if it does, before all of its branches are at these heads.
    pub(super) fn waits_for(
        &self,
        server: &Server,
        head: impl Fn(&str) -> Option<ObjectId>,
    ) -> Option<Value> {
        let shown = self.app.repository(server, &self.id);
        let listed = shown["branches"].as_array().cloned().unwrap_or_default();
        for name in self.branches {
            let full = format!("refs/heads/{name}");
            let branch = listed.iter().find(|branch| branch["branch"] == full.as_str()).cloned();
            let branch = branch.unwrap_or_default();
            let expected = head(name).map_or(Value::Null, |head| json!(head.to_string()));
            if branch["held_commit"] != expected || !branch["round"].is_null() {
                return Some(json!({ "branch": name, "expected": expected, "shown": shown }));
            }
            assert_ne!(branch["deletes_unknown"], true, "{}: {shown:#}", self.name);
        }
        None
    }
}
