// SPDX-License-Identifier: GPL-3.0-or-later
//! The hosts that `save` and `restore` take: the simulated one, and the real Xen.

use std::sync::Arc;

use pyo3::{exceptions::PyTypeError, prelude::*};
use xenmig_hypervisor::Hypervisor;

use crate::{sim::PySimHost, xen::PyXenHost};

/// Any host, for the engine.
pub(crate) struct AnyHost(pub(crate) Arc<dyn Hypervisor>);

impl<'a, 'py> FromPyObject<'a, 'py> for AnyHost {
    type Error = PyErr;

    fn extract(object: Borrowed<'a, 'py, PyAny>) -> PyResult<Self> {
        if let Ok(host) = object.cast::<PySimHost>() {
            return Ok(Self(Arc::new(host.get().hypervisor())));
        }
        if let Ok(host) = object.cast::<PyXenHost>() {
            return Ok(Self(host.get().hypervisor()?));
        }
        let given = object.get_type().name()?;
        Err(PyTypeError::new_err(format!("host is of type {given}: give a SimHost or a XenHost")))
    }
}
