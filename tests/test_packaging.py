"""What the wheel holds, and that its parts install and run where the others are absent."""

import importlib.metadata
import re
import subprocess
import sys
import venv
import zipfile
from pathlib import Path

import httpx
import pytest

import arraylstm
import arraylstm_export
import arraylstm_serve
from arraylstm_export import Coverage, Options, export

from .oldest import lowest
from .serve.bundles import write_bundle
from .servers import ServerProcess

ROOT = Path(__file__).parent.parent
WHEELS = sorted((ROOT / "dist").glob("*.whl"))
needs_wheel = pytest.mark.skipif(not WHEELS, reason="no wheel in dist; `make test` builds it")


@needs_wheel
def test_the_suite_runs_against_the_wheel_and_not_the_source_tree():
    """Every package under test lies in the environment that the wheel was installed into."""
    for package in (arraylstm, arraylstm_export, arraylstm_serve):
        assert Path(package.__file__).is_relative_to(sys.prefix)


@needs_wheel
def test_array_lstm_is_not_beside_our_package():
    """Where a file system folds case, its `arrayLSTM` would be our `arraylstm` (`make clean` ends an old one)."""
    assert "arrayLSTM" not in [path.name for path in Path(arraylstm.__file__).parents[1].iterdir()]


@needs_wheel
def test_the_wheel_holds_three_typed_packages_and_nothing_else():
    """No tests, benchmarks or examples reach a user's site-packages; types do."""
    names = zipfile.ZipFile(WHEELS[-1]).namelist()
    packages = {"arraylstm", "arraylstm_export", "arraylstm_serve"}
    assert {name.split("/")[0] for name in names if "dist-info" not in name} == packages
    assert {f"{package}/py.typed" for package in packages} <= set(names)


@needs_wheel
def test_the_wheel_holds_the_whole_console():
    """The page and every file that it loads are shipped as they are in the source tree."""
    folder = ROOT / "serve" / "arraylstm_serve" / "console"
    with zipfile.ZipFile(WHEELS[-1]) as wheel:
        for path in folder.rglob("*.*"):
            assert wheel.read(str(path.relative_to(ROOT / "serve"))) == path.read_bytes()
    assert (folder / "assets" / "app.mjs").exists()


@needs_wheel
def test_the_wheel_holds_the_configuration_of_nginx():
    """`--replicas` starts nginx from the file that deploy/ has."""
    shipped = zipfile.ZipFile(WHEELS[-1]).read("arraylstm_serve/replicas/nginx-replicas.conf")
    assert shipped == (ROOT / "deploy" / "nginx-replicas.conf").read_bytes()


def test_the_console_scripts_answer_with_one_version(run_program):
    """The four programs are installed and agree on the distribution's version."""
    for program in ("arraylstm-train", "arraylstm-evaluate", "arraylstm-export", "arraylstm-serve"):
        done = run_program(program, "--version")
        assert (done.returncode, done.stdout.strip()) == (0, importlib.metadata.version("arraylstm-serving"))


@pytest.mark.parametrize("package", ["arraylstm", "arraylstm.extensions"])
def test_the_models_import_with_torch_alone(package):
    """Neither the command lines' packages nor onnx are needed to use the cells."""
    absent = ["cyclopts", "rich", "safetensors", "onnx", "onnxruntime"]
    program = f"import sys; [sys.modules.setdefault(name, None) for name in {absent}]; import {package}"
    subprocess.run([sys.executable, "-W", "ignore", "-c", program], check=True)


@needs_wheel
def test_the_server_installs_and_runs_where_torch_is_absent(tmp_path):
    """A fresh environment with the serve extra alone serves a real bundle."""
    model = arraylstm.NextItemModel("attention", 5, 4, k=2, vocabulary=arraylstm.Vocabulary(["a", "b", "c", "d", "e"]))
    assert export(model, tmp_path / "bundle", Options(coverage=Coverage(horizon=100))).passed
    python = fresh_environment(tmp_path / "venv", f"{WHEELS[-1]}[serve]")
    absent = "import importlib.util as u; print([m for m in ('torch', 'onnx', 'onnxscript') if u.find_spec(m)])"
    assert subprocess.run([python, "-c", absent], capture_output=True, text=True, check=True).stdout == "[]\n"
    server = ServerProcess(tmp_path / "bundle", python=python)
    try:
        answer = post(f"{server.url}/v1/sessions/s/events", {"items": ["a", "e"]})
    finally:
        server.process.terminate()
        status = server.process.wait(30)
        server.stop()
    assert (answer["step"], answer["state"], len(answer["predictions"])) == (2, "new", 5)
    assert status == 0


@needs_wheel
def test_the_client_installs_and_calls_where_the_server_is_absent(tmp_path):
    """A fresh environment with the client extra alone has neither numpy nor onnxruntime, and calls a server."""
    python = fresh_environment(tmp_path / "venv", f"{WHEELS[-1]}[client]")
    server = ServerProcess(write_bundle(tmp_path / "bundle"))
    program = (
        "import importlib.util as u; from arraylstm_serve.client import BulkEvent, Client\n"
        "print([m for m in ('numpy', 'onnxruntime', 'fastapi', 'torch') if u.find_spec(m)])\n"
        f"with Client({server.url!r}) as client, client.stream() as stream:\n"
        "    stream.send(BulkEvent(['a'], session_id='s'))\n"
        "    print(stream.receive().step, client.session('s', step=1).send(['b']).step)\n"
    )
    try:
        done = subprocess.run([python, "-W", "error", "-c", program], capture_output=True, text=True, check=False)
    finally:
        server.stop()
    assert (done.stdout, done.stderr) == ("[]\n1 2\n", "")


@pytest.mark.parametrize(
    "page",
    ["README.md", "CONTRIBUTING.md", "CHANGELOG.md", *(f"docs/{path.name}" for path in (ROOT / "docs").glob("*.md"))],
)
def test_links_between_our_pages_lead_somewhere(page):
    """Every relative link is a file of the checkout."""
    links = re.findall(r"\]\((?!https?:)([^)#]+)", (ROOT / page).read_text())
    assert [link for link in links if not (ROOT / page).parent.joinpath(link).exists()] == []


def fresh_environment(folder, requirement):
    venv.create(folder, with_pip=True)
    python = folder / "bin" / "python"
    install = [python, "-m", "pip", "install", "--quiet", "--constraint", ROOT / "constraints.txt", requirement]
    done = subprocess.run(install, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return python


def post(url, body):
    return httpx.post(url, json=body, trust_env=False).raise_for_status().json()


def test_every_dependency_has_a_lower_bound_and_a_pin():
    """`make test-oldest` runs the lowest versions and `make test` the pinned ones, which are no lower."""
    pins = dict(line.strip().split("==") for line in (ROOT / "constraints.txt").read_text().splitlines()[1:])
    pinned = {name.lower().replace("_", "-"): version for name, version in pins.items()}
    bounds = lowest(["dev", "serve-gpu"])
    del bounds["onnxruntime-gpu"]  # where the suite is pinned there is the CPU's
    for name, version in bounds.items():
        assert numbers(version) <= numbers(pinned[name]), name


def numbers(version):
    """Return a version as numbers to compare."""
    return [int(number) for number in re.findall(r"\d+", version)]
