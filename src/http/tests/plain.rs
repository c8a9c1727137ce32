//! A watch and its cursor with nothing in their way, for tests of what is shown of them.

use tidings_actors::{
    model::view::View,
    ports::{CursorStatus, RepositoryFacts, Selector, Watch},
    time::Timestamp,
};
use tidings_entity::{
    id::*,
    kind::{BranchGone, CursorState, HistoryMode, SelectorKind, WatchState},
};
use ulid::Ulid;

/// A cursor that holds nothing yet.
pub(crate) fn cursor(number: u64, branch: &str) -> CursorStatus {
    CursorStatus {
        id: CursorId::new(Ulid::from_parts(1, number.into())),
        branch: branch.into(),
        held: None,
        head: None,
        fault: None,
        state: CursorState::Active,
        reason: None,
        acknowledged: false,
        open: None,
        last_round: 0,
        deletes_unknown: false,
        dead_letters: 0,
        behind_since: None,
    }
}

/// A watch of a public repository's default branch.
pub(crate) fn watch(created_at: Timestamp, cursor: CursorStatus) -> Watch {
    let id = WatchId::new(Ulid::from_parts(1, 1));
    let url = "https://git.example/a/b";
    let (owner, name) = ("a".into(), "b".into());
    Watch {
        facts: RepositoryFacts { repository_id: id.clone(), github_url: url.into(), owner, name },
        id,
        app: AppId::new(Ulid::from_parts(1, 1)),
        repository: RepositoryId::new(Ulid::from_parts(1, 1)),
        source: SourceId::new(Ulid::from_parts(1, 1)),
        url: url.into(),
        is_private: false,
        has_credential: false,
        selector: Selector { kind: SelectorKind::DefaultBranch, value: String::new() },
        alias: String::new(),
        sink: None,
        status: None,
        view: View::default(),
        mode: HistoryMode::Net,
        on_branch_gone: BranchGone::Keep,
        state: WatchState::Active,
        reason: None,
        created_at,
        deliver_after: created_at,
        cursors: vec![cursor],
        last_error: None,
        moved_to: None,
    }
}
