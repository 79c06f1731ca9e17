"""Passes connections to a listening socket on to a service: `python -m … FILE_DESCRIPTOR PATH` or
`FILE_DESCRIPTOR HOST PORT`.

A process of its own, so that it can be stopped and killed; the socket it is given may belong to
another network namespace.
"""

import asyncio
import contextlib
import socket
import sys


async def _pump(source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
    with contextlib.suppress(OSError):  # either end may vanish at any time
        while data := await source.read(65_536):
            sink.write(data)
            await sink.drain()
    sink.close()


async def _serve(listener: socket.socket, target: list[str]) -> None:
    async def relay(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if len(target) == 1:
            there, back = await asyncio.open_unix_connection(target[0])
        else:
            there, back = await asyncio.open_connection(*target)
        await asyncio.gather(_pump(reader, back), _pump(there, writer))

    async with await asyncio.start_server(relay, sock=listener) as server:
        await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(_serve(socket.socket(fileno=int(sys.argv[1])), sys.argv[2:]))
