//! Who counts as behind.

use tidings_actors::{
    ports::{AppStore, Backlog, UpkeepStore},
    time::Timestamp,
};

use super::{new_app, store, watch};

#[tokio::test]
async fn a_cursor_that_holds_the_head_of_now_is_not_behind_although_it_was_noted_as_behind() {
    let (store, _folder) = store().await;
    store.create_app(&new_app(1)).await.expect("created");
    watch(&store, &new_app(1).id, 1, None).await;
    assert_eq!(store.laggards(10).await.expect("laggards").len(), 1, "it has nothing yet");
    let text = "update cursor set held = (select commit_id from head limit 1),
                held_view = (select id from view limit 1)";
    store.tamper(text).await;
    assert!(store.laggards(10).await.expect("laggards").is_empty());
    assert_eq!(store.backlog(Timestamp(9_000)).await.expect("a backlog"), Backlog::default());
}
