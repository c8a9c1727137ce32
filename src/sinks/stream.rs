//! The sink `stream`: each change is a message of NATS JetStream ([`crate::nats`]) with the headers that a
//! request has, and the stream has a word for each.
//! CloudEvents go in structured mode (`content-type: application/cloudevents+json`).

use std::{sync::Arc, time::Duration};

use tidings_actors::{
    deliverer::retry::{Verdict, verdict},
    ownership::shards::ShardHold,
    ports::{AttemptOutcome, ItemOutcome, KeptAnswer, Parcel, ParcelBody, SendFailure},
};
use tokio::time::{Instant, timeout};

use super::{
    answer,
    attempt::{Attempt, OutgoingMessage, Reply, WayOut, allowance, late},
    kept,
    rendering::cloud_event,
};
use crate::nats::{Message, Nats, Published, target::Target};

/// The part of an attempt's time that the wait for one acknowledgement may take: the rest is for reporting.
const OF_THE_TIME: (u32, u32) = (19, 20);

/// The way to one stream.
pub(super) struct Publishing<'a> {
    pub(super) nats: &'a Nats,
    pub(super) address: &'a str,
    pub(super) attempt: Attempt<'a>,
}

impl WayOut for Publishing<'_> {
    fn attempt(&self) -> &Attempt<'_> {
        &self.attempt
    }

    async fn post(&self, post: OutgoingMessage<'_>) -> Reply {
        let target = match Target::parse(self.address) {
            Ok(target) => target,
            Err(fault) => {
                return Reply::failed(SendFailure::InvalidUrl, &format!("base address: it {fault}"));
            }
        };
        let OutgoingMessage { id, action, watch, content_type, body, .. } = post;
        let Some(signed) = self.attempt.sign(id, &body).await else {
            return Reply::failed(SendFailure::Refused, "the app has no signing key");
        };
        let timestamp = signed.timestamp.to_string();
        let mut headers = vec![
            ("content-type", content_type.to_owned()),
            ("user-agent", concat!("Tidings/", env!("CARGO_PKG_VERSION")).to_owned()),
            ("webhook-id", id.to_owned()),
            ("webhook-timestamp", timestamp.clone()),
            ("webhook-signature", signed.standard),
            ("x-docora-app-id", self.attempt.endpoint.app.as_str().to_owned()),
            ("x-docora-timestamp", timestamp),
            ("x-docora-signature", signed.docora),
        ];
        headers.extend(self.attempt.traceparent.clone().map(|parent| ("traceparent", parent)));
        let subject = target.subject(watch.map(|watch| watch.as_str()), action.as_str());
        let limit = self.limit(body.len() as u64) * OF_THE_TIME.0 / OF_THE_TIME.1;
        let message = Message { subject, id, headers, body };
        self.told(self.nats.publish(self.attempt.endpoint, &target, message, limit).await)
    }
}

impl Publishing<'_> {
    fn limit(&self, bytes: u64) -> Duration {
        allowance(self.attempt.endpoint.timeout, bytes)
    }

    /// Publishes several messages, each after the stream has acknowledged the previous one, so that the
    /// stream has them in order in any case. After a message without an acknowledgement no further one is
    /// sent. If that is the first message, or if the failure is not about the message, the attempt as a whole
    /// failed. Sending also stops when the right to send ends.
    pub(super) async fn publish_each(
        &self,
        parcels: &[Parcel],
        hold: &ShardHold,
    ) -> (AttemptOutcome, Vec<ItemOutcome>) {
        let until = Instant::now() + self.limit(parcels.iter().map(Parcel::size).sum());
        let (started, mut items) = (Instant::now(), Vec::with_capacity(parcels.len()));
        let mut whole = self.told(Published { result: Ok(200), text: String::new() });
        for parcel in parcels {
            let ParcelBody::Whole(body) = &parcel.body else { break };
            if !items.is_empty() && !hold.lasts() {
                break;
            }
            let content_type = cloud_event::content_type(parcel.format, false);
            let (action, id, watch) = (parcel.action, parcel.id.as_str(), Some(&parcel.watch));
            let body = body.clone();
            let post =
                OutgoingMessage { action, id, watch, content_type, body, answer_max: None, shows: false };
            let left = until.saturating_duration_since(Instant::now()).min(self.limit(parcel.size()));
            let reply = timeout(left, self.post(post)).await.unwrap_or_else(|_| late(left));
            match verdict(reply.result) {
                Verdict::Acknowledged => items.push(ItemOutcome::Accepted),
                Verdict::Refused => items.push(ItemOutcome::Refused(reply.excerpt)),
                _ => {
                    if items.is_empty() {
                        whole = reply;
                    }
                    break;
                }
            }
        }
        items.resize(parcels.len(), ItemOutcome::Untaken);
        (whole.into_outcome(started), items)
    }

    fn told(&self, Published { result, text }: Published) -> Reply {
        let text = match text.len() {
            0 => text,
            // The answer of a server may repeat the credentials.
            _ => answer::excerpt(kept::clean(&text, &self.attempt.secrets(None)).as_bytes()),
        };
        let is_kept = self.attempt.keeps_all || result != Ok(200);
        let kept = is_kept.then(|| Arc::new(KeptAnswer { headers: Vec::new(), body: text.clone() }));
        Reply { result, retry_after: None, excerpt: text, kept, answer: (Vec::new(), true) }
    }
}
