// SPDX-License-Identifier: GPL-3.0-or-later
//! PV guests by parameters: what `SimHost.create` takes as `pv`. What the numbers may be is checked by the simulated host
//! itself.

use pyo3::{exceptions::PyValueError, prelude::*, types::PyDict};
use xenmig_sim::{Churn, P2mForm, PvConfig};
use xenmig_types::pv::GuestWidth;

use super::workload::Params;
use crate::args::{Count, choice};

const FORMS: [(&str, P2mForm); 2] = [("list", P2mForm::List { first_slot: 0 }), ("tree", P2mForm::Tree)];
const KEYS: &[&str] =
    &["width", "p2m", "spare_pfns", "offline_vcpus", "ptes_per_s", "tables_per_s", "balloons_per_s"];

/// Makes the configuration of a PV guest; no parameters, no PV guest.
pub(super) fn read(params: Option<&Bound<'_, PyDict>>) -> PyResult<Option<PvConfig>> {
    let Some(given) = params else { return Ok(None) };
    let params = Params::new("a PV guest", Some(given), KEYS)?;
    let usual = PvConfig::default();
    let width = match params.get_or_none::<Count>("width")? {
        None => usual.width,
        Some(Count(32)) => GuestWidth::Bits32,
        Some(Count(64)) => GuestWidth::Bits64,
        Some(Count(bits)) => {
            return Err(PyValueError::new_err(format!("width is {bits}: a PV guest has 32 or 64 bits")));
        }
    };
    let form = params.get_or_none::<String>("p2m")?;
    let form = form.map(|form| choice("p2m", &form, &FORMS)).transpose().map_err(PyValueError::new_err)?;
    let offline = params.get_or_none::<Vec<Count>>("offline_vcpus")?.unwrap_or_default();
    let rate = |key| Ok::<_, PyErr>(params.get_or_none(key)?.unwrap_or(0.0));
    Ok(Some(PvConfig {
        width,
        p2m: form.unwrap_or(usual.p2m),
        spare_pfns: params.get_or_none::<Count>("spare_pfns")?.map_or(usual.spare_pfns, |pfns| pfns.0),
        offline_vcpus: offline.into_iter().map(|vcpu| u32::try_from(vcpu.0).unwrap_or(u32::MAX)).collect(),
        churn: Churn {
            ptes_per_s: rate("ptes_per_s")?,
            tables_per_s: rate("tables_per_s")?,
            balloons_per_s: rate("balloons_per_s")?,
        },
        ..usual
    }))
}
