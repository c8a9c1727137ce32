//! `tidings listen --pull`: asks the server for the pending changes of one watch, handles each like a
//! delivery, and acknowledges how far it got.
//!
//! A change that the folder refuses for good (an impossible path, content that does not hash) is refused to
//! the server as well and becomes a dead letter there. A temporary failure (a full disk) ends the claim at
//! that change, which is handed out again. Without a mirror nothing is kept, so nothing is settled unless the
//! user asks for that: the changes are printed and given back.

use std::{io::Write, time::Duration};

use http::Method;
use serde_json::{Value, json};
use tidings_actors::model::words::counted;
use tokio::time::{Instant, sleep};

use super::{
    BODY_MAX, Receiver,
    message::{Message, Verb},
    mirror::MirrorError,
};
use crate::cli::{Code, Failure, client::Client};

/// The time that one request waits for a change; the client's deadline is longer.
const WAIT_SECONDS: &str = "20";
/// An empty answer sooner than this means that the server lets no more requests wait.
const AT_ONCE: Duration = Duration::from_secs(1);
/// The wait after that, and after a failure that may pass.
const AGAIN: Duration = Duration::from_secs(2);

/// With `--once`: this many empty answers in a row while changes are pending mean that another reader holds
/// them. Fewer may mean that the round is still being opened. As many failures end the pull.
const EMPTY_MAX: u32 = 5;

/// What becomes of the changes that are handed out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum PullMode {
    /// They are printed or mirrored, and settled; with `once` until no change is pending.
    Settle {
        /// Whether the pull ends when no change is pending.
        once: bool,
    },
    /// The changes of the first answer are printed and given back. Then the pull ends.
    Print,
}

/// The result of one answer of the server.
struct Outcome {
    accepted_through: Option<u64>,
    refused: Vec<Value>,
    /// The temporary failure at the change after the last accepted one, if any.
    stuck: Option<String>,
}

/// Pulls until `stop` is ready, or as the mode says.
///
/// # Errors
/// When the server refuses (a wrong token, an app with an endpoint, no such watch).
pub(super) async fn run(
    client: Client,
    receiver: &Receiver,
    watch: &str,
    mode: PullMode,
    stop: impl Future<Output = ()>,
) -> Result<(), Failure> {
    let client = client.expecting(BODY_MAX);
    let once = mode != PullMode::Settle { once: false };
    let mut stop = std::pin::pin!(stop);
    // Whether nothing was handed out yet.
    let mut is_idle = true;
    // Answers in a row that handed nothing out.
    let mut empty = 0;
    // Requests that failed for a reason that may pass, with `once`.
    let mut unready = 0;
    loop {
        let asked_at = Instant::now();
        // A stop takes effect only after the present claim is settled.
        let pending = tokio::select! {
            () = &mut stop => return Ok(()),
            pending = ask(&client, watch, once) => pending,
        };
        let pause = match pending {
            Ok(Value::Null) if once => {
                empty += 1;
                if is_over(&client, watch, is_idle, empty).await? {
                    return Ok(());
                }
                if asked_at.elapsed() < AT_ONCE {
                    sleep(AGAIN).await;
                }
                None
            }
            Ok(Value::Null) if asked_at.elapsed() < AT_ONCE => {
                tokio::select! {
                    () = &mut stop => return Ok(()),
                    () = sleep(AGAIN) => continue,
                }
            }
            Ok(Value::Null) => None,
            Ok(pending) if mode == PullMode::Print => {
                return print(&client, receiver, watch, &pending).await;
            }
            Ok(pending) => {
                (is_idle, empty) = (false, 0);
                work_off(&client, receiver, watch, &pending).await?
            }
            Err(failure) if once => {
                unready += 1;
                may_come(&client, watch, failure, unready).await?;
                None
            }
            Err(failure) if failure.code == Code::Unavailable => Some(failure.message),
            Err(failure) => return Err(failure),
        };
        let Some(why) = pause else { continue };
        if once {
            return Err(Failure::new(Code::Unavailable, why));
        }
        drop(writeln!(std::io::stderr(), "tidings: {why}; next try in {AGAIN:?}"));
        tokio::select! {
            () = &mut stop => return Ok(()),
            () = sleep(AGAIN) => {}
        }
    }
}

async fn ask(client: &Client, watch: &str, once: bool) -> Result<Value, Failure> {
    let wait = if once { "2" } else { WAIT_SECONDS };
    let path = ["api", "repositories", watch, "pending"];
    client.call_with_query(Method::GET, &path, &[("wait_seconds", wait)], None).await
}

/// Whether a pull with `--once` is over, after `empty` empty answers in a row.
///
/// # Errors
/// Changes are pending, and another reader holds them.
async fn is_over(client: &Client, watch: &str, is_idle: bool, empty: u32) -> Result<bool, Failure> {
    let shown = client.call(Method::GET, &["api", "repositories", watch], None).await?;
    match unpulled(&shown) {
        0 if is_idle => {
            // On standard error for the user; the exit code says the same if it is closed.
            drop(writeln!(std::io::stderr(), "tidings: {}", nothing_new(&shown)));
            Ok(true)
        }
        0 => Ok(true),
        _ if empty < EMPTY_MAX => Ok(false),
        count => {
            let changes = if count == 1 { "1 change is" } else { &format!("{count} changes are") };
            let text = format!(
                "nothing was handed out: {changes} pending, and another reader holds them until it settles \
                 them or its lease ends; ask again later"
            );
            Err(Failure::new(Code::Unavailable, text))
        }
    }
}

/// After so many `failures` of a pull with `--once`: waits if the server is there, so that the contents of
/// the next changes are still being read, or the watch is moving between replicas.
///
/// # Errors
/// Any other failure, and one that came too often.
async fn may_come(client: &Client, watch: &str, failure: Failure, failures: u32) -> Result<(), Failure> {
    let passes = failure.code == Code::Unavailable && failures < EMPTY_MAX;
    if !passes || client.call(Method::GET, &["api", "repositories", watch], None).await.is_err() {
        return Err(failure);
    }
    sleep(AGAIN).await;
    Ok(())
}

/// How many changes of the open rounds of a watch are not settled.
fn unpulled(watch: &Value) -> u64 {
    let rounds = watch["branches"].as_array().into_iter().flatten().map(|branch| &branch["round"]);
    let number = |round: &Value, name: &str| round[name].as_u64().unwrap_or(0);
    rounds.map(|round| number(round, "total").saturating_sub(number(round, "position"))).sum()
}

/// The reason why a watch has no pending changes.
fn nothing_new(watch: &Value) -> String {
    match (watch["effective_state"].as_str(), watch["effective_reason"].as_str()) {
        (Some("active") | None, _) | (_, None) => "nothing is new".to_owned(),
        (_, Some(reason)) => format!("nothing is pending: {reason}"),
    }
}

/// Prints the changes of an answer and gives them back: they stay pending.
async fn print(client: &Client, receiver: &Receiver, watch: &str, pending: &Value) -> Result<(), Failure> {
    let printed = apply(receiver, pending).await;
    let back = json!({ "lease_id": pending["lease_id"] });
    client.call(Method::POST, &["api", "repositories", watch, "settle"], Some(&back)).await?;
    printed?;
    let shown = client.call(Method::GET, &["api", "repositories", watch], None).await?;
    // On standard error, apart from the changes; the exit code says the same if it is closed.
    drop(writeln!(std::io::stderr(), "tidings: {}", not_settled(pending, &shown)));
    Ok(())
}

/// How many changes were printed and stay pending, and which options settle them.
fn not_settled(pending: &Value, watch: &Value) -> String {
    let is_change = |item: &&Value| {
        let verb = item["action"].as_str().and_then(Verb::of);
        verb.is_some_and(|(verb, _)| matches!(verb, Verb::Put | Verb::Delete))
    };
    let printed = pending["changes"].as_array().into_iter().flatten().filter(is_change).count() as u64;
    let all = unpulled(watch).max(printed);
    let is = if all == 1 { "is" } else { "are" };
    format!(
        "{printed} of {} {is} printed, and none is settled; --mirror FOLDER or --settle settles them",
        counted(all, "pending change")
    )
}

/// Applies the changes of an answer and settles them. Returns the text of a temporary failure, if any.
async fn work_off(
    client: &Client,
    receiver: &Receiver,
    watch: &str,
    pending: &Value,
) -> Result<Option<String>, Failure> {
    let path = ["api", "repositories", watch, "settle"];
    if let Err(failure) = receiver.claim(watch, pending["cursor"].as_str(), pending["branch"].as_str()) {
        // The claim is returned at once, unprocessed; only the reason is reported.
        let back = json!({ "lease_id": pending["lease_id"] });
        drop(client.call(Method::POST, &path, Some(&back)).await);
        return Err(failure);
    }
    let outcome = apply(receiver, pending).await?;
    let body = json!({
        "lease_id": pending["lease_id"],
        "accepted_through": outcome.accepted_through,
        "refused": outcome.refused,
    });
    let body = match outcome.accepted_through {
        Some(_) => body,
        None => json!({ "lease_id": pending["lease_id"] }),
    };
    match client.call(Method::POST, &path, Some(&body)).await {
        Ok(_) => Ok(outcome.stuck),
        // The lease is over, or the server was away: the same changes come again, with no effect.
        Err(failure) if matches!(failure.code, Code::Data | Code::Unavailable) => {
            Ok(Some(outcome.stuck.unwrap_or(failure.message)))
        }
        Err(failure) => Err(failure),
    }
}

async fn apply(receiver: &Receiver, pending: &Value) -> Result<Outcome, Failure> {
    let unusable = |what: &str| Failure::new(Code::Unavailable, format!("the server's answer has no {what}"));
    let changes = pending["changes"].as_array().ok_or_else(|| unusable("changes"))?;
    let mut position = pending["from"].as_u64().ok_or_else(|| unusable("from"))?;
    let from = position;
    let mut outcome = Outcome { accepted_through: None, refused: Vec::new(), stuck: None };
    for change in changes {
        let word = change["action"].as_str().ok_or_else(|| unusable("action"))?;
        let (verb, word) = Verb::of(word).ok_or_else(|| unusable("known action"))?;
        // An app with the format CloudEvents gets events here, too.
        let body =
            if change["body"]["specversion"].is_string() { &change["body"]["data"] } else { &change["body"] };
        let message: Message = serde_json::from_value(body.clone())
            .map_err(|error| Failure::new(Code::Unavailable, format!("a body is not usable: {error}")))?;
        let applied = receiver.take(verb, word, message, body.to_string().as_bytes()).await;
        let is_change = matches!(verb, Verb::Put | Verb::Delete);
        match applied {
            None | Some(Ok(_)) => {}
            Some(Err(error)) if is_change && is_for_good(&error) => {
                outcome.refused.push(json!({ "position": position, "reason": error.to_string() }));
            }
            Some(Err(error)) => {
                outcome.stuck = Some(error.to_string());
                return Ok(outcome);
            }
        }
        if is_change {
            outcome.accepted_through = Some(position);
            position += 1;
        }
    }
    if position == from {
        // Notices alone.
        outcome.accepted_through = Some(position);
    }
    Ok(outcome)
}

fn is_for_good(error: &MirrorError) -> bool {
    error.status() < 500
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pull_that_is_handed_nothing_says_whether_something_is_pending() {
        let watch = |state: &str, rounds: &[[u64; 2]]| {
            let branch =
                |[position, total]: &[u64; 2]| json!({ "round": { "position": position, "total": total } });
            json!({
                "effective_state": state,
                "effective_reason": "the repository has no commit",
                "branches": rounds.iter().map(branch).collect::<Vec<_>>(),
            })
        };
        assert_eq!(unpulled(&watch("delivering", &[[1, 3], [0, 4]])), 6);
        assert_eq!(unpulled(&json!({ "branches": [{ "branch": "refs/heads/main" }] })), 0);
        let action = |word: &str| json!({ "action": word });
        let pending = json!({ "changes": [action("resync"), action("delete"), action("create")] });
        let said = not_settled(&pending, &watch("delivering", &[[1, 5]]));
        assert!(said.starts_with("2 of 4 pending changes are printed"), "{said}");
        let one = json!({ "changes": [action("update")] });
        assert!(not_settled(&one, &watch("delivering", &[[0, 1]])).starts_with("1 of 1 pending change is"));
        assert_eq!(nothing_new(&watch("active", &[])), "nothing is new");
        assert_eq!(nothing_new(&watch("empty", &[])), "nothing is pending: the repository has no commit");
    }
}
