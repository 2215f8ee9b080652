"""A port of a Kubernetes service on this machine, by `kubectl port-forward`."""

import contextlib
import re
import subprocess
import threading
from collections.abc import Iterator

from cluster import Cluster
from stack import StackError

HOST = "127.0.0.1"
AGAIN_SECONDS = 1.0


@contextlib.contextmanager
def forwarded(cluster: Cluster, service: str, port: int) -> Iterator[str]:
    """Yields host:port, a free one, for as long as it is needed.

    Raises:
        StackError: kubectl is missing, or does not reach the service; at the start only.
    """
    forward = Forward(cluster, service, port)
    try:
        yield f"{HOST}:{forward.port}"
    finally:
        forward.close()


class Forward:
    """kubectl goes with the pod that it chose, so it is started again when that pod is replaced."""

    def __init__(self, cluster: Cluster, service: str, port: int) -> None:
        self._command = cluster.command("port-forward", f"--address={HOST}", f"service/{service}")
        self._target, self._ending = port, threading.Event()
        self._process: subprocess.Popen[str]
        self.port = self._start("")
        self._keeper = threading.Thread(target=self._keep, daemon=True)
        self._keeper.start()

    def close(self) -> None:
        self._ending.set()
        while self._keeper.is_alive():
            self._process.terminate()
            self._keeper.join(0.1)
        self._end()

    def _start(self, port: int | str) -> int:
        """Start it on this port, or on one of its choice; returns the port when it listens."""
        try:
            self._process = subprocess.Popen(
                [*self._command, f"{port}:{self._target}"],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
                start_new_session=True,  # Ctrl-C is for the page; this ends after it
            )
        except FileNotFoundError:
            raise StackError("kubectl is missing: https://kubernetes.io/docs/tasks/tools") from None
        said = "failed"
        try:
            for line in self._lines():
                if listening := re.match(rf"Forwarding from {re.escape(HOST)}:(\d+) ", line):
                    return int(listening[1])
                said = line.strip() or said
        except BaseException:
            self._end()
            raise
        self._end()
        raise StackError(f"kubectl port-forward: {said.removeprefix('error: ')}")

    def _keep(self) -> None:
        while not self._ending.is_set():
            for _ in self._lines():  # one a connection: a full pipe would stop it
                pass
            self._end()
            self._ending.wait(AGAIN_SECONDS)
            if not self._ending.is_set():
                with contextlib.suppress(StackError):  # the next pod is not there yet
                    self._start(self.port)

    def _lines(self) -> Iterator[str]:
        assert self._process.stdout is not None
        return iter(self._process.stdout) if not self._process.stdout.closed else iter(())

    def _end(self) -> None:
        self._process.terminate()
        self._process.wait()
        if self._process.stdout is not None:
            self._process.stdout.close()
