"""Figures of a GPU: what `gpu/app.py` measures.

While a script of this folder runs, torch, which looks for NVIDIA's package `cuda`, finds this file first: imported, it
is that package, with whatever of it is installed.
"""

from pkgutil import extend_path

if __name__ == "__main__":
    from gpu.app import app

    from arraylstm import console

    console.run(app)
else:
    __path__ = extend_path([], __name__)
