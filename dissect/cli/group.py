"""The command `dissect` itself: errors meant for the user become one line on stderr."""

from __future__ import annotations

import os
import sys
from typing import Any

import click

from dissect import __version__
from dissect.errors import DissectError

#: What click 8.2 and later raise where a command group is called bare: a usage error whose text is the whole help.
_BARE: Any = getattr(click.exceptions, "NoArgsIsHelpError", ())


class _Main(click.Group):
    """Turns errors meant for the user into one line on stderr; --debug shows the traceback."""

    def main(self, *args: Any, **kwargs: Any) -> Any:
        debug = "--debug" in sys.argv
        try:
            return super().main(*args, **{**kwargs, "standalone_mode": False})
        except click.exceptions.Abort:
            click.echo("dissect: interrupted", err=True)
            sys.exit(130)
        except _BARE as error:
            click.echo(error.format_message())
            sys.exit(2)
        except click.UsageError as error:
            where = error.ctx.command_path if error.ctx else "dissect"
            click.echo(f"{where}: {' '.join(error.format_message().split())} (see {where} --help)", err=True)
            sys.exit(2)
        except click.ClickException as error:
            click.echo(f"dissect: {error.format_message()}", err=True)
            sys.exit(2)
        except DissectError as error:
            if debug:
                raise
            # Of several processes each fails for the same wrong use: one says so. A failed run each says for itself.
            if error.status == 1 or os.environ.get("RANK", "0") == "0":
                click.echo(f"dissect: {' '.join(str(error).split())}", err=True)
            sys.exit(error.status)
        except BrokenPipeError:
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            sys.exit(1)
        except Exception as error:
            if debug:
                raise
            text = " ".join(str(error).split())
            click.echo(f"dissect: {type(error).__name__}: {text} (--debug shows where)", err=True)
            sys.exit(1)


@click.group(cls=_Main, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(__version__, prog_name="dissect")
@click.option("--debug", is_flag=True, help="Show the traceback of an error.")
def main(debug: bool) -> None:
    """Which parts of a session-based recommender does its accuracy need?

    \b
    dissect run srgnn                          on a data set made on the spot
    dissect run srgnn --dataset diginetica     on real data
    dissect plot runs/RUN                      the density figure again
    """
