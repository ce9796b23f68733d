"""RFC 6962 trees that only grow: one hash for each full subtree, so that appending and the root cost O(log n)."""

import hashlib
from collections.abc import Iterable, Sequence

TILE = 256


def leaf_hash(leaf: bytes) -> bytes:
    """The hash of one leaf."""
    return hashlib.sha256(b"\0" + leaf).digest()


def node_hash(left: bytes, right: bytes) -> bytes:
    """The hash of an inner node."""
    return hashlib.sha256(b"\1" + left + right).digest()


class Tree:
    """``peaks`` are the roots of the full subtrees, the largest first."""

    __slots__ = ("peaks", "size")

    def __init__(self, size: int = 0, peaks: Sequence[bytes] = ()) -> None:
        self.size, self.peaks = size, list(peaks)

    def append(self, leaf: bytes) -> None:
        """Add one leaf."""
        self.graft(leaf_hash(leaf), 1)

    def graft(self, node: bytes, width: int) -> None:
        """Add a full subtree of ``width`` leaves (a power of two that divides the size) by its root."""
        size = self.size // width
        while size & 1:
            node, size = node_hash(self.peaks.pop(), node), size >> 1
        self.peaks.append(node)
        self.size += width

    def root(self) -> bytes:
        """The root hash; of an empty tree, SHA-256 of nothing."""
        if not self.peaks:
            return hashlib.sha256(b"").digest()
        node = self.peaks[-1]
        for peak in reversed(self.peaks[:-1]):
            node = node_hash(peak, node)
        return node


def root_over(tiles: Iterable[bytes], leaves: Iterable[bytes]) -> bytes:
    """The root of a tree given as roots of full tiles of `TILE` leaves, and the leaves after them."""
    tree = Tree()
    for tile in tiles:
        tree.graft(tile, TILE)
    for leaf in leaves:
        tree.append(leaf)
    return tree.root()
