//! How many connections there may be: in all, of one address, and with a request that waits for work.

use std::{collections::HashMap, net::IpAddr, sync::Arc};

use parking_lot::Mutex;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::{
    super::{
        edge::counted,
        request::{Aside, ConnectionPlace},
    },
    open_connections::OpenConnections,
};
use crate::settings::ServerSettings;

/// The bounds of one listener.
#[derive(Clone)]
pub(super) struct Limits {
    slots: Arc<Semaphore>,
    all: usize,
    per_address: usize,
    addresses: Arc<Mutex<HashMap<IpAddr, usize>>>,
    /// Connections whose request waits for work are counted here, and not in `slots`.
    aside: Arc<Semaphore>,
}

impl Limits {
    pub(super) fn new(settings: &ServerSettings) -> Self {
        Self {
            slots: Arc::new(Semaphore::new(settings.connections_max)),
            all: settings.connections_max,
            per_address: settings.connections_per_address_max,
            addresses: Arc::default(),
            aside: Arc::new(Semaphore::new(settings.waiting_connections_max)),
        }
    }

    /// Room for one more, made if need be.
    pub(super) async fn slot(&self, open: &OpenConnections) -> OwnedSemaphorePermit {
        if let Some(slot) = self.free_slot() {
            return slot;
        }
        let mut slot = std::pin::pin!(self.slots.clone().acquire_owned());
        loop {
            // Who begins to wait after this look is told of as well.
            let waits = open.next_to_wait();
            open.make_room();
            tokio::select! {
                slot = &mut slot => return slot.expect("the semaphore is never closed"),
                () = waits => {}
            }
        }
    }

    pub(super) fn free_slot(&self) -> Option<OwnedSemaphorePermit> {
        self.slots.clone().try_acquire_owned().ok()
    }

    /// One more connection of an address, if it may have one.
    pub(super) fn share(&self, address: IpAddr) -> Option<Share> {
        let address = counted(address);
        let mut addresses = self.addresses.lock();
        let equal_part = self.all / (addresses.len() + usize::from(!addresses.contains_key(&address)));
        let most = match self.slots.available_permits() {
            0 => self.per_address.min(equal_part.saturating_add(1)),
            _ => self.per_address,
        };
        let count = addresses.entry(address).or_default();
        // An address without connections is never refused here, so that no entry stays empty.
        if *count >= most {
            return None;
        }
        *count += 1;
        Some(Share { address, addresses: self.addresses.clone() })
    }

    /// What a new connection holds; `share` is `None` where its address is not counted.
    pub(super) fn place(&self, slot: OwnedSemaphorePermit, share: Option<Share>) -> ListenerPlace {
        let address = share.as_ref().map(|share| share.address);
        ListenerPlace {
            limits: self.clone(),
            address,
            held: Mutex::new(HeldSlot::Ordinary { _slot: slot, _share: share }),
        }
    }
}

/// One connection's part of what its address may have.
pub(super) struct Share {
    address: IpAddr,
    addresses: Arc<Mutex<HashMap<IpAddr, usize>>>,
}

impl Drop for Share {
    fn drop(&mut self) {
        let mut addresses = self.addresses.lock();
        if let Some(count) = addresses.get_mut(&self.address) {
            *count -= 1;
            if *count == 0 {
                addresses.remove(&self.address);
            }
        }
    }
}

/// What one open connection holds of the bounds.
pub(super) struct ListenerPlace {
    limits: Limits,
    /// `None`: the address is not counted.
    address: Option<IpAddr>,
    held: Mutex<HeldSlot>,
}

enum HeldSlot {
    Ordinary { _slot: OwnedSemaphorePermit, _share: Option<Share> },
    Aside { _slot: OwnedSemaphorePermit },
}

impl ListenerPlace {
    /// Whether the connection is still counted among those that wait for work: no ordinary place was free
    /// when the wait ended, so the connection ends with its answer.
    pub(super) fn is_aside(&self) -> bool {
        matches!(*self.held.lock(), HeldSlot::Aside { .. })
    }

    fn ordinary(&self) -> Option<HeldSlot> {
        let share = match self.address {
            Some(address) => Some(self.limits.share(address)?),
            None => None,
        };
        Some(HeldSlot::Ordinary { _slot: self.limits.free_slot()?, _share: share })
    }
}

impl ConnectionPlace for ListenerPlace {
    fn step_aside(self: Arc<Self>) -> Option<Aside> {
        let slot = self.limits.aside.clone().try_acquire_owned().ok()?;
        // The place before is given up after the lock.
        let before = std::mem::replace(&mut *self.held.lock(), HeldSlot::Aside { _slot: slot });
        drop(before);
        Some(Aside::new(self))
    }

    fn come_back(&self) {
        if let Some(ordinary) = self.ordinary() {
            let aside = std::mem::replace(&mut *self.held.lock(), ordinary);
            drop(aside);
        }
    }
}
