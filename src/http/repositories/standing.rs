//! The effective state of a watch: whether its changes flow, and if not, what prevents it. Computed only
//! here, from rows, for every route and table that shows a watch. The chosen `state` (active or paused) says
//! nothing about a refused credential, a blocked branch or an endpoint that does not answer.

pub(crate) mod kept;
pub(crate) mod sights;

use std::time::Duration;

use tidings_actors::{
    deliverer::retry::REGISTRATION_GRACE,
    model::words::counted,
    ports::{AttemptRecord, BreakerRow, CursorStatus, ScanTrouble, Watch},
    signals::polls::Polled,
    time::Timestamp,
};
use tidings_entity::kind::{BreakerKind, CursorState, SelectorKind, WatchState};

use crate::http::bodies::moment::iso;

/// Answers of a receiver that may not know its registration yet: a new watch waits after them.
const EARLY: [u16; 5] = [400, 401, 403, 404, 409];
/// The oldest round whose pace is shown: the number of an older round may not be the moment of its beginning.
const PACE_MAX: Duration = Duration::from_secs(7 * 86_400);

/// What to do about a disabled sink of a watch.
const ENABLES_SINK: &str = "nothing is sent to the sink of this watch until the watch is resumed (POST \
    /api/repositories/{id}/resume, tidings repository resume), which enables the sink";

/// The effective state of a watch in one word; the first that applies, in this order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::http) enum EffectiveState {
    /// The app of the watch is disabled.
    AppDisabled,
    /// The own sink of the watch is disabled.
    SinkDisabled,
    /// The watch is paused, by its app or by a guard.
    Paused,
    /// A branch of the watch is blocked.
    Blocked,
    /// The Git host refuses its credential.
    CredentialRefused,
    /// The repository cannot be scanned for another reason.
    SourceFailing,
    /// The endpoint of its app fails; nothing is sent but probes.
    EndpointFailing,
    /// The watch is new, and its receiver refuses the first deliveries, which therefore wait.
    InGrace,
    /// The change at the head of a branch failed and is tried again.
    Retrying,
    /// A round is being delivered.
    Delivering,
    /// A branch is behind its head, and its next round has not begun.
    Pending,
    /// A branch vanished from the repository.
    BranchMissing,
    /// The repository has no commit yet.
    Empty,
    /// The watch has a pattern that matches no ref.
    Unmatched,
    /// The app has every change.
    Active,
}

impl EffectiveState {
    /// The name of the state, as in the API.
    pub(in crate::http) fn as_str(self) -> &'static str {
        match self {
            Self::AppDisabled => "app_disabled",
            Self::SinkDisabled => "sink_disabled",
            Self::Paused => "paused",
            Self::Blocked => "blocked",
            Self::CredentialRefused => "credential_refused",
            Self::SourceFailing => "source_failing",
            Self::EndpointFailing => "endpoint_failing",
            Self::InGrace => "in_grace",
            Self::Retrying => "retrying",
            Self::Delivering => "delivering",
            Self::Pending => "pending",
            Self::BranchMissing => "branch_missing",
            Self::Empty => "empty",
            Self::Unmatched => "unmatched",
            Self::Active => "active",
        }
    }
}

/// The state of a watch, and the reason.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::http) struct Standing {
    pub(in crate::http) state: EffectiveState,
    /// Missing where there is nothing to say.
    pub(in crate::http) reason: Option<String>,
}

/// The facts from which the state is computed.
#[derive(Clone, Copy)]
pub(in crate::http) struct Facts<'f> {
    pub(in crate::http) watch: &'f Watch,
    /// Why its app is disabled; `None` while it is served.
    pub(in crate::http) app_disabled: Option<&'f str>,
    /// Whether its changes are pulled.
    pub(in crate::http) app_pulls: bool,
    /// Number of its tasks that wait while workers have none of its tasks; 0 unless its changes become tasks.
    pub(in crate::http) unclaimed: u64,
    /// All breakers that have failures.
    pub(in crate::http) breakers: &'f [BreakerRow],
    /// The last attempt at the change at the head of each open round, if there was one.
    pub(in crate::http) tries: &'f [AttemptRecord],
    /// How its source is polled, where this process polls it.
    pub(in crate::http) polled: Option<&'f Polled>,
    pub(in crate::http) now: Timestamp,
}

impl Facts<'_> {
    /// The breaker of the watch's sink, while it is open.
    fn open_endpoint(&self) -> Option<&BreakerRow> {
        let key = self.watch.sink_key();
        open_breaker(self.breakers, BreakerKind::Endpoint, key.id())
    }

    /// The last try of the change at the head of a cursor.
    pub(in crate::http) fn last_try(&self, cursor: &CursorStatus) -> Option<&AttemptRecord> {
        // Where changes are pulled, every attempt was one at an endpoint that the changes do not go to any
        // more.
        let (round, position, _) = cursor.open.filter(|_| !self.app_pulls)?;
        self.tries
            .iter()
            .find(|row| row.cursor == cursor.id && row.round == round && row.position == position)
    }

    /// When the change at the head of a cursor is tried next, where it failed.
    pub(in crate::http) fn next_attempt(&self, cursor: &CursorStatus) -> Option<Timestamp> {
        let last = self.last_try(cursor)?;
        next_attempt(last.next_at, self.open_endpoint())
    }
}

/// A breaker that is open.
pub(in crate::http) fn open_breaker<'b>(
    breakers: &'b [BreakerRow],
    kind: BreakerKind,
    id: &str,
) -> Option<&'b BreakerRow> {
    breakers.iter().find(|row| row.kind == kind && row.id == id && row.opened_at.is_some())
}

/// When a change that failed is tried next: as it was planned, or with the next probe while the breaker of
/// the endpoint is open.
pub(in crate::http) fn next_attempt(
    planned: Option<Timestamp>,
    endpoint: Option<&BreakerRow>,
) -> Option<Timestamp> {
    match endpoint {
        Some(open) => open.probe_at,
        None => planned,
    }
}

/// Derives the state of a watch from its facts.
pub(in crate::http) fn of(facts: &Facts<'_>) -> Standing {
    use EffectiveState as S;
    let watch = facts.watch;
    let is = |state, reason| Standing { state, reason };
    if let Some(reason) = facts.app_disabled {
        return is(S::AppDisabled, Some(reason.to_owned()));
    }
    if let Some(reason) = watch.sink.as_ref().and_then(|sink| sink.disabled.as_deref()) {
        return is(S::SinkDisabled, Some(format!("{reason}; {ENABLES_SINK}")));
    }
    if watch.state == WatchState::Paused {
        return is(S::Paused, watch.reason.clone());
    }
    if let Some(reason) = stuck(watch, CursorState::Blocked) {
        return is(S::Blocked, Some(reason));
    }
    if let Some(standing) = source(facts) {
        return standing;
    }
    if let Some(open) = facts.open_endpoint() {
        return is(S::EndpointFailing, Some(probed("the endpoint fails", open)));
    }
    if let Some(standing) = failed_head(facts, &watch.cursors) {
        return standing;
    }
    let untaken = untaken(facts);
    if let Some(progress) = progress(watch, facts.now) {
        let untaken = untaken.map(|untaken| format!("; {untaken}")).unwrap_or_default();
        return is(S::Delivering, Some(format!("{progress}{untaken}")));
    }
    if watch.cursors.iter().any(|cursor| cursor.behind_since.is_some()) {
        let reason = match watch.deliver_after > facts.now {
            true => format!("the first delivery is due at {}", iso(watch.deliver_after)),
            false => untaken.unwrap_or_else(|| "the next round has not begun".to_owned()),
        };
        return is(S::Pending, Some(reason));
    }
    // Branches of a pattern come and go: one that vanished is finished, and counts no more.
    if let Some(what) = matched_by(watch.selector.kind) {
        let is_gone = |cursor: &CursorStatus| cursor.state == CursorState::BranchMissing;
        return match watch.cursors.iter().all(is_gone) {
            true => {
                let pattern = &watch.selector.value;
                is(S::Unmatched, Some(format!("no {what} of the repository matches `{pattern}`")))
            }
            false => is(S::Active, None),
        };
    }
    for (state, standing) in [(CursorState::BranchMissing, S::BranchMissing), (CursorState::Empty, S::Empty)]
    {
        if let Some(reason) = stuck(watch, state) {
            return is(standing, Some(reason));
        }
    }
    is(S::Active, None)
}

/// Derives the state of one branch of a watch with this state.
pub(in crate::http) fn of_branch(
    facts: &Facts<'_>,
    of_watch: EffectiveState,
    cursor: &CursorStatus,
) -> EffectiveState {
    use EffectiveState as S;
    if matches!(of_watch, S::AppDisabled | S::SinkDisabled | S::Paused) {
        return of_watch;
    }
    if cursor.state == CursorState::Blocked {
        return S::Blocked;
    }
    if let Some(standing) = source(facts) {
        return standing.state;
    }
    if facts.open_endpoint().is_some() {
        return S::EndpointFailing;
    }
    if let Some(standing) = failed_head(facts, std::slice::from_ref(cursor)) {
        return standing.state;
    }
    match cursor.state {
        _ if cursor.open.is_some() => S::Delivering,
        _ if cursor.behind_since.is_some() => S::Pending,
        CursorState::BranchMissing => S::BranchMissing,
        CursorState::Empty => S::Empty,
        _ => S::Active,
    }
}

/// The refs that a pattern matches; `None`: the selector is no pattern.
fn matched_by(kind: SelectorKind) -> Option<&'static str> {
    match kind {
        SelectorKind::BranchPattern => Some("branch"),
        SelectorKind::TagPattern => Some("tag"),
        SelectorKind::RefPattern => Some("ref"),
        SelectorKind::DefaultBranch | SelectorKind::Branch | SelectorKind::Ref => None,
    }
}

/// Why branches are in this state, if some are; the first is named if there are several.
fn stuck(watch: &Watch, state: CursorState) -> Option<String> {
    let mut stuck = watch.cursors.iter().filter(|cursor| cursor.state == state);
    let first = stuck.next()?;
    let more = stuck.count();
    let reason = first.reason.as_deref().unwrap_or(match state {
        CursorState::BranchMissing if first.branch.is_empty() => {
            "HEAD of the repository names no branch; name one in `branch`"
        }
        CursorState::BranchMissing => "the branch is not in the repository",
        CursorState::Empty => "the repository has no commit",
        _ => "it waits at its head",
    });
    let is_one = watch.cursors.len() == 1;
    let is_named = match (is_one, state) {
        // The reason of a branch that cannot be delivered begins with the branch.
        _ if reason.starts_with(&first.branch) => false,
        (true, CursorState::BranchMissing) => true,
        (is_one, _) => !is_one,
    };
    let reason = if is_named { format!("{}: {reason}", first.branch) } else { reason.to_owned() };
    Some(match more {
        0 => reason,
        1 => format!("{reason} (and 1 more branch)"),
        more => format!("{reason} (and {more} more branches)"),
    })
}

/// The fault of a watch's source.
fn source(facts: &Facts<'_>) -> Option<Standing> {
    let watch = facts.watch;
    let open = open_breaker(facts.breakers, BreakerKind::Source, watch.source.as_str());
    let Some(text) = watch.last_error.as_deref().or(open.map(|row| row.last_error.as_str())) else {
        return paused(facts).or_else(|| unseen(facts));
    };
    let state = match ScanTrouble::of(text) {
        ScanTrouble::Credential => EffectiveState::CredentialRefused,
        _ => EffectiveState::SourceFailing,
    };
    let next = open.and_then(|row| row.probe_at).map(|at| format!("; it is asked again at {}", iso(at)));
    Some(Standing { state, reason: Some(format!("{text}{}", next.unwrap_or_default())) })
}

/// The pause that the Git host asked for, perhaps in an answer about another repository.
fn paused(facts: &Facts<'_>) -> Option<Standing> {
    let pause = facts.polled?.pause.filter(|pause| pause.until > facts.now)?;
    let requests = if pause.is_anonymous { "requests without a credential" } else { "this credential" };
    let reason = format!("the Git host asked {requests} to wait until {}", iso(pause.until));
    Some(Standing { state: EffectiveState::SourceFailing, reason: Some(reason) })
}

/// The refs of a watch that the last scan could not list or read.
fn unseen(facts: &Facts<'_>) -> Option<Standing> {
    let (refs, why) = facts.polled?.unseen_of(facts.watch)?;
    let reason = format!("refs that the app follows are not known ({}): {why}", refs.join(", "));
    Some(Standing { state: EffectiveState::SourceFailing, reason: Some(reason) })
}

/// The text about an open breaker.
fn probed(what: &str, open: &BreakerRow) -> String {
    let why = if open.last_error.is_empty() { String::new() } else { format!(" ({})", open.last_error) };
    let next = open.probe_at.map(|at| format!("; the next probe is due at {}", iso(at)));
    format!("{what}{why}{}", next.unwrap_or_default())
}

/// The change at the head of one of these branches that was tried last and not acknowledged.
fn failed_head(facts: &Facts<'_>, cursors: &[CursorStatus]) -> Option<Standing> {
    let watch = facts.watch;
    let heads = cursors.iter().filter_map(|cursor| facts.last_try(cursor));
    let is_taken = |row: &AttemptRecord| {
        row.status.is_some_and(|status| (200..300).contains(&status)) && !row.item_failure
    };
    let last = heads.filter(|row| !is_taken(row)).max_by_key(|row| row.at)?;
    let answer = match last.status {
        Some(200..300) => format!("the receiver's answer to the batch does not accept it: {}", last.excerpt),
        Some(status) => format!("the receiver answered {status}"),
        None if last.excerpt.is_empty() => "the receiver did not answer".to_owned(),
        None => format!("the receiver did not answer: {}", last.excerpt),
    };
    let grace_ends = watch.deliver_after.after(REGISTRATION_GRACE);
    let is_new = !watch.cursors.iter().any(|cursor| cursor.acknowledged);
    if is_new && facts.now < grace_ends && last.status.is_some_and(|status| EARLY.contains(&status)) {
        let reason = format!(
            "{answer} to its first deliveries: a new watch waits until {} before such a change is given up",
            iso(grace_ends)
        );
        return Some(Standing { state: EffectiveState::InGrace, reason: Some(reason) });
    }
    let next = last.next_at.map(|at| format!(", the next is due at {}", iso(at)));
    let reason = format!("{answer}; try {}{}", last.number, next.unwrap_or_default());
    Some(Standing { state: EffectiveState::Retrying, reason: Some(reason) })
}

/// The reason if changes wait for an app that pulls and does not ask, or for workers that do not claim.
fn untaken(facts: &Facts<'_>) -> Option<String> {
    let since = iso(facts.watch.cursors.iter().filter_map(|cursor| cursor.behind_since).min()?);
    match facts.unclaimed {
        _ if facts.app_pulls => {
            Some(format!("the app pulls, and has taken none of the changes that wait since {since}"))
        }
        0 => None,
        1 => Some(format!("1 task waits, and no worker has it; the app is behind since {since}")),
        tasks => Some(format!(
            "{tasks} tasks wait, and no worker has any of them; the app is behind since {since}"
        )),
    }
}

/// How far the open rounds are, and how fast they go.
fn progress(watch: &Watch, now: Timestamp) -> Option<String> {
    let open: Vec<_> = watch.cursors.iter().filter_map(|cursor| cursor.open).collect();
    let position: u64 = open.iter().map(|(_, position, _)| position).sum();
    let total: u64 = open.iter().map(|(_, _, total)| total).sum();
    if open.is_empty() {
        return None;
    }
    let verb = if total == 1 { "is" } else { "are" };
    let mut text = format!("{position} of {} {verb} settled", counted(total, "change"));
    // The number of a round is the moment of its beginning, unless the clock was set back before.
    if let [(round, position @ 1.., _)] = open[..] {
        let since = now.since(Timestamp(round));
        if !since.is_zero() && since < PACE_MAX {
            let each = since.as_secs_f64() / position as f64;
            text.push_str(&format!(", one in {} on average", span(each)));
        }
    }
    Some(text)
}

fn span(seconds: f64) -> String {
    if seconds < 1.0 { format!("{:.0} ms", seconds * 1_000.0) } else { format!("{seconds:.1} s") }
}

#[cfg(test)]
mod tests;
