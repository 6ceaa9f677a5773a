"""A WebSocket server that echoes, and a client that tries it through a gateway: `serve`, or `call ADDRESS`."""

import asyncio
import json
import os
import sys

import websockets


async def echo(socket):
    try:
        async for message in socket:
            await socket.send(message)
    except websockets.ConnectionClosed:
        pass


async def serve():
    async with websockets.serve(
        echo, "127.0.0.1", 0, subprotocols=["chat.v2", "chat.v1"], max_size=None, compression="deflate"
    ) as server:
        print(server.sockets[0].getsockname()[1], flush=True)
        await asyncio.get_running_loop().run_in_executor(None, sys.stdin.read)


async def call(address):
    told = {}
    async with websockets.connect(
        f"ws://{address}/socket", subprotocols=["chat.v1"], max_size=None, compression="deflate"
    ) as socket:
        told["subprotocol"] = socket.subprotocol
        told["extensions"] = [extension.name for extension in socket.protocol.extensions]
        messages = ["", "größe", "x" * 200_000, b"\0\xff" * 70, os.urandom(3_000_000)]
        for message in messages:
            await socket.send(message)
        told["echoed"] = [await socket.recv() == message for message in messages]
        await socket.send(iter(["one ", "two ", "three"]))
        told["fragments"] = await socket.recv()
        waiter = await socket.ping(b"there?")
        await asyncio.wait_for(waiter, 10)
        await socket.close(4001, "enough")
        told["close"] = [socket.close_code, socket.close_reason]
    print(json.dumps(told), flush=True)


if __name__ == "__main__":
    asyncio.run(serve() if sys.argv[1] == "serve" else call(sys.argv[2]))
