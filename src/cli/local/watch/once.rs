//! The end of `tidings watch --once`: everything that the repository has now is taken, or something stands in
//! the way; and how much was sent.

use std::{
    io::{self, Write as _},
    time::Duration,
};

use tidings_actors::{
    ports::{LetterFilter, Reach, RefListing, RoundFacts, RoundFilter, SourceStore, Store, Watch},
    time::Timestamp,
};
use tidings_entity::{
    id::{AppId, WatchId},
    kind::{CursorState, LetterStatus},
};

use super::{Adapters, Code, Failure, LocalProgram, WatchArgs};
use crate::sinks::exec::GIVEN_UP;

/// The most parked changes that `--once` counts.
const GIVEN_UP_SHOWN: u64 = 100;
/// The number of rounds whose changes `--once` counts.
const ROUNDS_COUNTED: u64 = 1_000;
/// The number of newest rounds of which `--once` says whether the program gave them up.
const ROUNDS_LOOKED_AT: u64 = 100;
/// The most runs of the program for one round that are looked at.
const RUNS_LOOKED_AT: u64 = 1_000;
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
/// `program`: what runs at the end of each round.
///
/// # Errors
/// A blocked branch, a repository that cannot be read, a receiver that takes nothing, parked changes, and
/// rounds that the program gave up.
pub(super) async fn everything_taken(
    store: &dyn Store,
    app: &AppId,
    watch: &WatchId,
    program: Option<&LocalProgram>,
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
            nothing_given_up(store, &watch).await?;
            if let Some(program) = program {
                no_round_given_up(store, &watch, program).await?;
            }
            return Ok(watch);
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
async fn nothing_given_up(store: &dyn Store, watch: &Watch) -> Result<(), Failure> {
    let watched = Some(watch.id.clone());
    let open = LetterFilter { watch: watched, ..LetterFilter::standing(LetterStatus::Open) };
    let page = store.dead_letters(&watch.app, &open, None, GIVEN_UP_SHOWN).await;
    let letters = page.map_err(|error| Failure::of_error(Code::Unavailable, &error))?.letters;
    let Some(newest) = letters.first() else { return Ok(()) };
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
    Err(Failure::new(Code::Data, format!("{}{key}", not_taken(letters.len() as u64, &path, &why))))
}

/// Fails if the program gave up a round that is still in the history: its changes are not delivered again.
async fn no_round_given_up(store: &dyn Store, watch: &Watch, program: &LocalProgram) -> Result<(), Failure> {
    let unavailable = |error| Failure::of_error(Code::Unavailable, &error);
    let filter = RoundFilter { watch: Some(watch.id.clone()), ..RoundFilter::default() };
    let rounds = store.rounds(&watch.app, &filter, ROUNDS_LOOKED_AT).await.map_err(unavailable)?;
    let mut given_up = Vec::new();
    for round in &rounds {
        // The notice that ends a round has the position after its last change.
        let tries = store.attempts(&round.cursor, round.number, round.total(), RUNS_LOOKED_AT).await;
        if tries.map_err(unavailable)?.iter().any(|run| run.status == Some(GIVEN_UP)) {
            given_up.push(round);
        }
    }
    let text = match (given_up.first(), program.given_up()) {
        (Some(newest), _) => rounds_given_up(given_up.len(), newest.number, &newest.branch),
        // The row of this run may not be on disk yet.
        (None, Some(why)) => why.to_owned(),
        (None, None) => return Ok(()),
    };
    Err(Failure::new(Code::Data, text))
}

/// How many rounds were given up, with the newest of them.
fn rounds_given_up(count: usize, number: i64, branch: &str) -> String {
    let which = match count {
        1 => format!("1 round was given up: round {number} of {branch}"),
        _ => format!("{count} rounds were given up, the newest is round {number} of {branch}"),
    };
    format!("{which} (the program exited with 100); the program is not run again for it")
}

/// Moves the heads of a watch's source as listed. Returns why some refs that the watch matches are not taken:
/// their files cannot be read, or they are more than a pattern follows.
pub(super) async fn take_listing(
    adapters: &Adapters,
    watch: &Watch,
    listing: &RefListing,
) -> Result<Option<String>, Failure> {
    let moved = adapters.store.move_heads(&watch.source, listing, adapters.clock.now()).await;
    let moved = moved.map_err(|error| Failure::of_error(Code::Unavailable, &error))?;
    let matcher = watch.selector.matcher();
    let is_matched = |name: &str| matcher.as_ref().is_some_and(|matcher| matcher.matches(name));
    let unreadable = listing.unreadable.iter().filter(|(name, _)| is_matched(name));
    let reasons: Vec<&str> = unreadable.map(|(_, reason)| reason.as_str()).collect();
    if !reasons.is_empty() {
        return Ok(Some(reasons.join("; ")));
    }
    let (pattern, left_out) = (&watch.selector.value, moved.left_out.get(&watch.id));
    let words = |count| {
        format!("{count} of the refs that {pattern} matches are not followed: git.pattern_refs_max binds")
    };
    Ok(left_out.map(words))
}

/// Fails if refs that the watch matches were not taken.
pub(super) fn nothing_left_behind(why: Option<String>) -> Result<(), Failure> {
    why.map_or(Ok(()), |why| Err(Failure::new(Code::Data, format!("not everything was taken: {why}"))))
}

/// How many changes were given up, with the newest of them.
fn not_taken(count: u64, path: &str, why: &str) -> String {
    match count {
        1 => format!("1 change was not taken: {path} ({why})"),
        GIVEN_UP_SHOWN => format!("{count} changes or more were not taken, the newest is {path} ({why})"),
        _ => format!("{count} changes were not taken, the newest is {path} ({why})"),
    }
}

/// Waits until a run of the program failed, or a change could not be printed: a command that ends with its
/// work does not try again.
pub(super) async fn failed_run(failure: &mut tokio::sync::watch::Receiver<Option<String>>) -> String {
    match failure.wait_for(Option::is_some).await {
        Ok(why) => why.clone().unwrap_or_default(),
        Err(_closed) => std::future::pending().await,
    }
}

/// A signal is how a command without `--once` ends, and keeps one with `--once` from its end.
pub(super) fn interrupted(once: bool, shown: &str) -> Result<(), Failure> {
    match once {
        true => Err(Failure::new(Code::Failed, format!("{shown}: interrupted before everything was taken"))),
        false => Ok(()),
    }
}

/// Whether there is nothing that could have been sent: no commit, or no ref that a pattern matches.
pub(super) fn is_empty(watch: &Watch) -> bool {
    watch.cursors.iter().all(|cursor| cursor.state == CursorState::Empty)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_change_that_was_given_up_is_named_with_the_answer() {
        let text = |count| not_taken(count, "docs/ok", "the receiver answered 422");
        assert_eq!(text(1), "1 change was not taken: docs/ok (the receiver answered 422)");
        let newest = "the newest is docs/ok (the receiver answered 422)";
        assert_eq!(text(2), format!("2 changes were not taken, {newest}"));
        assert_eq!(text(GIVEN_UP_SHOWN), format!("100 changes or more were not taken, {newest}"));
        let end =
            "round 7 of refs/heads/main (the program exited with 100); the program is not run again for it";
        let rounds = |count| rounds_given_up(count, 7, "refs/heads/main");
        assert_eq!(rounds(1), format!("1 round was given up: {end}"));
        assert_eq!(rounds(2), format!("2 rounds were given up, the newest is {end}"));
    }
}
