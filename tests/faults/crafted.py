"""Files that a liar wrote: the digest is right, and what it vouches for is wrong."""

import hashlib
import json

import numpy as np

LIKE = {"x": np.zeros((2, 3), np.float32), "n": np.zeros((), np.int32)}
PAYLOAD = bytes(28)

_N = {"path": "['n']", "dtype": "int32", "shape": [], "nbytes": 4}
_X = {"path": "['x']", "dtype": "float32", "shape": [2, 3], "nbytes": 24}
_GOOD = {"format": 1, "meta": {}, "leaves": [_N, _X]}


def pack(header, payload=PAYLOAD, length=None, magic=b"SHOAL1"):
    """Put a file together, with its true digest, from a header as JSON text or as an object."""
    if not isinstance(header, bytes):
        header = json.dumps(header).encode()
    length = len(header) if length is None else length
    content = magic + length.to_bytes(8, "little") + header + payload
    return content + hashlib.sha256(content).digest()


def unpack(content):
    """Take a whole file apart: header and payload."""
    length = int.from_bytes(content[6:14], "little")
    return json.loads(content[14 : 14 + length]), content[14 + length : -32]


def good():
    return pack(_GOOD)


def _leaf(**changes):
    """Change the record of ['x']; None takes an entry out."""
    record = {name: value for name, value in {**_X, **changes}.items() if value is not None}
    return pack({**_GOOD, "leaves": [_N, record]})


def _text(old, new):
    """Change the header's text, whatever JSON may think of it."""
    header = json.dumps(_GOOD).encode()
    assert old in header
    return pack(header.replace(old, new, 1))


_SHAPES = {
    "negative": [-2, -3], "one negative": [2, -3], "minus one": [-1], "huge": [2**60],
    "product overflows to 0": [2**32, 2**32], "overflow to the true size": [2**62 + 2, 3],
    "beyond 64 bits": [2**64, 3], "googol": [10**100, 6], "huge but empty": [0, 2**62],
    "many huge": [2**40] * 32, "bool": [True, 6], "floats": [2.0, 3.0], "text": ["2", "3"],
    "nested": [[2, 3]], "null": [None], "object": {"0": 2}, "number": 6, "word": "23",
    "64 axes": [1] * 62 + [2, 3], "100000 axes": [1] * 100_000, "other": [3, 2], "flat": [6],
    "one less": [2, 2], "one more": [2, 4], "scalar": [], "true": True, "infinite": [float("inf")],
    "NaN": [float("nan")],
}  # fmt: skip
_DTYPES = (
    "object", "O", "|O", "V4", "void", "U1", "str", "S4", "bytes", "M8[s]", "datetime64[ns]", "m8",
    ">f4", "<f4", "=f4", "f4", "float", "int", "float128", "longdouble", "int4", "float8_e5m2",
    "key<fry>", "Float32", "float32 ", "", "f4,f4", "(2,3)f4", "i4, (2,3)f4", "numpy.float32",
    "__import__('os').system('true')", "os.system", "\ud800", "float32\x00", "\uff11",
    3, None, True, ["float32"], {"names": ["a"], "formats": ["O"]}, [["a", "O"]],
)  # fmt: skip
_NBYTES = (
    0, 23, 25, -24, 24.0, True, "24", None, [24], 2**60, 2**63, 2**64 + 24, -(2**63), 1e308,
    float("nan"), float("inf"), {},
)  # fmt: skip
_PATHS = (
    "../../etc/passwd", "/etc/passwd", "..\\..\\x", "['x']/../..", "file:///etc/passwd", "",
    "['n']", "x", "['X']", "['x'] ", "\x00", "['x']\x00", "\ud800\udfff", "\u202e]'x'[", "%s%n{0}",
    "[" * 10_000, 3, None, True, [], ["['x']"], {"x": 1},
)  # fmt: skip
_GENERATORS = (
    "threefry2x32", "nonsense", "os.system", "", "\ud800", 3, None, True, [], {}, "fry", "key<fry>",
)  # fmt: skip
_HEADERS = {
    "empty": b"", "space": b" ", "null": b"null", "number": b"1", "text": b'"SHOAL1"',
    "list": b"[]", "object": b"{}", "two": b"{}{}", "unfinished": b'{"format": 1',
    "NUL": b"\0" * 50, "no JSON": b"(lambda: 1)()", "Python": b"{'format': 1}",
    "pickle": b"cos\nsystem\n(S'true'\ntR.",
    "UTF-8 that is none": b'{"\xff\xfe": 1}', "UTF-16": json.dumps(_GOOD).encode("utf-16")[:-1],
    "only BOM": b"\xef\xbb\xbf", "deep lists": b"[" * 200_000,
    "deep closed": b"[" * 9_000 + b"]" * 9_000,
    "deep objects": b'{"a":' * 100_000, "huge number": b"9" * 100_000, "exponent": b"1e999999",
    "minus": b"-", "NaN": b"NaN", "random": np.random.default_rng(0).bytes(3000),
    "many lists": b"[" + b"[]," * 340_000 + b"[]]",
    "many words": b"[" + b'"ab",' * 200_000 + b'""]',
    "beyond the limit": b"[" + b"[]," * 350_000 + b"[]]",
}  # fmt: skip
_TEXTS = {
    "meta deep": (b'"meta": {}', b'"meta": {"a": ' + b"[" * 50_000 + b"]" * 50_000 + b"}"),
    "meta huge number": (b'"meta": {}', b'"meta": {"a": ' + b"7" * 50_000 + b"}"),
    "shape huge number": (b"[2, 3]", b"[" + b"2" * 50_000 + b", 3]"),
    "shape long product": (b"[2, 3]", b"[" + b", ".join([b"9" * 4000] * 32) + b"]"),
    "shape in hexadecimal": (b"[2, 3]", b"[0x2, 3]"),
    "shape minus zero": (b"[2, 3]", b"[-0, 3]"),
    "name twice": (b'"dtype": "float32"', b'"dtype": "float32", "dtype": "object"'),
    "comment": (b'"meta"', b'/* */ "meta"'),
    "trailing comma": (b'"meta": {}', b'"meta": {},,'),
}
_WHOLE = {
    "format 2": {**_GOOD, "format": 2},
    "format 0": {**_GOOD, "format": 0},
    "format a word": {**_GOOD, "format": "1"},
    "format NaN": {**_GOOD, "format": float("nan")},
    "format a list": {**_GOOD, "format": [1]},
    "no format": {"meta": {}, "leaves": [_N, _X]},
    "no meta": {"format": 1, "leaves": [_N, _X]},
    "no leaves": {"format": 1, "meta": {}},
    "a leaf twice": {**_GOOD, "leaves": [_N, _N, _X]},
    "a leaf twice, of one size": {**_GOOD, "leaves": [_N, {**_X, "path": "['n']"}]},
    "a leaf too many": {**_GOOD, "leaves": [_N, _X, {**_N, "path": "['m']"}]},
    "an empty leaf too many": {
        **_GOOD, "leaves": [_N, _X, {**_N, "path": "['m']", "shape": [0], "nbytes": 0}]
    },
    "a leaf too few": {**_GOOD, "leaves": [_X]},
    "none of the leaves": {**_GOOD, "leaves": []},
    "sizes that cancel": {
        **_GOOD, "leaves": [{**_N, "nbytes": 2**60}, {**_X, "nbytes": 28 - 2**60}]
    },
}  # fmt: skip
_WRONG_TYPES = (None, 1, True, "text", 1.5)


def headers():
    """Return the files by name; each must be refused as a checkpoint like `LIKE`."""
    files = {f"header {name}": pack(text) for name, text in _HEADERS.items()}
    files |= {f"text: {name}": _text(*change) for name, change in _TEXTS.items()}
    files |= {name: pack(header) for name, header in _WHOLE.items()}
    files |= {f"shape {name}": _leaf(shape=shape) for name, shape in _SHAPES.items()}
    files |= {f"dtype {dtype!r}": _leaf(dtype=dtype) for dtype in _DTYPES}
    files |= {f"nbytes {nbytes!r}": _leaf(nbytes=nbytes) for nbytes in _NBYTES}
    files |= {f"path {str(path)[:20]!r} {i}": _leaf(path=path) for i, path in enumerate(_PATHS)}
    for generator in _GENERATORS:
        if generator is not None:
            files[f"generator {generator!r}"] = _leaf(generator=generator)
            files[f"generator {generator!r} of words"] = _leaf(dtype="uint32", generator=generator)
    for wrong in _WRONG_TYPES:
        files[f"meta {wrong!r}"] = pack({**_GOOD, "meta": wrong})
        files[f"leaves {wrong!r}"] = pack({**_GOOD, "leaves": wrong})
        files[f"leaf {wrong!r}"] = pack({**_GOOD, "leaves": [wrong, _X]})
    files["leaf a list"] = pack({**_GOOD, "leaves": [[], _X]})
    files["leaves an object"] = pack({**_GOOD, "leaves": {"0": _N, "1": _X}})
    for length in (0, 1, 2**31, 2**32, 2**60, 2**63, 2**64 - 1):
        files[f"header length {length}"] = pack(_GOOD, length=length)
    for change in (-1, 1, 28, 29, 60, 61):
        files[f"header length {change:+}"] = pack(_GOOD, length=len(json.dumps(_GOOD)) + change)
    files["a leaf twice, both there"] = pack({**_GOOD, "leaves": [_N, _N, _X]}, PAYLOAD + bytes(4))
    files["payload missing"] = pack(_GOOD, b"")
    files["payload short"] = pack(_GOOD, PAYLOAD[:-1])
    files["payload long"] = pack(_GOOD, PAYLOAD + b"\0")
    for magic in (b"SHOAL0", b"SHOAL2", b"shoal1", b"PK\3\4\0\0", bytes(6)):
        files[f"magic {magic!r}"] = pack(_GOOD, magic=magic)
    return files
