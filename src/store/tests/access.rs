//! What requests to endpoints carry, as it stands in the database.

use std::collections::BTreeMap;

use tidings_actors::ports::{AppStore, EndpointAuth};

use super::*;

fn planted(number: u128) -> NewApp {
    let secret = |text: &str| Secret::new(format!("{text} {number}"));
    let access = EndpointAccess {
        headers: BTreeMap::from([("x-key".to_owned(), secret("planted header"))]),
        auth: Some(EndpointAuth::Bearer { token: secret("planted token") }),
        tls: None,
    };
    NewApp { access, ..new_app(number) }
}

async fn what_goes_with_requests_is_sealed_in_the_row_of_its_app(home: Home) {
    let store = home.open(1).await.expect("opened");
    let (one, other) = (planted(1), planted(2));
    for app in [&one, &other] {
        store.create_app(app).await.expect("created");
    }
    let connection = home.raw().await;
    let clear = "select count(*) from app where instr(endpoint_access, 'planted') > 0
                 or instr(delivery, 'planted') > 0 or instr(delivery, 'x-key') > 0";
    assert_eq!(number(&connection, clear).await, 0);
    assert_eq!(number(&connection, "select count(endpoint_access) from app").await, 2);
    for swap in [
        "create table kept as select id, endpoint_access from app",
        "update app set endpoint_access = (select kept.endpoint_access from kept where kept.id <> app.id)",
    ] {
        connection.execute_unprepared(swap).await.expect("swapped");
    }
    for app in [&one, &other] {
        let moved = store.app(&app.id).await;
        assert!(matches!(moved, Err(StoreError::Undecodable { table: "app", .. })), "{moved:?}");
    }
    connection.execute_unprepared("update app set endpoint_access = null").await.expect("emptied");
    assert!(store.app(&one.id).await.expect("read").expect("there").access.is_empty());
    store.close().await;
}

#[tokio::test]
async fn the_step_that_adds_it_keeps_all_apps_on_its_way_up_and_down() {
    let home = Home::file();
    let store = home.open(1).await.expect("opened");
    let app = planted(1);
    store.create_app(&app).await.expect("created");
    store.close().await;
    let steps = schema::status(home.url()).await.expect("status");
    let at = steps.iter().position(|step| step.name.ends_with("_add_endpoint_access")).expect("a step");
    let back = u32::try_from(steps.len() - at).expect("few");
    schema::down(home.url(), back).await.expect("down");
    let connection = home.raw().await;
    let column = "select count(*) from pragma_table_info('app') where name = 'endpoint_access'";
    assert_eq!(number(&connection, column).await, 0);
    assert_eq!(
        number(&connection, "select count(*) from app_key").await,
        1,
        "nothing that hangs on apps went"
    );
    connection.close().await.expect("closed");
    let store = home.open(2).await.expect("a start brings it up");
    let kept = store.app(&app.id).await.expect("read").expect("there");
    assert_eq!((kept.name, kept.keys.len()), (app.name, 1));
    assert!(kept.access.is_empty(), "what the older version does not know is gone");
    store.close().await;
}

on_both! {
    what_goes_with_requests_is_sealed_in_the_row_of_its_app
}
