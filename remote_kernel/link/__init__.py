"""Both ends: many streams over one byte pipe, resumable after a drop. Standard library, Python 3.8."""
