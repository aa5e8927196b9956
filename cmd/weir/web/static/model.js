// What the pages show, worked out from one state of the network.

import { originOf } from './address.js';
import { peer, plural, tail } from './format.js';

// read turns a /console/state object into the model. Everything in it comes
// from other nodes' records: fields may be missing, names may be anything.
export function read(state) {
  const at = performance.now();
  const nodes = new Map();
  for (const entry of state?.nodes ?? []) {
    const record = entry.record ?? {};
    const id = record.node || entry.node || entry.signer || '';
    if (!id) continue;
    const node = {
      id,
      name: entry.name || record.name || '',
      label: entry.name || record.name || peer(id),
      self: id === state.self,
      record,
      known: true,
      valid: entry.valid !== false,
      error: entry.error ?? '',
      age: entry.age_ms ?? NaN,
      ttlLeft: entry.ttl_left_ms ?? NaN,
      heldBy: entry.held_by ?? [],
      bytes: entry.bytes ?? 0,
      signer: entry.signer ?? '',
      url: safeURL(record.url),
      region: record.region || '',
      state: record.state || 'active',
      stress: record.stress ?? 0,
      carries: [],
      viewers: 0,
      at,
    };
    const other = nodes.get(id);
    if (!other || better(node, other)) nodes.set(id, node);
  }

  // Names are claims: of several that claim one, each is told by its ID as well.
  const claims = new Map();
  for (const node of nodes.values()) if (node.name) claims.set(node.name, (claims.get(node.name) ?? 0) + 1);
  for (const node of nodes.values()) if (claims.get(node.name) > 1) node.label = `${node.name} ${tail(node.id)}`;

  const streams = (state?.streams ?? []).map((stream) => readStream(stream, nodes, at));
  streams.sort((a, b) => compare(a.name, b.name));
  const links = streams.flatMap((stream) => stream.links);

  const gone = (state?.gone ?? []).filter((entry) => entry.node && !nodes.has(entry.node)).map((entry) => ({
    id: entry.node, name: entry.name ?? '', label: entry.name || peer(entry.node), self: false, record: {}, known: false, valid: true, gone: true, error: '',
    age: NaN, ttlLeft: NaN, heldBy: [], bytes: 0, signer: '', url: '', region: entry.region || '', state: entry.unsure ? 'not heard of' : 'gone', stress: 0,
    carries: [], viewers: 0, at, goneFor: entry.gone_ms ?? NaN,
  }));

  return {
    self: state?.self ?? '',
    limited: Boolean(state?.limited), // the network is not shown here
    offered: (state?.elsewhere ?? []).map(safeURL).filter(Boolean),
    gone,
    unheard: unheard(state?.hearing),
    shown: new Map([...nodes, ...gone.map((node) => [node.id, node])]), // those that were there until lately too
    commands: state?.commands ?? null,
    network: state?.network ?? '',
    nodes,
    streams,
    links,
    at,
    viewers: streams.reduce((sum, stream) => sum + stream.viewers, 0),
    origins: streams.reduce((sum, stream) => sum + stream.carriers.filter((c) => c.origin).length, 0),
    relays: streams.reduce((sum, stream) => sum + stream.carriers.filter((c) => !c.origin).length, 0),
    depth: streams.reduce((most, stream) => Math.max(most, stream.depth), 0),
  };
}

// unheard says how many of those who hold the records did not answer, or ''.
function unheard(hearing) {
  const silent = Math.max(hearing?.silent?.length ?? 0, hearing?.lacking ?? 0);
  return silent ? `${silent} of ${plural(hearing.holders, 'holder')} did not answer, so nodes may be missing here` : '';
}

// better prefers a node's own record to one in a stream's topic, then a valid
// one, then the newer.
function better(a, b) {
  const own = (n) => (n.record.carries ? 0 : 1);
  if (own(a) !== own(b)) return own(a) > own(b);
  if (a.valid !== b.valid) return a.valid;
  return (a.record.seq ?? 0) > (b.record.seq ?? 0);
}

function readStream(stream, nodes, at) {
  const carriers = [];
  for (const c of stream.carriers ?? []) {
    if (!c.node || carriers.some((other) => other.node.id === c.node)) continue;
    // A carrier whose own record has run out is still drawn, as unknown.
    if (!nodes.has(c.node)) {
      nodes.set(c.node, {
        id: c.node, name: '', label: peer(c.node), self: false, record: {}, known: false, valid: true, error: '',
        age: NaN, ttlLeft: NaN, heldBy: [], bytes: 0, signer: '', url: safeURL(c.url), region: c.region || '',
        state: 'unknown', stress: 0, carries: [], viewers: 0, at,
      });
    }
    const node = nodes.get(c.node);
    const carrier = {
      node,
      origin: Boolean(c.origin),
      depth: c.depth ?? 0,
      parent: c.parent || '',
      rtt: c.parent_rtt_ms ?? NaN,
      viewers: c.viewers ?? 0,
      children: c.children ?? 0,
      path: c.path ?? [],
      stream: stream.stream,
    };
    node.carries.push(carrier);
    node.viewers += carrier.viewers;
    carriers.push(carrier);
  }
  carriers.sort((a, b) => a.depth - b.depth || compare(a.node.label, b.node.label));

  const below = viewersBelow(carriers);
  const links = carriers
    .filter((c) => c.parent && c.parent !== c.node.id && nodes.has(c.parent))
    .map((c) => ({
      key: `${stream.stream}\n${c.parent}\n${c.node.id}`,
      stream: stream.stream,
      from: nodes.get(c.parent),
      to: c.node,
      rtt: c.rtt,
      viewers: below.get(c.node.id),
    }));

  return {
    name: stream.stream,
    tracks: stream.tracks ?? [],
    viewers: stream.viewers ?? carriers.reduce((sum, c) => sum + c.viewers, 0),
    carriers,
    links,
    origin: carriers.find((c) => c.origin) ?? null,
    depth: carriers.reduce((most, c) => Math.max(most, c.depth), 0),
  };
}

// viewersBelow counts, per carrier, the viewers that a link to it feeds: its
// own and those of every relay below. Records of different ages may name each
// other as parent; such a loop counts once.
function viewersBelow(carriers) {
  const childrenOf = Map.groupBy
    ? Map.groupBy(carriers, (c) => c.parent)
    : carriers.reduce((m, c) => m.set(c.parent, [...(m.get(c.parent) ?? []), c]), new Map());
  const sum = (carrier, seen) => {
    if (seen.has(carrier.node.id)) return 0;
    seen.add(carrier.node.id);
    return (childrenOf.get(carrier.node.id) ?? []).reduce((n, child) => n + sum(child, seen), carrier.viewers);
  };
  return new Map(carriers.map((c) => [c.node.id, sum(c, new Set())]));
}

// compare orders numbers, and names as people count: n2 before n10.
const { compare: compareNames } = new Intl.Collator('en', { numeric: true });
export const compare = (a, b) => (typeof a === 'string' ? compareNames(a, b) : a < b ? -1 : a > b ? 1 : 0);

// safeURL returns an http or https URL without its trailing slash, else ''. A
// record may claim any URL; "javascript:" must not become a link.
export function safeURL(url) {
  try {
    const parsed = new URL(url);
    return parsed.protocol === 'http:' || parsed.protocol === 'https:' ? parsed.href.replace(/\/$/, '') : '';
  } catch {
    return '';
  }
}

// elsewhere lists the base URLs of other nodes that may serve stream when the
// one in use is silent: those that carry it first, then the least stressed.
export function elsewhere(model, stream) {
  if (!model) return [];
  if (model.limited) return model.offered;
  const carries = (node) => node.carries.some((c) => c.stream === stream);
  return [...model.nodes.values()]
    .filter((n) => n.url && n.valid && n.state === 'active')
    .sort((a, b) => carries(b) - carries(a) || a.stress - b.stress || compare(a.label, b.label))
    .map((n) => n.url)
    .slice(0, ELSEWHERE);
}

const ELSEWHERE = 4; // nodes that are tried when one is silent

// nodeAt finds the node whose public URL has the origin of url.
export function nodeAt(model, url) {
  if (!model || !url) return null;
  const origin = originOf(url);
  for (const node of model.nodes.values()) if (node.url && originOf(node.url) === origin) return node;
  return null;
}

// Colours of streams: one of eight, preferring the name's own so that every
// console shows the same, the next free one where two names collide.
const COLOURS = 8;
const given = new Map();

export function colour(stream) {
  if (!given.has(stream)) {
    let hash = 0;
    for (const char of stream) hash = (hash * 31 + char.codePointAt(0)) >>> 0;
    const used = new Set(given.values());
    let pick = hash % COLOURS;
    for (let i = 0; i < COLOURS && used.has(pick); i++) pick = (pick + 1) % COLOURS;
    given.set(stream, pick);
    if (given.size > 512) given.delete(given.keys().next().value);
  }
  return `c${given.get(stream)}`;
}
