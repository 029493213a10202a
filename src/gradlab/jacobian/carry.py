"""The carry of a recurrent cell as a vector: what is differentiated, and the names of its parts."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.tree_util import PyTreeDef, SequenceKey, keystr, tree_flatten_with_path
from jaxtyping import Float, Int, PyTree, Shaped

Span = tuple[int, int]  # [first, last) components of a part of the flat state
REAL, REAL_PART, IMAGINARY_PART = 0, 1, 2  # kinds of components


class FlatState(NamedTuple):
    """A state with its real numbers as one vector.

    Attributes:
        vector: the n real numbers of the carry, which are differentiated. A complex array gives
            its real parts, then its imaginary parts.
        held: all else that steps hand on, which derivatives hold fixed: integers, booleans and
            random keys.
    """

    vector: Float[Array, "n"]
    held: PyTree


@dataclass(frozen=True)
class CarryForm:
    """The structure, shapes and types of a carry, and the names of its parts.

    Attributes:
        structure: of the carry, a pytree.
        leaves: shape and type of each leaf.
        spans: the components of each part in the vector, by name.
        held: the parts that have none, by name, each described.
    """

    structure: PyTreeDef
    leaves: tuple[jax.ShapeDtypeStruct, ...]
    spans: tuple[tuple[str, Span], ...]
    held: tuple[tuple[str, str], ...]

    @classmethod
    def of(cls, carry: PyTree, pair: tuple[str, str] = ("c", "h")) -> "CarryForm":
        """Return the form of a carry.

        Args:
            carry: the carry.
            pair: names of the parts of a pair.

        Raises:
            ValueError: it has no number to differentiate, or two parts share a name.
        """
        leaves, structure = jax.tree.flatten(carry)
        shapes = tuple(jax.ShapeDtypeStruct(x.shape, x.dtype) for x in leaves)
        spans, held = _parts(carry, pair)
        form = cls(structure, shapes, tuple(spans.items()), tuple(held.items()))
        if form.size == 0:
            raise ValueError(
                f"the carry must have floating-point numbers to differentiate; got "
                f"{described(carry)}."
            )
        return form

    @property
    def size(self) -> int:
        """The number n of real numbers; a complex one is two."""
        return sum(map(_components, self.leaves))

    @property
    def kinds(self) -> Int[np.ndarray, "n"]:
        """Return the kind of each component: `REAL`, `REAL_PART` or `IMAGINARY_PART`."""
        kinds = [
            np.repeat([REAL_PART, IMAGINARY_PART] if is_complex(x) else [REAL], x.size)
            for x in self.leaves
            if is_inexact(x)
        ]
        return np.concatenate(kinds)

    def numbers(self, span: Span) -> int:
        """Return how many numbers a part of the vector has, a complex one counted once."""
        return int(np.sum(self.kinds[slice(*span)] != IMAGINARY_PART))

    def differentiated(self, carry: PyTree) -> tuple[list[Array], list[Array]]:
        """Return the real and complex leaves of a carry, in their own types, and the other leaves.

        Raises:
            ValueError: the carry has another structure, shape or type than the initial one.
        """
        leaves, structure = jax.tree.flatten(carry)
        if structure != self.structure or not all(map(_fits, leaves, self.leaves)):
            expected = jax.tree.unflatten(self.structure, self.leaves)
            raise ValueError(
                "the step must return the carry as it takes it (structure, shapes and types), as "
                f"jax.lax.scan asks: it takes {described(expected)} and returns "
                f"{described(carry)}."
            )
        # A cell may promote its state (a 64-bit constant, say); the recurrence keeps its own type.
        numbers = [
            leaf.astype(kind.dtype)
            for leaf, kind in zip(leaves, self.leaves, strict=True)
            if is_inexact(kind)
        ]
        return numbers, [leaf for leaf in leaves if not is_inexact(leaf)]

    def split(self, carry: PyTree) -> tuple[Float[Array, "n"], list[Array]]:
        """Return the real numbers of a carry as one vector, and its other leaves.

        Raises:
            ValueError: the carry has another structure, shape or type than the initial one.
        """
        numbers, held = self.differentiated(carry)
        vectors = [real_vector(leaf) for leaf in numbers]
        dtype = jnp.result_type(*(vector.dtype for vector in vectors))
        return jnp.concatenate([vector.astype(dtype) for vector in vectors]), held

    def join(self, vector: Float[Array, "n"], held: Sequence[Array]) -> PyTree:
        """Return the carry of a vector and the other leaves: the inverse of `split`."""
        numbers, start = [], 0
        for kind in filter(is_inexact, self.leaves):
            end = start + _components(kind)
            numbers.append(_from_real(vector[start:end], kind))
            start = end
        return self.carry(numbers, held)

    def carry(self, numbers: Sequence[Array], held: Sequence[Array]) -> PyTree:
        """Return the carry of its real and complex leaves and of the others."""
        inexact, others = iter(numbers), iter(held)
        leaves = [next(inexact if is_inexact(kind) else others) for kind in self.leaves]
        return jax.tree.unflatten(self.structure, leaves)

    def span(self, name: str | None, argument: str) -> Span:
        """Return the components of a part of the state.

        A name that is no part's full path stands for the part whose dotted path ends with it; of
        numbered ones for the last: "h" is that of a stack's top layer. The list of allowed names
        has these short ones too.

        Args:
            name: the part; None for the whole state.
            argument: name of the user's argument, for the error's sentence.

        Raises:
            ValueError: no part has that name, or several have, or it has no numbers with a
                derivative.
        """
        if name is None:
            return (0, self.size)
        spans, held = dict(self.spans), dict(self.held)
        matches = _parts_called(name, spans)
        if len({re.sub(r"\d+", "#", part) for part in matches}) != 1:
            known = ", ".join(map(repr, matches or [*spans, *_short_names(spans)]))
            got = repr(name)
            if not matches and (without := _parts_called(name, held)):
                got += f", {held[without[-1]]}, which has no derivative: it is held fixed"
            raise ValueError(
                f"{argument} must be None (the whole carry) or one of {known}; got {got}."
            )
        # "layer10" comes after "layer9", but before it in the alphabet.
        return spans[max(matches, key=lambda part: (len(part), part))]


def _parts_called(name: Any, parts: Mapping[str, Any]) -> list[str]:
    """Return the part of that full path, else those whose dotted path ends with the name."""
    if name in list(parts):
        return [name]
    return [part for part in parts if part.endswith(f".{name}")]


def _short_names(spans: Mapping[str, Span]) -> list[str]:
    """Return the ends of dotted paths that stand for one part, or for the last of numbered ones."""
    ends = [part.partition(".")[2] for part in spans]
    ends += [end.partition(".")[2] for end in ends]
    names = dict.fromkeys(end for end in ends if end and end not in spans)
    kinds = {
        name: {re.sub(r"\d+", "#", part) for part in _parts_called(name, spans)} for name in names
    }
    return [name for name in names if len(kinds[name]) == 1]


def is_real(leaf: Any) -> bool:
    """Return whether an array holds real floating-point numbers."""
    return bool(jnp.issubdtype(leaf.dtype, jnp.floating))


def is_complex(leaf: Any) -> bool:
    """Return whether an array holds complex numbers."""
    return bool(jnp.issubdtype(leaf.dtype, jnp.complexfloating))


def is_inexact(leaf: Any) -> bool:
    """Return whether an array holds real or complex floating-point numbers, to differentiate."""
    return is_real(leaf) or is_complex(leaf)


def real_vector(leaf: Shaped[Array, "*shape"]) -> Float[Array, "n"]:
    """Return the numbers of an array as real ones: of complex numbers all real parts come first."""
    flat = jnp.ravel(leaf)
    return jnp.concatenate([flat.real, flat.imag]) if is_complex(leaf) else flat


def _from_real(vector: Float[Array, "n"], kind: jax.ShapeDtypeStruct) -> Array:
    """Return the array of a `real_vector`."""
    if not is_complex(kind):
        return vector.reshape(kind.shape).astype(kind.dtype)
    real, imaginary = vector.astype(jnp.finfo(kind.dtype).dtype).reshape(2, *kind.shape)
    return jax.lax.complex(real, imaginary)


def _components(leaf: Any) -> int:
    """Return how many components of the vector an array has."""
    return leaf.size * (is_real(leaf) + 2 * is_complex(leaf))


def carry_spans(carry: PyTree, pair: tuple[str, str] = ("c", "h")) -> dict[str, Span]:
    """Return the name of each part of a carry, and where it lies in the flat vector.

    A lone array is "h". Other parts are named by the keys or fields of their container, those of a
    tuple or list by position, and those of a pair as `pair` says. Nested parts have dotted paths
    ("layer0.h"), and so have the nodes above them ("layer0"). Integers, booleans and random keys
    have no components.

    Raises:
        ValueError: two parts have the same dotted path.
    """
    return _parts(carry, pair)[0]


def _parts(carry: PyTree, pair: tuple[str, str]) -> tuple[dict[str, Span], dict[str, str]]:
    """Return where each part lies in the flat vector, and a description of those that do not."""
    spans: dict[str, Span] = {}
    held: dict[str, str] = {}

    def visit(node: PyTree, path: str, start: int) -> int:
        children = _children(node, pair)
        end = start
        if children is None:
            end += _components(node)
        for name, child in children or []:
            end = visit(child, f"{path}.{name}" if path else name, end)
        if path in spans:
            raise ValueError(f"two parts of the carry are called {path!r}: rename one.")
        if path and end > start:
            spans[path] = (start, end)
        elif path:
            held[path] = described(node)
        return end

    visit({"h": carry} if _children(carry, pair) is None else carry, "", 0)
    return spans, held


def _children(node: PyTree, pair: tuple[str, str]) -> list[tuple[str, PyTree]] | None:
    """Return the direct children of a node by name, None included; None for a leaf."""
    children, _ = tree_flatten_with_path(node, is_leaf=lambda x: x is not node)
    if children and children[0][0] == ():
        return None
    if len(children) == 2 and all(isinstance(path[0], SequenceKey) for path, _ in children):
        return [(name, child) for name, (_, child) in zip(pair, children, strict=True)]
    return [(keystr(path, simple=True), child) for path, child in children]


def _fits(leaf: Any, kind: jax.ShapeDtypeStruct) -> bool:
    return leaf.shape == kind.shape and (
        leaf.dtype == kind.dtype
        or (is_real(leaf) and is_real(kind))
        or (is_complex(leaf) and is_complex(kind))
    )


def described(carry: PyTree) -> str:
    """Return a pytree of arrays with the type and shape of each, as "{c: float32[4]}"."""

    def kind(leaf: Any) -> str:
        if not hasattr(leaf, "dtype"):
            return type(leaf).__name__
        return f"{leaf.dtype}[{','.join(map(str, leaf.shape))}]"

    return str(jax.tree.map(kind, carry)).replace("'", "")
