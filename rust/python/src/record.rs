// SPDX-License-Identifier: GPL-3.0-or-later
//! Results and statistics as Python values: one list of fields makes the class, its getters, `to_dict`, `repr`, `==`,
//! `hash` and pickling, so none of them can miss a field.

use pyo3::{
    exceptions::{PyTypeError, PyValueError},
    prelude::*,
    types::{PyDict, PyList, PyTuple},
};

use crate::{args::shown, field::Field};

/// Makes the class `$class`, called `$name` in Python, which holds copies of what a `$source` says. Each field is
/// `name: type => |source| value;`, more methods may follow in braces.
///
/// A class whose sources can also be made from its fields starts with `|| start`, a source to fill in, and each `value`
/// is then a place in it; what follows from these fields alone stands in `@derived { }`.
macro_rules! record {
    (
        $(#[$class_doc:meta])*
        $class:ident = $name:tt of $source:ty $(, || $start:expr)?;
        $($(#[$doc:meta])* $field:ident: $type:ty => |$from:ident| $value:expr;)*
        $(@derived { $($(#[$derived_doc:meta])* $derived:ident: $derived_type:ty => |$of:ident| $result:expr;)* })?
        $({ $($more:tt)* })?
    ) => {
        $(#[$class_doc])*
        #[pyclass(frozen, eq, weakref, module = "xenmig._native", name = $name)]
        #[derive(Clone, Debug, PartialEq)]
        pub(crate) struct $class {
            $($field: $type,)*
            $($($derived: $derived_type,)*)?
        }

        impl From<&$source> for $class {
            fn from(source: &$source) -> Self {
                Self {
                    $($field: {
                        let $from = source;
                        $value
                    },)*
                    $($($derived: {
                        let $of = source;
                        $result
                    },)*)?
                }
            }
        }

        $crate::record::source! {
            $class, $source, $(|| $start)?; [$($field => |$from| $value;)*] [$($($derived)*)?]
        }

        impl $crate::field::Field for $class {
            fn show<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
                pyo3::IntoPyObjectExt::into_bound_py_any(self.clone(), py)
            }

            fn plain<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
                Ok(self.to_dict(py)?.into_any())
            }

            fn take(value: &Bound<'_, PyAny>) -> PyResult<Self> {
                match value.cast::<Self>() {
                    Ok(record) => Ok(record.get().clone()),
                    Err(_) => Self::_from_dict(&value.py().get_type::<Self>(), value.cast::<PyDict>()?),
                }
            }
        }

        #[pymethods]
        impl $class {
            $(
                $(#[$doc])*
                #[getter]
                fn $field<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
                    $crate::field::Field::show(&self.$field, py)
                }
            )*

            $($(
                $(#[$derived_doc])*
                #[getter]
                fn $derived<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
                    $crate::field::Field::show(&self.$derived, py)
                }
            )*)?

            /// Returns every field under its name; made of plain dictionaries, lists, strings and numbers.
            pub(crate) fn to_dict<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyDict>> {
                let dict = PyDict::new(py);
                $(dict.set_item(pyo3::intern!(py, stringify!($field)), self.$field.plain(py)?)?;)*
                $($(dict.set_item(pyo3::intern!(py, stringify!($derived)), self.$derived.plain(py)?)?;)*)?
                Ok(dict)
            }

            /// Makes the record that ``to_dict`` gave this of; for pickling.
            #[classmethod]
            pub(crate) fn _from_dict(_class: &Bound<'_, PyType>, fields: &Bound<'_, PyDict>) -> PyResult<Self> {
                let mut fields = $crate::record::Fields::new($name, fields);
                let record = Self {
                    $($field: fields.take(stringify!($field))?,)*
                    $($($derived: fields.take(stringify!($derived))?,)*)?
                };
                fields.all_taken()?;
                Ok(record)
            }

            fn __reduce__<'py>(&self, py: Python<'py>) -> PyResult<(Bound<'py, PyAny>, (Bound<'py, PyDict>,))> {
                let make = py.get_type::<Self>().getattr(pyo3::intern!(py, "_from_dict"))?;
                Ok((make, (self.to_dict(py)?,)))
            }

            fn __repr__(&self, py: Python<'_>) -> PyResult<String> {
                $crate::record::repr($name, &self.to_dict(py)?)
            }

            fn __hash__(&self, py: Python<'_>) -> PyResult<isize> {
                $crate::record::hashable(self.to_dict(py)?.into_any())?.hash()
            }

            $($($more)*)?
        }
    };
}

/// Makes the way back from a record to its source, where there is one.
macro_rules! source {
    ($class:ident, $source:ty, ; $($rest:tt)*) => {};
    (
        $class:ident, $source:ty, || $start:expr;
        [$($field:ident => |$from:ident| $value:expr;)*] [$($derived:ident)*]
    ) => {
        impl $class {
            /// The fields that follow from the others.
            const DERIVED: &[&str] = &[$(stringify!($derived)),*];

            /// Returns a source that says the same; derived fields are left out.
            fn source(&self) -> $source {
                let mut source = $start;
                $({
                    let $from = &mut source;
                    $value = self.$field;
                })*
                source
            }
        }
    };
}

pub(crate) use {record, source};

/// The fields of a record that is being made from a dictionary.
#[derive(Debug)]
pub(crate) struct Fields<'a, 'py> {
    class: &'static str,
    given: &'a Bound<'py, PyDict>,
    taken: Vec<&'static str>,
}

impl<'a, 'py> Fields<'a, 'py> {
    /// Starts with all fields of a dictionary.
    pub(crate) fn new(class: &'static str, given: &'a Bound<'py, PyDict>) -> Self {
        Self { class, given, taken: Vec::with_capacity(given.len()) }
    }

    /// Takes one field. What is wrong with it is a `TypeError` or a `ValueError` that names it.
    pub(crate) fn take<T: Field>(&mut self, name: &'static str) -> PyResult<T> {
        let Some(value) = self.given.get_item(name)? else {
            return Err(PyTypeError::new_err(format!("{} needs the field '{name}'", self.class)));
        };
        self.taken.push(name);
        let py = value.py();
        T::take(&value).map_err(|error| {
            let message = format!("{name}: {}", error.value(py));
            if error.is_instance_of::<PyTypeError>(py) {
                PyTypeError::new_err(message)
            } else if error.is_instance_of::<PyValueError>(py) {
                PyValueError::new_err(message)
            } else {
                error
            }
        })
    }

    /// Checks that there are no others.
    pub(crate) fn all_taken(&self) -> PyResult<()> {
        let known =
            |name: &Bound<'_, PyAny>| name.extract::<&str>().is_ok_and(|name| self.taken.contains(&name));
        match self.given.keys().iter().find(|name| !known(name)) {
            None => Ok(()),
            Some(name) => Err(PyTypeError::new_err(format!("{} has no field {}", self.class, shown(&name)))),
        }
    }
}

/// Returns `Class(field=value, ...)`; a list of records is shown by its length.
pub(crate) fn repr(class: &str, fields: &Bound<'_, PyDict>) -> PyResult<String> {
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
    Ok(format!("{class}({})", shown.join(", ")))
}

/// Turns lists, and the values of dictionaries, into tuples.
pub(crate) fn hashable(value: Bound<'_, PyAny>) -> PyResult<Bound<'_, PyAny>> {
    let items = if let Ok(list) = value.cast::<PyList>() {
        list.clone()
    } else if let Ok(dict) = value.cast::<PyDict>() {
        dict.values()
    } else {
        return Ok(value);
    };
    let items: Vec<_> = items.iter().map(hashable).collect::<PyResult<_>>()?;
    Ok(PyTuple::new(value.py(), items)?.into_any())
}
