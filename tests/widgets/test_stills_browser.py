"""What our pages add to a notebook when JupyterLab saves it, in Chromium: stills for a time without the kernel."""

from __future__ import annotations

import base64
import json

import nbformat
import pytest

from clipgs_lib.runner.page import WIDGET
from clipgs_lib.widgets import SplatView
from clipgs_lib.widgets.still import page_script

from .browser import chromium

STATE = "application/vnd.jupyter.widget-state+json"
CONTEXT = """([metadata, notebook]) => {
  const slots = [];
  window.context = {
    model: {
      getMetadata: (name) => metadata[name],
      setMetadata: (name, value) => (metadata[name] = value),
      toJSON: () => notebook,
    },
    saveState: { connect: (slot) => slots.push(slot) },
  };
  window.save = () => {
    for (const stage of ["started", "completed"]) for (const slot of slots) slot(window.context, stage);
    return [slots.length, metadata];
  };
}"""


@pytest.mark.browser
def test_a_saved_notebook_brings_its_stills_along(splats_factory):
    data, _ = SplatView(splats_factory(50), width=64, height=64)._repr_mimebundle_()
    mine, png = data[WIDGET]["model_id"], data["image/png"]
    bundles = [data, {WIDGET: {"model_id": "slider"}, "text/plain": "IntSlider()"}, {"image/png": png}]
    outputs = [*(nbformat.v4.new_output("display_data", one) for one in bundles), nbformat.v4.new_output("stream")]
    cells = [nbformat.v4.new_markdown_cell("words"), nbformat.v4.new_code_cell("view", outputs=outputs)]
    slider = {"model_name": "IntSliderModel", "state": {"value": 3}}
    old = {"model_name": "ImageModel", "state": {"format": "png"}, "buffers": []}
    version = {"version_major": 2, "version_minor": 0}
    metadata = {"widgets": {STATE: version | {"state": {"slider": slider, "gone": old}}}}
    with chromium() as browser:
        page = browser.new_page()
        page.add_script_tag(content=page_script())
        page.evaluate(CONTEXT, [metadata, json.loads(nbformat.writes(nbformat.v4.new_notebook(cells=cells)))])
        page.evaluate("for (const manager of [{ context }, { context }, {}, undefined]) keepStills(manager)")
        for _ in range(2):  # saving again changes nothing
            slots, saved = page.evaluate("save()")
            assert slots == 1
            state = saved["widgets"][STATE].pop("state")
            assert saved["widgets"][STATE] == version and state.pop("slider") == slider
            assert list(state) == [mine], "the one that is gone from the outputs goes from the metadata"
            still = state[mine]
            assert (still["model_module"], still["model_name"]) == ("@jupyter-widgets/controls", "ImageModel")
            (buffer,) = still["buffers"]
            assert (buffer["path"], buffer["encoding"]) == (["value"], "base64")
            assert base64.b64decode(buffer["data"]) == base64.b64decode(png)
