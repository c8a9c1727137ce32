//! Uploads in parts that were never finished: listed, and dropped when they are old. The id of the object
//! says when its upload began.

use instant_xml::FromXml;
use reqwest::Method;
use rusty_s3::S3Action;
use tidings_actors::{ports::ObjectError, time::Timestamp};

use super::{
    Bucket, Inner, OBJECTS,
    calls::{SIGNED_FOR, XML_MAX},
};

/// The namespace of answers of S3.
const NAMESPACE: &str = "http://s3.amazonaws.com/doc/2006-03-01/";

#[derive(Debug, FromXml)]
#[xml(rename = "ListMultipartUploadsResult", ns(NAMESPACE))]
struct Uploads {
    uploads: Vec<UploadInParts>,
}

#[derive(Debug, FromXml)]
#[xml(rename = "Upload", ns(NAMESPACE))]
struct UploadInParts {
    #[xml(rename = "Key")]
    key: String,
    #[xml(rename = "UploadId")]
    id: String,
}

impl Bucket {
    /// Drops uploads that began before this moment, at most `limit`. Returns how many.
    pub(super) async fn drop_uploads(&self, before: Timestamp, limit: usize) -> Result<usize, ObjectError> {
        let Inner { bucket, credentials, .. } = &*self.0;
        let mut gone = 0;
        for UploadInParts { key, id } in self.uploads().await? {
            let began = self.id(&key).map(|id| i64::try_from(id.ulid().timestamp_ms()).unwrap_or(i64::MAX));
            if began.is_none_or(|began| began >= before.0) || gone >= limit {
                continue;
            }
            let signed = || bucket.abort_multipart_upload(Some(credentials), &key, &id).sign(SIGNED_FOR);
            match self.call("AbortMultipartUpload", Method::DELETE, signed, None).await {
                Ok(_) | Err(ObjectError::Missing) => gone += 1,
                Err(error) => return Err(error),
            }
        }
        Ok(gone)
    }

    /// The first thousand uploads that are not finished.
    async fn uploads(&self) -> Result<Vec<UploadInParts>, ObjectError> {
        const NAME: &str = "ListMultipartUploads";
        let Inner { bucket, credentials, prefix, .. } = &*self.0;
        let signed = || {
            // The crate has no action for this call, which is a GET of the bucket itself.
            let mut list = bucket.get_object(Some(credentials), "");
            list.query_mut().insert("uploads", "");
            list.query_mut().insert("prefix", format!("{prefix}{OBJECTS}"));
            list.sign(SIGNED_FOR)
        };
        let answer = self.call(NAME, Method::GET, signed, None).await?;
        let text = self.text(NAME, answer, XML_MAX).await?;
        let listed: Uploads = instant_xml::from_str(&text).map_err(|_| self.unreadable(NAME))?;
        Ok(listed.uploads)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unfinished_uploads_are_read_beside_unknown_fields_of_the_answer() {
        let text = "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\
            <ListMultipartUploadsResult xmlns=\"http://s3.amazonaws.com/doc/2006-03-01/\">\
            <Bucket>b</Bucket><KeyMarker></KeyMarker><MaxUploads>1000</MaxUploads>\
            <IsTruncated>false</IsTruncated>\
            <Upload><Key>objects/a</Key><UploadId>u1</UploadId><Initiator><ID>i</ID></Initiator>\
            <Initiated>2026-01-01T00:00:00.000Z</Initiated></Upload>\
            <Upload><Key>objects/b</Key><UploadId>u2</UploadId></Upload>\
            </ListMultipartUploadsResult>";
        let listed: Uploads = instant_xml::from_str(text).expect("read");
        let pairs: Vec<_> = listed.uploads.iter().map(|one| (one.key.as_str(), one.id.as_str())).collect();
        assert_eq!(pairs, [("objects/a", "u1"), ("objects/b", "u2")]);
        let none = "<ListMultipartUploadsResult xmlns=\"http://s3.amazonaws.com/doc/2006-03-01/\"/>";
        let none: Uploads = instant_xml::from_str(none).expect("read");
        assert!(none.uploads.is_empty());
    }
}
