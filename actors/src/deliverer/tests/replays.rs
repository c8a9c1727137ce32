//! Going back to what was held: what comes again, and what the app ends with, whether or not it
//! really went back.

use std::time::Duration;

use tidings_entity::kind::LetterStatus;

use crate::{
    ports::{Action, LaneStore, Notice, Reach, SourceStore, WatchStore},
    testing::{
        house::{House, URL, files, refs},
        transport::Answer,
    },
};

#[tokio::test(start_paused = true)]
async fn a_replay_brings_all_changes_after_a_commit_to_an_app_that_has_them_or_has_not() {
    for is_restored in [false, true] {
        let house = House::running().await;
        let first = house.commit(&[("a", "1"), ("b", "1"), ("c", "1")]);
        let (app, watch, cursor) = house.watching().await;
        house.until_held(&watch, first).await;
        let backup = house.transport.mirror(&app);
        let second = house.commit(&[("a", "2"), ("b", "1"), ("d", "1")]);
        house.poke(&watch).await;
        house.until_held(&watch, second).await;
        let before = house.taken(&app).len();
        if is_restored {
            house.transport.restore(&app, backup);
        }

        let (found, from) = house.store.was_held(&app, &watch.id, None, first).await.expect("held once");
        assert_eq!((&found, from.commit), (&cursor, first));
        house.store.request_replay(&cursor, &from).await.expect("asked");
        // It goes first, and to what is held: then what is newer follows by itself.
        let third = house.commit(&[("a", "1"), ("b", "1"), ("d", "1")]);
        house.refresh(&app).await;
        house.until("the replay has ended", async || house.taken(&app).len() == before + 3).await;
        house.poke(&watch).await;
        house.until_held(&watch, third).await;
        assert_eq!(house.taken(&app)[before..], ["D c", "C d", "U a", "U a"]);
        house.assert_mirrors(&app, third);
        let ids: std::collections::BTreeSet<_> =
            house.tried(&app).into_iter().map(|arrival| arrival.id).collect();
        assert_eq!(ids.len(), before + 4, "a replay is a round of its own, with ids of its own");
        assert!(house.store.lane(&cursor).await.expect("a lane").replay.is_none());
    }
}

#[tokio::test(start_paused = true)]
async fn a_replay_settles_every_letter_because_nobody_knows_what_the_app_has() {
    for is_restored in [false, true] {
        let house = House::running().await;
        let first = house.commit(&[("a", "1"), ("b", "1"), ("same", "1")]);
        let (app, watch, cursor) = house.watching().await;
        house.until_held(&watch, first).await;
        let second = house.commit(&[("a", "1"), ("b", "1"), ("same", "2")]);
        house.poke(&watch).await;
        house.until_held(&watch, second).await;
        let backup = house.transport.mirror(&app);
        // `same` is equal in the commit to go back to and in what is held, and yet has a letter.
        house.transport.answer_path("b", Some(Answer::Status(422)));
        house.transport.answer_path("same", Some(Answer::Status(422)));
        let third = house.commit(&[("a", "3"), ("b", "3"), ("same", "3")]);
        house.poke(&watch).await;
        house.until_held(&watch, third).await;
        let fourth = house.commit(&[("a", "4"), ("b", "3"), ("same", "2")]);
        house.transport.answer_path("same", Some(Answer::Status(500)));
        house.poke(&watch).await;
        house.until_held(&watch, fourth).await;
        house.transport.answer_path("b", None);
        house.transport.answer_path("same", None);
        if is_restored {
            house.transport.restore(&app, backup);
        }
        let from = house.store.was_held(&app, &watch.id, None, second).await.expect("held once").1;
        house.store.request_replay(&cursor, &from).await.expect("asked");
        house.refresh(&app).await;
        house
            .until("no letter is open", async || {
                house.letters(&app).await.iter().all(|letter| letter.status == LetterStatus::Superseded)
            })
            .await;
        house.assert_mirrors(&app, fourth);
        // Back to what the letters said the app had: that must be sent.
        let fifth = house.commit(&[("a", "4"), ("b", "1"), ("same", "1")]);
        house.poke(&watch).await;
        house.until_held(&watch, fifth).await;
        house.assert_mirrors(&app, fifth);
    }
}

#[tokio::test(start_paused = true)]
async fn a_replay_ends_at_what_is_held_also_where_the_head_went_on_before_it_began() {
    let mut house = House::running().await;
    let first = house.commit(&[("a", "1")]);
    let (app, watch, cursor) = house.watching().await;
    house.until_held(&watch, first).await;
    let second = house.commit(&[("a", "2")]);
    house.poke(&watch).await;
    house.until_held(&watch, second).await;
    let from = house.store.was_held(&app, &watch.id, None, first).await.expect("held once").1;
    // The lane finds both at once: the replay that was asked for, and a newer head.
    house.stop(Duration::ZERO).await;
    house.store.request_replay(&cursor, &from).await.expect("asked");
    let third = house.commit(&[("a", "2"), ("b", "1")]);
    let listing = house.listing(URL).await;
    house.store.move_heads(&watch.source, &listing, house.context.now()).await.expect("moved");
    house.start().await;
    house.until_held(&watch, third).await;
    assert_eq!(house.taken(&app), ["C a", "U a", "U a", "C b"]);
    assert!(house.store.lane(&cursor).await.expect("a lane").replay.is_none());
}

#[tokio::test(start_paused = true)]
async fn what_is_given_up_in_a_replay_is_in_doubt() {
    let house = House::running().await;
    let first = house.commit(&[("a", "1")]);
    let (app, watch, cursor) = house.watching().await;
    house.until_held(&watch, first).await;
    let second = house.commit(&[("a", "2")]);
    house.poke(&watch).await;
    house.until_held(&watch, second).await;
    let from = house.store.was_held(&app, &watch.id, None, first).await.expect("held once").1;
    house.transport.answer_path("a", Some(Answer::Status(422)));
    house.store.request_replay(&cursor, &from).await.expect("asked");
    house.refresh(&app).await;
    house.until("it is given up", async || !house.letters(&app).await.is_empty()).await;
    house.transport.answer_path("a", None);
    // The app never went back: it has 2, not the 1 that the round ran from.
    let third = house.commit(&[("a", "1")]);
    house.poke(&watch).await;
    house.until_held(&watch, third).await;
    house.assert_mirrors(&app, third);
}

#[tokio::test(start_paused = true)]
async fn a_replay_from_what_is_gone_becomes_a_complete_resync() {
    let house = House::running().await;
    let first = house.commit(&[("a", "1")]);
    let app = house.app_with(|delivery| delivery.resync = true).await;
    let watch = house.watch(&app).await;
    let cursor = house.cursor(&watch).await.id;
    house.until_held(&watch, first).await;
    let second = house.commit(&[("a", "2")]);
    house.poke(&watch).await;
    house.until_held(&watch, second).await;
    let from = house.store.was_held(&app, &watch.id, None, first).await.expect("held once").1;
    house.git.lose(first);
    house.store.request_replay(&cursor, &from).await.expect("asked");
    let third = house.commit(&[("a", "3")]);
    house.refresh(&app).await;
    house.poke(&watch).await;
    house.until_held(&watch, third).await;
    let notices = house.transport.notices(&app);
    assert!(
        matches!(notices.as_slice(), [Notice::OfRound { action: Action::Resync, round, .. }] if round.complete),
        "it is told to drop what is not named: {notices:?}"
    );
    house.assert_mirrors(&app, third);
    assert!(house.store.lane(&cursor).await.expect("a lane").replay.is_none());
    assert!(house.store.pending(None, &Reach::All).await.expect("pending").is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_replay_from_what_is_held_brings_nothing() {
    let house = House::running().await;
    let first = house.commit(&refs(&files(10, "one")));
    let (app, watch, cursor) = house.watching().await;
    house.until_held(&watch, first).await;
    let from = house.store.was_held(&app, &watch.id, None, first).await.expect("held").1;
    house.store.request_replay(&cursor, &from).await.expect("asked");
    house.refresh(&app).await;
    house
        .until("it is forgotten", async || house.store.lane(&cursor).await.expect("a lane").replay.is_none())
        .await;
    assert_eq!(house.taken(&app).len(), 10);
}
