//! Narrowed tokens on a real database, and that a replica of the version before finds none.

use tidings_actors::{
    model::permission::narrowing::Narrowing,
    ports::{
        AccessToken, Administration, AppStore, NARROWED_TOKENS_MAX, Session, StoreError, TokenOwner, TokensOf,
    },
};
use tidings_entity::{id::TokenId, kind::Role};

use super::{home::on_both, *};

fn token(number: u128, owner: TokenOwner, narrowing: Option<Narrowing>) -> AccessToken {
    AccessToken {
        id: TokenId::new(Ulid::from_parts(1, number)),
        owner,
        narrowing,
        name: "a worker".into(),
        public_id: format!("narrow{number}"),
        hash: Sha256Hash::of(&number.to_be_bytes()),
        expires_at: None,
        last_used_at: None,
        revoked_at: None,
        created_at: Timestamp(5),
    }
}

fn narrowing() -> Option<Narrowing> {
    let words = |words: &[&str]| words.iter().map(|word| (*word).to_owned()).collect();
    Some(Narrowing {
        role: None,
        permissions: words(&["changes:pull", "*:read"]),
        commands: Some(words(&["mail.*", "a/b"])),
    })
}

async fn a_narrowed_token_is_found_listed_used_and_revoked_as_others_are(home: Home) {
    let store = home.open(1).await.expect("opened");
    let app = new_app(1);
    store.create_app(&app).await.expect("an app");
    let owner = TokenOwner::App(app.id.clone());
    let none: Option<Vec<String>> = Some(Vec::new());
    let whole = token(2, owner.clone(), None);
    let narrowed = token(3, owner.clone(), narrowing());
    let idle = token(4, owner.clone(), Some(Narrowing { commands: none, ..Narrowing::default() }));
    let role = Narrowing { role: Some("support".into()), ..Narrowing::default() };
    let staff = token(5, TokenOwner::Staff(None), Some(role));
    for one in [&narrowed, &whole, &idle, &staff] {
        store.create_token(one).await.expect("made");
        let (found, of) = store.find_token(&one.public_id).await.expect("read").expect("there");
        assert_eq!((&found, of.map(|app| app.id)), (one, (one != &staff).then(|| app.id.clone())));
    }
    let of = TokensOf::App(app.id.clone());
    let listed = async |after: Option<&TokenId>, limit| {
        let tokens = store.tokens(&of, after, limit).await.expect("read");
        tokens
            .into_iter()
            .map(|token| token.id)
            .filter(|id| id.as_str() != first(&app.id))
            .collect::<Vec<_>>()
    };
    let ids = [whole.id.clone(), narrowed.id.clone(), idle.id.clone()];
    assert_eq!(listed(None, 100).await, ids);
    assert_eq!(listed(Some(&whole.id), 1).await, ids[1..2]);
    assert_eq!(store.tokens(&TokensOf::Staff, None, 10).await.expect("read"), std::slice::from_ref(&staff));
    store.note_use(&narrowed.id, Timestamp(9)).await.expect("noted");
    let foreign = store.revoke_token(&TokensOf::Staff, &narrowed.id, Timestamp(10)).await;
    assert!(matches!(foreign, Err(StoreError::NotFound)), "{foreign:?}");
    store.revoke_token(&of, &narrowed.id, Timestamp(11)).await.expect("revoked");
    store.revoke_token(&of, &narrowed.id, Timestamp(12)).await.expect("it is revoked still");
    let (found, _) = store.find_token(&narrowed.public_id).await.expect("read").expect("there");
    assert_eq!((found.last_used_at, found.revoked_at), (Some(Timestamp(9)), Some(Timestamp(11))));
    store.erase_app(&app.id).await.expect("erased");
    assert!(store.find_token(&idle.public_id).await.expect("read").is_none(), "it goes with its app");
}

/// The id of the token that an app is registered with.
fn first(app: &AppId) -> String {
    format!("tok_{}", &app.as_str()[4..])
}

async fn narrowed_tokens_have_a_bound_of_their_own(home: Home) {
    let store = home.open(1).await.expect("opened");
    let app = new_app(1);
    store.create_app(&app).await.expect("an app");
    let owner = TokenOwner::App(app.id.clone());
    let connection = home.raw().await;
    let many = format!(
        "with recursive n(i) as (select 2 union all select i + 1 from n where i < {NARROWED_TOKENS_MAX})
         insert into narrowed_token (id, app_id, permissions, name, public_id, hash, created_at)
         select 'tok_' || i, '{}', 'watches:read', 'many', 'many' || i, 'h', 1 from n",
        app.id
    );
    connection.execute_unprepared(&many).await.expect("tokens");
    store.create_token(&token(5_000, owner.clone(), narrowing())).await.expect("the last that has room");
    let refused = store.create_token(&token(5_001, owner.clone(), narrowing())).await;
    assert!(matches!(refused, Err(StoreError::Conflict(_))), "{refused:?}");
    for number in 1..20 {
        store.create_token(&token(6_000 + number, owner.clone(), None)).await.expect("they do not count");
    }
    let refused = store.create_token(&token(6_100, owner, None)).await;
    assert!(matches!(refused, Err(StoreError::Conflict(_))), "with the first one there are twenty");
}

/// The statements of the version before: they must take no narrowed token, and no session of one, for a whole
/// token or for the server's own.
async fn a_replica_of_the_version_before_finds_no_narrowed_token(home: Home) {
    let store = home.open(1).await.expect("opened");
    let app = new_app(1);
    store.create_app(&app).await.expect("an app");
    let narrowed = token(3, TokenOwner::App(app.id.clone()), narrowing());
    store.create_token(&narrowed).await.expect("made");
    let session = Session {
        hash: Sha256Hash::of(b"cookie"),
        token: Some(narrowed.id.clone()),
        subject: None,
        token_hash: narrowed.hash,
        created_at: Timestamp(10),
        expires_at: Timestamp(1_000),
    };
    store.begin_session(&session).await.expect("begun");
    let found = store.find_session(&session.hash, Timestamp(20)).await.expect("read");
    assert_eq!(found, Some((session.clone(), Some(narrowed.public_id.clone()))), "this version finds it");
    let connection = home.raw().await;
    let ask = async |text: String| number(&connection, &text).await;
    let public = &narrowed.public_id;
    assert_eq!(ask(format!("select count(*) from access_token where public_id = '{public}'")).await, 0);
    assert_eq!(ask(format!("select count(*) from access_token where id = '{}'", narrowed.id)).await, 0);
    let joined = "select count(*) from session s join access_token t on t.id = s.token_id";
    assert_eq!(ask(joined.to_owned()).await, 0, "its session leads to no token there");
    let servers = "select count(*) from session where token_id is null and token_hash = ";
    assert_eq!(ask(format!("{servers}'{}'", narrowed.hash)).await, 1, "nor to the server's, of another hash");
    assert_eq!(store.end_sessions(None).await.expect("ended"), 0, "the server's sessions are others");
    assert_eq!(store.end_sessions(Some(&narrowed.id)).await.expect("ended"), 1);
}

async fn a_step_back_waits_until_no_narrowed_token_is_live(home: Home) {
    let store = home.open(1).await.expect("opened");
    let whole = token(2, TokenOwner::Staff(Some(Role::Viewer)), None);
    let narrowed = token(3, TokenOwner::Staff(None), narrowing());
    for one in [&whole, &narrowed] {
        store.create_token(one).await.expect("made");
    }
    store.close().await;
    let url = home.url();
    let steps = schema::status(url).await.expect("status");
    let added = steps.iter().rev().take_while(|step| !step.name.contains("add_sessions")).count();
    let added = u32::try_from(added).expect("few");
    let refused = schema::down(url, added).await.expect_err("one is live").to_string();
    assert!(refused.contains("there are 1 narrowed tokens") && refused.contains("revoke them"), "{refused}");
    let store = home.open(2).await.expect("opened as it was");
    store.revoke_token(&TokensOf::Staff, &narrowed.id, Timestamp(9)).await.expect("revoked");
    store.close().await;
    schema::down(url, added).await.expect("down");
    let store = home.open(3).await.expect("up again");
    assert!(store.find_token(&whole.public_id).await.expect("read").is_some(), "whole tokens stay");
    assert!(store.find_token(&narrowed.public_id).await.expect("read").is_none());
}

on_both! {
    a_narrowed_token_is_found_listed_used_and_revoked_as_others_are
    narrowed_tokens_have_a_bound_of_their_own
    a_replica_of_the_version_before_finds_no_narrowed_token
    a_step_back_waits_until_no_narrowed_token_is_live
}
