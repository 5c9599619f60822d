"""The examples of each batch: a pure function of the seed and the step.

Shapes: M examples, S steps per epoch.
"""

import numpy as np

POOL = 100  # batches among which examples are sorted by length


class Sampler:
    """The order of the examples in every epoch, and each worker's share of every batch.

    Args:
        size: M.
        batch_size: examples per batch of one worker.
        seed: shuffle all examples anew in every epoch; None keeps their order.
        drop_remainder: leave out the last batch of an epoch if it is not full; with a seed, other examples every epoch.
        shard: (index, count) of this worker. A global batch has `batch_size * count` examples, of which each worker
            gets consecutive ones; the last batch is divided as evenly as possible.

    Raises:
        ValueError: an argument is out of its range, or the last batch is too small for every worker to get a part.
    """

    def __init__(
        self,
        size: int,
        batch_size: int,
        seed: int | None = None,
        drop_remainder: bool = False,
        shard: tuple[int, int] = (0, 1),
    ):
        index, count = shard
        if not 0 <= index < count:
            raise ValueError(f"shard must be (index, count) with index in 0..count-1, got {shard}")
        if batch_size < 1:
            raise ValueError(f"batch_size must be at least 1, got {batch_size}")
        self.size, self.seed, self.shard = size, seed, (index, count)
        self.global_batch = batch_size * count
        steps, left = divmod(size, self.global_batch)
        self.steps = steps if drop_remainder or not left else steps + 1
        self.full = drop_remainder or not left
        if not self.steps:
            raise ValueError(f"{size} examples are too few for a batch of {self.global_batch}; use a smaller batch")
        if not self.full and left < count:
            raise ValueError(
                f"the last batch has {left} examples for {count} workers; drop the remainder, or use another batch size"
            )

    def __len__(self) -> int:
        return self.steps

    def order(self, epoch: int, lengths: np.ndarray | None = None) -> np.ndarray:
        """The examples of an epoch, batch after batch.

        Args:
            epoch: from 0.
            lengths: `int[M]`; if given, and there is a seed, examples of similar lengths share a batch: they are sorted
                within random pools of 100 batches, and the batches shuffled. A last batch that is not full is a random
                draw of all lengths: out of a sorted pool it would always get the longest.

        Returns:
            `int64[M]`, or a multiple of the batch size if the remainder is dropped.
        """
        if self.seed is None:
            return np.arange(min(self.size, self.steps * self.global_batch))
        rng = np.random.default_rng([self.seed, epoch, 0])
        order = rng.permutation(self.size)[: self.steps * self.global_batch]
        if lengths is None:
            return order
        full = len(order) // self.global_batch
        order, rest = np.split(order, [full * self.global_batch])
        pool = np.arange(len(order)) // (POOL * self.global_batch)
        order = order[np.lexsort((lengths[order], pool))]  # stable: random among equals
        batches = order.reshape(full, self.global_batch)
        return np.concatenate([rng.permutation(batches).reshape(-1), rest])

    def batch(self, position: int, order: np.ndarray) -> np.ndarray:
        """The examples of the global batch at this position in its epoch."""
        return order[position * self.global_batch : (position + 1) * self.global_batch]

    def shard_of(self, batch: np.ndarray) -> slice:
        """This worker's part of a global batch."""
        index, count = self.shard
        least, more = divmod(len(batch), count)
        start = index * least + min(index, more)
        return slice(start, start + least + (index < more))
