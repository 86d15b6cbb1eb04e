// SPDX-License-Identifier: GPL-3.0-or-later
//! A policy written in Python, asked by the engine: one attach, one object, one call for each consult.

use pyo3::{prelude::*, types::PyType};
use xenmig_engine::{CallerError, Policy, PrecopyStats, Verdict};

use crate::{args::shown, decision::Answers, detach::attached, errors, stats::PyPrecopyStats};

/// A Python callable that takes the statistics and returns a decision.
#[derive(Debug)]
pub(crate) struct PyPolicy {
    policy: Py<PyAny>,
    answers: &'static Answers,
}

impl PyPolicy {
    /// Takes anything that can be called, but for a class: an instance of it was meant.
    pub(crate) fn new(policy: &Bound<'_, PyAny>) -> PyResult<Self> {
        let py = policy.py();
        if policy.is_instance_of::<PyType>() {
            let message = format!("the policy is {}, a class: give an instance of it", shown(policy));
            return Err(errors::policy_error(py, &message));
        }
        if !policy.is_callable() {
            let message = format!("the policy is {}, which cannot be called", shown(policy));
            return Err(errors::policy_error(py, &message));
        }
        Ok(Self { policy: policy.clone().unbind(), answers: Answers::get(py)? })
    }

    fn ask(&self, py: Python<'_>, stats: &PrecopyStats) -> PyResult<Verdict> {
        let policy = self.policy.bind(py);
        let answer = policy.call1((PyPrecopyStats::from(stats),))?;
        match self.answers.read(&answer)? {
            Some(verdict) => Ok(verdict),
            None => Err(no_answer(policy, &answer)),
        }
    }
}

impl Policy for PyPolicy {
    fn decide(&mut self, stats: &PrecopyStats) -> Result<Verdict, CallerError> {
        attached(|py| self.ask(py, stats))
    }
}

fn no_answer(policy: &Bound<'_, PyAny>, answer: &Bound<'_, PyAny>) -> PyErr {
    let hint = if answer.is_none() {
        " (did it forget to return?)"
    } else if answer.hasattr("__await__").unwrap_or(false) {
        " (a policy cannot be a coroutine)"
    } else {
        ""
    };
    let message = format!(
        "the policy {} answered {}{hint}: answer Decision.CONTINUE, Decision.STOP_AND_COPY or Decision.ABORT, or one \
         of them with .because(\"reason\")",
        shown(policy),
        shown(answer),
    );
    errors::policy_error(policy.py(), &message)
}
