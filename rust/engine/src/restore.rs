// SPDX-License-Identifier: GPL-3.0-or-later
//! Restoring a domain: an untrusted stream becomes the memory and state of an empty, paused domain.
//!
//! ```text
//! Source ─► stream_source.rs ─► stream::Reader ─► records.rs ─┬─► page_receiver.rs   PAGE_DATA: fill, or compare after VERIFY
//!                 (waits)         (Record)       (dispatch)   ├─► static_data.rs     CPU policy
//!                                                             └─► ops.rs             END, and all that depends on the kind
//!                                                                  ├─ hvm.rs          of guest
//!                                                                  └─ pv/
//! target.rs      the domain: every call on it, retried; interruption, progress and stall limit while it waits
//! events.rs      what the caller hears, and the report that is made from it
//! ```
//!
//! The domain is the caller's: it is not started here, and after a failure the caller destroys it. Whatever happens, none
//! of its pages stays mapped. No number in the stream decides how much memory is allocated, beyond what one record may
//! hold; the account of populated pages grows with the pages that the hypervisor really gave. Source:
//! libxc-migration-stream, revision 3.

mod caller;
mod channels;
mod error;
mod events;
mod grants;
mod hvm;
mod mapped_pages;
mod named_page;
mod ops;
mod options;
mod page_receiver;
mod pfn_set;
mod pv;
mod records;
mod report;
mod static_data;
mod stream_source;
mod target;
mod typed_pfn;
mod verification;

use xenmig_hypervisor::{Hypervisor, Source};
use xenmig_stream::Reader;
use xenmig_types::{DomainInfo, DomainState, Domid, GuestKind};

pub use caller::RestoreCaller;
pub use channels::{Channel, Channels};
pub use error::{DomainChange, RestoreError, RestoreFailure};
pub use events::{MissingPolicies, RestoreEvent, RestoreProgress, RestoreStage};
pub use named_page::NamedPage;
pub use options::RestoreOptions;
pub use report::RestoreReport;

use hvm::HvmRestore;
use ops::RestoreOps;
use pv::PvRestore;
use records::Records;
use stream_source::StreamSource;
use target::Target;

/// Restores a domain from `source`, which is read up to and including the END record. On success the domain is complete
/// and still paused.
///
/// # Errors
///
/// A [`RestoreFailure`] with the step that failed and the position in the stream.
pub fn restore(
    host: &dyn Hypervisor,
    domid: Domid,
    source: &mut Source,
    options: &RestoreOptions,
    caller: &mut dyn RestoreCaller,
) -> Result<RestoreReport, RestoreFailure> {
    let start = source.read();
    let target = Target::new(host, domid, options, caller);
    let result = check_domain(&target)
        .and_then(|info| attempt(&target, &info, source, options).map_err(|error| target.explain(error)));
    result.map_err(|error| RestoreFailure { domid, bytes_read: source.read() - start, error })
}

fn attempt(
    target: &Target<'_>,
    info: &DomainInfo,
    source: &mut Source,
    options: &RestoreOptions,
) -> Result<RestoreReport, RestoreError> {
    let stream = Reader::new(StreamSource::new(source, target))?;
    let ops = ops_for(info, stream.headers().kind, options)?;
    Records::new(target, stream, ops).run()
}

/// Chooses the operations of the guest's kind, which domain and stream must agree on.
fn ops_for(
    info: &DomainInfo,
    stream: GuestKind,
    options: &RestoreOptions,
) -> Result<Box<dyn RestoreOps>, RestoreError> {
    let refused = |why| Err(RestoreError::Refused { domid: info.domid, why });
    match (info.kind, stream) {
        (GuestKind::Hvm, GuestKind::Hvm) => Ok(Box::new(HvmRestore::new(options))),
        (GuestKind::Pv, GuestKind::Pv) => Ok(Box::new(PvRestore::new(info, options))),
        (GuestKind::Hvm, GuestKind::Pv) => {
            refused("the stream is of a PV guest, and the domain is an HVM or PVH one")
        }
        (GuestKind::Pv, GuestKind::Hvm) => {
            refused("the stream is of an HVM or PVH guest, and the domain is a PV one")
        }
    }
}

/// Refuses a domain that cannot be restored into, before anything is touched.
fn check_domain(target: &Target<'_>) -> Result<DomainInfo, RestoreError> {
    let refused = |why| Err(RestoreError::Refused { domid: target.domid(), why });
    let info = target.call(|host, domid| host.domain_info(domid))?;
    match info.state {
        DomainState::Running => refused("it is running: pause it first, and give it no memory"),
        DomainState::Shutdown { .. } => refused("it has shut down: restore into a new domain"),
        DomainState::Dying => refused("it is being destroyed"),
        DomainState::Paused => Ok(info),
    }
}
