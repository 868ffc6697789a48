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
