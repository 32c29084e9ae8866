"""Whether graphs have more structure than their nulls, and whether their groups are the experts of the main path.

Table `graph_tests`: one row for each layer, graph, method, null and measure, and one for the mean over layers. Both
measures are of partitions that were sought in the same way in every draw. Leiden is tested by Q alone: the numbers of
its groups differ, and with them its n-cut. Table `graph_agreement`: every partition found here with every other of the
layer, and with each partition of the finished run.
"""

from collections.abc import Mapping, Sequence
from itertools import combinations
from typing import Any

import numpy as np

from modularity.experts import partition_agreement
from modularity.pipelines.graph_modularity_prepare import PreparedGraphs
from modularity.stats import benjamini_hochberg, p_values
from modularity.store import Run, table_from_columns
from modularity.types import ALL_LAYERS, PARTITION, WorkItem

Row = dict[str, Any]
MEASURES: dict[str, tuple[str, ...]] = {"spectral": ("ncut", "modularity"), "leiden": ("modularity",)}
_SIGN = {"ncut": -1.0, "modularity": 1.0}
"""Structure is a low n-cut, and a high Q."""


def compare_with_nulls(run: Run, item: WorkItem, prepared: PreparedGraphs) -> Mapping[str, Any]:
    """Write the tests of all layers against every null."""
    config, layers = prepared.config, prepared.shape.layers
    observed = {(row["graph"], row["method"], row["layer"]): row for row in run.table("graph_partitions").to_pylist()}
    draws: dict[tuple[str, str, str, int], list[Row]] = {}
    for row in sorted(run.table("graph_null").to_pylist(), key=lambda row: row["draw"]):
        draws.setdefault((row["graph"], row["method"], row["null"], row["layer"]), []).append(row)
    rows: list[Row] = []
    for graph, nulls in prepared.nulls:
        for method in config.methods:
            for null in nulls:
                for measure in MEASURES[method]:
                    value_L = np.array([observed[graph, method, layer][measure] for layer in layers])
                    null_NL = np.array(
                        [[row[measure] for row in draws[graph, method, null, layer]] for layer in layers]
                    ).T
                    head = {"graph": graph, "method": method, "null": null, "measure": measure}
                    rows += _family(head, layers, value_L, null_NL)
    whole = [row for row in rows if row["layer"] == ALL_LAYERS]
    for row, q_value in zip(whole, benjamini_hochberg(np.array([row["p_value"] for row in whole])).tolist()):
        row["q_value"] = q_value
    run.commit(item, tables=[run.write_table("graph_tests", item, _table(rows))])
    return {}


def _family(head: Row, layers: Sequence[int], value_L: np.ndarray, null_NL: np.ndarray) -> list[Row]:
    """One row for the mean over layers, and one for each layer, corrected over layers."""
    rows = [_test(head, ALL_LAYERS, float(value_L.mean()), null_NL.mean(axis=1))]
    single = [_test(head, layer, float(value_L[i]), null_NL[:, i]) for i, layer in enumerate(layers)]
    for row, q_value in zip(single, benjamini_hochberg(np.array([row["p_value"] for row in single])).tolist()):
        row["q_value"] = q_value
    return rows + single


def _test(head: Row, layer: int, observed: float, null_N: np.ndarray) -> Row:
    sign, sd = _SIGN[head["measure"]], float(null_N.std(ddof=1))
    return {
        "layer": layer,
        **head,
        "observed": observed,
        "null_mean": float(null_N.mean()),
        "null_sd": sd,
        "null_low": float(np.quantile(null_N, 0.05)),
        "null_high": float(np.quantile(null_N, 0.95)),
        "z": (observed - float(null_N.mean())) / sd if sd > 0 else float("nan"),
        "p_value": float(p_values(np.array(sign * observed), sign * null_N)),
        "q_value": float("nan"),
        "n_draws": len(null_N),
        "smallest_p_value": 1 / (1 + len(null_N)),
    }


def compare_groups(run: Run, item: WorkItem, prepared: PreparedGraphs) -> Mapping[str, Any]:
    """Write the agreement of the groups of neurons with each other, and with the experts of the finished run."""
    config = prepared.config
    found = run.results("graph_groups", partial=True)["group"].values
    rows: list[Row] = []
    for index, layer in enumerate(prepared.shape.layers):
        width = prepared.width(layer)
        own = {
            f"{graph}/{method}": found[g, m, index, :width]
            for g, graph in enumerate(prepared.graphs)
            for m, method in enumerate(config.methods)
        }
        experts = _experts(prepared.source, layer, width)
        pairs = [*combinations(own, 2), *((a, b) for a in own for b in experts)]
        rows += [_agreement(layer, a, b, (own | experts)[a], (own | experts)[b], prepared) for a, b in pairs]
    if rows:
        for row, q_value in zip(rows, benjamini_hochberg(np.array([row["p_value"] for row in rows])).tolist()):
            row["q_value"] = q_value
        run.commit(item, tables=[run.write_table("graph_agreement", item, _table(rows))])
    else:
        run.commit(item)
    return {}


def _experts(source: Run | None, layer: int, width: int) -> dict[str, np.ndarray]:
    """Expert of every neuron by each method of the finished run."""
    if source is None:
        return {}
    partition = source.results(PARTITION)
    index = partition["layer"].values.tolist().index(layer)
    names = partition["partition"].values.tolist()
    return {str(name): partition["expert"].values[i, index, :width] for i, name in enumerate(names)}


def _agreement(layer: int, a: str, b: str, of_a: np.ndarray, of_b: np.ndarray, prepared: PreparedGraphs) -> Row:
    """Over the neurons that both have a group for."""
    both = (of_a >= 0) & (of_b >= 0)
    seed, n_permutations = prepared.config.seed, prepared.config.n_permutations
    found = partition_agreement(of_a[both], of_b[both], n_permutations=n_permutations, seed=seed)
    return {
        "layer": layer,
        "partition_a": a,
        "partition_b": b,
        "adjusted_rand": found.adjusted_rand,
        "adjusted_mutual_information": found.adjusted_mutual_information,
        "null_mean": found.null_mean,
        "null_sd": found.null_sd,
        "p_value": found.p_value,
        "q_value": float("nan"),
        "n_neurons": int(both.sum()),
        "n_groups_a": len(np.unique(of_a[both])),
        "n_groups_b": len(np.unique(of_b[both])),
        "n_permutations": n_permutations,
    }


def _table(rows: list[Row]) -> Any:
    return table_from_columns({key: [row[key] for row in rows] for key in rows[0]})
