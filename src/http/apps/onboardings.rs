//! Limits how many apps one address registers where registration is open: each app leaves rows.

use std::{net::IpAddr, num::NonZeroU32, time::Duration};

use crate::http::{
    bodies::problem::{Kind, Problem},
    door::edge::{Limiter, counted},
};

/// The limiter of one process.
pub struct Onboardings(Limiter<IpAddr>);

impl Onboardings {
    /// Allows this number of registrations at once from one address, and as many in each hour after that.
    #[must_use]
    pub fn new(per_hour: u32) -> Self {
        let per_hour = NonZeroU32::new(per_hour).unwrap_or(NonZeroU32::MIN);
        Self(Limiter::of(Duration::from_hours(1) / per_hour.get(), per_hour))
    }

    /// Admits one more registration from this address.
    ///
    /// # Errors
    /// 429 with `Retry-After` when the limit is reached.
    pub(super) fn admit(&self, client: IpAddr) -> Result<(), Problem> {
        self.0.admit(&counted(client)).map_err(|wait| {
            Problem::new(Kind::TOO_MANY)
                .with_detail("this address registers more apps in an hour than this server allows")
                .retry_after(wait.as_secs() + 1)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_registers_so_many_apps_and_others_theirs() {
        let onboardings = Onboardings::new(3);
        let [one, other] = [[192, 0, 2, 1], [192, 0, 2, 2]].map(IpAddr::from);
        assert_eq!((0..10).filter(|_| onboardings.admit(one).is_ok()).count(), 3);
        let refused = onboardings.admit(one).expect_err("too many").into_response("req_x");
        let wait: u64 = refused.headers()["retry-after"].to_str().expect("text").parse().expect("seconds");
        assert!((1..=1_200).contains(&wait), "{wait}");
        assert!(onboardings.admit(other).is_ok());
    }
}
