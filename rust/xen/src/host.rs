// SPDX-License-Identifier: GPL-3.0-or-later
//! The host: opens Xen and answers the verbs of [`Hypervisor`].

use std::sync::{Arc, Mutex, PoisonError};

use xenmig_hypervisor::{
    Access, ClaimError, CleanPass, Clock, DirtyBitmap, DirtyCounts, Errno, Extent, ForeignPages, Hypervisor,
    HypervisorError, Lifecycle, MachineClock, Process, ReservedGrant, Result, SaveClaim,
};
use xenmig_types::{
    CpuPolicy, DomainInfo, DomainState, Domid, Gfn, GuestKind, PageType, TscInfo, XenVersion,
};

use crate::{
    call::CallHandle,
    claim::Claims,
    control::ControlHandle,
    cpu_policy, domain_info,
    error::{CallResult, XenOpenError},
    grants, interface,
    libraries::{CALL_SONAME, CallFunctions, ControlFunctions, FOREIGN_SONAME, ForeignFunctions},
    logdirty::{self, Fetch},
    mapping::ForeignHandle,
    page_types::TypeQueries,
    resume,
};

/// The Xen that this process runs under. Nothing of it follows a fork: every verb is refused in a child.
#[derive(Debug)]
pub struct XenHost {
    process: Process,
    version: XenVersion,
    pub(super) call: Arc<CallHandle>,
    pub(super) foreign: Arc<ForeignHandle>,
    control: Mutex<ControlHandle>,
    types: TypeQueries,
    claims: Claims,
}

impl XenHost {
    /// `HVM_PARAM_CALLBACK_IRQ`: set by a guest's PV drivers.
    const CALLBACK_IRQ: u32 = 0;

    /// Opens Xen.
    ///
    /// # Errors
    ///
    /// A [`XenOpenError`] that says what this machine lacks: a library, the device, the right to use it, or a Xen of
    /// the version that this was built for.
    pub fn open() -> std::result::Result<Self, XenOpenError> {
        Self::open_with(CALL_SONAME, FOREIGN_SONAME, interface::control_soname)
    }

    /// Opens Xen with libraries of other names.
    pub(super) fn open_with(
        call_soname: &str,
        foreign_soname: &str,
        control_soname: fn(XenVersion) -> String,
    ) -> std::result::Result<Self, XenOpenError> {
        let call = CallFunctions::load(call_soname)?;
        let foreign = ForeignFunctions::load(foreign_soname)?;
        let call = Arc::new(CallHandle::open(call)?);
        let version = call.version().map_err(|errno| XenOpenError::Step { step: "xen_version", errno })?;
        if !interface::fits(version) {
            return Err(XenOpenError::OtherVersion { running: version });
        }
        let control = ControlFunctions::load(&control_soname(version))?;
        let foreign = Arc::new(ForeignHandle::open(foreign)?);
        let control = Mutex::new(ControlHandle::open(control)?);
        try_domctl(&call)?;
        Ok(Self {
            process: Process::current(),
            version,
            call,
            foreign,
            control,
            types: TypeQueries::default(),
            claims: Claims::from_environment(),
        })
    }

    /// Does what a verb is for, unless this is another process, and puts its name on an error.
    pub(super) fn verb<T>(
        &self,
        op: &'static str,
        domid: Domid,
        ask: impl FnOnce(&Self) -> CallResult<T>,
    ) -> Result<T> {
        self.process.check(op)?;
        ask(self).map_err(|Errno(errno)| HypervisorError::call(op, domid, errno))
    }

    /// Does the same with libxenctrl, which one thread uses at a time.
    pub(super) fn control_verb<T>(
        &self,
        op: &'static str,
        domid: Domid,
        ask: impl FnOnce(&mut ControlHandle) -> CallResult<T>,
    ) -> Result<T> {
        self.verb(op, domid, |host| ask(&mut host.control.lock().unwrap_or_else(PoisonError::into_inner)))
    }
}

/// Finds out whether Xen takes domctls of this build from this domain.
fn try_domctl(call: &Arc<CallHandle>) -> std::result::Result<(), XenOpenError> {
    let Ok(control_domain) = Domid::new(0) else { return Ok(()) };
    match domain_info::domain_info(call, control_domain) {
        // Which domains there are does not matter.
        Ok(_) | Err(Errno(libc::ESRCH)) => Ok(()),
        Err(Errno(libc::EACCES)) => Err(XenOpenError::OtherInterface),
        Err(Errno(libc::EPERM)) => Err(XenOpenError::NotPrivileged),
        Err(errno) => Err(XenOpenError::Step { step: "getdomaininfo", errno }),
    }
}

impl Lifecycle for XenHost {
    fn has_pv_drivers(&self, domid: Domid) -> Result<bool> {
        match self.domain_info(domid)?.kind {
            GuestKind::Pv => Ok(true),
            GuestKind::Hvm => Ok(self.hvm_param(domid, Self::CALLBACK_IRQ)? != 0),
        }
    }

    fn suspend(&self, domid: Domid) -> Result<()> {
        let op = "remote_shutdown";
        if self.domain_info(domid)?.kind == GuestKind::Pv {
            return Err(HypervisorError::call(op, domid, libc::EOPNOTSUPP));
        }
        self.control_verb(op, domid, |control| control.shutdown(domid, DomainState::SHUTDOWN_SUSPEND))
    }

    fn resume(&self, domid: Domid) -> Result<()> {
        let has_drivers = self.has_pv_drivers(domid)?;
        self.verb("resumedomain", domid, |host| resume::resume(&host.call, domid, has_drivers))
    }
}

impl Hypervisor for XenHost {
    fn clock(&self) -> &dyn Clock {
        &MachineClock
    }

    /// It was asked for when the host was opened: a hypervisor keeps its version while it runs.
    fn version(&self) -> Result<XenVersion> {
        self.process.check("xen_version")?;
        Ok(self.version)
    }

    fn domain_info(&self, domid: Domid) -> Result<DomainInfo> {
        self.verb("getdomaininfo", domid, |host| domain_info::domain_info(&host.call, domid))
    }

    fn claim_save(&self, domid: Domid) -> std::result::Result<SaveClaim, ClaimError> {
        self.process.check("claiming the domain")?;
        self.claims.take(domid)
    }

    fn nr_gpfns(&self, domid: Domid) -> Result<u64> {
        self.control_verb("maximum_gpfn", domid, |control| control.nr_gpfns(domid))
    }

    fn enable_logdirty(&self, domid: Domid) -> Result<()> {
        self.verb("shadow_op ENABLE_LOGDIRTY", domid, |host| logdirty::enable(&host.call, domid))
    }

    fn disable_logdirty(&self, domid: Domid) -> Result<()> {
        self.verb("shadow_op OFF", domid, |host| logdirty::disable(&host.call, domid))
    }

    fn dirty_bitmap(&self, domid: Domid, pages: u64) -> Result<DirtyBitmap> {
        self.verb("allocation of a log-dirty bitmap", domid, |host| logdirty::bitmap(&host.call, pages))
    }

    fn clean(&self, domid: Domid, bitmap: Option<&mut DirtyBitmap>, pass: CleanPass) -> Result<DirtyCounts> {
        let (op, fetch) = ("shadow_op CLEAN", Fetch::Clean(pass));
        match bitmap {
            Some(bitmap) => self.verb(op, domid, |host| logdirty::fetch(&host.call, domid, fetch, bitmap)),
            None => {
                // Xen clears the log of as many pages as it is told, bitmap or not.
                let pages = self.nr_gpfns(domid)?;
                self.verb(op, domid, |host| logdirty::counts(&host.call, domid, fetch, pages))
            }
        }
    }

    fn peek(&self, domid: Domid, bitmap: Option<&mut DirtyBitmap>) -> Result<DirtyCounts> {
        self.verb("shadow_op PEEK", domid, |host| match bitmap {
            Some(bitmap) => logdirty::fetch(&host.call, domid, Fetch::Peek, bitmap),
            None => logdirty::counts(&host.call, domid, Fetch::Peek, 0),
        })
    }

    fn page_types(&self, domid: Domid, gfns: &[Gfn], types: &mut [PageType]) -> Result<()> {
        self.verb("getpageframeinfo3", domid, |host| host.types.query(&host.call, domid, gfns, types))
    }

    fn map(&self, domid: Domid, gfns: &[Gfn], access: Access) -> Result<ForeignPages> {
        self.verb("foreign mapping", domid, |host| host.foreign.map(domid, gfns, access))
    }

    fn hvm_context(&self, domid: Domid) -> Result<Vec<u8>> {
        self.control_verb("gethvmcontext", domid, |control| control.hvm_context(domid))
    }

    fn set_hvm_context(&self, domid: Domid, context: &[u8]) -> Result<()> {
        self.control_verb("sethvmcontext", domid, |control| control.set_hvm_context(domid, context))
    }

    fn hvm_param(&self, domid: Domid, index: u32) -> Result<u64> {
        self.control_verb("get_param", domid, |control| control.hvm_param(domid, index))
    }

    fn set_hvm_param(&self, domid: Domid, index: u32, value: u64) -> Result<()> {
        self.control_verb("set_param", domid, |control| control.set_hvm_param(domid, index, value))
    }

    fn tsc_info(&self, domid: Domid) -> Result<TscInfo> {
        self.control_verb("gettscinfo", domid, |control| control.tsc_info(domid))
    }

    fn set_tsc_info(&self, domid: Domid, tsc: &TscInfo) -> Result<()> {
        self.control_verb("settscinfo", domid, |control| control.set_tsc_info(domid, tsc))
    }

    fn cpu_policy(&self, domid: Domid) -> Result<CpuPolicy> {
        self.verb("get_cpu_policy", domid, |host| cpu_policy::get(&host.call, domid))
    }

    fn set_cpu_policy(&self, domid: Domid, policy: &CpuPolicy) -> Result<()> {
        self.verb("set_cpu_policy", domid, |host| cpu_policy::set(&host.call, domid, policy))
    }

    fn populate(&self, domid: Domid, frames: &mut [Gfn], extent: Extent) -> Result<usize> {
        self.control_verb("populate_physmap", domid, |control| control.populate(domid, frames, extent))
    }

    fn depopulate(&self, domid: Domid, gfns: &[Gfn]) -> Result<()> {
        self.control_verb("decrease_reservation", domid, |control| {
            let taken = control.depopulate(domid, gfns)?;
            // Xen stops at the first frame without a page and says how far it came.
            if taken == gfns.len() { Ok(()) } else { Err(Errno(libc::EINVAL)) }
        })
    }

    fn seed_grants(&self, domid: Domid, grants: &[ReservedGrant]) -> Result<()> {
        self.verb("seeding the grant table", domid, |host| grants::seed(&host.foreign, domid, grants))
    }
}
