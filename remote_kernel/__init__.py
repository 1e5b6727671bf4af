"""Run Jupyter kernels on remote machines over SSH as if they were local, with nothing lost."""

__version__ = "0.1.0"
