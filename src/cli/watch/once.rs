//! The end of `tidings watch --once`: everything that the repository has now is taken, or something stands in
//! the way; and how much was sent.

use std::{
    io::{self, Write as _},
    time::Duration,
};

use tidings_actors::{
    ports::{LetterFilter, Reach, RoundFacts, RoundFilter, Store, Watch},
    time::Timestamp,
};
use tidings_entity::{
    id::{AppId, WatchId},
    kind::{CursorState, LetterStatus},
};

use super::{Code, Failure, WatchArgs};

/// The most parked changes that `--once` counts.
const GIVEN_UP_SHOWN: u64 = 100;
/// The number of rounds whose changes `--once` counts.
const ROUNDS_COUNTED: u64 = 1_000;
/// How often `--once` looks whether everything has arrived.
const LOOK: Duration = Duration::from_millis(25);
/// The tries of a change are looked at with each look of this many.
const LOOKS_A_LOOK_AT_TRIES: u32 = 20;
/// A receiver that did not take a change in this many tries is given up.
const TRIES_MAX: u64 = 5;

/// Says how much was sent where no line says so: to a receiver, or nothing at all.
pub(super) async fn tell_what_was_sent(
    args: &WatchArgs,
    store: &dyn Store,
    watch: &Watch,
    since: Timestamp,
) -> Result<(), Failure> {
    let unavailable = |error| Failure::of_error(Code::Unavailable, &error);
    let filter = RoundFilter { watch: Some(watch.id.clone()), from: Some(since), ..RoundFilter::default() };
    let rounds = store.rounds(&watch.app, &filter, ROUNDS_COUNTED).await.map_err(unavailable)?;
    let sent: u64 = rounds.iter().map(RoundFacts::total).sum();
    let more = if rounds.len() as u64 == ROUNDS_COUNTED { "more than " } else { "" };
    let has_globs = !args.include.is_empty() || !args.exclude.is_empty();
    let said = match (sent, &args.to) {
        // The notice for an empty repository was printed already.
        (0, _) if is_empty(watch) => return Ok(()),
        (0, _) if args.data_dir.is_none() && has_globs => {
            "nothing was sent: no path matches --include and --exclude".to_owned()
        }
        (0, _) if args.data_dir.is_none() => "nothing was sent: there is no file".to_owned(),
        (0, _) => "nothing was sent: there is nothing new".to_owned(),
        (1, Some(to)) => format!("1 change was taken by {to}"),
        (sent, Some(to)) => format!("{more}{sent} changes were taken by {to}"),
        (_, None) => return Ok(()),
    };
    // On standard error, where no event is.
    drop(writeln!(io::stderr(), "{}: {said}", watch.facts.github_url));
    Ok(())
}

/// Waits until the app holds the head of every branch that it watches, and nothing else waits for it there.
///
/// # Errors
/// A blocked branch, a repository that cannot be read, a receiver that takes nothing, and parked changes.
pub(super) async fn everything_taken(
    store: &dyn Store,
    app: &AppId,
    watch: &WatchId,
) -> Result<Watch, Failure> {
    let mut looks: u32 = 0;
    loop {
        let watch =
            store.watch(app, watch).await.map_err(|error| Failure::of_error(Code::Unavailable, &error))?;
        let blocked = watch.cursors.iter().find(|cursor| cursor.state == CursorState::Blocked);
        if let Some(reason) = blocked.and_then(|cursor| cursor.reason.clone()).or(watch.last_error.clone()) {
            return Err(Failure::new(Code::Unavailable, reason));
        }
        let is_at_head =
            watch.cursors.iter().all(|cursor| cursor.open.is_none() && cursor.held == cursor.head);
        if is_at_head && !is_pending(store, &watch).await? {
            return nothing_given_up(store, app).await.map(|()| watch);
        }
        looks = looks.wrapping_add(1);
        if looks.is_multiple_of(LOOKS_A_LOOK_AT_TRIES) {
            heads_are_taken(store, &watch).await?;
        }
        tokio::time::sleep(LOOK).await;
    }
}

/// Fails if the receiver did not take the change at the head of a branch in many tries. A server would go on
/// trying for days; the person before this command waits for an end.
async fn heads_are_taken(store: &dyn Store, watch: &Watch) -> Result<(), Failure> {
    for cursor in &watch.cursors {
        let Some((round, position, _)) = cursor.open else { continue };
        let tries = store.attempts(&cursor.id, round, position, TRIES_MAX).await;
        let tries = tries.map_err(|error| Failure::of_error(Code::Unavailable, &error))?;
        let Some(last) = tries.last().filter(|_| tries.len() as u64 == TRIES_MAX) else { continue };
        let why = match (last.status, last.excerpt.as_str()) {
            (Some(status), "") => format!("it answered {status}"),
            (Some(status), excerpt) => format!("it answered {status}: {excerpt}"),
            (None, "") => "it did not answer".to_owned(),
            (None, excerpt) => excerpt.to_owned(),
        };
        let text = format!("the receiver did not take change {} in {TRIES_MAX} tries: {why}", position + 1);
        return Err(Failure::new(Code::Unavailable, text));
    }
    Ok(())
}

/// Whether a branch of a watch has something to do: other globs, or a resync, also at the head that it holds.
async fn is_pending(store: &dyn Store, watch: &Watch) -> Result<bool, Failure> {
    let pending = store.pending(Some(&watch.app), &Reach::All).await;
    let pending = pending.map_err(|error| Failure::of_error(Code::Unavailable, &error))?;
    Ok(pending.iter().any(|(_, id)| watch.cursors.iter().any(|cursor| cursor.id == *id)))
}

/// Fails if a change was parked: a change that was not acknowledged is no success.
async fn nothing_given_up(store: &dyn Store, app: &AppId) -> Result<(), Failure> {
    let open = LetterFilter::standing(LetterStatus::Open);
    let page = store.dead_letters(app, &open, None, GIVEN_UP_SHOWN).await;
    let letters = page.map_err(|error| Failure::of_error(Code::Unavailable, &error))?.letters;
    let Some(newest) = letters.first() else { return Ok(()) };
    let count = match letters.len() as u64 {
        1 => "a change was".to_owned(),
        GIVEN_UP_SHOWN => format!("{GIVEN_UP_SHOWN} changes or more were"),
        count => format!("{count} changes were"),
    };
    let path = String::from_utf8_lossy(&newest.path);
    let why = match (newest.http_status, newest.excerpt.as_str()) {
        (Some(status), "") => format!("the receiver answered {status}"),
        (Some(status), excerpt) => format!("the receiver answered {status}: {excerpt}"),
        (None, excerpt) => excerpt.to_owned(),
    };
    let key = match newest.http_status {
        Some(401 | 403) => "; if the receiver has another key, --secret-file names the file that holds it",
        _ => "",
    };
    Err(Failure::new(Code::Data, format!("{count} not taken, {path} among them: {why}{key}")))
}

/// Waits until a run of the program failed: a command that ends with its work does not try again.
pub(super) async fn failed_run(failure: &mut tokio::sync::watch::Receiver<Option<String>>) -> String {
    match failure.wait_for(Option::is_some).await {
        Ok(why) => why.clone().unwrap_or_default(),
        Err(_closed) => std::future::pending().await,
    }
}

/// Whether there is nothing that could have been sent: no commit, or no ref that a pattern matches.
pub(super) fn is_empty(watch: &Watch) -> bool {
    watch.cursors.iter().all(|cursor| cursor.state == CursorState::Empty)
}
