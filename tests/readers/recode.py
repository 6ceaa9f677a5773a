"""Encodes and decodes content codings with libraries that share no code with the gateway's, and strictly.

On stdin, `{"do": "encode" | "decode" | "begin", "coding", "bytes": HEX, "times"}`, where `times` repeats the bytes; on
stdout, HEX, or null where they are not one whole stream. `begin` decodes what there is of a stream that goes on.
"""

import json
import sys
import zlib

import brotli
import zstandard

ZLIB = {"gzip": 31, "deflate": 15}


def encode(coding, data):
    if coding == "br":
        return brotli.compress(data)
    if coding == "zstd":
        return zstandard.ZstdCompressor().compress(data)
    if coding == "zstd-wide":  # with a window of 16 MiB
        parameters = zstandard.ZstdCompressionParameters(window_log=24)
        encoder = zstandard.ZstdCompressor(compression_params=parameters).compressobj()
        return encoder.compress(data) + encoder.flush()
    if coding == "br-wide":  # with a window of 16 MiB, the largest there is
        return brotli.compress(data, lgwin=24)
    encoder = zlib.compressobj(wbits=ZLIB[coding])
    return encoder.compress(data) + encoder.flush()


def decode(coding, data, whole):
    if coding == "br":
        decoder = brotli.Decompressor()
        decoded = decoder.process(data)
        ended = decoder.is_finished()
    elif coding == "zstd":
        decoder = zstandard.ZstdDecompressor(max_window_size=8 << 20).decompressobj()
        decoded = decoder.decompress(data)
        ended = decoder.eof and not decoder.unused_data
    else:
        decoder = zlib.decompressobj(ZLIB[coding])
        decoded = decoder.decompress(data)
        ended = decoder.eof and not decoder.unused_data
    return decoded if ended == whole else None


def run(task):
    data = bytes.fromhex(task["bytes"]) * task["times"]
    if task["do"] == "encode":
        return encode(task["coding"], data)
    try:
        return decode(task["coding"], data, task["do"] == "decode")
    except (brotli.error, zlib.error, zstandard.ZstdError):
        return None


answer = run(json.load(sys.stdin))
json.dump(None if answer is None else answer.hex(), sys.stdout)
