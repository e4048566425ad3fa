"""Kernels in Triton's interpreter live in interpreted/: only collected where TRITON_INTERPRET is set (a process of
its own, see test_interpreted.py), since Triton reads it when a kernel is imported."""

from __future__ import annotations

import os

collect_ignore = [] if os.environ.get("TRITON_INTERPRET") == "1" else ["interpreted"]
