//! Tokens and the audit log on a real database.

use std::time::Instant;

use tidings_actors::ports::{
    Administration, AppStore, AuditEntry, AuditKept, Session, SessionSubject, TokenOwner, TokensOf,
};
use tidings_entity::{id::TokenId, kind::Role};

use super::*;
use crate::{
    apps::tokens,
    audit::{Chain, OK, PRUNED, Pending},
    database::rows,
};

const KEPT: AuditKept = AuditKept { since: Timestamp(0), rows: 1_000 };

fn entry(number: i64) -> AuditEntry {
    AuditEntry {
        at: Timestamp(number),
        actor: "admin".into(),
        app: String::new(),
        action: "something".into(),
        target: format!("target_{number}"),
        result: OK.into(),
        request: String::new(),
        address: (number % 2 == 1).then(|| format!("192.0.2.{number}")),
    }
}

/// Whether a token is right or wrong costs one search, however many there are.
#[tokio::test]
async fn a_token_among_ten_thousand_apps_is_found_with_one_search_of_an_index() {
    let (store, home) = store().await;
    let connection = home.raw().await;
    let many = "with recursive n(i) as (select 1 union all select i + 1 from n where i < 10000)
        insert into app (id, name, email, token_public_id, delivery, created_at)
        select 'app_' || i, 'an app', 'a@b.c', 'public' || i, '{}', 1 from n";
    connection.execute_unprepared(many).await.expect("apps");
    let many = "insert into access_token (id, app_id, name, public_id, hash, created_at)
        select 'tok_' || substr(id, 5), id, 'onboarding', token_public_id, id, 1 from app";
    connection.execute_unprepared(many).await.expect("tokens");
    let values = vec!["public77".into(), 1_i64.into()];
    let plan =
        rows::mixed(&connection, "test", &format!("explain query plan {}", *tokens::FIND), values).await;
    let steps: Vec<String> =
        plan.expect("a plan").iter().map(|row| row.try_get("", "detail").expect("a text")).collect();
    assert_eq!(steps.len(), 3, "the token, its app, and the keys of that: {steps:?}");
    assert!(
        steps.iter().all(|step| step.starts_with("SEARCH ") && step.contains("USING INDEX")),
        "{steps:?}"
    );
    let began = Instant::now();
    for number in 0..200 {
        assert!(store.find_token(&format!("wrong{number}")).await.expect("read").is_none());
    }
    println!("a wrong token among 10,000 apps: {:?}", began.elapsed() / 200);
}

async fn tokens_of_before_they_were_rows_open_what_they_opened_and_back(home: Home) {
    let store = home.open(1).await.expect("opened");
    let app = new_app(1);
    store.create_app(&app).await.expect("an app");
    let before = store.find_token("public1").await.expect("read").expect("there").0;
    assert_eq!((&before.owner, before.hash), (&TokenOwner::App(app.id.clone()), app.token_hash));
    store.close().await;
    let url = home.url();
    let steps = schema::status(url).await.expect("status");
    let added = steps.iter().rev().take_while(|step| !step.name.contains("find_deliveries")).count();
    schema::down(url, u32::try_from(added).expect("few")).await.expect("down");
    let hash = home.raw().await;
    let text = format!("select count(*) from app where token_hash = '{}'", app.token_hash);
    assert_eq!(number(&hash, &text).await, 1, "an older version finds it where it was");
    hash.close().await.expect("closed");
    let store = home.open(2).await.expect("opened");
    assert_eq!(store.find_token("public1").await.expect("read").map(|(token, _)| token), Some(before));
    store.erase_app(&app.id).await.expect("erased");
    assert!(store.find_token("public1").await.expect("read").is_none(), "it goes with its app");
}

async fn what_is_done_and_its_row_are_one_and_what_fails_leaves_none(home: Home) {
    let store = home.open(1).await.expect("opened");
    let app = new_app(1);
    let pending = Pending::of(entry(1), KEPT);
    pending.during(store.create_app(&app)).await.expect("made");
    assert!(pending.take().is_none(), "the first change took it along");
    // The same app again fails; so does its row.
    let pending = Pending::of(entry(2), KEPT);
    pending.during(store.create_app(&app)).await.expect_err("it is there already");
    assert_eq!(pending.take(), Some(entry(2)));
    // A log that cannot be written lets nothing happen unseen.
    let connection = home.raw().await;
    connection.execute_unprepared("alter table audit rename to away").await.expect("renamed");
    let pending = Pending::of(entry(3), KEPT);
    pending.during(store.erase_app(&app.id)).await.expect_err("no log, no change");
    assert_eq!(pending.take(), Some(entry(3)));
    connection.execute_unprepared("alter table away rename to audit").await.expect("renamed");
    assert!(store.app(&app.id).await.expect("read").is_some());
    let rows = store.audit_chain(0, 10).await.expect("read");
    assert_eq!(rows.iter().map(|row| row.entry.clone()).collect::<Vec<_>>(), [entry(1)]);
}

async fn many_writers_make_one_chain_and_old_rows_go_with_a_word(home: Home) {
    let store = home.open(1).await.expect("opened");
    let store = &store;
    join_all((1..=300).map(|number| async move {
        store.record(&entry(number), KEPT).await.expect("written");
    }))
    .await;
    let check = async |length: std::ops::RangeInclusive<usize>| {
        let rows = store.audit_chain(0, 10_000).await.expect("read");
        let mut chain = Chain::with(None, Some(store.context.keyring.audit_keys()));
        rows.iter().for_each(|row| chain.take(row));
        let faults = chain.end().faults;
        assert!(faults.is_empty(), "{faults:?}");
        assert!(length.contains(&rows.len()), "{} rows", rows.len());
        rows
    };
    check(300..=300).await;
    let few = AuditKept { since: Timestamp(0), rows: 100 };
    for number in 301..=420 {
        store.record(&entry(number), few).await.expect("written");
    }
    let rows = check(100..=180).await;
    assert!(rows.iter().any(|row| row.entry.action == PRUNED));
    let late = AuditKept { since: Timestamp(1_000_000), rows: 1_000_000 };
    for number in 421..=500 {
        store.record(&entry(number), late).await.expect("written");
    }
    check(1..=100).await;
}

async fn the_tokens_of_an_owner_are_bounded_dead_ones_too(home: Home) {
    let store = home.open(1).await.expect("opened");
    let of = TokensOf::Staff;
    for number in 0..60_u128 {
        let token = tidings_actors::ports::AccessToken {
            id: tidings_entity::id::TokenId::new(Ulid::from_parts(1, number)),
            owner: TokenOwner::Staff(Some(Role::Viewer)),
            narrowing: None,
            name: "short".into(),
            public_id: format!("short{number}"),
            hash: Sha256Hash::of(b"x"),
            expires_at: Some(Timestamp(1)),
            last_used_at: None,
            revoked_at: None,
            created_at: Timestamp(5),
        };
        store.create_token(&token).await.expect("made");
    }
    let kept = store.tokens(&of, None, 1_000).await.expect("read");
    assert_eq!(kept.len(), 51, "fifty, and the one that was made last");
    assert_eq!(kept[0].id, tidings_entity::id::TokenId::new(Ulid::from_parts(1, 9)), "the oldest went");
}

async fn sessions_end_by_themselves_with_their_token_and_beyond_a_hundred(home: Home) {
    let store = home.open(1).await.expect("opened");
    let app = new_app(1);
    store.create_app(&app).await.expect("an app");
    let (token, _) = store.find_token("public1").await.expect("read").expect("there");
    let session = |number: u32, of: Option<TokenId>, from: i64| Session {
        hash: Sha256Hash::of(&number.to_be_bytes()),
        token: of,
        subject: None,
        token_hash: token.hash,
        created_at: Timestamp(from),
        expires_at: Timestamp(from + 1_000),
    };
    let find =
        async |one: &Session, at: i64| store.find_session(&one.hash, Timestamp(at)).await.expect("read");
    let (of_app, of_server) = (session(1, Some(token.id.clone()), 10), session(2, None, 10));
    for one in [&of_app, &of_server] {
        store.begin_session(one).await.expect("begun");
    }
    assert_eq!(find(&of_app, 1_009).await, Some((of_app.clone(), Some("public1".to_owned()))));
    assert_eq!(find(&of_server, 1_009).await, Some((of_server.clone(), None)));
    assert_eq!(find(&of_app, 1_010).await, None, "it ends by itself");
    for number in 11..111 {
        store.begin_session(&session(number, None, i64::from(number))).await.expect("begun");
    }
    assert_eq!(find(&of_server, 200).await, None, "with a hundred newer ones the oldest ends");
    assert!(find(&session(11, None, 11), 200).await.is_some() && find(&of_app, 200).await.is_some());
    store.end_session(&session(11, None, 11).hash).await.expect("ended");
    assert_eq!(store.end_sessions(None).await.expect("ended"), 99);
    assert!(find(&of_app, 200).await.is_some(), "another token's sessions stay");
    let unknown = session(500, Some(TokenId::new(Ulid::from_parts(9, 9))), 20);
    let refused = store.begin_session(&unknown).await;
    assert!(matches!(refused, Err(StoreError::NotFound)), "{refused:?}");
    store.begin_session(&session(501, None, 5_000)).await.expect("begun");
    let connection = home.raw().await;
    assert_eq!(number(&connection, "select count(*) from session").await, 1, "what has ended is removed");
    let again = session(502, Some(token.id.clone()), 5_000);
    store.begin_session(&again).await.expect("begun");
    store.erase_app(&app.id).await.expect("erased");
    assert_eq!(find(&again, 5_001).await, None, "it goes with its app");
}

async fn the_sessions_of_a_person_are_that_persons_alone(home: Home) {
    let store = home.open(1).await.expect("opened");
    let session = |number: u32, subject: Option<(&str, &str)>| Session {
        hash: Sha256Hash::of(&number.to_be_bytes()),
        token: None,
        subject: subject.map(|(id, issuer)| SessionSubject {
            id: id.into(),
            issuer: issuer.into(),
            roles: vec!["viewer".into(), "support".into()],
        }),
        token_hash: Sha256Hash::of(b"token"),
        created_at: Timestamp(i64::from(number)),
        expires_at: Timestamp(1_000),
    };
    let find = async |one: &Session| store.find_session(&one.hash, Timestamp(500)).await.expect("read");
    let (ann, bob) = (Some(("jwt:ann", "here")), Some(("jwt:bob", "here")));
    let (of_ann, of_bob, of_server) = (session(1, ann), session(2, bob), session(3, None));
    for one in [&of_ann, &of_bob, &of_server] {
        store.begin_session(one).await.expect("begun");
        assert_eq!(find(one).await, Some((one.clone(), None)), "with its issuer and its roles");
    }
    for number in 11..111 {
        store.begin_session(&session(number, ann)).await.expect("begun");
    }
    assert_eq!(find(&of_ann).await, None, "with a hundred newer ones the oldest ends");
    assert!(find(&of_bob).await.is_some() && find(&of_server).await.is_some(), "and no other's");
    assert_eq!(store.end_sessions(None).await.expect("ended"), 1, "that of the server's own token");
    assert_eq!(store.end_sessions_of("jwt:ann").await.expect("ended"), 100);
    assert!(find(&of_bob).await.is_some(), "another person is signed in still");
    let elsewhere = session(200, Some(("jwt:eve", "elsewhere")));
    store.begin_session(&elsewhere).await.expect("begun");
    assert_eq!(store.end_sessions_of_others(&["here".to_owned()]).await.expect("ended"), 1);
    assert!(find(&of_bob).await.is_some() && find(&elsewhere).await.is_none());
}

on_both! {
    the_sessions_of_a_person_are_that_persons_alone
    sessions_end_by_themselves_with_their_token_and_beyond_a_hundred
    tokens_of_before_they_were_rows_open_what_they_opened_and_back
    what_is_done_and_its_row_are_one_and_what_fails_leaves_none
    many_writers_make_one_chain_and_old_rows_go_with_a_word
    the_tokens_of_an_owner_are_bounded_dead_ones_too
}
