//! Receipts of the in-memory store.

use tidings_entity::{
    id::ReceiptId,
    kind::{ReceiptReason, ReceiptVerdict},
};

use super::rows::State;
use crate::{
    model::receipt::{Interest, Judgement, id_after, judge},
    ports::{Hook, NOTED_RECEIPTS_MAX, RECEIPTS_MAX, Random, Reading, Receipt, StoreError},
    time::Timestamp,
};

fn is_noted(receipt: &Receipt) -> bool {
    matches!(receipt.verdict, ReceiptVerdict::Refused | ReceiptVerdict::Duplicate)
}

impl State {
    pub(super) fn receive(&mut self, random: &dyn Random, hook: &Hook) -> Receipt {
        let id = ReceiptId::new(random.ulid(hook.received_at));
        let seen = self.receipts.iter().filter(|receipt| !is_noted(receipt)).any(|receipt| {
            let other = &receipt.hook;
            other.provider == hook.provider
                && other.owner == hook.owner
                && other.delivery.is_some()
                && other.delivery == hook.delivery
        });
        let mut receipt = Receipt {
            id,
            hook: hook.clone(),
            verdict: ReceiptVerdict::Duplicate,
            reason: ReceiptReason::SeenBefore,
            repositories: Vec::new(),
            times: 1,
            replayed_at: None,
            body: None,
        };
        if seen {
            return receipt;
        }
        let judgement = judge(hook, &self.interests(hook));
        let at = hook.received_at;
        let is_relied_on = judgement.tells_of_refs && hook.owner.is_none();
        for repository in judgement.repositories.iter().filter(|_| is_relied_on) {
            let last = self.hooked.entry(repository.clone()).or_insert(at);
            *last = at.max(*last);
        }
        let Judgement { verdict, reason, repositories, .. } = judgement;
        (receipt.verdict, receipt.reason, receipt.repositories) = (verdict, reason, repositories);
        self.write_receipt(receipt)
    }

    fn interests(&self, hook: &Hook) -> Vec<Interest> {
        let is_named = |address: &String| hook.addresses.contains(address);
        let named = self.watches.values().filter(|watch| {
            let moved_to = self.sources.get(&watch.source).and_then(|source| source.moved_to.as_ref());
            let is_own = hook.owner.as_ref().is_none_or(|owner| owner.app == watch.new.app);
            is_own && (is_named(&watch.new.url) || moved_to.is_some_and(is_named))
        });
        named
            .map(|watch| {
                let single =
                    self.cursors.values().find(|row| row.watch == watch.new.id && row.slot.is_empty());
                let selector = watch.new.selector.clone();
                Interest {
                    repository: watch.repository.clone(),
                    branch: single.filter(|_| !selector.is_pattern()).map(|row| row.branch.clone()),
                    selector,
                }
            })
            .collect()
    }

    pub(super) fn write_receipt(&mut self, receipt: Receipt) -> Receipt {
        let noted = is_noted(&receipt);
        let last = self.receipts.iter().map(|receipt| &receipt.id).max();
        let written = Receipt { id: id_after(last, receipt.id.clone()), ..receipt };
        self.receipts.push(written.clone());
        let most = if noted { NOTED_RECEIPTS_MAX } else { RECEIPTS_MAX };
        let of_ring = self.receipts.iter().filter(|receipt| is_noted(receipt) == noted).count();
        if i64::try_from(of_ring).is_ok_and(|count| count > most)
            && let Some(oldest) = self.receipts.iter().position(|receipt| is_noted(receipt) == noted)
        {
            self.receipts.remove(oldest);
        }
        written
    }

    pub(super) fn shown_receipts(
        &self,
        verdict: Option<ReceiptVerdict>,
        before: Option<&ReceiptId>,
        limit: u64,
    ) -> Vec<Receipt> {
        let mut shown: Vec<_> = self.receipts.iter().collect();
        shown.sort_by(|left, right| right.id.cmp(&left.id));
        shown.retain(|receipt| {
            verdict.is_none_or(|verdict| receipt.verdict == verdict)
                && before.is_none_or(|before| receipt.id < *before)
        });
        shown.into_iter().take(usize::try_from(limit).unwrap_or(usize::MAX)).cloned().collect()
    }

    pub(super) fn replay(
        &mut self,
        id: &ReceiptId,
        reading: Option<&Reading>,
        at: Timestamp,
    ) -> Result<Receipt, StoreError> {
        let found = self.receipts.iter().position(|receipt| receipt.id == *id).ok_or(StoreError::NotFound)?;
        self.receipts[found].may_be_replayed()?;
        let hook = self.receipts[found].hook.clone().read_again(reading);
        let Judgement { verdict, reason, repositories, .. } = judge(&hook, &self.interests(&hook));
        let receipt = &mut self.receipts[found];
        receipt.hook = hook;
        (receipt.verdict, receipt.reason, receipt.repositories) = (verdict, reason, repositories);
        receipt.replayed_at = Some(at);
        Ok(receipt.clone())
    }
}
