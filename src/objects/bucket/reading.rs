//! Reading an object: a stream of the wanted bytes. Where the connection breaks, the rest is asked for again.

use std::{ops::Range, time::Duration};

use bytes::Bytes;
use futures_util::{StreamExt, stream};
use reqwest::{Method, Response, StatusCode};
use rusty_s3::S3Action;
use tidings_actors::ports::{ObjectBody, ObjectError};
use tokio::time::timeout;

use super::{Bucket, Inner, calls::SIGNED_FOR};

/// How long the next bytes may take.
const STALL_MAX: Duration = Duration::from_secs(60);
/// How often the rest of one object is asked for again.
const RESUMED_MAX: u32 = 5;

/// An object on its way.
struct Reading {
    bucket: Bucket,
    key: String,
    left: Range<u64>,
    answer: Response,
    resumed: u32,
}

/// Opens a range of an object that is not empty.
pub(super) async fn open(bucket: Bucket, key: String, range: Range<u64>) -> Result<ObjectBody, ObjectError> {
    let answer = ask(&bucket, &key, &range).await?;
    let reading = Reading { bucket, key, left: range, answer, resumed: 0 };
    let parts = stream::try_unfold(reading, |mut reading| async move {
        let part = reading.next().await;
        part.map(|part| part.map(|part| (part, reading)))
    });
    Ok(parts.boxed())
}

async fn ask(bucket: &Bucket, key: &str, range: &Range<u64>) -> Result<Response, ObjectError> {
    let Inner { bucket: named, credentials, .. } = &*bucket.0;
    let signed = || named.get_object(Some(credentials), key).sign(SIGNED_FOR);
    let wanted = format!("bytes={}-{}", range.start, range.end - 1);
    let answer = bucket.ranged_call("GetObject", Method::GET, signed, None, Some(&wanted)).await;
    let answer = match answer {
        // An object that ends before the range begins.
        Err(ObjectError::Unavailable(text)) if text.contains("says 416") => return Err(ObjectError::Missing),
        answer => answer?,
    };
    let length = range.end - range.start;
    match (answer.status(), answer.content_length()) {
        (StatusCode::PARTIAL_CONTENT, Some(found)) if found == length => Ok(answer),
        // A server that knows no ranges sends all of it.
        (StatusCode::OK, Some(found)) if range.start == 0 && found >= length => Ok(answer),
        (StatusCode::PARTIAL_CONTENT | StatusCode::OK, Some(_)) => Err(ObjectError::Missing),
        _ => Err(bucket.unreadable("GetObject")),
    }
}

impl Reading {
    async fn next(&mut self) -> Result<Option<Bytes>, ObjectError> {
        while !self.left.is_empty() {
            let why = match timeout(STALL_MAX, self.answer.chunk()).await {
                Ok(Ok(Some(mut part))) => {
                    let wanted = usize::try_from(self.left.end - self.left.start).unwrap_or(usize::MAX);
                    part.truncate(wanted);
                    self.left.start += part.len() as u64;
                    if part.is_empty() {
                        continue;
                    }
                    return Ok(Some(part));
                }
                Ok(Ok(None)) => self.bucket.failed("GetObject", "the object ended before its end"),
                Ok(Err(error)) => self.bucket.unsent("GetObject", &error),
                Err(_late) => self.bucket.failed("GetObject", "no bytes came within 60 s"),
            };
            if self.resumed == RESUMED_MAX {
                return Err(why);
            }
            self.resumed += 1;
            self.answer = ask(&self.bucket, &self.key, &self.left).await?;
        }
        Ok(None)
    }
}
