// SPDX-License-Identifier: GPL-3.0-or-later
//! Classes that only carry results: one list of fields makes the getters, `to_dict` and `__repr__`, so that none of
//! the three can forget a field.

use pyo3::{
    prelude::*,
    types::{PyDict, PyList, PyType},
};

use crate::stats::PyRoundStats;

/// Makes the methods of a class `$class(inner)` from its fields. Each is `name: type => |inner| value`; more methods
/// may follow in braces.
macro_rules! record {
    (
        $class:ident;
        $($(#[$doc:meta])* $field:ident: $type:ty => |$inner:ident| $value:expr;)*
        $({ $($more:tt)* })?
    ) => {
        #[pymethods]
        impl $class {
            $(
                $(#[$doc])*
                #[getter]
                fn $field(&self) -> $type {
                    let $inner = &self.0;
                    $value
                }
            )*

            /// Returns every field under its name; made of plain dictionaries, lists, strings and numbers.
            pub(crate) fn to_dict<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyDict>> {
                let dict = PyDict::new(py);
                $(
                    let value = $crate::record::plain(self.$field().into_bound_py_any(py)?)?;
                    dict.set_item(pyo3::intern!(py, stringify!($field)), value)?;
                )*
                Ok(dict)
            }

            fn __repr__(&self, py: Python<'_>) -> PyResult<String> {
                $crate::record::repr(&py.get_type::<Self>(), &self.to_dict(py)?)
            }

            $($($more)*)?
        }
    };
}

pub(crate) use record;

/// Turns a record within a record into its dictionary, and a list of them into a list of dictionaries.
pub(crate) fn plain(value: Bound<'_, PyAny>) -> PyResult<Bound<'_, PyAny>> {
    if let Ok(list) = value.cast::<PyList>() {
        let items: Vec<_> = list.iter().map(plain).collect::<PyResult<_>>()?;
        return Ok(PyList::new(value.py(), items)?.into_any());
    }
    match value.cast::<PyRoundStats>() {
        Ok(round) => Ok(round.get().to_dict(value.py())?.into_any()),
        Err(_) => Ok(value),
    }
}

/// Returns `Class(field=value, ...)`; a list of records is shown by its length.
pub(crate) fn repr(class: &Bound<'_, PyType>, fields: &Bound<'_, PyDict>) -> PyResult<String> {
    let mut shown = Vec::with_capacity(fields.len());
    for (name, value) in fields {
        let value = match value.cast::<PyList>() {
            Ok(list) if list.iter().all(|item| item.is_instance_of::<PyDict>()) && !list.is_empty() => {
                format!("<{} records>", list.len())
            }
            _ => value.repr()?.to_string(),
        };
        shown.push(format!("{name}={value}"));
    }
    Ok(format!("{}({})", class.name()?, shown.join(", ")))
}
