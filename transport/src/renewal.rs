//! A running replica takes in new certificates.

use std::sync::{Arc, Weak};

use crate::TransportError;
use crate::identity::Identity;
use crate::mesh::Mesh;

/// Gives a running transport another identity, from whatever thread. It keeps nothing running.
#[derive(Clone)]
pub struct Renewal {
    mesh: Weak<Mesh>,
}

impl Renewal {
    pub(crate) fn new(mesh: &Arc<Mesh>) -> Renewal {
        Renewal {
            mesh: Arc::downgrade(mesh),
        }
    }

    /// From now on connections are made with `identity`. Those that are up stay, except for those of whoever it does
    /// not trust any more. On an error everything is as before.
    pub fn renew(&self, identity: Identity) -> Result<(), TransportError> {
        let Some(mesh) = self.mesh.upgrade() else {
            return Ok(());
        };
        let renewed = mesh.renew(identity);
        match &renewed {
            Ok(()) => mesh.counters().certificate_renewals.add(1),
            Err(_) => mesh.counters().certificate_renewals_refused.add(1),
        }
        renewed
    }

    /// New files could not even be read.
    pub fn note_refused(&self) {
        if let Some(mesh) = self.mesh.upgrade() {
            mesh.counters().certificate_renewals_refused.add(1);
        }
    }

    /// Ends connections of revoked certificates whose handshake was under way when they were revoked.
    pub fn close_revoked(&self) {
        if let Some(mesh) = self.mesh.upgrade() {
            mesh.close_revoked();
        }
    }

    /// What is in use; `None` when the transport has ended.
    pub fn identity(&self) -> Option<Identity> {
        Some(self.mesh.upgrade()?.identity())
    }
}
