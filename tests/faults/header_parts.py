"""A sound model file's header taken apart into keys and tensors, changed in what it says, and written again.

Where header_fuzz.py damages bytes, this writes headers that are well formed and wrong: other types and counts, shapes
that contradict, lists of another length, numbers that make no sense, tensors in each other's place.
"""

import math
import random
import struct
from dataclasses import dataclass, field, replace

STRING, ARRAY, BOOL = 8, 9, 7
CODES = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "B", 10: "Q", 11: "q", 12: "d"}
SIZES = {kind: struct.calcsize(code) for kind, code in CODES.items()}
# ggml's tensor types as (weights, bytes) of a block: what the engine computes, and some that it does not
BLOCKS = {
    0: (1, 4), 1: (1, 2), 2: (32, 18), 3: (32, 20), 6: (32, 22), 7: (32, 24), 8: (32, 34), 10: (256, 84),
    11: (256, 110), 12: (256, 144), 13: (256, 176), 14: (256, 210), 16: (256, 66), 20: (32, 18), 23: (256, 136),
    26: (1, 4), 28: (1, 8), 30: (1, 2), 39: (32, 17),
}  # fmt: skip
NUMBERS = (
    0, 1, 2, 3, 5, 7, 8, 16, 31, 33, 64, 127, 255, 256, 1000, 4096, 65535, 1 << 20, (1 << 31) - 1, 1 << 31,
    (1 << 32) - 1, 1 << 33, 1 << 62, (1 << 63) - 1, (1 << 64) - 1, -1, -2, -128, -(1 << 31), -(1 << 63),
    0.0, -0.0, 0.5, -1.5, 1e-45, 1e-9, 1.0, 10000.0, 1e9, 1e38, -1e38, math.inf, -math.inf, math.nan,
)  # fmt: skip
TEXTS = (
    b"", b"llama", b"qwen2", b"qwen3", b"phi3", b"gemma3", b"granite", b"smollm3", b"mistral3", b"gpt2", b"bert",
    b"none", b"linear", b"yarn", b"longrope", b"default", b"llama-bpe", b"\xff\xfe", b"\0", b"a\nb\x1b[2J", b"x" * 2000,
    b"{{ 'a' * 10 ** 9 }}", b"{% for i in range(10 ** 9) %}{% endfor %}", b"{{ messages", b"{{" + b"(" * 3000,
    b"{% if true %}" * 500, b"{{ messages[0].__class__.__mro__ }}", "\U0001f600é".encode() * 50,
)  # fmt: skip
LARGEST = 64 << 20  # bytes of a file, all of it a hole


@dataclass
class Value:
    """A value of a key. Arrays hold raw elements: numbers packed, strings without their length."""

    kind: int
    raw: bytes = b""
    element: int = 0
    elements: list = field(default_factory=list)
    count: int | None = None  # said in place of the elements' number

    def packed(self):
        if self.kind == STRING:
            return struct.pack("<Q", len(self.raw)) + self.raw
        if self.kind != ARRAY:
            return self.raw
        count = len(self.elements) if self.count is None else self.count
        parts = [struct.pack("<IQ", self.element, count & ((1 << 64) - 1))]
        for element in self.elements:
            if self.element == STRING:
                parts.append(struct.pack("<Q", len(element)))
            parts.append(element)
        return b"".join(parts)


@dataclass
class Tensor:
    name: bytes
    dims: list
    type: int
    offset: int

    @property
    def size(self):
        weights, size = BLOCKS.get(self.type, (1, 1))
        return -(-math.prod(self.dims) // weights) * size


class Parts:
    """A header's version, keys (a list, so that one may be there twice) and tensors."""

    def __init__(self, raw):
        self._raw, self._at = raw, 4
        self.version = self._take("I")
        tensors, keys = self._take("Q"), self._take("Q")
        self.keys = [[self._text(), self._value(self._take("I"))] for _ in range(keys)]
        self.tensors = []
        for _ in range(tensors):
            name = self._text()
            dims = [self._take("Q") for _ in range(self._take("I"))]
            self.tensors.append(Tensor(name, dims, self._take("I"), self._take("Q")))
        self.alignment = 32

    def _take(self, code):
        size = struct.calcsize(code)
        self._at += size
        return struct.unpack_from("<" + code, self._raw, self._at - size)[0]

    def _bytes(self, size):
        self._at += size
        return self._raw[self._at - size : self._at]

    def _text(self):
        return self._bytes(self._take("Q"))

    def _value(self, kind):
        if kind == STRING:
            return Value(kind, self._text())
        if kind != ARRAY:
            return Value(kind, self._bytes(SIZES[kind]))
        element, count = self._take("I"), self._take("Q")
        read = self._text if element == STRING else lambda: self._bytes(SIZES[element])
        return Value(kind, element=element, elements=[read() for _ in range(count)])

    def copy(self):
        """One that may be changed: lists of elements are shared, and replaced rather than written to."""
        other = object.__new__(Parts)
        other.version, other.alignment = self.version, self.alignment
        other.keys = [[name, replace(value)] for name, value in self.keys]
        other.tensors = [replace(tensor, dims=tensor.dims.copy()) for tensor in self.tensors]
        return other

    def lay_out(self):
        """Give every tensor a place of its own, as if the file had been written with what the header says now."""
        at = 0
        for tensor in self.tensors:
            tensor.offset = at
            at += -(-tensor.size // self.alignment) * self.alignment

    def packed(self):
        """(header, length of a file that holds all tensors)."""
        out = [b"GGUF", struct.pack("<IQQ", self.version & 0xFFFFFFFF, len(self.tensors), len(self.keys))]
        for name, value in self.keys:
            out += [struct.pack("<Q", len(name)), name, struct.pack("<I", value.kind), value.packed()]
        for t in self.tensors:
            out += [struct.pack("<Q", len(t.name)), t.name, struct.pack("<I", len(t.dims))]
            out += [struct.pack("<Q", d % (1 << 64)) for d in t.dims]
            out.append(struct.pack("<IQ", t.type, t.offset % (1 << 64)))
        header = b"".join(out)
        data = -(-len(header) // self.alignment) * self.alignment
        end = max((t.offset + t.size for t in self.tensors), default=0)
        return header, min(max(len(header), data + end), LARGEST)


def number(kind, value):
    """A number as a kind of value has it, wrapped or cut where it does not fit."""
    code = CODES[kind]
    if code in "fd":
        try:
            return struct.pack("<" + code, float(value))
        except OverflowError:
            return struct.pack("<" + code, math.inf)
    if isinstance(value, float):
        value = int(value) if math.isfinite(value) else 0
    bits = 8 * SIZES[kind]
    return (value % (1 << bits)).to_bytes(bits // 8, "little")


def some_value(rng):
    """A value of any kind."""
    kind = rng.choice((*CODES, STRING, STRING, ARRAY, ARRAY))
    if kind == STRING:
        return Value(kind, rng.choice(TEXTS))
    if kind != ARRAY:
        return Value(kind, number(kind, rng.choice(NUMBERS)))
    element = rng.choice((*CODES, STRING, ARRAY, 13, 99))
    count = rng.choice((0, 1, 2, 3, 500, 512, 4096))
    if element == STRING:
        return Value(kind, element=element, elements=[rng.choice(TEXTS[:12]) for _ in range(count)])
    if element in CODES:
        return Value(kind, element=element, elements=[number(element, rng.choice(NUMBERS)) for _ in range(count)])
    nested = Value(ARRAY, element=4, elements=[number(4, 1)])
    for _ in range(rng.choice((0, 1, 5, 1000))):  # arrays of arrays of arrays
        nested = Value(ARRAY, element=ARRAY, elements=[nested.packed()])
    return Value(ARRAY, element=element, elements=[nested.packed()] * count)


# --- one change each: (parts, dice) -> nothing ------------------------------------------------------------------------


def _change_number(parts, rng):
    _, value = rng.choice(parts.keys)
    if value.kind in CODES:
        value.raw = number(value.kind, rng.choice(NUMBERS))


def _change_sizes(parts, rng):
    """Several of the numbers that make the shape, by little."""
    for name, value in parts.keys:
        if value.kind in (4, 5, 10, 11) and b"tokenizer" not in name and rng.random() < 0.3:
            before = struct.unpack("<" + CODES[value.kind], value.raw)[0]
            changed = rng.choice((before + 1, before - 1, 2 * before, before // 2, 3 * before, before))
            value.raw = number(value.kind, changed)


def _change_value(parts, rng):
    rng.choice(parts.keys)[1] = some_value(rng)


def _change_kind(parts, rng):
    """The same number as another kind."""
    pair = rng.choice(parts.keys)
    value = pair[1]
    if value.kind in CODES:
        kind = rng.choice(list(CODES))
        pair[1] = Value(kind, number(kind, struct.unpack("<" + CODES[value.kind], value.raw)[0]))


def _change_text(parts, rng):
    texts = [value for _, value in parts.keys if value.kind == STRING]
    rng.choice(texts).raw = rng.choice(TEXTS)


def _change_list(parts, rng):
    """A list of the tokenizer's, or another: shorter, longer, empty, of other elements, or said to be so."""
    lists = [value for _, value in parts.keys if value.kind == ARRAY]
    if not lists:
        return
    value = rng.choice(lists)
    elements = value.elements
    how = rng.randrange(9)
    if how == 0:
        value.elements = elements[: rng.choice((0, 1, len(elements) // 2, max(0, len(elements) - 1)))]
    elif how == 1:
        value.elements = elements + elements[: rng.choice((1, 2, len(elements)))]
    elif how == 2:
        value.count = rng.choice((0, 1, len(elements) + 1, len(elements) - 1, 1 << 32, (1 << 64) - 1))
    elif how == 3:
        value.elements = elements[:1] * len(elements)
    elif how == 4:
        value.elements = rng.sample(elements, len(elements))
    elif how == 5:
        value.element = rng.choice((*CODES, STRING, ARRAY))  # the bytes stay
    elif how == 6 and value.element == STRING:
        kind = rng.choice(list(CODES))
        value.element, value.elements = kind, [number(kind, i) for i in range(len(elements))]
    elif how == 6:
        value.element, value.elements = STRING, [b"%d" % i for i in range(len(elements))]
    elif elements:
        changed = elements.copy()
        for _ in range(rng.choice((1, 1, 20))):
            at = rng.randrange(len(changed))
            numeric = value.element in CODES
            changed[at] = number(value.element, rng.choice(NUMBERS)) if numeric else rng.choice(TEXTS)
        value.elements = changed


def _change_keys(parts, rng):
    """A key gone, twice, under another name, or with another's value."""
    at, other = rng.randrange(len(parts.keys)), rng.randrange(len(parts.keys))
    how = rng.randrange(5)
    if how == 0:
        del parts.keys[at]
    elif how == 1:
        parts.keys.append([parts.keys[at][0], replace(parts.keys[other][1])])
    elif how == 2:
        parts.keys[at][0] = rng.choice((b"", b"\xff", b"k" * 2000, parts.keys[other][0], b"split.count"))
    elif how == 3:
        parts.keys[at][1], parts.keys[other][1] = parts.keys[other][1], parts.keys[at][1]
    else:
        rng.shuffle(parts.keys)


def _add_key(parts, rng):
    """A key that the engine knows, and that this file has not."""
    arch = next((value.raw for name, value in parts.keys if name == b"general.architecture"), b"llama")
    names = (
        b"attention.key_length", b"attention.value_length", b"attention.head_count_kv", b"rope.dimension_count",
        b"rope.freq_base", b"rope.scaling.type", b"rope.scaling.factor", b"rope.scaling.original_context_length",
        b"rope.scaling.attn_factor", b"rope.scaling.yarn_beta_fast", b"rope.scaling.yarn_log_multiplier",
        b"attention.sliding_window", b"attention.sliding_window_pattern", b"attention.scale", b"logit_scale",
        b"residual_scale", b"embedding_scale", b"attention.temperature_scale", b"expert_count",
        b"final_logit_softcapping", b"rope.freq_base_swa", b"rope.scaling.finetuned", b"context_length",
    )  # fmt: skip
    others = (b"general.alignment", b"split.count", b"tokenizer.ggml.pre", b"tokenizer.ggml.add_space_prefix")
    name = rng.choice((*(arch + b"." + name for name in names), *others))
    parts.keys.append([name, some_value(rng)])


def _change_tensor(parts, rng):
    tensor, other = rng.choice(parts.tensors), rng.choice(parts.tensors)
    how = rng.randrange(13)
    if how <= 1:
        tensor.type = rng.choice((*BLOCKS, *range(45), (1 << 32) - 1))
    elif how == 2:
        tensor.dims.reverse()
    elif how == 3:
        at = rng.randrange(len(tensor.dims))
        size = tensor.dims[at]
        tensor.dims[at] = rng.choice((0, 1, 2 * size, size // 2, size + 1, size + 32, 1 << 31, 1 << 40, 1 << 63))
    elif how == 4:
        tensor.dims = [*tensor.dims, *rng.choice(((1,), (2,), (1, 1), (1, 1, 1, 1), (0,)))]
    elif how == 5:
        tensor.dims = tensor.dims[:-1]
    elif how == 6:
        tensor.offset = other.offset + rng.choice((0, 0, 32, -32, 1, 1 << 20, 1 << 62))
    elif how == 7:
        tensor.name = rng.choice((b"", b"\xff", b"n" * 2000, other.name, b"blk.0.attn_q.lora_a", b"output.weight"))
    elif how == 8:
        tensor.name, other.name = other.name, tensor.name
    elif how == 9:
        parts.tensors.remove(tensor)
    elif how == 10:
        parts.tensors.append(replace(tensor, name=rng.choice((tensor.name, b"rope_freqs.weight", b"output.bias"))))
    elif how == 11:
        tensor.offset, other.offset = other.offset, tensor.offset
    else:
        rng.shuffle(parts.tensors)


def _change_types(parts, rng):
    """Many tensors of other types, and the file laid out for them: sound, where rows and types allow."""
    kinds = rng.sample(list(BLOCKS), rng.choice((1, 2, 4)))
    for tensor in parts.tensors:
        if len(tensor.dims) == 2 and rng.random() < 0.7:
            tensor.type = rng.choice(kinds)
        elif rng.random() < 0.1:
            tensor.type = rng.choice((0, 1, 30))
    parts.lay_out()


_CHANGES = (
    _change_number, _change_number, _change_sizes, _change_value, _change_kind, _change_text, _change_list,
    _change_list, _change_keys, _add_key, _add_key,
)  # fmt: skip
_TENSOR_CHANGES = (_change_tensor, _change_tensor, _change_types)


def rewritten(sound: Parts, rng: random.Random) -> tuple[bytes, int]:
    """(header, length of the file) of a copy with one to four things changed, in a version that the reader takes."""
    parts = sound.copy()
    parts.version = rng.choice((2, 3)) if rng.random() < 0.98 else rng.choice((0, 1, 4, 0x03000000, 0xFFFFFFFF))
    for _ in range(rng.choice((1, 1, 2, 4))):
        if not parts.keys:
            break
        changes = _TENSOR_CHANGES if parts.tensors and rng.random() < 0.4 else _CHANGES
        rng.choice(changes)(parts, rng)
    if parts.tensors and rng.random() < 0.2:
        parts.lay_out()
    return parts.packed()
