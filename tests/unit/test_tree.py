"""The RFC 6962 tree, three ways: grown leaf by leaf, put together from tiles, and by the definition."""

import base64
import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent_party.eventstore import tree
from agent_party.eventstore.tree import TILE, Tree, leaf_hash, node_hash, root_over
from agent_party.eventstore.verify import sha256, tree_root

VECTORS = Path(__file__).resolve().parents[1] / "vectors" / "merkle"
LEAVES = [
    bytes.fromhex(leaf)
    for leaf in ("", "00", "10", "2021", "3031", "40414243", "5051525354555657", "606162636465666768696a6b6c6d6e6f")
]
"""The leaves that the vectors' trees are over, as every Certificate Transparency test has them."""


def grown(leaves: list[bytes]) -> Tree:
    made = Tree()
    for leaf in leaves:
        made.append(leaf)
    return made


def by_tiles(leaves: list[bytes]) -> bytes:
    whole = len(leaves) // TILE
    tiles = [tree_root(leaves[n * TILE : (n + 1) * TILE]) for n in range(whole)]
    return root_over(tiles, leaves[whole * TILE :])


def roots() -> Iterator[tuple[int, str, str]]:
    """Size, root and file of every tree that a good vector names."""
    for path in sorted(VECTORS.glob("*/*/happy-path.json")):
        vector = json.loads(path.read_text(encoding="utf-8"))
        assert vector["wantErr"] is False
        if path.parts[-3] == "inclusion":
            yield vector["treeSize"], vector["root"], path.parts[-2]
        elif path.parts[-3] == "consistency":
            yield vector["size1"], vector["root1"], path.parts[-2]
            yield vector["size2"], vector["root2"], path.parts[-2]


def test_the_vectors_roots_are_ours() -> None:
    named = list(roots())
    for size, root, path in named:
        assert grown(LEAVES[:size]).root() == base64.b64decode(root), path
        assert tree_root(LEAVES[:size]) == base64.b64decode(root), path
    assert len(named) == 15
    assert {size for size, _, _ in named} >= {1, 2, 3, 5, 6, 8}


def test_the_vectors_leaf_hashes_are_ours() -> None:
    seen = set()
    for path in VECTORS.glob("inclusion/*/happy-path.json"):
        vector = json.loads(path.read_text(encoding="utf-8"))
        index = vector["leafIdx"]
        assert leaf_hash(LEAVES[index]) == base64.b64decode(vector["leafHash"]), path
        seen.add(index)
    assert len(seen) >= 4


def test_the_vectors_proofs_lead_to_our_roots() -> None:
    """Followed with our node hash, a good inclusion proof comes to the root, a bad one to another or to nothing."""
    good = bad = 0
    for path in sorted((VECTORS / "inclusion").rglob("*.json")):
        vector = json.loads(path.read_text(encoding="utf-8"))
        proof = [base64.b64decode(node) for node in vector["proof"] or []]
        leaf, root = (base64.b64decode(vector[name] or "") for name in ("leafHash", "root"))
        holds = followed(leaf, vector["leafIdx"], vector["treeSize"], proof) == root and len(leaf) == 32
        assert holds == (not vector["wantErr"]), path
        good, bad = good + holds, bad + (not holds)
    assert (good, bad) == (INCLUSION_GOOD, INCLUSION_BAD)


INCLUSION_GOOD, INCLUSION_BAD = 6, 92


def followed(node: bytes, index: int, size: int, proof: list[bytes]) -> bytes | None:
    """RFC 9162, 2.1.3.2."""
    if not 0 <= index < size:
        return None
    last = size - 1
    for sibling in proof:
        if last == 0:
            return None
        if index & 1 or index == last:
            node = node_hash(sibling, node)
            while not index & 1 and index:
                index, last = index >> 1, last >> 1
        else:
            node = node_hash(node, sibling)
        index, last = index >> 1, last >> 1
    return node if last == 0 else None


def test_an_empty_tree_is_the_hash_of_nothing() -> None:
    assert Tree().root() == sha256()


def test_all_sizes_up_to_three_tiles() -> None:
    leaves = [n.to_bytes(4) for n in range(3 * TILE + 2)]
    made = Tree()
    for size, leaf in enumerate(leaves, 1):
        made.append(leaf)
        if size < 40 or size % 61 == 0 or size % TILE in (0, 1, TILE - 1):
            assert made.root() == tree_root(leaves[:size]) == by_tiles(leaves[:size]), size
            assert len(made.peaks) == size.bit_count()


@given(st.lists(st.binary(max_size=40), min_size=1, max_size=600), st.data())
def test_the_three_ways_agree(leaves: list[bytes], data: st.DataObject) -> None:
    size = data.draw(st.integers(0, len(leaves)))
    resumed = grown(leaves[:size])
    resumed = Tree(resumed.size, resumed.peaks)
    for leaf in leaves[size:]:
        resumed.append(leaf)
    assert resumed.root() == grown(leaves).root() == tree_root(leaves) == by_tiles(leaves)
    assert resumed.size == len(leaves)


@given(st.lists(st.binary(max_size=8), min_size=1, max_size=40), st.data())
def test_another_leaf_is_another_root(leaves: list[bytes], data: st.DataObject) -> None:
    place = data.draw(st.integers(0, len(leaves) - 1))
    other = [*leaves[:place], leaves[place] + b"\0", *leaves[place + 1 :]]
    assert tree_root(other) != tree_root(leaves)
    assert tree_root([*leaves, leaves[-1]]) != tree_root(leaves)


def test_a_leaf_is_no_node() -> None:
    """Without the two prefixes, a tree over two leaves would be a tree over one."""
    pair = leaf_hash(b"a") + leaf_hash(b"b")
    assert leaf_hash(pair) != tree_root([b"a", b"b"])


def test_a_wrong_tree_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    """The planted bug: children joined in the other order."""
    monkeypatch.setattr(tree, "node_hash", lambda left, right: node_hash(right, left))
    with pytest.raises(AssertionError):
        test_the_vectors_roots_are_ours()
    with pytest.raises(AssertionError):
        test_all_sizes_up_to_three_tiles()
