// SPDX-License-Identifier: GPL-3.0-or-later
//! Workloads by name and parameters: what `SimHost.create` and `SimDomain.set_workload` take.
//!
//! | workload | parameters |
//! | --- | --- |
//! | `idle` | none |
//! | `uniform` | `pages_per_s` |
//! | `hotcold` | `hot_pages`, `hot_pages_per_s`, `cold_pages_per_s` |
//! | `phased` | `phases`: dictionaries of `seconds`, `workload` and its `params` |
//! | `scripted` | `script`: tuples of when, which call of it, action, pfn |
//!
//! What the numbers may be is checked by the simulated host itself.

use pyo3::{
    exceptions::{PyTypeError, PyValueError},
    prelude::*,
    types::PyDict,
};
use xenmig_sim::{Action, Phase, Script, When, Workload};
use xenmig_types::Pfn;

use crate::args::{Count, Real, choice, quoted, shown};

#[derive(Clone, Copy)]
enum Kind {
    Idle,
    Uniform,
    HotCold,
    Phased,
    Scripted,
}

const KINDS: [(&str, Kind); 5] = [
    ("idle", Kind::Idle),
    ("uniform", Kind::Uniform),
    ("hotcold", Kind::HotCold),
    ("phased", Kind::Phased),
    ("scripted", Kind::Scripted),
];

/// Makes the moment of the n-th call.
type Moment = fn(u64) -> When;

const MOMENTS: [(&str, Moment); 6] = [
    ("clean", When::BeforeClean),
    ("peek", When::BeforePeek),
    ("types", When::BeforeTypes),
    ("map", When::BeforeMap),
    ("after_map", When::AfterMap),
    ("suspend", |_| When::AtSuspend),
];

/// Makes the action on a page.
type Deed = fn(Pfn) -> Action;

const ACTIONS: [(&str, Deed); 3] =
    [("write", Action::Write), ("balloon_out", Action::BalloonOut), ("balloon_in", Action::BalloonIn)];

/// Makes a workload.
pub(super) fn read(workload: &str, params: Option<&Bound<'_, PyDict>>) -> PyResult<Workload> {
    let kind = choice("workload", workload, &KINDS).map_err(PyValueError::new_err)?;
    let what = format!("workload '{workload}'");
    let params = |keys| Params::new(&what, params, keys);
    Ok(match kind {
        Kind::Idle => {
            params(&[])?;
            Workload::Idle
        }
        Kind::Uniform => {
            Workload::Uniform { pages_per_s: params(&["pages_per_s"])?.get::<Real>("pages_per_s")?.0 }
        }
        Kind::HotCold => {
            let params = params(&["hot_pages", "hot_pages_per_s", "cold_pages_per_s"])?;
            Workload::HotCold {
                hot_pages: params.get::<Count>("hot_pages")?.0,
                hot_pages_per_s: params.get::<Real>("hot_pages_per_s")?.0,
                cold_pages_per_s: params.get::<Real>("cold_pages_per_s")?.0,
            }
        }
        Kind::Phased => {
            let phases: Bound<'_, PyAny> = params(&["phases"])?.get("phases")?;
            Workload::Phased(phases.try_iter()?.map(|phase| read_phase(&phase?)).collect::<PyResult<_>>()?)
        }
        Kind::Scripted => {
            let script: Bound<'_, PyAny> = params(&["script"])?.get("script")?;
            let steps = script.try_iter()?.map(|step| read_step(&step?));
            Workload::Scripted(steps.collect::<PyResult<Script>>()?)
        }
    })
}

fn read_phase(phase: &Bound<'_, PyAny>) -> PyResult<Phase> {
    let phase = Params::new("a phase", Some(phase.cast()?), &["seconds", "workload", "params"])?;
    let params: Option<Bound<'_, PyDict>> = phase.get_or_none("params")?;
    let workload: String = phase.get("workload")?;
    Ok(Phase { seconds: phase.get::<Real>("seconds")?.0, workload: read(&workload, params.as_ref())? })
}

fn read_step(step: &Bound<'_, PyAny>) -> PyResult<(When, Action)> {
    let parts: Vec<_> = step.try_iter()?.collect::<PyResult<_>>()?;
    let [when, nth, action, pfn] = parts.as_slice() else {
        let message = format!("a step of a script is when, nth, action, pfn; not {}", shown(step));
        return Err(PyValueError::new_err(message));
    };
    let nth = nth.extract::<Count>()?.0;
    let when_name: String = when.extract()?;
    let when = choice("when", &when_name, &MOMENTS).map_err(PyValueError::new_err)?(nth);
    if when == When::AtSuspend && nth != 0 {
        return Err(PyValueError::new_err("a script acts at every suspension: nth must be 0"));
    }
    let action_name: String = action.extract()?;
    let action = choice("action", &action_name, &ACTIONS).map_err(PyValueError::new_err)?;
    Ok((when, action(Pfn(pfn.extract::<Count>()?.0))))
}

/// A dictionary with known keys.
pub(super) struct Params<'a, 'py> {
    what: &'a str,
    given: Option<&'a Bound<'py, PyDict>>,
    keys: &'static [&'static str],
}

impl<'a, 'py> Params<'a, 'py> {
    /// Takes a dictionary that has no other keys than `keys`.
    pub(super) fn new(
        what: &'a str,
        given: Option<&'a Bound<'py, PyDict>>,
        keys: &'static [&'static str],
    ) -> PyResult<Self> {
        let params = Self { what, given, keys };
        for key in given.into_iter().flat_map(|given| given.keys()) {
            if !key.extract::<&str>().is_ok_and(|key| keys.contains(&key)) {
                return Err(params.wrong(&format!("has no parameter {}", shown(&key))));
            }
        }
        Ok(params)
    }

    fn get<T>(&self, key: &str) -> PyResult<T>
    where
        T: for<'b> FromPyObject<'b, 'py, Error: Into<PyErr>>,
    {
        self.get_or_none(key)?.ok_or_else(|| self.wrong(&format!("needs the parameter '{key}'")))
    }

    pub(super) fn get_or_none<T>(&self, key: &str) -> PyResult<Option<T>>
    where
        T: for<'b> FromPyObject<'b, 'py, Error: Into<PyErr>>,
    {
        let value = self.given.map(|given| given.get_item(key)).transpose()?.flatten();
        let Some(value) = value.filter(|value| !value.is_none()) else { return Ok(None) };
        let py = value.py();
        value.extract::<T>().map(Some).map_err(|error| {
            let error: PyErr = error.into();
            if error.is_instance_of::<PyTypeError>(py) {
                PyTypeError::new_err(format!("{}, parameter '{key}': {}", self.what, error.value(py)))
            } else {
                error
            }
        })
    }

    fn wrong(&self, complaint: &str) -> PyErr {
        let takes = if self.keys.is_empty() { "none".to_owned() } else { quoted(self.keys.iter().copied()) };
        PyValueError::new_err(format!("{} {complaint}; it takes {takes}", self.what))
    }
}
