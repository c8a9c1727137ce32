//! Filters over ledgers: how many entries one search looks at, and what a repository's name means.

use ulid::Ulid;

use super::*;

async fn the_repository_of_an_entry_is_found_after_its_watch_is_removed(home: Home) {
    let (store, clock) = clocked(&home).await;
    store.create_app(&new_app(1)).await.expect("created");
    let app = new_app(1).id;
    let watched = watch(&store, &app, 1, None).await;
    blocks(&store, &watched.cursors[0].id, Some("blocked")).await;
    clock.set(Timestamp(1_000_000 + 2 * MINUTE));
    blocks(&store, &watched.cursors[0].id, None).await;
    // PostgreSQL reads no JSON with this character.
    let strange = r#"update entry set data = '{"reason":"\u0000","repository":"x/y"}' where number = 2"#;
    home.raw().await.execute_unprepared(strange).await.expect("written");
    for is_watched in [true, false] {
        if !is_watched {
            store.unwatch(&app, &watched.id).await.expect("unwatched");
        }
        for (q, expected) in [
            ("repository:a/b type:watch.blocked", 1),
            ("repository:B type:watch.blocked", 1),
            ("name:a/b type:watch.blocked", 1),
            ("repository:a type:watch.blocked", 0),
        ] {
            let query = Filter::parse(q, &LEDGER, clock_now(&clock)).expect(q);
            let filter = LedgerFilter { query: Some(query), ..LedgerFilter::default() };
            let found = store.entries(&app, &filter, None, 10).await.expect(q).found;
            assert_eq!(found.len(), expected, "{q}, watched: {is_watched}");
        }
    }
    let query = Filter::parse("repository:other", &LEDGER, clock_now(&clock)).expect("a filter");
    let filter = LedgerFilter { query: Some(query), ..LedgerFilter::default() };
    assert!(store.entries(&app, &filter, None, 10).await.expect("read").found.is_empty());
}

async fn a_search_looks_at_a_bounded_number_of_entries_and_says_where_it_goes_on(home: Home) {
    let (store, clock) = clocked(&home).await;
    store.create_app(&new_app(1)).await.expect("created");
    let app = new_app(1).id;
    let (raw, name) = (home.raw().await, format!("lgr_{}", Ulid::nil()));
    for text in [
        format!("insert into ledger (app_id, name, first, last) values ('{app}', '{name}', 1, 12000)"),
        format!(
            "insert into entry (app_id, number, at, type, subject, origin_kind, origin, data)
             with recursive n(i) as (select 1 union all select i + 1 from n where i < 12000)
             select '{app}', i, i, case when i = 3 then 'watch.recovered' else 'watch.blocked' end, 's',
               'outside', 'git', case when i in (1, 12000) then '{{\"a\":\"edge\"}}' else '{{}}' end from n"
        ),
    ] {
        raw.execute_unprepared(&text).await.expect("written");
    }
    let of = |q: &str| {
        let query = Filter::parse(q, &LEDGER, clock_now(&clock)).expect("a filter");
        LedgerFilter { query: Some(query), ..LedgerFilter::default() }
    };
    let numbers = |found: &[LedgerEntry]| found.iter().map(|entry| entry.id.number).collect::<Vec<_>>();
    let edges = of("data:~edge");
    let first = store.entries(&app, &edges, None, 10).await.expect("read");
    assert_eq!((numbers(&first.found), first.next), (vec![12_000], Some(2_001)), "10,000 were looked at");
    let second = store.entries(&app, &edges, first.next, 10).await.expect("read");
    assert_eq!((numbers(&second.found), second.next), (vec![1], None));

    let first = store.entries_of_all(&edges, None, 10).await.expect("read");
    let next = first.next.expect("more");
    assert_eq!((numbers(&first.found), next.number), (vec![12_000], 2_001));
    let second = store.entries_of_all(&edges, Some(&next), 10).await.expect("read");
    assert_eq!((numbers(&second.found), second.next), (vec![1], None));

    let read = async |filter: &LedgerFilter, after| {
        store.entries_between(&app, filter, after, 12_000, 10).await.expect("read")
    };
    let first = read(&edges, 0).await;
    assert_eq!((numbers(&first.found), first.next), (vec![1], Some(10_000)));
    let second = read(&edges, 10_000).await;
    assert_eq!((numbers(&second.found), second.next), (vec![12_000], None));
    // Fewer with many terms.
    let many: Vec<String> = (0..32).map(|number| format!("data:~z{number}")).collect();
    assert_eq!(read(&of(&many.join(" OR ")), 0).await.next, Some(1_250));
    // An index finds the entries of one type: no other entry counts.
    let rare = of("type:watch.recovered NOT data:~edge");
    let found = store.entries(&app, &rare, None, 10).await.expect("read");
    assert_eq!((numbers(&found.found), found.next), (vec![3], None));
}

on_both! {
    the_repository_of_an_entry_is_found_after_its_watch_is_removed
    a_search_looks_at_a_bounded_number_of_entries_and_says_where_it_goes_on
}
