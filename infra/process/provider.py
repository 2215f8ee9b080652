"""The provider's gRPC service: what Pulumi's engine calls.

The protocol is pulumi/proto/pulumi/provider.proto; each method's comment there says what the engine expects.
"""

import json
import os
import sys
import threading
import time
from concurrent import futures
from typing import Any

import grpc
from google.protobuf import empty_pb2, struct_pb2
from google.protobuf.json_format import MessageToDict
from pulumi.runtime.proto import engine_pb2, engine_pb2_grpc, plugin_pb2, provider_pb2, provider_pb2_grpc

from process import directories, jobs, records, servers
from process.errors import ProcessError

VERSION = "0.1.0"
DEFAULT_TIMEOUT = 7200.0
WARNING_PREFIX = "warning: "
PARENT_POLL_SECONDS = 1.0

Properties = dict[str, Any]


class ProcessProvider(provider_pb2_grpc.ResourceProviderServicer):
    """Creates, updates and deletes `process:index:{Directory,Job,Server}`."""

    def __init__(self, engine: engine_pb2_grpc.EngineStub) -> None:
        self._engine = engine
        self.cancelled = threading.Event()

    def GetPluginInfo(self, request: Any, context: Any) -> Any:
        return plugin_pb2.PluginInfo(version=VERSION)

    def GetSchema(self, request: Any, context: Any) -> Any:
        return provider_pb2.GetSchemaResponse(schema=json.dumps({"name": "process", "version": VERSION}))

    def CheckConfig(self, request: Any, context: Any) -> Any:
        return provider_pb2.CheckResponse(inputs=request.news)

    def DiffConfig(self, request: Any, context: Any) -> Any:
        return provider_pb2.DiffResponse(changes=provider_pb2.DiffResponse.DIFF_NONE)

    def Configure(self, request: Any, context: Any) -> Any:
        return provider_pb2.ConfigureResponse()

    def Check(self, request: Any, context: Any) -> Any:
        return provider_pb2.CheckResponse(inputs=request.news)

    def Diff(self, request: Any, context: Any) -> Any:
        old, new = MessageToDict(request.olds), MessageToDict(request.news)
        kind = _kind(request.urn)
        replaces = [key for key in ("path", "directory") if old.get(key) != new.get(key)]
        changed = bool(replaces) or not _is_current(kind, old, new)
        response = provider_pb2.DiffResponse
        return response(
            changes=response.DIFF_SOME if changed else response.DIFF_NONE,
            replaces=replaces,
            deleteBeforeReplace=bool(replaces),
            diffs=[key for key in new if old.get(key) != new[key]],
        )

    def Create(self, request: Any, context: Any) -> Any:
        inputs = MessageToDict(request.properties)
        outputs = self._bring_about(request.urn, inputs, request.timeout, context)
        return provider_pb2.CreateResponse(id=inputs.get("name") or inputs["path"], properties=_struct(outputs))

    def Update(self, request: Any, context: Any) -> Any:
        outputs = self._bring_about(request.urn, MessageToDict(request.news), request.timeout, context)
        return provider_pb2.UpdateResponse(properties=_struct(outputs))

    def Delete(self, request: Any, context: Any) -> Any:
        old = MessageToDict(request.properties)
        try:
            match _kind(request.urn):
                case "Directory":
                    directories.delete_directory(old)
                case "Job":
                    records.remove(old["directory"], old["name"])
                case "Server":
                    servers.stop_server(old)
        except ProcessError as error:
            context.abort(grpc.StatusCode.UNKNOWN, str(error))
        return empty_pb2.Empty()

    def Read(self, request: Any, context: Any) -> Any:
        """On `pulumi refresh`: a server that died, or a job whose record is gone, is reported as gone."""
        old = MessageToDict(request.properties)
        gone = not _is_current(_kind(request.urn), old, old)
        return provider_pb2.ReadResponse(
            id="" if gone else request.id, properties=request.properties, inputs=request.inputs
        )

    def Cancel(self, request: Any, context: Any) -> Any:
        """The user pressed Ctrl-C: end what runs; the calls in progress return an error."""
        self.cancelled.set()
        return empty_pb2.Empty()

    def _bring_about(self, urn: str, inputs: Properties, timeout: float, context: Any) -> Properties:
        limit = timeout or DEFAULT_TIMEOUT
        try:
            match _kind(urn):
                case "Job":
                    return jobs.run_job(inputs, lambda line: self._say(urn, line), self.cancelled, limit)
                case "Server":
                    return servers.start_server(inputs, lambda line: self._say(urn, line), self.cancelled, limit)
                case _:
                    return directories.create_directory(inputs)
        except ProcessError as error:
            context.abort(grpc.StatusCode.UNKNOWN, str(error))
            raise  # abort raises; this tells the type checker

    def _say(self, urn: str, line: str) -> None:
        """Show a line beside the resource; warnings also stay, for the summary at the end."""
        warning = line.startswith(WARNING_PREFIX)
        if line.startswith(jobs.ERROR_PREFIX):
            return  # becomes the resource's own error
        self._engine.Log(
            engine_pb2.LogRequest(
                severity=engine_pb2.WARNING if warning else engine_pb2.INFO,
                message=line.removeprefix(WARNING_PREFIX),
                urn=urn,
                ephemeral=not warning,
            )
        )


def _kind(urn: str) -> str:
    """`urn:pulumi:stack::project::process:index:Job::train` → `Job`."""
    return urn.split("::")[2].rpartition(":")[2].rpartition("$")[2]


def _is_current(kind: str, old: Properties, new: Properties) -> bool:
    """Whether the resource is what `new` wants, in the state and on the machine."""
    if kind == "Directory":
        return os.path.isdir(new["path"])
    unchanged = all(old.get(key) == new.get(key) for key in ("fingerprint", "after"))
    record = records.read(new["directory"], new["name"])
    done = jobs.is_done(new, record) and record is not None and record.get("run") == old.get("run")
    return unchanged and done and (kind == "Job" or servers.is_running(new))


def _struct(properties: Properties) -> Any:
    struct = struct_pb2.Struct()
    struct.update(properties)
    return struct


def _end_with_parent(provider: ProcessProvider, parent: int) -> None:
    """Pulumi's engine was killed: nobody will cancel or stop this process, so it stops its jobs and itself."""
    while os.getppid() == parent:
        time.sleep(PARENT_POLL_SECONDS)
    provider.cancelled.set()
    time.sleep(jobs.STOP_SECONDS)
    os._exit(1)


def main() -> None:
    engine = engine_pb2_grpc.EngineStub(grpc.insecure_channel(sys.argv[1]))
    provider = ProcessProvider(engine)
    threading.Thread(target=_end_with_parent, args=(provider, os.getppid()), daemon=True).start()
    server = grpc.server(futures.ThreadPoolExecutor(max_workers=32))
    provider_pb2_grpc.add_ResourceProviderServicer_to_server(provider, server)
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    print(port, flush=True)  # how the engine learns where to call
    server.wait_for_termination()


if __name__ == "__main__":
    main()
