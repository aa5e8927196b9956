// The picture of who cascades to whom: nodes by region around an ellipse,
// links as arrows from the node that sends to the one that pulls.

import { attr, children, h, keyed, s, text } from './dom.js';
import { bitsOf, countOf, ms, percent, plural, tail, seconds } from './format.js';
import { colour, compare } from './model.js';

// Places are remembered for as long as the console is open, so that nobody
// moves when somebody else comes or goes: a region's newcomer takes the place
// of one that left before it opens another.
const places = new Map(); // region → node IDs in order; null where one left

function settle(model) {
  const here = new Map();
  for (const node of [...model.shown.values()].sort((a, b) => compare(a.label, b.label))) {
    if (!here.has(node.region)) here.set(node.region, []);
    here.get(node.region).push(node.id);
  }
  for (const [region, ids] of here) {
    const present = new Set(ids);
    const slots = (places.get(region) ?? []).map((id) => (present.has(id) ? id : null));
    for (const id of ids) {
      if (slots.includes(id)) continue;
      const free = slots.indexOf(null);
      if (free >= 0) slots[free] = id;
      else slots.push(id);
    }
    // Half empty: better to close ranks once than to keep the holes.
    places.set(region, slots.length > 2 * ids.length ? slots.filter(Boolean) : slots);
  }
  for (const region of places.keys()) if (!here.has(region)) places.delete(region);
  return [...places].sort(([a], [b]) => compare(a, b));
}

// ellipse measures an ellipse so that places along it are evenly spaced, which
// even angles are not.
function ellipse(cx, cy, rx, ry) {
  const STEPS = 720;
  const lengths = [0];
  const at = (step) => {
    const angle = (step / STEPS) * 2 * Math.PI - Math.PI / 2; // clockwise from the top
    return { x: cx + rx * Math.cos(angle), y: cy + ry * Math.sin(angle) };
  };
  for (let step = 1; step <= STEPS; step++) {
    const [a, b] = [at(step - 1), at(step)];
    lengths.push(lengths[step - 1] + Math.hypot(b.x - a.x, b.y - a.y));
  }
  const length = lengths[STEPS];
  return {
    length,
    // at returns the point at a share 0…1 of the way round, with its outward normal.
    at(share) {
      const target = (((share % 1) + 1) % 1) * length;
      let low = 0;
      let high = STEPS;
      while (high - low > 1) {
        const middle = (low + high) >> 1;
        if (lengths[middle] <= target) low = middle;
        else high = middle;
      }
      const p = at(low + (target - lengths[low]) / (lengths[low + 1] - lengths[low]));
      const [nx, ny] = [(p.x - cx) / rx ** 2, (p.y - cy) / ry ** 2];
      const n = Math.hypot(nx, ny) || 1;
      return { ...p, nx: nx / n, ny: ny / n };
    },
  };
}

// arrange gives every node its place in a picture of this size.
function arrange(model, width) {
  const narrow = width < 560;
  const few = model.shown.size < 2 ? 190 : model.shown.size < 5 ? 330 : Infinity; // a picture of little is small
  const height = Math.round(Math.min(few, narrow ? width * 1.2 : Math.min(560, Math.max(430, width * 0.56))));
  const [cx, cy] = [width / 2, height / 2];
  // Room for the names beside the outermost nodes.
  const letters = Math.max(...[...model.shown.values()].map((n) => widthOf([nameOf(n, narrow), noteOf(n, narrow)])), 0);
  const rx = Math.max(56, Math.min(width / 2 - 34 - Math.min(letters, width * 0.21), height * 0.8));
  const ry = height / 2 - 62;
  const round = ellipse(cx, cy, rx, ry);
  const regions = settle(model);
  const gap = regions.length > 1 ? 0.9 : 0; // between regions, in places
  const total = regions.reduce((sum, [, slots]) => sum + slots.length + gap, 0);
  const spacing = round.length / Math.max(total, 1);
  const radius = Math.max(5, Math.min(narrow ? 15 : 19, spacing * 0.3));
  const nodes = new Map();
  const bands = [];
  // One region starts at the left, so that two nodes face each other.
  let at = regions.length > 1 ? gap / 2 : -0.25 * total - 0.5;
  for (const [region, slots] of regions) {
    slots.forEach((id, i) => {
      if (id === null) return;
      const place = total === 1 ? { x: cx, y: cy, nx: 0, ny: 1 } : round.at((at + i + 0.5) / total);
      nodes.set(id, place);
    });
    const points = [];
    const whole = regions.length === 1;
    const [from, to] = whole ? [at, at + slots.length] : [at + 0.22, at + slots.length - 0.22];
    const steps = Math.max(4, Math.ceil((96 * (to - from)) / total));
    for (let i = 0; i <= steps; i++) points.push(round.at((from + ((to - from) * i) / steps) / total));
    // The name stands between two nodes or beside the only one: links set out in
    // front of them.
    const middle = round.at((at + (slots.length > 1 ? Math.floor(slots.length / 2) : 0.26)) / total);
    bands.push({ region, points, middle, whole });
    at += slots.length + gap;
  }
  const layout = { width, height, cx, cy, nodes, bands, radius, narrow };
  layout.labels = writeLabels(model, layout);
  return layout;
}

// writeLabels puts each node's name outside of it, and leaves out those that
// would run into another: they show when the node is looked at. Nodes with
// something to tell come first.
function writeLabels(model, { nodes, radius, narrow }) {
  const weight = (node) => (node.self ? 4 : 0) + (node.carries.length ? 2 : 0) + (level(node) === 'easy' ? 0 : 1);
  const order = [...nodes.keys()].map((id) => model.shown.get(id)).sort((a, b) => weight(b) - weight(a) || compare(a.id, b.id));
  const taken = [...nodes].map(([id, p]) => ({ id, left: p.x - radius, right: p.x + radius, top: p.y - radius, bottom: p.y + radius }));
  const labels = new Map();
  for (const node of order) {
    const p = nodes.get(node.id);
    const lines = [nameOf(node, narrow), noteOf(node, narrow)];
    const away = radius + 13;
    const anchor = p.nx > 0.4 ? 'start' : p.nx < -0.4 ? 'end' : 'middle';
    const y = p.ny * away + (anchor !== 'middle' ? -3 : p.ny < 0 ? -18 : 12);
    // Beside the node, both lines keep clear of its ring.
    const over = Math.max(0, p.ny < 0 ? -(y + 18) : y - 11);
    const clear = anchor === 'middle' ? 0 : Math.sqrt(Math.max(0, (radius + 9) ** 2 - over ** 2));
    const x = Math.sign(p.nx) * Math.max(Math.abs(p.nx) * away, clear);
    const long = widthOf(lines);
    const left = p.x + x - (anchor === 'start' ? 0 : anchor === 'end' ? long : long / 2);
    const box = { id: node.id, left, right: left + long, top: p.y + y - 11, bottom: p.y + y + 18 };
    const shown = !taken.some((t) => t.id !== node.id && t.left < box.right && box.left < t.right && t.top < box.bottom && box.top < t.bottom);
    if (shown) taken.push(box);
    labels.set(node.id, { lines, anchor, x, y, shown });
  }
  return labels;
}

// widthOf guesses the width of a label's lines in a wide font; a label that
// turns out narrower does no harm.
const widthOf = ([name, note]) => Math.max(name.length * 9.4, note.length * 7.4);

const fixed = (n) => n.toFixed(1);

// curve draws one link. Links between the same two nodes are fanned out.
function curve(layout, link, index, count) {
  const [a, b] = [layout.nodes.get(link.from.id), layout.nodes.get(link.to.id)];
  const distance = Math.hypot(b.x - a.x, b.y - a.y) || 1;
  const side = link.from.id < link.to.id ? 1 : -1;
  const offset = (index - (count - 1) / 2) * (18 + distance * 0.04) * side;
  const middle = { x: (a.x + b.x) / 2, y: (a.y + b.y) / 2 };
  // Bent towards the middle, neighbours less than nodes far apart.
  const inward = Math.hypot(layout.cx - middle.x, layout.cy - middle.y) || 1;
  const pull = Math.min(0.5, (distance * 0.42) / inward);
  const control = {
    x: middle.x + (layout.cx - middle.x) * pull - ((b.y - a.y) / distance) * offset,
    y: middle.y + (layout.cy - middle.y) * pull + ((b.x - a.x) / distance) * offset,
  };
  const toward = (p, q, by) => {
    const d = Math.hypot(q.x - p.x, q.y - p.y) || 1;
    return { x: p.x + ((q.x - p.x) / d) * by, y: p.y + ((q.y - p.y) / d) * by };
  };
  const weight = Math.min(10, 1.75 + 1.35 * Math.log2(1 + link.viewers));
  const head = 7 + weight * 1.15;
  const start = toward(a, control, layout.radius + 6);
  const tip = toward(b, control, layout.radius + 8);
  const end = toward(b, control, layout.radius + 8 + head * 0.8);
  const [ux, uy] = [(tip.x - end.x) / (head * 0.8), (tip.y - end.y) / (head * 0.8)];
  const wing = head * 0.58;
  const points = [
    tip,
    { x: tip.x - ux * head - uy * wing, y: tip.y - uy * head + ux * wing },
    { x: tip.x - ux * head * 0.78, y: tip.y - uy * head * 0.78 },
    { x: tip.x - ux * head + uy * wing, y: tip.y - uy * head - ux * wing },
  ];
  return {
    line: `M${fixed(start.x)} ${fixed(start.y)}Q${fixed(control.x)} ${fixed(control.y)} ${fixed(end.x)} ${fixed(end.y)}`,
    head: `M${points.map((p) => `${fixed(p.x)} ${fixed(p.y)}`).join('L')}Z`,
    weight,
  };
}

// arc draws a part of a circle around 0,0 from the top, clockwise.
function arc(radius, from, to) {
  if (to - from >= 0.9999) return `M0 ${-radius}A${radius} ${radius} 0 1 1 0 ${radius}A${radius} ${radius} 0 1 1 0 ${-radius}Z`;
  const point = (share) => `${fixed(radius * Math.sin(share * 2 * Math.PI))} ${fixed(-radius * Math.cos(share * 2 * Math.PI))}`;
  return `M${point(from)}A${radius} ${radius} 0 ${to - from > 0.5 ? 1 : 0} 1 ${point(to)}`;
}

const slice = (radius, from, to) => (to - from >= 0.9999 ? arc(radius, from, to) : `M0 0L${arc(radius, from, to).slice(1)}Z`);

export const level = (node) => {
  if (node.gone) return 'gone';
  if (!node.known || !node.valid) return 'unknown';
  if (node.stress >= 0.9 || node.state === 'full') return 'high';
  return node.stress >= 0.72 || node.state === 'draining' ? 'raised' : 'easy';
};

function makeNode(layout) {
  const ring = s('circle', { class: 'ring' });
  const gauge = s('path', { class: 'gauge' });
  const disc = s('circle', { class: 'disc' });
  const parts = s('g');
  const hub = s('circle', { class: 'hub' });
  const count = s('text', { class: 'count', 'text-anchor': 'middle', dy: '0.35em' });
  const name = s('text', { class: 'name' });
  const note = s('text', { class: 'note' });
  const el = s('g', { class: 'node', tabindex: -1, role: 'img' }, ring, gauge, disc, parts, hub, count, name, note);
  const make = keyed(() => {
    const path = s('path');
    return {
      el: path,
      update: ({ carrier, d }) => {
        attr(path, 'd', d);
        attr(path, 'class', `part ${colour(carrier.stream)} ${carrier.origin ? 'origin' : 'relay'}`);
      },
    };
  });
  return {
    el,
    update(node) {
      const { radius } = layout();
      const p = layout().nodes.get(node.id);
      el.picked = { node };
      attr(el, 'transform', `translate(${fixed(p.x)} ${fixed(p.y)})`);
      attr(el, 'class', `node ${level(node)}${node.self ? ' self' : ''}`);
      attr(el, 'data-node', node.id);
      attr(ring, 'r', radius + 4.5);
      attr(gauge, 'd', node.stress > 0.004 ? arc(radius + 4.5, 0, Math.min(1, node.stress)) : '');
      attr(disc, 'r', radius);
      const n = node.carries.length;
      children(parts, make(
        node.carries.map((carrier, i) => ({ carrier, d: slice(radius, i / n, (i + 1) / n) })),
        ({ carrier }) => carrier.stream,
      ));
      attr(hub, 'r', n ? radius * 0.62 : 0);
      text(count, node.viewers && radius >= 10 ? node.viewers : '');
      attr(count, 'class', `count${node.viewers > 999 ? ' small' : ''}`);

      const label = layout().labels.get(node.id);
      text(name, label.lines[0]);
      text(note, label.lines[1]);
      for (const [line, y] of [[name, label.y], [note, label.y + 15]]) {
        attr(line, 'x', fixed(label.x));
        attr(line, 'y', fixed(y));
        attr(line, 'text-anchor', label.anchor);
      }
      attr(el, 'data-crowded', label.shown ? null : '');
      attr(el, 'aria-label', describeNode(node));
    },
  };
}

const nameOf = (node, narrow) => {
  const name = narrow && !node.name ? tail(node.id) : node.label;
  return name.length > 22 ? `${name.slice(0, 21)}…` : name;
};

function noteOf(node, narrow) {
  if (node.gone) return node.state;
  if (!node.known) return 'no record';
  if (!node.valid) return 'bad record';
  const words = [percent(node.stress)];
  if (node.state !== 'active') words.push(node.state);
  else if (node.self && !narrow) words.push('this node');
  return words.join(' · ');
}

function makeLink(layout) {
  const line = s('path', { class: 'line' });
  const flow = s('path', { class: 'flow' });
  const head = s('path', { class: 'head' });
  const hit = s('path', { class: 'hit' });
  const el = s('g', { class: 'link', tabindex: -1, role: 'img' }, hit, line, flow, head);
  return {
    el,
    update({ link, index, count }) {
      const shape = curve(layout(), link, index, count);
      el.picked = { link };
      attr(el, 'class', `link ${colour(link.stream)}${link.viewers ? '' : ' idle'}`);
      attr(el, 'data-stream', link.stream);
      attr(el, 'data-from', link.from.id);
      attr(el, 'data-to', link.to.id);
      for (const path of [line, flow, hit]) attr(path, 'd', shape.line);
      attr(head, 'd', shape.head);
      attr(line, 'stroke-width', fixed(shape.weight));
      attr(flow, 'stroke-width', fixed(Math.max(1, shape.weight * 0.4)));
      attr(el, 'aria-label', describeLink(link));
    },
  };
}

const roleOf = (c) => (c.origin ? 'origin' : `relay at depth ${c.depth}`);

function describeNode(node) {
  const words = [`Node ${node.label}`];
  if (node.self) words.push('this node');
  words.push(node.region ? `region ${node.region}` : 'no region');
  if (node.gone) words.push('its record is gone');
  else words.push(node.known ? `${node.state}, stress ${percent(node.stress)}` : 'no record of its own');
  for (const c of node.carries) words.push(`${roleOf(c)} of ${c.stream}, ${plural(c.viewers, 'viewer')}`);
  return words.join('; ');
}

const describeLink = (link) =>
  `${link.stream}: ${link.from.label} sends to ${link.to.label}, ${plural(link.viewers, 'viewer')} behind it, round trip ${ms(link.rtt)}`;

function makeBand() {
  const el = s('path', { class: 'band' });
  return {
    el,
    update({ points, whole, layout }) {
      const path = `M${points.map((p) => `${fixed(p.x)} ${fixed(p.y)}`).join('L')}${whole ? 'Z' : ''}`;
      attr(el, 'd', layout.nodes.size > 1 ? path : ''); // one node needs no place among others
      attr(el, 'stroke-width', whole ? 2 : layout.radius * 2 + 22); // one region is everybody's
    },
  };
}

// Names of regions stand inside the ellipse, above the links.
function makeRegion() {
  const el = s('text', { class: 'region' });
  return {
    el,
    update({ region, middle, whole, layout }) {
      const inward = layout.radius + (layout.narrow ? 18 : 24);
      const side = Math.abs(middle.nx) > 0.4;
      // On a phone, names that face each other would meet: one up, one down.
      const dodge = layout.narrow && side ? Math.sign(middle.nx) * 10 : 0;
      attr(el, 'x', fixed(whole ? layout.cx : middle.x - middle.nx * inward));
      attr(el, 'y', fixed(whole ? layout.cy + 4 : middle.y - middle.ny * (inward + (side ? 0 : 6)) + 4 + dodge));
      attr(el, 'text-anchor', whole || !side ? 'middle' : middle.nx > 0 ? 'end' : 'start');
      const longest = layout.narrow ? 13 : 24;
      const name = region.length > longest ? `${region.slice(0, longest - 1)}…` : region;
      text(el, whole && layout.nodes.size < 2 ? '' : name || (whole ? '' : 'no region'));
    },
  };
}

// picture returns {el, update(model), highlight(stream)}; onPick(what) is told
// of {node} or {link} under the pointer or the focus, and null for neither.
export function picture(onPick) {
  const bands = s('g', { class: 'bands', 'aria-hidden': 'true' });
  const regions = s('g', { class: 'region-names', 'aria-hidden': 'true' });
  const links = s('g', { class: 'links' });
  const nodes = s('g', { class: 'nodes' });
  const svg = s('svg', {
    class: 'picture', role: 'group',
    'aria-label': 'Cascade links. Use the arrow keys to go from node to node and on to the links.',
  }, bands, links, regions, nodes);
  const el = h('div', { class: 'picture-frame' }, svg);

  let layout = null;
  let model = null;
  let stream = ''; // whose links are highlighted
  let hovered = null;
  let focused = null;
  const bandViews = keyed(makeBand);
  const regionViews = keyed(makeRegion);
  const nodeViews = keyed(() => makeNode(() => layout));
  const linkViews = keyed(() => makeLink(() => layout));

  function draw() {
    const width = Math.round(el.clientWidth);
    if (!model || !width) return;
    layout = arrange(model, width);
    attr(svg, 'viewBox', `0 0 ${layout.width} ${layout.height}`);
    attr(svg, 'width', layout.width);
    attr(svg, 'height', layout.height);
    const banded = layout.bands.map((band) => ({ ...band, layout }));
    children(bands, bandViews(banded, (band) => band.region));
    children(regions, regionViews(banded, (band) => band.region));

    const drawn = model.links.filter((l) => layout.nodes.has(l.from.id) && layout.nodes.has(l.to.id));
    const pairs = new Map();
    const items = drawn.map((link) => {
      const pair = [link.from.id, link.to.id].sort().join('\n');
      pairs.set(pair, (pairs.get(pair) ?? 0) + 1);
      return { link, pair, index: pairs.get(pair) - 1 };
    });
    for (const item of items) item.count = pairs.get(item.pair);
    children(links, linkViews(items, (item) => item.link.key));
    const order = layout.bands.flatMap(({ region }) => places.get(region)).filter(Boolean);
    children(nodes, nodeViews(order.map((id) => model.shown.get(id)), (node) => node.id));

    const all = itemsInOrder();
    if (!all.some((item) => item.getAttribute('tabindex') === '0') && all[0]) attr(all[0], 'tabindex', 0);
    mark();
  }

  // One tab stop; arrow keys go through the nodes, then the links.
  const itemsInOrder = () => [...nodes.children, ...links.children];

  function mark() {
    const picked = (hovered ?? focused)?.picked ?? null;
    const name = picked?.link?.stream ?? stream;
    const id = picked?.node?.id;
    attr(svg, 'data-marked', name || id ? '' : null);
    for (const link of links.children) {
      const own = link.picked.link;
      link.classList.toggle('hot', id ? own.from.id === id || own.to.id === id : own.stream === name);
    }
    for (const item of nodes.children) {
      const own = item.picked.node;
      const hot = id
        ? own.id === id || own.carries.some((c) => c.parent === id) || (model.shown.get(id)?.carries ?? []).some((c) => c.parent === own.id)
        : own.carries.some((c) => c.stream === name);
      item.classList.toggle('hot', hot);
    }
    onPick(picked);
  }

  const itemOf = (event) => event.target.closest?.('.node, .link') ?? null;
  svg.addEventListener('pointerover', (event) => {
    hovered = itemOf(event);
    mark();
  });
  svg.addEventListener('pointerleave', () => {
    hovered = null;
    mark();
  });
  svg.addEventListener('focusin', (event) => {
    focused = itemOf(event);
    mark();
  });
  svg.addEventListener('focusout', () => {
    focused = null;
    mark();
  });
  svg.addEventListener('keydown', (event) => {
    const all = itemsInOrder();
    const at = all.indexOf(itemOf(event));
    if (at < 0) return;
    const next = {
      ArrowRight: at + 1, ArrowDown: at + 1, ArrowLeft: at - 1, ArrowUp: at - 1, Home: 0, End: all.length - 1,
    }[event.key];
    if (next === undefined) return;
    event.preventDefault();
    const to = all[(next + all.length) % all.length];
    for (const item of all) attr(item, 'tabindex', item === to ? 0 : -1);
    to.focus();
  });

  const observer = new ResizeObserver(draw);
  observer.observe(el);
  return {
    el,
    update(next) {
      model = next;
      draw();
    },
    highlight(name) {
      stream = name;
      if (layout) mark();
    },
    leave: () => observer.disconnect(),
  };
}

// details says in a few words what was picked in the picture.
export function details(picked) {
  if (picked?.link) {
    const { link } = picked;
    return [
      h('strong', { class: `swatch ${colour(link.stream)}` }, link.stream),
      h('span', {}, `${link.from.label} → ${link.to.label}`),
      h('span', {}, `${plural(link.viewers, 'viewer')} behind it`),
      h('span', {}, `round trip ${ms(link.rtt)}`),
    ];
  }
  if (picked?.node) {
    const { node } = picked;
    const r = node.record;
    return [
      h('strong', {}, node.label, node.self ? ' (this node)' : ''),
      h('span', {}, node.region ? `region ${node.region}` : 'no region', r.zone ? `, zone ${r.zone}` : ''),
      node.gone ? h('span', {}, `its record has been gone for ${seconds(node.goneFor / 1000)}`) : node.known
        ? h('span', {}, `${node.state}, stress ${percent(node.stress)}`)
        : h('span', {}, 'carries streams, but its own record is missing'),
      node.known && h('span', {}, `uplink ${bitsOf(r.uplink?.used ?? 0, r.uplink?.limit)}`),
      node.known && h('span', {}, `sessions ${countOf(r.sessions?.used ?? 0, r.sessions?.limit)}`),
      ...node.carries.map((c) =>
        h('span', { class: `swatch ${colour(c.stream)}` }, `${c.stream}: ${roleOf(c)}, ${plural(c.viewers, 'viewer')}`)),
    ].filter(Boolean);
  }
  return [];
}
