"""During a setup: a port on loopback whose connections go to the proxy's unix socket.

Package managers speak to proxies by TCP only. Arguments: the socket, the port. Writes a line when it
listens. It protects nothing: all that is decided, is decided at the other end of the socket.
"""

import asyncio
import sys

SOCKET, PORT = sys.argv[1], int(sys.argv[2])


async def copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    try:
        while data := await reader.read(65536):
            writer.write(data)
            await writer.drain()
        if writer.can_write_eof():
            writer.write_eof()
    except OSError:
        writer.close()


async def relay(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    try:
        up, answering = await asyncio.open_unix_connection(SOCKET)
    except OSError:
        writer.close()
        return
    await asyncio.gather(copy(reader, answering), copy(up, writer))
    answering.close()
    writer.close()


async def main() -> None:
    server = await asyncio.start_server(relay, "127.0.0.1", PORT, backlog=128)
    print("listening", flush=True)
    await server.serve_forever()


asyncio.run(main())
