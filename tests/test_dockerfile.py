"""The container images: what the Dockerfile promises, and, where asked for, a real build that is run and queried."""

import dataclasses
import http.server
import json
import os
import re
import shlex
import shutil
import socket
import subprocess
import sys
import threading
import tomllib
import urllib.request
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
BUILD = "TEST_WITH_BUILDAH"
"""Set, even to nothing, it asks for the real build; its words are given to `buildah build`."""
USER = 65532


@dataclasses.dataclass
class Stage:
    """One stage: what it starts from and its instructions in order."""

    name: str
    base: str
    instructions: list[tuple[str, str]] = dataclasses.field(default_factory=list)


class Dockerfile:
    """The Dockerfile as data."""

    def __init__(self, text):
        self.arguments, self.stages = {}, {}
        code = "\n".join(line for line in text.splitlines() if not line.startswith("#"))
        stage = None
        for line in filter(None, code.replace("\\\n", "").splitlines()):
            word, rest = line.split(maxsplit=1)
            if word == "FROM":
                base, name = re.fullmatch(r"(\S+) AS (\S+)", rest).groups()
                stage = self.stages[name] = Stage(name, base)
            elif stage is None:
                self.arguments.update([rest.split("=", 1)])
            else:
                stage.instructions.append((word, rest))

    def instructions(self, name):
        """A stage's instructions after those of the stages that it starts from."""
        stage = self.stages[name]
        inherited = self.instructions(stage.base) if stage.base in self.stages else []
        return inherited + stage.instructions

    def values(self, name, word):
        """What a stage gives to one kind of instruction."""
        return [rest for seen, rest in self.instructions(name) if seen == word]

    def environment(self, name):
        """A stage's variables."""
        return dict(pair.split("=", 1) for line in self.values(name, "ENV") for pair in shlex.split(line))


@pytest.fixture(scope="module")
def text():
    return (ROOT / "Dockerfile").read_text()


@pytest.fixture(scope="module")
def dockerfile(text):
    return Dockerfile(text)


@pytest.fixture(scope="module")
def project():
    return tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


target = pytest.mark.parametrize("target", ["cpu", "cuda"])


def test_cpu_is_what_a_build_without_a_target_makes(dockerfile):
    """Both targets exist, and cpu is the last stage."""
    assert "cuda" in dockerfile.stages
    assert list(dockerfile.stages)[-1] == "cpu"


def test_the_base_is_an_argument(dockerfile):
    """Every stage starts from the image in PYTHON_IMAGE or from an earlier stage."""
    assert dockerfile.arguments == {"PYTHON_IMAGE": "python:3.11-slim"}
    names = list(dockerfile.stages)
    for place, stage in enumerate(dockerfile.stages.values()):
        assert stage.base in ["${PYTHON_IMAGE}", *names[:place]]


@pytest.mark.parametrize(("target", "extra"), [("cpu", "serve"), ("cuda", "serve-gpu")])
def test_a_target_is_its_extra_and_nothing_of_torch(dockerfile, project, target, extra):
    """Each target installs its device's extra and `redis`, which name no torch; its build ends by proving that."""
    assert dockerfile.values(target, "COPY") == [f"--from={target}-builder /opt/venv /opt/venv"]
    installs = re.findall(r"\[([\w,-]+)\]\"", " ".join(dockerfile.values(f"{target}-builder", "RUN")))
    assert installs == [f"{extra},redis"]
    wanted = [name for part in (extra, "redis") for name in project["optional-dependencies"][part]]
    assert not [name for name in wanted if re.match("torch|arraylstm", name)]
    word, rest = dockerfile.instructions(target)[-1]
    assert word == "RUN"
    assert '! python -c "import torch"' in rest


def test_every_install_is_under_constraints(dockerfile):
    """No package comes in unpinned, and none is built from a source distribution."""
    for stage in dockerfile.stages.values():
        for line in stage.instructions:
            if re.search(r"pip\b.* install", line[1]):
                assert "--constraint constraints.txt" in line[1]
                assert dockerfile.environment(stage.name)["PIP_ONLY_BINARY"] == ":all:"


def test_cuda_runs_the_same_onnxruntime(dockerfile):
    """The cuda target pins onnxruntime-gpu to the version that constraints.txt pins onnxruntime to."""
    constraints = ROOT / "constraints.txt"
    if not constraints.is_file():
        pytest.skip("constraints.txt is not in this checkout")
    pinned = re.search(r"^onnxruntime==(\S+)", constraints.read_text(), re.MULTILINE)[1]
    assert f"onnxruntime-gpu=={pinned}" in " ".join(dockerfile.values("cuda-builder", "RUN")).split()


@target
def test_the_process_is_not_root(dockerfile, target):
    """The user is a number other than 0, as Kubernetes' runAsNonRoot wants, and no later line takes it back."""
    assert dockerfile.values(target, "USER") == [f"{USER}:{USER}"]


@target
def test_the_image_starts_the_server_on_the_bundle(dockerfile, project, target):
    """The entry point is the project's own script, /bundle its argument, and the exposed port the one it listens on."""
    (command,) = json.loads(dockerfile.values(target, "ENTRYPOINT")[-1])
    assert command in project["scripts"]
    assert dockerfile.values(target, "CMD") == ['["/bundle"]']
    assert dockerfile.values(target, "EXPOSE") == [dockerfile.environment(target)["ARRAYLSTM_PORT"]]


@target
def test_the_server_reads_every_variable_of_the_image(dockerfile, target):
    """Each ARRAYLSTM_ variable is one of the server's settings, and the address is reachable from outside."""
    from arraylstm_serve.settings import Settings

    settings = {f"ARRAYLSTM_{field.name.upper()}" for field in dataclasses.fields(Settings)}
    environment = dockerfile.environment(target)
    assert {name for name in environment if name.startswith("ARRAYLSTM_")} <= settings
    assert environment["ARRAYLSTM_HOST"] == "0.0.0.0"


@target
def test_onnxruntime_reports_to_nobody(dockerfile, target):
    """The variable that keeps onnxruntime from sending telemetry is set before anything runs."""
    assert dockerfile.environment(target)["ORT_DISABLE_TELEMETRY"] == "1"


class Health(http.server.BaseHTTPRequestHandler):
    """Answers /healthz with the server's `status` and anything else with 404."""

    def do_GET(self):
        self.send_response(self.server.status if self.path == "/healthz" else 404)
        self.end_headers()

    def log_message(self, *_):
        """Keep the test's output clean."""


@pytest.mark.parametrize("variable", ["ARRAYLSTM_PORT", "ARRAYLSTM_ADMIN_PORT"])
@pytest.mark.parametrize(("status", "healthy"), [(200, True), (503, False), (None, False)])
def test_the_health_check_tells_a_healthy_server(dockerfile, status, healthy, variable):
    """The image's own check, run here, passes for 200 from /healthz and fails for 503 or where nobody listens.

    It asks the admin listener if there is one: that answers when the public one is full.
    """
    words = json.loads(re.search(r"CMD (\[.*\])", dockerfile.values("cpu", "HEALTHCHECK")[-1])[1])
    assert words[0] == "python"
    with http.server.HTTPServer(("127.0.0.1", 0), Health) as server:
        port, server.status = server.server_port, status
        if status is None:
            server.server_close()
        else:
            threading.Thread(target=server.serve_forever, daemon=True).start()
        environment = {"ARRAYLSTM_PORT": "1", variable: str(port), "http_proxy": "http://192.0.2.1:9"}
        done = subprocess.run([sys.executable, *words[1:]], env=environment, capture_output=True, check=False)
        if status is not None:
            server.shutdown()
    assert (done.returncode == 0) is healthy


def test_nothing_secret_and_no_host_is_written_down(text):
    """The Dockerfile names no address, no credential and no index; those come as build secrets."""
    assert not re.search(r"://|password|passwd|token|api_?key|index-url|trusted-host|proxy", text, re.IGNORECASE)
    assert "ADD " not in text


def test_only_the_wheel_sources_enter_the_build(project):
    """.dockerignore lets in the package roots, the files that pyproject.toml names and the pins; nothing else."""
    first, *rest = [line for line in (ROOT / ".dockerignore").read_text().splitlines() if not line.startswith("#")]
    wheel = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["hatch"]["build"]["targets"]["wheel"]
    let_in = {line[1:] for line in rest if line.startswith("!")}
    assert first == "*"
    files = {"pyproject.toml", "constraints.txt", project["readme"], *project["license-files"]}
    assert let_in == {*wheel["packages"], *wheel["force-include"], *files}


@pytest.fixture(scope="module")
def container():
    """A working container of the cpu target, built for real."""
    if BUILD not in os.environ:
        pytest.skip(f"the real build takes minutes and the network; {BUILD}='OPTIONS OF buildah build' asks for it")
    if shutil.which("buildah") is None or os.geteuid() != 0:
        pytest.skip("the real build needs buildah and root")
    options = ["--isolation", "chroot", "--format", "docker", "--quiet", *shlex.split(os.environ[BUILD])]
    image = buildah("build", *options, str(ROOT)).splitlines()[-1]
    name = buildah("from", image)
    yield name
    buildah("rm", name)
    buildah("rmi", image)


def buildah(*arguments):
    """What buildah answers."""
    done = subprocess.run(["buildah", *arguments], stdout=subprocess.PIPE, text=True, check=True)
    return done.stdout.strip()


def in_container(container, *command, options=()):
    """The command line that runs a command in the container, on this machine's network."""
    return ["buildah", "run", "--isolation", "chroot", *options, container, "--", *command]


def test_the_built_image_has_no_torch_and_no_root(container):
    """Inside the image torch and pip cannot be imported, and the user is the one promised."""
    program = "import importlib.util as u, os; print(os.getuid(), u.find_spec('torch'), u.find_spec('pip'))"
    done = subprocess.run(in_container(container, "python", "-c", program), capture_output=True, text=True, check=True)
    assert done.stdout.split() == [str(USER), "None", "None"]


def test_the_built_image_serves_a_bundle(container, tmp_path):
    """The image's own command serves a bundle mounted read-only, and its own health check says so."""
    from arraylstm import NextItemModel
    from arraylstm_export import Coverage, Options, export

    bundle = tmp_path / "bundle"
    export(NextItemModel("array", num_items=5, hidden_size=8, k=2), bundle, Options(coverage=Coverage(horizon=100)))
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    config = json.loads(buildah("inspect", container))["Docker"]["config"]
    options = ["--volume", f"{bundle}:/bundle:ro", "--env", f"ARRAYLSTM_PORT={port}"]
    command = in_container(container, *config["Entrypoint"], *config["Cmd"], options=options)
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as server:
        try:
            next(line for line in server.stdout if "docs" in line)
            check = in_container(container, *config["Healthcheck"]["Test"][1:], options=options[2:])
            assert subprocess.run(check, check=False).returncode == 0
            answer = ask(port, "/v1/sessions/u/events", b'{"items": [3], "top_k": 2}')
        finally:
            server.terminate()
    assert (answer["step"], answer["state"], len(answer["predictions"])) == (1, "new", 2)


def ask(port, path, body=None):
    """The JSON that the server on a port answers."""
    with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", body, timeout=30) as answer:
        return json.load(answer)
