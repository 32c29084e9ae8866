"""What a compiled loop over bytes needs and numba has no name for: a test of 64 words at once, and unaligned stores.

The first becomes vector comparisons, the last one instruction each; written as loops over single words or bytes, both
took most of the time of a frame (`frames.py`).
"""

from typing import Any

from llvmlite import ir  # type: ignore[import-untyped]
from numba import types
from numba.extending import intrinsic

BITS = 64
"""Words that `nonzero_bits` looks at."""


@intrinsic
def nonzero_bits(typing, words, start):  # type: ignore[no-untyped-def]
    """uint64 whose bit k is set when `words[start + k]` is not zero, for k from 0 to 63.

    `words` is a contiguous array of unsigned integers that holds 64 words from `start` on.
    """
    signature = types.uint64(words, types.intp)

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        kind = signature.args[0]
        vector = ir.VectorType(context.get_value_type(kind.dtype), BITS)
        place = _place(context, builder, kind, *arguments)
        loaded = builder.load(builder.bitcast(place, vector.as_pointer()))
        loaded.align = kind.dtype.bitwidth // 8
        differs = builder.icmp_unsigned("!=", loaded, ir.Constant(vector, None))
        return builder.bitcast(differs, ir.IntType(BITS))

    return signature, generate


@intrinsic
def trailing_zeros(typing, bits):  # type: ignore[no-untyped-def]
    """Index of the lowest set bit of a uint64 that is not zero, int64."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return builder.cttz(arguments[0], ir.Constant(ir.IntType(1), 1))

    return types.int64(types.uint64), generate


@intrinsic
def store_word(typing, out, position, value):  # type: ignore[no-untyped-def]
    """Write all bytes of an unsigned integer, lowest first, into an array of uint8 from `position` on."""
    signature = types.void(out, types.intp, value)

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        array, position, value = arguments
        place = _place(context, builder, signature.args[0], array, position)
        builder.store(value, builder.bitcast(place, value.type.as_pointer()), align=1)
        return context.get_dummy_value()

    return signature, generate


def _place(context: Any, builder: Any, kind: Any, array: Any, index: Any) -> Any:
    return builder.gep(context.make_array(kind)(context, builder, array).data, [index])
