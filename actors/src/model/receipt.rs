//! The effect of a genuine hook. Pure, so that every store judges alike: `hook, interested watches ->
//! verdict`.
//!
//! A hook is a hint. It can only name repositories that are registered, and its only effect is that they are
//! polled soon; what the hook says about commits is not even read.

use std::collections::BTreeSet;

use tidings_entity::{
    id::{ReceiptId, RepositoryId},
    kind::{HookNews, ReceiptReason, ReceiptVerdict},
};
use ulid::Ulid;

use crate::ports::{Hook, Selector};

/// The id of the receipt that is written after `last`, so that ids rise in the order of arrival: ids
/// of one millisecond are random otherwise, and a clock may be set back.
#[must_use]
pub fn id_after(last: Option<&ReceiptId>, wanted: ReceiptId) -> ReceiptId {
    let Some(last) = last.filter(|last| **last >= wanted) else { return wanted };
    let ulid = last.as_str().strip_prefix(ReceiptId::PREFIX).and_then(|text| Ulid::from_string(text).ok());
    ulid.map_or(wanted, |ulid| ReceiptId::new(Ulid(ulid.0.saturating_add(1))))
}

/// A watch of a repository that a hook names.
#[derive(Clone, Debug)]
pub struct Interest {
    /// The repository that the hook names.
    pub repository: RepositoryId,
    /// The branches or refs that the watch follows.
    pub selector: Selector,
    /// The ref that the cursor follows now; empty while HEAD is not known, `None` where there is no cursor.
    pub branch: Option<String>,
}

/// The effect of a hook.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Judgement {
    /// The verdict about the hook, for its receipt.
    pub verdict: ReceiptVerdict,
    /// The reason for the verdict.
    pub reason: ReceiptReason,
    /// Whether hooks of these repositories can be relied on: one of them reported a ref, even if no watch
    /// follows that ref.
    pub tells_of_refs: bool,
    /// The watched repositories that it names.
    pub repositories: Vec<RepositoryId>,
}

/// Judges a hook; `interests` are the watches of the repositories that have one of its addresses.
#[must_use]
pub fn judge(hook: &Hook, interests: &[Interest]) -> Judgement {
    use ReceiptReason as Reason;
    let repositories: BTreeSet<_> = interests.iter().map(|interest| interest.repository.clone()).collect();
    let watched = || interests.iter().any(|interest| interest.follows(hook.ref_name.as_deref()));
    let (verdict, reason) = match hook.news {
        HookNews::Ping => (ReceiptVerdict::Ignored, Reason::Ping),
        HookNews::Other => (ReceiptVerdict::Ignored, Reason::OtherEvent),
        _ if repositories.is_empty() => (ReceiptVerdict::Ignored, Reason::UnknownRepository),
        HookNews::Repository => (ReceiptVerdict::Accepted, Reason::RepositoryChanged),
        HookNews::Push | HookNews::Deletion if !watched() => (ReceiptVerdict::Ignored, Reason::OtherRef),
        HookNews::Push => (ReceiptVerdict::Accepted, Reason::RefMoved),
        HookNews::Deletion => (ReceiptVerdict::Accepted, Reason::RefDeleted),
    };
    let tells_of_refs = matches!(hook.news, HookNews::Push | HookNews::Deletion);
    Judgement { verdict, reason, tells_of_refs, repositories: repositories.into_iter().collect() }
}

impl Interest {
    /// Whether a watch may change because this ref moved. In doubt it may: a poll is cheap. Hosts move
    /// `refs/pull/7/head` with the branch of the request, and tell of the branch alone.
    fn follows(&self, name: Option<&str>) -> bool {
        let Some(name) = name.filter(|_| !self.selector.is_untold()) else { return true };
        match self.selector.single_ref(self.branch.as_deref()) {
            Some(single) => single.is_empty() || single == name,
            None => self.selector.matcher().is_none_or(|matcher| matcher.matches(name)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::time::Timestamp;
    use tidings_entity::kind::{HookProvider, SelectorKind};

    fn hook(news: HookNews, ref_name: Option<&str>) -> Hook {
        Hook {
            owner: None,
            provider: HookProvider::Github,
            delivery: Some("1".into()),
            event: "push".into(),
            news,
            ref_name: ref_name.map(str::to_owned),
            addresses: vec!["https://h.example/o/r".into()],
            received_at: Timestamp(1),
        }
    }

    fn interest(kind: SelectorKind, value: &str, branch: Option<&str>) -> Interest {
        Interest {
            repository: RepositoryId::new(Ulid::from_parts(1, 1)),
            selector: Selector { kind, value: value.into() },
            branch: branch.map(str::to_owned),
        }
    }

    fn judged(news: HookNews, name: Option<&str>, interests: &[Interest]) -> (ReceiptVerdict, ReceiptReason) {
        let judgement = judge(&hook(news, name), interests);
        (judgement.verdict, judgement.reason)
    }

    #[test]
    fn a_ref_that_somebody_may_follow_is_accepted_and_no_other() {
        let main = Some("refs/heads/main");
        for (interest, name, is_watched) in [
            (interest(SelectorKind::DefaultBranch, "", main), "refs/heads/main", true),
            (interest(SelectorKind::DefaultBranch, "", main), "refs/heads/mai", false),
            (interest(SelectorKind::DefaultBranch, "", Some("")), "refs/heads/any", true),
            (interest(SelectorKind::DefaultBranch, "", None), "refs/heads/any", true),
            (interest(SelectorKind::Branch, "main", main), "refs/heads/main", true),
            (interest(SelectorKind::Branch, "main", main), "refs/tags/main", false),
            (interest(SelectorKind::BranchPattern, "release/*", None), "refs/heads/release/1", true),
            (interest(SelectorKind::BranchPattern, "release/*", None), "refs/heads/main", false),
            (interest(SelectorKind::TagPattern, "v*", None), "refs/tags/v1", true),
            (interest(SelectorKind::TagPattern, "v*", None), "refs/heads/v1", false),
            (interest(SelectorKind::Ref, "refs/tags/v1", Some("refs/tags/v1")), "refs/tags/v2", false),
            (interest(SelectorKind::Ref, "refs/notes/x", Some("refs/notes/x")), "refs/heads/main", true),
            (interest(SelectorKind::RefPattern, "refs/pull/*/head", None), "refs/heads/topic", true),
        ] {
            let expected = if is_watched {
                (ReceiptVerdict::Accepted, ReceiptReason::RefMoved)
            } else {
                (ReceiptVerdict::Ignored, ReceiptReason::OtherRef)
            };
            let found = judged(HookNews::Push, Some(name), std::slice::from_ref(&interest));
            assert_eq!(found, expected, "{name} for {interest:?}");
        }
    }

    #[test]
    fn ids_rise_in_the_order_of_arrival() {
        let id = |moment, random| ReceiptId::new(Ulid::from_parts(moment, random));
        for (last, wanted, given) in [
            (None, id(5, 9), id(5, 9)),
            (Some(id(5, 9)), id(6, 0), id(6, 0)),
            (Some(id(5, 9)), id(5, 10), id(5, 10)),
            (Some(id(5, 9)), id(5, 9), id(5, 10)),
            (Some(id(5, 9)), id(5, 3), id(5, 10)),
            (Some(id(5, 9)), id(1, 99), id(5, 10)),
            (Some(id(5, (1 << 80) - 1)), id(5, 3), id(6, 0)),
        ] {
            assert_eq!(id_after(last.as_ref(), wanted.clone()), given, "{last:?} {wanted}");
        }
    }

    #[test]
    fn each_kind_of_news_has_its_verdict() {
        let main = [interest(SelectorKind::Branch, "main", None)];
        let name = Some("refs/heads/main");
        for (news, known, unknown) in [
            (HookNews::Ping, ("ignored", "ping"), ("ignored", "ping")),
            (HookNews::Other, ("ignored", "other_event"), ("ignored", "other_event")),
            (HookNews::Push, ("accepted", "ref_moved"), ("ignored", "unknown_repository")),
            (HookNews::Deletion, ("accepted", "ref_deleted"), ("ignored", "unknown_repository")),
            (HookNews::Repository, ("accepted", "repository_changed"), ("ignored", "unknown_repository")),
        ] {
            for (interests, expected) in [(&main[..], known), (&[], unknown)] {
                let (verdict, reason) = judged(news, name, interests);
                assert_eq!((verdict.as_str(), reason.as_str()), expected, "{news}");
            }
        }
    }

    #[test]
    fn only_news_of_refs_shows_that_hooks_of_refs_arrive() {
        let main = [interest(SelectorKind::Branch, "main", None)];
        let shows = |news, name| judge(&hook(news, name), &main).tells_of_refs;
        assert!(shows(HookNews::Push, Some("refs/heads/other")) && shows(HookNews::Deletion, None));
        assert!(!shows(HookNews::Ping, None) && !shows(HookNews::Repository, None));
    }
}
