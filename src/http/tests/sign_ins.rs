//! What the audit log says of people who sign in, fail to, and sign out.

use std::{fmt::Write, time::Instant};

use serde_json::json;
use tidings_actors::ports::{Administration, AuditEntry};
use tokio::time::{Duration, sleep};

use super::{
    ADMIN, House,
    house::{Answered, PATIENCE},
};

/// A request as a page of the dashboard sends it, with these header lines.
async fn send(house: &House, method: &str, lines: &str, token: Option<&str>) -> Answered {
    let body = token.map_or_else(String::new, |token| json!({ "token": token }).to_string());
    let mut request = format!(
        "{method} /api/session HTTP/1.1\r\nhost: x\r\nconnection: close\r\ntidings-page: 1\r\n{lines}"
    );
    write!(request, "content-type: application/json\r\ncontent-length: {}\r\n\r\n{body}", body.len())
        .expect("text");
    house.send(request.as_bytes()).await
}

async fn rows(house: &House, action: &str) -> Vec<AuditEntry> {
    let rows = house.sqlite().audit_chain(0, 1_000).await.expect("read");
    rows.into_iter().map(|row| row.entry).filter(|entry| entry.action == action).collect()
}

async fn wait_for_rows(house: &House, action: &str, count: usize) -> Vec<AuditEntry> {
    let until = Instant::now() + PATIENCE;
    loop {
        let rows = rows(house, action).await;
        if rows.len() >= count {
            return rows;
        }
        assert!(Instant::now() < until, "{} of {count} rows", rows.len());
        sleep(Duration::from_millis(5)).await;
    }
}

#[tokio::test]
async fn a_storm_of_guesses_leaves_two_rows_a_minute() {
    let house = House::open().await;
    let mut refused = 0;
    for _ in 0..50 {
        let answered = send(&house, "POST", "", Some("guess")).await;
        assert!([401, 429].contains(&answered.status), "{answered:?}");
        refused += u32::from(answered.status == 429);
    }
    assert!(refused > 0, "an address is held back");
    assert_eq!(send(&house, "POST", "content-length: 2\r\n", None).await.status, 400, "no guess");
    let first = wait_for_rows(&house, "sign_in.failed", 1).await;
    let shown =
        |row: &AuditEntry| (row.actor.clone(), row.target.clone(), row.result.clone(), row.address.clone());
    let address = Some("127.0.0.1".to_owned());
    let single = ("anyone".to_owned(), String::new(), "invalid-token".to_owned(), address.clone());
    assert_eq!(first.iter().map(shown).collect::<Vec<_>>(), [single]);
    tokio::time::pause();
    tokio::time::advance(Duration::from_mins(1)).await;
    tokio::time::resume();
    let both = wait_for_rows(&house, "sign_in.failed", 2).await;
    let folded = ("anyone".to_owned(), "times:49".to_owned(), "invalid-token".to_owned(), address);
    assert_eq!(both.last().map(shown), Some(folded));
}

#[tokio::test]
async fn a_sign_out_names_who_signed_out() {
    let house = House::open().await;
    let app = house.app().await;
    let body = json!({ "name": "v", "role": "viewer" });
    let staff = house.call("POST", "/api/admin/tokens", Some(ADMIN), Some(&body)).await.json();
    let (viewer, viewer_id) =
        (staff["token"].as_str().expect("a token"), staff["token_id"].as_str().expect("an id"));
    for token in [ADMIN, viewer, &app] {
        let signed_in = send(&house, "POST", "", Some(token)).await;
        assert_eq!(signed_in.status, 201, "{signed_in:?}");
        let cookie = signed_in.header("set-cookie").and_then(|set| set.split(';').next()).expect("a cookie");
        let cookie = format!("cookie: {cookie}\r\n");
        for _ in 0..2 {
            // The second time the session is over already, which is nobody's act.
            assert_eq!(send(&house, "DELETE", &cookie, None).await.status, 204);
        }
    }
    assert_eq!(send(&house, "DELETE", "", None).await.status, 204);
    let out = rows(&house, "delete_api_session").await;
    let of_in: Vec<_> =
        rows(&house, "post_api_session").await.into_iter().map(|row| (row.actor, row.app)).collect();
    let of_out: Vec<_> = out.iter().map(|row| (row.actor.clone(), row.app.clone())).collect();
    assert_eq!(of_out, of_in, "who signed in signed out, each once");
    assert_eq!((of_out[0].0.as_str(), of_out[1].0.as_str()), ("admin", viewer_id));
    assert!(of_out[2].0.starts_with("tok_") && of_out[2].1.starts_with("app_"), "{of_out:?}");
    assert!(out.iter().all(|row| row.address.as_deref() == Some("127.0.0.1")));
}
