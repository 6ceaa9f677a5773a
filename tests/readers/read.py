"""Reads streams of HTTP/1.1 requests with five parsers that share no code, and says where they disagree.

On stdin, a JSON list of `{"name": ..., "bytes": HEX}`, one a connection. On stdout, a list in the same order, of
`{"name", "messages", "cut"}`, where `cut` tells that the stream ends inside of a message, or of `{"name", "faults"}`.
"""

import http.client
import http.server
import io
import json
import sys
from collections import namedtuple

import h11
import httptools
from gunicorn.config import Config
from gunicorn.http.errors import ChunkMissingTerminator, NoMoreData
from gunicorn.http.parser import RequestParser
from waitress.adjustments import Adjustments
from waitress.parser import HTTPRequestParser

# What a parser does not read at all, for reasons of its own that concern nobody's safety. Anything else that is refused
# is a fault, and so is a line here that is not needed.
UNREAD = {
    ("gunicorn", "content-type-twice"),  # wants one, which is no matter of framing
    ("httptools", "method-of-32"),  # knows the registered methods only
    ("httptools", "method-lower-case"),
    ("waitress", "method-lower-case"),  # takes upper-case methods only
}

LARGE = 1 << 20

Message = namedtuple("Message", "method target version fields body")


class Cut(Exception):
    """The stream ends inside of a message."""


def framed(fields):
    return any(name.lower() in ("content-length", "transfer-encoding") for name, _ in fields)


def read_h11(data):
    connection = h11.Connection(h11.SERVER, max_incomplete_event_size=LARGE)
    connection.receive_data(data)
    while connection.trailing_data[0]:
        request = connection.next_event()
        if request is h11.NEED_DATA:
            raise Cut
        body = b""
        while type(event := connection.next_event()) is h11.Data:
            body += bytes(event.data)
        if event is h11.NEED_DATA:
            raise Cut
        fields = [(name.decode("latin-1"), value.decode("latin-1")) for name, value in request.headers]
        version = request.http_version.decode()
        yield Message(request.method.decode(), request.target.decode(), version, fields, body)
        connection.send(h11.Response(status_code=200, headers=[("content-length", "0")]))
        connection.send(h11.EndOfMessage())
        connection.start_next_cycle()


class Llhttp:
    """Gathers the callbacks of one stream."""

    def __init__(self):
        self.parser = httptools.HttpRequestParser(self)
        self.messages = []
        self.open = False

    def on_message_begin(self):
        self.open, self.target, self.fields, self.body = True, b"", [], b""

    def on_url(self, part):
        self.target += part

    def on_header(self, name, value):
        self.fields.append((name.decode("latin-1"), value.decode("latin-1")))

    def on_body(self, part):
        self.body += part

    def on_message_complete(self):
        self.open = False
        method, version = self.parser.get_method().decode(), self.parser.get_http_version()
        self.messages.append(Message(method, self.target.decode(), version, self.fields, self.body))


def read_httptools(data):
    reader = Llhttp()
    reader.parser.feed_data(data)
    yield from reader.messages
    if reader.open:
        raise Cut


def read_gunicorn(data):
    config = Config()
    config.set("http_parser", "python")
    config.set("permit_unconventional_http_method", True)
    config.set("header_map", "dangerous")  # takes names with an underscore
    config.set("limit_request_line", 0)
    config.set("limit_request_fields", 1000)
    config.set("limit_request_field_size", LARGE)
    try:
        for message in RequestParser(config, iter([data]), ("127.0.0.1", 1)):
            body = message.body.read()
            lengths = [int(value) for name, value in message.headers if name == "CONTENT-LENGTH"]
            if lengths and len(body) < lengths[0]:
                raise Cut
            version = "%d.%d" % message.version
            yield Message(message.method, message.uri, version, message.headers, body)
    except (NoMoreData, ChunkMissingTerminator) as error:
        # It tells the end of the stream and a chunk without line end by the same name.
        if getattr(error, "term", b""):
            raise
        raise Cut from error


def read_waitress(data):
    while data:
        parser = HTTPRequestParser(Adjustments(max_request_header_size=LARGE))
        while data and not parser.completed:
            data = data[parser.received(data) :]
        if parser.error:
            raise ValueError(parser.error.body)
        if not parser.completed:
            raise Cut
        fields = [(name.replace("_", "-"), value) for name, value in parser.headers.items()]
        body = parser.get_body_stream().read()
        yield Message(parser.command, parser.request_uri, parser.version, fields, body)


class Unclosed(io.BytesIO):
    """A stream that outlives the response read from it."""

    def makefile(self, _mode):
        return self

    def close(self):
        pass


class RequestHead(http.server.BaseHTTPRequestHandler):
    """The head of a request, as `http.server` reads it."""

    def __init__(self, stream):
        self.rfile = stream
        self.raw_requestline = stream.readline()
        self.client_address = ("127.0.0.1", 1)
        if not self.parse_request():
            raise ValueError("no request line")

    def handle_expect_100(self):
        return True

    def send_error(self, code, message=None, explain=None):
        raise ValueError(f"{code} {message}")


def read_cpython(data):
    # `http.server` leaves bodies to its user, so `http.client` reads the same bytes behind a status line.
    status = b"HTTP/1.1 200 OK\r\n"
    http.client._MAXHEADERS = 1000
    while data:
        line_end = data.find(b"\r\n") + 2
        if line_end < 2 or b"\r\n\r\n" not in data:
            raise Cut
        head = RequestHead(io.BytesIO(data))
        fields = head.headers.items()
        stream = Unclosed(status + data[line_end:])
        body = b""
        if framed(fields):
            response = http.client.HTTPResponse(stream)
            response.begin()
            try:
                body = response.read()
            except http.client.IncompleteRead as error:
                raise Cut from error
            data = stream.read()
        else:
            data = data[data.find(b"\r\n\r\n") + 4 :]
        version = head.request_version.removeprefix("HTTP/")
        yield Message(head.command, head.path, version, fields, body)


READERS = {
    "h11": read_h11,
    "httptools": read_httptools,
    "gunicorn": read_gunicorn,
    "waitress": read_waitress,
    "cpython": read_cpython,
}


def read(reader, data):
    """The whole messages, and whether the stream is cut."""
    messages = []
    try:
        messages.extend(READERS[reader](data))
    except Cut:
        return messages, True
    return messages, False


def comparable(message, of):
    """A message as the reader `of` would tell it: waitress joins the fields of one name, drops names with an underscore,
    and keeps its framing to itself."""
    fields = [(name.lower(), value) for name, value in message.fields]
    if of == "waitress":
        joined = {}
        for name, value in fields:
            if "_" not in name and name not in ("content-length", "transfer-encoding"):
                joined.setdefault(name, []).append(value)
        fields = sorted((name, ", ".join(values)) for name, values in joined.items())
    return message._replace(fields=fields)


def judge(name, data):
    faults = []
    readings = {}
    for reader in READERS:
        excused = (reader, name) in UNREAD
        try:
            readings[reader] = read(reader, data)
            if excused:
                faults.append(f"{reader} reads it after all")
        except Exception as error:
            if not excused:
                faults.append(f"{reader} refuses it: {type(error).__name__}: {error}")
    first, (messages, cut) = next(iter(readings.items()))
    for reader, (others, other_cut) in readings.items():
        ours = [comparable(message, reader) for message in messages]
        theirs = [comparable(message, reader) for message in others]
        if (ours, cut) != (theirs, other_cut):
            faults.append(f"{first} reads {ours}, cut: {cut}; {reader} reads {theirs}, cut: {other_cut}")
    if faults:
        return {"name": name, "faults": faults}
    told = [dict(message._asdict(), body=message.body.hex()) for message in messages]
    return {"name": name, "messages": told, "cut": cut}


json.dump([judge(stream["name"], bytes.fromhex(stream["bytes"])) for stream in json.load(sys.stdin)], sys.stdout)
