"""Stack local in a copy of this checkout."""

import os
import shutil
import sys
from collections.abc import Iterator

import pytest
from tests.checkout import ROOT, Checkout, make_checkout


@pytest.fixture(scope="module")
def checkout(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Checkout]:
    if shutil.which("pulumi", path=f"{ROOT}/.tools/bin:{os.environ['PATH']}") is None:
        pytest.skip("the Pulumi CLI is missing: run `make setup`")
    made = make_checkout(tmp_path_factory.mktemp("checkout"))
    yield made
    made.configure(keepData="false")
    made.pulumi("cancel", "--yes")
    made.run("down")
    left = made.processes()
    for process in left:
        process.kill()
    sys.stdout.write("".join(f"left running: {process}\n" for process in left))
