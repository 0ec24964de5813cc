"""The bytes that a program compiled by XLA moves, from its text.

Of an operation at the top level: all that it is given and all that it makes, once. What
happens inside a fusion stays in registers and is not counted.
"""

import math
import re
from collections import Counter
from typing import Any

KINDS = ("group norm", "convolutions", "weight standardisation", "rest")
SIZES = {"bf16": 2, "f16": 2, "f32": 4, "s32": 4, "u32": 4, "f64": 8, "s64": 8}
SIZES |= {"u64": 8, "pred": 1, "u8": 1, "s8": 1, "u16": 2, "s16": 2, "token": 0}
LINE = re.compile(r"\s+(?:ROOT )?%([\w.-]+) = (.*?) ([a-z][\w-]*)\((.*?)\)(.*)")
BODY = re.compile(r"^%([\w.-]+) \(.*?\{\n(.*?)^\}", re.MULTILINE | re.DOTALL)
FREE = {"parameter", "constant", "get-tuple-element", "tuple", "bitcast"}


def moved(text: str) -> dict[str, Any]:
    """{"bytes": {kind: bytes}, "again": what Pallas kernels are given}.

    A Pallas kernel may read what it is given once more, hence "again".
    """
    bodies = dict(BODY.findall(text))
    entry = re.sub(r"/\*.*?\*/", "", text[text.index("\nENTRY") :])
    sizes: dict[str, int] = {}
    found, again = dict.fromkeys(KINDS, 0), 0
    for line in entry.splitlines():
        if not (match := LINE.match(line)):
            continue
        name, made, operation, operands, rest = match.groups()
        sizes[name] = size(made)
        if operation in FREE:
            continue
        given = sum(sizes.get(n, 0) for n in re.findall(r"%([\w.-]+)", operands))
        found[kind(rest, bodies)] += given + sizes[name]
        again += given if 'custom_call_target="__gpu$xla.gpu.triton"' in rest else 0
    return {"bytes": found, "again": again}


def size(types: str) -> int:
    """Bytes of an array's type, or of a tuple's; KeyError for a dtype not in SIZES."""
    return sum(
        SIZES[dtype] * math.prod(int(n) for n in shape.split(",") if n)
        for dtype, shape in re.findall(r"(\w+)\[([\d,]*)\]", types)
    )


def kind(rest: str, bodies: dict[str, str]) -> str:
    """By the target of the call, else by where in the net it was traced.

    A fusion that makes several arrays says nothing itself: most of what it does decides.
    """
    if 'custom_call_target="__cudnn$conv' in rest:
        return "convolutions"
    names = re.findall(r'op_name="([^"]*)"', rest)
    if not names and (body := re.search(r"calls=%([\w.-]+)", rest)):
        names = re.findall(r'op_name="([^"]*)"', bodies.get(body[1], ""))
    votes = Counter(map(traced, names))
    return max(KINDS, key=lambda k: votes[k]) if votes else "rest"


def traced(name: str) -> str:
    """The kind of an operation by its name; state... is a parameter's and says nothing."""
    if "group_norm" in name and not name.startswith("state"):
        return "group norm"
    if "standardized_conv2d" in name and not name.startswith("state"):
        return "weight standardisation"
    return "convolutions" if "conv_general_dilated" in name else "rest"
