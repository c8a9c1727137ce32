//! Downloads: what they hold of the memory they share, for how long, and whom they turn away.

use futures_util::FutureExt;
use http_body_util::BodyExt;
use ulid::Ulid;

use super::*;

/// Where nobody waits long.
fn downloads() -> Downloads {
    Downloads { wait: Duration::from_millis(1), ..Downloads::new(1 << 20) }
}

fn app(number: u64) -> AppId {
    AppId::new(Ulid::from_parts(number, 1))
}

#[tokio::test]
async fn an_app_has_so_many_downloads_at_once_until_their_answers_are_gone() {
    let downloads = downloads();
    let mut begun: Vec<_> = (0..PER_APP).map(|_| downloads.begin(&app(1)).expect("admitted")).collect();
    let refused = downloads.begin(&app(1)).err().expect("one too many");
    assert_eq!(refused.code(), "too-many-requests");
    drop(downloads.begin(&app(2)).expect("another app is not concerned"));
    let held = downloads.memory(&app(1), 10).await.expect("free");
    let answer = begun.pop().expect("one").answer(Bytes::from_static(b"content"), held);
    assert!(downloads.begin(&app(1)).is_err(), "an answer on its way counts");
    drop(answer);
    begun.push(downloads.begin(&app(1)).expect("it is gone"));
    drop(begun);
    assert!(downloads.apps.lock().is_empty(), "nothing is left of apps that have none");
}

#[tokio::test]
async fn memory_is_held_until_the_answer_has_gone_and_whoever_waits_too_long_is_sent_away() {
    let downloads = downloads();
    let held = downloads.memory(&app(1), 1 << 30).await.expect("a larger one goes beside the others");
    let answer = downloads.begin(&app(1)).expect("admitted").answer(Bytes::from_static(b"content"), held);
    let refused = downloads.memory(&app(2), 1 << 30).await.expect_err("one larger one at a time");
    assert_eq!(refused.code(), "content-unavailable");
    drop(downloads.memory(&app(2), 1 << 19).await.expect("an ordinary one of another app does not wait"));
    let body = answer.into_body().collect().await.expect("in time").to_bytes();
    assert_eq!(body, "content");
    downloads.memory(&app(2), 1 << 30).await.expect("it is free again");
}

#[tokio::test]
async fn a_slow_answer_with_a_large_content_makes_room_once_another_app_waits() {
    let (downloads, now) = (Downloads::new(1 << 20), Instant::now());
    let held = downloads.memory(&app(1), 1 << 30).await.expect("free");
    let mut pieces = Pieces {
        parts: VecDeque::from([Bytes::from(vec![1; 3 * PIECE_BYTES])]),
        until: now + Duration::from_secs(3_600),
        yields_from: now,
        held: vec![Arc::new(held)],
        _download: None,
    };
    assert!(pieces.next().expect("a piece").is_ok(), "nobody waits");
    let (own, other) = (app(1), app(2));
    let mut of_the_same = Box::pin(downloads.memory(&own, 1 << 30));
    assert!(of_the_same.as_mut().now_or_never().is_none());
    assert!(pieces.next().expect("a piece").is_ok(), "no other app waits");
    drop(of_the_same);
    let mut waiting = Box::pin(downloads.memory(&other, 1 << 30));
    assert!(waiting.as_mut().now_or_never().is_none());
    assert!(pieces.next().expect("an end").is_err());
    assert!(pieces.next().is_none());
    drop(pieces);
    assert!(waiting.as_mut().now_or_never().expect("its turn").is_ok());
}

#[tokio::test]
async fn one_search_at_a_time() {
    let downloads = downloads();
    let turn = downloads.search(&app(1)).await.expect("free");
    for number in [1, 2] {
        let refused = downloads.search(&app(number)).await.expect_err("taken");
        assert_eq!(refused.code(), "content-unavailable");
    }
    drop(turn);
    drop(downloads.search(&app(2)).await.expect("free again"));
    drop(downloads.search(&app(1)).await.expect("free again"));
    assert_eq!(downloads.searching.lock().len(), 1, "who searches no more is forgotten");
}

/// Who comes last is next after the app that has the turn, whatever else that one asks for.
#[tokio::test]
async fn an_app_with_many_searches_has_one_place_in_line() {
    let downloads = Downloads::new(1 << 20);
    let (greedy, modest) = (app(1), app(2));
    let turn = downloads.search(&greedy).await.expect("free");
    let mut crowd: Vec<_> = (0..12).map(|_| Box::pin(downloads.search(&greedy))).collect();
    assert!(crowd.iter_mut().all(|search| search.as_mut().now_or_never().is_none()), "they wait");
    let mut other = Box::pin(downloads.search(&modest));
    assert!(other.as_mut().now_or_never().is_none(), "the turn is taken");
    drop(turn);
    let taken = other.as_mut().now_or_never().expect("it is its turn").expect("in time");
    assert!(crowd.iter_mut().all(|search| search.as_mut().now_or_never().is_none()), "behind the other");
    drop(taken);
    assert!(crowd[0].as_mut().now_or_never().is_some(), "and then theirs");
}

#[tokio::test]
async fn an_answer_that_is_read_too_slowly_breaks_off() {
    let (mebibyte, second) = (1 << 20, Duration::from_secs(1));
    assert_eq!(
        [0, mebibyte, 256 * mebibyte].map(|bytes| longest_answer(bytes, BYTES_A_SECOND)),
        [30 * second, 34 * second, 1_054 * second]
    );
    let downloads = downloads();
    for (left, is_whole) in [(30 * second, true), (Duration::ZERO, false)] {
        let held = downloads.memory(&app(1), 1).await.expect("free");
        let until = Instant::now() + left;
        let pieces = Pieces {
            parts: VecDeque::from([Bytes::new(), Bytes::from(vec![1; mebibyte])]),
            until,
            yields_from: until,
            held: vec![Arc::new(held)],
            _download: Some(downloads.begin(&app(1)).expect("admitted")),
        };
        let (read, broken): (Vec<_>, Vec<_>) = pieces.partition(Result::is_ok);
        let bytes: usize = read.iter().flatten().map(Bytes::len).sum();
        assert!(read.iter().flatten().all(|piece| piece.len() == PIECE_BYTES));
        assert_eq!((bytes, broken.len()), if is_whole { (mebibyte, 0) } else { (0, 1) });
    }
}
