//! The watches in a kept data directory. A command watches one of them: the others rest, because their
//! changes are not meant for its output or its program.

use std::io::{self, Write as _};

use tidings_actors::ports::{
    LetterFilter, LetterStore, Location, Selector, StoreError, Watch, WatchPatch, WatchStore,
};
use tidings_entity::{
    id::WatchId,
    kind::{HistoryMode, LetterStatus, ParkReason, WatchState},
};

use crate::{
    app::Adapters,
    cli::{Code, Failure},
    git::address::Address,
};

/// The reason for the pause of a watch that rests.
const RESTS: &str = "another repository or branch was watched with this data directory";

/// Lets all known watches rest but this one, which goes on and delivers its history in this mode. Its changes
/// that could not be read are delivered again: what was missing may be there now.
pub(super) async fn watch_one(
    adapters: &Adapters,
    known: &[Watch],
    own: Option<&WatchId>,
    mode: HistoryMode,
) -> Result<(), Failure> {
    for watch in known {
        let is_own = Some(&watch.id) == own;
        let state = state_of(watch, is_own);
        let mode = (is_own && watch.mode != mode).then_some(mode);
        if state.is_some() || mode.is_some() {
            let patch = WatchPatch { state, mode, ..WatchPatch::default() };
            let patched = adapters.store.patch_watch(&watch.app, &watch.id, &patch).await;
            patched.map_err(unavailable)?;
        }
        if is_own {
            redrive_unread(adapters, watch).await?;
        }
    }
    Ok(())
}

/// The other state that a known watch gets, with the reason. `is_own`: the command watches it now.
fn state_of(watch: &Watch, is_own: bool) -> Option<(WatchState, Option<String>)> {
    match (watch.state, is_own) {
        (WatchState::Active, false) => Some((WatchState::Paused, Some(RESTS.to_owned()))),
        // A pause for another reason, such as that of the guard against mass deletes, stays.
        (WatchState::Paused, true) if watch.reason.as_deref() == Some(RESTS) => {
            Some((WatchState::Active, None))
        }
        _ => None,
    }
}

async fn redrive_unread(adapters: &Adapters, watch: &Watch) -> Result<(), Failure> {
    let store = adapters.store.as_ref();
    let unread = LetterFilter {
        watch: Some(watch.id.clone()),
        reason: Some(ParkReason::ContentUnavailable),
        ..LetterFilter::standing(LetterStatus::Open)
    };
    if store.dead_letters(&watch.app, &unread, None, 1).await.map_err(unavailable)?.letters.is_empty() {
        return Ok(());
    }
    let redrive = store.begin_redrive(&watch.app, &unread).await.map_err(unavailable)?;
    while store.mark_redrive(Some(&redrive)).await.map_err(unavailable)?.is_some_and(|step| step.more) {}
    Ok(())
}

fn unavailable(error: StoreError) -> Failure {
    Failure::of_error(Code::Unavailable, &error)
}

/// Whether a known watch is for the repository at this address. Paths are compared as they were resolved, and
/// not as they were typed: `s` and `./r/../s` are one folder, and `s` in another working directory is another
/// folder. Only a host can tell whether `x` and `x.git` are one repository. The host was asked when the watch
/// was registered, so the same text means the same repository again.
pub(super) fn is_of(watch: &Watch, address: &Address) -> bool {
    match &address.location {
        Location::Local(_) => watch.url == address.normalised,
        Location::Http(_) => {
            watch.facts.github_url == address.display || watch.url == address.clone().kept_apart().normalised
        }
    }
}

/// Says that all files of a branch are sent again because it was watched with other globs before.
pub(super) fn tell_if_other_globs(known: &[Watch], address: &Address, selector: &Selector) {
    if known.iter().any(|watch| is_of(watch, address) && watch.selector == *selector) {
        let text = "it was watched here with other globs: every file that matches now is delivered again";
        // On standard error, where no event is.
        drop(writeln!(io::stderr(), "{}: {text}", address.display));
    }
}

#[cfg(test)]
mod tests {
    use tidings_actors::time::Timestamp;

    use super::*;
    use crate::http::tests::plain;

    #[test]
    fn a_watch_rests_while_another_one_is_watched_and_a_pause_of_another_reason_stays() {
        let becomes = |state: WatchState, reason: Option<&str>, is_own: bool| {
            let reason = reason.map(str::to_owned);
            let watch =
                Watch { state, reason, ..plain::watch(Timestamp(0), plain::cursor(1, "refs/heads/a")) };
            state_of(&watch, is_own)
        };
        let guard = Some("the guard against mass deletes");
        let rests = Some((WatchState::Paused, Some(RESTS.to_owned())));
        assert_eq!(becomes(WatchState::Active, None, false), rests);
        assert_eq!(becomes(WatchState::Paused, Some(RESTS), true), Some((WatchState::Active, None)));
        for (state, reason, is_own) in [
            (WatchState::Active, None, true),
            (WatchState::Paused, Some(RESTS), false),
            (WatchState::Paused, guard, true),
            (WatchState::Paused, guard, false),
        ] {
            assert_eq!(becomes(state, reason, is_own), None, "{state} {reason:?} {is_own}");
        }
    }
}
