// SPDX-License-Identifier: GPL-3.0-or-later
//! What the fields of records are made of, and how each kind looks in Python.

use std::time::Duration;

use pyo3::{
    IntoPyObjectExt,
    exceptions::{PyTypeError, PyValueError},
    prelude::*,
    types::PyList,
};
use xenmig_engine::Phase;

use crate::{
    args::{self, shown},
    stats::PHASES,
};

/// One field of a record.
pub(crate) trait Field: Sized {
    /// Returns it as its getter does.
    fn show<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>>;

    /// Returns it as `to_dict` does: the same, but records as dictionaries.
    fn plain<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        self.show(py)
    }

    /// Takes what either of the two gave.
    ///
    /// # Errors
    ///
    /// `TypeError` or `ValueError` for anything else.
    fn take(value: &Bound<'_, PyAny>) -> PyResult<Self>;
}

/// Integers: what does not fit is a `ValueError`.
macro_rules! integers {
    ($($type:ty: $range:literal),*) => {$(
        impl Field for $type {
            fn show<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
                self.into_bound_py_any(py)
            }

            fn take(value: &Bound<'_, PyAny>) -> PyResult<Self> {
                args::integer(value.as_borrowed(), concat!("give 0 to ", $range))
            }
        }
    )*};
}

integers!(u16: "2**16 - 1", u32: "2**32 - 1", u64: "2**64 - 1");

impl Field for bool {
    fn show<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        self.into_bound_py_any(py)
    }

    fn take(value: &Bound<'_, PyAny>) -> PyResult<Self> {
        value.extract().map_err(|_| not_a("a bool", value))
    }
}

/// A measured quantity: a time, a rate.
impl Field for f64 {
    fn show<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        self.into_bound_py_any(py)
    }

    fn take(value: &Bound<'_, PyAny>) -> PyResult<Self> {
        let number = args::real(value)?;
        if number >= 0.0 {
            Ok(number)
        } else {
            Err(PyValueError::new_err(format!("{number:?} is out of range: give 0 or more")))
        }
    }
}

/// Seconds in Python.
impl Field for Duration {
    fn show<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        self.as_secs_f64().show(py)
    }

    fn take(value: &Bound<'_, PyAny>) -> PyResult<Self> {
        args::seconds("the time", f64::take(value)?)
    }
}

impl Field for String {
    fn show<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        self.into_bound_py_any(py)
    }

    fn take(value: &Bound<'_, PyAny>) -> PyResult<Self> {
        value.extract()
    }
}

impl Field for Phase {
    fn show<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        self.name().into_bound_py_any(py)
    }

    fn take(value: &Bound<'_, PyAny>) -> PyResult<Self> {
        args::choice("the phase", &String::take(value)?, &PHASES).map_err(PyValueError::new_err)
    }
}

impl<T: Field> Field for Option<T> {
    fn show<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        self.as_ref().map_or_else(|| Ok(py.None().into_bound(py)), |value| value.show(py))
    }

    fn plain<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        self.as_ref().map_or_else(|| Ok(py.None().into_bound(py)), |value| value.plain(py))
    }

    fn take(value: &Bound<'_, PyAny>) -> PyResult<Self> {
        if value.is_none() { Ok(None) } else { T::take(value).map(Some) }
    }
}

impl<T: Field> Field for Vec<T> {
    fn show<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        let items: Vec<_> = self.iter().map(|item| item.show(py)).collect::<PyResult<_>>()?;
        Ok(PyList::new(py, items)?.into_any())
    }

    fn plain<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        let items: Vec<_> = self.iter().map(|item| item.plain(py)).collect::<PyResult<_>>()?;
        Ok(PyList::new(py, items)?.into_any())
    }

    fn take(value: &Bound<'_, PyAny>) -> PyResult<Self> {
        let list = value.cast::<PyList>().map_err(|_| not_a("a list", value))?;
        list.iter().map(|item| T::take(&item)).collect()
    }
}

/// A version, major and minor; a list will do, for JSON knows no tuples.
impl Field for (u32, u32) {
    fn show<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        (*self).into_bound_py_any(py)
    }

    fn take(value: &Bound<'_, PyAny>) -> PyResult<Self> {
        match value.extract::<Vec<Bound<'_, PyAny>>>()?.as_slice() {
            [major, minor] => Ok((u32::take(major)?, u32::take(minor)?)),
            _ => Err(PyValueError::new_err(format!("{} is not a pair", shown(value)))),
        }
    }
}

fn not_a(what: &str, value: &Bound<'_, PyAny>) -> PyErr {
    PyTypeError::new_err(format!("{} is not {what}", shown(value)))
}
