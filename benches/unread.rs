//! A watch of one branch at a commit, registered without a look at its repository: for benches that register
//! very many.

use tidings_actors::{
    model::view::View,
    ports::{Clock, NewWatch, Random, Ref, RefListing, RepositoryFacts, Selector, Start},
};
use tidings_entity::{
    id::{AppId, ObjectId, WatchId},
    kind::{BranchGone, HistoryMode, SelectorKind},
};

/// Makes the watch of `main` of this repository.
pub(crate) fn watch(
    random: &dyn Random,
    clock: &dyn Clock,
    app: &AppId,
    url: String,
    commit: ObjectId,
) -> NewWatch {
    let id = WatchId::new(random.ulid(clock.now()));
    let main = Ref { name: "refs/heads/main".into(), commit };
    NewWatch {
        facts: RepositoryFacts {
            repository_id: id.clone(),
            github_url: url.clone(),
            owner: "o".into(),
            name: "r".into(),
        },
        id,
        app: app.clone(),
        url,
        is_private: false,
        credential: None,
        selector: Selector { kind: SelectorKind::Branch, value: "main".into() },
        alias: String::new(),
        may_replace: true,
        sink: None,
        status: None,
        view: View::default(),
        mode: HistoryMode::Net,
        on_branch_gone: BranchGone::Keep,
        start: Start::At(commit),
        listing: RefListing {
            refs: vec![main],
            head: Some("refs/heads/main".into()),
            has_refs: true,
            ..RefListing::default()
        },
        deliver_after: clock.now(),
        created_at: clock.now(),
    }
}
