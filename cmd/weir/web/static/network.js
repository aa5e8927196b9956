// The network page: the picture, the streams, and the table of nodes.

import { attr, children, copyButton, h, icon, keyed, text } from './dom.js';
import { bits, bitsOf, countOf, list, ms, peer, percent, plural, seconds, tail } from './format.js';
import { streamPath } from './address.js';
import { colour, compare } from './model.js';
import { details, level, picture } from './picture.js';

const FILTER_FROM = 16; // nodes; below, a filter is clutter

// sorted is remembered while the console is open.
const sorted = { column: 'region', down: false };

export function networkPage() {
  const headline = h('h1', { class: 'headline', id: 'headline' }, 'Asking this node for the network…');
  const subline = h('p', { class: 'subline', id: 'subline' });
  const strip = h('p', { class: 'details', id: 'details' });
  const strips = h('div', { class: 'strip' }, strip);
  const noLinks = h('p', { class: 'picture-note', id: 'no-links', hidden: true });
  const drawing = picture((picked) => showDetails(picked));
  const streams = streamList((name) => drawing.highlight(name));
  const table = nodeTable();
  const happened = happenings();
  const help = h('div', { class: 'help', id: 'help', hidden: true });

  const el = h('div', { class: 'network' },
    h('div', { class: 'lead' }, headline, subline),
    help,
    h('div', { class: 'upper' },
      h('section', { class: 'card picture-card', 'aria-labelledby': 'picture-title' },
        h('h2', { id: 'picture-title' }, 'Cascade links'),
        drawing.el, noLinks, strips),
      streams.el),
    happened.el,
    table.el);

  let legend = '';
  function showDetails(picked) {
    const parts = details(picked);
    if (parts.length) {
      legend = '';
      children(strip, parts);
    } else if (!legend) {
      legend = 'shown';
      children(strip, [
        h('span', { class: 'key key-origin' }, 'origin of a stream'),
        h('span', { class: 'key key-relay' }, 'relay'),
        h('span', { class: 'key key-ring' }, 'stress'),
        h('span', { class: 'key key-count' }, 'number: viewers'),
        h('span', { class: 'key key-link' }, 'link: thicker with more viewers'),
      ]);
    }
  }
  showDetails(null);

  const ticking = setInterval(() => table.tick(), 1000);

  return {
    title: 'Network',
    el,
    update(model) {
      const parts = sentence(model);
      if (headline.textContent !== parts.map((p) => p.textContent ?? p).join('')) headline.replaceChildren(...parts);
      text(subline, secondSentence(model));
      drawing.update(model);
      const why = whyNoLinks(model);
      noLinks.hidden = !why;
      text(noLinks, why);
      streams.update(model);
      table.update(model);
      happened.name(model);
      showHelp(help, model);
    },
    happened: happened.take,
    leave() {
      clearInterval(ticking);
      drawing.leave();
    },
  };
}

const strong = (value) => h('b', {}, value);

function sentence(model) {
  const nodes = model.nodes.size;
  if (!nodes) return ['No node has published a record yet.'];
  const regions = new Set([...model.nodes.values()].map((n) => n.region).filter(Boolean)).size;
  const parts = [strong(plural(nodes, 'node'))];
  if (regions > 1) parts.push(' in ', strong(plural(regions, 'region')));
  if (!model.streams.length) return [...parts, nodes === 1 ? ' is up; no stream is published.' : ' are up; no stream is published.'];
  parts.push(nodes === 1 ? ' carries ' : ' carry ', strong(plural(model.streams.length, 'stream')), ' to ', strong(plural(model.viewers, 'viewer')), '.');
  return parts;
}

function secondSentence(model) {
  if (!model.nodes.size) return '';
  const words = [];
  if (model.streams.length) {
    words.push(`${plural(model.origins, 'origin')} and ${plural(model.relays, 'relay')}`);
    if (model.links.length) words[0] += ` over ${plural(model.links.length, 'cascade link')}, at most ${plural(model.depth, 'hop')} deep`;
  }
  if (model.unheard) words.push(model.unheard);
  const count = (test) => [...model.nodes.values()].filter(test).length;
  const states = [];
  if (model.gone.length) states.push(`${model.gone.length} ${model.gone.some((n) => n.state === 'gone') ? 'gone' : 'not heard of'}`);
  const [full, draining, unknown, bad] = [
    count((n) => n.state === 'full'), count((n) => n.state === 'draining'), count((n) => !n.known), count((n) => !n.valid),
  ];
  if (full) states.push(`${full} full`);
  if (draining) states.push(`${draining} draining`);
  if (unknown) states.push(`${unknown} without a record`);
  if (bad) states.push(`${bad} with a bad record`);
  if (states.length) words.push(`${list(states)}`);
  else if (model.nodes.size > 1) words.push('every node has room');
  return words.map((w) => w.charAt(0).toUpperCase() + w.slice(1)).join('. ') + (words.length ? '.' : '');
}

function whyNoLinks(model) {
  if (model.links.length || !model.nodes.size) return '';
  if (!model.streams.length) return 'Links appear here once a stream is watched through a node other than its own.';
  if (model.nodes.size === 1) return 'One node serves all clients. With a second one, streams can cascade.';
  return 'No cascades now: every stream is served by the node it was published at. Play one through another node, or fill the first, and a link appears.';
}

// showHelp says what to do next in a network that has nothing to show yet.
function showHelp(help, model) {
  const self = model.nodes.get(model.self);
  const kind = !model.nodes.size ? 'empty' : model.nodes.size === 1 ? 'alone' : '';
  help.hidden = !kind;
  // The command is part of the kind, so that the box is built again when it
  // changes and left alone otherwise. The node writes it: it knows its addresses.
  const address = (self?.record.addrs ?? []).map((a) => `${a}/p2p/${model.self}`)[0] ?? '';
  const join = model.commands?.join ?? `weir node --bootstrap ${address || 'ADDRESS'}`;
  if (help.dataset.kind === kind + join) return;
  help.dataset.kind = kind + join;
  if (kind === 'empty') {
    children(help, [
      h('h2', {}, 'No records'),
      h('p', {}, 'This node knows of no node, not even itself: it publishes its own record once it has joined the network, usually within a few seconds. If this stays, ask it what it is waiting for:'),
      command(model.commands?.status ?? 'weir status'),
    ]);
  } else if (kind === 'alone') {
    children(help, [
      h('h2', {}, 'This node is alone'),
      h('p', {}, 'It can publish and play already. To let it hand streams on when it is full, start another node that knows this one’s address:'),
      command(join),
      address ? null : h('p', { class: 'quiet' }, 'The address stands in the node’s ready file and in “weir status”.'),
    ]);
  }
}

const command = (line) => h('p', { class: 'command' }, h('code', {}, line), copyButton('Copy the command', () => line));

// The streams.

function streamList(highlight) {
  const items = h('ul', { class: 'streams', id: 'streams' });
  const empty = h('div', { class: 'empty', id: 'no-streams', hidden: true },
    h('p', {}, 'No stream is published. Send your camera, your screen or a test pattern from here:'),
    h('p', {}, h('a', { class: 'button', href: '/publish' }, 'Publish a stream')),
    h('p', { class: 'quiet' }, 'or, without a browser:'),
    command(`weir publish --pattern ${location.origin}/whip/demo`));
  const el = h('section', { class: 'card streams-card', 'aria-labelledby': 'streams-title' },
    h('h2', { id: 'streams-title' }, 'Streams'), items, empty);
  const views = keyed((name) => makeStream(name, highlight));
  return {
    el,
    update(model) {
      empty.hidden = model.streams.length > 0;
      items.hidden = !model.streams.length;
      children(items, views(model.streams, (stream) => stream.name));
    },
  };
}

function makeStream(name, highlight) {
  const tracks = h('span', { class: 'tracks' });
  const facts = h('p', { class: 'facts' });
  const chain = h('p', { class: 'chain' });
  const el = h('li', {
    class: `stream ${colour(name)}`, 'data-stream': name,
    onpointerenter: () => highlight(name), onpointerleave: () => highlight(''),
    onfocusin: () => highlight(name), onfocusout: () => highlight(''),
  },
  h('div', { class: 'stream-head' },
    h('h3', {}, h('span', { class: 'dot', 'aria-hidden': 'true' }), h('span', { class: 'stream-name' }, name)),
    h('a', { class: 'button small', href: `/play/${streamPath(name)}`, 'aria-label': `Play ${name}` }, icon('play'), 'Play')),
  facts, chain, tracks);
  return {
    el,
    update(stream) {
      const relays = stream.carriers.filter((c) => !c.origin).length;
      text(facts, [
        plural(stream.viewers, 'viewer'),
        relays ? `${plural(stream.carriers.length, 'carrier')}, ${plural(stream.depth, 'hop')} deep` : 'no relay',
      ].join(' · '));
      text(chain, stream.origin
        ? `From ${stream.origin.node.label}${stream.origin.node.region ? ` in ${stream.origin.node.region}` : ''}`
        : 'Origin unknown: its record has run out');
      text(tracks, stream.tracks.map((t) => t.replace('/', ' ')).join(', ') || 'no tracks yet');
    },
  };
}

// What this node tells of what happened, the newest first.

const HAPPENED = 60; // events that are kept

// Steps between, which the log leaves out too.
const quiet = new Set(['pull.started', 'node.ready']);

function happenings() {
  const items = h('ol', { class: 'happened', id: 'happened', tabindex: 0, 'aria-labelledby': 'happened-title' });
  const empty = h('p', { class: 'quiet' }, 'Nothing yet. Sessions, links, redirects and refusals show up here as they happen, each with its reason.');
  const el = h('section', { class: 'card happened-card', 'aria-labelledby': 'happened-title' },
    h('div', { class: 'card-head' }, h('h2', { id: 'happened-title' }, 'What happened at this node'), h('span', { class: 'quiet' }, h('code', {}, 'weir events'), ' shows more')),
    empty, items);
  let all = [];
  let model = null;

  function show() {
    empty.hidden = all.length > 0;
    items.hidden = !all.length;
    // A client that asks again and again is one line with a count.
    const folded = new Map();
    for (const e of all) {
      const key = ['placement', 'pull.failed', 'refused', 'redirect'].includes(e.kind)
        ? [e.kind, e.stream, e.peer, e.reason].join('\n') : String(e.seq);
      if (folded.has(key)) folded.get(key).times++;
      else folded.set(key, { ...e, key, times: 1 });
    }
    children(items, views([...folded.values()], (e) => e.key));
  }

  const views = keyed(() => {
    const when = h('time', {});
    const what = h('span', { class: 'what' });
    const about = h('span', { class: 'about' });
    return {
      el: h('li', { class: 'happening' }, when, what, about),
      update(e) {
        const at = new Date(e.time);
        attr(when, 'datetime', e.time);
        text(when, at.toLocaleTimeString('en-GB'));
        attr(when.parentNode, 'data-level', e.level);
        attr(when.parentNode, 'data-kind', e.kind);
        text(what, sentenceCase(e.words || e.kind) + (e.times > 1 ? ` × ${e.times}` : ''));
        text(about, [
          e.stream,
          e.peer && (model?.shown.get(e.peer)?.label || e.peer_name || peer(e.peer)),
          e.client,
          e.reason,
          e.detail,
          e.elapsed_ms ? `after ${ms(e.elapsed_ms)}` : '',
          e.lost ? `${plural(e.lost, 'packet')} lost` : '',
        ].filter(Boolean).join(' · '));
      },
    };
  });

  return {
    el,
    // take adds events that are not known yet.
    take(events) {
      const known = new Set(all.map((e) => e.seq));
      const fresh = events.filter((e) => !known.has(e.seq) && !quiet.has(e.kind));
      if (!fresh.length) return;
      all = [...fresh, ...all].sort((a, b) => b.seq - a.seq).slice(0, HAPPENED);
      show();
    },
    // name has other nodes called by what they are called now.
    name(next) {
      model = next;
      if (all.length) show();
    },
  };
}

const sentenceCase = (words) => words.charAt(0).toUpperCase() + words.slice(1);

// The table of nodes.

const columns = [
  { key: 'label', name: 'Node', value: (n) => n.label },
  { key: 'region', name: 'Region', value: (n) => n.region },
  { key: 'state', name: 'State', value: (n) => n.state },
  { key: 'stress', name: 'Stress', value: (n) => n.stress },
  { key: 'cpu', name: 'CPU', value: (n) => n.record.cpu ?? 0 },
  { key: 'uplink', name: 'Uplink', value: (n) => n.record.uplink?.used ?? 0 },
  { key: 'sessions', name: 'Sessions', value: (n) => n.record.sessions?.used ?? 0 },
  { key: 'streams', name: 'Streams', value: (n) => n.record.streams?.used ?? n.carries.length },
  { key: 'age', name: 'Record', value: (n) => n.age },
  { key: 'held', name: 'Held by', value: (n) => n.heldBy.length },
];

function nodeTable() {
  const heads = columns.map((column) => {
    const button = h('button', {
      type: 'button',
      onclick: () => {
        sorted.down = sorted.column === column.key ? !sorted.down : false;
        sorted.column = column.key;
        update();
      },
    }, column.name);
    return h('th', { scope: 'col', role: 'columnheader', class: `col-${column.key}` }, button);
  });
  const body = h('tbody', { role: 'rowgroup' });
  const filter = h('input', { type: 'search', id: 'filter', placeholder: 'name, region or state', autocomplete: 'off', spellcheck: 'false', oninput: () => update() });
  const filtering = h('label', { class: 'filter', hidden: true }, h('span', {}, 'Filter'), filter);
  const none = h('p', { class: 'quiet', hidden: true }, 'No node matches the filter.');
  const table = h('table', { class: 'nodes-table', id: 'nodes', role: 'table', 'aria-labelledby': 'nodes-title' },
    h('thead', { role: 'rowgroup' }, h('tr', { role: 'row' }, heads)), body);
  const el = h('section', { class: 'card nodes-card', 'aria-labelledby': 'nodes-title' },
    h('div', { class: 'card-head' }, h('h2', { id: 'nodes-title' }, 'Nodes, by their records'), filtering),
    table, none);
  const rows = new Map();
  let model = null;

  function update() {
    if (!model) return;
    el.hidden = !model.nodes.size;
    filtering.hidden = model.nodes.size < FILTER_FROM;
    const wanted = filtering.hidden ? '' : filter.value.trim().toLowerCase();
    const column = columns.find((c) => c.key === sorted.column);
    const nodes = [...model.shown.values()]
      .filter((n) => !wanted || [n.label, n.id, n.region, n.state].some((v) => v.toLowerCase().includes(wanted)))
      .sort((a, b) => (sorted.down ? -1 : 1) * compare(column.value(a), column.value(b))
        || compare(a.region, b.region) || compare(a.label, b.label));
    none.hidden = nodes.length > 0 || !model.nodes.size;
    heads.forEach((head, i) => {
      attr(head, 'aria-sort', columns[i].key !== sorted.column ? null : sorted.down ? 'descending' : 'ascending');
    });
    const elements = [];
    for (const node of nodes) {
      if (!rows.has(node.id)) rows.set(node.id, makeRow());
      const row = rows.get(node.id);
      row.update(node, model);
      elements.push(...row.elements);
    }
    for (const id of rows.keys()) if (!model.shown.has(id)) rows.delete(id);
    children(body, elements);
  }

  return {
    el,
    update(next) {
      model = next;
      update();
    },
    tick: () => rows.forEach((row) => row.tick()),
  };
}

// exact are the details that somebody may want to compare letter by letter.
const exact = new Set(['Peer ID', 'Addresses', 'WHIP and WHEP', 'Media']);

let rowNumber = 0;

function makeRow() {
  const moreID = `more-${++rowNumber}`;
  const name = h('span', { class: 'node-name' });
  const tag = h('span', { class: 'tag' }, 'this node');
  const nameLine = h('span', { class: 'who-line' }, name);
  const id = h('code', { class: 'peer' });
  const idLine = h('span', { class: 'who-line' }, id, copyButton('Copy the peer ID', () => node.id));
  const toggle = h('button', {
    class: 'expand', type: 'button', 'aria-expanded': 'false', 'aria-controls': moreID,
    onclick: () => {
      more.hidden = !more.hidden;
      attr(toggle, 'aria-expanded', String(!more.hidden));
      fill();
    },
  }, icon('chevron'));
  const state = h('span', { class: 'state' });
  const stress = meter('stress');
  const cells = Object.fromEntries(['region', 'cpu', 'streams', 'held'].map((key) => [key, h('span', {})]));
  const uplink = meter('uplink');
  const sessions = meter('sessions');
  const age = h('span', { class: 'age' });
  const left = h('span', { class: 'ttl' });
  const cell = (key, label, ...content) => h('td', { role: 'cell', class: `col-${key}`, 'data-label': label }, ...content);
  const row = h('tr', { role: 'row' },
    h('th', { scope: 'row', role: 'rowheader', class: 'col-label' },
      h('div', { class: 'who' }, toggle, h('div', { class: 'who-names' }, nameLine, idLine))),
    cell('region', 'Region', cells.region),
    cell('state', 'State', state),
    cell('stress', 'Stress', stress.el),
    cell('cpu', 'CPU', cells.cpu),
    cell('uplink', 'Uplink', uplink.el),
    cell('sessions', 'Sessions', sessions.el),
    cell('streams', 'Streams', cells.streams),
    cell('age', 'Record', h('span', { class: 'record' }, age, left)),
    cell('held', 'Held by', cells.held));
  const facts = h('dl', { class: 'facts-list' });
  const more = h('tr', { role: 'row', class: 'more', id: moreID, hidden: true },
    h('td', { role: 'cell', colspan: columns.length }, facts));
  let node = null;
  let model = null;

  function fill() {
    if (more.hidden || !node) return;
    const r = node.record;
    const nameOf = (peerID) => model.shown.get(peerID)?.label ?? peer(peerID);
    const pairs = [
      ['Peer ID', node.id],
      ['Addresses', (r.addrs ?? []).join('\n') || 'none given'],
      ['WHIP and WHEP', r.url || 'no public address'],
      ['Media', r.media || 'no address'],
      ['Zone', r.zone || 'none'],
      ['Packets', `${countOf(r.packets?.used ?? 0, r.packets?.limit)} per second`],
      ['Promised', bits(r.reserved ?? 0)],
      ['Cores', r.cores ?? '–'],
      ['Release', [r.release || 'unknown', r.features?.length ? `(${r.features.join(', ')})` : ''].join(' ')],
      ['Policy', r.policy ? `version ${r.policy}` : 'built in'],
      ['Record', node.known ? `number ${r.seq ?? '–'}, ${node.bytes ? `${node.bytes} bytes sealed` : 'size unknown'}` : 'none: it is known from its streams only'],
      ['Signed by', node.signer ? (node.signer === node.id ? 'itself' : `${node.signer}, which is not this node`) : 'unknown'],
      ['Held by', node.heldBy.map(nameOf).join(', ') || 'no known holder'],
      ['Carries', node.carries.map((c) => `${c.stream}: ${c.origin ? 'origin' : `depth ${c.depth} from ${nameOf(c.parent)}${Number.isFinite(c.rtt) ? `, ${ms(c.rtt)}` : ''}`}, ${plural(c.viewers, 'viewer')}`).join('\n') || 'nothing'],
    ];
    if (!node.valid) pairs.unshift(['Bad record', node.error || 'it does not verify']);
    const wanted = pairs.map(([term, value]) => `${term}\n${value}`).join('\n\n');
    if (facts.dataset.shown === wanted) return;
    facts.dataset.shown = wanted;
    facts.replaceChildren(...pairs.map(([term, value]) => h('div', {}, h('dt', {}, term), h('dd', { class: exact.has(term) ? 'exact' : null }, String(value)))));
  }

  function tick() {
    if (!node) return;
    const since = performance.now() - node.at;
    const ttlLeft = (node.ttlLeft - since) / 1000;
    text(age, node.gone ? `${node.state} for ${seconds(Math.floor((node.goneFor + since) / 1000)).replace('.0', '')}` : node.known ? `${seconds((node.age + since) / 1000)} old` : 'none');
    text(left, !node.known || !Number.isFinite(ttlLeft) ? '' : ttlLeft > 0 ? `${seconds(ttlLeft)} left` : 'run out');
    attr(left, 'data-out', ttlLeft <= 0 ? '' : null);
  }

  return {
    elements: [row, more],
    tick,
    update(next, all) {
      node = next;
      model = all;
      const r = node.record;
      attr(row, 'class', `row ${level(node)}${node.self ? ' self' : ''}`);
      attr(row, 'data-node', node.id);
      text(name, node.name || '');
      nameLine.hidden = !node.name;
      if (tag.parentNode !== (node.name ? nameLine : idLine)) (node.name ? nameLine : idLine).append(tag);
      tag.hidden = !node.self;
      text(id, peer(node.id));
      attr(id, 'title', node.id);
      attr(toggle, 'aria-label', `More about ${node.label}`);
      text(cells.region, node.region || '–');
      text(state, node.valid ? node.state : 'bad record');
      attr(state, 'data-state', node.valid ? node.state : 'bad');
      attr(state, 'title', node.error || null);
      stress.set(node.gone ? NaN : node.stress, node.gone ? '–' : percent(node.stress), level(node));
      text(cells.cpu, r.cpu === undefined ? '–' : percent(r.cpu));
      uplink.set(share(r.uplink), r.uplink ? bitsOf(r.uplink.used, r.uplink.limit) : '–');
      sessions.set(share(r.sessions), r.sessions ? countOf(r.sessions.used, r.sessions.limit) : '–');
      text(cells.streams, r.streams ? countOf(r.streams.used, r.streams.limit) : node.carries.length);
      const holders = node.heldBy.map((peerID) => model.shown.get(peerID)?.name || tail(peerID));
      text(cells.held, holders.length > 3 ? `${holders.slice(0, 2).join(', ')} +${holders.length - 2}` : holders.join(', ') || '–');
      attr(cells.held, 'title', holders.join(', ') || null);
      tick();
      fill();
    },
  };
}

const share = (usage) => (usage?.limit ? usage.used / usage.limit : NaN);

// meter is a thin bar with its figure; the bar alone is decoration, so a
// screen reader hears the figure only.
function meter(kind) {
  const bar = h('span', { class: 'bar-fill' });
  const track = h('span', { class: 'bar', 'aria-hidden': 'true' }, bar);
  const figure = h('span', { class: 'figure' });
  const el = h('span', { class: `meter meter-${kind}` }, figure, track);
  return {
    el,
    set(value, label, how) {
      track.hidden = !Number.isFinite(value);
      // CSSOM, not a style attribute: the policy allows only the former.
      bar.style.width = `${Math.max(0, Math.min(1, value || 0)) * 100}%`;
      attr(bar, 'data-level', how ?? (value >= 0.9 ? 'high' : value >= 0.72 ? 'raised' : 'easy'));
      text(figure, label);
    },
  };
}
