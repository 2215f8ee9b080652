"""What is in the images that the stack built: after test_stack_dev, in the order of names."""

import json
import shutil
import subprocess
from dataclasses import dataclass
from typing import Any

import pytest

REGISTRY = "localhost:5000"  # the default of mnist:registry
IMAGES = ("tr-ex-job", "client-job", "triton")
MEGABYTE = 10**6
# What an image adds to its base image. PyTorch's two builds differ by 5 GB, so tr-ex-job has no limit.
ADDED_MEGABYTES = {"client-job": 320, "triton": 250}
# Run as root in the image, by its own Python: prints what it finds as JSON.
SURVEY = """
import json, os, shutil, stat, sys

TOOLS = "gcc cc g++ c++ clang clang++ tcc make cmake ninja ld as nvcc go rustc cargo uv"
OURS = ("/app", "/opt")
CACHES = ("/root/.cache", "/var/cache/apt", "/var/lib/apt/lists", "/tmp", "/var/tmp")
path = os.pathsep.join(["/opt/venv/bin", os.environ["PATH"]])
found = {"tools": [tool for tool in TOOLS.split() if shutil.which(tool, path=path)]}
found.update(privileged=[], writable=[], leftovers=[], added=0)
found["caches"] = [cache for cache in CACHES if os.path.isdir(cache) and os.listdir(cache)]
for top, folders, files in os.walk("/"):
    if top == "/":
        folders[:] = [name for name in folders if name not in ("proc", "sys", "dev")]
    for name in folders + files:
        file = os.path.join(top, name)
        info = os.lstat(file)
        if stat.S_ISLNK(info.st_mode):
            continue
        if stat.S_ISREG(info.st_mode) and info.st_mode & (stat.S_ISUID | stat.S_ISGID):
            found["privileged"].append(file)
        if not file.startswith(OURS):
            continue
        if info.st_uid == 1000 or info.st_gid == 1000 or info.st_mode & stat.S_IWOTH:
            found["writable"].append(file)
        if name in ("__pycache__", "tests", "pip"):
            found["leftovers"].append(file)
        found["added"] += info.st_size
print(json.dumps(found))
"""


@dataclass(frozen=True)
class Image:
    name: str
    config: dict[str, Any]
    found: dict[str, Any]


def docker(*arguments: str, content: str | None = None) -> str:
    done = subprocess.run(["docker", *arguments], input=content, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"docker {arguments[0]}: {done.stderr}"
    return done.stdout


@pytest.fixture(scope="module", params=IMAGES)
def image(request: pytest.FixtureRequest) -> Image:
    if not shutil.which("docker") or subprocess.run(["docker", "info"], capture_output=True, check=False).returncode:
        pytest.skip("Docker does not answer: start it, or set DOCKER_HOST")
    name = f"{REGISTRY}/{request.param}:latest"
    if subprocess.run(["docker", "image", "inspect", name], capture_output=True, check=False).returncode:
        pytest.skip(f"{name} is not there: the stack builds it (test_stack_dev.py, or make up STACK=dev)")
    [inspected] = json.loads(docker("image", "inspect", name))
    command = ["run", "--rm", "--interactive", "--network=none", "--user=0", "--entrypoint=/opt/venv/bin/python"]
    found = json.loads(docker(*command, name, "-", content=SURVEY))
    return Image(request.param, inspected["Config"], found)


def test_no_compiler_and_no_installer_is_in_it(image: Image) -> None:
    assert image.found["tools"] == [], "whoever gets in must bring what they build with"


def test_it_runs_as_an_ordinary_user(image: Image) -> None:
    assert image.config["User"] == "1000:1000", "where no pod says so, too"


def test_no_program_makes_its_caller_another_user(image: Image) -> None:
    assert image.found["privileged"] == [], "no setuid, no setgid"


def test_that_user_can_change_nothing_in_it(image: Image) -> None:
    assert image.found["writable"] == [], "neither the code nor what it runs on"


def test_no_cache_and_no_leftovers_of_the_installation_are_in_it(image: Image) -> None:
    assert image.found["caches"] == [], "nothing reads them"
    assert image.found["leftovers"] == [], "the packages' tests and installers are not run here"


def test_no_secret_was_given_to_its_build(image: Image) -> None:
    """Build arguments and environment are kept in an image, for everyone who can pull it."""
    names = {entry.partition("=")[0] for entry in image.config["Env"]}
    telling = [name for name in names if any(word in name for word in ("TOKEN", "PASSWORD", "SECRET", "CREDENTIAL"))]
    assert telling == [], "whoever pulls the image could read it"


def test_it_is_small(image: Image) -> None:
    limit = ADDED_MEGABYTES.get(image.name)
    if limit is None:
        pytest.skip(f"{image.name} is as large as the PyTorch that could be had")
    assert image.found["added"] <= limit * MEGABYTE, f"{image.found['added'] // MEGABYTE} MB on top of its base image"
