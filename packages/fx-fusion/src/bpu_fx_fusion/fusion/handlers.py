"""Fusion handlers: for nodes that match a pattern, whether to fuse them, into which module, and where it lives."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from torch import nn
from torch.fx import Node

from ..graph.nodes import label
from ..graph.structure import shallow_copy
from ..modules.float_functional import FloatFunctional
from ..modules.fused import RELUS, fused_class
from ..tracing.inplace import overwritten_input
from .batch_norm import BATCH_NORMS, CONVS, fold_batch_norm, fold_refusal
from .match import Match, operands_of, operation_of


@dataclass(frozen=True, kw_only=True)
class FusionContext:
    """What handlers may look at; nothing in it is to be changed by them."""

    modules: Mapping[str, nn.Module]
    """The modules by path, as they were before anything was fused."""

    calls: Mapping[int, tuple[Node, ...]]
    """The nodes that call a module, or a method of a FloatFunctional, by the module's id()."""

    read: frozenset[str]
    """Paths of the modules whose parameters or other attributes the graph uses directly."""

    absorb_batch_norm: bool

    def module(self, node: Node) -> nn.Module:
        """Return the module that a node calls."""
        return self.modules[self.label(node)]

    def label(self, node: Node) -> str:
        """Return the path of the module that a node calls, or else the node's name."""
        return label(node, self.modules)

    def calls_of(self, node: Node) -> tuple[Node, ...]:
        """Return all nodes that call the same module as this node."""
        return self.calls.get(id(self.modules.get(self.label(node))), (node,))


class FusionHandler(ABC):
    """Decides about one match; subclass it for a pattern of your own, see `register_fusion_pattern`.

    Args:
        match: The nodes, the last operation first. Where the first layer, `match.nodes[-1]`, is called several times,
            `fuse_fx` makes sure that all its calls fuse alike.
        context: The modules and their calls.
    """

    def __init__(self, match: Match, context: FusionContext) -> None:
        self.match = match
        self.context = context

    @abstractmethod
    def refusal(self) -> str | None:
        """Return why this match shall not be fused, or None; a shorter pattern is tried then. Changes nothing."""

    @property
    @abstractmethod
    def slot(self) -> Node:
        """The matched node whose module's place the fused module takes, and where it is called."""

    @property
    @abstractmethod
    def inputs(self) -> tuple[Any, ...]:
        """The arguments for the call of the fused module."""

    @abstractmethod
    def build(self) -> nn.Module:
        """Return the fused module. The matched modules must not change."""

    @property
    def members(self) -> tuple[str, ...]:
        """The paths of the matched modules, in order of execution."""
        return tuple(self.context.label(node) for node in reversed(self.match.nodes))

    @property
    def operations(self) -> tuple[str, ...]:
        """The names of the matched operations, in order of execution."""
        found = (operation_of(node, self.context.modules) for node in reversed(self.match.nodes))
        return tuple(operation.__name__ for operation in found)


class ConvBNAddReLUFusion(FusionHandler):
    """Fuse a convolution or Linear with the BatchNorm, addition and ReLU or ReLU6 that follow it, as far as present.

    With an addition the result lives in the addition's place, otherwise in the convolution's.
    """

    residual_operand = 1
    """Which operand of the addition is not the convolution's."""

    def __init__(self, match: Match, context: FusionContext) -> None:
        super().__init__(match, context)
        self.conv = match.nodes[-1]
        self.bn = self._find(*BATCH_NORMS)
        self.add = self._find(FloatFunctional.add)
        self.relu = self._find(*RELUS)

    def _find(self, *operations: Any) -> Node | None:
        found = (n for n in self.match.nodes if operation_of(n, self.context.modules) in operations)
        return next(found, None)

    def refusal(self) -> str | None:
        """Return the first of the reasons below that applies."""
        known = [node for node in (self.conv, self.bn, self.add, self.relu) if node is not None]
        starts_with_conv = operation_of(self.conv, self.context.modules) in CONVS
        if not starts_with_conv or len(known) < len(self.match.nodes):
            return f"{type(self).__name__} has no module for {' + '.join(self.operations)}"
        if len(self.conv.args) != 1 or self.conv.kwargs:
            return f"{self.context.label(self.conv)} is called with more than its input"
        if self.bn is not None:
            reason = self._batch_norm_refusal(self.bn)
            if reason is not None:
                return reason
        return self._addition_refusal(self.add) if self.add is not None else None

    def _batch_norm_refusal(self, bn: Node) -> str | None:
        normalised_elsewhere = len(self.context.calls_of(bn)) != len(self.context.calls_of(self.conv))
        if normalised_elsewhere and not self.context.absorb_batch_norm:
            return f"{self.context.label(bn)} is called after other layers too and cannot become part of one of them"
        return fold_refusal(self.context.module(self.conv), self.context.module(bn))

    def _addition_refusal(self, add: Node) -> str | None:
        calls = len(self.context.calls_of(add))
        residual = operands_of(add, self.context.modules)[self.residual_operand]
        if calls > 1:
            return f"{self.context.label(add)} is called {calls} times, use one FloatFunctional per addition"
        if not isinstance(residual, Node):
            return "a number is added, not a tensor"
        if residual is self.match.nodes[self.match.nodes.index(add) + 1]:
            return "the result of the convolution is added to itself"
        if residual.op == "get_attr":
            return f"the other operand, {residual.target}, is a constant"
        return self._overwritten_refusal(add)

    def _overwritten_refusal(self, add: Node) -> str | None:
        # The fused module runs where the addition was, so the convolution's input has to live until then.
        node = self.conv.next
        while node is not add:
            if overwritten_input(node, self.context.modules) is self.conv.args[0]:
                overwriting, conv = self.context.label(node), self.context.label(self.conv)
                return f"{overwriting} overwrites the input of {conv} before the addition"
            node = node.next
        return None

    @property
    def slot(self) -> Node:
        """The addition if there is one, else the convolution."""
        return self.conv if self.add is None else self.add

    @property
    def inputs(self) -> tuple[Any, ...]:
        """The convolution's input, and the addition's other operand."""
        if self.add is None:
            return (self.conv.args[0],)
        return self.conv.args[0], operands_of(self.add, self.context.modules)[self.residual_operand]

    def build(self) -> nn.Module:
        """Return the convolution with the BatchNorm folded in, or a fused module; see `fused_class`."""
        conv = self.context.module(self.conv)
        layer, bn, relu = shallow_copy(conv), self._copy(self.bn), self._copy(self.relu)
        if bn is not None and self.context.absorb_batch_norm:
            layer, bn = fold_batch_norm(conv, bn), None
        if bn is None and relu is None and self.add is None:
            return layer
        cls = fused_class(
            type(conv), bn=bn is not None, add=self.add is not None, relu=None if relu is None else type(relu)
        )
        fused = cls(layer, bn, relu)
        fused.training = conv.training
        self._carry_qconfig(fused)
        return fused

    def _copy(self, node: Node | None) -> nn.Module | None:
        # New objects that share the parameters: the old ones are about to be replaced wherever they hang.
        return None if node is None else shallow_copy(self.context.module(node))

    def _carry_qconfig(self, fused: nn.Module) -> None:
        for node in (self.conv, self.add, self.relu):
            if node is not None and hasattr(self.context.module(node), "qconfig"):
                vars(fused)["qconfig"] = self.context.module(node).qconfig
                return


class ConvBNAddedReLUFusion(ConvBNAddReLUFusion):
    """As ConvBNAddReLUFusion, for patterns in which the convolution is the second operand of the addition."""

    residual_operand = 0
