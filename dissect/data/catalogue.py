"""The data sets known by name: what each is, where it can be had, and by which hash it is checked."""

from __future__ import annotations

from dataclasses import dataclass

_GCE = "https://raw.githubusercontent.com/CCIIPLab/GCE-GNN/212575302e42d64b8cf0b9ffe1b71b0db398d5be/datasets"

#: The same repository at the same commit, served by jsDelivr.
_GCE_MIRROR = "https://cdn.jsdelivr.net/gh/CCIIPLab/GCE-GNN@212575302e42d64b8cf0b9ffe1b71b0db398d5be/datasets"


@dataclass(frozen=True)
class RemoteFile:
    """A file to download: its name here, its path under the source's base address, its SHA-256.

    Of some files only the beginning of the SHA-256 is known; then that much is checked. Of some nothing is known: the
    SHA-256 of the first download is kept beside it. ``member`` is a file in the tar archive whose MD5 is published,
    ``member_md5``; it is checked at that first download.
    """

    name: str
    path: str
    sha256: str = ""
    member: str = ""
    member_md5: str = ""


@dataclass(frozen=True)
class Source:
    """A data set known by name.

    Parameters
    ----------
    name, description : str
        The name to load it by and a line about it.
    files : tuple of RemoteFile
        What to download; empty where the files have to be placed by hand.
    base : str
        Address that the files' paths follow.
    folder : str
        Folder inside the data set's own in which the files lie, if not that one itself.
    items, sessions : int or None
        Number of items and of sessions in its training part, where published.
    mirrors : tuple of str
        Other base addresses, tried in turn where the first fails.
    manual : str
        How the files are to be had where none can be downloaded.
    """

    name: str
    description: str
    files: tuple[RemoteFile, ...] = ()
    base: str = _GCE
    folder: str = ""
    items: int | None = None
    sessions: int | None = None
    mirrors: tuple[str, ...] = (_GCE_MIRROR,)
    manual: str = ""


def _gce(folder: str, train: str, test: str) -> tuple[RemoteFile, ...]:
    """Return the two files of a data set in GCE-GNN's repository."""
    return (
        RemoteFile("all_train_seq.txt", f"{folder}/all_train_seq.txt", train),
        RemoteFile("test.txt", f"{folder}/test.txt", test),
    )


DEMO = "demo"

SOURCES: dict[str, Source] = {
    source.name: source
    for source in (
        Source(
            "diginetica",
            "Diginetica, SR-GNN's preparation",
            _gce(
                "diginetica",
                "55694865221c682aaa9df6cd5a4ddccff5de902334df5605c5767ee464e11365",
                "b2b81f9cb22feb2174feeb3e678b9de5e41ff1653bf23cdaf9046e5404f002ff",
            ),
            items=43_097,
            sessions=186_670,
        ),
        Source("tmall", "Tmall, GCE-GNN's preparation", _gce("Tmall", "40219a3222bc575e", "7813a74332494348")),
        Source(
            "nowplaying",
            "Nowplaying, GCE-GNN's preparation",
            _gce("Nowplaying", "963019b0853b4927", "2c51533a05683877"),
        ),
        Source(
            "yoochoose1_64",
            "Yoochoose 1/64, text",
            items=17_189,
            sessions=109_388,
            manual="to be prepared from https://s3-eu-west-1.amazonaws.com/yc-rdata/yoochoose-data.7z",
        ),
        Source(
            "gowalla-tail",
            "the last fifth of Gowalla's sessions, text",
            items=29_510,
            sessions=45_994,
            manual="to be prepared from https://snap.stanford.edu/data/loc-gowalla_totalCheckins.txt.gz",
        ),
        Source(
            "lessr-sample",
            "LESSR's processed sample, text",
            items=3_429,
            sessions=9_381,
            manual="the sample in the repository github.com/twchen/lessr",
        ),
        Source(
            "diginetica-sample",
            "a sample of Diginetica, SR-GNN's preparation",
            folder="golden",
            items=309,
            sessions=469,
            manual="the sample in the repository github.com/CRIPAC-DIG/SR-GNN, prepared by its own script",
        ),
        Source(
            "retailrocket",
            "RetailRocket: needs a login at Kaggle",
            manual="log in at https://www.kaggle.com/datasets/retailrocket/ecommerce-dataset, download events.csv "
            "and prepare it",
        ),
    )
}
