"""The staged pipeline around `labeling`: readers and writers, stages, executors, phantom, review. No torch."""
