// SPDX-License-Identifier: GPL-3.0-or-later
//! The answers a policy may give, as `xenmig.policy` defines them: the members of `Decision`, and `Verdict`, which is
//! a decision with its reason. The classes are Python's; here they are only recognised.

use pyo3::{
    intern,
    prelude::*,
    sync::PyOnceLock,
    types::{PyString, PyTuple, PyType},
};
use xenmig_engine::{Decision, Verdict};

/// The objects that count as answers, looked up once per process.
#[derive(Debug)]
pub(crate) struct Answers {
    decisions: [(Py<PyAny>, Decision); 3],
    verdict: Py<PyType>,
}

static ANSWERS: PyOnceLock<Answers> = PyOnceLock::new();

impl Answers {
    /// Looks the classes up in `xenmig.policy`.
    pub(crate) fn get(py: Python<'_>) -> PyResult<&'static Self> {
        ANSWERS.get_or_try_init(py, || {
            let module = py.import(intern!(py, "xenmig.policy"))?;
            let class = module.getattr(intern!(py, "Decision"))?;
            let member = |name: &Bound<'_, PyString>| class.getattr(name).map(Bound::unbind);
            Ok(Self {
                decisions: [
                    (member(intern!(py, "CONTINUE"))?, Decision::Continue),
                    (member(intern!(py, "STOP_AND_COPY"))?, Decision::StopAndCopy),
                    (member(intern!(py, "ABORT"))?, Decision::Abort),
                ],
                verdict: module.getattr(intern!(py, "Verdict"))?.cast_into::<PyType>()?.unbind(),
            })
        })
    }

    /// Reads an answer; `None` if it is none. A member is recognised by identity, so that no number, not even the
    /// right one, is mistaken for a decision.
    pub(crate) fn read(&self, answer: &Bound<'_, PyAny>) -> PyResult<Option<Verdict>> {
        if let Some(decision) = self.decision(answer) {
            return Ok(Some(decision.into()));
        }
        if !answer.is_instance(self.verdict.bind(answer.py()))? {
            return Ok(None);
        }
        let Ok(verdict) = answer.cast::<PyTuple>() else { return Ok(None) };
        let (Some(decision), Ok(reason)) = (self.decision(&verdict.get_item(0)?), verdict.get_item(1)) else {
            return Ok(None);
        };
        let Ok(reason) = reason.cast::<PyString>() else { return Ok(None) };
        let reason = Some(reason.to_string_lossy().into_owned()).filter(|reason| !reason.is_empty());
        Ok(Some(Verdict { decision, reason }))
    }

    fn decision(&self, answer: &Bound<'_, PyAny>) -> Option<Decision> {
        self.decisions.iter().find(|(member, _)| answer.is(member)).map(|(_, decision)| *decision)
    }
}
