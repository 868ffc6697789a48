// The anywidget front end. Python concatenates the splat_*.js files (see splat_view.py); this one comes last.

export default () => {
  let load = null;
  return {
    initialize({ model }) {
      keepStills(model.widget_manager);
      load = splatSource(model);
    },
    render({ model, el }) {
      const viewer = new SplatViewer(model, el, load);
      return () => viewer.close();
    },
  };
};
