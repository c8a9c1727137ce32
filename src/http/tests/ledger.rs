//! Followers of a ledger as the front door serves them: what is said of entries that went.

use serde_json::json;

use super::{ADMIN, histories::Tail, house::House};

/// Gives an app a ledger that keeps these entries.
async fn plant(house: &House, app: &str, first: i64, last: i64) {
    house.plant(&format!("insert into ledger values ('{app}', 'lgr_{:026}', {first}, {last})", 7)).await;
    for number in first..=last {
        house
            .plant(&format!(
                "insert into entry values ('{app}', {number}, 1000, 'sink.opened', null, '{app}', 'outside',
                 'endpoint', null, '{{}}', null)"
            ))
            .await;
    }
}

#[tokio::test]
async fn a_follower_with_or_without_a_filter_is_told_of_entries_that_are_kept_no_longer() {
    let house = House::open().await;
    let token = house.app().await;
    let app = house.apps().await[0].id.to_string();
    plant(&house, &app, 4, 5).await;
    let (ledger, path) = (format!("ent_{:026}", 7), "/api/ledger/follow");
    for filter in ["", "&type=watch.blocked"] {
        let mut tail = Tail::open(&house, &token, &format!("{path}?after={ledger}_1{filter}")).await;
        let told = tail.until(&format!("id: {ledger}_3\nevent: gap\ndata: ")).await;
        let before = told.split("event: gap").next().unwrap_or_default();
        assert!(!before.contains("sink.opened"), "{told}");
    }
    // Behind the gap, and where nothing is missing, comes what is kept.
    for seen in [1, 3] {
        let mut tail = Tail::open(&house, &token, &format!("{path}?after={ledger}_{seen}")).await;
        let told = tail.until(&format!("id: {ledger}_5\n")).await;
        assert!(told.contains(&format!("id: {ledger}_4\n")), "{told}");
        assert_eq!(told.contains("gap"), seen == 1, "{told}");
    }
    // While it follows, what it has not seen goes.
    let mut tail = Tail::open(&house, &token, &format!("{path}?after={ledger}_5")).await;
    tail.until(&format!("id: {ledger}_5\n\n")).await;
    house.plant("update ledger set first = 9, last = 8").await;
    tail.until(&format!("id: {ledger}_8\nevent: gap\ndata: ")).await;
}

#[tokio::test]
async fn who_comes_with_an_entry_of_a_ledger_that_is_gone_is_told_of_the_gap() {
    let house = House::open().await;
    let token = house.app().await;
    let app = house.apps().await[0].id.to_string();
    let path = format!("/api/ledger/follow?after=ent_{:026}_9", 3);
    // A backup from before the first entry was restored.
    let mut tail = Tail::open(&house, &token, &path).await;
    plant(&house, &app, 1, 1).await;
    let told = tail.until(&format!("id: ent_{:026}_1\n", 7)).await;
    assert!(told.contains("event: gap\n"), "{told}");
}

#[tokio::test]
async fn a_complete_resync_of_all_renames_the_ledgers_with_its_first_page() {
    let house = House::open().await;
    let token = house.app().await;
    let app = house.apps().await[0].id.to_string();
    plant(&house, &app, 1, 1).await;
    for url in ["https://github.com/o/r", "https://github.com/o/s"] {
        house.repository(&token, url).await;
    }
    let renamed = async || -> usize {
        let path = "/api/ledger?type=ledger.restored";
        let page = house.call("GET", path, Some(&token), None).await.json();
        page["items"].as_array().expect("items").len()
    };
    let path = "/api/admin/watches/resync?limit=1";
    let ask = async |path: &str, complete: bool| {
        let answered = house.call("POST", path, Some(ADMIN), Some(&json!({ "complete": complete }))).await;
        assert_eq!(answered.status, 202, "{answered:?}");
        answered.json()["next_cursor"].as_str().map(str::to_owned)
    };
    ask(path, false).await.expect("another page");
    assert_eq!(renamed().await, 0, "only a complete resync says that the database forgot something");
    let follow = format!("/api/ledger/follow?after=ent_{:026}_1", 7);
    let mut tail = Tail::open(&house, &token, &follow).await;
    tail.until(&format!("id: ent_{:026}_1\n\n", 7)).await;
    let cursor = ask(path, true).await.expect("another page");
    tail.until("event: gap\ndata: ").await;
    assert_eq!(ask(&format!("{path}&cursor={cursor}"), true).await, None, "the last page");
    assert_eq!(renamed().await, 1, "the second page belongs to the same run");
}
