// What all our pages use; Python puts it in front of the others.

/** Make an element. `props` are properties, or attributes when they hold a dash or are "role"; children may be text. */
function make(tag, props = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(props)) {
    if (name.includes("-") || name === "role") element.setAttribute(name, value);
    else element[name] = value;
  }
  element.append(...children);
  return element;
}

/** Call `action` whenever the page takes other colours: the system's scheme or JupyterLab's theme; returns how to stop. */
function watchColors(action) {
  const scheme = matchMedia("(prefers-color-scheme: dark)"), theme = new MutationObserver(action);
  scheme.addEventListener("change", action);
  theme.observe(document.body, { attributes: true, attributeFilter: ["data-jp-theme-name"] });
  return () => {
    scheme.removeEventListener("change", action);
    theme.disconnect();
  };
}

const STATE = "application/vnd.jupyter.widget-state+json", WIDGET = "application/vnd.jupyter.widget-view+json";
const STILL = {
  model_module: "@jupyter-widgets/controls", model_module_version: "2.0.0", model_name: "ImageModel",
  state: { format: "png" }, // an image widget of others has a layout, too
};
const STILLS_KEPT = Symbol.for("clipgs stills");

/** Have JupyterLab, whose widget manager this is, save the pictures beside our views so that it shows them later.
 *
 * It prefers a widget view to the picture in the same output even when the widget is gone with its kernel, and says
 * "model not found" then. Models that a notebook brings along it finds; so on saving each view with a picture gets an
 * image widget of its id. A kernel that still runs comes first. Other front ends have no such context: nothing happens.
 */
function keepStills(manager) {
  const context = manager?.context, notebook = context?.model;
  if (!context?.saveState || !notebook?.setMetadata || context[STILLS_KEPT]) return;
  context[STILLS_KEPT] = true; // once for all widgets of a notebook
  context.saveState.connect((_, stage) => {
    if (stage === "started") notebook.setMetadata("widgets", withStills(notebook));
  });
}

/** The notebook's widget metadata: what others saved, and a still model for each of its outputs with view and PNG. */
function withStills(notebook) {
  const saved = notebook.getMetadata("widgets") ?? {};
  const { state: before, ...version } = saved[STATE] ?? { version_major: 2, version_minor: 0, state: {} };
  const ours = JSON.stringify(STILL.state);
  const state = Object.fromEntries(Object.entries(before).filter(([, model]) => JSON.stringify(model.state) !== ours));
  for (const { data } of notebook.toJSON().cells.flatMap((cell) => cell.outputs ?? [])) {
    const id = data?.[WIDGET]?.model_id, picture = [data?.["image/png"] ?? []].flat().join("").replace(/\s/g, "");
    if (!id || !picture || state[id]) continue;
    state[id] = { ...STILL, buffers: [{ data: picture, path: ["value"], encoding: "base64" }] };
  }
  return { ...saved, [STATE]: { ...version, state } };
}
