//! What a restart and a database that takes no writes show: what was answered is there.

use std::{path::Path, sync::Arc, time::Duration};

use serde_json::json;

use super::{ADMIN, House};
use crate::{
    machine::{MachineClock, MachineRandom},
    secrets::Keyring,
    settings::Settings,
    store::SqlStore,
};

pub(super) async fn house(folder: &Path) -> House {
    House::real(store(folder).await, |_| {}).await
}

pub(super) async fn store(folder: &Path) -> Arc<SqlStore> {
    let keyring = folder.join("keyring");
    let keyring =
        Keyring::open(&keyring).or_else(|_| Keyring::create(&keyring, &MachineRandom)).expect("a keyring");
    let settings = Settings { data_dir: folder.to_owned(), ..Settings::default() };
    let (clock, random) = (Arc::new(MachineClock), Arc::new(MachineRandom));
    let store =
        SqlStore::open(&settings.database_url(), Arc::new(keyring), clock, random).await.expect("opened");
    Arc::new(store)
}

/// Whether the server gets ready, or stops being ready, within ten seconds.
async fn becomes(house: &House, status: u16) -> bool {
    for _ in 0..200 {
        if house.call("GET", "/readyz", None, None).await.status == status {
            return true;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    false
}

#[tokio::test]
async fn a_server_whose_disk_has_room_for_one_changed_row_alone_is_not_ready() {
    let folder = tempfile::tempdir().expect("a folder");
    let store = store(folder.path()).await;
    let house = House::real(store.clone(), |_| {}).await;
    // As on a full disk, no app can be added and no byte written beside the database, but rows can be changed.
    let text = "create trigger full_app before insert on app begin select raise(abort, 'full'); end";
    store.tamper(text).await;
    let beside = folder.path().join("tidings.db-trial");
    std::fs::create_dir(&beside).expect("made");
    let onboarding = json!({ "app_name": "an app", "email": "a@b.c", "base_url": "https://app.example" });
    let answer = house.call("POST", "/api/apps/onboard", None, Some(&onboarding)).await;
    assert_eq!(answer.status, 503, "{answer:?}");
    assert!(becomes(&house, 503).await, "the next large write would fail too");
    std::fs::remove_dir(&beside).expect("removed");
    assert!(becomes(&house, 200).await);
    assert!(!beside.exists(), "a trial leaves nothing");
}

#[tokio::test]
async fn a_server_whose_database_takes_no_writes_is_not_ready_until_it_does_again() {
    let folder = tempfile::tempdir().expect("a folder");
    let store = store(folder.path()).await;
    let house = House::real(store.clone(), |_| {}).await;
    let becomes = async |status: u16| becomes(&house, status).await;
    // As a full disk does, these take no row.
    for (name, table) in [("full_app", "insert on app"), ("full_lease", "update on lease")] {
        let text = format!("create trigger {name} before {table} begin select raise(abort, 'full'); end");
        store.tamper(&text).await;
    }
    assert!(becomes(200).await, "nobody has tried yet, and to ask writes nothing");
    let onboarding = json!({ "app_name": "an app", "email": "a@b.c", "base_url": "https://app.example" });
    let register = async || house.call("POST", "/api/apps/onboard", None, Some(&onboarding)).await.status;
    assert_eq!(register().await, 503);
    assert!(becomes(503).await, "a write failed, and the trial after it");
    assert_eq!(house.call("GET", "/livez", None, None).await.status, 200);
    store.tamper("drop trigger full_lease").await;
    assert!(becomes(200).await, "it takes writes again");
    assert_eq!(register().await, 503);
    assert!(becomes(200).await, "a verb that fails alone says nothing of the others");
}

#[tokio::test]
async fn what_was_answered_is_there_after_a_restart() {
    let folder = tempfile::tempdir().expect("a folder");
    let first = house(folder.path()).await;
    let onboarding = json!({ "app_name": "an app", "email": "a@b.c", "client_auth_key": "sixteen letters!" });
    let app = first.call("POST", "/api/apps/onboard", Some(ADMIN), Some(&onboarding)).await;
    assert_eq!(app.status, 201, "{app:?}");
    let token = app.json()["token"].as_str().expect("a token").to_owned();
    let body = json!({
        "url": "https://github.com/o/private", "token": "good", "include": ["docs/**"], "start": "now",
    });
    let watch = first.call("POST", "/api/repositories", Some(&token), Some(&body)).await;
    assert_eq!(watch.status, 201, "{watch:?}");
    let id = watch.json()["repository_id"].as_str().expect("an id").to_owned();
    let path = format!("/api/repositories/{id}");
    let shown = first.call("GET", &path, Some(&token), None).await.json();
    drop(first);

    let second = house(folder.path()).await;
    let again = second.call("GET", &path, Some(&token), None).await.json();
    for name in [
        "repository_id",
        "github_url",
        "is_private",
        "has_token",
        "include",
        "selector",
        "state",
        "created_at",
    ] {
        assert_eq!((&again[name], &again[name]), (&shown[name], &watch.json()[name]), "{name}");
    }
    let branch = &again["branches"][0];
    assert_eq!(branch["branch"], "refs/heads/main");
    assert_eq!(branch["held_commit"], branch["head_commit"], "it starts now");
    let call = async |method: &str, verb: &str, body| {
        second.call(method, &format!("{path}{verb}"), Some(&token), body).await
    };
    let patch = json!({ "exclude": ["*.tmp"], "mode": "every" });
    let patched = call("PATCH", "", Some(&patch)).await.json();
    assert_eq!((&patched["include"], &patched["exclude"]), (&json!(["docs/**"]), &json!(["*.tmp"])));
    assert_eq!(call("POST", "/pause", None).await.json()["state"], "paused");
    assert_eq!(call("POST", "/resume", None).await.json()["state"], "active");
    assert_eq!(call("POST", "/resync", None).await.status, 202);
    let renewed = json!({ "token": "good" });
    assert_eq!(call("PATCH", "/token", Some(&renewed)).await.status, 200);
    assert_eq!(second.call("GET", "/readyz", None, None).await.status, 200);
    let task = json!({ "command": "embed", "payload": 1 });
    assert_eq!(second.call("POST", "/api/tasks", Some(&token), Some(&task)).await.status, 201);
    let overview = second.call("GET", "/api/admin/overview", Some(ADMIN), None).await.json();
    assert_eq!((&overview["apps"], &overview["watches"]), (&json!(1), &json!(1)));
    assert_eq!(overview["tasks"]["ready"], 1);
    assert!(overview["tasks"]["oldest_ready_seconds"].is_u64(), "{overview}");
    assert_eq!(call("DELETE", "", None).await.status, 204);
    assert_eq!(call("GET", "", None).await.status, 404);
    let app = format!("/api/admin/apps/{}", app.json()["app_id"].as_str().expect("an id"));
    assert_eq!(second.call("DELETE", &app, Some(ADMIN), None).await.status, 204);
    assert_eq!(second.call("GET", "/api/app", Some(&token), None).await.status, 401);
}
