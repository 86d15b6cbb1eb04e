# SPDX-License-Identifier: GPL-3.0-or-later
"""A second, independent reader of libxc's migration stream, in pure Python.

Written from Xen's specification and not from the engine, so that the tests have something to hold the
engine's streams against; ``xenmig inspect`` and ``xenmig verify`` are made of it too.

::

    path, fd, pipe ──> source ──> reader ──> records, pages ──┬──> checks, totals ──> verdict
                                  (bodies, format)            └──> image (load_memory)

* ``StreamReader``: the records of a stream, one by one, in bounded memory.
* ``load_memory``: the last contents of each page and the rest of the domain's state.
* ``check_stream``: all rules that can be checked without a hypervisor.
"""

from __future__ import annotations

from xenmig.stream.checks import LayoutRules
from xenmig.stream.format import (
    MAX_BODY_BYTES,
    PAGE_BYTES,
    DomainHeader,
    GuestType,
    ImageHeader,
    PageType,
    RecordType,
)
from xenmig.stream.history import page_digest
from xenmig.stream.image import Image, load_memory
from xenmig.stream.page_words import PageWord, PageWords
from xenmig.stream.pages import PageContents, PageData
from xenmig.stream.reader import StreamReader
from xenmig.stream.records import (
    Checkpoint,
    CheckpointDirtyPfnList,
    End,
    HvmContext,
    HvmParams,
    OpaqueRecord,
    OptionalRecord,
    Record,
    SharedInfo,
    StaticDataEnd,
    Toolstack,
    Verify,
    X86CpuidPolicy,
    X86MsrPolicy,
    X86PvInfo,
    X86PvP2mFrames,
    X86PvVcpu,
    X86PvVcpuBasic,
    X86PvVcpuExtended,
    X86PvVcpuMsrs,
    X86PvVcpuXsave,
    X86TscInfo,
)
from xenmig.stream.remarks import Remark, Remarks
from xenmig.stream.source import StreamFile
from xenmig.stream.totals import Totals
from xenmig.stream.verdict import CheckedStream, check_stream

__all__ = [
    "MAX_BODY_BYTES",
    "PAGE_BYTES",
    "CheckedStream",
    "Checkpoint",
    "CheckpointDirtyPfnList",
    "DomainHeader",
    "End",
    "GuestType",
    "HvmContext",
    "HvmParams",
    "Image",
    "ImageHeader",
    "LayoutRules",
    "OpaqueRecord",
    "OptionalRecord",
    "PageContents",
    "PageData",
    "PageType",
    "PageWord",
    "PageWords",
    "Record",
    "RecordType",
    "Remark",
    "Remarks",
    "SharedInfo",
    "StaticDataEnd",
    "StreamFile",
    "StreamReader",
    "Toolstack",
    "Totals",
    "Verify",
    "X86CpuidPolicy",
    "X86MsrPolicy",
    "X86PvInfo",
    "X86PvP2mFrames",
    "X86PvVcpu",
    "X86PvVcpuBasic",
    "X86PvVcpuExtended",
    "X86PvVcpuMsrs",
    "X86PvVcpuXsave",
    "X86TscInfo",
    "check_stream",
    "load_memory",
    "page_digest",
]
