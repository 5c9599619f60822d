"""Reading an LMDB file: its keys and values in order.

The file is read with checked offsets instead of the library, which trusts them, and would crash on a damaged file.
Only what extractors write is read: one unnamed database, one value for each key, little-endian.

A file consists of pages. The first two are alike, and the one of the later transaction is valid: it names the root of a
tree whose branches hold page numbers and whose leaves hold keys with values, or with the pages where a long value lies.
"""

import os
import struct
from collections.abc import Iterator

MAGIC = (0xBEEFC0DE).to_bytes(4, "little")
HEADER = 16  # bytes that every page begins with
PAGE_SIZES = [1 << power for power in range(9, 17)]
BRANCH, LEAF, OVERFLOW = 1, 2, 4  # kinds of pages
ELSEWHERE = 1  # of a leaf's node: the value lies on pages of its own
EMPTY = 2**64 - 1  # the root of an empty tree


def is_lmdb(path: str | os.PathLike) -> bool:
    """Whether a file begins as LMDB's do."""
    with open(path, "rb") as file:
        return file.read(HEADER + 4)[HEADER:] == MAGIC


class Lmdb:
    """The content of an LMDB file.

    Args:
        path: the file, `data.mdb` in a directory.

    Raises:
        ValueError: it is none, is of another version, or is cut short.
    """

    def __init__(self, path: str | os.PathLike):
        self.path = os.fspath(path)
        self._file = open(path, "rb")  # noqa: SIM115 (open as long as it is read)
        self._size = os.fstat(self._file.fileno()).st_size
        self._page_size = 0
        metas = [self._meta(0)]
        self._page_size = metas[0][1]
        metas.append(self._meta(self._page_size))
        _, _, self.entries, self._root, last = max(metas)
        if (last + 1) * self._page_size > self._size:
            raise self._damaged(f"it is cut short: {self._size:,} bytes of {(last + 1) * self._page_size:,}")

    def __del__(self) -> None:
        if hasattr(self, "_file"):
            self._file.close()

    def __len__(self) -> int:
        return self.entries

    def items(self) -> Iterator[tuple[bytes, bytes]]:
        """(key, value) of each entry, in the order of the keys.

        Raises:
            ValueError: a page is damaged.
        """
        seen: set[int] = set()
        total = 0
        pages = [] if self._root == EMPTY else [self._root]
        while pages:
            number = pages.pop()
            if number in seen:
                raise self._damaged(f"page {number} is there twice")
            seen.add(number)
            page = self._read(number * self._page_size, self._page_size)
            try:
                flags, lower = struct.unpack_from("<HH", page, 10)
                nodes = [struct.unpack_from("<H", page, at)[0] for at in range(HEADER, lower, 2)]
                if flags & 0xFF == BRANCH:
                    parts = (struct.unpack_from("<HHH", page, node) for node in reversed(nodes))
                    pages += [low | high << 16 | top << 32 for low, high, top in parts]
                    continue
                if flags & 0xFF != LEAF:
                    raise self._damaged(f"page {number} is neither a branch nor a leaf")
                for node in nodes:
                    key, value = self._entry(page, node)
                    total += len(key) + len(value)
                    if total > self._size:
                        raise self._damaged("its values share pages")
                    yield key, value
            except struct.error as error:
                raise self._damaged(f"page {number} points beyond its end") from error

    def _meta(self, start: int) -> tuple[int, int, int, int, int]:
        """(transaction, page size, entries, root, last page) of one of the first two pages."""
        form = struct.Struct("<16x4sI16xI76xQQQQ")
        magic, version, page_size, entries, root, last, transaction = form.unpack(self._read(start, form.size))
        if magic != MAGIC or version != 1:
            raise self._damaged(f"it is no LMDB file of version 1 (version {version})")
        if page_size not in PAGE_SIZES or self._page_size not in (0, page_size):
            raise self._damaged(f"pages cannot have {page_size} bytes")
        return transaction, page_size, entries, root, last

    def _entry(self, page: bytes, node: int) -> tuple[bytes, bytes]:
        low, high, flags, key_size = struct.unpack_from("<HHHH", page, node)
        start, size = node + 8 + key_size, low | high << 16
        if flags & ~ELSEWHERE:
            raise self._damaged("it has named databases or several values for a key, which are not read")
        key = page[start - key_size : start]
        if not flags:
            value = page[start : start + size]
            if len(value) < size or len(key) < key_size:
                raise self._damaged("a value is longer than its page")
            return key, value
        where = struct.unpack_from("<Q", page, start)[0] * self._page_size
        if struct.unpack_from("<H", self._read(where, HEADER), 10)[0] & 0xFF != OVERFLOW:
            raise self._damaged("a value lies on a page of another kind")
        return key, self._read(where + HEADER, size)

    def _read(self, start: int, size: int) -> bytes:
        if start + size > self._size:
            raise self._damaged("it is cut short, or points beyond its end")
        self._file.seek(start)
        data = self._file.read(size)
        if len(data) < size:
            raise self._damaged("it became shorter while it was being read")
        return data

    def _damaged(self, why: str) -> ValueError:
        return ValueError(f"cannot read {self.path} as LMDB: {why}")
