"""A gRPC service, and a client that tries it through a gateway: `serve`, or `call ADDRESS CASE`.

Messages are plain bytes: what is tried is the transport.
"""

import json
import sys
import threading
import time
from concurrent import futures

import grpc

seen = {"cancelled": threading.Event(), "remaining": None}


def echo(request, context):
    metadata = dict(context.invocation_metadata())
    back = [(name, metadata[name]) for name in ("x-plain", "x-data-bin") if name in metadata]
    context.send_initial_metadata(back)
    context.set_trailing_metadata([("x-after", "told")] + back)
    return request


def fail(request, context):
    context.set_trailing_metadata([("x-after", "told")])
    context.abort(grpc.StatusCode.NOT_FOUND, "größe 50% unknown")


def slow(request, context):
    seen["remaining"] = context.time_remaining()
    time.sleep(float(request))
    return b"late"


def told(request, context):
    return json.dumps({"remaining": seen["remaining"], "cancelled": seen["cancelled"].wait(10)}).encode()


def remaining(request, context):
    left = context.time_remaining()
    return json.dumps(None if left is None or left > 1e6 else left).encode()


def count(requests, context):
    return json.dumps([sum(1 for _ in requests)]).encode()


def many(request, context):
    for number in range(int(request)):
        yield b"x" * (number % 2000)


def forever(request, context):
    context.add_callback(seen["cancelled"].set)
    while context.is_active():
        yield b"tick"
        time.sleep(0.02)


def stall(request, context):
    yield b"first"
    time.sleep(30)


def answer(requests, context):
    for request in requests:
        yield request[::-1]


UNARY = {"Echo": echo, "Fail": fail, "Slow": slow, "Told": told, "Remaining": remaining}
STREAMS = {"Many": many, "Forever": forever, "Stall": stall}


class Service(grpc.GenericRpcHandler):
    def service(self, details):
        name = details.method.rsplit("/", 1)[-1]
        if name in UNARY:
            return grpc.unary_unary_rpc_method_handler(UNARY[name])
        if name in STREAMS:
            return grpc.unary_stream_rpc_method_handler(STREAMS[name])
        if name == "Count":
            return grpc.stream_unary_rpc_method_handler(count)
        if name == "Answer":
            return grpc.stream_stream_rpc_method_handler(answer)
        return None


def serve():
    options = [("grpc.max_receive_message_length", -1), ("grpc.so_reuseport", 0)]
    server = grpc.server(futures.ThreadPoolExecutor(16), handlers=(Service(),), options=options)
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    print(port, flush=True)
    sys.stdin.read()


def outcome(call):
    try:
        return {"code": "OK", "value": call()}
    except grpc.RpcError as error:
        return {"code": error.code().name, "details": error.details(), "after": dict(error.trailing_metadata() or ())}


def case_unary(channel):
    sizes = []
    for size in (0, 5, 3_000_000):
        reply, call = channel.unary_unary("/s/Echo").with_call(
            b"x" * size, metadata=[("x-plain", "a b"), ("x-data-bin", b"\x00\xff")], timeout=20
        )
        first, last = dict(call.initial_metadata()), dict(call.trailing_metadata())
        assert first["x-plain"] == "a b" and first["x-data-bin"] == b"\x00\xff", first
        assert last["x-after"] == "told" and last["x-data-bin"] == b"\x00\xff", last
        sizes.append(len(reply))
    return sizes


def case_client_stream(channel):
    return json.loads(channel.stream_unary("/s/Count")(iter([b"x" * 999] * 500), timeout=20))


def case_server_stream(channel):
    return [len(piece) for piece in channel.unary_stream("/s/Many")(b"2500", timeout=20)] == [
        number % 2000 for number in range(2500)
    ]


def case_both(channel):
    """Each message waits for the answer to the one before."""
    ready = threading.Semaphore(1)

    def messages():
        for number in range(100):
            ready.acquire()
            yield str(number).encode()

    rounds = 0
    for reply in channel.stream_stream("/s/Answer")(messages(), timeout=20):
        assert reply == str(rounds).encode()[::-1]
        rounds += 1
        ready.release()
    return rounds


def case_at_once(channel):
    calls = [channel.unary_unary("/s/Echo").future(str(number).encode(), timeout=20) for number in range(200)]
    return [call.result() for call in calls] == [str(number).encode() for number in range(200)]


def case_cancel(channel):
    stream = channel.unary_stream("/s/Forever")(b"")
    next(stream)
    stream.cancel()
    return json.loads(channel.unary_unary("/s/Told")(b"", timeout=20))["cancelled"]


CASES = {
    "unary": case_unary,
    "client_stream": case_client_stream,
    "server_stream": case_server_stream,
    "both": case_both,
    "at_once": case_at_once,
    "cancel": case_cancel,
    "fail": lambda channel: channel.unary_unary("/s/Fail")(b"", timeout=20),
    "unknown": lambda channel: channel.unary_unary("/s/Nothing")(b"", timeout=20),
    "echo": lambda channel: channel.unary_unary("/s/Echo")(b"", timeout=20).decode(),
    "deadline": lambda channel: channel.unary_unary("/s/Slow")(b"5", timeout=0.4),
    "patient": lambda channel: channel.unary_unary("/s/Slow")(b"5"),
    "stall": lambda channel: len(list(channel.unary_stream("/s/Stall")(b""))),
    "remaining": lambda channel: json.loads(channel.unary_unary("/s/Remaining")(b"", timeout=20)),
    "no_deadline": lambda channel: json.loads(channel.unary_unary("/s/Remaining")(b"")),
}


def call(address, case):
    options = [("grpc.max_receive_message_length", -1), ("grpc.enable_retries", 0)]
    with grpc.insecure_channel(address, options=options) as channel:
        print(json.dumps(outcome(lambda: CASES[case](channel))), flush=True)


if __name__ == "__main__":
    serve() if sys.argv[1] == "serve" else call(*sys.argv[2:])
