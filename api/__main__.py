"""`python -m api`: the server; `python -m api keys …`: its keys; `python -m api openapi`."""

import sys

import typer

from api.commands import keys_app, main, write_openapi
from shortft_core.errors import ShortFTError

app = typer.Typer(invoke_without_command=True, callback=main, add_completion=False)
app.add_typer(keys_app)
app.command("openapi")(write_openapi)

if __name__ == "__main__":
    try:
        app()
    except ShortFTError as error:
        sys.exit(str(error))
