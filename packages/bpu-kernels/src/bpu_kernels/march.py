"""The marches and what each can do: one frozen row per march, every limit with the source of the fact.

Sources are keys into docs/numerics.md: ``M`` measured on the vendor's simulator, ``D`` documented by the toolkit. Where
the documented and the accepted set differ, the row holds the stricter one.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum, EnumMeta
from typing import Any

from .dtypes import QuantDType, qint8, qint16, qint32
from .errors import UnknownMarchError

__all__ = ["MARCHES", "Limit", "March", "MarchRow", "march_row"]


class _Marches(EnumMeta):
    """Says which marches there are where another one is asked for by name, such as ``March.NASH_E``."""

    def __getattr__(cls, name: str) -> Any:
        member = vars(cls).get("_member_map_", {}).get(name)
        if member is None:
            raise AttributeError(name) if name.startswith("_") else _unknown(f"March.{name}")
        return member


def _unknown(asked: str) -> UnknownMarchError:
    names = ", ".join(repr(march.value) for march in March)
    return UnknownMarchError(f"unknown march {asked}; supported are {names} (lower case, or the members of March)")


class March(str, Enum, metaclass=_Marches):
    """A generation of the BPU; its value is the name that the vendor's tools use."""

    BERNOULLI2 = "bernoulli2"
    BAYES = "bayes"
    BAYES_E = "bayes-e"

    def __str__(self) -> str:
        return self.value

    @classmethod
    def _missing_(cls, value: object) -> March:
        raise _unknown(repr(value))


@dataclass(frozen=True)
class Limit:
    """An inclusive range, or a set, of allowed values, and the source of the fact."""

    allowed: range | tuple[int, ...]
    source: str

    def __contains__(self, value: object) -> bool:
        return value in self.allowed

    def __str__(self) -> str:
        if isinstance(self.allowed, range):
            return f"{self.allowed.start}..{self.allowed.stop - 1}"
        return ", ".join(map(str, self.allowed))


def _upto(last: int, source: str, first: int = 1) -> Limit:
    return Limit(range(first, last + 1), source)


@dataclass(frozen=True, kw_only=True)
class MarchRow:
    """Everything that depends on the march: arithmetic, parameter ranges, operator limits."""

    march: March
    boards: str

    # Arithmetic (docs/numerics.md, section 1)
    rounds: bool
    """Whether convolution and its relatives round half up at the second shift; otherwise they floor."""
    adds_compensation: bool
    """Whether the compiler adds the constant (11) to add, mul, average pooling and rescale."""
    activations: tuple[QuantDType, ...]
    """Types that activations may have between operators."""

    # Parameter ranges (section 12)
    output_scale: Limit
    output_right_shift: Limit
    global_pool_right_shift: Limit
    accu_right_shift: Limit
    bias: QuantDType
    bias_left_shift: Limit
    sumin_scale: Limit
    sumin_left_shift: Limit
    add_sumin_scale: Limit
    input_left_shift: Limit
    input_scale: Limit
    add_shift_difference: Limit
    """input_left_shift - sumin_left_shift of an addition."""
    add_int16_shift_difference: Limit
    """The same where both operands are int16."""

    # Operator limits (section 13)
    kernel: Limit
    full_kernel: Limit
    """Kernel that covers the whole map, without padding and residual."""
    taps: Limit
    """Products that one output element of a convolution sums: kh * kw * channels of the group."""
    channels: Limit
    output_channels: Limit
    stride: Limit
    dilation: Limit
    pad_at_most_half_kernel: bool
    pad: Limit
    depthwise_kernel: Limit
    int16_conv_taps: Limit
    """Taps of a convolution with int16 input; empty where there is none."""
    int16_any_shift_taps: int
    """Up to this many taps every accu_right_shift runs with int16 input, above it only 8 and more."""
    avg_pool_kernel: Limit
    avg_pool_taps: Limit
    global_pool_size: Limit
    max_pool_kernel: Limit
    pool_stride: Limit
    transpose_kernel: Limit
    transpose_stride: Limit
    wider_than_high: bool
    """Whether dilation, stride of a transposed convolution, factor of nearest resize may not be larger along height."""
    conv3d_kernel: Limit
    conv3d_stride: Limit
    batch: Limit
    feature_size: Limit
    chosen_side: Limit
    """Length of an axis before the last, of which the largest element is chosen."""

    # Operators that only some marches have, or have in part
    moves_freely: bool
    """Whether reshape regroups elements, pad extends channels or copies the edge, and slice cuts the batch, or none."""
    refused_kernels: tuple[str, ...]
    """Names of kernels (bpu_kernels.table.KERNELS) that the march lacks."""
    resize_modes: tuple[tuple[bool, int], ...]
    """(legacy, precision) pairs of bilinear resize; the last is the best."""
    nearest_factor: Limit
    """Factors of nearest resize."""
    resize_ratio: tuple[int, int]
    """Largest factor by which an axis may shrink and grow."""

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return march_row, (self.march.value,)  # copies and pickles are the row of the table


_NONE = Limit((), "M: no such operator")

_BERNOULLI2 = MarchRow(
    march=March.BERNOULLI2,
    boards="RDK X3",
    rounds=False,
    adds_compensation=True,
    activations=(qint8,),
    output_scale=_upto(32767, "M: 32768 aborts", first=0),
    output_right_shift=_upto(31, "M: 32 aborts", first=0),
    global_pool_right_shift=_upto(31, "M", first=0),
    accu_right_shift=_upto(31, "M: 32 aborts", first=0),
    bias=qint16,
    bias_left_shift=_upto(15, "M: 20 aborts", first=0),
    sumin_scale=_upto(32767, "M", first=0),
    sumin_left_shift=_upto(3, "M: negative aborts, 0..3 measured", first=0),
    add_sumin_scale=_upto(32767, "M: negative aborts", first=0),
    input_left_shift=_NONE,
    input_scale=_upto(127, "M: 1..127 measured"),
    add_shift_difference=_NONE,
    add_int16_shift_difference=_NONE,
    kernel=_upto(7, "D; M: 8 refused"),
    full_kernel=_upto(31, "D; M: with a residual 8 refused"),
    taps=_upto(2**17, "M: a product of 7 x 7 taps and 2048 channels"),
    channels=_upto(2048, "D"),
    output_channels=_upto(4096, "D: 2048, or 4096 as model output"),
    stride=_upto(2, "D: 1, 2; M: more accepted"),
    dilation=Limit((1, 2, 4), "D; M: 3 refused"),
    pad_at_most_half_kernel=True,
    pad=_upto(12, "D: at most half of the kernel, here of its extent with dilation; M: more accepted", first=0),
    depthwise_kernel=_upto(7, "D: 8..49 taps; M: fewer accepted"),
    int16_conv_taps=_NONE,
    int16_any_shift_taps=0,
    avg_pool_kernel=_upto(7, "D"),
    avg_pool_taps=_upto(49, "D; M: 1 refused", first=2),
    global_pool_size=_upto(128, "D"),
    max_pool_kernel=_upto(64, "D"),
    pool_stride=_upto(185, "D"),
    transpose_kernel=_upto(14, "D", first=2),
    transpose_stride=Limit((2, 4, 8), "D: 2, 4; M: 8 too, others refused"),
    wider_than_high=True,
    conv3d_kernel=_NONE,
    conv3d_stride=_NONE,
    moves_freely=False,
    batch=_upto(128, "D"),
    feature_size=_upto(4096, "D"),
    chosen_side=_upto(64, "M: 65 runs, of 128 the checker makes no end"),
    refused_kernels=(
        *("add", "conv3d", "gather", "grid_sample", "lut16", "matmul", "roi_align", "sum", "top_indices", "transpose"),
    ),
    resize_modes=((True, 8),),
    nearest_factor=Limit((1, 2, 4, 8, 16, 32), "M: powers of two; 2 and 4 measured"),
    resize_ratio=(185, 256),
)


def _bayes(march: March, boards: str) -> MarchRow:
    """The row of a Bayes march: no difference between the two was seen in any measurement."""
    return MarchRow(
        march=march,
        boards=boards,
        rounds=True,
        adds_compensation=False,
        activations=(qint8, qint16),
        output_scale=_upto(32767, "M", first=0),
        output_right_shift=_upto(31, "M", first=0),
        global_pool_right_shift=_upto(24, "M: 26 aborts", first=0),
        accu_right_shift=_upto(17, "M", first=0),
        bias=qint32,
        bias_left_shift=_upto(15, "M", first=0),
        sumin_scale=_upto(32767, "M", first=0),
        sumin_left_shift=_upto(13, "M", first=-22),
        add_sumin_scale=_upto(32767, "M", first=-32767),
        input_left_shift=_upto(15, "M", first=0),
        input_scale=_NONE,
        add_shift_difference=_upto(23, "M: refused beyond", first=0),
        add_int16_shift_difference=_upto(15, "D", first=0),
        kernel=_upto(31, "D: below 32"),
        full_kernel=_upto(31, "D: below 32"),
        taps=_upto(32767, "D: 65535 on bayes, 32767 on bayes-e"),
        channels=_upto(65536, "D"),
        output_channels=_upto(65536, "D"),
        stride=_upto(16, "M"),
        dilation=_upto(16, "D; M: 17 accepted"),
        pad_at_most_half_kernel=False,
        pad=_upto(16, "M", first=0),
        depthwise_kernel=_upto(31, "M: accepted as probed"),
        int16_conv_taps=_upto(8192, "M"),
        int16_any_shift_taps=256,
        avg_pool_kernel=_upto(256, "D"),
        avg_pool_taps=_upto(16384, "D; M: 1 refused", first=2),
        global_pool_size=_upto(128, "D: kernel of at most 16384 taps"),
        max_pool_kernel=_upto(256, "D"),
        pool_stride=_upto(256, "D"),
        transpose_kernel=_upto(14, "D; M: 2..4 measured", first=2),
        transpose_stride=_upto(14, "D; M: 2, 3, 4, 5, 6, 8 measured, 1 aborts", first=2),
        wider_than_high=False,
        conv3d_kernel=_upto(9, "D"),
        conv3d_stride=_upto(2, "D"),
        moves_freely=True,
        batch=_upto(128, "M: probed to 129"),
        feature_size=_upto(65536, "D"),
        chosen_side=_upto(65536, "D: feature_size; measured to 1000"),
        refused_kernels=("add_scaled",),
        resize_modes=((True, 8), (False, 8), (False, 16)),
        nearest_factor=Limit((1, 2, 4, 8, 16, 32), "M: others refused; 2 and 4 measured"),
        resize_ratio=(255, 65536),
    )


MARCHES: dict[March, MarchRow] = {
    March.BERNOULLI2: _BERNOULLI2,
    March.BAYES: _bayes(March.BAYES, "RDK Ultra"),
    March.BAYES_E: _bayes(March.BAYES_E, "RDK X5"),
}


def march_row(march: March | str) -> MarchRow:
    """Return the row of a march given by member or name.

    Raises:
        UnsupportedError: an unknown name; the message lists those that exist.
    """
    return MARCHES[March(march)]
