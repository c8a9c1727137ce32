//! What a failed reading of a round means.

use super::*;

#[test]
fn of_a_round_that_has_ended_what_will_not_change_is_gone_and_the_rest_may_pass() {
    let id = tidings_entity::id::ObjectId::new([1; 20]);
    for (error, is_gone) in [
        (GitError::Missing(id), true),
        (GitError::Unobtainable(id), true),
        (GitError::Corrupt("planted".into()), true),
        (GitError::NotACommit(id), true),
        (GitError::MalformedTree("planted".into()), true),
        (GitError::TooLarge("planted".into()), true),
        (GitError::Storage("planted".into()), false),
        (GitError::Unreachable("planted".into()), false),
        (GitError::NotFound, false),
        (GitError::Cancelled, false),
    ] {
        let told = matches!(Unread::of(&error, 7, true), Unread::Gone(_));
        assert_eq!(told, is_gone, "{error}");
        assert!(matches!(Unread::of(&error, 7, false), Unread::Failed(_)), "an open one waits: {error}");
    }
}
