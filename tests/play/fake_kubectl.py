"""Does what `kubectl port-forward … LOCAL:REMOTE` does, without a cluster: connections go to $FAKE_TARGET.

Its arguments are added to $FAKE_LOG, a line a call.
"""

import asyncio
import os
import sys

HOST = "127.0.0.1"


async def relay(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    try:
        while content := await reader.read(1 << 16):
            writer.write(content)
            await writer.drain()
    except ConnectionError:
        pass
    finally:
        writer.close()


async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    host, _, port = os.environ["FAKE_TARGET"].rpartition(":")
    print("Handling connection for", port, flush=True)
    try:
        answers, requests = await asyncio.open_connection(host, int(port))
    except OSError:
        writer.close()
        return
    await asyncio.gather(relay(reader, requests), relay(answers, writer))


async def main(ports: str) -> None:
    local, _, remote = ports.partition(":")
    server = await asyncio.start_server(handle, HOST, int(local or 0))
    print(f"Forwarding from {HOST}:{server.sockets[0].getsockname()[1]} -> {remote}", flush=True)
    await server.serve_forever()


if __name__ == "__main__":
    with open(os.environ.get("FAKE_LOG", os.devnull), "a", encoding="utf-8") as log:
        log.write(" ".join(sys.argv[1:]) + "\n")
    if "FAKE_ERROR" in os.environ:
        sys.exit(f"error: {os.environ['FAKE_ERROR']}")
    asyncio.run(main(sys.argv[-1]))
