"""Both ends: what Jupyter's wire looks like: connection files, signatures, ZMTP. Standard library, Python 3.8."""
