"""The norms of all pairs by gradlab, by automatic differentiation and by explicit products.

    python experiments/speed/peers.py          (add --full to extrapolate nothing: an hour, 16 GiB)

‖∂h⁽ᵗ⁾/∂h⁽ᵏ⁾‖ for every k < t of one tanh layer, T steps, n units: the same weights and inputs in
JAX and PyTorch. All runs take turns in one process; seconds are medians. A method that would take
too long or too much memory is measured in part and scaled up, and its row says so. The largest
relative error is over a sample of pairs, against float64 products of the layer run in float64.
"""

import argparse
import os
from collections.abc import Callable, Iterator
from functools import partial
from statistics import median
from typing import Any, Literal, NamedTuple

import jax
import numpy as np
import svd_peers as svd  # type: ignore[import-not-found, unused-ignore]
import torch
import torch_peers as autograd  # type: ignore[import-not-found, unused-ignore]
from jax_peers import all_at_once, bytes_of, largest_program  # type: ignore[import-not-found, unused-ignore]
from timing import (  # type: ignore[import-not-found, unused-ignore]
    Layer,
    Pair,
    describe,
    every_norm,
    every_product,
    largest_error,
    load_note,
    machine,
    markdown,
    reference_log_norms,
    sample_pairs,
    save,
    tanh_layer,
    time_interleaved,
)

from gradlab.jacobian import jacobian_log_norms

GAIN = 1.8  # Norms fade slowly, so that none of the peers under- or overflows; not yet chaotic.
MEMORY = 12 * 2**30  # bytes
LONGEST = 60.0  # seconds; of SVDs that take longer, a sample is timed
SAMPLE = 24  # pairs timed by the methods that take one pair at a time
TRIAL = 48  # steps of the trials that choose the number of threads
PRECISIONS: tuple[Literal["float32", "float64"], ...] = ("float32", "float64")
BATCHED, NORMS, SVD = "PyTorch, batched reverse mode", "JAX, products and norms", "batched SVD"
TARGET_SIZE = (256, 128)  # steps and units that the targets are for
TARGETS = {BATCHED: 100.0, NORMS: 10.0, SVD: 10.0}  # how many times as fast, in float32
LARGEST_ERROR = 1e-3
HEADER = "what|norm|precision|seconds|fastest–slowest|× gradlab float32|× gradlab float64"
HEADER += "|largest relative error|includes"


class Peer(NamedTuple):
    """A method of the table.

    `run` returns a map, nan where not measured; its seconds times `scale` are those of all pairs.
    """

    name: str
    norm: str
    precision: str
    run: Callable[[], Any]
    includes: str
    scale: float = 1.0


def gradlab(layer: Layer) -> Iterator[Peer]:
    """Yield gradlab, in both norms and precisions."""
    for norm in ("frobenius", "spectral"):
        for precision in PRECISIONS:
            run = partial(jacobian_log_norms, *layer, norm=norm, precision=precision)
            yield Peer("gradlab", norm, precision, run, "forward pass, step Jacobians, all norms")


def reverse_mode(layer: Layer) -> Iterator[Peer]:
    """Yield PyTorch's methods with one backward pass for each t."""
    run = partial(autograd.reverse_mode, autograd.torch_layer(layer))
    trial = partial(autograd.reverse_mode, autograd.torch_layer(start_of(layer)))
    includes = "forward pass, one backward pass a t to all h⁽ᵏ⁾, norms; "
    ways: dict[str, tuple[dict[str, Any], str]] = {
        BATCHED: ({}, "`grad(…, is_grads_batched=True)`, layer by `nn.functional.linear`"),
        "PyTorch, the same of W @ h": ({"affine": autograd.matrix_vector}, "as above, but W @ h"),
        "PyTorch, n copies": ({"copies": True}, "plain `grad` of n copies of the network"),
    }
    for name, (options, how) in ways.items():
        count = autograd.best_threads(partial(trial, **options))
        on_count = partial(autograd.on_threads, count, partial(run, **options))
        yield Peer(name, "frobenius", "float32", on_count, f"{includes}{how}; threads: {count}")


def start_of(layer: Layer) -> Layer:
    """Return the layer with its first inputs only, for trials."""
    return Layer(layer.cell, layer.inputs[:TRIAL])


def pair_by_pair(layer: Layer, full: bool) -> Iterator[Peer]:
    """Yield PyTorch's methods with one call for each pair."""
    length = len(layer.inputs)
    total = length * (length + 1) // 2
    pairs = stratified(length, total if full else SAMPLE)
    includes = (
        f"all of the steps k + 1 to t anew; {len(pairs)} pairs, evenly from lag 1 to T, timed"
    )
    for name, way in (
        ("PyTorch, functional.jacobian", autograd.vectorised_jacobian),
        ("PyTorch, func.jacrev", autograd.functional_jacrev),
    ):
        run = partial(autograd.pair_by_pair, autograd.torch_layer(layer), way)
        count = autograd.best_threads(partial(run, stratified(length, 3)))
        on_count = partial(autograd.on_threads, count, partial(run, pairs))
        how = f"{includes}; threads: {count}"
        yield Peer(name, "frobenius", "float32", on_count, how, total / len(pairs))


def stratified(length: int, count: int) -> list[Pair]:
    """Return the middle pair of each of `count` equal parts of all pairs, in order of lag."""
    pairs = [(k + lag, k) for lag in range(1, length + 1) for k in range(length + 1 - lag)]
    return [pairs[int((i + 0.5) * len(pairs) / count)] for i in range(count)]


def jax_modes(layer: Layer, full: bool) -> Iterator[Peer]:
    """Yield JAX's methods with all pairs in one call."""
    for mode in ("jacrev", "jacfwd"):
        program, length = largest_program(layer, mode, float("inf") if full else MEMORY)
        run = partial(all_at_once, layer, program, length)
        gigabytes = bytes_of(program) / 2**30
        includes = (
            f"forward pass, all (T·n)² derivatives, norms; T = {length} in {gigabytes:.1f} GiB"
        )
        scale = (len(layer.inputs) / length) ** 2
        yield Peer(f"JAX, {mode}", "frobenius", "float32", run, includes, scale)


def products(jacobians: np.ndarray) -> Iterator[Peer]:
    """Yield JAX's explicit products, with and without their norms."""
    for precision in PRECISIONS:
        steps = jax.numpy.asarray(jacobians.astype(precision))
        includes = "stacked products of given step Jacobians"
        for name, norm, run, what in (
            (NORMS, "frobenius", every_norm, ", norms"),
            ("JAX, products alone (floor)", "none", every_product, ""),
        ):
            yield Peer(name, norm, precision, partial(run, steps), includes + what)


def singular_values(jacobians: np.ndarray, full: bool) -> Iterator[Peer]:
    """Yield the largest singular values of products that are already formed."""
    length = len(jacobians)
    _, trial = svd.products_of(jacobians.astype("float32"), range(length, length + 1))
    name, seconds_each = svd.fastest(trial)
    total = length * (length + 1) // 2
    every = 1 if full else int(np.ceil(seconds_each * total / LONGEST))
    times = range(every, length + 1, every)
    pairs, formed = svd.products_of(jacobians.astype("float32"), times)
    scale = total / len(pairs)
    includes = f"products at hand: forming them comes on top; {len(pairs)} of them timed; "
    for label, norms, method in (
        (SVD, svd.LIBRARIES[name], f"{name}, the fastest of {', '.join(svd.LIBRARIES)}"),
        ("SVD, a thread a core", partial(svd.by_core, svd.torch_svdvals), "torch.linalg.svdvals"),
        (
            "top of PᵀP, a thread a core",
            partial(svd.by_core, svd.torch_gram),
            "torch.linalg.eigvalsh",
        ),
    ):
        run = partial(svd.spectral_map, pairs, formed, norms, length)
        yield Peer(label, "spectral", "float32", run, includes + method, scale)


def float64_jacobians(layer: Layer) -> np.ndarray:
    """Return the step Jacobians diag(1 − h²) W of the layer run in float64."""
    weight, drive = (x.cpu().double().numpy() for x in autograd.torch_layer(layer))
    h, jacobians = np.zeros(len(weight)), []
    for x in drive:
        h = np.tanh(weight @ h + x)
        jacobians.append((1 - h**2)[:, None] * weight)
    return np.stack(jacobians)


def measure(layer: Layer, repeats: int, full: bool) -> tuple[list[dict[str, Any]], float]:
    """Time all methods, and check each on a sample of pairs.

    Returns:
        The rows, and the share of the machine that other processes took.
    """
    jacobians, length = float64_jacobians(layer), len(layer.inputs)
    with jax.enable_x64(True):
        peers = [*gradlab(layer), *reverse_mode(layer), *pair_by_pair(layer, full)]
        peers += [*jax_modes(layer, full), *products(jacobians), *singular_values(jacobians, full)]
        runs = {i: peer.run for i, peer in enumerate(peers)}
        results, seconds, others = time_interleaved(runs, repeats)
    pairs = {*sample_pairs(length), *stratified(length, SAMPLE)}
    norms = ("frobenius", "spectral")
    references = {x: reference_log_norms(jacobians, pairs, x) for x in norms}
    whole = [peer.scale * median(seconds[i]) for i, peer in enumerate(peers)]
    ours = {(x.norm, x.precision): whole[i] for i, x in enumerate(peers) if x.name == "gradlab"}
    rows = []
    for i, peer in enumerate(peers):
        norm = peer.norm if peer.norm in norms else "frobenius"
        error = (
            largest_error(np.asarray(results[i]), references[norm]) if peer.norm in norms else None
        )
        ratios = {x: whole[i] / ours[norm, x] for x in PRECISIONS}
        row = {x: getattr(peer, x) for x in ("name", "norm", "precision", "scale", "includes")}
        row |= {"seconds": whole[i], "repeats": [peer.scale * x for x in seconds[i]]}
        rows.append(row | {"ratios": ratios, "largest_error": error})
    return rows, others


def cells(row: dict[str, Any]) -> list[str]:
    """Return a row of the table as text; ≈ marks seconds that were scaled up."""
    approximately = "" if row["scale"] == 1 else "≈ "
    ratios = [f"{x:.1f}" if row["name"] != "gradlab" else "" for x in row["ratios"].values()]
    error = "" if row["largest_error"] is None else f"{row['largest_error']:.1e}"
    includes = row["includes"] + (f"; × {row['scale']:.4g}" if approximately else "")
    seconds = f"{approximately}{row['seconds']:.3g}"
    spread = f"{min(row['repeats']):.3g}–{max(row['repeats']):.3g}"
    return [row["name"], row["norm"], row["precision"], seconds, spread, *ratios, error, includes]


def verdicts(rows: list[dict[str, Any]]) -> Iterator[str]:
    """Yield a line for each target, with the measured value."""
    for row in rows:
        if row["name"] in TARGETS and row["precision"] == "float32":
            ratio, target = row["ratios"]["float32"], TARGETS[row["name"]]
            verdict = "met" if ratio >= target else "missed"
            yield f"- at least {target:g} times as fast as {row['name']}: {ratio:.1f}, {verdict}"
    error = max(row["largest_error"] for row in rows if row["name"] == "gradlab")
    verdict = "met" if error <= LARGEST_ERROR else "missed"
    yield f"- gradlab's largest relative error at most {LARGEST_ERROR:g}: {error:.1e}, {verdict}"


def main() -> None:
    """Measure, print and save the results."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--length", type=int, default=256, help="steps T")
    parser.add_argument("--size", type=int, default=128, help="units n")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--full", action="store_true", help="time everything, extrapolate nothing")
    options = parser.parse_args()
    # JAX would take most of a GPU's memory for itself; PyTorch needs some.
    os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")
    torch.set_num_threads(autograd.CORES)
    layer = tanh_layer(options.length, options.size, GAIN)
    rows, others = measure(layer, options.repeats, options.full)
    facts = machine("torch")
    title = f"T = {options.length}, n = {options.size}, median of {options.repeats}; "
    title += f"{options.length * (options.length + 1) // 2} pairs"
    parts = [title, markdown(HEADER.split("|"), map(cells, rows))]
    if (options.length, options.size) == TARGET_SIZE:
        parts.append("\n".join(verdicts(rows)))
    parts += [describe(facts), load_note(others)]
    stem = f"peers_T{options.length}_n{options.size}" + ("_full" if options.full else "")
    save(
        stem, "\n\n".join(parts), vars(options) | {"machine": facts, "others": others, "rows": rows}
    )


if __name__ == "__main__":
    main()
