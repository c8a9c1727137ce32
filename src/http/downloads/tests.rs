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
    let held = downloads.memory(10).await.expect("free");
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
    let held = downloads.memory(1 << 30).await.expect("the larger one goes alone");
    let answer = downloads.begin(&app(1)).expect("admitted").answer(Bytes::from_static(b"content"), held);
    let refused = downloads.memory(1).await.expect_err("nothing is free");
    assert_eq!(refused.code(), "content-unavailable");
    let body = answer.into_body().collect().await.expect("in time").to_bytes();
    assert_eq!(body, "content");
    downloads.memory(1 << 30).await.expect("all of it is free again");
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
        [0, mebibyte, 256 * mebibyte].map(longest_download),
        [30 * second, 34 * second, 1_054 * second]
    );
    let downloads = downloads();
    for (left, is_whole) in [(longest_download(mebibyte), true), (Duration::ZERO, false)] {
        let held = downloads.memory(1).await.expect("free");
        let kept = (downloads.begin(&app(1)).expect("admitted"), held);
        let pieces = Pieces { content: vec![1; mebibyte].into(), until: Instant::now() + left, kept };
        let (read, broken): (Vec<_>, Vec<_>) = pieces.partition(Result::is_ok);
        let bytes: usize = read.iter().flatten().map(Bytes::len).sum();
        assert!(read.iter().flatten().all(|piece| piece.len() == PIECE_BYTES));
        assert_eq!((bytes, broken.len()), if is_whole { (mebibyte, 0) } else { (0, 1) });
    }
}
