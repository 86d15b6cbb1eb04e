// SPDX-License-Identifier: GPL-3.0-or-later
//! With `FAKEXEN_TRACE` in the environment, each call is printed to standard error as one line.

use std::{fmt::Arguments, io::Write, sync::LazyLock};

static ON: LazyLock<bool> =
    LazyLock::new(|| std::env::var_os("FAKEXEN_TRACE").is_some_and(|value| value != "0"));

/// Says whether calls are printed.
pub(crate) fn is_on() -> bool {
    *ON
}

/// Prints a line. What cannot be printed is lost.
pub(crate) fn print(line: Arguments<'_>) {
    let line = format!("fakexen: {line}\n");
    let _ = std::io::stderr().write_all(line.as_bytes());
}

/// Prints a line if tracing is on.
macro_rules! trace {
    ($($arg:tt)*) => {
        if $crate::trace::is_on() {
            $crate::trace::print(format_args!($($arg)*));
        }
    };
}
pub(crate) use trace;
