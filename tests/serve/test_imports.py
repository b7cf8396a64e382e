"""What the package depends on."""

from __future__ import annotations

import subprocess
import sys

PROGRAM = """
import sys, pkgutil, importlib, arraylstm_serve
for module in pkgutil.iter_modules(arraylstm_serve.__path__):
    if module.name != "__main__" and not module.name.startswith("device_"):
        importlib.import_module(f"arraylstm_serve.{module.name}")
print(sorted({"torch", "arraylstm", "arraylstm_export", "onnx"} & sys.modules.keys()))
"""


def test_serving_needs_neither_torch_nor_the_trainer() -> None:
    """Importing arraylstm_serve loads neither torch nor the packages that need it; those of the GPU take onnx."""
    done = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
