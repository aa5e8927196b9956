// The publish page: camera, screen or test pattern, sent by WHIP.

import { Connection, stereo } from './connection.js';
import { Choice, Level, mediaProblem, NONE } from './devices.js';
import { attr, children, copyButton, h, icon, text } from './dom.js';
import { bits, clock, ms, percent } from './format.js';
import { originOf, streamPath, streamProblem } from './address.js';
import { compare, elsewhere, nodeAt } from './model.js';
import { startPattern } from './pattern.js';
import { Meter } from './meter.js';
import { board, sparkline } from './stats.js';
import { tokenFor } from './token.js';

const SAMPLE = 500; // ms between samples of the figures
const OWN_NAME = 30000; // ms that our own session may hold the name at a node that has gone

const sizes = { 360: [640, 360], 540: [960, 540], 720: [1280, 720], 1080: [1920, 1080] };
const limits = [[300, '300 kbit/s'], [800, '800 kbit/s'], [1500, '1.5 Mbit/s'], [3000, '3 Mbit/s'], [6000, '6 Mbit/s'], [0, 'none']];

// chosen outlives the page, so that a look at the network loses nothing.
const chosen = { source: 'pattern', name: '', size: '360', limit: '1500', codec: '', through: '', muted: false };

// publishPage fills in out, and calls onLive when what live() says may have
// changed.
export function publishPage(query, out, onLive) {
  Object.assign(out, { framesEncoded: 0, bytesSent: 0 });
  if (query.get('stream')) chosen.name = query.get('stream');

  let media = null; // {stream, sound?, stop()}: what is previewed and sent
  let opening = 0; // number of the newest attempt to open media
  let opened = null; // promise of that attempt: whether there is media now
  let connection = null;
  let liveSince = 0;
  let liveUntil = -Infinity; // performance.now() when it was last seen live
  let model = null;
  let unseen = ''; // that it ended, while another page was shown
  const sentKinds = new WeakMap(); // of senders: what they send, also while that is nothing
  const meter = new Meter();

  // The form.

  const devices = navigator.mediaDevices;
  const sources = [
    ['pattern', 'Pattern', true],
    ['camera', 'Camera', Boolean(devices?.getUserMedia)],
    ['screen', 'Screen', Boolean(devices?.getDisplayMedia)],
  ];
  const radios = sources.map(([value, name, can]) => h('label', { class: 'choice' },
    h('input', { type: 'radio', name: 'source', id: `source-${value}`, value, checked: chosen.source === value, disabled: !can, onchange: () => choose(value) }),
    h('span', {}, name)));
  const noDevices = h('p', { class: 'hint', id: 'no-devices', hidden: Boolean(devices) },
    `Browsers give camera and screen only to pages that came by https or from localhost, and this one came from ${location.host}. The test pattern works everywhere.`);

  const name = h('input', {
    id: 'stream', type: 'text', maxlength: 128, autocomplete: 'off', autocapitalize: 'none', spellcheck: 'false',
    'aria-describedby': 'stream-problem', oninput: () => checkName(true),
  });
  name.value = chosen.name || 'demo';
  const nameProblem = h('p', { class: 'hint bad', id: 'stream-problem', role: 'status' });
  const size = select('size', Object.keys(sizes).map((key) => [key, `${key}p`]), () => openMedia());
  const limit = select('limit', limits, () => applyLimit());
  const codec = select('codec', [['', 'automatic'], ...videoCodecs().map((c) => [c, c])]);
  const through = select('through', [['', 'this node']]);

  function select(id, options, onchange) {
    const el = h('select', {
      id,
      onchange: () => {
        chosen[id] = el.value;
        onchange?.();
      },
    }, options.map(([value, label]) => h('option', { value, selected: String(value) === chosen[id] }, label)));
    return el;
  }

  const camera = new Choice('camera', () => openMedia());
  const microphone = new Choice('microphone', () => openMedia());
  const deviceHint = h('p', { class: 'hint', id: 'device-hint', role: 'status' });
  const deviceFields = h('div', { class: 'devices', hidden: true },
    h('div', { class: 'pair' }, field('camera', 'Camera', camera.el), field('microphone', 'Microphone', microphone.el)), deviceHint);
  const level = new Level();
  const mute = h('button', { class: 'button small', id: 'mute', type: 'button', onclick: () => setMuted(!chosen.muted) });
  const soundRow = h('div', { class: 'sound-row', hidden: true }, mute, level.el);

  const start = h('button', { class: 'button primary', id: 'start', type: 'submit' }, 'Start publishing');
  const stop = h('button', { class: 'button danger', id: 'stop', type: 'button', hidden: true, onclick: () => finish() }, icon('stop'), 'Stop');
  const form = h('form', {
    class: 'card form', novalidate: true, 'aria-labelledby': 'form-title',
    onsubmit: (event) => {
      event.preventDefault();
      begin();
    },
  },
  h('h2', { id: 'form-title' }, 'What to send'),
  h('fieldset', { class: 'choices', id: 'sources' }, h('legend', {}, 'Source'), h('div', { class: 'segments' }, radios)),
  noDevices,
  deviceFields,
  soundRow,
  field('stream', 'Stream name', name, nameProblem),
  h('div', { class: 'pair' }, field('size', 'Picture', size), field('limit', 'Bitrate limit', limit)),
  h('div', { class: 'pair' }, field('codec', 'Video codec', codec), field('through', 'Publish at', through)),
  h('div', { class: 'actions' }, start, stop));

  // The preview and what is known about the session.

  const video = h('video', { id: 'preview', muted: true, autoplay: true, playsinline: true, 'aria-label': 'Preview of what is sent' });
  video.muted = true; // the attribute alone does not mute an element made by script
  const note = h('p', { class: 'screen-note', hidden: true });
  const sign = h('span', { class: 'on-air', hidden: true });
  const status = h('p', { class: 'status', id: 'status', role: 'status' });
  const link = h('a', { href: '/', id: 'viewer-link' });
  const linkRow = h('div', { class: 'link-row', hidden: true }, h('span', { class: 'label' }, 'Viewers open'), link, copyButton('Copy the viewers’ link', () => link.href),
    h('span', { class: 'label' }, 'A line for your own page'), copyButton('Copy a line for your own page', pageLine));
  const servedBy = h('p', { class: 'served', id: 'served', hidden: true });
  const figures = board('Live figures of what is sent', [
    ['bitrate', 'Bitrate', 'audio and video, sent'],
    ['resolution', 'Resolution', 'as encoded'],
    ['fps', 'Frames/s', 'encoded'],
    ['rtt', 'Round trip', 'to the node'],
    ['loss', 'Loss', 'as the node reports it'],
    ['nacks', 'NACKs', 'packets asked for again'],
    ['plis', 'PLIs', 'key frames asked for'],
    ['codec', 'Codec', ''],
  ]);
  const spark = sparkline('Bitrate during the last minute');
  const figuresBox = h('div', { class: 'figures', hidden: true }, figures.el, spark.el);
  const el = h('div', { class: 'session-page' },
    h('div', { class: 'lead' }, h('h1', { class: 'headline' }, 'Publish'), h('p', { class: 'subline' }, 'Send a stream into the network by WHIP. A node that is full hands you on to one with room.')),
    h('div', { class: 'stage' },
      h('section', { class: 'card screen-card', 'aria-label': 'Preview' },
        h('div', { class: 'screen' }, video, note, sign), status, linkRow, servedBy,
        figuresBox),
      form));

  // pageLine shows the stream in any page.
  function pageLine() {
    const src = `${location.origin}/whep/${streamPath(chosen.name)}`;
    return `<script type="module" src="${location.origin}/weir-player.js"></script><weir-player src="${src}" muted></weir-player>`;
  }

  function checkName(typing) {
    const problem = streamProblem(name.value.trim());
    chosen.name = name.value.trim();
    text(nameProblem, typing && !name.value ? '' : problem);
    attr(name, 'aria-invalid', problem && !(typing && !name.value) ? 'true' : null);
    return !problem;
  }

  function choose(source) {
    chosen.source = source;
    showFields();
    openMedia();
  }

  // showFields shows what there is to set of the source. It does not wait for a
  // camera: nothing may move under the pointer when that opens, or a click on
  // the start is lost.
  function showFields() {
    const [sound] = media?.stream.getAudioTracks() ?? [];
    const isCamera = chosen.source === 'camera';
    deviceFields.hidden = !isCamera;
    soundRow.hidden = isCamera ? microphone.wanted === NONE : !sound;
    mute.disabled = !sound;
  }

  // openMedia previews the chosen source. Of several calls the last wins. The
  // screen is asked for only on start: the browser wants a click for it.
  function openMedia(asked = false) {
    opened = tryMedia(asked);
    return opened;
  }

  async function tryMedia(asked) {
    const mine = ++opening;
    const [width, height] = sizes[size.value];
    let next = null;
    let why = '';
    try {
      if (chosen.source === 'pattern') next = startPattern({ width, height });
      else if (chosen.source === 'camera') {
        say('Asking for the camera…');
        next = tracks(await cameraStream(width, height));
      } else if (asked) {
        next = tracks(await devices.getDisplayMedia({ video: { height: { max: height }, frameRate: { max: 30 } }, audio: true }));
      } else why = 'The browser asks which screen or window when you start.';
    } catch (error) {
      why = mediaProblem(chosen.source, error);
    }
    if (mine !== opening) {
      next?.stop();
      return false;
    }
    if (connection && !next) { // what is being sent goes on
      say(why, 'bad');
      listDevices();
      return false;
    }
    const old = media;
    media = next;
    useTracks(old);
    old?.stop();
    video.srcObject = next?.stream ?? null;
    note.hidden = !why;
    text(note, why);
    if (!connection) say('');
    return Boolean(next);
  }

  // useTracks sends and shows the tracks that there are now. Another camera or
  // microphone takes the old one's place without a new session.
  function useTracks(old) {
    const stream = media?.stream;
    for (const sender of connection?.pc?.getSenders() ?? []) {
      const kind = sender.track?.kind ?? sentKinds.get(sender);
      if (!kind) continue;
      sentKinds.set(sender, kind);
      if (old) sender.replaceTrack(stream?.getTracks().find((t) => t.kind === kind) ?? null).catch((error) => say(`The ${kind} could not be changed: ${error.message}`, 'bad'));
    }
    const [sound] = stream?.getAudioTracks() ?? [];
    level.watch(sound, () => chosen.muted, chosen.source === 'camera');
    showFields();
    setMuted(chosen.muted);
    listDevices();
  }

  function setMuted(muted) {
    chosen.muted = muted;
    for (const track of media?.stream.getAudioTracks() ?? []) track.enabled = !muted;
    attr(mute, 'aria-pressed', String(muted));
    const label = muted ? 'Unmute' : 'Mute';
    children(mute, [icon(muted ? 'silent' : 'microphone'), h('span', {}, label)]);
    attr(mute, 'title', `${label} (m)`);
    video.toggleAttribute('data-muted', muted);
  }

  // listDevices offers what there is. Browsers tell names only once a device has
  // been allowed.
  async function listDevices() {
    if (chosen.source !== 'camera' || !devices?.enumerateDevices) return;
    const all = await devices.enumerateDevices();
    const inUse = (kind) => media?.stream.getTracks().find((t) => t.kind === kind)?.getSettings().deviceId ?? '';
    const others = [[camera, 'videoinput', 'video', 'camera'], [microphone, 'audioinput', 'audio', 'microphone']]
      .filter(([choice, kind, track]) => choice.offer(all.filter((d) => d.kind === kind), inUse(track)))
      .map(([, , , word]) => word);
    text(deviceHint, others.length ? `The ${others.join(' and the ')} chosen before ${others.length > 1 ? 'are' : 'is'} not here, so the browser took another.` : '');
  }

  async function cameraStream(width, height, any = false) {
    const picture = { width: { ideal: width }, height: { ideal: height }, frameRate: { ideal: 30 }, ...camera.constraint(any) };
    try {
      return await devices.getUserMedia({ video: picture, audio: microphone.constraint(any) });
    } catch (error) {
      if (error.name === 'OverconstrainedError' && !any) return cameraStream(width, height, true);
      // A camera without a microphone is still worth publishing.
      if (error.name !== 'NotFoundError' || microphone.wanted === NONE) throw error;
      return devices.getUserMedia({ video: picture });
    }
  }

  function tracks(stream) {
    const [track] = stream.getVideoTracks();
    if (track && chosen.source === 'screen') track.contentHint = 'detail';
    // The browser's own "stop sharing" ends the publication too.
    track?.addEventListener('ended', () => media?.stream === stream && finish('The source has ended.'));
    stream.getAudioTracks()[0]?.addEventListener('ended', () => media?.stream === stream && say('The microphone has gone: choose another.', 'bad'));
    return { stream, stop: () => stream.getTracks().forEach((t) => t.stop()) };
  }

  async function begin() {
    if (connection) return;
    if (!checkName(false)) {
      name.focus();
      return;
    }
    start.disabled = true;
    try {
      // What is being opened is what the person wants to send.
      for (let waited = null; waited !== opened;) {
        waited = opened;
        await waited;
      }
      if (!media && !(await openMedia(true))) return;
      if (media.sound) {
        media.sound();
        useTracks(null);
      }
    } finally {
      start.disabled = false;
    }
    const base = chosen.through || location.origin;
    liveUntil = -Infinity;
    connection = new Connection({
      endpoint: `${base}/whip/${streamPath(chosen.name)}`,
      elsewhere: () => elsewhere(model, chosen.name).map((other) => `${other}/whip/${streamPath(chosen.name)}`),
      token: tokenFor,
      prepare,
      edit: stereo,
      onChange: changed,
      // 409: somebody else publishes under this name; that needs a person, unless
      // it is what is left of our own session at a node that has gone.
      retryOn: (code) => code === 429 || code >= 500
        || (code === 409 && performance.now() - liveUntil < OWN_NAME),
    });
    spark.clear();
    figures.set({});
    lock(true);
    connection.start();
  }

  function prepare(pc) {
    const most = Number(limit.value) * 1000;
    for (const track of media.stream.getTracks()) {
      const isVideo = track.kind === 'video';
      const transceiver = pc.addTransceiver(track, {
        direction: 'sendonly', streams: [media.stream], sendEncodings: [isVideo && most ? { maxBitrate: most } : {}],
      });
      if (isVideo && chosen.codec) prefer(transceiver, chosen.codec);
    }
  }

  async function applyLimit() {
    const sender = connection?.pc?.getSenders().find((s) => s.track?.kind === 'video');
    if (!sender) return;
    const parameters = sender.getParameters();
    for (const encoding of parameters.encodings) {
      if (Number(limit.value)) encoding.maxBitrate = Number(limit.value) * 1000;
      else delete encoding.maxBitrate;
    }
    // It fails only if the session ended meanwhile; the next one reads the limit.
    await sender.setParameters(parameters).catch(() => {});
  }

  // lock holds what cannot change during a session; bitrate can.
  function lock(on) {
    for (const input of [name, size, codec, through, ...radios.map((r) => r.firstChild)]) {
      input.disabled = on || (input.name === 'source' && !sources.find(([value]) => value === input.value)[2]);
    }
    // A session that was begun without sound has no place for any.
    microphone.el.disabled = on && !media?.stream.getAudioTracks().length;
    start.hidden = on;
    stop.hidden = figuresBox.hidden = !on;
  }

  function finish(why = '') {
    const ended = connection;
    connection = null;
    ended?.stop();
    if (chosen.source === 'screen') {
      media?.stop();
      media = null;
      video.srcObject = null;
      openMedia();
    }
    Object.assign(out, { state: 'stopped', sessionURL: '', node: '' });
    lock(false);
    sign.hidden = linkRow.hidden = servedBy.hidden = true;
    say(why || 'Stopped. The node has let the stream go.');
    if (el.isConnected) start.focus();
    else unseen = `${chosen.name} is no longer live`;
    onLive();
  }

  function changed(c) {
    if (c !== connection && connection) return;
    Object.assign(out, { state: c.state, sessionURL: c.sessionURL, error: c.problem?.message ?? '' });
    const live = c.state === 'live';
    if (live) liveSince = performance.now();
    sign.hidden = !live;
    linkRow.hidden = !live;
    if (live) {
      link.href = `${location.origin}/play/${streamPath(chosen.name)}`;
      text(link, link.href.replace(/^https?:\/\//, ''));
    }
    showNode();
    if (c.state === 'failed') {
      connection = null;
      c.stop();
      lock(false);
      if (!el.isConnected) unseen = `${chosen.name} is no longer live`;
      // A weir node says itself what to do about a name that is taken.
      say(c.problem.status === 409 && !c.problem.code ? `${sentence(c.problem.message)} Choose another name, or try again later.` : c.problem.message, 'bad');
    } else if (c.state !== 'stopped') sayState();
    onLive();
  }

  function sayState() {
    if (!connection) return;
    const { state, problem, retryAt } = connection;
    if (state === 'connecting') say(connection.sessionURL ? 'Connecting…' : 'Offering the stream to the node…');
    else if (state === 'live') say(`You are live as “${chosen.name}”.`, 'good');
    else if (state === 'waiting') say(`${sentence(problem.message)} Trying again in ${Math.max(1, Math.ceil((retryAt - performance.now()) / 1000))} s.`, 'bad');
  }

  function say(words, how = '') {
    text(status, words);
    attr(status, 'data-how', how || null);
  }

  function showNode() {
    const url = connection?.sessionURL;
    servedBy.hidden = !url;
    if (!url) return;
    const node = nodeAt(model, url);
    out.node = node?.id ?? '';
    const asked = originOf(connection.endpoint);
    const at = node ? [h('strong', {}, node.label), node.region ? ` in ${node.region}` : ''] : [h('strong', {}, originOf(url))];
    const moved = originOf(url) !== asked;
    const words = h('span', {}, 'Published at ', ...at, node?.self ? ', this node.' : moved ? `: ${new URL(asked).host} handed you on to it.` : '.');
    if (servedBy.textContent !== words.textContent) children(servedBy, [words]);
  }

  const sampling = setInterval(async () => {
    if (connection?.state === 'waiting') sayState();
    const now = await meter.sample(connection?.pc);
    if (!now || connection?.state !== 'live') return;
    liveUntil = now.at;
    connection.heed(now.heard, now.at);
    out.framesEncoded = now.framesEncoded;
    out.bytesSent = now.sent;
    text(sign, `Live ${clock((performance.now() - liveSince) / 1000)}${chosen.muted && !mute.disabled ? ' · muted' : ''}`);
    figures.set({
      bitrate: bits(now.bitrateOut),
      resolution: now.width ? `${now.width} × ${now.height}` : '–',
      fps: Number.isFinite(now.fps) ? Math.round(now.fps) : '–',
      rtt: ms(now.rtt * 1000),
      loss: percent(now.remoteLost),
      nacks: now.nacks,
      plis: now.plis,
      codec: now.codecs.join(', ') || '–',
    });
    spark.add(now.bitrateOut);
  }, SAMPLE);

  const keys = (event) => {
    if (!el.isConnected || mute.disabled || event.key.toLowerCase() !== 'm' || event.repeat || event.ctrlKey || event.metaKey || event.altKey) return;
    if (event.target.closest('input:not([type=radio]), textarea, select')) return;
    setMuted(!chosen.muted);
    event.preventDefault();
  };
  document.addEventListener('keydown', keys);
  devices?.addEventListener('devicechange', listDevices);

  openMedia();
  return {
    title: 'Publish',
    el,
    update(next) {
      model = next;
      if (el.isConnected) unseen = '';
      offerNodes(through, model, chosen.through);
      showNode();
    },
    live: () => (connection ? `${connection.state === 'live' ? 'Live as' : 'Publishing'} ${chosen.name}` : unseen),
    leave() {
      clearInterval(sampling);
      connection?.stop();
      connection = null;
      opening++;
      media?.stop();
      level.close();
      document.removeEventListener('keydown', keys);
      devices?.removeEventListener('devicechange', listDevices);
    },
  };
}

// sentence ends what a node said with a full stop, so that more can follow.
const sentence = (words) => (/[.!?]$/.test(words) ? words : `${words}.`);

// field labels an input.
export function field(id, label, input, ...after) {
  return h('div', { class: 'field' }, h('label', { for: id }, label), input, ...after);
}

// offerNodes lists the nodes that a session can be opened at. "This node" is
// where the page came from.
export function offerNodes(select, model, current) {
  const others = [...model.nodes.values()].filter((n) => n.url && !n.self && n.valid);
  others.sort((a, b) => compare(a.label, b.label));
  const wanted = [['', 'this node'], ...others.map((n) => [n.url, [n.label, n.region].filter(Boolean).join(', ')])];
  if (current && !wanted.some(([url]) => url === current)) wanted.push([current, originOf(current)]);
  const key = JSON.stringify(wanted);
  if (select.dataset.options === key) return;
  select.dataset.options = key;
  select.replaceChildren(...wanted.map(([value, label]) => h('option', { value, selected: value === current }, label)));
}

function videoCodecs() {
  const names = (RTCRtpSender.getCapabilities?.('video')?.codecs ?? []).map((c) => c.mimeType.split('/')[1]);
  return ['VP8', 'H264', 'VP9', 'AV1', 'H265'].filter((name) => names.includes(name));
}

// prefer puts one codec first and keeps the others as a fallback.
function prefer(transceiver, name) {
  const { codecs } = RTCRtpSender.getCapabilities('video');
  const first = codecs.filter((c) => c.mimeType === `video/${name}`);
  transceiver.setCodecPreferences?.([...first, ...codecs.filter((c) => !first.includes(c))]);
}
