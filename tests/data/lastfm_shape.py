"""Make a file of the shape of Last.fm's listening log, to measure the preparation on.

    python tests/data/lastfm_shape.py 19150868 big.tsv
    time dissect data prepare lastfm --raw big.tsv --out big

Of the real log it has the number of users (992), rows (19,150,868), bytes a row (about 130), artists (about 107,000, a
few of them with most rows), a share of rows without an artist id, and each user's rows from the last to the first.
"""

from __future__ import annotations

import argparse
import uuid
from pathlib import Path

import numpy as np
import polars as pl

USERS, ARTISTS, CHUNK = 992, 107_000, 1_000_000


def make(rows: int, path: Path, seed: int = 0) -> None:
    """Write `rows` rows to `path`."""
    random = np.random.default_rng(seed)
    ids = pl.Series([str(uuid.UUID(bytes=random.bytes(16))) for _ in range(ARTISTS)])
    share = 1 / (np.arange(ARTISTS) + 20.0)
    users = np.sort(random.integers(0, USERS, rows))
    with open(path, "wb") as file:
        for start in range(0, rows, CHUNK):
            user = users[start : start + CHUNK]
            # Songs of four minutes, and a night now and then: going back in time, so that a user's rows descend.
            back = np.where(random.random(len(user)) < 0.04, random.integers(30_000, 90_000, len(user)), 240).cumsum()
            artist = random.choice(ARTISTS, len(user), p=share / share.sum())
            clock = pl.Series(1_245_000_000 - back % 130_000_000)
            pl.select(
                user=pl.format("user_{}", pl.Series(user + 1).cast(pl.String).str.zfill(6)),
                time=pl.from_epoch(clock).dt.strftime("%Y-%m-%dT%H:%M:%SZ"),
                artist=pl.when(pl.Series(random.random(len(user)) < 0.03)).then(None).otherwise(ids.gather(artist)),
                name=pl.lit('A "name" of some length'),
                track=ids.gather(artist),
                title=pl.lit("Some title"),
            ).write_csv(file, include_header=False, separator="\t", quote_style="never")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Make a file of the shape of Last.fm's log.")
    parser.add_argument("rows", type=int)
    parser.add_argument("path", type=Path)
    make(**vars(parser.parse_args()))
