//! What a scan leaves behind for people, and whom a proof of access wakes.

use super::*;
use crate::signals::polls::Polled;

fn polled(house: &House, watch: &Watch) -> Polled {
    house.handle().polled(&watch.source).expect("it is watched here")
}

fn outcome(polled: &Polled) -> Option<&'static str> {
    polled.last.as_ref().map(|scanned| scanned.outcome)
}

fn branch(name: &str) -> Selector {
    Selector { kind: SelectorKind::Branch, value: name.into() }
}

#[tokio::test(start_paused = true)]
async fn what_came_of_a_scan_is_shown_until_the_next_one_ends() {
    let (house, watch) = held().await;
    house.until("it was scanned", async || outcome(&polled(&house, &watch)) == Some("ok")).await;
    let began = house.context.now();
    house.git.poll_takes(Duration::from_secs(3));
    house.git.fail(failures(2));
    for count in 1..=2 {
        house.poke(&watch).await;
        house.until("it failed", async || polled(&house, &watch).failures == count).await;
        let shown = polled(&house, &watch);
        let last = shown.last.clone().expect("a scan");
        assert_eq!((last.outcome, last.bytes), ("auth_failed", None));
        assert_eq!(last.reason.as_deref(), Some("the Git host refuses the credential"));
        assert!(last.at > began && last.took >= Duration::from_secs(3), "{last:?}");
        assert!(shown.next.is_some_and(|next| next > last.at), "{shown:?}");
    }
    house.poke(&watch).await;
    house.until("it went well", async || polled(&house, &watch).failures == 0).await;
    let last = polled(&house, &watch).last.expect("a scan");
    assert_eq!((last.outcome, last.reason.as_deref(), last.bytes), ("ok", None, Some(0)));
}

#[tokio::test(start_paused = true)]
async fn refs_that_are_too_many_to_be_listed_are_named_with_the_reason() {
    let house = House::running().await;
    house.commit(&[("a", "1")]);
    let (one, other) = (house.app().await, house.app().await);
    let mut watches = Vec::new();
    for (app, name) in [(&one, "b1"), (&other, "b2")] {
        let head = house.git.commit(&location(URL), name, &[("a", name)]);
        let watch = house.watch_with(app, URL, |watch| watch.selector = branch(name)).await;
        house.until_held(&watch, head).await;
        watches.push(watch);
    }
    // Apps are listed in the order of their ids.
    watches.sort_by(|one, other| one.app.cmp(&other.app));
    // The listing of both, then that of the first.
    house.git.fail(vec![GitError::TooLarge("many refs".into()); 2]);
    house.poke(&watches[0]).await;
    let is_unseen = async || polled(&house, &watches[0]).unseen_of(&watches[0]).is_some();
    house.until("refs are unseen", is_unseen).await;
    let shown = polled(&house, &watches[0]);
    assert_eq!(outcome(&shown), Some("ok"), "the other one was listed");
    let (refs, reason) = shown.unseen_of(&watches[0]).expect("refs");
    assert_eq!((refs, reason), (watches[0].patterns(), "repository too large: many refs"));
    assert_eq!(shown.unseen_of(&watches[1]), None);
    house.poke(&watches[0]).await;
    house.until("it is listed again", async || !is_unseen().await).await;
}

#[tokio::test(start_paused = true)]
async fn a_registration_that_moves_a_shared_head_wakes_the_lanes_of_others() {
    let (house, watch) = held().await;
    tokio::time::sleep(Duration::from_secs(1)).await;
    let second = house.commit(&[("a", "2")]);
    let other = house.app().await;
    let start = Instant::now();
    let new = house.watch(&other).await;
    assert_eq!(new.source, watch.source, "they share it");
    house.until_held(&watch, second).await;
    assert!(start.elapsed() < Duration::from_secs(10), "only after {:?}", start.elapsed());
}
