//! Reads the data of bodies: new contents and the hashes of old ones, for a window of deliveries at once.
//!
//! The data depends only on the round, never on the cache, so that a body has the same bytes at every
//! attempt: a file above the view's maximum is neither read nor hashed, and is shown without `sha`, even if
//! its hash is known.
//!
//! Memory: a budget of `n` bytes bounds what is read, and bodies to `2 n`, so preparing takes at most `3 n`:
//! while the second content of a delivery is read, there are two copies of that content beside the first one.
//! A content whose body would be longer, because of its escapes, asks for a larger budget like a larger one.

use bytes::Bytes;
use tidings_actors::{
    model::round::{Change, RoundSpec},
    model::view::{MAX_SIZE_DEFAULT, View},
    ports::{BlobFacts, BlobWanted, Content, DeliveryOrder, GitError, GitSource, PrepareError, StoreError},
};
use tidings_entity::{
    id::{ObjectId, Sha256Hash},
    kind::{ContentRule, Operation},
};

use super::{
    body::{ESCAPED_BYTES_MAX, Material, NewContent, as_text, rendered_bytes},
    hashes::Hashes,
};

/// Contents of more bytes than this are hashed on a blocking thread.
pub(crate) const BLOCKING_FROM: usize = 256 * 1024;
/// Bodies take at most this many times the bytes of the budget.
const BODIES: u64 = 2;

/// The parts of one delivery's body, and the blobs to read for them.
struct Needs {
    new: New,
    old: Old,
}

/// The new content of a delivery: not shown, too large, or read.
enum New {
    Unseen,
    TooLarge(u64),
    Read { wanted: BlobWanted, known: Option<Sha256Hash> },
}

/// The hash of its old content.
enum Old {
    Unseen,
    Known(Sha256Hash),
    /// A change of mode alone: the hash of the new content.
    SameAsNew,
    Read(BlobWanted),
}

impl Needs {
    fn of(order: &DeliveryOrder, facts: impl Fn(ObjectId) -> Option<BlobFacts>) -> Result<Self, GitError> {
        let shown = order.change.new.filter(|_| order.change.operation != Operation::Delete);
        let new = match shown.filter(|_| content_rule(target_view(spec(order))) == ContentRule::Inline) {
            None => New::Unseen,
            Some(entry) => {
                let limit = target_view(spec(order)).map_or(MAX_SIZE_DEFAULT, View::max_size);
                let limit = order.lane.inline_max.map_or(limit, |inline| inline.min(limit));
                match facts(entry.blob) {
                    Some(known) if known.size > limit => New::TooLarge(known.size),
                    _ if order.unobtainable.contains(&entry.blob) => {
                        return Err(GitError::Unobtainable(entry.blob));
                    }
                    known => {
                        let wanted = BlobWanted { blob: entry.blob, limit };
                        New::Read { wanted, known: known.map(|known| known.sha256) }
                    }
                }
            }
        };
        Ok(Self { old: Self::old(order, &new, facts), new })
    }

    fn old(order: &DeliveryOrder, new: &New, facts: impl Fn(ObjectId) -> Option<BlobFacts>) -> Old {
        let Some(entry) = order.change.old.filter(|_| shows_old(spec(order), &order.change)) else {
            return Old::Unseen;
        };
        if matches!(new, New::Read { wanted, .. } if wanted.blob == entry.blob) {
            return Old::SameAsNew;
        }
        let limit =
            held_view(spec(order)).or(target_view(spec(order))).map_or(MAX_SIZE_DEFAULT, View::max_size);
        match facts(entry.blob) {
            Some(known) if known.size > limit => Old::Unseen,
            Some(known) => Old::Known(known.sha256),
            None if order.unobtainable.contains(&entry.blob) => Old::Unseen,
            None => Old::Read(BlobWanted { blob: entry.blob, limit }),
        }
    }

    fn reads(&self) -> impl Iterator<Item = BlobWanted> {
        let new = if let New::Read { wanted, .. } = self.new { Some(wanted) } else { None };
        let old = if let Old::Read(wanted) = self.old { Some(wanted) } else { None };
        new.into_iter().chain(old)
    }
}

fn spec(order: &DeliveryOrder) -> &RoundSpec {
    &order.lane.round.spec
}

fn target_view(spec: &RoundSpec) -> Option<&View> {
    spec.target.as_ref().map(|end| &end.view)
}

fn held_view(spec: &RoundSpec) -> Option<&View> {
    spec.held.as_ref().map(|end| &end.view)
}

fn content_rule(view: Option<&View>) -> ContentRule {
    view.map_or(ContentRule::Inline, View::content)
}

/// Whether the body has the hash of the old content: only if the app was given hashes before and, for an
/// update, still is.
fn shows_old(spec: &RoundSpec, change: &Change) -> bool {
    let inline = |view| content_rule(view) == ContentRule::Inline;
    let before = inline(held_view(spec).or(target_view(spec)));
    before && (change.operation == Operation::Delete || inline(target_view(spec)))
}

/// Whether a round's views leave out so much that contents are fetched by id, not with their commits.
pub(crate) fn is_narrow(spec: &RoundSpec) -> bool {
    target_view(spec).or(held_view(spec)).is_some_and(View::is_narrow)
}

/// The blobs that rendering these changes will read.
///
/// # Errors
/// When the store does not answer.
pub(crate) async fn needed(
    hashes: &Hashes,
    spec: &RoundSpec,
    changes: &[Change],
) -> Result<Vec<ObjectId>, StoreError> {
    let shows_new = content_rule(target_view(spec)) == ContentRule::Inline;
    let max = target_view(spec).map_or(MAX_SIZE_DEFAULT, View::max_size);
    let facts = hashes.of(blobs_of(changes.iter())).await?;
    let mut needed = Vec::with_capacity(changes.len());
    for change in changes {
        let new = change.new.filter(|_| shows_new && change.operation != Operation::Delete);
        let old = change.old.filter(|_| shows_old(spec, change));
        let new = new.filter(|new| facts.get(&new.blob).is_none_or(|facts| facts.size <= max));
        let old = old.filter(|old| !facts.contains_key(&old.blob));
        needed.extend(new.into_iter().chain(old).map(|entry| entry.blob));
    }
    Ok(needed)
}

/// The blobs on both sides of changes.
pub(crate) fn blobs_of<'c>(changes: impl Iterator<Item = &'c Change>) -> impl Iterator<Item = ObjectId> {
    changes.flat_map(|change| change.old.into_iter().chain(change.new)).map(|entry| entry.blob)
}

/// One delivery with all data that was read for it.
pub(crate) struct Gathered {
    new: New,
    old: Old,
    new_read: Option<Content>,
    old_read: Option<Content>,
}

/// Gathers the data of deliveries: always of the first, and of as many more as together read at most `budget`
/// bytes. A failure is about the first.
pub(crate) async fn gather(
    git: &dyn GitSource,
    hashes: &Hashes,
    orders: &[DeliveryOrder],
    budget: u64,
) -> Result<Vec<Gathered>, PrepareError> {
    let Some(first) = orders.first() else { return Ok(Vec::new()) };
    let facts = hashes.of(blobs_of(orders.iter().map(|order| &order.change))).await?;
    let known = |blob: ObjectId| facts.get(&blob).copied();
    let mut needs = vec![Needs::of(first, known)?];
    // A later delivery that cannot be rendered fails when it is the first.
    needs.extend(orders[1..].iter().map_while(|order| Needs::of(order, known).ok()));

    let wanted: Vec<BlobWanted> = needs.iter().flat_map(Needs::reads).collect();
    let mut read = match read(git, first, &wanted, budget).await {
        Ok(read) => read.into_iter(),
        // A read that only a later delivery needs fails when that delivery is the first.
        Err(_) if needs[0].reads().next().is_none() => Vec::new().into_iter(),
        Err(error) => return Err(error),
    };
    let mut gathered = Vec::with_capacity(needs.len());
    for Needs { new, old } in needs {
        let new_read = if matches!(new, New::Read { .. }) { read.next() } else { None };
        let old_read = if matches!(old, Old::Read(_)) { read.next() } else { None };
        let mut one = Gathered { new, old, new_read, old_read };
        if !one.is_complete() {
            if !gathered.is_empty() {
                break;
            }
            one.complete(git, first, budget).await?;
        }
        gathered.push(one);
    }
    Ok(gathered)
}

/// The deliveries whose bodies the budget admits: the first, and as many more as there is room for.
///
/// # Errors
/// [`PrepareError::OverBudget`] if the body of the first is too long.
pub(crate) fn within(
    mut gathered: Vec<Gathered>,
    budget: u64,
    chunk_threshold: usize,
) -> Result<Vec<Gathered>, PrepareError> {
    let mut left = budget.saturating_mul(BODIES);
    let read: usize = gathered.iter().map(Gathered::size).sum();
    if read.saturating_mul(ESCAPED_BYTES_MAX) as u64 <= left {
        return Ok(gathered);
    }
    let mut admitted = 0;
    for one in &gathered {
        let rendered = one.rendered_bytes(chunk_threshold);
        match left.checked_sub(rendered) {
            Some(rest) => left = rest,
            None if admitted == 0 => return Err(PrepareError::OverBudget(rendered.div_ceil(BODIES))),
            None => break,
        }
        admitted += 1;
    }
    gathered.truncate(admitted);
    Ok(gathered)
}

/// Reads blobs, the first only if it has at most `budget` bytes.
async fn read(
    git: &dyn GitSource,
    first: &DeliveryOrder,
    wanted: &[BlobWanted],
    budget: u64,
) -> Result<Vec<Content>, PrepareError> {
    let mut wanted = wanted.to_vec();
    let Some(head) = wanted.first_mut() else { return Ok(Vec::new()) };
    let limit = head.limit;
    head.limit = limit.min(budget);
    let contents = git.contents(&first.lane.remote, &wanted, budget).await?;
    match contents.first() {
        Some(Content::TooLarge { size }) if *size <= limit => Err(PrepareError::OverBudget(*size)),
        _ => Ok(contents),
    }
}

impl Gathered {
    fn is_complete(&self) -> bool {
        (self.new_read.is_some() || !matches!(self.new, New::Read { .. }))
            && (self.old_read.is_some() || !matches!(self.old, Old::Read(_)))
    }

    /// Reads missing contents one by one.
    async fn complete(
        &mut self,
        git: &dyn GitSource,
        order: &DeliveryOrder,
        budget: u64,
    ) -> Result<(), PrepareError> {
        if let (New::Read { wanted, .. }, None) = (&self.new, &self.new_read) {
            self.new_read = read(git, order, &[*wanted], budget).await?.pop();
        }
        if let (Old::Read(wanted), None) = (&self.old, &self.old_read) {
            self.old_read = read(git, order, &[*wanted], budget).await?.pop();
        }
        Ok(())
    }

    /// Bytes that were read.
    pub(crate) fn size(&self) -> usize {
        let of = |content: &Option<Content>| match content {
            Some(Content::Whole(bytes)) => bytes.len(),
            _ => 0,
        };
        of(&self.new_read) + of(&self.old_read)
    }

    /// The bytes that rendering takes beside the contents.
    fn rendered_bytes(&self, chunk_threshold: usize) -> u64 {
        match &self.new_read {
            Some(Content::Whole(bytes)) => rendered_bytes(bytes, chunk_threshold),
            _ => 0,
        }
    }

    /// Hashes contents without a known hash, and adds the computed facts to `learned`.
    pub(crate) fn into_material(self, learned: &mut Vec<(ObjectId, BlobFacts)>) -> Material {
        let mut hash = |blob, bytes: &Bytes| {
            let facts = BlobFacts {
                sha256: Sha256Hash::of(bytes),
                size: bytes.len() as u64,
                text: as_text(bytes).is_some(),
            };
            learned.push((blob, facts));
            facts.sha256
        };
        let new = match (self.new, self.new_read) {
            (New::Unseen, _) | (New::Read { .. }, None) => NewContent::Unseen,
            (New::TooLarge(size), _) | (_, Some(Content::TooLarge { size })) => NewContent::TooLarge { size },
            (New::Read { wanted, known }, Some(Content::Whole(bytes))) => {
                let sha = known.unwrap_or_else(|| hash(wanted.blob, &bytes));
                NewContent::Inline { sha, bytes }
            }
        };
        let old_sha = match (self.old, self.old_read, &new) {
            (Old::Known(sha), ..) => Some(sha),
            (Old::SameAsNew, _, NewContent::Inline { sha, .. }) => Some(*sha),
            (Old::Read(wanted), Some(Content::Whole(bytes)), _) => Some(hash(wanted.blob, &bytes)),
            _ => None,
        };
        Material { new, old_sha }
    }
}

/// Runs work over this many bytes on this thread if they are few, otherwise on a blocking thread.
pub(crate) async fn off_thread<T: Send + 'static>(
    bytes: usize,
    work: impl FnOnce() -> T + Send + 'static,
) -> T {
    if bytes < BLOCKING_FROM {
        return work();
    }
    tokio::task::spawn_blocking(work).await.expect("the work does not panic and is never aborted")
}
