// SPDX-License-Identifier: GPL-3.0-or-later
//! Arguments as Python gives them, checked on their way in: numbers without a sign, domids, descriptors, durations,
//! names out of a list. A number that does not fit is a `ValueError` that says which ones do. `True` and `False` are not
//! taken for 1 and 0.

use std::{fmt, time::Duration};

use pyo3::{
    exceptions::{PyOverflowError, PyTypeError, PyValueError},
    prelude::*,
    types::PyBool,
};
use xenmig_types::Domid;

/// The longest duration that is taken: some 31 years. What is longer is a mistake, and could overflow a clock.
const MAX_SECONDS: f64 = 1e9;

/// Takes a number of pages, bytes or calls, or a frame number. For `from_py_with`, so that a default value is shown in
/// the signature as the number that it is.
pub(crate) fn count(value: &Bound<'_, PyAny>) -> PyResult<u64> {
    integer(value.as_borrowed(), "give 0 to 2**64 - 1")
}

/// Such a number where it may be absent, or within something else.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Count(pub(crate) u64);

impl<'py> FromPyObject<'_, 'py> for Count {
    type Error = PyErr;

    fn extract(value: Borrowed<'_, 'py, PyAny>) -> PyResult<Self> {
        count(&value).map(Self)
    }
}

/// A domid, of a domain that may or may not exist.
#[derive(Clone, Copy, Debug)]
pub(crate) struct DomidArg(pub(crate) Domid);

impl<'py> FromPyObject<'_, 'py> for DomidArg {
    type Error = PyErr;

    fn extract(value: Borrowed<'_, 'py, PyAny>) -> PyResult<Self> {
        let number: i64 = integer(value, "domids are less than 0x7ff0")?;
        Domid::new(number).map(Self).map_err(|error| PyValueError::new_err(error.to_string()))
    }
}

/// An event channel's port, or a number that is meant to be one.
pub(crate) fn evtchn(value: &Bound<'_, PyAny>) -> PyResult<Option<u32>> {
    if value.is_none() {
        return Ok(None);
    }
    integer(value.as_borrowed(), "ports of event channels are less than 2**32").map(Some)
}

/// A file descriptor, or a number that is meant to be one.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Fd(i64);

impl Fd {
    /// Returns the number as the operating system takes it. What is too large for that is no descriptor, like -1.
    pub(crate) fn raw(self) -> i32 {
        i32::try_from(self.0).unwrap_or(-1)
    }
}

impl fmt::Display for Fd {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "descriptor {}", self.0)
    }
}

impl<'py> FromPyObject<'_, 'py> for Fd {
    type Error = PyErr;

    fn extract(value: Borrowed<'_, 'py, PyAny>) -> PyResult<Self> {
        integer(value, "descriptors are less than 2**31").map(Self)
    }
}

/// Takes an integer that fits into `T`.
pub(crate) fn integer<'a, 'py, T>(value: Borrowed<'a, 'py, PyAny>, which_fit: &str) -> PyResult<T>
where
    T: FromPyObject<'a, 'py, Error = PyErr>,
{
    no_bool(&value, "an integer")?;
    value.extract::<T>().map_err(|error| {
        if error.is_instance_of::<PyOverflowError>(value.py()) {
            PyValueError::new_err(format!("{} is out of range: {which_fit}", shown(&value)))
        } else {
            error
        }
    })
}

/// Takes a real number. For `from_py_with`, as [`count`] is.
pub(crate) fn real(value: &Bound<'_, PyAny>) -> PyResult<f64> {
    no_bool(value, "a number")?;
    value.extract().map_err(|error: PyErr| {
        if error.is_instance_of::<PyOverflowError>(value.py()) {
            PyValueError::new_err(format!("{} is out of range", shown(value)))
        } else {
            error
        }
    })
}

/// Such a number where it may be absent, or within something else.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Real(pub(crate) f64);

impl<'py> FromPyObject<'_, 'py> for Real {
    type Error = PyErr;

    fn extract(value: Borrowed<'_, 'py, PyAny>) -> PyResult<Self> {
        real(&value).map(Self)
    }
}

fn no_bool(value: &Bound<'_, PyAny>, wanted: &str) -> PyResult<()> {
    if value.is_instance_of::<PyBool>() {
        Err(PyTypeError::new_err(format!("{} is a bool: give {wanted}", shown(value))))
    } else {
        Ok(())
    }
}

/// Takes a duration in seconds.
pub(crate) fn seconds(name: &str, value: f64) -> PyResult<Duration> {
    if (0.0..=MAX_SECONDS).contains(&value) {
        Ok(Duration::from_secs_f64(value))
    } else {
        Err(PyValueError::new_err(format!("{name} is {value:?}: give 0 to {MAX_SECONDS:e} seconds")))
    }
}

/// Takes one name out of a list.
///
/// # Errors
///
/// What is wrong, with the names that would do.
pub(crate) fn choice<T: Copy>(name: &str, value: &str, choices: &[(&str, T)]) -> Result<T, String> {
    choices.iter().find(|(known, _)| *known == value).map(|(_, choice)| *choice).ok_or_else(|| {
        format!("{name} is '{value}': give one of {}", quoted(choices.iter().map(|(known, _)| *known)))
    })
}

/// Returns names in quotes, as a list.
pub(crate) fn quoted<'a>(names: impl IntoIterator<Item = &'a str>) -> String {
    let names: Vec<_> = names.into_iter().map(|name| format!("'{name}'")).collect();
    names.join(", ")
}

/// Takes something that can be called, before it is needed in the middle of a run.
pub(crate) fn callable(name: &str, value: &Bound<'_, PyAny>) -> PyResult<()> {
    if value.is_callable() {
        Ok(())
    } else {
        Err(PyTypeError::new_err(format!("{name} is {}, which cannot be called", shown(value))))
    }
}

/// Returns an object's `repr`, cut short; its type's name if it has none.
pub(crate) fn shown(value: &Bound<'_, PyAny>) -> String {
    const LONGEST: usize = 120;
    let Ok(repr) = value.repr() else {
        let name = value.get_type().name().map_or_else(|_| "an".to_owned(), |name| name.to_string());
        return format!("<{name} object>");
    };
    let repr = repr.to_string_lossy();
    if repr.chars().count() <= LONGEST {
        repr.into_owned()
    } else {
        repr.chars().take(LONGEST).chain("...".chars()).collect()
    }
}
