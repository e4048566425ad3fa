"""Triton kernels and what they share. Only `runtime` may be imported where Triton is not installed."""
