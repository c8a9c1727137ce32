//! A watch for people: its facts, the state of its Git source and its endpoint, the last scan, and a line for
//! each branch.

use serde_json::Value;
use tidings_actors::model::words::counted;

use crate::cli::{
    listing,
    output::{aligned, flattened, shown},
};

/// The fields that are shown in sentences below the facts.
const APART: [&str; 5] = ["branches", "breaker", "scan", "last_scan_at", "next_poll_at"];

/// A watch with a line for each of its branches; `endpoint` is the state of its sink, null if not requested.
pub(super) fn described(watch: &Value, endpoint: &Value) -> Vec<String> {
    let mut facts = watch.clone();
    if let Some(facts) = facts.as_object_mut() {
        APART.iter().for_each(|name| drop(facts.remove(*name)));
        if let Some(sink) = facts.get_mut("sink").and_then(Value::as_object_mut) {
            sink.remove("endpoint");
        }
    }
    let mut rows: Vec<Vec<String>> =
        flattened(&facts).into_iter().map(|(name, value)| vec![name, shown(value)]).collect();
    rows.push(vec!["breaker of the Git source".to_owned(), breaker(&watch["breaker"])]);
    if !endpoint.is_null() {
        rows.push(vec!["breaker of the endpoint".to_owned(), breaker(endpoint)]);
    }
    rows.extend(scan(watch));
    let mut lines = aligned(rows);
    lines.push(String::new());
    lines.extend(listing::branch_lines(watch));
    lines.extend(tasks(watch));
    lines.extend(faults(watch));
    lines
}

/// A line for each branch whose changes become tasks.
fn tasks(watch: &Value) -> Vec<String> {
    let branches = watch["branches"].as_array().into_iter().flatten();
    let window = watch["sink"]["window"].as_u64().unwrap_or(0);
    let line = |branch: &Value| {
        let tasks = branch["tasks"].as_object()?;
        let count = |name: &str| tasks.get(name).and_then(Value::as_u64).unwrap_or(0);
        let mut text = format!(
            "{}: {} of at most {window}, {} with workers",
            shown(&branch["branch"]),
            counted(count("unfinished"), "unfinished task"),
            count("claimed")
        );
        if count("aside") > 0 {
            text.push_str(&format!(", {} set aside", count("aside")));
        }
        if count("left") > 0 {
            let are = if count("left") == 1 { "is no task" } else { "are no tasks" };
            text.push_str(&format!("; {} {are} yet", counted(count("left"), "change")));
        }
        let why = match tasks.get("waits_for").and_then(Value::as_str) {
            Some("deletes") => format!(", until {}", ended(count("deletes"), "delete")),
            Some("window") => ", until a task of the branch ends (window)".to_owned(),
            Some("queue") => ", until workers claim tasks of the queue".to_owned(),
            Some("app") => ", until tasks of the app end".to_owned(),
            _ => String::new(),
        };
        text.push_str(&why);
        match count("dead_in_a_row") {
            0 => {}
            dead => text.push_str(&format!("; the last {dead} that ended died")),
        }
        Some(text)
    };
    branches.filter_map(line).collect()
}

/// `1 delete has ended`, `3 deletes have ended`
fn ended(count: u64, noun: &str) -> String {
    let verb = if count == 1 { "has" } else { "have" };
    format!("{} {verb} ended", counted(count, noun))
}

/// `open, 5 failures in a row, next probe at ...: the last failure`
fn breaker(breaker: &Value) -> String {
    let mut text = format!(
        "{}, {} in a row",
        shown(&breaker["state"]),
        counted(breaker["failures"].as_u64().unwrap_or(0), "failure")
    );
    if !breaker["probe_at"].is_null() {
        text.push_str(&format!(", next probe at {}", shown(&breaker["probe_at"])));
    }
    match breaker["last_error"].as_str() {
        None | Some("") => text,
        Some(_) => format!("{text}: {}", shown(&breaker["last_error"])),
    }
}

/// The result of the last scan. A server of an older version sends only its moments.
fn scan(watch: &Value) -> Vec<Vec<String>> {
    let scan = &watch["scan"];
    let or = |first: &Value, second: &Value| shown(if first.is_null() { second } else { first });
    let mut last = or(&scan["last_at"], &watch["last_scan_at"]);
    if !scan["outcome"].is_null() {
        last.push_str(&format!(", {}, took {} ms", shown(&scan["outcome"]), shown(&scan["took_ms"])));
    }
    if !scan["bytes"].is_null() {
        last.push_str(&format!(", fetched {} bytes", shown(&scan["bytes"])));
    }
    let row = |name: &str, text: String| vec![name.to_owned(), text];
    let mut rows =
        vec![row("last scan", last), row("next scan", or(&scan["next_at"], &watch["next_poll_at"]))];
    if scan["failures"].as_u64().is_some_and(|failures| failures > 0) {
        rows.push(row("failed scans in a row", shown(&scan["failures"])));
    }
    if !scan["reason"].is_null() {
        rows.push(row("why the scan failed", shown(&scan["reason"])));
    }
    if let Some(refs) = scan["unseen"]["refs"].as_array() {
        let names: Vec<String> = refs.iter().map(shown).collect();
        let why = shown(&scan["unseen"]["reason"]);
        rows.push(row("refs that were not listed", format!("{} ({why})", names.join(", "))));
    }
    rows
}

/// A line for each branch whose commit cannot be fetched.
fn faults(watch: &Value) -> Vec<String> {
    let branches = watch["branches"].as_array().into_iter().flatten();
    let faulty = branches.filter(|branch| branch["fault"].is_object());
    faulty
        .map(|branch| {
            let (fault, commit) = (&branch["fault"], shown(&branch["head_commit"]));
            let (name, since, why) =
                (shown(&branch["branch"]), shown(&fault["since"]), shown(&fault["reason"]));
            let next = match &fault["next_try_at"] {
                Value::Null => String::new(),
                next => format!("; it is tried again at {} or with the scan after that", shown(next)),
            };
            format!("{name}: {commit} cannot be taken since {since}: {why}{next}")
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn assert_says(lines: &[String], parts: &[&str]) {
        let text = lines.join("\n").split_whitespace().collect::<Vec<_>>().join(" ");
        for part in parts {
            assert!(text.contains(part), "{part:?} is not in: {text}");
        }
    }

    #[test]
    fn git_source_and_endpoint_are_told_apart_and_the_last_scan_is_readable() {
        let watch = json!({
            "repository_id": "repo_1",
            "breaker": { "state": "open", "failures": 5, "probe_at": "12:00" },
            "last_scan_at": "11:00", "next_poll_at": "12:00",
            "scan": {
                "last_at": "11:00", "next_at": "12:00", "took_ms": 70, "outcome": "auth_failed",
                "failures": 5,
                "reason": "the Git host refuses the credential",
                "unseen": { "refs": ["refs/tags/"], "reason": "too large" },
            },
            "branches": [{
                "branch": "refs/heads/evil", "head_commit": "abc",
                "fault": { "reason": "malformed", "since": "10:00", "next_try_at": "12:30" },
            }],
        });
        let endpoint = json!({ "state": "closed", "failures": 1, "last_error": "status 503" });
        let lines = described(&watch, &endpoint);
        assert_says(
            &lines,
            &[
                "repository_id repo_1",
                "breaker of the Git source open, 5 failures in a row, next probe at 12:00",
                "breaker of the endpoint closed, 1 failure in a row: status 503",
                "last scan 11:00, auth_failed, took 70 ms next scan 12:00 failed scans in a row 5",
                "why the scan failed the Git host refuses the credential",
                "refs that were not listed refs/tags/ (too large)",
                "refs/heads/evil: abc cannot be taken since 10:00: malformed; it is tried again at 12:30",
            ],
        );
        assert!(
            !lines.iter().any(|line| line.starts_with("breaker.") || line.starts_with("scan")),
            "{lines:?}"
        );
    }

    #[test]
    fn branches_whose_changes_become_tasks_say_what_they_wait_for() {
        let watch = json!({
            "sink": { "kind": "tasks", "command": "index", "window": 10 },
            "branches": [
                { "branch": "refs/heads/main", "tasks": { "unfinished": 2, "claimed": 1, "aside": 0,
                    "left": 7, "deletes": 2, "dead_in_a_row": 0, "waits_for": "deletes" } },
                { "branch": "refs/heads/dev", "tasks": { "unfinished": 1, "claimed": 0, "aside": 1,
                    "left": 1, "deletes": 0, "dead_in_a_row": 3 } },
                { "branch": "refs/heads/old" },
            ],
        });
        assert_eq!(
            tasks(&watch),
            [
                "refs/heads/main: 2 unfinished tasks of at most 10, 1 with workers; 7 changes are no tasks \
                 yet, until 2 deletes have ended",
                "refs/heads/dev: 1 unfinished task of at most 10, 0 with workers, 1 set aside; 1 change is \
                 no task yet; the last 3 that ended died",
            ]
        );
    }

    #[test]
    fn a_server_of_an_older_version_is_understood() {
        let watch = json!({ "breaker": { "state": "closed", "failures": 0 }, "last_scan_at": "11:00" });
        let lines = described(&watch, &Value::Null);
        assert_says(&lines, &["last scan 11:00 next scan -", "breaker of the Git source closed, 0 failures"]);
        assert!(!lines.iter().any(|line| line.contains("endpoint")), "{lines:?}");
    }
}
