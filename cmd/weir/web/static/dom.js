// Building and updating elements. Strings only ever become text or attribute
// values here; nothing in the console parses a string as markup.

const SVG = 'http://www.w3.org/2000/svg';

function build(el, props, children) {
  for (const [name, value] of Object.entries(props ?? {})) {
    if (value === undefined || value === null || value === false) continue;
    if (name.startsWith('on')) el.addEventListener(name.slice(2), value);
    else if (value === true) el.setAttribute(name, '');
    else el.setAttribute(name, value);
  }
  el.append(...children.flat().filter((c) => c !== null && c !== undefined && c !== false));
  return el;
}

// h makes an HTML element: h('p', {class: 'note'}, 'text', child).
export const h = (tag, props, ...children) => build(document.createElement(tag), props, children);

// s makes an SVG element.
export const s = (tag, props, ...children) => build(document.createElementNS(SVG, tag), props, children);

// text sets an element's text if it differs, so that a selection and a screen
// reader's place survive updates that change nothing.
export function text(el, value) {
  value = String(value);
  if (el.textContent !== value) el.textContent = value;
}

// attr sets or, with null or undefined, removes an attribute if it differs.
export function attr(el, name, value) {
  if (value === null || value === undefined) {
    if (el.hasAttribute(name)) el.removeAttribute(name);
  } else if (el.getAttribute(name) !== String(value)) {
    el.setAttribute(name, value);
  }
}

// children makes el hold exactly these nodes in this order, moving as few as
// it can: a node that stays put keeps its focus.
export function children(el, nodes) {
  nodes = nodes.filter(Boolean);
  const wanted = new Set(nodes);
  for (const child of [...el.childNodes]) if (!wanted.has(child)) child.remove();
  let at = el.firstChild;
  for (const node of nodes) {
    if (node === at) at = at.nextSibling;
    else el.insertBefore(node, at);
  }
}

// keyed keeps one view per key across updates. make(key) builds {el, update}.
export function keyed(make) {
  const views = new Map();
  return (items, keyOf) => {
    const used = new Set();
    const out = items.map((item) => {
      const key = keyOf(item);
      used.add(key);
      if (!views.has(key)) views.set(key, make(key));
      const view = views.get(key);
      view.update(item);
      return view.el;
    });
    for (const key of views.keys()) if (!used.has(key)) views.delete(key);
    return out;
  };
}

// copyButton copies value() and says so, also to a screen reader.
export function copyButton(label, value) {
  const said = h('span', { class: 'said', role: 'status' });
  const button = h('button', {
    class: 'copy', type: 'button', 'aria-label': label, title: label,
    onclick: async (event) => {
      event.stopPropagation();
      text(said, (await copy(value())) ? 'Copied' : 'Not copied');
      setTimeout(() => text(said, ''), 1600);
    },
  }, icon('copy'));
  return h('span', { class: 'copying' }, button, said);
}

// copy also works on plain http, where navigator.clipboard is missing.
async function copy(value) {
  try {
    await navigator.clipboard.writeText(value);
    return true;
  } catch {
    const area = h('textarea', { class: 'off', 'aria-hidden': 'true' });
    const focused = document.activeElement;
    area.value = value;
    document.body.append(area);
    area.select();
    const ok = document.execCommand('copy');
    area.remove();
    focused?.focus();
    return ok;
  }
}

const ICONS = {
  copy: ['M9 9V5.5A1.5 1.5 0 0 1 10.5 4h8A1.5 1.5 0 0 1 20 5.5v8a1.5 1.5 0 0 1-1.5 1.5H15', 'M5.5 9h8A1.5 1.5 0 0 1 15 10.5v8a1.5 1.5 0 0 1-1.5 1.5h-8A1.5 1.5 0 0 1 4 18.5v-8A1.5 1.5 0 0 1 5.5 9Z'],
  chevron: ['m9 6 6 6-6 6'],
  play: ['M8 5.5v13l10.5-6.5Z'],
  stop: ['M7 7h10v10H7Z'],
  sound: ['M4 9.5v5h3.5L12 18.5v-13L7.5 9.5Z', 'M15.5 9a4 4 0 0 1 0 6', 'M18 6.5a8 8 0 0 1 0 11'],
  silent: ['M4 9.5v5h3.5L12 18.5v-13L7.5 9.5Z', 'm16 9.5 5 5', 'm21 9.5-5 5'],
  microphone: ['M12 3.5a3 3 0 0 1 3 3v5a3 3 0 0 1-6 0v-5a3 3 0 0 1 3-3Z', 'M5.5 11.5a6.5 6.5 0 0 0 13 0', 'M12 18v3'],
  pip: ['M4 5.5h16v13H4Z', 'M12.5 12h5v4h-5Z'],
  full: ['M4 9V5.5A1.5 1.5 0 0 1 5.5 4H9', 'M15 4h3.5A1.5 1.5 0 0 1 20 5.5V9', 'M20 15v3.5a1.5 1.5 0 0 1-1.5 1.5H15', 'M9 20H5.5A1.5 1.5 0 0 1 4 18.5V15'],
};

export function icon(name) {
  return s('svg', { viewBox: '0 0 24 24', class: `icon icon-${name}`, 'aria-hidden': 'true', focusable: 'false' },
    ICONS[name].map((d) => s('path', { d })));
}
