//! Rounds that are one task each: the end of the task settles the whole round.

use super::*;

impl Desk {
    /// A store with a watch whose rounds become one task each.
    async fn of_rounds(home: Home) -> Self {
        let mut whole = sink(10, COMMAND);
        whole.delivery.per_round = true;
        Self::with(home, whole).await
    }

    /// Hands the round over as its lane does, and claims its task.
    async fn claim_round(&self, round: &Round) -> ClaimedTask {
        let mut next = self.changes(round, 0, 1);
        next.changes[0].change.path.clear();
        assert!(self.store.hand_over(next).await.expect("written"));
        assert!(
            !self.store.hand_over(self.changes(round, 1, 1)).await.expect("written"),
            "there is no other"
        );
        let mut claimed = self.claim(9).await;
        assert_eq!(claimed.len(), 1);
        claimed.remove(0)
    }
}

async fn the_end_of_its_one_task_settles_a_round(home: Home) {
    let desk = Desk::of_rounds(home).await;
    let round = desk.begin(2, 7).await;
    let room = async || {
        let room = desk.store.hand_over_room(&desk.cursor, round.number).await.expect("read").expect("open");
        (room.positions, room.per_round, room.is_settled)
    };
    assert_eq!(room().await, (0..1, true, false), "deletes are part of the one task");
    let task = desk.claim_round(&round).await;
    assert_eq!(desk.settled().await, (0, vec![]));
    desk.complete(&task).await;
    assert_eq!(desk.settled().await, (7, vec![]), "all of its changes");
    let (positions, _, is_settled) = room().await;
    assert!(positions.is_empty() && is_settled);
    let ended = desk.store.finish_round(&desk.cursor, round.number, START, false).await;
    assert!(ended.expect("written"));
    let again = desk.say(&task.token, TaskMove::Complete).await.expect("confirmed");
    assert_eq!((again.moved, again.state), (Moved::Before, TaskState::Succeeded));
    desk.counts_agree().await;
}

async fn a_round_that_is_given_up_is_one_letter_without_a_path(home: Home) {
    let desk = Desk::of_rounds(home).await;
    let round = desk.begin(0, 5).await;
    let task = desk.claim_round(&round).await;
    desk.say(&task.token, TaskMove::Fail("the build is red".into())).await.expect("failed");
    assert_eq!(desk.settled().await, (5, vec![]));
    let page = desk.store.dead_letters(&app(), &LetterFilter::default(), None, 10).await.expect("read");
    let [letter] = &page.letters[..] else { panic!("one letter: {:?}", page.letters) };
    assert_eq!((letter.path.len(), letter.position, letter.status), (0, 0, LetterStatus::Open));
    assert_eq!((letter.reason, &letter.task), (ParkReason::Rejected, &Some(task.task.id)));
    let lane = desk.store.lane(&desk.cursor).await.expect("a lane");
    assert!(lane.letters.is_empty(), "no round of single changes binds it");
    desk.counts_agree().await;
}

on_both! {
    the_end_of_its_one_task_settles_a_round
    a_round_that_is_given_up_is_one_letter_without_a_path
}
