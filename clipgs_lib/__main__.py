"""``python -m clipgs_lib`` is ``clipgs``, also under ``torchrun -m``."""

from .cli import app

if __name__ == "__main__":
    app(prog_name="clipgs")
