// The play page: one stream, received by WHEP.

import { Connection, stereo } from './connection.js';
import { attr, children, h, icon, keyed, text } from './dom.js';
import { bits, count, ms, peer, percent, plural } from './format.js';
import { colour, elsewhere, nodeAt, originOf, streamPath, streamProblem } from './model.js';
import { field, offerNodes } from './publish.js';
import { Meter, board, sparkline } from './stats.js';

const SAMPLE = 500; // ms between samples of the figures
const STALL = 8000; // ms without a byte after which the session is given up

// playPage fills in out.
export function playPage(stream, out) {
  return stream ? player(stream, out) : chooser();
}

// chooser lists what can be played.
function chooser() {
  const items = h('ul', { class: 'choose', id: 'choose' });
  const empty = h('div', { class: 'empty', id: 'nothing-live', hidden: true },
    h('p', {}, 'Nobody is publishing now. A stream shows up here within a second or two of its start.'),
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

// What a node's refusals are called, by their code.
const titles = {
  'no-capacity': 'No room now',
  'origin-unreachable': 'The stream’s origin cannot be reached',
  'helper-unreachable': 'The node with room cannot be reached',
  'not-known': 'Not known yet',
  unauthorized: 'A token is needed',
  forbidden: 'The token is for something else',
  'too-many-sessions': 'The token is in use',
  'rights-unknown': 'Rights cannot be checked now',
  'too-many-setups': 'The node is busy',
  'too-many-waiting': 'The node is busy',
  'no-common-codec': 'This browser cannot play it',
  timeout: 'It took too long',
  closing: 'The node is ending',
  draining: 'The node is ending',
};

function player(stream, out) {
  out.stream = stream;

  let model = null;
  let connection = null;
  let firstFrame = NaN; // ms from the POST
  let played = false; // whether anything was, since the person asked
  let moving = { bytes: 0, at: 0 }; // when bytes last arrived
  let through = '';
  const meter = new Meter();

  const video = h('video', { id: 'video', autoplay: true, playsinline: true, 'aria-label': `The stream ${stream}` });
  video.muted = true; // browsers start sound only after a click
  // The last picture, while there is no newer one.
  const still = h('canvas', { class: 'still', id: 'still', 'aria-hidden': 'true', hidden: true });
  const overlay = h('div', { class: 'overlay', hidden: true });
  const overlayWords = h('p', { id: 'error' });
  const again = h('button', { class: 'button', id: 'again', type: 'button', onclick: () => retry() }, 'Try now');
  overlay.append(overlayWords, again);
  const unmute = h('button', {
    class: 'on-video sound', id: 'unmute', type: 'button', hidden: true,
    onclick: () => {
      video.muted = !video.muted;
      sayMuted();
    },
  });
  const fullscreen = h('button', {
    class: 'on-video full', type: 'button', 'aria-label': 'Full screen', title: 'Full screen', hidden: true,
    onclick: () => (document.fullscreenElement ? document.exitFullscreen() : screenBox.requestFullscreen?.() ?? video.webkitEnterFullscreen?.()),
  }, icon('full'));
  const screenBox = h('div', { class: 'screen' }, video, still, overlay, unmute, fullscreen);
  const status = h('p', { class: 'status', id: 'status', role: 'status' });
  const servedBy = h('p', { class: 'served', id: 'served', hidden: true });
  const route = h('ol', { class: 'route', id: 'route', 'aria-label': 'The stream’s way to you', hidden: true });
  const figures = board('Live figures of what arrives', [
    ['first', 'First frame', 'since the request was sent'],
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
  const stop = h('button', { class: 'button', id: 'stop', type: 'button', onclick: () => toggle() }, 'Stop');
  const about = h('p', { class: 'subline', id: 'about' }, ' ');
  const el = h('div', { class: 'session-page' },
    h('div', { class: 'lead' }, h('h1', { class: 'headline' }, stream), about),
    h('div', { class: 'stage' },
      h('section', { class: 'card screen-card', 'aria-label': 'Player' }, screenBox, status, servedBy, route,
        h('div', { class: 'controls' }, stop, h('div', { class: 'inline-field' }, h('label', { for: 'through' }, 'Ask'), ask))),
      h('section', { class: 'card figures-card', 'aria-labelledby': 'figures-title' },
        h('h2', { id: 'figures-title' }, 'Live figures'), figures.el, spark.el, times)));

  function open() {
    connection?.stop();
    const problem = streamProblem(stream);
    if (problem) {
      fail(`“${stream}” cannot be the name of a stream. ${problem}`, false);
      Object.assign(out, { state: 'failed', error: problem });
      return;
    }
    firstFrame = NaN;
    played = false;
    spark.clear();
    figures.set({});
    text(times, '');
    const next = new Connection({
      endpoint: `${through || location.origin}/whep/${streamPath(stream)}`,
      elsewhere: () => elsewhere(model, stream).map((base) => `${base}/whep/${streamPath(stream)}`),
      prepare: (pc) => prepare(pc, next),
      edit: stereo,
      onChange: (c) => c === connection && changed(c),
      // 409: not live yet. 404 and the like do not change by waiting.
      retryOn: (code) => code === 409 || code === 429 || code >= 500,
    });
    connection = next;
    next.start();
  }

  function prepare(pc, owner) {
    keepStill();
    const media = new MediaStream();
    firstFrame = NaN;
    moving = { bytes: 0, at: performance.now() };
    attr(video, 'data-shown', null);
    for (const kind of ['video', 'audio']) {
      media.addTrack(pc.addTransceiver(kind, { direction: 'recvonly' }).receiver.track);
    }
    video.srcObject = media;
    const look = (now, frame) => {
      if (owner !== connection || pc !== owner.pc) return;
      // Chromium first shows a black frame of 2 × 2 in place of the stream.
      if (pc.connectionState === 'connected' && frame.width > 2) sawFrame(now);
      else video.requestVideoFrameCallback(look);
    };
    video.requestVideoFrameCallback?.(look);
    // Playing muted is allowed everywhere; a failure means that the page went
    // away or another stream came first.
    video.play().catch(() => {});
  }

  // keepStill copies the picture that is shown now, for the time until the next.
  function keepStill() {
    if (!video.hasAttribute('data-shown') || video.videoWidth <= 2) return;
    still.width = video.videoWidth;
    still.height = video.videoHeight;
    still.getContext('2d').drawImage(video, 0, 0);
    still.hidden = false;
  }

  // sawFrame takes the moment the first frame was painted.
  function sawFrame(at) {
    if (Number.isFinite(firstFrame) || !connection) return;
    firstFrame = at - connection.times.posted;
    played = true;
    out.firstFrame = firstFrame;
    attr(video, 'data-shown', '');
    overlay.hidden = still.hidden = true;
    unmute.hidden = fullscreen.hidden = false;
    sayMuted();
    say(`Playing “${stream}”.`, 'good');
    sayTimes();
  }

  function sayTimes() {
    const t = connection.times;
    text(times, `First frame ${ms(firstFrame)} after the request: answered after ${ms(t.answered - t.posted)}, media connected after ${ms(t.connected - t.posted)}.`);
  }

  function sayMuted() {
    children(unmute, [icon(video.muted ? 'silent' : 'sound'), h('span', {}, video.muted ? 'Unmute' : 'Mute')]);
    attr(unmute, 'data-muted', video.muted ? '' : null);
  }

  function changed(c) {
    Object.assign(out, { state: c.state, sessionURL: c.sessionURL, error: c.problem?.message ?? '', status: c.problem?.status ?? 0 });
    text(stop, c.state === 'stopped' || c.state === 'failed' ? (played ? 'Play again' : 'Play') : played || c.state === 'live' ? 'Stop' : 'Cancel');
    showNode();
    if (c.state !== 'live') unmute.hidden = fullscreen.hidden = true;
    if (c.state === 'connecting') {
      say(c.sessionURL ? 'Connecting…' : 'Asking for the stream…');
      if (c.attempt === 1) overlay.hidden = true;
      else if (c.endpoint !== c.first) say(`${played ? 'Going on' : 'Asking'} at ${new URL(c.endpoint, location.href).host}…`);
    } else if (c.state === 'live') {
      if (!Number.isFinite(firstFrame)) say('Connected. Waiting for the first frame…');
    } else if (c.state === 'waiting') sayWaiting(true);
    else if (c.state === 'failed') fail(explain(c.problem), true);
    else if (c.state === 'stopped') {
      overlay.hidden = true;
      say(played ? 'Stopped.' : 'Not playing.');
    }
  }

  // explain puts what to do next after what the node said.
  function explain(problem) {
    const said = problem.message;
    if (titles[problem.code]) return [titles[problem.code], said];
    if (problem.status === 409) return [played ? 'No longer live' : 'Not live yet', said];
    if (problem.status === 404) return ['No such stream', said];
    if (problem.status === 503) return ['No room now', said];
    if (problem.status) return [`Refused (${problem.status})`, said];
    return [played ? 'Interrupted' : 'Not connected', said];
  }

  // The countdown is shown on the video; the status line, which is read out,
  // says once why.
  function sayWaiting(first) {
    const { problem, retryAt } = connection;
    const [title, said] = explain(problem);
    const left = Math.max(0, Math.ceil((retryAt - performance.now()) / 1000));
    overlay.hidden = false;
    again.hidden = false;
    text(again, 'Try now');
    fillOverlay(title, said, `Trying again in ${left} s`);
    if (first) say(`${title}. Trying again by itself.`, problem.status === 409 ? '' : 'bad');
  }

  function fail(why, canRetry) {
    const [title, said] = Array.isArray(why) ? why : ['Not playable', why];
    overlay.hidden = false;
    again.hidden = !canRetry;
    text(again, 'Try again');
    fillOverlay(title, said, '');
    say(`${title}.`, 'bad');
  }

  function fillOverlay(title, said, next) {
    const wanted = [title, said, next].join('\n');
    if (overlayWords.dataset.shown === wanted) return;
    overlayWords.dataset.shown = wanted;
    overlayWords.replaceChildren(h('strong', {}, title), h('span', { class: 'said-by-node' }, said), next && h('span', { class: 'countdown' }, next));
  }

  function retry() {
    if (connection?.state === 'waiting') connection.now();
    else open();
  }

  function toggle() {
    if (!connection || connection.state === 'failed' || connection.state === 'stopped') {
      open();
      return;
    }
    connection.stop();
    video.srcObject = null;
    still.hidden = true;
    attr(video, 'data-shown', null);
  }

  function say(words, how = '') {
    text(status, words);
    attr(status, 'data-how', how || null);
  }

  // showNode says who serves, and the nodes that the stream came through, as
  // the records tell it.
  function showNode() {
    const url = connection?.sessionURL;
    servedBy.hidden = !url;
    const node = nodeAt(model, url);
    out.node = node?.id ?? '';
    const carrier = node?.carries.find((c) => c.stream === stream);
    out.hops = carrier?.depth ?? -1;
    route.hidden = !url || !carrier;
    if (!url) return;
    const moved = originOf(url) !== originOf(connection.endpoint);
    const words = ['Served by ', node ? node.label : originOf(url), node?.region ? ` in ${node.region}` : '', node?.self ? ', this node' : ''];
    if (moved) words.push(` (${new URL(connection.endpoint).host} handed you on)`);
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

  const sampling = setInterval(async () => {
    if (!connection) return;
    if (connection.state === 'waiting') sayWaiting(false);
    const sampled = connection;
    const now = await meter.sample(sampled.pc);
    if (!now || sampled !== connection || sampled.state !== 'live') return;
    sampled.heed(now.heard, now.at);
    out.framesDecoded = now.framesDecoded;
    out.bytesReceived = now.received;
    out.width = now.width;
    out.height = now.height;
    // A hidden page paints nothing, yet it decodes.
    if (now.framesDecoded > 0 && !Number.isFinite(firstFrame) && (document.hidden || !video.requestVideoFrameCallback)) sawFrame(performance.now());
    if (now.received > moving.bytes) moving = { bytes: now.received, at: now.at };
    else if (now.at - moving.at > STALL) {
      sampled.giveUp(`Nothing has arrived for ${STALL / 1000} seconds.`);
      return;
    }
    figures.set({
      first: ms(firstFrame),
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
  }, SAMPLE);

  open();
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
      clearInterval(sampling);
      connection?.stop();
      connection = null;
    },
  };
}
