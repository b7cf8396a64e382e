"""Measure a GPU; `gpu/app.py` is the program.

torch imports NVIDIA's package `cuda`. While a script of this folder runs, torch finds this file instead. So when it is
imported, this file acts as that package and finds the installed parts of it.
"""

from pkgutil import extend_path

if __name__ == "__main__":
    from gpu.app import app

    from arraylstm import console

    console.run(app)
else:
    __path__ = extend_path([], __name__)
