"""Keep the kernelspecs of remote kernels: write, list, find, change and remove kernel.json.

A kernelspec is a folder `SLUG/` with kernel.json and logos inside one of Jupyter's `kernels`
folders. Its argv is a LaunchOptions written out, and the only record of the settings. Those
that `add` wrote carry `metadata.remote_kernel`; only they are ever changed or removed here.
"""
