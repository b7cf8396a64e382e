"""What the package depends on."""

from __future__ import annotations

import subprocess
import sys

PROGRAM = """
import sys, pkgutil, importlib, arraylstm_serve
modules = [module.name for module in pkgutil.walk_packages(arraylstm_serve.__path__, "arraylstm_serve.")]
for name in modules:
    if name != "arraylstm_serve.__main__" and not name.startswith("arraylstm_serve.engine.gpu."):
        importlib.import_module(name)
assert "arraylstm_serve.sessions.table" in modules
print(sorted({"torch", "arraylstm", "arraylstm_export", "onnx"} & sys.modules.keys()))
"""


def test_serving_needs_neither_torch_nor_the_trainer() -> None:
    """Importing arraylstm_serve loads neither torch nor the packages that need it; those of the GPU take onnx."""
    done = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
