// The play page: one stream, received by WHEP.

import { attr, children, h, icon, keyed, text } from './dom.js';
import { bits, count, ms, peer, percent, plural } from './format.js';
import { originOf, streamPath, streamProblem } from './address.js';
import { colour, nodeAt } from './model.js';
import { field, offerNodes } from './publish.js';
import './player.js';
import { board, sparkline } from './stats.js';
import { tokenFor } from './token.js';

// playPage fills in out.
export function playPage(stream, out) {
  return stream ? player(stream, out) : chooser();
}

// chooser lists what can be played.
function chooser() {
  const items = h('ul', { class: 'choose', id: 'choose' });
  const empty = h('div', { class: 'empty', id: 'nothing-live', hidden: true },
    h('p', {}, 'No stream is published now. One shows up here within a second or two of its start.'),
    h('p', {}, h('a', { class: 'button primary', href: '/publish' }, 'Publish a stream')));
  const name = h('input', { id: 'stream', type: 'text', maxlength: 128, autocomplete: 'off', autocapitalize: 'none', spellcheck: 'false', 'aria-describedby': 'stream-problem' });
  const problem = h('p', { class: 'hint bad', id: 'stream-problem', role: 'status' });
  const go = h('a', { hidden: true });
  const form = h('form', {
    class: 'card form by-name', novalidate: true, 'aria-label': 'Play by name',
    onsubmit: (event) => {
      event.preventDefault();
      const why = streamProblem(name.value.trim());
      text(problem, why);
      attr(name, 'aria-invalid', why ? 'true' : null);
      if (why) return name.focus();
      go.href = `/play/${streamPath(name.value.trim())}`;
      go.click();
    },
  }, field('stream', 'Play by name', name, problem), h('div', { class: 'actions' }, h('button', { class: 'button', type: 'submit' }, 'Play'), go));
  const views = keyed((stream) => {
    const facts = h('span', { class: 'facts' });
    const el = h('li', {}, h('a', { class: `choose-item ${colour(stream)}`, href: `/play/${streamPath(stream)}` },
      h('span', { class: 'dot', 'aria-hidden': 'true' }), h('span', { class: 'stream-name' }, stream), facts, icon('play')));
    return {
      el,
      update: (item) => text(facts, [plural(item.viewers, 'viewer'), item.origin && `from ${item.origin.node.label}`].filter(Boolean).join(' · ')),
    };
  });
  const listed = h('section', { class: 'card', 'aria-label': 'Live streams' }, items, empty);
  const el = h('div', { class: 'session-page' },
    h('div', { class: 'lead' }, h('h1', { class: 'headline' }, 'Play'), h('p', { class: 'subline' }, 'Any node can be asked for any stream: it finds one that has it.')),
    h('div', { class: 'choosing' }, listed, form));
  return {
    title: 'Play',
    el,
    update(model) {
      listed.hidden = model.limited; // who may not see the network knows the name
      empty.hidden = model.streams.length > 0;
      items.hidden = !model.streams.length;
      children(items, views(model.streams, (item) => item.name));
    },
    leave() {},
  };
}

function player(stream, out) {
  out.stream = stream;

  let model = null;
  let through = '';

  const screen = h('weir-player', { muted: true, id: 'player' }); // browsers start sound only after a click
  const status = h('p', { class: 'status', id: 'status' });
  const servedBy = h('p', { class: 'served', id: 'served', hidden: true });
  const route = h('ol', { class: 'route', id: 'route', 'aria-label': 'The stream’s way to you', hidden: true });
  const figures = board('Live figures of what arrives', [
    ['first', 'First frame', 'since the request was sent'],
    ['latency', 'Latency', 'from the node to the screen: half the round trip, the buffer and the decoder'],
    ['resolution', 'Resolution', ''],
    ['fps', 'Frames/s', 'decoded'],
    ['frames', 'Frames', 'decoded since the start'],
    ['bitrate', 'Bitrate', 'audio and video, received'],
    ['loss', 'Loss', 'during the last seconds; in all'],
    ['jitter', 'Jitter', 'the larger of audio and video'],
    ['buffer', 'Buffer', 'how long a frame waits to be shown'],
    ['rtt', 'Round trip', 'to the node that serves you'],
    ['freezes', 'Freezes', ''],
    ['nacks', 'NACKs', 'packets asked for again'],
    ['codec', 'Codec', ''],
  ]);
  const spark = sparkline('Bitrate during the last minute');
  const times = h('p', { class: 'hint', id: 'times' });
  const ask = h('select', {
    id: 'through',
    onchange: () => {
      through = ask.value;
      open();
    },
  }, h('option', { value: '' }, 'this node'));
  const about = h('p', { class: 'subline', id: 'about' }, ' ');
  const problem = streamProblem(stream);
  const el = h('div', { class: 'session-page' },
    h('div', { class: 'lead' }, h('h1', { class: 'headline' }, stream), about),
    h('div', { class: 'stage' },
      h('section', { class: 'card screen-card', 'aria-label': 'Player' }, h('div', { class: 'screen' }, problem ? nameProblem(problem) : screen), status, servedBy, route,
        h('div', { class: 'controls' },
          h('div', { class: 'inline-field' }, h('label', { for: 'through' }, 'Ask'), ask),
          h('p', { class: 'hint keys' }, h('kbd', {}, 'space'), ' stops and plays, ', h('kbd', {}, 'm'), ' mutes, ', h('kbd', {}, 'f'), ' fills the screen'))),
      h('section', { class: 'card figures-card', 'aria-labelledby': 'figures-title' },
        h('h2', { id: 'figures-title' }, 'Live figures'), figures.el, spark.el, times)));

  function nameProblem(why) {
    Object.assign(out, { state: 'failed', error: why });
    return h('p', { class: 'screen-note', id: 'error' }, `“${stream}” cannot be the name of a stream. ${why}`);
  }

  function open() {
    spark.clear();
    figures.set({});
    text(times, '');
    const layer = new URLSearchParams(location.search).get('layer');
    screen.src = `${through || location.origin}/whep/${streamPath(stream)}${layer ? `?layer=${encodeURIComponent(layer)}` : ''}`;
    useToken();
  }

  function useToken() {
    screen.token = tokenFor(screen.src);
  }

  screen.addEventListener('change', () => {
    const { state, connection } = screen;
    Object.assign(out, { state, sessionURL: connection?.sessionURL ?? '', error: screen.problem?.message ?? '', status: screen.problem?.status ?? 0 });
    text(status, screen.words);
    attr(status, 'data-how', screen.playing ? 'good' : state === 'failed' || (state === 'waiting' && screen.problem.status !== 409) ? 'bad' : null);
    showNode();
  });

  screen.addEventListener('playing', ({ detail }) => {
    out.firstFrame = detail.firstFrame;
    const t = screen.connection.times;
    text(times, `First frame ${ms(detail.firstFrame)} after the request: answered after ${ms(t.answered - t.posted)}, media connected after ${ms(t.connected - t.posted)}.`);
  });

  screen.addEventListener('sample', ({ detail: now }) => {
    out.framesDecoded = now.framesDecoded;
    out.bytesReceived = now.received;
    out.width = now.width;
    out.height = now.height;
    figures.set({
      first: ms(screen.firstFrame),
      latency: ms(now.latency),
      resolution: now.width ? `${now.width} × ${now.height}` : '–',
      fps: Number.isFinite(now.fps) ? Math.round(now.fps) : '–',
      frames: count(now.framesDecoded),
      bitrate: bits(now.bitrateIn),
      loss: `${percent(now.lossNow)}, ${now.lost}`,
      jitter: ms(now.jitter),
      buffer: ms(now.buffer),
      rtt: ms(now.rtt * 1000),
      freezes: now.freezes,
      nacks: now.nacks,
      codec: now.codecs.join(', ') || '–',
    });
    spark.add(now.bitrateIn);
  });

  // The page is about nothing else, so its keys are the player's.
  const keys = (event) => screen.isConnected && screen.key(event);
  document.addEventListener('keydown', keys);
  addEventListener('hashchange', useToken);

  // showNode says who serves, and the nodes that the stream came through, as
  // the records tell it.
  function showNode() {
    const url = screen.connection?.sessionURL;
    servedBy.hidden = !url;
    const node = nodeAt(model, url);
    out.node = node?.id ?? '';
    const carrier = node?.carries.find((c) => c.stream === stream);
    out.hops = carrier?.depth ?? -1;
    route.hidden = !url || !carrier;
    if (!url) return;
    const asked = screen.connection.endpoint;
    const moved = originOf(url) !== originOf(asked);
    const words = ['Served by ', node ? node.label : originOf(url), node?.region ? ` in ${node.region}` : '', node?.self ? ', this node' : ''];
    if (moved) words.push(` (${new URL(asked).host} handed you on)`);
    if (carrier) words.push(carrier.depth === 0 ? ', where it is published.' : `, ${plural(carrier.depth, 'hop')} from where it is published.`);
    else words.push('.');
    text(servedBy, words.join(''));
    if (!carrier) return;
    const path = wayTo(carrier);
    const key = path.join('\n');
    if (route.dataset.shown === key) return;
    route.dataset.shown = key;
    route.replaceChildren(...path.map((id, i) => h('li', { class: colour(stream) },
      h('span', {}, model.nodes.get(id)?.label ?? peer(id)),
      h('small', {}, i === 0 ? 'origin' : i === path.length - 1 ? 'serves you' : 'relay'))), h('li', { class: 'you' }, h('span', {}, 'you')));
  }

  // wayTo takes the path from the record, or follows the parents.
  function wayTo(carrier) {
    if (carrier.path.length) return carrier.path;
    const path = [carrier.node.id];
    const of = model.streams.find((s) => s.name === stream);
    for (let at = carrier; at?.parent && !path.includes(at.parent); at = of?.carriers.find((c) => c.node.id === at.parent)) path.unshift(at.parent);
    return path;
  }

  if (!problem) open();
  return {
    title: stream,
    el,
    update(next) {
      model = next;
      offerNodes(ask, model, through);
      showNode();
      const known = model.streams.find((s) => s.name === stream);
      text(about, known
        ? [plural(known.viewers, 'viewer'), known.tracks.map((t) => t.replace('/', ' ')).join(', ')].filter(Boolean).join(' · ')
        : model.limited ? '' : 'No record names this stream now.');
    },
    leave() {
      document.removeEventListener('keydown', keys);
      removeEventListener('hashchange', useToken);
    },
  };
}
