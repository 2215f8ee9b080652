"""An S3 server for the tests: moto's, in a process of its own."""

import contextlib
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator

from tests.support import free_ports

CREDENTIALS = {"AWS_ACCESS_KEY_ID": "test", "AWS_SECRET_ACCESS_KEY": "test", "AWS_DEFAULT_REGION": "us-east-1"}


@contextlib.contextmanager
def running_s3(host: str = "127.0.0.1") -> Iterator[int]:
    """Its port; it takes any credentials, and forgets all when it ends."""
    port = free_ports(1)[0]
    command = [sys.executable, "-W", "ignore", "-m", "moto.server", "-H", host, "-p", str(port)]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        deadline = time.monotonic() + 60
        while not _answers(port):
            assert time.monotonic() < deadline and process.poll() is None, "moto must start"
            time.sleep(0.1)
        try:
            yield port
        finally:
            process.terminate()


def _answers(port: int) -> bool:
    with contextlib.suppress(OSError), urllib.request.urlopen(f"http://127.0.0.1:{port}/", timeout=5):
        return True
    return False
