"""The data sets and raw files known by name: what each is, where it can be had, and by which hash it is checked."""

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
        How the files are to be had where none can be downloaded; in it ``{root}`` stands for the directory in which
        the data set's folder is looked for first, ``{raw}`` for that in which raw files are kept.
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


@dataclass(frozen=True)
class RawSource(Source):
    """A raw file known by name: no data set yet, but what ``dissect data prepare`` makes some of.

    Parameters
    ----------
    recipes : tuple of str
        The preparations that read it.
    table : str
        The file to prepare, where that is not the downloaded one: packed in it, or to be had by hand.
    """

    recipes: tuple[str, ...] = ()
    table: str = ""


def _gce(folder: str, train: str, test: str) -> tuple[RemoteFile, ...]:
    """Return the two files of a data set in GCE-GNN's repository."""
    return (
        RemoteFile("all_train_seq.txt", f"{folder}/all_train_seq.txt", train),
        RemoteFile("test.txt", f"{folder}/test.txt", test),
    )


DEMO = "demo"

_RETAILROCKET = "log in at https://www.kaggle.com/datasets/retailrocket/ecommerce-dataset, download events.csv"
_SESSION_REC = (
    "session-rec's data sets (https://www.dropbox.com/sh/n281js5mgsvao6s/AADQbYxSFVPCun5DfwtsSxeda, named by the "
    "repository github.com/rn5l/session-rec)"
)

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
            manual="no command makes this copy, which numbers the 17,189 items of the 1/64 alone; SR-GNN's 1/64, which "
            "keeps the numbers of all 37,483 items, is another data set: 'dissect data fetch yoochoose', unpack it as "
            "that says, then 'dissect data prepare yoochoose1_64 --raw {raw}/yoochoose/yoochoose-clicks.dat "
            "--out {root}/yoochoose1_64-prepared'",
        ),
        Source(
            "gowalla-tail",
            "the last fifth of Gowalla's sessions, text",
            items=29_510,
            sessions=45_994,
            manual="no command makes this copy, the last fifth of the sessions alone (57,492); all of Gowalla's, with "
            "the last fifth for testing, are another data set: 'dissect data fetch gowalla', then 'dissect data "
            "prepare gowalla --raw {raw}/gowalla/loc-gowalla_totalCheckins.txt.gz --out {root}/gowalla'",
        ),
        Source(
            "lessr-sample",
            "LESSR's processed sample, text",
            items=3_429,
            sessions=9_381,
            manual="they are those of datasets/sample in the repository github.com/twchen/lessr, which need no "
            "preparation",
        ),
        Source(
            "diginetica-sample",
            "a sample of Diginetica, SR-GNN's preparation",
            folder="golden",
            items=309,
            sessions=469,
            manual="download datasets/sample_train-item-views.csv of the repository github.com/CRIPAC-DIG/SR-GNN, then "
            "'dissect data prepare diginetica --raw sample_train-item-views.csv --out {root}/diginetica-sample/golden'",
        ),
        Source(
            "retailrocket",
            "RetailRocket: needs a login at Kaggle",
            manual=f"{_RETAILROCKET}, then 'dissect data prepare retailrocket --raw events.csv --out "
            "{root}/retailrocket'",
        ),
    )
}

#: What `dissect data prepare` reads. No SHA-256 of these has been published: that of the first download is kept.
RAW: dict[str, RawSource] = {
    source.name: source
    for source in (
        RawSource(
            "diginetica",
            "Diginetica's views of items, CSV",
            (RemoteFile("train-item-views.csv", "train-item-views.csv"),),
            base="https://raw.githubusercontent.com/RecoHut-Datasets/diginetica/2672053d53bf74e6e8eec77e684e4e7b6bc5da8c",
            mirrors=(),
            recipes=("diginetica", "diginetica-lessr"),
        ),
        RawSource(
            "gowalla",
            "Gowalla's check-ins (SNAP), gz",
            (RemoteFile("loc-gowalla_totalCheckins.txt.gz", "data/loc-gowalla_totalCheckins.txt.gz"),),
            base="https://snap.stanford.edu",
            mirrors=(),
            recipes=("gowalla",),
        ),
        RawSource(
            "lastfm",
            "Last.fm 1K, listening of 992 users, tar.gz",
            (
                RemoteFile(
                    "lastfm-dataset-1K.tar.gz",
                    "lastfm-dataset-1K.tar.gz",
                    member="userid-timestamp-artid-artname-traid-traname.tsv",
                    member_md5="64747b21563e3d2aa95751e0ddc46b68",
                ),
            ),
            base="https://mtg.upf.edu/static/datasets/last.fm",
            mirrors=("https://zenodo.org/records/6090214/files",),
            recipes=("lastfm",),
        ),
        RawSource(
            "yoochoose",
            "Yoochoose's clicks (RecSys 2015), 7z: to be unpacked by hand",
            (RemoteFile("yoochoose-data.7z", "yc-rdata/yoochoose-data.7z"),),
            base="https://s3-eu-west-1.amazonaws.com",
            mirrors=(),
            recipes=("yoochoose1_4", "yoochoose1_64"),
            table="yoochoose-clicks.dat",
        ),
        RawSource(
            "retailrocket",
            "RetailRocket's events: needs a login at Kaggle",
            manual=_RETAILROCKET,
            recipes=("retailrocket",),
            table="events.csv",
        ),
        RawSource(
            "tmall",
            "Tmall (IJCAI-15), session-rec's table",
            manual=f"download tmall's dataset15.csv from {_SESSION_REC}",
            recipes=("tmall",),
            table="dataset15.csv",
        ),
        RawSource(
            "nowplaying",
            "Nowplaying, session-rec's table",
            manual=f"download nowplaying.csv from {_SESSION_REC}",
            recipes=("nowplaying",),
            table="nowplaying.csv",
        ),
    )
}
