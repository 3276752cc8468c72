"""Damage to the bytes of a valid file, drawn from a generator: general, and by kind of file."""

import contextlib
import functools
import io
import json
import pickle
import random
import struct
import zipfile
import zlib
from collections.abc import Callable
from typing import Any

import numpy as np
from PIL import Image

from tests.fuzz.archives import of_archive

Damage = Callable[[bytes, random.Random], bytes]
INTEGERS = [
    0,
    1,
    -1,
    7,
    255,
    256,
    2**15,
    2**31 - 1,
    2**31,
    2**32 - 1,
    2**40,
    2**62,
    2**63 - 1,
    -(2**63),
]
VALUES: list[Any] = [
    *(None, True, "", "x", "a\nb", "../../x", "\u2028", 0.5, 1e999, -1e999, 10**30, [], {}, [[]]),
    *(*INTEGERS, [2**31, 2**31], [-1], [0], ["x"], {"x": 1}, "pipeline/errors.py", "torch", "I64"),
]


def picture(kind: str, size: tuple[int, int] = (13, 11), mode: str = "RGB") -> bytes:
    """Return a small image file."""
    pixels = np.random.default_rng(len(kind)).integers(0, 256, (*size[::-1], 3), dtype=np.uint8)
    file = io.BytesIO()
    Image.fromarray(pixels).convert(mode).save(file, kind)
    return file.getvalue()


@functools.cache
def foreign() -> tuple[bytes, ...]:
    """Return whole files of other kinds."""
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w") as file:
        file.writestr("../../escaped", "x")
    eps = (
        b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n(%pipe%touch executed) (w) file\n%%EOF\n"
    )
    return (
        *(picture(kind) for kind in ("PNG", "JPEG", "GIF", "BMP", "TIFF", "WEBP", "PPM", "ICO")),
        *(picture("PNG", mode=mode) for mode in ("L", "P", "1", "LA", "RGBA", "I;16")),
        *(picture("JPEG", mode=mode) for mode in ("L", "CMYK")),
        *(picture("TIFF", mode=mode) for mode in ("F", "I", "LAB")),
        *(picture("PNG", size) for size in ((1, 1), (1, 4000), (4000, 1), (2000, 2000))),
        *(eps, archive.getvalue(), b"", b"\0" * 100, b"\xff" * 100, b"{}", b"[]", b"null", b"\n"),
        *(b"<!DOCTYPE html><html></html>", "é,\n".encode("utf-16"), b"\xef\xbb\xbf", b"PK\x03\x04"),
        *(
            b"[" * 100_000,
            b"\x1f\x8b\x08",
            pickle.dumps({"a": [1]}),
            b"\x80\x02}q\x00.",
            b"x" * 10**6,
        ),
        zlib.compress(bytes(10**7), 9),
    )


@functools.cache
def zeros(size: int) -> bytes:
    return zlib.compress(bytes(size), 9)


def general(content: bytes, rng: random.Random) -> bytes:
    """Return ``content`` with bytes changed, cut, repeated or added, or another file."""
    data, length = bytearray(content), len(content)
    start = rng.randrange(length + 1)
    end = min(length, start + rng.choice([1, 2, 4, 8, 64, 1000]))
    kind = rng.randrange(9)
    if kind == 0:
        return content[:start]
    if kind == 1:
        return rng.choice(foreign())
    if kind == 2:
        del data[start:end]
    elif kind == 3:
        data[start:start] = data[start:end] * rng.choice([1, 3, 100])
    elif kind == 4:
        data[start:start] = rng.randbytes(rng.choice([1, 4, 100]))
    elif kind == 5:
        width = rng.choice([1, 2, 4, 8])
        value = rng.choice(INTEGERS) % 2 ** (8 * width)
        data[start : start + width] = value.to_bytes(width, rng.choice(["little", "big"]))
    elif kind == 6:
        data[start:end] = rng.randbytes(end - start)
    else:
        for _ in range(rng.choice([1, 1, 3, 20])):
            if length:
                data[rng.randrange(length)] ^= 1 << rng.randrange(8)
    return bytes(data)


def in_json(value: Any, rng: random.Random) -> Any:
    """Return a JSON value with one place of it changed, added or removed."""
    inside = list(value.items()) if isinstance(value, dict) else list(enumerate(value or ())) if (
        isinstance(value, list)) else []  # fmt: skip
    if not inside or rng.random() < 0.1:
        return rng.choice([*VALUES, value * 2 if isinstance(value, list) else 3])
    key, child = rng.choice(inside)
    changed = dict(value) if isinstance(value, dict) else list(value)
    if rng.random() < 0.1:
        del changed[key]
    elif isinstance(value, dict) and rng.random() < 0.05:
        changed[rng.choice(["", "x", "../x", "bytes", "input"])] = child
    else:
        changed[key] = in_json(child, rng)
    return changed


def of_json(content: bytes, rng: random.Random) -> bytes:
    return json.dumps(in_json(json.loads(content), rng)).encode()


def of_safetensors(content: bytes, rng: random.Random) -> bytes:
    """Return a safetensors file whose header lies, or the JSON text in its metadata."""
    length = int.from_bytes(content[:8], "little")
    header, rest = json.loads(content[8 : 8 + length]), content[8 + length :]
    texts = header.get("__metadata__", {})
    if texts and rng.random() < 0.6:
        key = rng.choice(list(texts))
        texts[key] = json.dumps(in_json(json.loads(texts[key]), rng))
        if rng.random() < 0.1:
            texts[key] = rng.choice(["", "[" * 100_000, "{}", "NaN", "3"])
    elif rng.random() < 0.5 and len(rest):
        rest = general(rest, rng)
    else:
        header = in_json(header, rng)
    coded = json.dumps(header).encode()
    coded += b" " * (-len(coded) % 8)
    claimed = rng.choice(INTEGERS) % 2**64 if rng.random() < 0.1 else len(coded)
    return claimed.to_bytes(8, "little") + coded + rest


def of_npy(content: bytes, rng: random.Random) -> bytes:
    """Return a .npy file whose header has another shape, type or length."""
    end = 10 + int.from_bytes(content[8:10], "little")
    shape = rng.choice(["(20, 5, 5, 3)", "(-1,)", "()", "(2**40,)", "(1099511627776, 5, 5)",
                        "(20,)", "(0, 5, 5, 3)",
                        "'x'", "(1,)*99", "(20, 0, 5, 3)", "(5, 5, 5, 3)"])  # fmt: skip
    kind = rng.choice(["|u1", "|O", "<f8", "<i8", "|S3", "[('a', '<i4')]", "x", "<M8[s]", ">u8"])
    order = rng.choice(["False", "True", "x"])
    header = f"{{'descr': {kind!r}, 'fortran_order': {order}, 'shape': {shape}, }}".encode()
    header += b" " * (-(len(header) + 11) % 64) + b"\n"
    return content[:8] + len(header).to_bytes(2, "little") + header + content[end:]


def of_image(content: bytes, rng: random.Random) -> bytes:
    """Return an image whose header claims another size, with the right check sums."""
    sides = [rng.choice([0, 1, 9, 9000, 9400, 13000, 30000, 65535]) for _ in range(2)]
    if content[:4] == b"\x89PNG":
        sides = [rng.choice([*sides, 2**31 - 1]) for _ in range(2)]
        depth = rng.choice(
            [content[24:29], b"\x08\x02\0\0\0", b"\x10\x06\0\0\0", b"\x08\x03\0\0\1"]
        )
        header = b"IHDR" + struct.pack(">II", *sides) + depth
        rest = content[33:]
        if rng.random() < 0.5:  # as many zeros as it claims, up to 64 MB
            row = zlib.compress(b"\0" * min(sides[0] * sides[1] * 3 + sides[1], 50_000_000), 9)
            rest = _chunk(b"IDAT" + row) + _chunk(b"IEND")
        return content[:8] + _chunk(header) + rest
    data = bytearray(content)
    if content[:2] == b"\xff\xd8":
        start = next(
            (content.find(mark) for mark in (b"\xff\xc0", b"\xff\xc2") if mark in content), -1
        )
        data[start + 5 : start + 9] = struct.pack(">HH", *sides)
    elif content[:2] == b"BM":
        data[18:26] = struct.pack(
            "<ii", rng.choice(INTEGERS) % 2**31, rng.choice([9, -9, 2**31 - 1])
        )
    elif content[:3] == b"GIF":
        data[6:10] = struct.pack("<HH", *sides)
    elif content[:2] == b"P6":
        return b"P6\n%d %d\n255\n" % tuple(sides) + content[-30:]
    else:
        return general(content, rng)
    return bytes(data)


def _chunk(body: bytes) -> bytes:
    return struct.pack(">I", len(body) - 4) + body + struct.pack(">I", zlib.crc32(body))


class Payload:
    """Its pickle makes the file ``executed`` when it is loaded without limits."""

    def __reduce__(self) -> tuple[Any, ...]:
        return exec, ("open('executed', 'w').close()",)


def of_pickle(content: bytes, rng: random.Random) -> bytes:
    """Return a batch with other values, a payload, or sizes that lie."""
    batch = pickle.loads(content, encoding="latin1")
    key = rng.choice(list(batch))
    odd = [np.zeros((2, 3072), np.float32), np.zeros(3, np.uint8), np.array([Payload()], object),
           [-1], [10**30], [0.5], ["x"], [None], {"x": 1}, "text", None, [[1]], [True] * 3,
           [99] * 3, Payload()]  # fmt: skip
    if rng.random() < 0.3:
        batch.pop(key)
    else:
        batch[key] = rng.choice(odd)
    coded = pickle.dumps(batch, protocol=rng.randrange(5))
    opcode = rng.choice(
        [b"r\xff\xff\xff\x7f", b"X\xff\xff\xff\xff", b"\x8d" + b"\xff" * 8, b"N0", b""]
    )
    array = (  # _reconstruct(ndarray, (10**12,), 'b')
        b"cnumpy.core.multiarray\n_reconstruct\n(cnumpy\nndarray\n(L1000000000000L\ntU\x01btR."
    )
    return rng.choice([coded, coded[:2] + opcode + coded[2:], array, coded])


def of_text(content: bytes, rng: random.Random) -> bytes:
    """Return a text with lines changed, other encodings or odd numbers."""
    lines = content.split(b"\n")
    row = rng.randrange(len(lines))
    words = lines[row].split(b" ") or [b""]
    odd = [b"", b"\xff\xfe", b"\0", b"9" * 5000, b"1e5", b"-", b"\xe2\x80\xa8", b"\r", b"\x85",
           b'"', b",", b"../../x.jpg", b"x" * 10**5, "é".encode("latin1"), b"nan", b"2", b"-7",
           b"n01440764 a, b"]  # fmt: skip
    kind = rng.randrange(6)
    if kind == 0:
        lines[row : row + 1] = []
    elif kind == 1:
        lines[row : row + 1] = [lines[row]] * rng.choice([2, 50])
    elif kind == 2:
        with contextlib.suppress(UnicodeDecodeError):
            return content.decode().encode(rng.choice(["utf-16", "utf-32", "utf-8-sig", "utf-7"]))
    elif kind == 3:
        lines[row] = rng.choice(odd)
    else:
        words[rng.randrange(len(words))] = rng.choice(odd)
        lines[row] = b" ".join(words)
    return b"\n".join(lines)


def of_zip(content: bytes, rng: random.Random) -> bytes:
    """Return an archive, such as torch.save writes, with one member changed."""
    result = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(content)) as old, zipfile.ZipFile(result, "w") as new:
        names = old.namelist()
        chosen = rng.choice(names)
        for name in names:
            data = old.read(name)
            if name == chosen:
                data = rng.choice(
                    [pickle.dumps(Payload()), general(data, rng), general(data, rng), b""]
                )
            new.writestr(name, data)
    return result.getvalue()


KINDS: dict[str, Damage] = {
    **dict.fromkeys((".json",), of_json),
    **dict.fromkeys((".safetensors",), of_safetensors),
    **dict.fromkeys((".npy",), of_npy),
    **dict.fromkeys((".png", ".jpg", ".JPEG", ".bmp", ".gif", ".ppm", ".tif", ".webp"), of_image),
    **dict.fromkeys((".txt", ".csv", ".en", ".de", ".yaml", ".jsonl"), of_text),
    **dict.fromkeys((".pt", ".pth"), of_zip),
    **dict.fromkeys((".gz", ".0"), lambda content, rng: of_archive(content, rng, damaged, general)),
    "": of_pickle,
}


def damaged(content: bytes, suffix: str, rng: random.Random) -> bytes:
    """Return ``content`` with damage that fits to its kind, or any."""
    if rng.random() < 0.6 and suffix in KINDS:
        with contextlib.suppress(zipfile.BadZipFile):  # an old .pth
            return KINDS[suffix](content, rng)
    return general(content, rng)
