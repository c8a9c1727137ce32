//! What hooks are answered where they cost more than they may, and where the store is down. What
//! becomes of those that are taken in is told by stories, over the real store.

use data_encoding::HEXLOWER;
use hmac::{Hmac, KeyInit, Mac};
use serde_json::json;
use sha2::Sha256;
use tidings_actors::model::secret::Secret;

use super::{
    House,
    house::{Answered, raw},
    sqlite,
};
use crate::http::hooks::Bounds;

const SECRET: &str = "the secret that hosts sign with";

async fn house(bounds: Bounds) -> (House, tempfile::TempDir) {
    let folder = tempfile::tempdir().expect("a folder");
    let store = sqlite::store(folder.path()).await;
    let known = |settings: &mut crate::settings::Settings| {
        settings.hooks.secret = vec![Secret::new(SECRET.to_owned())];
    };
    let keys = store.clone();
    (House::over(store, keys, bounds, known).await, folder)
}

/// A genuine push, as GitHub sends it.
async fn push(house: &House, body: &[u8]) -> Answered {
    let mut mac = Hmac::<Sha256>::new_from_slice(SECRET.as_bytes()).expect("any length");
    mac.update(body);
    let signature = HEXLOWER.encode(&mac.finalize().into_bytes());
    let head = format!(
        "POST /hooks/github HTTP/1.1\r\nhost: x\r\nconnection: close\r\nx-github-event: push\r\n\
         x-github-delivery: 1\r\nx-hub-signature-256: sha256={signature}\r\n\
         content-type: application/json\r\ncontent-length: {}\r\n\r\n",
        body.len()
    );
    raw(&mut house.connect().await, &[head.as_bytes(), body].concat()).await
}

fn body(more: usize) -> Vec<u8> {
    let repository = json!({ "clone_url": "https://git.example/o/r.git" });
    let text = json!({ "ref": "refs/heads/main", "repository": repository, "more": "x".repeat(more) });
    text.to_string().into_bytes()
}

#[tokio::test]
async fn beyond_the_rate_a_hook_is_put_off_and_the_store_is_not_asked() {
    let (house, _folder) = house(Bounds::spent([127, 0, 0, 1].into())).await;
    // The store would not answer if it were asked.
    house.sqlite().close().await;
    let answered = push(&house, &body(0)).await;
    assert_eq!((answered.status, answered.header("retry-after")), (429, Some("10")), "{answered:?}");
    assert_eq!(answered.problem()["type"], "urn:tidings:problem:too-many-requests");
}

#[tokio::test]
async fn a_large_body_for_which_there_is_no_room_is_put_off() {
    let (house, _folder) = house(Bounds::spent([127, 0, 0, 1].into())).await;
    let answered = push(&house, &body(2 << 20)).await;
    assert_eq!((answered.status, answered.header("retry-after")), (503, Some("10")), "{answered:?}");
    assert_eq!(answered.problem()["type"], "urn:tidings:problem:unavailable");
}

#[tokio::test]
async fn a_hook_whose_receipt_cannot_be_written_is_put_off() {
    let (house, _folder) = house(Bounds::default()).await;
    house.sqlite().close().await;
    let answered = push(&house, &body(0)).await;
    assert_eq!(answered.status, 503, "{answered:?}");
    assert!(answered.header("retry-after").is_some() && !answered.body.contains("closed"), "{answered:?}");
    assert_eq!(answered.problem()["type"], "urn:tidings:problem:unavailable");
}
