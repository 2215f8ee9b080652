"""The resources as the program declares them; `process.provider` brings them about."""

from collections.abc import Mapping, Sequence

import pulumi

PACKAGE = "process"


class Directory(pulumi.CustomResource):
    """A directory, made on creation and removed, with all it holds, on deletion.

    Args:
        path: Absolute. An existing directory is taken over only if it is empty or was made by this resource.
    """

    path: pulumi.Output[str]

    def __init__(self, name: str, *, path: str, opts: pulumi.ResourceOptions | None = None) -> None:
        super().__init__(f"{PACKAGE}:index:Directory", name, {"path": path}, opts)


class Job(pulumi.CustomResource):
    """A command that runs to completion. It runs again when its fingerprint changes or something before it ran.

    Args:
        command: Program and arguments.
        fingerprint: Names all that the command's result depends on, besides what ran before it.
        directory: Where to keep the record that it ran; outlives the state, so finished work is not repeated.
        after: The `run` of each resource whose result this one uses.
        produces: Files without which it counts as not done: removing one makes the next `up` run the command again.
    """

    run: pulumi.Output[str]  # names this execution

    def __init__(
        self,
        name: str,
        *,
        command: Sequence[pulumi.Input[str]],
        fingerprint: str,
        directory: str,
        after: Sequence[pulumi.Input[str]],
        produces: Sequence[str] = (),
        opts: pulumi.ResourceOptions | None = None,
    ) -> None:
        properties = {
            "name": name,
            "command": list(command),
            "fingerprint": fingerprint,
            "directory": directory,
            "after": list(after),
            "produces": list(produces),
            "run": None,
        }
        super().__init__(f"{PACKAGE}:index:Job", name, properties, opts)


class Server(pulumi.CustomResource):
    """A command that keeps running in the background, in a process group of its own, until it is deleted.

    Args:
        command: Program and arguments; `{name}` stands for the chosen port of that name.
        fingerprint, directory, after: As for `Job`.
        ports: The wanted port by name; others are chosen where these are taken.
        ready_url: Answers 200 once the server is ready; `{name}` as in `command`.
    """

    run: pulumi.Output[str]
    ports: pulumi.Output[Mapping[str, float]]  # the chosen ones

    def __init__(
        self,
        name: str,
        *,
        command: Sequence[pulumi.Input[str]],
        fingerprint: str,
        directory: str,
        after: Sequence[pulumi.Input[str]],
        ports: Mapping[str, int],
        ready_url: str,
        opts: pulumi.ResourceOptions | None = None,
    ) -> None:
        properties = {
            "name": name,
            "command": list(command),
            "fingerprint": fingerprint,
            "directory": directory,
            "after": list(after),
            "wantedPorts": dict(ports),
            "readyUrl": ready_url,
            "run": None,
            "ports": None,
        }
        super().__init__(f"{PACKAGE}:index:Server", name, properties, opts)
