//! The fields of a view in a request. Their cost is limited here, where globs are new: by their length before
//! they are compiled, and by turns at compiling, on a blocking thread. Globs of the greatest length take some
//! ten milliseconds of a processor, longer than other requests may wait. After each compilation the turn is
//! kept for a while, so that many requests one after another cost little as well.

use tidings_actors::{
    limits::turns::Turns,
    model::view::{GLOBS_MAX, InvalidView, View},
};
use tidings_entity::{id::AppId, kind::ContentRule};
use tokio::time::{Instant, sleep};

use crate::http::bodies::{
    fields::Fields,
    problem::{Kind, Problem},
};

/// After compiling globs, no request compiles for this many times as long: so globs take at most a tenth of
/// one processor.
const REST_PER_WORK: u32 = 9;

/// The fields of a view, as far as they are there.
pub(super) struct ViewFields {
    include: Option<Vec<String>>,
    exclude: Option<Vec<String>>,
    symlinks: Option<bool>,
    content: Option<ContentRule>,
    max_size: Option<u64>,
}

impl ViewFields {
    pub(super) fn read(fields: &mut Fields) -> Self {
        let symlinks = match fields.text("symlinks", 1..=16).as_deref() {
            None => None,
            Some("skip") => Some(false),
            Some("send") => Some(true),
            Some(_) => {
                fields.refuse("symlinks", "must be one of: skip, send");
                None
            }
        };
        Self {
            include: globs(fields, "include"),
            exclude: globs(fields, "exclude"),
            symlinks,
            content: fields.word("content", "inline, none"),
            max_size: fields.number("max_size"),
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.include.is_none()
            && self.exclude.is_none()
            && self.symlinks.is_none()
            && self.content.is_none()
            && self.max_size.is_none()
    }

    /// The view with these fields changed; faults are recorded at their fields. New globs are compiled when
    /// `compiling` gives the app its turn.
    ///
    /// # Errors
    /// 500 if the compiler of globs panics.
    pub(super) async fn over(
        self,
        compiling: &Turns,
        app: &AppId,
        base: &View,
        fields: &mut Fields,
    ) -> Result<View, Problem> {
        let names_excludes_only = self.include.is_none() && self.exclude.is_some();
        let names_globs = self.include.is_some() || self.exclude.is_some();
        let symlinks = self.symlinks.unwrap_or_else(|| base.symlinks());
        let content = self.content.unwrap_or_else(|| base.content());
        let max_size = self.max_size.unwrap_or_else(|| base.max_size());
        let include = self.include.unwrap_or_else(|| base.include().to_vec());
        let exclude = self.exclude.unwrap_or_else(|| base.exclude().to_vec());
        // Stored globs that are not changed may exceed the present limit.
        let length = if names_globs { View::check_length(include.iter().chain(&exclude)) } else { Ok(()) };
        let (included, excluded) = (include.clone(), exclude.clone());
        let made = match length {
            Err(fault) => Err(fault),
            Ok(()) => {
                let (turn, began) = (compiling.take(app).await, Instant::now());
                let compiled = tokio::task::spawn_blocking(move || {
                    let made = View::new(include, exclude, symlinks, content, max_size);
                    (made, turn)
                });
                let (made, turn) = compiled.await.map_err(|_panic| Problem::new(Kind::INTERNAL))?;
                sleep(began.elapsed() * REST_PER_WORK).await;
                drop(turn);
                made
            }
        };
        Ok(made.unwrap_or_else(|fault| {
            let name = match &fault {
                InvalidView::MaxSize => "max_size",
                InvalidView::Glob { glob, .. } if !included.contains(glob) && excluded.contains(glob) => {
                    "exclude"
                }
                _ if names_excludes_only => "exclude",
                _ => "include",
            };
            fields.refuse(name, fault.to_string());
            View::default()
        }))
    }
}

/// A list of globs with valid spelling, number and length; faults are recorded.
fn globs(fields: &mut Fields, name: &str) -> Option<Vec<String>> {
    let globs = fields.texts(name)?;
    let fault = if globs.len() > GLOBS_MAX {
        Err(InvalidView::TooManyGlobs)
    } else {
        View::check_length(&globs).and_then(|()| globs.iter().try_for_each(|glob| View::check_spelling(glob)))
    };
    let holds_control = globs.iter().any(|glob| glob.contains(char::is_control));
    match fault {
        Err(fault) => fields.refuse(name, fault.to_string()),
        Ok(()) if holds_control => fields.refuse(name, "must not hold control characters"),
        Ok(()) => return Some(globs),
    }
    None
}
