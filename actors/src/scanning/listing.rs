//! The refs that one scan asks a host for. As a rule a scan asks for the refs of all apps of a source
//! together, with one request. Two things differ where an app follows many refs, so that the other apps do
//! not pay for them ([`Wide`]): refs that are too many for one listing are listed app by app, and refs that
//! are merely many are left out of the scans that follow soon ([`RefListing::is_partial`]).
//!
//! A scan that asks for all refs comes again after a rest in proportion to its cost, so where polls come
//! rarely, each of them asks for all. Hooks and pokes end the rest. Nothing here is stored: after a crash the
//! first scan asks for all.

use std::{collections::BTreeSet, num::NonZeroU64, time::Duration};

use tokio::time::Instant;

use crate::{
    context::Context,
    ports::{GitError, Ref, RefListing, RefPatterns, Source, is_named},
    signals::polls::Unseen,
};

/// More listed refs than this make the refs of an app *many*: a scan reads them line by line, and compares
/// them with as many rows.
const MANY: usize = 1_000;

/// Many refs rest for this many times as long as listing them and comparing them with the rows took: that
/// takes at most a tenth of the time of their source.
const REST: u32 = 10;

/// The longest rest, so that a slow host does not keep changes of many refs back for long.
const REST_MAX: Duration = Duration::from_secs(60);

/// What scans learnt about a source with an app that follows many refs. It holds as long as the apps follow
/// the same refs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wide {
    /// The refs that its apps follow, a set for each.
    sets: Vec<RefPatterns>,
    way: WideListing,
}

/// How the refs are listed.
#[derive(Clone, Debug, PartialEq, Eq)]
enum WideListing {
    /// Together they are too many for one listing: the refs of each app are listed alone.
    ByApp,
    /// Until this moment, only the refs of apps that follow few are listed.
    Rest { few: RefPatterns, many: RefPatterns, until: Instant },
}

impl Wide {
    /// Whether this is still so.
    pub(super) fn holds(&self, sets: &[RefPatterns]) -> bool {
        let is_over = matches!(self.way, WideListing::Rest { until, .. } if until <= Instant::now());
        self.sets == sets && !is_over
    }

    /// Whether many refs are left out of the next scans.
    pub(super) fn rests(&self) -> bool {
        matches!(self.way, WideListing::Rest { .. })
    }

    /// Whether this ref is left out of the next scans.
    pub(super) fn leaves_out(&self, name: &str) -> bool {
        match &self.way {
            WideListing::ByApp => false,
            WideListing::Rest { few, many, .. } => is_named(many, name) && !is_named(few, name),
        }
    }

    /// The scan that asked for all refs took this much longer than its listing.
    pub(super) fn rest_longer(&mut self, took: Duration) {
        if let WideListing::Rest { until, .. } = &mut self.way {
            *until = (*until + took.saturating_mul(REST).min(REST_MAX)).min(Instant::now() + REST_MAX);
        }
    }
}

/// The rest after all refs were listed; `None`: no app follows many of them, or all apps do.
fn rest_after(sets: &[RefPatterns], listing: &RefListing, took: Duration) -> Option<Box<Wide>> {
    // Refs that cannot be read are shown after each scan.
    if listing.refs.len() <= MANY || !listing.unreadable.is_empty() {
        return None;
    }
    let (many, few): (Vec<_>, Vec<_>) = sets.iter().partition(|set| count(&listing.refs, set) > MANY);
    if many.is_empty() || few.is_empty() {
        return None;
    }
    let few = union(few);
    let many = union(many).difference(&few).cloned().collect();
    let until = Instant::now() + took.saturating_mul(REST).min(REST_MAX);
    let way = WideListing::Rest { few: few.into_iter().collect(), many, until };
    Some(Box::new(Wide { sets: sets.to_vec(), way }))
}

/// How many of these refs, which are sorted by name, the patterns name.
fn count(refs: &[Ref], patterns: &[String]) -> usize {
    let of = |pattern: &String| {
        let begin = refs.partition_point(|found| found.name < *pattern);
        let rest = &refs[begin..];
        match pattern.ends_with('/') {
            true => rest.partition_point(|found| found.name.starts_with(pattern.as_str())),
            false => usize::from(rest.first().is_some_and(|found| found.name == *pattern)),
        }
    };
    patterns.iter().map(of).sum()
}

fn union<'p>(sets: impl IntoIterator<Item = &'p RefPatterns>) -> BTreeSet<String> {
    sets.into_iter().flatten().cloned().collect()
}

/// Lists the refs that the apps of a source follow, as far as `wide`, which holds, does not leave some out;
/// `wide` says afterwards how the next scan lists them. `None`: the host answered as it did `last` to the
/// same question.
pub(super) async fn list(
    context: &Context,
    source: &Source,
    wide: &mut Option<Box<Wide>>,
    mut last: Option<NonZeroU64>,
) -> Result<Option<(RefListing, Option<Unseen>)>, GitError> {
    if let Some(WideListing::Rest { few, many, .. }) = wide.as_ref().map(|wide| wide.way.clone()) {
        match ask(context, source, &few, last).await {
            // The refs of apps that follow few are too many together as well.
            Err(GitError::TooLarge(_)) => (*wide, last) = (None, None),
            listed => return Ok(listed?.map(|listing| (partial(listing, few, many), None))),
        }
    }
    if wide.is_none() {
        let all: RefPatterns = union(&source.patterns).into_iter().collect();
        let began = Instant::now();
        match ask(context, source, &all, last).await {
            Err(GitError::TooLarge(_)) if source.patterns.len() > 1 => {
                *wide = Some(Box::new(Wide { sets: source.patterns.clone(), way: WideListing::ByApp }));
            }
            listed => {
                let Some(listing) = listed? else { return Ok(None) };
                *wide = rest_after(&source.patterns, &listing, began.elapsed());
                return Ok(Some((listing, None)));
            }
        }
    }
    list_apart(context, source).await.map(Some)
}

async fn ask(
    context: &Context,
    source: &Source,
    patterns: &RefPatterns,
    last: Option<NonZeroU64>,
) -> Result<Option<RefListing>, GitError> {
    match last {
        Some(last) => context.git.list_refs_unless(&source.remote, patterns, last).await,
        None => context.git.list_refs(&source.remote, patterns).await.map(Some),
    }
}

/// A listing of `few` says nothing about `many`. The ref that HEAD names is always listed.
fn partial(listing: RefListing, few: RefPatterns, many: RefPatterns) -> RefListing {
    let seen = few.into_iter().chain(listing.head.clone()).collect();
    RefListing { seen, unseen: many, is_partial: true, ..listing }
}

/// Lists the refs of each app alone: refs of an app that follows too many for one listing are unknown, and
/// refs of other apps are not affected.
async fn list_apart(context: &Context, source: &Source) -> Result<(RefListing, Option<Unseen>), GitError> {
    let (mut listing, mut fault) = (None::<RefListing>, None);
    let (mut seen, mut unseen) = (BTreeSet::new(), BTreeSet::new());
    for patterns in &source.patterns {
        match context.git.list_refs(&source.remote, patterns).await {
            Ok(found) => {
                seen.extend(patterns.iter().cloned());
                match &mut listing {
                    Some(listing) => listing.join(found),
                    None => listing = Some(found),
                }
            }
            Err(reason @ GitError::TooLarge(_)) => {
                unseen.extend(patterns.iter().cloned());
                fault = Some(reason);
            }
            Err(reason) => return Err(reason),
        }
    }
    let Some(mut listing) = listing else {
        return Err(fault.unwrap_or_else(|| GitError::Protocol("nobody follows anything".to_owned())));
    };
    // A pattern that failed for one app but was listed for another one counts as seen.
    listing.unseen = unseen.difference(&seen).cloned().collect();
    listing.seen = seen.into_iter().collect();
    // The digest of the answer to one of these questions says nothing about the others.
    listing.answer = None;
    let refs = listing.unseen.clone();
    let unseen = fault.filter(|_| !refs.is_empty()).map(|fault| Unseen { refs, reason: fault.to_string() });
    Ok((listing, unseen))
}

#[cfg(test)]
mod tests {
    use tidings_entity::id::ObjectId;

    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn listing(many: usize) -> RefListing {
        let names = (0..many).map(|number| format!("refs/heads/many/{number:05}"));
        let names =
            ["refs/heads/main".to_owned()].into_iter().chain(names).chain(["refs/tags/v1".to_owned()]);
        let refs = names.map(|name| Ref { name, commit: ObjectId::new([1; 20]) }).collect();
        RefListing { refs, has_refs: true, ..RefListing::default() }
    }

    fn set(patterns: &[&str]) -> RefPatterns {
        patterns.iter().map(|pattern| (*pattern).to_owned()).collect()
    }

    #[test]
    fn refs_are_counted_by_name_and_by_prefix() {
        let refs = listing(3).refs;
        for (patterns, expected) in [
            (vec![], 0),
            (set(&["refs/heads/main", "refs/heads/mai", "refs/tags/v1", "refs/tags/v2"]), 2),
            (set(&["refs/heads/many/"]), 3),
            (set(&["refs/heads/", "refs/tags/"]), 5),
            (set(&["refs/pull/", "refs/a/"]), 0),
        ] {
            assert_eq!(count(&refs, &patterns), expected, "{patterns:?}");
        }
    }

    #[test]
    fn only_many_refs_beside_few_rest() {
        let (few, many) = (set(&["refs/heads/main"]), set(&["refs/heads/main", "refs/heads/many/"]));
        let rest = |sets: &[RefPatterns], number| rest_after(sets, &listing(number), SECOND);
        assert!(rest(&[few.clone(), many.clone()], 10).is_none(), "they are few");
        assert!(rest(std::slice::from_ref(&many), MANY + 1).is_none(), "nobody else waits");
        let mut wide = rest(&[many.clone(), few.clone()], MANY + 1).expect("a rest");
        assert!(wide.rests() && wide.holds(&[many.clone(), few.clone()]));
        assert!(!wide.holds(&[many]), "the apps follow other refs");
        assert!(wide.leaves_out("refs/heads/many/1") && !wide.leaves_out("refs/heads/main"));
        wide.rest_longer(1_000 * SECOND);
        let WideListing::Rest { few: listed, many: left_out, until } = wide.way else { panic!("it rests") };
        assert_eq!((listed, left_out), (few, set(&["refs/heads/many/"])));
        assert!(until <= Instant::now() + REST_MAX);
    }
}
