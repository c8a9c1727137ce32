//! Sealing again and retiring, over the real rows.

use std::collections::BTreeMap;

use tidings_actors::{
    model::secret::Secret,
    ports::{AccessPatch, AppPatch, AppStore, SealingKeys, StoreError},
    time::Timestamp,
};

use super::{
    home::{Home, on_both},
    new_app, number, store,
};
use crate::keys::sealed;

#[tokio::test]
async fn every_column_of_bytes_is_sealed_or_known_to_be_no_secret() {
    let (_store, home) = store().await;
    let connection = home.raw().await;
    let text = "select t.name as first, c.name as second from sqlite_schema t, pragma_table_info(t.name) c
                where t.type = 'table' and lower(c.type) = 'blob' order by 1, 2";
    let found =
        super::super::database::rows::mixed(&connection, "sqlite_schema", text, vec![]).await.expect("rows");
    let mut found: Vec<(String, String)> = found
        .iter()
        .map(|row| (row.try_get_by_index(0).expect("a name"), row.try_get_by_index(1).expect("a name")))
        .collect();
    // Paths are bytes; a key that is handed on is sealed by the key before it and goes before that one does.
    let others = [("dead_letter", "path"), ("task_change", "path"), ("key_share", "sealed")];
    found.retain(|(table, column)| !others.contains(&(table.as_str(), column.as_str())));
    let mut known: Vec<_> =
        sealed::COLUMNS.iter().map(|known| (known.table.to_owned(), known.column.to_owned())).collect();
    known.sort();
    assert_eq!(found, known);
}

async fn everything_is_sealed_anew_in_bounded_steps_that_go_on_after_a_break(home: Home) {
    let store = home.open(1).await.expect("opened");
    for app in 1..=20 {
        store.create_app(&new_app(app)).await.expect("created");
    }
    let first = store.keys().await.expect("keys").remove(0);
    assert_eq!((first.is_primary, first.sealed), (true, 21), "twenty signing keys and the canary");
    let refused = store.retire_key(&first.id).await;
    assert!(matches!(refused, Err(StoreError::Conflict(_))), "{refused:?}");

    let second = store.rotate_key().await.expect("rotated");
    store.create_app(&new_app(21)).await.expect("created");
    let step = store.reseal(8).await.expect("a step");
    assert_eq!((step.resealed, step.left, step.unreadable), (8, 13, 0));
    for most in [1, 7, 500] {
        assert_eq!(store.sealed_with(&first.id, most).await.expect("counted"), 13, "steps of {most}");
        assert_eq!(store.sealed_with(&second, most).await.expect("counted"), 9, "steps of {most}");
    }
    let refused = store.retire_key(&first.id).await;
    assert!(matches!(&refused, Err(StoreError::Conflict(text)) if text.contains("13")), "{refused:?}");
    // Another process goes on: nothing is kept in memory.
    store.close().await;
    let store = home.open(2).await.expect("opened");
    let step = store.reseal(500).await.expect("a step");
    assert_eq!((step.resealed, step.left), (13, 0));
    assert_eq!(store.reseal(500).await.expect("a step").resealed, 0);
    let uses: BTreeMap<String, u64> =
        store.keys().await.expect("keys").into_iter().map(|key| (key.id, key.sealed)).collect();
    assert_eq!(uses, BTreeMap::from([(first.id.clone(), 0), (second.clone(), 22)]));

    store.retire_key(&first.id).await.expect("retired");
    let again = store.retire_key(&first.id).await;
    assert!(matches!(again, Err(StoreError::NotFound)), "{again:?}");
    assert!(matches!(store.retire_key(&second).await, Err(StoreError::Conflict(_))));
    store.close().await;
    let store = home.open(3).await.expect("the new key alone opens it");
    let app = store.app(&new_app(7).id).await.expect("read").expect("there");
    assert_eq!(app.keys[0].expose(), "signing7");
}

async fn a_value_that_does_not_open_holds_up_no_other_and_keeps_its_key(home: Home) {
    let store = home.open(1).await.expect("opened");
    for app in 1..=5 {
        store.create_app(&new_app(app)).await.expect("created");
    }
    let first = store.keys().await.expect("keys").remove(0);
    store.rotate_key().await.expect("rotated");
    let connection = home.raw().await;
    // In another place than its own it does not open.
    let text = "update app_key set secret = (select secret from app_key order by app_id desc limit 1)
                where app_id = (select min(app_id) from app_key)";
    super::super::database::rows::execute(&connection, "app_key", text, vec![]).await.expect("damaged");
    assert_eq!(number(&connection, "select count(*) from app_key").await, 5);
    for _ in 0..2 {
        let step = store.reseal(500).await.expect("a step");
        assert_eq!((step.left, step.unreadable), (1, 1));
    }
    assert!(matches!(store.retire_key(&first.id).await, Err(StoreError::Conflict(_))));
}

async fn what_is_written_while_everything_is_sealed_anew_stays(home: Home) {
    let store = home.open(1).await.expect("opened");
    let apps: Vec<_> = (1..=60).map(new_app).collect();
    for app in &apps {
        store.create_app(app).await.expect("created");
    }
    let header = |value: &str| AppPatch {
        access: AccessPatch {
            headers: BTreeMap::from([("x-key".to_owned(), Some(Secret::new(value.to_owned())))]),
            ..AccessPatch::default()
        },
        ..AppPatch::default()
    };
    for app in &apps {
        store.patch_app(&app.id, &header("old"), Timestamp(1)).await.expect("patched");
    }
    let first = store.keys().await.expect("keys").remove(0).id;
    store.rotate_key().await.expect("rotated");
    let writing = async {
        for app in &apps {
            store.patch_app(&app.id, &header("new"), Timestamp(2)).await.expect("patched");
        }
    };
    let sealing = async { while store.reseal(3).await.expect("a step").left > 0 {} };
    tokio::join!(writing, sealing);
    for app in &apps {
        let app = store.app(&app.id).await.expect("read").expect("there");
        assert_eq!(app.access.headers["x-key"].expose(), "new");
    }
    store.retire_key(&first).await.expect("nothing needs it");
}

on_both! {
    everything_is_sealed_anew_in_bounded_steps_that_go_on_after_a_break
    a_value_that_does_not_open_holds_up_no_other_and_keeps_its_key
    what_is_written_while_everything_is_sealed_anew_stays
}
