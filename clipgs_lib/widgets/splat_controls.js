// The page around the picture: elements, sliders, legend. Text goes in as textContent only.

const HELP = "drag: orbit · right or shift drag: pan · wheel, pinch: zoom · click: select · double click: focus · " +
  "keys: arrows orbit, shift+arrows pan, + − zoom, f focus, r reset, [ ] SH degree, Esc deselect, ? help";

/** A labelled range input that shows its number. */
function slider(label, { min, max, step, value, digits = 0 }, onInput) {
  const number = make("output", { className: "sv-number" });
  const input = make("input", { type: "range", min, max, step, "aria-label": label });
  const show = (v) => {
    input.value = v;
    number.textContent = Number(v).toFixed(digits);
  };
  input.addEventListener("input", () => {
    show(input.value);
    onInput(Number(input.value));
  });
  show(value);
  return { element: make("label", { className: "sv-slider" }, label, input, number), show };
}

function toggle(label, checked, onChange) {
  const input = make("input", { type: "checkbox", checked });
  input.addEventListener("change", () => onChange(input.checked));
  return { element: make("label", { className: "sv-toggle" }, input, label), show: (v) => (input.checked = v) };
}

function button(text, label, onClick) {
  const element = make("button", { type: "button", title: label, "aria-label": label }, text);
  element.addEventListener("click", onClick);
  return element;
}

/** Ties one control to one trait, both ways; returns the control's element. */
function bindControl(model, trait, control) {
  model.on(`change:${trait}`, () => control.show(model.get(trait)));
  return control.element;
}

const setter = (model, trait) => (value) => {
  model.set(trait, value);
  model.save_changes();
};

/** Crop box: on/off and two thumbs per axis that cannot pass each other. */
function cropControls(model, scene) {
  const put = setter(model, "crop");
  const on = bindControl(model, "crop_on", toggle("crop box", model.get("crop_on"), setter(model, "crop_on")));
  const body = make("details", { className: "sv-crop" }, make("summary", {}, "Crop"), on);
  const rows = ["x", "y", "z"].map((axis, k) => {
    const low = scene.low[k], high = scene.high[k];
    const inputs = [0, 1].map((end) => {
      const label = `${axis} ${end ? "maximum" : "minimum"}`;
      const input = make("input", { type: "range", min: 0, max: 1000, step: 1, "aria-label": label });
      input.addEventListener("input", () => {
        const crop = model.get("crop").map((pair) => pair.slice());
        const thumb = Number(input.value);
        // the ends of the track are the exact bounds, so that nothing on the border is lost to rounding
        const edge = thumb === 0 ? low : thumb === 1000 ? high : low + ((high - low) * thumb) / 1000;
        crop[k][end] = end ? Math.max(edge, crop[k][0]) : Math.min(edge, crop[k][1]);
        put(crop);
        if (!model.get("crop_on")) setter(model, "crop_on")(true);
      });
      return input;
    });
    const number = make("output", { className: "sv-range" });
    body.append(make("div", { className: "sv-axis" }, axis, ...inputs, number));
    return { inputs, number, low, high };
  });
  const show = () => {
    rows.forEach(({ inputs, number, low, high }, k) => {
      const pair = model.get("crop")[k];
      inputs.forEach((input, end) => (input.value = (1000 * (pair[end] - low)) / Math.max(high - low, 1e-30)));
      number.textContent = pair.map((v) => v.toPrecision(3)).join(" … ");
    });
  };
  model.on("change:crop", show);
  show();
  body.append(button("whole", "Crop box back to the whole splat", () => put(scene.low.map((v, k) => [v, scene.high[k]]))));
  return body;
}

/** Colour bar of the shown values; hidden while the splats show their own colours. */
function legend(model) {
  const bar = make("div", { className: "sv-bar" });
  const low = make("span"), high = make("span"), name = make("span", { className: "sv-name" });
  const element = make("div", { className: "sv-legend", "aria-label": "colour legend" }, low, bar, high, name);
  const show = (value) => {
    if (value) {
      const stops = [];
      for (let i = 0; i < 255; i += 6.35) {
        const k = 4 * Math.round(i);
        stops.push(`rgb(${value.colormap[k]},${value.colormap[k + 1]},${value.colormap[k + 2]})`);
      }
      bar.style.background = `linear-gradient(to right, ${stops.join(",")})`;
      low.textContent = Number(value.low.toPrecision(4));
      high.textContent = Number(value.high.toPrecision(4));
      name.textContent = value.label;
    }
    element.hidden = !value || model.get("color_mode") !== "value";
  };
  return { element, show };
}

const BACKGROUNDS = { page: null, white: [1, 1, 1], grey: [0.5, 0.5, 0.5], black: [0, 0, 0] };

/** What the splats lie on: the page, one of three shades, or the colour that Python gave. */
function backgroundControl(model) {
  const element = make("select", { "aria-label": "background" });
  const colors = { ...BACKGROUNDS };
  const show = (value) => {
    let name = Object.keys(colors).find((one) => String(colors[one]) === String(value));
    if (!name) colors[(name = "colour")] = value;
    element.replaceChildren(...Object.keys(colors).map((one) => make("option", { value: one }, `on ${one}`)));
    element.value = name;
  };
  element.addEventListener("change", () => setter(model, "background")(colors[element.value]));
  show(model.get("background"));
  return { element, show };
}

/** The row of controls. actions: {reset, download, help, fullscreen}. Returns {element, setValues, pngWidth}. */
function controlBar(model, info, actions) {
  const bar = make("div", { className: "sv-controls", role: "group", "aria-label": "viewer controls" });
  const add = (trait, control) => bar.append(bindControl(model, trait, control));
  if (info.max_degree > 0) {
    const range = { min: 0, max: info.max_degree, step: 1, value: model.get("sh_degree") };
    add("sh_degree", slider("SH degree", range, setter(model, "sh_degree")));
  }
  const sizes = { min: 0.05, max: 2, step: 0.05, value: model.get("splat_scale"), digits: 2 };
  add("splat_scale", slider("size", sizes, setter(model, "splat_scale")));
  const select = make("select", { "aria-label": "colouring" });
  select.append(make("option", { value: "color" }, "colour"), make("option", { value: "value" }, "value"));
  select.value = model.get("color_mode");
  select.addEventListener("change", () => setter(model, "color_mode")(select.value));
  model.on("change:color_mode", () => (select.value = model.get("color_mode")));
  bar.append(select);
  if (info.views.length > 1) add("linked", toggle("linked", model.get("linked"), setter(model, "linked")));
  const pixels = make("input", { type: "number", className: "sv-pixels", min: 64, max: 4096, step: 1, placeholder: "px",
    title: "width of the PNG per viewport, pixels; empty: as on the screen", "aria-label": "PNG width, pixels" });
  add("background", backgroundControl(model));
  bar.append(
    button("reset", "Reset everything", actions.reset),
    button("full screen", "Full screen, or back", actions.fullscreen),
    button("PNG", "Download the picture as PNG", actions.download), pixels,
    button("?", "Show or hide the help line", actions.help),
    cropControls(model, info.scene),
  );
  const setValues = (value) => {
    select.hidden = !value;
    if (value) select.options[1].textContent = value.label;
  };
  const pngWidth = () => (pixels.value ? clamp(Math.round(Number(pixels.value)), 64, 4096) : null);
  return { element: bar, setValues, pngWidth };
}
