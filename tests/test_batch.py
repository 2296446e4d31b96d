"""Packed batches and the session graph, against loops over sessions."""

from __future__ import annotations

import itertools

import numpy as np
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from dissect.batch import Batch, PackedExamples

SESSIONS = st.lists(st.lists(st.integers(0, 6), min_size=1, max_size=8), min_size=1, max_size=6)


def dense_graph(session: list[int]) -> tuple[list[int], np.ndarray, np.ndarray]:
    """Nodes in id order, and the two normalised adjacency matrices of SR-GNN's paper (Figure 3)."""
    nodes = sorted(set(session))
    links = np.zeros((len(nodes), len(nodes)))
    for a, b in itertools.pairwise(session):
        links[nodes.index(a), nodes.index(b)] = 1
    incoming = links.T / np.maximum(links.sum(0), 1)[:, None]
    outgoing = links / np.maximum(links.sum(1), 1)[:, None]
    return nodes, incoming, outgoing


@settings(max_examples=60, deadline=None)
@given(SESSIONS)
def test_session_graph_equals_a_loop(sessions: list[list[int]]) -> None:
    graph = Batch.from_lists(sessions).session_graph
    nodes, alias, first, click = graph.nodes.tolist(), graph.alias.tolist(), 0, 0
    size = len(nodes)
    incoming, outgoing = np.zeros((2, size, size))
    incoming[graph.target, graph.source] = graph.in_weight
    outgoing[graph.source, graph.target] = graph.out_weight
    for session in sessions:
        expected, a_in, a_out = dense_graph(session)
        last = first + len(expected)
        assert nodes[first:last] == expected
        assert [nodes[a] for a in alias[click : click + len(session)]] == session
        np.testing.assert_allclose(incoming[first:last, first:last], a_in, rtol=1e-6)
        np.testing.assert_allclose(outgoing[first:last, first:last], a_out, rtol=1e-6)
        # No edge leaves the session.
        assert incoming[first:last].sum() == incoming[first:last, first:last].sum()
        first, click = last, click + len(session)
    assert first == size


@settings(max_examples=40, deadline=None)
@given(SESSIONS, st.randoms(use_true_random=False))
def test_gathered_batch_equals_the_examples(sessions: list[list[int]], random) -> None:
    flat = [i for s in sessions for i in s] + [9]  # every prefix needs a click after it
    starts, ends, at = [], [], 0
    for session in sessions:
        for end in range(at + 1, at + len(session) + 1):
            starts.append(at)
            ends.append(end)
        at += len(session)
    examples = PackedExamples(torch.tensor(flat), torch.tensor(starts), torch.tensor(ends))
    index = random.sample(range(len(starts)), k=random.randint(1, len(starts)))
    batch = examples.batch(torch.tensor(index))
    assert batch.targets is not None
    assert batch.targets.tolist() == [flat[ends[i]] for i in index]
    assert batch.lengths.tolist() == [ends[i] - starts[i] for i in index]
    assert batch.items.tolist() == [c for i in index for c in flat[starts[i] : ends[i]]]
    assert batch.rows.tolist() == [r for r, i in enumerate(index) for _ in range(ends[i] - starts[i])]
    assert batch.items[batch.last].tolist() == [flat[ends[i] - 1] for i in index]
