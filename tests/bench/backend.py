"""One server of a pool: answers each request after a while with its name and the client's address.

backend.py ADDRESS PORT NAME MILLISECONDS
"""

import asyncio
import sys


async def serve(reader, writer, name, seconds):
    """Requests of one connection."""
    body = f"{name} {writer.get_extra_info('peername')[0]}\n".encode()
    answer = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s" % (len(body), body)
    try:
        while True:
            head = await reader.readuntil(b"\r\n\r\n")
            await asyncio.sleep(seconds)
            writer.write(answer)
            if b"close" in head:
                break
    except (asyncio.IncompleteReadError, ConnectionError):
        pass
    writer.close()


async def main(address, port, name, milliseconds):
    """Serves until it is ended."""
    server = await asyncio.start_server(lambda r, w: serve(r, w, name, int(milliseconds) / 1000), address, int(port),
                                        backlog=4096)
    await server.serve_forever()


asyncio.run(main(*sys.argv[1:]))
