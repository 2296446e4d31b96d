"""The command line: parsing only. Heavy imports wait inside the commands, so that --help is instant."""

from dissect.cli import bench, controls, data, many, runs
from dissect.cli.group import main

__all__ = ["bench", "controls", "data", "main", "many", "runs"]
