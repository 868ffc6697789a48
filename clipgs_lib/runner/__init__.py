"""The notebook runner behind ``clipgs notebooks``: papermill with its gaps closed.

Names and types of parameters are checked before anything starts; each notebook runs in a process of its own and must
leave a ``metrics.json``; a failed one does not stop the others; an unchanged one is skipped; and every result becomes a
page that works without a network, listed on one index page.
"""

from .console import Console
from .index import write_index
from .notebooks import (
    Notebook,
    NotebookError,
    Parameter,
    ParameterError,
    find_notebooks,
    read_notebook,
    read_parameters_file,
    resolve_parameters,
)
from .schedule import Options, Report, run_notebooks
from .state import Outcome, load_outcome
