//! The routes of keys: what they pass on and what they refuse. What the store does is tested there.

use std::sync::Arc;

use async_trait::async_trait;
use parking_lot::Mutex;
use serde_json::json;
use tidings_actors::ports::{Resealed, SealingKey, SealingKeys, StoreError};

use super::{ADMIN, House, sqlite};
use crate::{
    http::hooks::Bounds,
    secrets::{AuditKeyring, AuditKeys},
};

/// Two keys; the first one seals ten values.
#[derive(Default)]
pub(super) struct KeysDouble {
    asked: Mutex<Vec<u64>>,
}

#[async_trait]
impl SealingKeys for KeysDouble {
    async fn keys(&self) -> Result<Vec<SealingKey>, StoreError> {
        let key = |id: &str, is_primary, sealed| SealingKey { id: id.to_owned(), is_primary, sealed };
        Ok(vec![key("00000001", false, 10), key("00000002", true, 0)])
    }

    async fn rotate_key(&self) -> Result<String, StoreError> {
        Ok("00000003".to_owned())
    }

    async fn reseal(&self, most: u64) -> Result<Resealed, StoreError> {
        self.asked.lock().push(most);
        Ok(Resealed { resealed: most.min(10), left: 10 - most.min(10), unreadable: 0 })
    }

    async fn retire_key(&self, id: &str) -> Result<(), StoreError> {
        match id {
            "00000001" => Err(StoreError::Conflict("still needed".into())),
            "00000002" => Ok(()),
            _ => Err(StoreError::NotFound),
        }
    }
}

impl AuditKeyring for KeysDouble {
    fn audit_keys(&self) -> AuditKeys {
        AuditKeys::of_a_test()
    }
}

async fn house() -> (House, tempfile::TempDir) {
    let folder = tempfile::tempdir().expect("a folder");
    let keys = Arc::new(KeysDouble::default());
    (House::over(sqlite::store(folder.path()).await, keys, Bounds::default(), |_| {}).await, folder)
}

#[tokio::test]
async fn keys_are_shown_rotated_and_retired_by_the_administrator_only() {
    let (house, _folder) = house().await;
    let shown = house.call("GET", "/api/admin/keys", Some(ADMIN), None).await;
    assert_eq!(
        shown.json(),
        json!({ "items": [
            { "id": "00000001", "is_primary": false, "sealed": 10 },
            { "id": "00000002", "is_primary": true, "sealed": 0 },
        ] })
    );
    let made = house.call("POST", "/api/admin/keys/rotate", Some(ADMIN), None).await;
    assert_eq!((made.status, &made.json()["id"]), (201, &json!("00000003")));
    for (id, expected) in [("00000001", 409), ("00000002", 204), ("00000009", 404), ("..%2Fx", 404)] {
        let path = format!("/api/admin/keys/{id}");
        assert_eq!(house.call("DELETE", &path, Some(ADMIN), None).await.status, expected, "{id}");
    }
    let app = house.app().await;
    for (method, path) in [
        ("GET", "/api/admin/keys"),
        ("POST", "/api/admin/keys/rotate"),
        ("POST", "/api/admin/keys/reencrypt"),
        ("DELETE", "/api/admin/keys/00000002"),
    ] {
        for token in [None, Some(app.as_str()), Some("wrong")] {
            let status = house.call(method, path, token, None).await.status;
            assert!(matches!(status, 401 | 403), "{method} {path} {token:?}: {status}");
        }
    }
}

#[tokio::test]
async fn a_step_of_sealing_anew_is_bounded() {
    let (house, _folder) = house().await;
    let path = "/api/admin/keys/reencrypt";
    let step = house.call("POST", path, Some(ADMIN), Some(&json!({ "limit": 4 }))).await;
    assert_eq!((step.status, step.json()), (200, json!({ "resealed": 4, "left": 6, "unreadable": 0 })));
    assert_eq!(house.call("POST", path, Some(ADMIN), None).await.json()["left"], 0);
    for bad in [json!({ "limit": 0 }), json!({ "limit": 501 }), json!({ "limit": "4" }), json!({ "most": 4 })]
    {
        assert_eq!(house.call("POST", path, Some(ADMIN), Some(&bad)).await.status, 422, "{bad}");
    }
}
