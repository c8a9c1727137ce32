//! Watches as lines of tables: the same words for apps and for the staff.

use serde_json::{Value, json};

use crate::cli::output::{shown, table};

/// The columns of a list of an app's watches.
pub(crate) const COLUMNS: [&str; 10] = [
    "repository_id",
    "repository",
    "branch",
    "state",
    "position",
    "lag_ms",
    "dead_letters",
    "last_scan_at",
    "next_poll_at",
    "why",
];
/// The columns of a list of the watches of all apps.
pub(crate) const STAFF_COLUMNS: [&str; 13] = [
    "app_name",
    "app_id",
    "repository",
    "branch",
    "repository_id",
    "state",
    "lag_ms",
    "position",
    "dead_letters",
    "last_scan_at",
    "next_poll_at",
    "waits_for",
    "why",
];
/// The columns of the branches of a watch.
const BRANCH_COLUMNS: [&str; 10] = [
    "branch",
    "state",
    "position",
    "held_commit",
    "head_commit",
    "lag_ms",
    "dead_letters",
    "next_attempt_at",
    "deletes_unknown",
    "reason",
];

/// One line for each watch. Repositories with equal names are told apart by their addresses.
pub(crate) fn lines(watches: &[Value]) -> Vec<Value> {
    let mut lines: Vec<Value> = watches.iter().map(line).collect();
    let names: Vec<Value> = lines.iter().map(|line| line["repository"].clone()).collect();
    for ((line, watch), name) in lines.iter_mut().zip(watches).zip(&names) {
        let mut others = names.iter().zip(watches);
        if others.any(|(other, twin)| other == name && twin["github_url"] != watch["github_url"]) {
            line["repository"] = json!(format!("{} ({})", shown(name), shown(&watch["github_url"])));
        }
    }
    lines
}

/// The facts about a watch in one line. A server of an older version sends fewer.
pub(crate) fn line(watch: &Value) -> Value {
    let branches = branches(watch);
    let lag = branches.iter().filter_map(|branch| branch["lag_ms"].as_u64()).max().unwrap_or(0);
    let or = |first: &Value, second: Value| if first.is_null() { second } else { first.clone() };
    let name = json!(format!("{}/{}", shown(&watch["owner"]), shown(&watch["name"])));
    let repository = or(&watch["repository"], name);
    let repository = match watch["watch_name"].as_str() {
        Some(alias) if !alias.is_empty() => json!(format!("{} ({alias})", shown(&repository))),
        _ => repository,
    };
    json!({
        "app_id": watch["app_id"],
        "app_name": watch["app_name"],
        "repository_id": watch["repository_id"],
        "repository": repository,
        "branch": followed(watch, branches),
        "state": or(&watch["effective_state"], watch["state"].clone()),
        "lag_ms": lag,
        "position": position(branches),
        "dead_letters": watch["dead_letters"],
        "last_scan_at": watch["last_scan_at"],
        "next_poll_at": watch["next_poll_at"],
        "waits_for": waits_for(watch, branches),
        "why": or(&watch["effective_reason"], watch["last_error"].clone()),
    })
}

/// The branch, refs or pattern that a watch follows.
fn followed(watch: &Value, branches: &[Value]) -> Value {
    let value = &watch["selector"]["value"];
    match watch["selector"]["kind"].as_str() {
        Some("default_branch") | None => {
            let name = branches.first().and_then(|branch| branch["branch"].as_str()).unwrap_or_default();
            let name = name.strip_prefix("refs/heads/").unwrap_or(name);
            if name.is_empty() { Value::Null } else { json!(name) }
        }
        Some("tag_pattern") => json!(format!("refs/tags/{}", value.as_str().unwrap_or_default())),
        Some(_) => value.clone(),
    }
}

/// Lines for the branches of a watch, under their names.
pub(crate) fn branch_lines(watch: &Value) -> Vec<String> {
    let readable = |branch: &Value| {
        let mut branch = branch.clone();
        branch["position"] = position(std::slice::from_ref(&branch));
        if branch["effective_state"].is_string() {
            branch["state"] = branch["effective_state"].clone();
        }
        branch
    };
    let branches: Vec<Value> = branches(watch).iter().map(readable).collect();
    table(&branches, &BRANCH_COLUMNS)
}

fn branches(watch: &Value) -> &[Value] {
    watch["branches"].as_array().map_or(&[], Vec::as_slice)
}

/// `208/251`: the settled changes and the total of the open rounds; null if no round is open.
fn position(branches: &[Value]) -> Value {
    let open: Vec<(u64, u64)> = branches
        .iter()
        .filter_map(|branch| {
            Some((branch["round"]["position"].as_u64()?, branch["round"]["total"].as_u64()?))
        })
        .collect();
    if open.is_empty() {
        return Value::Null;
    }
    let (settled, total) =
        open.iter().fold((0, 0), |(settled, all), (position, total)| (settled + position, all + total));
    json!(format!("{settled}/{total}"))
}

/// The delivery that failed, or the place of the change that is being delivered.
fn waits_for(watch: &Value, branches: &[Value]) -> Value {
    if !watch["waits_for"].is_null() {
        return watch["waits_for"].clone();
    }
    let open = branches.iter().find(|branch| branch["round"]["position"].is_u64());
    open.map_or(Value::Null, |branch| {
        let (position, round) = (&branch["round"]["position"], &branch["round"]["round"]);
        json!(format!("position {position} of round {round}"))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slow_app_shows_how_far_it_is_and_why() {
        let watch = json!({
            "app_name": "search", "repository": "a/b", "state": "active", "effective_state": "delivering",
            "effective_reason": "208 of 251 changes are settled", "waits_for": null, "dead_letters": 2,
            "branches": [
                { "state": "active", "effective_state": "retrying", "lag_ms": 5,
                    "round": { "round": 7, "position": 200, "total": 240 } },
                { "lag_ms": 9, "round": { "round": 8, "position": 8, "total": 11 } },
                { "lag_ms": 0 },
            ],
        });
        let line = line(&watch);
        for (column, expected) in [
            ("state", json!("delivering")),
            ("position", json!("208/251")),
            ("lag_ms", json!(9)),
            ("dead_letters", json!(2)),
            ("waits_for", json!("position 200 of round 7")),
            ("why", json!("208 of 251 changes are settled")),
        ] {
            assert_eq!(line[column], expected, "{column}");
        }
        let branches = branch_lines(&watch);
        assert!(branches[1].contains("retrying") && !branches[1].contains("active"), "{branches:?}");
        assert!(branches[1].contains("200/240") && branches[3].contains('-'), "{branches:?}");
    }

    #[test]
    fn a_watch_at_rest_waits_for_nothing() {
        let watch = json!({ "state": "active", "owner": "a", "name": "b", "branches": [{ "lag_ms": 0 }] });
        let line = line(&watch);
        assert_eq!((&line["waits_for"], &line["position"]), (&Value::Null, &Value::Null));
        assert_eq!((&line["state"], &line["repository"]), (&json!("active"), &json!("a/b")));
    }

    #[test]
    fn watches_of_one_repository_are_told_apart_by_their_branches_and_names() {
        let watch = |kind: &str, value: &str, name: &str| {
            json!({ "owner": "o", "name": "r", "github_url": "https://a/o/r", "watch_name": name,
                "selector": { "kind": kind, "value": value }, "branches": [{ "branch": "refs/heads/main" }] })
        };
        let watches = [
            watch("default_branch", "", ""),
            watch("branch_pattern", "release/*", ""),
            watch("tag_pattern", "v*", ""),
            watch("ref", "refs/notes/x", "deploy"),
        ];
        let lines = lines(&watches);
        let shown = |name: &str| lines.iter().map(|line| line[name].clone()).collect::<Vec<_>>();
        assert_eq!(shown("branch"), ["main", "release/*", "refs/tags/v*", "refs/notes/x"]);
        assert_eq!(shown("repository"), ["o/r", "o/r", "o/r", "o/r (deploy)"]);
        for columns in [&COLUMNS[..], &STAFF_COLUMNS] {
            assert!(columns.contains(&"branch") && columns.contains(&"repository"));
        }
    }

    #[test]
    fn watches_of_one_name_are_told_apart_by_their_addresses() {
        let watch = |name: &str, url: &str| json!({ "owner": "o", "name": name, "github_url": url });
        let watches = [watch("r", "https://a/o/r"), watch("r", "https://b/o/r"), watch("s", "https://a/o/s")];
        let names: Vec<Value> = lines(&watches).iter().map(|line| line["repository"].clone()).collect();
        assert_eq!(names, ["o/r (https://a/o/r)", "o/r (https://b/o/r)", "o/s"]);
    }
}
