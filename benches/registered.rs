//! Apps and watches, registered in the store itself.

use std::time::Duration;

use tidings::{app::Adapters, git::address::Address};
use tidings_actors::{
    model::secret::Secret,
    model::sink::SinkAddress,
    model::view::View,
    ports::{
        AppStore, DeliverySettings, EndpointAccess, NewApp, NewWatch, Remote, RepositoryFacts, Selector,
        Start, WatchStore,
    },
};
use tidings_entity::{
    id::{AppId, RepositoryId, Sha256Hash, WatchId},
    kind::{BranchGone, HistoryMode, SelectorKind},
};

/// Registers an app that receives at `base_url`.
pub(crate) async fn app(adapters: &Adapters, base_url: Option<&str>, delivery: DeliverySettings) -> AppId {
    let now = adapters.clock.now();
    let ulid = adapters.random.ulid(now);
    let id = AppId::new(ulid);
    let app = NewApp {
        id: id.clone(),
        name: "benchmark".into(),
        email: String::new(),
        is_from_anyone: false,
        receives_at: SinkAddress::of(base_url.map(Into::into)),
        website: None,
        description: None,
        token_public_id: ulid.to_string(),
        token_hash: Sha256Hash::of(ulid.to_string().as_bytes()),
        signing_key: Secret::new("0123456789abcdef".into()),
        access: EndpointAccess::default(),
        delivery,
        created_at: now,
        answer: None,
    };
    adapters.store.create_app(&app).await.expect("registered");
    id
}

/// Registers a watch of a branch or of branches, of which nothing is delivered for a while.
pub(crate) async fn watch(
    adapters: &Adapters,
    app: &AppId,
    repository: &str,
    selector: Selector,
    start: Start,
    wait: Duration,
) -> WatchId {
    let now = adapters.clock.now();
    let address = Address::parse(repository, true, true).expect("an address");
    let pattern = match selector.kind {
        SelectorKind::Branch => format!("refs/heads/{}", selector.value),
        _ => "refs/heads/".to_owned(),
    };
    let remote = Remote {
        repository: RepositoryId::new(adapters.random.ulid(now)),
        location: address.location.clone(),
        credential: None,
        apps: Vec::new(),
    };
    let listing = adapters.git.list_refs(&remote, &vec![pattern]).await.expect("listed");
    let id = WatchId::new(adapters.random.ulid(now));
    let watch = NewWatch {
        id: id.clone(),
        app: app.clone(),
        url: address.normalised,
        facts: RepositoryFacts {
            repository_id: id,
            github_url: address.display,
            owner: address.owner,
            name: address.name,
        },
        is_private: false,
        credential: None,
        selector,
        alias: String::new(),
        may_replace: true,
        sink: None,
        status: None,
        view: View::default(),
        mode: HistoryMode::Net,
        on_branch_gone: BranchGone::Keep,
        start,
        listing,
        deliver_after: now.after(wait),
        created_at: now,
    };
    adapters.store.register_watch(&watch).await.expect("registered").id
}

/// What follows one branch.
pub(crate) fn branch(name: &str) -> Selector {
    Selector { kind: SelectorKind::Branch, value: name.into() }
}
